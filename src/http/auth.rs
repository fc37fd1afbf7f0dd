//! Who calls, and what they may do.
//!
//! Two layers put a [`Caller`] into each request or answer it themselves: [`plain_auth`] on the plain
//! port, [`secure_auth`] on the secure one. How to build a listener with them: [`super::server`].
//!
//! ```text
//!              who is it?                                        what may they do?
//! plain port   static credentials → ServiceAccount token         the entry's rights; or SubjectAccessReview
//! secure port  front proxy → client certificate → static         SubjectAccessReview of the request, as
//!              credentials → token (TokenReview) → nobody        kube-apiserver's own library asks it
//! ```

mod delegated;
mod guesses;
mod plain;
mod secure;

pub use delegated::{AllowedPaths, Delegated};
pub use guesses::Guesses;
pub use plain::{PlainAuth, plain_auth};
pub use secure::{SecureAuth, secure_auth};

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

    /// Refuses callers who may not read.
    ///
    /// # Errors
    /// 403.
    pub fn require_read(&self) -> Result<(), ApiError> {
        self.require(self.read, "read")
    }

    /// Refuses callers who may not write.
    ///
    /// # Errors
    /// 403.
    pub fn require_write(&self) -> Result<(), ApiError> {
        self.require(self.write, "write")
    }

    fn require(&self, allowed: bool, verb: &str) -> Result<(), ApiError> {
        let message = || format!("user {:?} may not {verb}", self.user);
        if allowed { Ok(()) } else { Err(ApiError::new(StatusCode::FORBIDDEN, message())) }
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
