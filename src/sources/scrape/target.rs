//! What one scrape of a target becomes: its samples, what is said of the scrape itself, and the end of
//! series that are gone.
//!
//! As in Prometheus: `up` is 1 where metrics came, else 0; a series that was there at the last scrape and
//! is not any more, and all of them when a scrape fails or the target goes, end by a staleness marker. A
//! scrape that can't be read to its end, or is larger than its limits, counts as failed, and nothing of it
//! is stored. Series with timestamps of their own end by themselves.

use super::fetch::{FetchError, Fetched, fetch};
use super::relabel::{LabelSet, Rule};
use super::settings::{Job, Target};
use crate::app::App;
use crate::budget::Share;
use crate::ingest::append::append_taken;
use crate::ingest::exposition::{Outer, Syntax, read};
use crate::ingest::intake::{Intake, IntakeError, Taken};
use crate::store::{Scope, StoreError};
use bytes::Bytes;
use lookback_storage::{Labels, METRIC_NAME_LABEL, STALENESS_MARKER_BITS, WriteBatch};
use std::collections::HashSet;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// The way in, for counters.
const API: &str = "scrape";

/// What is written of each scrape.
const REPORT: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Why a scrape failed.
#[derive(Debug, Error)]
pub enum ScrapeError {
    /// The target does not give its metrics.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It takes too long.
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    /// Something of it can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// A rule makes labels that no series can have.
    #[error("metric_relabel_configs: {0}")]
    Relabelled(String),
    /// There is too much of it.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// There are more samples than allowed.
    #[error("it has {samples} samples, more than {max} (sample_limit)")]
    TooManySamples {
        /// How many.
        samples: usize,
        /// The bound.
        max: usize,
    },
}

/// A target being scraped.
pub struct Scraped {
    target: Target,
    previous: HashSet<Labels>,
    last_ms: Option<i64>,
    failing: bool,
}

/// What came of the text of a scrape.
struct Exposed {
    taken: Taken,
    samples: usize,
    _share: Share,
}

impl Scraped {
    /// Not scraped yet.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, previous: HashSet::new(), last_ms: None, failing: false }
    }

    /// Scrapes once, and stores what came of it.
    ///
    /// # Errors
    /// The store's.
    pub async fn scrape(&mut self, app: &App) -> Result<(), StoreError> {
        let (since, at_ms) = (Instant::now(), self.next_ms(app));
        let timeout = self.target.job.timeout;
        let exposed = match tokio::time::timeout(timeout, expose(app, &self.target)).await {
            Ok(exposed) => exposed,
            Err(_) => Err(ScrapeError::Late(timeout)),
        };
        self.tell(&exposed);
        let up = exposed.is_ok();
        let (mut taken, samples, _share) = match exposed {
            Ok(Exposed { taken, samples, _share }) => (taken, samples, Some(_share)),
            Err(_) => (Taken::default(), 0, None),
        };
        let kept = taken.batch.samples.len();
        let current = stamp(&mut taken, at_ms, self.target.job.honor_timestamps);
        let added = current.difference(&self.previous).count();
        for gone in self.previous.difference(&current) {
            taken.batch.push(gone.clone(), Some(at_ms), f64::from_bits(STALENESS_MARKER_BITS));
        }
        let report = [
            f64::from(u8::from(up)),
            since.elapsed().as_secs_f64(),
            samples as f64,
            kept as f64,
            added as f64,
        ];
        self.report(&mut taken, at_ms, |place| report.get(place).copied().unwrap_or_default());
        self.store(app, taken).await?;
        self.previous = current;
        Ok(())
    }

    /// The target is gone: all its series end.
    ///
    /// # Errors
    /// The store's.
    pub async fn end(mut self, app: &App) -> Result<(), StoreError> {
        if self.last_ms.is_none() {
            return Ok(());
        }
        let at_ms = self.next_ms(app);
        let mut taken = Taken::default();
        for gone in std::mem::take(&mut self.previous) {
            taken.batch.push(gone, Some(at_ms), f64::from_bits(STALENESS_MARKER_BITS));
        }
        self.report(&mut taken, at_ms, |_| f64::from_bits(STALENESS_MARKER_BITS));
        self.store(app, taken).await
    }

    /// The clock's time, or later than the last scrape: a clock that is put back must not lose samples.
    fn next_ms(&mut self, app: &App) -> i64 {
        let now_ms = app.clock.now_ms();
        let at_ms = self.last_ms.map_or(now_ms, |last_ms| now_ms.max(last_ms.saturating_add(1)));
        self.last_ms = Some(at_ms);
        at_ms
    }

    async fn store(&self, app: &App, taken: Taken) -> Result<(), StoreError> {
        let outcome = append_taken(app, &Scope::All, API, taken).await?;
        if !outcome.refusals.is_empty() {
            let (url, refusals) = (self.target.url(), outcome.refusals);
            tracing::warn!(url, "a part of what a target exposes is not stored: {refusals}");
        }
        Ok(())
    }

    fn report(&self, taken: &mut Taken, at_ms: i64, value: impl Fn(usize) -> f64) {
        for (place, name) in REPORT.iter().enumerate() {
            let labels = self.target.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            // The configuration was checked for it.
            if let Ok(labels) = Labels::new(labels.chain([(METRIC_NAME_LABEL, *name)])) {
                taken.batch.push(labels, Some(at_ms), value(place));
            }
        }
    }

    /// Tells when a target begins to fail, and when it is well again; not at each scrape.
    fn tell(&mut self, exposed: &Result<Exposed, ScrapeError>) {
        let url = || self.target.url();
        match exposed {
            Err(error) if !self.failing => tracing::warn!(url = url(), %error, "a target can't be scraped"),
            Ok(_) if self.failing => tracing::info!(url = url(), "a target is scraped again"),
            _ => {}
        }
        self.failing = exposed.is_err();
    }
}

/// Puts the scrape's time on samples without one; answers the series that are followed.
fn stamp(taken: &mut Taken, at_ms: i64, honor_timestamps: bool) -> HashSet<Labels> {
    let mut current = HashSet::with_capacity(taken.batch.samples.len());
    for sample in &mut taken.batch.samples {
        if sample.timestamp_ms.is_some() && honor_timestamps {
            continue;
        }
        sample.timestamp_ms = Some(at_ms);
        current.extend(taken.batch.series.get(sample.series).cloned());
    }
    current
}

async fn expose(app: &App, target: &Target) -> Result<Exposed, ScrapeError> {
    let mut share = app.request_budget().share();
    let bytes_max = target.job.body_bytes_max.unwrap_or(app.settings.body_bytes_max);
    let Fetched { body, syntax } =
        fetch(target, bytes_max.min(app.settings.decoded_bytes_max), &mut share).await?;
    let (labels, job) = (target.labels.clone(), target.job.clone());
    let reading = tokio::task::spawn_blocking(move || read_all(&body, syntax, &labels, &job, share));
    reading.await.map_err(|error| ScrapeError::Unreadable(error.to_string()))?
}

/// Applies `metric_relabel_configs`; what they leave out goes.
fn relabel(batch: &mut WriteBatch, rules: &[Rule]) -> Result<(), ScrapeError> {
    if rules.is_empty() {
        return Ok(());
    }
    let mut series = Vec::with_capacity(batch.series.len());
    let mut places = Vec::with_capacity(batch.series.len());
    for labels in std::mem::take(&mut batch.series) {
        let mut set = LabelSet::of(labels.iter());
        if !set.relabel(rules) {
            places.push(None);
            continue;
        }
        let changed = set.is_changed().then(|| Labels::new(set.iter()));
        let labels = match changed {
            None => labels,
            Some(Ok(changed)) if !changed.metric_name().is_empty() => changed,
            Some(Ok(changed)) => return Err(ScrapeError::Relabelled(format!("{changed} has no name"))),
            Some(Err(error)) => return Err(ScrapeError::Relabelled(error.to_string())),
        };
        places.push(Some(series.len()));
        series.push(labels);
    }
    batch.series = series;
    batch.samples.retain_mut(|sample| match places.get(sample.series) {
        Some(Some(place)) => {
            sample.series = *place;
            true
        }
        _ => false,
    });
    Ok(())
}

fn read_all(
    body: &Bytes,
    syntax: Syntax,
    labels: &[(String, String)],
    job: &Job,
    mut share: Share,
) -> Result<Exposed, ScrapeError> {
    let outer = if job.honor_labels { Outer::Yields(labels) } else { Outer::Renames(labels) };
    let mut intake = Intake::new(&Scope::All, &mut share);
    let reading = read(body, syntax, outer, &mut intake)?;
    if let Some(bad) = reading.first_bad {
        return Err(ScrapeError::Unreadable(bad));
    }
    relabel(&mut intake.taken.batch, &job.metric_rules)?;
    let samples = intake.taken.batch.samples.len();
    if samples > job.samples_max {
        return Err(ScrapeError::TooManySamples { samples, max: job.samples_max });
    }
    Ok(Exposed { taken: intake.taken, samples: reading.samples, _share: share })
}
