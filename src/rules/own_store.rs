//! PromQL asked of the store of this server.
//!
//! Evaluation blocks and goes deep, so it runs on a thread with a stack of its own, a few at a time: turns of its
//! own, so that an autoscaler does not wait behind dashboards.

use super::source::{Point, PromQl, SHAPES_MAX, SeriesShape, SourceError};
use crate::query::promql::{EvalError, Options, Query, QueryThreads, Steps, Stop, Task, Value};
use crate::series_selector;
use crate::store::{Context, Scope, SeriesReader, Store};
use async_trait::async_trait;
use lookback_storage::METRIC_NAME_LABEL;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Questions evaluated at once; others wait for their turn.
const AT_ONCE_MAX: usize = 8;

/// Bytes of names in one query: the text of a query has a bound, and templates may repeat them.
const NAMES_BYTES_MAX: usize = 32 << 10;

/// The store of this server.
pub struct OwnStore {
    store: Arc<dyn Store>,
    options: Options,
    turns: Arc<Semaphore>,
    threads: QueryThreads,
}

impl OwnStore {
    /// This store, with these choices of evaluation.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        Self {
            store,
            options,
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            threads: QueryThreads::default(),
        }
    }

    /// Does work on a thread of its own, within its time.
    async fn aside<T: Send + 'static>(
        &self,
        scope: &Scope,
        timeout: Duration,
        work: impl FnOnce(&dyn SeriesReader, &(dyn Fn() -> Option<Stop> + Sync)) -> Result<T, SourceError>
        + Send
        + 'static,
    ) -> Result<T, SourceError> {
        let deadline = Instant::now() + timeout;
        let late = || {
            SourceError::Unavailable(format!(
                "the query was not answered within {timeout:?}: ask again later"
            ))
        };
        let gone = Arc::new(AtomicBool::new(false));
        let _gone = GoneOnDrop(Arc::clone(&gone));
        let working = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let context = Context { scope: scope.clone(), timeout };
            let reader = self.store.reader(&context).await;
            let reader = reader.map_err(|error| SourceError::Unavailable(error.to_string()))?;
            let (sender, answer) = oneshot::channel();
            let doing = move || {
                let stop = || {
                    if gone.load(Ordering::Relaxed) {
                        Some(Stop::Canceled)
                    } else {
                        (Instant::now() >= deadline).then_some(Stop::Timeout)
                    }
                };
                // Where sending fails nobody waits any more.
                let _ = sender.send(work(reader.as_ref(), &stop));
                drop(turn);
            };
            let begun = self.threads.run(doing);
            begun.map_err(|error| SourceError::Unavailable(format!("no thread for the query: {error}")))?;
            let broke_off =
                |_| SourceError::Unavailable("the thread of the query broke off: see the log".to_owned());
            answer.await.map_err(broke_off)?
        };
        tokio::time::timeout(timeout, working).await.unwrap_or_else(|_| Err(late()))
    }
}

struct GoneOnDrop(Arc<AtomicBool>);

impl Drop for GoneOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl PromQl for OwnStore {
    async fn instant(
        &self,
        scope: &Scope,
        query: &str,
        time_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<Point>, SourceError> {
        let (query, options) = (query.to_owned(), self.options);
        self.aside(scope, timeout, move |reader, stop| {
            let query = Query::parse(&query).map_err(|error| SourceError::Refused(error.to_string()))?;
            let task = Task { reader, options, steps: Steps::instant(time_ms), stop };
            let outcome = task.instant(&query).map_err(|error| match error {
                EvalError::Execution(_) | EvalError::TooLarge { .. } => {
                    SourceError::Refused(error.to_string())
                }
                error => SourceError::Unavailable(error.to_string()),
            })?;
            match outcome.value {
                Value::Scalar(sample) => {
                    Ok(vec![Point { labels: [].into(), time_ms: sample.timestamp_ms, value: sample.value }])
                }
                Value::Vector(vector) => {
                    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                    let point =
                        |(labels, sample): (crate::query::promql::SeriesLabels, lookback_storage::Sample)| {
                            Point {
                                labels: labels.iter().map(owned).collect(),
                                time_ms: sample.timestamp_ms,
                                value: sample.value,
                            }
                        };
                    Ok(vector.into_iter().map(point).collect())
                }
                Value::Text(..) | Value::Matrix(_) => Err(SourceError::Refused(
                    "the query gives neither an instant vector nor a scalar".to_owned(),
                )),
            }
        })
        .await
    }

    async fn shapes(
        &self,
        selector: &str,
        start_ms: i64,
        end_ms: i64,
        timeout: Duration,
    ) -> Result<BTreeSet<SeriesShape>, SourceError> {
        let matchers =
            series_selector::parse(selector).map_err(|error| SourceError::Refused(error.to_string()))?;
        self.aside(&Scope::All, timeout, move |reader, _| {
            let series = reader.series(&matchers, start_ms, end_ms);
            let series = series.map_err(|error| SourceError::Unavailable(error.to_string()))?;
            let mut shapes = BTreeSet::new();
            for labels in series {
                let names = labels.iter().map(|(name, _)| name).filter(|name| *name != METRIC_NAME_LABEL);
                let labels_of = names.map(str::to_owned).collect();
                shapes.insert(SeriesShape { name: labels.metric_name().to_owned(), labels: labels_of });
                if shapes.len() >= SHAPES_MAX {
                    break;
                }
            }
            Ok(shapes)
        })
        .await
    }

    fn keeps_scopes(&self) -> bool {
        true
    }

    fn names_bytes_max(&self) -> usize {
        NAMES_BYTES_MAX
    }
}
