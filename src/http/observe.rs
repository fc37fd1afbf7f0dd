//! Every request is logged and counted once, however it ends.
//!
//! The log line has the method, the path without its query (queries can carry secrets), the status, how
//! long the answer took, who called, which API answered, who gave the values of a metric, how large request and answer
//! were, and an id. The
//! id is the client's `x-request-id` or the API server's `audit-id` where one came, else a new one; the
//! answer carries it as `x-request-id`.
//!
//! A handler that panics is answered with 500; a client that goes away before the answer is logged and
//! counted with status 499.

use super::auth::Caller;
use super::body::content_length;
use super::error::ApiError;
use super::{Api, Source};
use crate::app::App;
use crate::telemetry::{ApiLabels, RequestLabels, SourceLabels};
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::any::Any;
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Longest id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is logged for a client that went away, as nginx does.
const CLIENT_GONE: u16 = 499;

/// Puts a router under observation. To be the outermost layer but for those that must not be observed:
/// refusals of the authentication are to be seen too.
pub fn observed(router: Router, app: App) -> Router {
    router.layer(CatchPanicLayer::custom(panicked)).layer(axum::middleware::from_fn_with_state(app, observe))
}

/// A layer that tells [`observed`] who called. To be within the authentication.
pub async fn tell_caller(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let mut response = next.run(request).await;
    if let Some(caller) = caller {
        response.extensions_mut().insert(caller);
    }
    response
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = said, "a handler panicked: this is a defect of Lookback");
    let message = "a defect of Lookback: its log has the details under this answer's x-request-id";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_status()
}

async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut observation = Observation::of(app, &request);
    let mut response = next.run(request).await;
    observation.answered(&response);
    if let Ok(id) = HeaderValue::from_str(&observation.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// One request under way. Logged when it is dropped: with its answer, or without one.
struct Observation {
    app: App,
    since: Instant,
    id: String,
    method: Method,
    path: String,
    user: Option<String>,
    bytes_in: Option<u64>,
    answer: Option<Answer>,
}

struct Answer {
    code: u16,
    api: &'static str,
    source: Option<&'static str>,
    bytes_out: Option<u64>,
}

impl Observation {
    fn of(app: App, request: &Request) -> Self {
        Self {
            app,
            since: Instant::now(),
            id: request_id(request.headers()),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            user: request.extensions().get::<Caller>().map(|caller| caller.user.clone()),
            bytes_in: content_length(request.headers()),
            answer: None,
        }
    }

    fn answered(&mut self, response: &Response) {
        // An authentication further in tells who called with the answer.
        if let Some(caller) = response.extensions().get::<Caller>() {
            self.user = Some(caller.user.clone());
        }
        self.answer = Some(Answer {
            code: response.status().as_u16(),
            api: response.extensions().get::<Api>().map_or("other", |api| api.0),
            source: response.extensions().get::<Source>().map(|source| source.0),
            bytes_out: response.body().size_hint().exact().or_else(|| content_length(response.headers())),
        });
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let taken = self.since.elapsed();
        let gone = Answer { code: CLIENT_GONE, api: "other", source: None, bytes_out: None };
        let Answer { code, api, source, bytes_out } = self.answer.take().unwrap_or(gone);
        self.app.metrics.requests.get_or_create(&RequestLabels { api, code }).inc();
        self.app.metrics.request_seconds.get_or_create(&ApiLabels { api }).observe(taken.as_secs_f64());
        if let Some(source) = source {
            self.app.metrics.metric_answers.get_or_create(&SourceLabels { api, source }).inc();
        }
        tracing::info!(
            method = %self.method,
            path = self.path,
            status = code,
            latency_ms = taken.as_micros() as f64 / 1_000.0,
            user = self.user.as_deref().unwrap_or("-"),
            api,
            source,
            bytes_in = self.bytes_in,
            bytes_out,
            request_id = self.id,
            "request"
        );
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let given = [REQUEST_ID, AUDIT_ID].into_iter().find_map(|name| {
        let id = headers.get(name)?.to_str().ok()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()).then_some(id).filter(|id| id.bytes().all(plain))
    });
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestApp;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn broken() -> &'static str {
        panic!("boom")
    }

    fn router(app: App) -> Router {
        let handler = || async {
            let mut response = Response::new(Body::from("fine"));
            response.extensions_mut().insert(Api("test"));
            response
        };
        let slow = || async { tokio::time::sleep(std::time::Duration::from_secs(60)).await };
        let router = Router::new().route("/fine", get(handler)).route("/slow", get(slow));
        observed(router.route("/panic", get(broken)), app)
    }

    fn request(path: &str) -> axum::http::request::Builder {
        Request::builder().uri(path)
    }

    fn counted(app: &App, api: &'static str, code: u16) -> u64 {
        app.metrics.requests.get_or_create(&RequestLabels { api, code }).get()
    }

    #[tokio::test]
    async fn each_request_is_counted_by_api_and_status() {
        let TestApp { app, .. } = &TestApp::new();
        for path in ["/fine", "/fine", "/nowhere"] {
            let request = request(path).body(Body::empty()).expect("a request");
            router(app.clone()).oneshot(request).await.expect("infallible");
        }
        assert_eq!((counted(app, "test", 200), counted(app, "other", 404)), (2, 1));
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_500_and_counted() {
        let TestApp { app, .. } = &TestApp::new();
        let request = request("/panic").body(Body::empty()).expect("a request");
        let response = router(app.clone()).oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(REQUEST_ID));
        assert_eq!(counted(app, "other", 500), 1);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_counted() {
        let TestApp { app, .. } = &TestApp::new();
        let request = request("/slow").body(Body::empty()).expect("a request");
        let answer = router(app.clone()).oneshot(request);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), answer).await.is_err());
        assert_eq!(counted(app, "other", CLIENT_GONE), 1);
    }

    #[tokio::test]
    async fn a_given_id_is_kept_and_a_strange_one_replaced() {
        let TestApp { app, .. } = &TestApp::new();
        for (name, given, kept) in [
            ("x-request-id", "abc-1", true),
            ("audit-id", "5b1f", true),
            ("x-request-id", "a b", false),
            ("x-request-id", "", false),
        ] {
            let request = request("/fine").header(name, given).body(Body::empty()).expect("a request");
            let response = router(app.clone()).oneshot(request).await.expect("infallible");
            assert_eq!(response.headers()[REQUEST_ID] == given, kept, "{given:?}");
        }
    }
}
