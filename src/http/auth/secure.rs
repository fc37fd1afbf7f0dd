//! Who calls on the secure port.

use super::delegated::{AllowedPaths, Delegated};
use super::{Caller, Guesses};
use crate::clock::Clock;
use crate::http::connection::Peer;
use crate::http::credentials::{Checked, Credentials, bearer};
use crate::http::error::ApiError;
use crate::http::identity::{FrontProxy, strip_default_headers};
use crate::http::trust::Trust;
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::user::{ANONYMOUS, Identity, MASTERS};
use crate::store::Scope;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use tracing::debug;

/// How the secure port authenticates and authorises; the state of [`secure_auth`].
#[derive(Clone)]
pub struct SecureAuth {
    trust: Arc<Trust>,
    credentials: Option<Arc<Credentials>>,
    clock: Arc<dyn Clock>,
    delegated: Option<Delegated>,
    allowed_paths: AllowedPaths,
    guesses: Arc<Guesses>,
}

impl SecureAuth {
    /// By this front proxy, by these static credentials, or by either. With neither, nobody gets in.
    #[must_use]
    pub fn new(
        front_proxy: Option<Arc<FrontProxy>>,
        credentials: Option<Arc<Credentials>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            trust: Arc::new(Trust::of_front_proxy(front_proxy)),
            credentials,
            clock,
            delegated: None,
            allowed_paths: AllowedPaths::default(),
            guesses: Arc::default(),
        }
    }

    /// By these authorities instead of the one front proxy.
    #[must_use]
    pub fn trusting(self, trust: Arc<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// And by the tokens that kube-apiserver knows, for what it allows.
    #[must_use]
    pub fn delegating(self, delegated: Delegated) -> Self {
        Self { delegated: Some(delegated), ..self }
    }

    /// With these paths for anyone, instead of the probes.
    #[must_use]
    pub fn allowing(self, allowed_paths: AllowedPaths) -> Self {
        Self { allowed_paths, ..self }
    }

    /// In kube-apiserver's order: a front proxy's word, a user's certificate, credentials, nobody's.
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identified>, ApiError> {
        let certificates = request.extensions.get::<Peer>().and_then(|peer| peer.certificates.as_deref());
        let by_certificate = certificates.map(|chain| self.by_certificate(chain, request));
        if let Some(Ok(identified)) = by_certificate {
            return Ok(Some(identified));
        }
        let guess = self.guesses.admit(request)?;
        let by_credential = match guess {
            None => Ok(None),
            Some(guess) => match self.by_credential(request).await {
                Ok(Some(identified)) => {
                    self.guesses.right(&guess);
                    Ok(Some(identified))
                }
                Ok(None) => {
                    self.guesses.wrong(&guess);
                    Err("these credentials are not known here".to_owned())
                }
                Err(reason) => Err(reason),
            },
        };
        match (by_credential, by_certificate) {
            (Ok(Some(identified)), _) => Ok(Some(identified)),
            (_, Some(Err(reason))) | (Err(reason), _) => {
                debug!(%reason, "not authenticated");
                Err(ApiError::new(StatusCode::UNAUTHORIZED, format!("Unauthorized: {reason}")))
            }
            (Ok(None), _) => Ok(None),
        }
    }

    fn by_certificate(
        &self,
        chain: &[rustls::pki_types::CertificateDer<'static>],
        request: &Parts,
    ) -> Result<Identified, String> {
        let now_ms = self.clock.now_ms();
        let reason = match self.trust.front_proxy() {
            Some(front_proxy) => match front_proxy.identify(chain, &request.headers, now_ms) {
                Ok(identity) => return Ok(Identified::FrontProxy(identity)),
                Err(reason) => reason.to_string(),
            },
            None => "client certificates are not accepted: no --requestheader-client-ca-file".to_owned(),
        };
        match self.trust.client_ca().map(|client_ca| client_ca.identify(chain, now_ms)) {
            Some(Ok(identity)) => Ok(Identified::User(Arc::new(identity))),
            Some(Err(of_user)) => Err(format!("{reason}; nor a user's: {of_user}")),
            None => Err(reason),
        }
    }

    async fn by_credential(&self, request: &Parts) -> Result<Option<Identified>, String> {
        if let Some(credentials) = &self.credentials
            && let Checked::Known(caller) = credentials.check(&request.headers)
        {
            return Ok(Some(Identified::Credential(caller)));
        }
        let (Some(delegated), Some(token)) = (&self.delegated, bearer(&request.headers)) else {
            return Ok(None);
        };
        let user = delegated.user_of(token).await.map_err(|error| error.to_string())?;
        Ok(user.map(Identified::User))
    }

    /// What an identified caller may do, for this request.
    async fn authorize(&self, identified: &Identified, request: &Parts) -> Result<Caller, ApiError> {
        let path = request.uri.path();
        let allowed_to_all = self.allowed_paths.allow(path);
        let identity: &Identity = match identified {
            Identified::Credential(caller) if caller.read || allowed_to_all => {
                return Ok(Caller { write: false, ..caller.clone() });
            }
            Identified::Credential(caller) => return Err(forbidden(request, &caller.user)),
            Identified::FrontProxy(identity) => identity,
            Identified::User(identity) => identity,
        };
        match (&self.delegated, identified) {
            _ if allowed_to_all => {}
            (Some(delegated), _) => delegated.authorize(identity, &request.method, path).await?,
            // Without a cluster to ask: kube-apiserver authorised the request before it passed it on.
            (None, Identified::FrontProxy(_)) => {}
            (None, _) if identity.is_in(MASTERS) => {}
            (None, _) => return Err(forbidden(request, &identity.user)),
        }
        Ok(Caller {
            user: identity.user.clone(),
            groups: identity.groups.clone(),
            // The request as a whole was authorised, the namespace of its path with it.
            scope: Scope::All,
            read: true,
            write: false,
        })
    }
}

/// By what a caller of the secure port is known.
enum Identified {
    /// A front proxy's word.
    FrontProxy(Identity),
    /// A certificate or a token of their own.
    User(Arc<Identity>),
    /// Static credentials.
    Credential(Caller),
}

/// Lets a request of the secure port through with its [`Caller`] (and [`Identity`], unless it comes from
/// static credentials), or answers 401 (a bad certificate or credential), 403 (none, or one that may not
/// do this), 429 or 503. Nobody writes here yet. Paths for anyone pass.
pub async fn secure_auth(State(auth): State<SecureAuth>, request: Request, next: Next) -> Response {
    let (mut request, body) = request.into_parts();
    let identified = auth.authenticate(&request).await;
    let allowed_to_all = auth.allowed_paths.allow(request.uri.path());
    if let Some(front_proxy) = auth.trust.front_proxy() {
        front_proxy.strip(&mut request.headers);
    }
    strip_default_headers(&mut request.headers);
    request.headers.remove(header::AUTHORIZATION);
    let identified = match identified {
        Ok(Some(identified)) => identified,
        _ if allowed_to_all => return next.run(Request::from_parts(request, body)).await,
        Ok(None) => return forbidden(&request, ANONYMOUS).into_status(),
        Err(error) => return error.into_status(),
    };
    match auth.authorize(&identified, &request).await {
        Ok(caller) => request.extensions.insert(caller),
        Err(error) => return error.into_status(),
    };
    match identified {
        Identified::FrontProxy(identity) => request.extensions.insert(identity),
        Identified::User(identity) => request.extensions.insert(identity.as_ref().clone()),
        Identified::Credential(_) => None,
    };
    next.run(Request::from_parts(request, body)).await
}

fn forbidden(request: &Parts, user: &str) -> ApiError {
    let attributes = RequestAttributes::of(request.method.as_str(), request.uri.path());
    ApiError::new(StatusCode::FORBIDDEN, attributes.forbidden(user))
}
