//! Latest values of series at an engine: asked for as little of the time as will do, and put together with what came
//! in here, which answers alone where the engine does not.

use super::engine::EngineRead;
use super::recent::Question;
use super::{AHEAD_MAX_MS, PrometheusStore};
use crate::store::{Context, Latest, StoreError};
use lookback_storage::{Labels, Matcher, Pick, Sample};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How far back a latest value is looked for at the engine.
const LATEST_MAX_MS: i64 = 3_600_000;
/// Most samples that are read at the engine for latest values: an hour of 20,000 series at 15 s, twice.
const LATEST_SAMPLES_MAX: usize = 10_000_000;
/// Most bytes that the series of one answer of latest values may take that the engine gives.
const LATEST_BYTES_MAX: usize = 256 << 20;
/// What a series takes beside its labels' text, about, in bytes.
const SERIES_BYTES: usize = 64;
/// How long the engine may take for latest values that the overlay can answer as well.
const LATEST_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed read of latest values the overlay answers alone for so long.
const LATEST_PAUSE_MS: i64 = 5_000;

impl PrometheusStore {
    /// The newest value of each selected series that is not older than `not_before_ms`.
    pub(super) async fn latest_values(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        let here = self.0.overlay.latest(&context.scope, matchers);
        let now_ms = self.0.clock.now_ms();
        let paused_until_ms = || self.0.latest_paused_until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_answered_here = here.iter().any(|one| one.sample.timestamp_ms >= not_before_ms);
        let is_paused = is_answered_here && now_ms < *paused_until_ms();
        let at_engine = if is_paused {
            Vec::new()
        } else {
            let timeout =
                if is_answered_here { LATEST_TIMEOUT.min(context.timeout) } else { context.timeout };
            match self.latest_at_engine(context, matchers, not_before_ms, timeout).await {
                Ok(at_engine) => {
                    *paused_until_ms() = i64::MIN;
                    at_engine
                }
                Err(error) if is_answered_here => {
                    tracing::warn!(%error, "latest values are answered by what came in here only");
                    *paused_until_ms() = now_ms.saturating_add(LATEST_PAUSE_MS);
                    Vec::new()
                }
                Err(error) => return Err(error),
            }
        };
        let mut latest = newest(at_engine, here);
        latest.retain(|one| one.sample.timestamp_ms >= not_before_ms && !one.sample.is_staleness_marker());
        Ok(latest)
    }

    /// The newest samples at the engine. Only those of the last hour are looked for.
    async fn latest_at_engine(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<(Labels, Sample)>, StoreError> {
        // Both reads together have the time of one.
        let timeout = self.engine().timeout(timeout);
        let deadline = tokio::time::Instant::now() + timeout;
        let now_ms = self.0.clock.now_ms();
        let oldest_ms = now_ms.saturating_sub(LATEST_MAX_MS);
        let (start_ms, end_ms) = (not_before_ms.max(oldest_ms), now_ms.saturating_add(AHEAD_MAX_MS));
        if not_before_ms <= oldest_ms {
            // Nobody asks again and again for all that there is.
            return self.newest_at_engine(context, matchers, (start_ms, end_ms), timeout).await;
        }
        let (recent, question) = (&self.0.recent, Question::of(&context.scope, matchers));
        if let Some(known) = recent.known(&question, start_ms, now_ms) {
            let short_ms = (known.start_ms(now_ms), end_ms);
            let newest = self.newest_at_engine(context, matchers, short_ms, timeout).await?;
            if recent.has_all(&known, &newest) {
                return Ok(newest);
            }
        }
        let timeout = deadline.saturating_duration_since(tokio::time::Instant::now());
        let newest = self.newest_at_engine(context, matchers, (start_ms, end_ms), timeout).await?;
        recent.note(question, start_ms, now_ms, &newest);
        Ok(newest)
    }

    /// The newest samples at the engine of a time.
    async fn newest_at_engine(
        &self,
        context: &Context,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        timeout: Duration,
    ) -> Result<Vec<(Labels, Sample)>, StoreError> {
        let (mut newest, mut bytes_left) = (Vec::new(), Some(LATEST_BYTES_MAX));
        let keep = |labels: Labels, samples: Vec<Sample>| {
            let bytes = labels.text_bytes() + SERIES_BYTES;
            bytes_left = bytes_left.and_then(|left| left.checked_sub(bytes));
            if bytes_left.is_none() {
                return ControlFlow::Break(());
            }
            newest.extend(samples.last().map(|sample| (labels, *sample)));
            ControlFlow::Continue(())
        };
        let (scope, pick, samples_max) = (&context.scope, Pick::Newest, LATEST_SAMPLES_MAX);
        let read = EngineRead { scope, matchers, within_ms, pick, samples_max, timeout };
        self.engine().each(read, keep).await?;
        match bytes_left {
            Some(_) => Ok(newest),
            None => Err(StoreError::TooLarge(format!(
                "the series of these latest values take more than {} MiB: ask for one metric, or in one namespace",
                LATEST_BYTES_MAX >> 20
            ))),
        }
    }
}

/// Of the engine's newest samples and those that came in here, the newest of each series; of two at one
/// time the larger.
fn newest(at_engine: Vec<(Labels, Sample)>, here: Vec<Latest>) -> Vec<Latest> {
    if here.is_empty() {
        let of_engine = |(labels, sample)| Latest { labels: Arc::new(labels), sample, durable: true };
        return at_engine.into_iter().map(of_engine).collect();
    }
    let mut newest: HashMap<Arc<Labels>, Latest> = HashMap::with_capacity(here.len().max(at_engine.len()));
    newest.extend(here.into_iter().map(|one| (Arc::clone(&one.labels), one)));
    for (labels, sample) in at_engine {
        let labels = Arc::new(labels);
        let one = newest.entry(Arc::clone(&labels)).or_insert(Latest { labels, sample, durable: true });
        if sample.total_cmp(&one.sample).is_gt() || (!one.durable && sample == one.sample) {
            (one.sample, one.durable) = (sample, true);
        }
    }
    newest.into_values().collect()
}
