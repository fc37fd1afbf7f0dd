//! Who calls, and what they may do.
//!
//! Two layers put a [`Caller`] into each request or answer it themselves: [`plain_auth`] by static
//! credentials, [`secure_auth`] by what a verified front proxy says. How to build a listener with
//! them: [`super::server`].

use super::connection::Peer;
use super::credentials::{Checked, Credentials};
use super::error::ApiError;
use super::identity::{ANONYMOUS, FrontProxy, Identity, strip_default_headers};
use crate::clock::Clock;
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::store::Scope;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use tracing::debug;

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

    /// Until delegated authorisation exists, a user of a verified front proxy may read everything:
    /// kube-apiserver authorised the request before it passed it on.
    fn behind_front_proxy(identity: &Identity) -> Self {
        Self {
            user: identity.user.clone(),
            groups: identity.groups.clone(),
            scope: Scope::All,
            read: true,
            write: false,
        }
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

/// How the plain port authenticates; the state of [`plain_auth`].
#[derive(Clone)]
pub struct PlainAuth {
    credentials: Option<Arc<Credentials>>,
}

impl PlainAuth {
    /// By these credentials; `None`: anyone may do all, which
    /// [`check_bind`](super::credentials::check_bind) allows on loopback only.
    #[must_use]
    pub fn new(credentials: Option<Arc<Credentials>>) -> Self {
        Self { credentials }
    }
}

/// Lets a request of the plain port through with its [`Caller`], or answers 401. Probes pass, with
/// nobody as their caller.
pub async fn plain_auth(State(auth): State<PlainAuth>, mut request: Request, next: Next) -> Response {
    let Some(credentials) = &auth.credentials else {
        if is_of_another_site(&request) {
            let message = "a web page of another site may not call here: configure --credentials-file";
            return refuse(request.uri().path(), ApiError::new(StatusCode::FORBIDDEN, message));
        }
        request.extensions_mut().insert(Caller::local());
        return next.run(request).await;
    };
    let checked = credentials.check(request.headers());
    // Nothing behind needs it, so nothing behind can log it.
    request.headers_mut().remove(header::AUTHORIZATION);
    let refusal = match checked {
        Checked::Known(caller) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Checked::None => "no credentials: send Authorization: Bearer TOKEN, or Basic",
        Checked::Unknown => "these credentials are not known here",
    };
    let path = request.uri().path();
    if path == "/health" || is_probe(path) {
        return next.run(request).await;
    }
    let error = ApiError {
        code: StatusCode::UNAUTHORIZED,
        message: refusal.to_owned(),
        headers: vec![
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lookback\"")),
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"lookback\"")),
        ],
    };
    refuse(path, error)
}

/// An error in the dialect of a path of the plain port.
fn refuse(path: &str, error: ApiError) -> Response {
    if path.starts_with("/api/") { error.into_prometheus() } else { error.into_status() }
}

/// Whether a browser sends this on behalf of a page that was not loaded from here. Loopback is no bound
/// for those: any page that is open on this machine can post to it.
fn is_of_another_site(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let here = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    from.is_none() || from != here
}

/// How the secure port authenticates; the state of [`secure_auth`].
#[derive(Clone)]
pub struct SecureAuth {
    front_proxy: Option<Arc<FrontProxy>>,
    credentials: Option<Arc<Credentials>>,
    clock: Arc<dyn Clock>,
}

impl SecureAuth {
    /// By this front proxy, by these static credentials, or by either. With neither, nobody gets in.
    #[must_use]
    pub fn new(
        front_proxy: Option<Arc<FrontProxy>>,
        credentials: Option<Arc<Credentials>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { front_proxy, credentials, clock }
    }

    /// In kube-apiserver's order: a front proxy's word, then credentials, then nobody's.
    fn authenticate(&self, request: &Request) -> Result<Option<Identified>, String> {
        let certificates = request.extensions().get::<Peer>().and_then(|peer| peer.certificates.as_deref());
        let by_certificate = certificates.map(|chain| match &self.front_proxy {
            Some(proxy) => proxy
                .identify(chain, request.headers(), self.clock.now_ms())
                .map_err(|error| error.to_string()),
            None => Err("client certificates are not accepted: no --requestheader-client-ca-file".to_owned()),
        });
        if let Some(Ok(identity)) = by_certificate {
            return Ok(Some(Identified::FrontProxy(identity)));
        }
        let by_credential = match &self.credentials {
            Some(credentials) => credentials.check(request.headers()),
            None if request.headers().contains_key(header::AUTHORIZATION) => Checked::Unknown,
            None => Checked::None,
        };
        match (by_credential, by_certificate) {
            (Checked::Known(caller), _) => Ok(Some(Identified::Credential(caller))),
            (_, Some(Err(reason))) => Err(reason),
            (Checked::Unknown, _) => Err("these credentials are not known here".to_owned()),
            (Checked::None, _) => Ok(None),
        }
    }
}

/// By what a caller of the secure port is known.
enum Identified {
    FrontProxy(Identity),
    Credential(Caller),
}

/// Lets a request of the secure port through with its [`Caller`] (and [`Identity`], if a front proxy
/// told it), or answers 401 (a bad certificate or credential) or 403 (none, or one that may not
/// read). Nobody writes here yet. Probes pass.
pub async fn secure_auth(State(auth): State<SecureAuth>, mut request: Request, next: Next) -> Response {
    let identified = auth.authenticate(&request);
    match &auth.front_proxy {
        Some(proxy) => proxy.strip(request.headers_mut()),
        None => strip_default_headers(request.headers_mut()),
    }
    request.headers_mut().remove(header::AUTHORIZATION);
    let probe = is_probe(request.uri().path());
    let caller = match identified {
        Ok(Some(Identified::FrontProxy(identity))) => {
            let caller = Caller::behind_front_proxy(&identity);
            request.extensions_mut().insert(identity);
            caller
        }
        Ok(Some(Identified::Credential(caller))) => Caller { write: false, ..caller },
        _ if probe => return next.run(request).await,
        Ok(None) => return forbidden(&request, ANONYMOUS),
        Err(reason) => {
            debug!(%reason, "not authenticated");
            return ApiError::new(StatusCode::UNAUTHORIZED, format!("Unauthorized: {reason}")).into_status();
        }
    };
    if !caller.read && !probe {
        return forbidden(&request, &caller.user);
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn forbidden(request: &Request, user: &str) -> Response {
    let attributes = RequestAttributes::of(request.method().as_str(), request.uri().path());
    ApiError::new(StatusCode::FORBIDDEN, attributes.forbidden(user)).into_status()
}

/// Whether a path is asked by probes, which have no identity; exactly these, as in Kubernetes.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz")
}
