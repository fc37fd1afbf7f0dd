//! What unit tests stand on: an [`App`] over the real engine, on a directory that goes with it.
//!
//! Nothing is imitated: a full volume is an engine that keeps more room in reserve than any volume has.
//! Only what the engine can't be made to show, a store that fails or hangs, is put before it:
//! [`Fault`].

use crate::app::{App, Parts, Settings};
use crate::clock::ManualClock;
use crate::http::Api;
use crate::http::auth::Caller;
use crate::store::embedded::EmbeddedStore;
use crate::store::front::Front;
use crate::store::{Context, Scope, Store, StoreError};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use lookback_storage::{Labels, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tower::ServiceExt;

/// The time at which tests begin: 2026-11-22T09:02:00Z.
pub(crate) const NOW_MS: i64 = 1_795_338_120_000;

/// An [`App`] and what is behind it.
pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) store: Arc<TestStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) caller: Option<Caller>,
    router: Router,
    _dir: TempDir,
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
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl TestApp {
    /// An empty store, without routes.
    pub(crate) fn new() -> Self {
        Self::of(Options::default(), Settings::default())
    }

    /// These routes over an empty store, with a body limit of 1 MiB and of 4 MiB decompressed.
    pub(crate) fn serving(routes: Router<App>) -> Self {
        Self::of(Options::default(), small_bodies()).routed(routes)
    }

    /// These routes over a store whose volume is full.
    pub(crate) fn full(routes: Router<App>) -> Self {
        let options = Options { free_bytes_min: u64::MAX, ..Options::default() };
        Self::of(options, small_bodies()).routed(routes)
    }

    /// An empty store, without routes, with these settings.
    pub(crate) fn with_settings(settings: Settings) -> Self {
        Self::of(Options::default(), settings)
    }

    fn of(options: Options, settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(TestStore {
            real: EmbeddedStore::open(dir.path(), options).expect("opens"),
            fault: Mutex::new(None),
        });
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let app = App::new(Parts {
            store: store.clone(),
            clock: clock.clone(),
            settings,
            metrics: Arc::default(),
            catalog: Arc::default(),
            cluster: None,
            metadata: Arc::default(),
        });
        Self { app, store, clock, caller: Some(Caller::local()), router: Router::new(), _dir: dir }
    }

    /// The same, with these routes.
    pub(crate) fn routed(mut self, routes: Router<App>) -> Self {
        self.router = routes.with_state(self.app.clone());
        self
    }

    /// Writes one sample, however old.
    pub(crate) fn put(&self, labels: &[(&str, &str)], timestamp_ms: i64, value: f64) {
        self.put_all(labels, &[(timestamp_ms, value)]);
    }

    /// Writes samples of one series, `(Unix milliseconds, value)`, however old.
    pub(crate) fn put_all(&self, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
        let labels = Labels::new(labels.iter().copied()).expect("valid labels");
        let mut batch = WriteBatch::default();
        for (timestamp_ms, value) in samples {
            batch.push(labels.clone(), Some(*timestamp_ms), *value);
        }
        let now_ms = samples.iter().map(|(timestamp_ms, _)| *timestamp_ms).max().unwrap_or(NOW_MS);
        let engine = self.store.real.engine();
        let report = engine.append_wait(batch, now_ms, OutOfOrder::Lifted).expect("appended");
        assert_eq!(report.rejected, []);
    }

    /// Everything that is stored: series in words, time, value.
    pub(crate) fn everything(&self) -> Vec<(String, i64, f64)> {
        let selection = Selection { matchers: &[], visible: None };
        let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
        let all = self.store.real.engine().select(selection, i64::MIN, i64::MAX, limits).expect("read");
        let told = |(labels, samples): &lookback_storage::SeriesSamples| {
            let of_series = labels.to_string();
            samples.iter().map(|s| (of_series.clone(), s.timestamp_ms, s.value)).collect::<Vec<_>>()
        };
        all.iter().flat_map(told).collect()
    }

    /// How many groups the log has: a small write that waited for the one before it has one of its own.
    pub(crate) fn log_groups(&self) -> u64 {
        self.store.real.engine().stats().groups_committed
    }

    /// The context of a call that may touch everything.
    pub(crate) fn context(&self) -> Context {
        self.app.context(&Scope::All)
    }

    /// One request by the caller.
    pub(crate) async fn call(&self, mut request: Request<Body>) -> Answer {
        if let Some(caller) = &self.caller {
            request.extensions_mut().insert(caller.clone());
        }
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            code: parts.status,
            headers: parts.headers,
            api: parts.extensions.get::<Api>().map(|api| api.0),
            body: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    /// A GET.
    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call(Request::get(uri).body(Body::empty()).expect("a request")).await
    }

    /// A POST without a content type, as `curl -H 'Content-Type:'` makes it.
    pub(crate) async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.call(Request::post(uri).body(body.into()).expect("a request")).await
    }
}

fn small_bodies() -> Settings {
    Settings { body_bytes_max: 1 << 20, decoded_bytes_max: 4 << 20, ..Settings::default() }
}

/// What the engine can't be made to show.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Each call fails at once.
    Failing,
    /// No call is ever answered.
    Hanging,
}

/// The real engine, with a fault before it when a test says so.
pub(crate) struct TestStore {
    real: EmbeddedStore,
    fault: Mutex<Option<Fault>>,
}

impl TestStore {
    /// What ails it from now on.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().expect("no test panics with the lock") = fault;
    }
}

#[async_trait]
impl Front for TestStore {
    async fn behind(&self) -> Result<&dyn Store, StoreError> {
        let fault = *self.fault.lock().expect("no test panics with the lock");
        match fault {
            None => Ok(&self.real),
            Some(Fault::Failing) => Err(StoreError::Unavailable("told to fail".to_owned())),
            Some(Fault::Hanging) => std::future::pending().await,
        }
    }
}
