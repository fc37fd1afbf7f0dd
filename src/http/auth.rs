//! Who calls, and what they may do.

use super::error::ApiError;
use crate::store::Scope;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

/// Who calls. Put into each request by the listener's authentication; handlers take it as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's name, for messages and logs.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Which namespaces' data.
    pub scope: Scope,
    /// Whether they may read.
    pub read: bool,
    /// Whether they may write.
    pub write: bool,
}

impl Caller {
    /// Anyone on a loopback listener without credentials configured: may do all.
    #[must_use]
    pub fn local() -> Self {
        Self { user: "local".to_owned(), groups: Vec::new(), scope: Scope::All, read: true, write: true }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = axum::response::Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // A listener that forgot to authenticate must not let anyone in.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            ApiError::new(StatusCode::UNAUTHORIZED, "this listener authenticates nobody").into_status()
        })
    }
}
