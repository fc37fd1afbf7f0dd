//! A store in memory, with one sample a series, for the tests of what reads latest values.

use crate::app::{App, Parts, Settings};
use crate::clock::ManualClock;
use crate::kubernetes::catalog::Catalog;
use crate::store::{
    Context, LabelsRequest, Latest, RangeRequest, Scope, SeriesSamples, Store, StoreError, StoreStats,
};
use async_trait::async_trait;
use lookback_storage::{Labels, Matcher, OutOfOrder, Sample, WriteBatch, WriteReport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The newest sample of each series.
#[derive(Default)]
pub(crate) struct TestStore {
    newest: Mutex<BTreeMap<Arc<Labels>, Sample>>,
    failing: AtomicBool,
}

/// An app over an empty store, at this time.
pub(crate) fn app(now_ms: i64) -> (App, Arc<TestStore>) {
    let store = Arc::new(TestStore::default());
    let app = App::new(Parts {
        store: Arc::clone(&store) as Arc<dyn Store>,
        clock: Arc::new(ManualClock::new(now_ms)),
        settings: Settings::default(),
        metrics: Arc::default(),
        catalog: Arc::new(Catalog::default()),
    });
    (app, store)
}

impl TestStore {
    /// Makes this the newest sample of the series.
    pub(crate) fn put(&self, labels: &[(&str, &str)], timestamp_ms: i64, value: f64) {
        let labels = Labels::new(labels.iter().copied()).expect("valid labels");
        let mut newest = self.newest.lock().expect("no test panics with the lock");
        newest.insert(Arc::new(labels), Sample::new(timestamp_ms, value));
    }

    /// Whether each call fails.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// The series that match and may be seen.
    fn matching(&self, scope: &Scope, matchers: &[Matcher]) -> Result<Vec<Latest>, StoreError> {
        self.check()?;
        let newest = self.newest.lock().expect("no test panics with the lock");
        let seen = newest.iter().filter(|(labels, _)| {
            scope.allows(labels.get("namespace")) && matchers.iter().all(|matcher| matcher.matches(labels))
        });
        Ok(seen.map(|(labels, sample)| Latest { labels: Arc::clone(labels), sample: *sample }).collect())
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failing.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("told to fail".to_owned())),
            false => Ok(()),
        }
    }
}

fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::Internal("this test's store keeps newest samples only".to_owned()))
}

#[async_trait]
impl Store for TestStore {
    async fn append(
        &self,
        _: &Context,
        _: WriteBatch,
        _: i64,
        _: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        not_here()
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        let mut found = self.matching(&context.scope, matchers)?;
        found.retain(|l| l.sample.timestamp_ms >= not_before_ms && !l.sample.is_staleness_marker());
        Ok(found)
    }

    async fn select(
        &self,
        _: &Context,
        _: &[Matcher],
        _: i64,
        _: i64,
        _: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        not_here()
    }

    async fn range(&self, _: &Context, _: RangeRequest) -> Result<Vec<SeriesSamples>, StoreError> {
        not_here()
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        let found = self.matching(&context.scope, &request.matchers)?;
        let texts: BTreeSet<&str> = match &request.name {
            Some(name) => found.iter().filter_map(|l| l.labels.get(name)).collect(),
            None => found.iter().flat_map(|l| l.labels.iter().map(|(name, _)| name)).collect(),
        };
        Ok(texts.into_iter().map(str::to_owned).collect())
    }

    async fn delete(&self, _: &Context, _: &[Matcher], _: i64, _: i64) -> Result<u64, StoreError> {
        not_here()
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.check()?;
        let series = self.newest.lock().expect("no test panics with the lock").len() as u64;
        Ok(StoreStats { series, series_generation: series, ..StoreStats::default() })
    }
}
