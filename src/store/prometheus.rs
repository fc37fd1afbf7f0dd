//! A Prometheus-compatible engine behind the store seam: Prometheus, VictoriaMetrics, Mimir, Thanos, Cortex.
//!
//! ```text
//!  append ─▶ admit ─▶ outbox (synced) ─▶ acknowledged        latest ─┬─▶ overlay: what came in here lately
//!              │         │                                           └─▶ engine: raw samples, newest a series
//!              ▼         └──▶ sender ─▶ remote write         range, select, PromQL ─▶ engine: raw samples
//!           overlay                        │
//!                                          └─▶ dead letters: what the engine refuses for good
//! ```
//!
//! Reads take raw samples and compute here, by the same code as over the embedded engine: so answers are the
//! same point by point, whatever windows the engine's own functions have, and whatever it caps. History shows
//! what the engine shows: a pushed value a moment after it is pushed. Latest values show it at once.
//!
//! The engine owns retention, rollups and backups.

pub mod dead_letters;
mod deletion;
pub(crate) mod delivery;
mod engine;
mod latest;
pub mod outbox;
mod overlay;
mod reader;
mod recent;
mod send_state;
pub mod sender;

use self::delivery::Delivery;
use self::engine::{Engine, EngineRead, complete, within};
use self::outbox::{Outbox, OutboxError, Part, Position};
use self::overlay::{Counts, Overlay};
use self::recent::Recent;
use self::send_state::SendState;
use self::sender::Sender;
use super::{
    Context, LabelsRequest, Latest, OutboxFigures, RangeRead, RangeRequest, SeriesReader, SeriesSamples,
    Store, StoreError, StoreStats,
};
use crate::clock::Clock;
use crate::prometheus_client::{ServerSettings, SettingsError, decode_write_request, selector};
use async_trait::async_trait;
use lookback_storage::resample::{COUNTER_GAP_MAX_MS, counter_rates, resample};
use lookback_storage::{Grid, Labels, Matcher, OutOfOrder, Pick, RangeUse, Sample, WriteBatch, WriteReport};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// How far ahead of the clock a sample may be: one that is further makes Prometheus 2 refuse what comes after.
const AHEAD_MAX_MS: i64 = 600_000;
/// How often series of other writers are looked for, for discovery.
const GENERATION_MS: i64 = 30_000;
/// Most samples that are held at once where an engine gives series in no order.
const UNSORTED_SAMPLES_MAX: usize = 50_000_000;

/// Which engine, and how it is used.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Where remote write goes.
    pub write: ServerSettings,
    /// The path of remote write behind that.
    pub write_path: &'static str,
    /// Where questions go.
    pub query: ServerSettings,
    /// How long one call of the engine may take.
    pub timeout: Duration,
    /// Each record is sent a second time after this; `None`: never.
    pub replay_after: Option<Duration>,
    /// How large the outbox may become, in bytes.
    pub outbox_size_max_bytes: u64,
}

/// Why the store can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The engine can't be spoken to as it was said.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The outbox can't be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// The store that keeps its data in a Prometheus-compatible engine. A cheap clone.
#[derive(Clone)]
pub struct PrometheusStore(Arc<Inner>);

struct Inner {
    outbox: Arc<Outbox>,
    overlay: Arc<Overlay>,
    engine: Arc<Engine>,
    state: Arc<SendState>,
    clock: Arc<dyn Clock>,
    /// Until when latest values are answered by the overlay alone, where it can.
    latest_paused_until_ms: Mutex<i64>,
    recent: Recent,
}

impl PrometheusStore {
    /// Opens the outbox in `dir`, and gives what sends it, which is to be run until `shutdown`. `random`
    /// gives numbers from 0 to 1. Reads the outbox, so it takes time: not for async threads.
    ///
    /// # Errors
    /// When files are missing or wrong, or another process uses the outbox.
    pub fn open(
        dir: &Path,
        settings: RemoteSettings,
        clock: Arc<dyn Clock>,
        random: Box<dyn FnMut() -> f64 + Send>,
        shutdown: CancellationToken,
    ) -> Result<(Self, Sender), OpenError> {
        let delivery = Delivery::new(&settings, dir, Arc::clone(&clock), random, shutdown)?;
        let (engine, state) = (Arc::clone(&delivery.engine), Arc::clone(&delivery.state));
        let overlay = Arc::new(Overlay::default());
        let now_ms = clock.now_ms();
        let (outbox, cursor) = Outbox::open(dir, settings.outbox_size_max_bytes, |taken| {
            // What waits is served as latest values again.
            let Ok(series) = decode_write_request(&taken.raw) else { return };
            let newest = series.into_iter().filter_map(|(labels, samples)| {
                Some((Arc::new(labels), samples.into_iter().max_by(Sample::total_cmp)?))
            });
            overlay.keep(newest.collect(), Some(taken.next), now_ms);
        })?;
        let (outbox, replay_after) = (Arc::new(outbox), settings.replay_after);
        let sender = Sender {
            outbox: Arc::clone(&outbox),
            overlay: Arc::clone(&overlay),
            delivery,
            replay_after,
            cursor,
        };
        let latest_paused_until_ms = Mutex::new(i64::MIN);
        let recent = Recent::default();
        let inner = Inner { outbox, overlay, engine, state, clock, latest_paused_until_ms, recent };
        Ok((Self(Arc::new(inner)), sender))
    }

    pub(self) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// No sample is newer: it would have been refused.
    pub(self) fn newest_ms(&self) -> i64 {
        self.0.clock.now_ms().saturating_add(AHEAD_MAX_MS)
    }

    pub(self) fn unsorted_samples_max(&self) -> usize {
        UNSORTED_SAMPLES_MAX
    }

    /// Waits until everything that is acknowledged so far is sent.
    pub async fn sent(&self) {
        let durable = *self.0.outbox.durable().borrow();
        // It ends with the outbox, which this holds.
        let _ = self.0.outbox.sent().wait_for(|sent| *sent >= durable).await;
    }

    /// [`sent`](Self::sent), and everything is also sent a second time where that is to be done.
    async fn settled(&self) {
        struct Hurry<'a>(&'a AtomicUsize);
        impl Drop for Hurry<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let state = &self.0.state;
        state.hurried.fetch_add(1, Ordering::Relaxed);
        let _hurry = Hurry(&state.hurried);
        self.sent().await;
        while state.held.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stats_now(&self) -> StoreStats {
        let outbox = self.0.outbox.stats();
        let Counts { series, added, undurable } = self.0.overlay.counts();
        let mut damage = Vec::new();
        if outbox.damaged_records > 0 {
            damage.push(format!("{} records of the outbox fail their checksum", outbox.damaged_records));
        }
        let periods = self.0.clock.now_ms().max(0) / GENERATION_MS;
        StoreStats {
            series,
            head_samples: outbox.waiting_samples,
            log_bytes: outbox.bytes,
            damage,
            latest_undurable: undurable,
            write_failure: outbox.failure,
            series_generation: added.wrapping_add(periods.cast_unsigned()),
            outbox: Some(OutboxFigures {
                waiting_samples: outbox.waiting_samples,
                bytes: outbox.bytes,
                dead_letter_samples: self.0.state.set_aside.load(Ordering::Relaxed),
                engine_failure: self.0.state.failure(),
            }),
            ..StoreStats::default()
        }
    }
}

/// The outbox of a server with this data directory.
#[must_use]
pub fn outbox_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("outbox")
}

/// Puts what waits for `lookback outbox` back: samples in parts, and answers once they are durable.
///
/// # Errors
/// When they can't be written.
pub async fn put_back(outbox: &Outbox, series: &[(Labels, Vec<Sample>)]) -> Result<Position, OutboxError> {
    let parts = series.iter().map(|(labels, samples)| Part {
        raw: crate::prometheus_client::write_request([(labels, &samples[..])]),
        samples: u32::try_from(samples.len()).unwrap_or(u32::MAX),
    });
    outbox.append(parts.collect()).await
}

fn not_written(error: OutboxError) -> StoreError {
    let error = match error {
        OutboxError::NoSpace(reason) => StoreError::NoSpace(reason),
        error => StoreError::Unavailable(error.to_string()),
    };
    error.of_write()
}

#[async_trait]
impl Store for PrometheusStore {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        _: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        let admitted = self.0.overlay.admit(&context.scope, batch, now_ms, AHEAD_MAX_MS)?;
        if admitted.parts.is_empty() {
            return Ok(admitted.report);
        }
        // It goes on to its end even where nobody waits for it any more.
        let (outbox, overlay) = (Arc::clone(&self.0.outbox), Arc::clone(&self.0.overlay));
        let appending = tokio::spawn(async move {
            let appended = outbox.append(admitted.parts).await;
            overlay.keep(admitted.newest, appended.as_ref().ok().copied(), now_ms);
            appended.map(|_| admitted.report)
        });
        match tokio::time::timeout(context.timeout, appending).await {
            Ok(Ok(appended)) => appended.map_err(not_written),
            Ok(Err(error)) => Err(StoreError::Internal(error.to_string())),
            Err(_) => Err(StoreError::DeadlineExceeded(context.timeout)),
        }
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        self.latest_values(context, matchers, not_before_ms).await
    }

    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        let visit = |labels, mut samples: Vec<Sample>| {
            found.entry(labels).or_default().append(&mut samples);
            ControlFlow::Continue(())
        };
        let read = EngineRead {
            scope: &context.scope,
            matchers,
            within_ms: (start_ms, end_ms),
            pick: Pick::All,
            samples_max,
            timeout: context.timeout,
        };
        self.engine().each(read, visit).await?;
        let series = found.into_iter();
        Ok(series.map(|(labels, samples)| SeriesSamples { labels: Arc::new(labels), samples }).collect())
    }

    async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeRead, StoreError> {
        let grid =
            Grid { start_ms: request.start_ms, end_ms: request.end_ms, step_ms: request.step_ms.max(1) };
        let gap_max_ms = COUNTER_GAP_MAX_MS.max(grid.step_ms);
        let first_ms = grid.first_sample_ms();
        let start_ms = if request.counter { first_ms.saturating_sub(gap_max_ms) } else { first_ms };
        let mut series: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        let mut held = 0;
        let visit = |labels, samples: Vec<Sample>| {
            let points = if request.counter {
                resample(&counter_rates(&samples, gap_max_ms), grid, request.aggregation)
            } else {
                resample(&samples, grid, request.aggregation)
            };
            held += points.len();
            if held > request.points_max {
                return ControlFlow::Break(());
            }
            if !points.is_empty() {
                series.insert(labels, points);
            }
            ControlFlow::Continue(())
        };
        let read = EngineRead {
            scope: &context.scope,
            matchers: &request.matchers,
            within_ms: (start_ms, grid.end_ms),
            pick: Pick::All,
            samples_max: request.samples_max,
            timeout: context.timeout,
        };
        self.engine().each(read, visit).await?;
        if held > request.points_max {
            return Err(StoreError::TooManyPoints { points_max: request.points_max });
        }
        let series = series.into_iter();
        let series = series.map(|(labels, samples)| SeriesSamples { labels: Arc::new(labels), samples });
        Ok(RangeRead { series: series.collect(), used: RangeUse::default() })
    }

    async fn reader(&self, context: &Context) -> Result<Box<dyn SeriesReader>, StoreError> {
        let runtime = tokio::runtime::Handle::current();
        Ok(Box::new(reader::RemoteReader { store: self.clone(), context: context.clone(), runtime }))
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        let (timeout, client) = (self.engine().timeout(context.timeout), self.engine().client());
        let selectors = [selector(&within(&context.scope, &request.matchers))];
        let within_ms = Some((0, self.newest_ms()));
        let answer = match &request.name {
            None => client.label_names(&selectors, within_ms, timeout).await,
            Some(name) => client.label_values(name, &selectors, within_ms, timeout).await,
        };
        let mut labels = complete(answer, context.timeout)?;
        labels.sort();
        labels.dedup();
        Ok(labels)
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
        let timeout = context.timeout;
        // What still waits would come back.
        let settled = tokio::time::timeout(timeout, self.settled()).await;
        settled.map_err(|_| {
            let failure = self.0.state.failure().unwrap_or_else(|| "it takes its time".to_owned());
            StoreError::Unavailable(format!(
                "nothing was deleted: the engine has not taken everything yet: {failure}"
            ))
        })?;
        let selector = selector(&within(&context.scope, matchers));
        let within_ms = Some((start_ms.max(0), end_ms.min(self.newest_ms())));
        let client = self.engine().client();
        let found = client.series(std::slice::from_ref(&selector), within_ms, self.engine().timeout(timeout));
        let found = complete(found.await, timeout)?;
        if found.is_empty() {
            return Ok(0);
        }
        self.delete_at_engine(selector, (start_ms, end_ms), self.engine().timeout(timeout)).await?;
        self.0.overlay.forget(&context.scope, matchers, start_ms, end_ms);
        Ok(found.len() as u64)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(self.stats_now())
    }
}
