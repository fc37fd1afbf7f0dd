//! `lookback migrate`: the history of a data directory into a Prometheus-compatible engine, through remote write.
//!
//! One request is in memory, and one under way, at a time. After each that the engine has taken, a file in the data
//! directory says how far it came: whoever runs the command again, goes on from there, and asks the engine first
//! what of the one that was under way it holds. What the engine refuses for good goes to the dead letters of the
//! outbox.

mod cursor;
mod reading;

use self::cursor::{Cursor, CursorFile, Place};
use self::reading::{Batch, Reading};
use crate::clock::Clock;
use crate::config::migrate::MigrateArgs;
use crate::config::{SelectionArgs, Selector, SpanArgs};
use crate::prometheus_client::{selector, write_request};
use crate::store::embedded::EmbeddedStore;
use crate::store::prometheus::delivery::{Delivery, Series, Stopped};
use crate::store::prometheus::{RemoteSettings, outbox_dir};
use crate::time::rfc3339;
use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lookback_storage::{Db, Error, Labels, Options};
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Times that engines understand: from 1970 to 2255.
const ENGINE_TIMES_MS: (i64, i64) = (0, 9_000_000_000_000);
/// After how long an engine shows what it has taken.
const SHOWN_AFTER: Duration = Duration::from_secs(10);
/// How often it is told how far it came where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Moves what the arguments say, until `stop`. `random` gives numbers from 0 to 1. What came of it is told on
/// standard output.
///
/// # Errors
/// When the store or the engine can't be used, the engine refuses too much, or it was stopped.
pub async fn migrate(
    args: &MigrateArgs,
    clock: Arc<dyn Clock>,
    random: Box<dyn FnMut() -> f64 + Send>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let settings = args.engine.settings()?;
    // A directory that is not there holds nothing, and is not made.
    let data_dir = args.selection.data_dir.clone();
    fs::metadata(&data_dir).with_context(|| format!("the data directory {}", data_dir.display()))?;
    let (to, what) = (target(&settings), selected(&args.selection));
    let file = CursorFile::new(&data_dir);
    let cursor = file.open(to, what, args.restart)?;
    let dir = outbox_dir(&data_dir);
    fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
    let mut delivery = Delivery::new(&settings, &dir, clock, random, stop.clone())?;
    delivery.check().await.context("the engine does not answer questions")?;
    delivery.refuse_at_most(args.refused_max);
    // Nothing expires by a retention that is not the server's.
    let options = Options { retention_ms: None, ..Options::default() };
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, options)).await??;
    let damage = store.engine().stats().damage;
    damage.iter().for_each(|what| tracing::error!(what, "this is not moved"));

    let refused_before = delivery.set_aside_samples();
    let samples_before = cursor.samples;
    let mut migration = Migration { delivery, file, cursor, looks_first: args.only_missing, stop };
    let moved = migration.run(store.engine().clone(), args).await;
    let stats = store.engine().stats();
    tokio::task::spawn_blocking(move || drop(store)).await.context("the store did not close")?;
    moved?;
    let refused = migration.delivery.set_aside_samples() - refused_before;
    let sent = HumanCount(migration.cursor.samples - samples_before);
    let mut said = format!("moved {sent} samples to {}", migration.cursor.to);
    if refused > 0 {
        let refused = HumanCount(refused);
        said = format!("{said}; {refused} were refused and are set aside: lookback outbox list shows them");
    }
    // A closed stdout does not undo it.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{said}\n").as_bytes());
    if stats.damaged_blocks + stats.damaged_chunks > 0 || !damage.is_empty() {
        anyhow::bail!("what is damaged was not moved: lookback verify names it");
    }
    Ok(())
}

/// Which engine, and whose there.
fn target(settings: &RemoteSettings) -> String {
    let url = format!("{}{}", settings.write.url, settings.write_path);
    let header = |(name, value): &(axum::http::HeaderName, axum::http::HeaderValue)| {
        format!(" {name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let tenant = settings.write.headers.iter().find(|(name, _)| name == "x-scope-orgid").map(header);
    format!("{url}{}", tenant.unwrap_or_default())
}

/// Which series and times.
fn selected(args: &SelectionArgs) -> String {
    let SpanArgs { start, end } = args.span;
    let series: Vec<String> = args.selectors.iter().map(|Selector(matchers)| selector(matchers)).collect();
    let series = if series.is_empty() { "all series".to_owned() } else { series.join(" ") };
    let from = start.map(|ms| format!(" from {}", rfc3339(ms))).unwrap_or_default();
    let upto = end.map(|ms| format!(" up to {}", rfc3339(ms))).unwrap_or_default();
    format!("{series}{from}{upto}")
}

struct Migration {
    delivery: Delivery,
    file: CursorFile,
    cursor: Cursor,
    /// The engine is asked what it holds before something is sent.
    looks_first: bool,
    stop: CancellationToken,
}

impl Migration {
    async fn run(&mut self, db: Db, args: &MigrateArgs) -> anyhow::Result<()> {
        let Some(span_ms) = self.span(&db, args.selection.span) else { return Ok(()) };
        let is_resumed = self.cursor.place.is_some();
        if is_resumed {
            let samples = HumanCount(self.cursor.samples);
            tracing::info!(%samples, "the migration goes on: what was under way is asked for first");
            self.pause(SHOWN_AFTER).await?;
        }
        let (batches, mut read) = mpsc::channel(1);
        let selectors = args.selection.selectors.clone();
        let (from, stop) = (self.cursor.place.clone(), self.stop.clone());
        let reading = tokio::task::spawn_blocking(move || {
            read_all(&db, &selectors, span_ms, from, &|| stop.is_cancelled(), &batches)
        });
        let progress = Progress::new(span_ms);
        let mut is_first = is_resumed;
        while let Some(batch) = read.recv().await {
            progress.tell(&batch, self.cursor.samples);
            let is_asked_for = self.looks_first || std::mem::take(&mut is_first);
            self.send(batch, is_asked_for).await?;
        }
        progress.end();
        match reading.await? {
            Err(Error::Cancelled) => return Err(stopped()),
            read => read?,
        }
        let done = Cursor { place: None, done_upto_ms: Some(span_ms.1), ..self.cursor.clone() };
        self.keep(done).await
    }

    /// From when to when there is something to move.
    fn span(&self, db: &Db, asked: SpanArgs) -> Option<(i64, i64)> {
        let (oldest_ms, newest_ms) = db.extent().span_ms?;
        let (start_ms, end_ms) = asked.bounds_ms();
        let (start_ms, end_ms) = (start_ms.max(oldest_ms), end_ms.min(newest_ms));
        let (first_ms, last_ms) = ENGINE_TIMES_MS;
        if start_ms < first_ms || end_ms > last_ms {
            tracing::warn!("samples before 1970 or after 2255 are left out: engines know no such times");
        }
        let done_ms = self.cursor.done_upto_ms.map_or(i64::MIN, |upto_ms| upto_ms.saturating_add(1));
        let (start_ms, end_ms) = (start_ms.max(first_ms).max(done_ms), end_ms.min(last_ms));
        (start_ms <= end_ms).then_some((start_ms, end_ms))
    }

    /// Sends a batch, and keeps that it is there.
    async fn send(&mut self, mut batch: Batch, is_asked_for: bool) -> anyhow::Result<()> {
        if is_asked_for {
            batch.series = self.missing(batch.series).await?;
            batch.samples = batch.series.iter().map(|(_, samples)| samples.len() as u64).sum();
        }
        if batch.samples > 0 {
            let raw = write_request(batch.series.iter().map(|(labels, samples)| (labels, &samples[..])));
            self.delivery.deliver(&raw).await.map_err(|reason| match reason {
                Stopped::Told => stopped(),
                Stopped::RefusedTooMany { status, reason } => anyhow::anyhow!(
                    "the engine refuses more than --refused-max samples for good, such as of {} ({status}: {reason}): \
                     let it take old samples (Prometheus: storage.tsdb.out_of_order_time_window), and run this again",
                    rfc3339(batch.window_start_ms)
                ),
            })?;
        }
        let samples = self.cursor.samples + batch.samples;
        self.keep(Cursor { samples, place: batch.ends, ..self.cursor.clone() }).await
    }

    /// What the engine lacks; asked again while it does not answer.
    async fn missing(&mut self, series: Vec<Series>) -> anyhow::Result<Vec<Series>> {
        loop {
            match self.delivery.missing(series.clone()).await {
                Ok(missing) => return Ok(missing),
                Err(error) => tracing::warn!(%error, "the engine does not tell what it holds"),
            }
            self.pause(Duration::from_secs(1)).await?;
        }
    }

    async fn pause(&self, wait: Duration) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.stop.cancelled() => Err(stopped()),
        }
    }

    async fn keep(&mut self, cursor: Cursor) -> anyhow::Result<()> {
        let (file, kept) = (self.file.clone(), cursor.clone());
        let kept = tokio::task::spawn_blocking(move || file.keep(&kept)).await?;
        kept.context("how far the migration has come can't be kept")?;
        self.cursor = cursor;
        Ok(())
    }
}

fn stopped() -> anyhow::Error {
    anyhow::anyhow!("stopped: the same command goes on from here")
}

/// Reads what is selected, on a thread that may block.
fn read_all(
    db: &Db,
    selectors: &[Selector],
    span_ms: (i64, i64),
    from: Option<Place>,
    cancelled: &(dyn Fn() -> bool + Sync),
    batches: &mpsc::Sender<Batch>,
) -> Result<(), Error> {
    let any = |labels: &Labels| selectors.iter().any(|selector| selector.fits(labels));
    let selection = Selector::selection(selectors, &any);
    let reading = Reading { db, selection, span_ms, from, cancelled };
    reading.each(&mut |batch| match batches.blocking_send(batch) {
        Ok(()) => ControlFlow::Continue(()),
        // Whoever sends has ended.
        Err(_) => ControlFlow::Break(()),
    })
}

/// How far it is, for people: a bar on a terminal, else a line now and then.
struct Progress {
    bar: ProgressBar,
    start_ms: i64,
    told: std::cell::Cell<Instant>,
}

impl Progress {
    fn new((start_ms, end_ms): (i64, i64)) -> Self {
        let bar = ProgressBar::new(end_ms.abs_diff(start_ms) + 1);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {msg} [{elapsed}, {eta} left]") {
            bar.set_style(style);
        }
        Self { bar, start_ms, told: std::cell::Cell::new(Instant::now()) }
    }

    fn tell(&self, batch: &Batch, samples: u64) {
        let at = rfc3339(batch.window_start_ms);
        self.bar.set_position(batch.window_start_ms.saturating_sub(self.start_ms).max(0).unsigned_abs());
        self.bar.set_message(format!("{} samples, at {at}", HumanCount(samples)));
        if self.bar.is_hidden() && self.told.get().elapsed() >= TOLD_EVERY {
            tracing::info!(samples, at, "moving");
            self.told.set(Instant::now());
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
