//! How many questions a client may ask: a token bucket (GCRA) for each, by its user name or, where it has
//! none of its own, its address.
//!
//! Only questions that read history are counted: pushes are bounded by what waits to be written, and the
//! HPA is never kept from its answer. At the bound: 429 with `Retry-After`, and nothing was read.

use super::auth::Caller;
use super::connection::Peer;
use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Clients that are remembered before those are forgotten that have their whole bucket again.
const CLIENTS_MAX: usize = 10_000;

/// The limits of all clients; a cheap clone.
#[derive(Clone)]
pub struct RateLimit(Option<Arc<Limiter>>);

struct Limiter {
    clients: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    /// The whole bucket.
    requests: NonZeroU32,
}

impl RateLimit {
    /// So many requests a second of each client, and as many at once; `None`: no limit.
    #[must_use]
    pub fn new(requests_per_second: Option<NonZeroU32>) -> Self {
        requests_per_second.map_or(Self(None), |per_second| Self::of(Quota::per_second(per_second)))
    }

    fn of(quota: Quota) -> Self {
        let clients = DefaultKeyedRateLimiter::keyed(quota);
        Self(Some(Arc::new(Limiter {
            clients,
            clock: DefaultClock::default(),
            requests: quota.burst_size(),
        })))
    }

    /// Takes one request of a client from its bucket.
    ///
    /// # Errors
    /// 429 when it is empty.
    pub fn take(&self, client: &str) -> Result<(), ApiError> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        if limiter.clients.len() >= CLIENTS_MAX {
            limiter.clients.retain_recent();
        }
        limiter.clients.check_key(&client.to_owned()).map_err(|until| {
            let seconds = until.wait_time_from(limiter.clock.now()).as_secs().saturating_add(1);
            let message = format!(
                "more than {} requests a second of {client}: send again in {seconds} s, or raise \
                 --client-requests-per-second",
                limiter.requests
            );
            let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
            error.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
            error
        })
    }
}

/// The layer: after authentication, before the routes that it bounds.
pub async fn rate_limited(State(limit): State<RateLimit>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    let client = match (caller, request.extensions().get::<Peer>()) {
        (Some(caller), Some(peer)) if caller == &Caller::local() => peer.address.ip().to_string(),
        (Some(caller), _) => format!("user {:?}", caller.user),
        (None, Some(peer)) => peer.address.ip().to_string(),
        (None, None) => "this client".to_owned(),
    };
    match limit.take(&client) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_prometheus().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_client_that_asks_too_often_is_told_when_to_come_again_and_no_other_is() {
        let limit = RateLimit::of(Quota::per_hour(NonZeroU32::MIN));
        let router =
            Router::new().route("/", get(async || "answered")).layer(from_fn_with_state(limit, rate_limited));
        let ask = async |user: &str| {
            let caller = Caller { user: user.to_owned(), ..Caller::local() };
            let request = Request::get("/").extension(caller).body(Body::empty()).expect("a request");
            router.clone().oneshot(request).await.expect("infallible")
        };
        assert_eq!(ask("a").await.status(), 200);
        let refused = ask("a").await;
        assert_eq!(refused.status(), 429);
        let wait =
            refused.headers()[header::RETRY_AFTER].to_str().expect("text").parse::<u32>().expect("seconds");
        assert!((1..=3_600).contains(&wait), "{wait}");
        assert_eq!(ask("b").await.status(), 200);
    }

    #[test]
    fn without_a_limit_all_pass_and_clients_are_forgotten() {
        let none = RateLimit::new(None);
        assert!((0..1_000).all(|_| none.take("a").is_ok()));
        let limit = RateLimit::new(NonZeroU32::new(u32::MAX));
        for client in 0..=2 * CLIENTS_MAX {
            limit.take(&client.to_string()).expect("allowed");
        }
        let clients = &limit.0.as_ref().expect("a limit").clients;
        assert!(clients.len() <= 2 * CLIENTS_MAX);
    }
}
