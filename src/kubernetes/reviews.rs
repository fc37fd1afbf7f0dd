//! What kube-apiserver says of a token, and of who may do what: TokenReview and SubjectAccessReview.
//!
//! invariant: a question that was not answered is never taken for a yes. Answers, good and bad, are
//! kept for [`KEPT`] at most, and as many as [`ENTRIES_MAX`]; a failure is not kept. The same question
//! asked by several requests at once is sent once.

use super::cluster::reasons;
use super::request_attributes::RequestAttributes;
use super::user::{Identity, MASTERS};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use moka::future::Cache;
use ring::digest::{Context, SHA256, digest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{info, warn};

/// How long an answer counts.
pub const KEPT: Duration = Duration::from_secs(10);
/// Most answers of each kind that are kept; past that the least asked for goes.
pub const ENTRIES_MAX: u64 = 10_000;
/// Most questions of each kind under way; more wait, within [`TIMEOUT`].
const UNDER_WAY_MAX: usize = 64;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest token that is sent for review, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReviewError {
    /// kube-apiserver can't be reached, or failed.
    #[error("kube-apiserver could not be asked ({what}): {reason}")]
    Failed {
        /// The kind of question.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("kube-apiserver did not answer within {TIMEOUT:?} ({0})")]
    TimedOut(&'static str),
}

/// A digest: neither tokens nor long lists of groups are kept.
type Key = [u8; 32];

/// Asks, and says once when that begins or ends to fail.
struct Asker {
    what: &'static str,
    room: Semaphore,
    failing: AtomicBool,
}

impl Asker {
    fn new(what: &'static str) -> Self {
        Self { what, room: Semaphore::new(UNDER_WAY_MAX), failing: AtomicBool::new(false) }
    }

    async fn ask<T, F>(&self, question: impl Fn() -> F) -> Result<T, ReviewError>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let what = self.what;
        let asking = async {
            let _permit = self.room.acquire().await;
            match question().await {
                // A kept connection may have been closed by the other side just now.
                Err(error) if !matches!(error, kube::Error::Api(_)) => question().await,
                answered => answered,
            }
        };
        let answer = match tokio::time::timeout(TIMEOUT, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ReviewError::Failed { what, reason: reasons(&error) }),
            Err(_) => Err(ReviewError::TimedOut(what)),
        };
        match &answer {
            Ok(_) if self.failing.swap(false, Ordering::Relaxed) => {
                info!(what, "kube-apiserver answers again")
            }
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                warn!(%error, "callers who are not known yet are refused until kube-apiserver answers");
            }
            _ => {}
        }
        answer
    }
}

/// Reviews tokens.
pub struct TokenReviews {
    api: Api<TokenReview>,
    asker: Asker,
    kept: Cache<Key, Option<Arc<Identity>>>,
}

impl TokenReviews {
    /// By this client. Answers count for `kept`, [`KEPT`] at most.
    #[must_use]
    pub fn new(client: Client, kept: Duration) -> Self {
        Self { api: Api::all(client), asker: Asker::new("TokenReview"), kept: cache(kept) }
    }

    /// Whose token it is; `None`: nobody's, or no longer.
    ///
    /// # Errors
    /// When kube-apiserver can't be asked.
    pub async fn review(&self, token: &str) -> Result<Option<Arc<Identity>>, ReviewError> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let mut key = Key::default();
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let ask = async { self.ask(token).await };
        self.kept.try_get_with(key, ask).await.map_err(|error| error.as_ref().clone())
    }

    async fn ask(&self, token: &str) -> Result<Option<Arc<Identity>>, ReviewError> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let status = self.asker.ask(|| self.api.create(&params, &review)).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.and_then(|user| {
            let name = user.username.filter(|name| !name.is_empty())?;
            let identity = Identity {
                user: name,
                uid: user.uid.filter(|uid| !uid.is_empty()),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            };
            Some(Arc::new(identity.authenticated()))
        }))
    }
}

/// Asks who may do what.
pub struct AccessReviews {
    api: Api<SubjectAccessReview>,
    asker: Asker,
    kept: Cache<Key, bool>,
}

impl AccessReviews {
    /// By this client. Answers count for `kept`, [`KEPT`] at most.
    #[must_use]
    pub fn new(client: Client, kept: Duration) -> Self {
        Self { api: Api::all(client), asker: Asker::new("SubjectAccessReview"), kept: cache(kept) }
    }

    /// Whether a user may do this. `system:masters` may.
    ///
    /// # Errors
    /// When kube-apiserver can't be asked.
    pub async fn allowed(&self, user: &Identity, what: &RequestAttributes) -> Result<bool, ReviewError> {
        if user.is_in(MASTERS) {
            return Ok(true);
        }
        let ask = async { self.ask(user, what).await };
        self.kept.try_get_with(key(user, what), ask).await.map_err(|error| error.as_ref().clone())
    }

    async fn ask(&self, user: &Identity, what: &RequestAttributes) -> Result<bool, ReviewError> {
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.user.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        match what {
            RequestAttributes::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { path: Some(path.clone()), verb: Some(verb.clone()) });
            }
            RequestAttributes::Resource(object) => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some(object.verb.clone()),
                    group: Some(object.group.clone()),
                    version: Some(object.version.clone()),
                    namespace: object.namespace.clone(),
                    resource: Some(object.resource.clone()),
                    subresource: object.subresource.clone(),
                    name: object.name.clone(),
                    ..ResourceAttributes::default()
                });
            }
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let params = PostParams::default();
        let status = self.asker.ask(|| self.api.create(&params, &review)).await?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

fn cache<V: Clone + Send + Sync + 'static>(kept: Duration) -> Cache<Key, V> {
    Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(kept.min(KEPT)).build()
}

/// Each part goes in with its length, so that no two questions have the same key.
fn key(user: &Identity, what: &RequestAttributes) -> Key {
    let mut context = Context::new(&SHA256);
    let mut add = |part: Option<&str>| {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        context.update(&length.to_le_bytes());
        context.update(part.unwrap_or_default().as_bytes());
    };
    add(Some(&user.user));
    add(user.uid.as_deref());
    user.groups.iter().for_each(|group| add(Some(group)));
    add(None);
    for (name, values) in &user.extra {
        add(Some(name));
        values.iter().for_each(|value| add(Some(value)));
        add(None);
    }
    add(None);
    match what {
        RequestAttributes::Path { verb, path } => [Some(verb), Some(path)].into_iter().for_each(|part| {
            add(part.map(String::as_str));
        }),
        RequestAttributes::Resource(object) => {
            for part in [&object.verb, &object.group, &object.version, &object.resource] {
                add(Some(part));
            }
            for part in [&object.namespace, &object.subresource, &object.name] {
                add(part.as_deref());
            }
        }
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_questions_have_different_keys() {
        let user = |name: &str, groups: &[&str]| Identity {
            user: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Identity::default()
        };
        let path = |path: &str| RequestAttributes::of("GET", path);
        let metric = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/a/pods/p/m";
        let questions = [
            (user("a", &[]), path("/apis")),
            (user("b", &[]), path("/apis")),
            (user("a", &["x"]), path("/apis")),
            (user("a", &["x", "y"]), path("/apis")),
            (user("a", &["xy"]), path("/apis")),
            (user("a", &[]), path(metric)),
            (user("a", &[]), path(&metric.replace("/a/", "/b/"))),
            (user("a", &[]), path(&metric.replace("/p/", "/q/"))),
            (user("a", &[]), path(&metric.replace("v1beta2", "v1beta1"))),
        ];
        let keys: std::collections::BTreeSet<Key> =
            questions.iter().map(|(user, what)| key(user, what)).collect();
        assert_eq!(keys.len(), questions.len());
        assert_eq!(key(&user("a", &["x"]), &path(metric)), key(&user("a", &["x"]), &path(metric)));
    }
}
