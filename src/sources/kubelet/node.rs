//! What one answer of a kubelet becomes: its samples, what is said of the question itself, and the end of series
//! that are gone.
//!
//! A series that a kubelet no longer tells of (a container that ended) is ended by a staleness marker. A kubelet that does
//! not answer ends nothing: its containers go on, and what was last known of them serves for as long as latest
//! values do. An answer that can't be read to its end, or is too large, counts as none.
//!
//! Of the series that were there only hashes are kept. Which they were is asked of the store when some are gone,
//! and once after a start, so that what ended while nobody looked ends too.

use super::JOB;
use super::client::{KubeletClient, KubeletError};
use super::metrics::OutcomeLabels;
use super::settings::KubeletSettings;
use crate::app::App;
use crate::budget::Share;
use crate::ingest::append::append_taken;
use crate::ingest::exposition::{Outer, Syntax, read};
use crate::ingest::intake::{Intake, Taken};
use crate::sources::scrape::fetch::Fetched;
use crate::store::{Scope, StoreError};
use crate::time::whole_ms;
use bytes::Bytes;
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher, STALENESS_MARKER_BITS};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::time::Instant;

/// The way in, for counters.
const API: &str = "kubelet";

/// Most bytes of an answer, decompressed: 250 pods of 10 containers take 2 MB.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Most samples of an answer.
pub const SAMPLES_MAX: usize = 50_000;

/// What is written of each question.
const REPORT: [&str; 3] = ["up", "scrape_duration_seconds", "scrape_samples_scraped"];

/// A kubelet that is asked.
pub struct NodeUsage {
    name: String,
    address: String,
    /// Hashes of the series of the last answer; `None`: there was none yet.
    seen: Option<HashSet<u64>>,
    last_ms: Option<i64>,
    is_failing: bool,
}

struct Told {
    taken: Taken,
    samples: usize,
    _share: Share,
}

impl NodeUsage {
    /// Not asked yet.
    #[must_use]
    pub fn new(name: String, address: String) -> Self {
        Self { name, address, seen: None, last_ms: None, is_failing: false }
    }

    /// Asks once, and stores what came of it.
    ///
    /// # Errors
    /// The store's.
    pub async fn collect(
        &mut self,
        app: &App,
        client: &KubeletClient,
        settings: &KubeletSettings,
    ) -> Result<(), StoreError> {
        let (since, at_ms) = (Instant::now(), self.next_ms(app));
        let told = match tokio::time::timeout(settings.timeout, self.ask(app, client)).await {
            Ok(told) => told,
            Err(_) => Err(KubeletError::Late(settings.timeout)),
        };
        let seconds = since.elapsed().as_secs_f64();
        self.tell(app, &told, seconds);
        let is_up = told.is_ok();
        let (mut taken, samples, _share) = match told {
            Ok(Told { taken, samples, _share }) => (taken, samples, Some(_share)),
            Err(_) => (Taken::default(), 0, None),
        };
        let current = is_up.then(|| stamp(&mut taken, at_ms));
        if let Some(current) = &current {
            for (gone, last_ms) in self.gone(app, current).await? {
                let end_ms = at_ms.max(last_ms.saturating_add(1));
                taken.batch.push(gone, Some(end_ms), f64::from_bits(STALENESS_MARKER_BITS));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let report = [f64::from(u8::from(is_up)), seconds, samples as f64];
        self.report(&mut taken, at_ms, &report);
        self.store(app, taken).await?;
        // Not before it is stored: what is gone is looked for again where it could not be.
        if current.is_some() {
            self.seen = current;
        }
        Ok(())
    }

    /// The node is gone: its series end, whenever they were collected.
    ///
    /// # Errors
    /// The store's.
    pub async fn end(mut self, app: &App) -> Result<(), StoreError> {
        self.seen = None;
        let at_ms = self.next_ms(app);
        let mut taken = Taken::default();
        for (gone, last_ms) in self.gone(app, &HashSet::new()).await? {
            let end_ms = at_ms.max(last_ms.saturating_add(1));
            taken.batch.push(gone, Some(end_ms), f64::from_bits(STALENESS_MARKER_BITS));
        }
        self.report(&mut taken, at_ms, &REPORT.map(|_| f64::from_bits(STALENESS_MARKER_BITS)));
        self.store(app, taken).await
    }

    async fn ask(&self, app: &App, client: &KubeletClient) -> Result<Told, KubeletError> {
        let mut share = app.request_budget().share();
        let Fetched { body, syntax } = client.ask(&self.address, BODY_BYTES_MAX, &mut share).await?;
        let labels = self.labels();
        let reading = tokio::task::spawn_blocking(move || read_all(&body, syntax, &labels, share));
        reading.await.map_err(|error| KubeletError::Unreadable(error.to_string()))?
    }

    fn labels(&self) -> Vec<(String, String)> {
        vec![("job".to_owned(), JOB.to_owned()), ("node".to_owned(), self.name.clone())]
    }

    /// Series that are served as present and were not told of, with the time of their last sample: by the
    /// node's clock, which can be ahead.
    async fn gone(&self, app: &App, current: &HashSet<u64>) -> Result<Vec<(Labels, i64)>, StoreError> {
        if self.seen.as_ref().is_some_and(|seen| seen.is_subset(current)) {
            return Ok(Vec::new());
        }
        let matchers = [Matcher::equal("node", &self.name), Matcher::equal("job", JOB)];
        let not_before_ms = app.clock.now_ms().saturating_sub(whole_ms(app.settings.freshness));
        let served = app.store.latest(&app.context(&Scope::All), &matchers, not_before_ms).await?;
        let is_gone =
            |labels: &Labels| !REPORT.contains(&labels.metric_name()) && !current.contains(&hash(labels));
        let gone = served.into_iter().filter(|latest| is_gone(&latest.labels));
        Ok(gone.map(|latest| (latest.labels.as_ref().clone(), latest.sample.timestamp_ms)).collect())
    }

    /// The clock's time, or later than the last question: a clock that is put back must not lose samples.
    fn next_ms(&mut self, app: &App) -> i64 {
        let now_ms = app.clock.now_ms();
        let at_ms = self.last_ms.map_or(now_ms, |last_ms| now_ms.max(last_ms.saturating_add(1)));
        self.last_ms = Some(at_ms);
        at_ms
    }

    fn report(&self, taken: &mut Taken, at_ms: i64, values: &[f64; REPORT.len()]) {
        for (name, value) in REPORT.iter().zip(values) {
            let labels = [
                (METRIC_NAME_LABEL, *name),
                ("job", JOB),
                ("node", self.name.as_str()),
                ("instance", self.address.as_str()),
            ];
            if let Ok(labels) = Labels::new(labels) {
                taken.batch.push(labels, Some(at_ms), *value);
            }
        }
    }

    async fn store(&self, app: &App, taken: Taken) -> Result<(), StoreError> {
        let outcome = append_taken(app, &Scope::All, API, taken).await?;
        if !outcome.refusals.is_empty() {
            let (node, refusals) = (&self.name, outcome.refusals);
            tracing::warn!(node, "a part of what a kubelet tells is not stored: {refusals}");
        }
        Ok(())
    }

    /// Counts, and tells when a kubelet begins to fail and when it is well again; not each time.
    fn tell(&mut self, app: &App, told: &Result<Told, KubeletError>, seconds: f64) {
        let metrics = &app.metrics.kubelets;
        metrics.seconds.observe(seconds);
        let outcome = match told {
            Ok(_) => "ok",
            Err(KubeletError::Late(_)) => "late",
            Err(_) => "failed",
        };
        metrics.requests.get_or_create(&OutcomeLabels { outcome }).inc();
        let (node, address) = (&self.name, &self.address);
        match told {
            Err(error) if !self.is_failing => {
                metrics.failing.inc();
                tracing::warn!(node, address, %error, "a kubelet gives no usage");
            }
            Ok(_) if self.is_failing => {
                metrics.failing.dec();
                tracing::info!(node, "a kubelet gives its usage again");
            }
            _ => {}
        }
        self.is_failing = told.is_err();
    }

    /// Whether it gave nothing when it was last asked.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.is_failing
    }
}

/// Puts the time of the question on samples without one; answers the hashes of all series.
fn stamp(taken: &mut Taken, at_ms: i64) -> HashSet<u64> {
    for sample in &mut taken.batch.samples {
        sample.timestamp_ms.get_or_insert(at_ms);
    }
    taken.batch.series.iter().map(hash).collect()
}

fn hash(labels: &Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

fn read_all(
    body: &Bytes,
    syntax: Syntax,
    labels: &[(String, String)],
    mut share: Share,
) -> Result<Told, KubeletError> {
    // Before anything is made of it.
    let is_sample = |line: &&[u8]| !matches!(line.first(), None | Some(b'#'));
    let samples = body.split(|byte| *byte == b'\n').filter(is_sample).count();
    if samples > SAMPLES_MAX {
        return Err(KubeletError::TooManySamples { samples, max: SAMPLES_MAX });
    }
    let mut intake = Intake::new(&Scope::All, &mut share);
    let reading = read(body, syntax, Outer::Renames(labels), &mut intake)
        .map_err(|error| KubeletError::Unreadable(error.to_string()))?;
    if let Some(bad) = reading.first_bad {
        return Err(KubeletError::Unreadable(bad));
    }
    if reading.samples == 0 {
        return Err(KubeletError::Unreadable("there is no sample in its answer".to_owned()));
    }
    Ok(Told { taken: intake.taken, samples: reading.samples, _share: share })
}
