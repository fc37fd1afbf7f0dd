//! What tests of the writing handlers stand on: an [`App`] over a store in memory, and one call.

use super::auth::Caller;
use crate::app::{App, Parts, Settings};
use crate::clock::ManualClock;
use crate::ingest::memory_store::MemoryStore;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use tower::ServiceExt;

/// The time at which tests begin: 2026-11-22T09:02:00Z.
pub(crate) const NOW_MS: i64 = 1_795_338_120_000;

/// An [`App`] and what is behind it.
pub(crate) struct Harness {
    pub(crate) app: App,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) caller: Caller,
    router: Router,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) api: Option<&'static str>,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

impl Harness {
    /// These routes, with a body limit of 1 MiB and of 4 MiB decompressed.
    pub(crate) fn new(routes: Router<App>) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let app = App::new(Parts {
            store: store.clone(),
            clock: clock.clone(),
            settings: Settings { body_bytes_max: 1 << 20, decoded_bytes_max: 4 << 20, ..Settings::default() },
            metrics: Arc::default(),
            catalog: Arc::default(),
        });
        let router = routes.with_state(app.clone());
        Self { app, store, clock, caller: Caller::local(), router }
    }

    /// One request by the caller.
    pub(crate) async fn call(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(self.caller.clone());
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            code: parts.status,
            headers: parts.headers,
            api: parts.extensions.get::<super::Api>().map(|api| api.0),
            body: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    /// A POST without a content type, as `curl -H 'Content-Type:'` makes it.
    pub(crate) async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.call(Request::post(uri).body(body.into()).expect("a request")).await
    }
}
