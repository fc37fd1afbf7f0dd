//! The embedded engine behind the store seam.
//!
//! The engine's calls block; here they run on blocking threads, each with its deadline: when that
//! passes, the caller is answered and the read ends at the next series.

mod backup;
mod reader;

pub use backup::BackupPieces;

use super::memory;
use super::{
    Context, LabelsRequest, Latest, RangeRead, RangeRequest, Scope, SeriesReader, SeriesSamples, Store,
    StoreError, StoreStats,
};
use crate::clock::Clock;
use async_trait::async_trait;
use lookback_storage::{
    BackupReport, Db, Error, Extent, Grid, Labels, Matcher, Options, OutOfOrder, ReadLimits, Sample,
    Selection, WriteBatch, WriteReport,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// How often the engine is told to do its background work.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether memory wants to be sealed before that: under load it fills within a second.
const SEAL_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The series of up to so many label sets are looked up where they are: a millisecond's work.
const INLINE_SERIES_MAX: usize = 5_000;

/// The store that keeps its data in a directory of this machine. A cheap clone.
#[derive(Clone)]
pub struct EmbeddedStore {
    db: Db,
    /// One backup is streamed at a time.
    streaming: Arc<Semaphore>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or makes one. Replays the log, so it takes time: not for async threads.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let db = Db::open(dir, options, uuid::Uuid::new_v4())?;
        Ok(Self { db, streaming: Arc::new(Semaphore::new(1)) })
    }

    /// Does the engine's background work until `shutdown`; then seals nothing more and returns. While the
    /// process takes `memory_max_bytes` or more, no new series is let in.
    pub async fn maintain(
        self,
        clock: Arc<dyn Clock>,
        memory_max_bytes: Option<u64>,
        shutdown: CancellationToken,
    ) {
        let mut failed = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.until_due(failed) => {}
            }
            if let Some(memory_max_bytes) = memory_max_bytes {
                let short = memory::resident_bytes().is_some_and(|bytes| bytes >= memory_max_bytes);
                self.db.refuse_new_series(short);
            }
            let (db, now_ms) = (self.db.clone(), clock.now_ms());
            let maintained = tokio::task::spawn_blocking(move || db.maintain(now_ms)).await;
            failed = !matches!(maintained, Ok(Ok(_)));
            match maintained {
                Ok(Ok(done)) if done != lookback_storage::Maintained::default() => {
                    tracing::info!(?done, "maintained the store");
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "maintenance of the store failed; it will be tried again")
                }
                Err(error) => {
                    tracing::error!(%error, "maintenance of the store broke off; it will be tried again")
                }
            }
        }
    }

    /// Waits for the next maintenance; all of the interval where the last one has failed.
    async fn until_due(&self, failed: bool) {
        let looks = MAINTENANCE_INTERVAL.as_millis() / SEAL_LOOK_INTERVAL.as_millis();
        for _ in 0..looks {
            tokio::time::sleep(SEAL_LOOK_INTERVAL).await;
            if !failed && self.db.memory_is_full() {
                return;
            }
        }
    }

    /// The engine itself, for tools that work on it directly.
    #[must_use]
    pub fn engine(&self) -> &Db {
        &self.db
    }

    /// Runs a blocking read within the context's time.
    async fn read<T: Send + 'static>(
        &self,
        context: &Context,
        read: impl FnOnce(&Db, &Scope, &(dyn Fn() -> bool + Sync)) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        // However this call ends, the reading thread is told.
        let _cancel = CancelOnDrop(Arc::clone(&cancelled));
        let (db, scope) = (self.db.clone(), context.scope.clone());
        let reading =
            tokio::task::spawn_blocking(move || read(&db, &scope, &|| cancelled.load(Ordering::Relaxed)));
        match tokio::time::timeout(context.timeout, reading).await {
            Ok(Ok(answer)) => answer.map_err(|error| into_store_error(error, context.timeout)),
            Ok(Err(error)) => Err(StoreError::Internal(error.to_string())),
            Err(_) => Err(StoreError::DeadlineExceeded(context.timeout)),
        }
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hands `use_selection` the selection of what fits the matchers and lies in the scope.
fn within<T>(scope: &Scope, matchers: &[Matcher], use_selection: impl FnOnce(Selection<'_>) -> T) -> T {
    match scope {
        Scope::All => use_selection(Selection { matchers, visible: None }),
        Scope::Namespaces(_) => {
            let visible = |labels: &Labels| scope.allows_series(labels);
            use_selection(Selection { matchers, visible: Some(&visible) })
        }
    }
}

fn into_store_error(error: Error, timeout: Duration) -> StoreError {
    match error {
        error if error.is_no_space() => StoreError::NoSpace(error.to_string()),
        Error::TooManySamples { .. } => StoreError::TooLarge(error.to_string()),
        Error::TooManyPoints { points_max } => StoreError::TooManyPoints { points_max },
        Error::Cancelled => StoreError::DeadlineExceeded(timeout),
        Error::Damaged { .. } => StoreError::Internal(error.to_string()),
        error => StoreError::Unavailable(error.to_string()),
    }
}

/// Of durable samples and those that could not be written, the newest of each series.
fn newest(mut durable: Vec<Latest>, undurable: Vec<(Arc<Labels>, Sample)>) -> Vec<Latest> {
    if undurable.is_empty() {
        return durable;
    }
    let mut undurable: HashMap<Arc<Labels>, Sample> = undurable.into_iter().collect();
    for one in &mut durable {
        match undurable.remove(&one.labels) {
            // It may have become durable since it was asked for.
            Some(sample) if sample.timestamp_ms > one.sample.timestamp_ms => {
                (one.sample, one.durable) = (sample, false);
            }
            _ => {}
        }
    }
    durable.extend(undurable.into_iter().map(|(labels, sample)| Latest { labels, sample, durable: false }));
    durable
}

fn into_series((labels, samples): lookback_storage::SeriesSamples) -> SeriesSamples {
    SeriesSamples { labels, samples }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        context.scope.admits(&batch)?;
        let (sender, report) = oneshot::channel();
        let done = move |report| {
            // The caller may have gone: what was written stays written.
            let _ = sender.send(report);
        };
        let (db, slow) = (self.db.clone(), batch.series.len() > INLINE_SERIES_MAX);
        let hand_over = move || db.append(batch, now_ms, out_of_order, done);
        let handed = if slow {
            let handed = tokio::task::spawn_blocking(hand_over).await;
            handed.map_err(|error| StoreError::Internal(error.to_string()))?
        } else {
            hand_over()
        };
        handed.map_err(|error| into_store_error(error, context.timeout))?;
        match tokio::time::timeout(context.timeout, report).await {
            Ok(Ok(report)) => report.map_err(|error| into_store_error(error, context.timeout).of_write()),
            Ok(Err(_)) => {
                Err(StoreError::Unavailable("the committer has ended: restart the server".to_owned()))
            }
            Err(_) => Err(StoreError::DeadlineExceeded(context.timeout)),
        }
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        // Memory only: no blocking thread is needed.
        let latest = within(&context.scope, matchers, |selection| self.db.latest(selection));
        let undurable = within(&context.scope, matchers, |selection| self.db.latest_undurable(selection));
        let latest = latest.into_iter().map(|(labels, sample)| Latest { labels, sample, durable: true });
        let mut latest = newest(latest.collect(), undurable);
        latest.retain(|one| one.sample.timestamp_ms >= not_before_ms && !one.sample.is_staleness_marker());
        Ok(latest)
    }

    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        let matchers = matchers.to_vec();
        let read = move |db: &Db, scope: &Scope, cancelled: &(dyn Fn() -> bool + Sync)| {
            let limits = ReadLimits { samples_max, cancelled };
            within(scope, &matchers, |selection| db.select(selection, start_ms, end_ms, limits))
        };
        Ok(self.read(context, read).await?.into_iter().map(into_series).collect())
    }

    async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeRead, StoreError> {
        // A question about a workload is put to several sources, most of which have nothing: no thread for those.
        if within(&context.scope, &request.matchers, |selection| self.db.selects_nothing(selection)) {
            return Ok(RangeRead::default());
        }
        let read = move |db: &Db, scope: &Scope, cancelled: &(dyn Fn() -> bool + Sync)| {
            let limits = ReadLimits { samples_max: request.samples_max, cancelled };
            let grid =
                Grid { start_ms: request.start_ms, end_ms: request.end_ms, step_ms: request.step_ms.max(1) };
            within(scope, &request.matchers, |selection| {
                let (aggregation, counter) = (request.aggregation, request.counter);
                db.range_of_points(selection, grid, aggregation, counter, request.points_max, limits)
            })
        };
        let read = self.read(context, read).await?;
        Ok(RangeRead { series: read.series.into_iter().map(into_series).collect(), used: read.used })
    }

    async fn reader(&self, context: &Context) -> Result<Box<dyn SeriesReader>, StoreError> {
        Ok(Box::new(reader::EmbeddedReader::new(self.db.clone(), context.scope.clone())))
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        let read = move |db: &Db, scope: &Scope, _: &(dyn Fn() -> bool + Sync)| {
            Ok(within(scope, &request.matchers, |selection| db.labels(request.name.as_deref(), selection)))
        };
        self.read(context, read).await
    }

    async fn delete(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, StoreError> {
        if matchers.is_empty() {
            return Ok(0);
        }
        let matchers = matchers.to_vec();
        let delete = move |db: &Db, scope: &Scope, _: &(dyn Fn() -> bool + Sync)| {
            within(scope, &matchers, |selection| db.delete(selection, start_ms, end_ms))
        };
        self.read(context, delete).await
    }

    async fn backup(&self, to: PathBuf) -> Result<BackupReport, StoreError> {
        let db = self.db.clone();
        let backup = tokio::task::spawn_blocking(move || db.backup(&to, |_, _| {})).await;
        let backup = backup.map_err(|error| StoreError::Internal(error.to_string()))?;
        backup.map_err(|error| into_store_error(error, Duration::ZERO))
    }

    async fn backup_stream(&self) -> Result<BackupPieces, StoreError> {
        backup::begin(self.db.clone(), &self.streaming)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let db = self.db.clone();
        let stats = tokio::task::spawn_blocking(move || db.stats()).await;
        let stats = stats.map_err(|error| StoreError::Internal(error.to_string()))?;
        Ok(StoreStats {
            series: stats.series,
            head_samples: stats.head_samples,
            sealed_samples: stats.sealed_samples,
            log_bytes: stats.log_bytes,
            block_bytes: stats.block_bytes,
            rollup_bytes: stats.rollup_bytes,
            damaged_rollups: stats.damaged_rollups,
            index_bytes: stats.index_bytes,
            partitions: stats.partitions,
            damaged_blocks: stats.damaged_blocks,
            damaged_chunks: stats.damaged_chunks,
            set_aside: stats.set_aside,
            lost_log_groups: stats.lost_log_groups,
            damage: stats.damage,
            latest_undurable: stats.latest_undurable,
            partitions_dropped: stats.partitions_dropped,
            size_max_bytes: stats.size_max_bytes,
            full_in_ms: stats.full_in_ms,
            write_failure: stats.write_failure,
            series_generation: stats.series_generation,
            outbox: None,
        })
    }

    async fn extent(&self) -> Result<Option<Extent>, StoreError> {
        let db = self.db.clone();
        let extent = tokio::task::spawn_blocking(move || db.extent()).await;
        extent.map(Some).map_err(|error| StoreError::Internal(error.to_string()))
    }
}
