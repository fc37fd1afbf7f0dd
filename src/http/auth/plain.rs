//! Who calls on the plain port.

use super::delegated::{Delegated, unavailable};
use super::{Caller, Guesses};
use crate::http::credentials::{Checked, Credentials, bearer};
use crate::http::error::ApiError;
use crate::kubernetes::user::Identity;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// How the plain port authenticates; the state of [`plain_auth`].
#[derive(Clone)]
pub struct PlainAuth {
    credentials: Option<Arc<Credentials>>,
    delegated: Option<Delegated>,
    guesses: Arc<Guesses>,
    /// Whether a request without credentials may do all.
    open: bool,
}

impl PlainAuth {
    /// By these credentials; `None`: anyone may do all, which
    /// [`check_bind`](crate::http::credentials::check_bind) allows on loopback only.
    #[must_use]
    pub fn new(credentials: Option<Arc<Credentials>>) -> Self {
        let open = credentials.is_none();
        Self { credentials, delegated: None, guesses: Arc::default(), open }
    }

    /// And by the tokens that kube-apiserver knows. Who has none may no longer do anything, unless
    /// `trust_loopback` says that reaching a loopback port is credential enough.
    #[must_use]
    pub fn delegating(self, delegated: Delegated, trust_loopback: bool) -> Self {
        Self { delegated: Some(delegated), open: self.open && trust_loopback, ..self }
    }

    async fn identify(&self, request: &Parts) -> Identified {
        let checked = match &self.credentials {
            Some(credentials) => credentials.check(&request.headers),
            None if request.headers.contains_key(header::AUTHORIZATION) => Checked::Unknown,
            None => Checked::None,
        };
        let token = match (checked, &self.delegated) {
            (Checked::Known(caller), _) => return Identified::Caller(caller),
            (Checked::None, _) => return Identified::Nobody,
            (Checked::Unknown, Some(delegated)) => {
                bearer(&request.headers).map(|token| delegated.user_of(token))
            }
            (Checked::Unknown, None) => None,
        };
        match token {
            None => Identified::Unknown,
            Some(review) => match review.await {
                Ok(Some(user)) => Identified::User(user),
                Ok(None) => Identified::Unknown,
                Err(error) => Identified::NotNow(unavailable(&error)),
            },
        }
    }

    /// The caller of a request, or why there is none. A wrong credential is counted.
    async fn caller(&self, request: &Parts) -> Result<Caller, ApiError> {
        let Some(guess) = self.guesses.admit(request)? else {
            return Err(unauthorized("no credentials: send Authorization: Bearer TOKEN, or Basic"));
        };
        match self.identify(request).await {
            Identified::Caller(caller) => {
                self.guesses.right(&guess);
                Ok(caller)
            }
            Identified::User(user) => {
                self.guesses.right(&guess);
                match &self.delegated {
                    Some(delegated) => delegated.plain_caller(&user, request).await,
                    None => Err(unauthorized("these credentials are not known here")),
                }
            }
            Identified::NotNow(error) => Err(error),
            Identified::Nobody | Identified::Unknown => {
                self.guesses.wrong(&guess);
                Err(unauthorized("these credentials are not known here"))
            }
        }
    }
}

/// What a request's credentials are worth.
enum Identified {
    Caller(Caller),
    User(Arc<Identity>),
    Nobody,
    Unknown,
    NotNow(ApiError),
}

/// What anyone may get.
const PROBES: [&str; 6] = ["/health", "/healthz", "/livez", "/readyz", "/-/healthy", "/-/ready"];

/// Lets a request of the plain port through with its [`Caller`], or answers 401, 403, 429 or 503. Probes
/// pass, with nobody as their caller.
pub async fn plain_auth(State(auth): State<PlainAuth>, request: Request, next: Next) -> Response {
    let (mut request, body) = request.into_parts();
    let has_credentials = request.headers.contains_key(header::AUTHORIZATION);
    let caller = if auth.open && !(has_credentials && auth.delegated.is_some()) {
        if is_of_another_site(&request) {
            let message = "a web page of another site may not call here: configure --credentials-file";
            return refuse(request.uri.path(), ApiError::new(StatusCode::FORBIDDEN, message));
        }
        Some(Ok(Caller::local()))
    } else if PROBES.contains(&request.uri.path()) {
        None
    } else {
        Some(auth.caller(&request).await)
    };
    // Nothing behind needs it, so nothing behind can log it.
    request.headers.remove(header::AUTHORIZATION);
    match caller {
        None => {}
        Some(Ok(caller)) => drop(request.extensions.insert(caller)),
        Some(Err(error)) => return refuse(request.uri.path(), error),
    }
    next.run(Request::from_parts(request, body)).await
}

fn unauthorized(message: &str) -> ApiError {
    ApiError {
        code: StatusCode::UNAUTHORIZED,
        message: message.to_owned(),
        headers: vec![
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lookback\"")),
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"lookback\"")),
        ],
    }
}

/// An error in the dialect of a path of the plain port.
fn refuse(path: &str, error: ApiError) -> Response {
    if path.starts_with("/api/") { error.into_prometheus() } else { error.into_status() }
}

/// Whether a browser sends this on behalf of a page that was not loaded from here. Loopback is no bound
/// for those: any page that is open on this machine can post to it.
fn is_of_another_site(request: &Parts) -> bool {
    let Some(origin) = request.headers.get(header::ORIGIN) else { return false };
    let here = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    from.is_none() || from != here
}
