//! `lookback import FILE`: loads history through the same write path as any push.
//!
//! The file is read and parsed on a thread of its own, a few batches ahead of the store. Each batch is
//! durable before the next is handed over; the out-of-order limit is lifted. An import that ended
//! early is simply started again: what the store already holds is counted as a duplicate.

use super::csv::{CsvFile, CsvOptions, TimeUnit};
use super::file::{BadLines, FileError, SampleFile, decompressed};
use super::openmetrics::OpenMetricsFile;
use super::params::parse_labels;
use super::refusals::Refusals;
use crate::clock::Clock;
use crate::store::{Context, Scope, Store, StoreError};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lookback_storage::{Labels, OutOfOrder, WriteBatch};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;

/// Most samples in one append.
pub const BATCH_SAMPLES_MAX: usize = 20_000;

/// How many batches are parsed ahead of the store.
const BATCHES_AHEAD_MAX: usize = 2;

/// How long the store may take for one batch.
const APPEND_TIMEOUT: Duration = Duration::from_secs(300);

/// Most series that are counted as seen, for the summary.
const SERIES_COUNTED_MAX: usize = 1_000_000;

/// The `import` command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The file to import, plain or gzip; `-` for standard input
    pub file: PathBuf,
    /// What the file is [default: by its name: .csv, or .om, .openmetrics, .prom, .txt, each also .gz]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// CSV: the heading of the column of times
    #[arg(long, default_value = "ts")]
    pub time_column: String,
    /// CSV: how times are written [default: as the first one looks]
    #[arg(long, value_enum)]
    pub time_unit: Option<TimeUnit>,
    /// CSV: goes before each heading to make the metric's name
    #[arg(long, default_value = "")]
    pub metric_prefix: String,
    /// A label for every series, as name=value; may be given more than once
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Leave out and count what can't be read, instead of stopping there
    #[arg(long)]
    pub skip_bad: bool,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// CSV with a column of times.
    Csv,
    /// OpenMetrics text with timestamps.
    Openmetrics,
}

impl Format {
    /// What a file is by its name.
    #[must_use]
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "om" | "openmetrics" | "prom" | "txt" => Some(Self::Openmetrics),
            _ => None,
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let labels = parse_labels(text).map_err(|error| error.to_string())?;
    match <[_; 1]>::try_from(labels) {
        Ok([label]) => Ok(label),
        Err(_) => Err("give one name=value".to_owned()),
    }
}

/// How a file is to be understood.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// What it is.
    pub format: Format,
    /// For CSV; its labels and its handling of bad lines are for both.
    pub csv: CsvOptions,
}

impl ImportArgs {
    /// What the arguments say of the file.
    ///
    /// # Errors
    /// When the format is neither given nor to be seen from the name.
    pub fn options(&self) -> Result<ImportOptions, FileError> {
        let format = self.format.or_else(|| Format::of_name(&self.file)).ok_or_else(|| {
            FileError::Whole(format!(
                "{} does not say by its name what it is: give --format csv or --format openmetrics",
                self.file.display()
            ))
        })?;
        let csv = CsvOptions {
            time_column: self.time_column.clone(),
            time_unit: self.time_unit,
            metric_prefix: self.metric_prefix.clone(),
            labels: self.labels.clone(),
            bad_lines: if self.skip_bad { BadLines::Skip } else { BadLines::Stop },
        };
        Ok(ImportOptions { format, csv })
    }

    /// Opens the file, and a progress bar on standard error that follows its bytes. The bar is hidden
    /// where standard error is no terminal.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn open(&self) -> io::Result<(Box<dyn BufRead + Send>, ProgressBar)> {
        const STYLE: &str = "{bar:40} {bytes}/{total_bytes} {msg} [{elapsed}, {eta} left]";
        if self.file == Path::new("-") {
            let bar = ProgressBar::new_spinner();
            return Ok((Box::new(BufReader::new(bar.wrap_read(io::stdin()))), bar));
        }
        let file = File::open(&self.file)?;
        let bar = ProgressBar::new(file.metadata()?.len());
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        Ok((Box::new(BufReader::with_capacity(256 << 10, bar.wrap_read(file))), bar))
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Samples that are now durable.
    pub accepted: usize,
    /// Samples that the store already held.
    pub duplicates: usize,
    /// Different series in the file; counted up to a million.
    pub series: usize,
    /// What the store refused, in samples.
    pub rejected: Refusals,
    /// What was not read, in cells and lines.
    pub skipped: Refusals,
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: usize| HumanCount(number as u64);
        write!(f, "{} samples stored", count(self.accepted))?;
        if self.duplicates > 0 {
            write!(f, ", {} already there", count(self.duplicates))?;
        }
        write!(f, ", of {} series", count(self.series))?;
        if !self.rejected.is_empty() {
            write!(f, "; {}", self.rejected)?;
        }
        if !self.skipped.is_empty() {
            write!(f, "; not read: {}", self.skipped)?;
        }
        Ok(())
    }
}

/// Why an import ended early.
#[derive(Debug, Error)]
#[error("{cause} (before that: {stored}; the import may be started again)")]
pub struct ImportError {
    /// What is durable all the same.
    pub stored: Box<ImportSummary>,
    /// Why it ended.
    #[source]
    pub cause: ImportFailure,
}

/// What can end an import.
#[derive(Debug, Error)]
pub enum ImportFailure {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the reading thread hands over.
type Handed = Result<WriteBatch, FileError>;

/// Imports a file, plain or gzip.
///
/// # Errors
/// When the file or the store fails; all that was counted until then is durable.
pub async fn import(
    store: &dyn Store,
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
    clock: &dyn Clock,
    progress: &ProgressBar,
) -> Result<ImportSummary, ImportError> {
    let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD_MAX);
    let reader = tokio::task::spawn_blocking(move || read_file(input, options, &sender));
    let mut summary = ImportSummary::default();
    let mut seen = HashSet::new();
    let mut failure = None;
    while let Some(handed) = receiver.recv().await {
        let appended = match handed {
            Ok(batch) => append(store, batch, clock, &mut summary, &mut seen).await.map_err(Into::into),
            Err(error) => Err(ImportFailure::File(error)),
        };
        if let Err(cause) = appended {
            failure = Some(cause);
            break;
        }
        progress.set_message(format!("{} samples", HumanCount(summary.accepted as u64)));
    }
    // The thread ends at its next batch, if it has not already.
    drop(receiver);
    progress.finish_and_clear();
    match reader.await {
        Ok(skipped) => summary.skipped = skipped,
        Err(error) => {
            failure.get_or_insert_with(|| FileError::Whole(format!("the reader failed: {error}")).into());
        }
    }
    match failure {
        None => Ok(summary),
        Some(cause) => Err(ImportError { stored: Box::new(summary), cause }),
    }
}

async fn append(
    store: &dyn Store,
    batch: WriteBatch,
    clock: &dyn Clock,
    summary: &mut ImportSummary,
    seen: &mut HashSet<Labels>,
) -> Result<(), StoreError> {
    for labels in &batch.series {
        if seen.len() < SERIES_COUNTED_MAX && !seen.contains(labels) {
            seen.insert(labels.clone());
        }
    }
    summary.series = seen.len();
    let context = Context { scope: Scope::All, timeout: APPEND_TIMEOUT };
    let report = store.append(&context, batch, clock.now_ms(), OutOfOrder::Lifted).await?;
    summary.accepted += report.accepted;
    summary.duplicates += report.duplicates;
    for (_, reject) in &report.rejected {
        summary.rejected.add(reject.reason(), 1, || reject.to_string());
    }
    Ok(())
}

/// Reads a file to its end, or to an error, or until nobody listens; answers what was skipped.
fn read_file(
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
    sender: &mpsc::Sender<Handed>,
) -> Refusals {
    let mut file = match open(input, options) {
        Ok(file) => file,
        Err(error) => {
            let _ = sender.blocking_send(Err(error));
            return Refusals::default();
        }
    };
    loop {
        let mut batch = WriteBatch::default();
        let filled = file.fill(&mut batch, BATCH_SAMPLES_MAX);
        // What stands before an error is sent first. A failed send means that the import has ended.
        if !batch.samples.is_empty() && sender.blocking_send(Ok(batch)).is_err() {
            break;
        }
        match filled {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let _ = sender.blocking_send(Err(error));
                break;
            }
        }
    }
    file.skipped().clone()
}

fn open(
    input: impl BufRead + Send + 'static,
    options: ImportOptions,
) -> Result<Box<dyn SampleFile>, FileError> {
    let input = decompressed(input)?;
    Ok(match options.format {
        Format::Csv => Box::new(CsvFile::new(input, options.csv)?),
        Format::Openmetrics => {
            Box::new(OpenMetricsFile::new(input, options.csv.labels, options.csv.bad_lines))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, TestApp};
    use axum::Router;
    use clap::Parser;
    use std::io::{Cursor, Write};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ImportArgs,
    }

    fn args(line: &[&str]) -> ImportArgs {
        Cli::try_parse_from([&["import"], line].concat()).expect("arguments").args
    }

    async fn run(server: &TestApp, line: &[&str], text: Vec<u8>) -> Result<ImportSummary, ImportError> {
        let options = args(line).options().expect("options");
        let (store, clock) = (server.store.as_ref(), server.clock.as_ref());
        import(store, Cursor::new(text), options, clock, &ProgressBar::hidden()).await
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    }

    #[tokio::test]
    async fn a_file_is_stored_in_bounded_batches_and_again_without_harm() {
        let server = TestApp::new();
        let mut text = "ts,a,b\n".to_owned();
        for row in 0..25_000_i64 {
            text += &format!("{},{row},{}\n", NOW_MS - 1_000 * row, row as f64 / 7.0);
        }
        let line = ["x.csv.gz", "--label", "host=h 1", "--metric-prefix", "m_"];
        let summary = run(&server, &line, gzip(text.as_bytes())).await.expect("imported");
        assert_eq!((summary.accepted, summary.duplicates, summary.series), (50_000, 0, 2));
        let all = server.everything();
        assert_eq!((all.len(), all[0].0.as_str()), (50_000, r#"m_a{host="h 1"}"#));
        assert!(server.commits() >= 50_000 / BATCH_SAMPLES_MAX as u64);
        let summary = run(&server, &line, text.into_bytes()).await.expect("imported");
        assert_eq!((summary.accepted, summary.duplicates), (0, 50_000));
        assert!(summary.to_string().contains("50,000 already there"), "{summary}");
    }

    #[tokio::test]
    async fn what_stands_before_an_error_is_stored() {
        let server = TestApp::new();
        let text = format!("ts,a\n{NOW_MS},1\n{NOW_MS},x\n");
        let error = run(&server, &["x.csv"], text.clone().into_bytes()).await.expect_err("refused");
        assert!(error.to_string().starts_with("line 3: column \"a\""), "{error}");
        assert_eq!((error.stored.accepted, server.everything().len()), (1, 1));
        let summary = run(&server, &["x.csv", "--skip-bad"], text.into_bytes()).await.expect("imported");
        assert_eq!((summary.duplicates, summary.skipped.total()), (1, 1));
    }

    #[tokio::test]
    async fn open_metrics_are_imported_and_old_samples_counted() {
        let server = TestApp::new();
        let text = b"up{a=\"b\"} 1 1795338120\nup 2 1\n# EOF\n".to_vec();
        let summary = run(&server, &["x.om"], text).await.expect("imported");
        assert_eq!((summary.accepted, summary.series), (1, 2));
        assert_eq!(summary.rejected.by_reason().collect::<Vec<_>>(), [("beyond_retention", 1)]);
    }

    #[tokio::test]
    async fn broken_input_and_a_failing_store_end_the_import_with_a_reason() {
        let server = TestApp::new();
        let mut cut = gzip("ts,a\n1795338120000,1\n".repeat(100).as_bytes());
        cut.truncate(cut.len() - 12);
        assert!(run(&server, &["x.csv"], cut).await.is_err());
        let error = run(&server, &["x.csv"], vec![]).await.expect_err("refused");
        assert!(error.to_string().contains("the file is empty"), "{error}");
        let full = TestApp::full(Router::new());
        let text = format!("ts,a\n{}", format!("{NOW_MS},1\n").repeat(100_000));
        let error = run(&full, &["x.csv"], text.into_bytes()).await.expect_err("refused");
        assert!(matches!(error.cause, ImportFailure::Store(StoreError::NoSpace(_))), "{error}");
    }

    #[test]
    fn arguments_are_checked() {
        assert_eq!(Format::of_name(Path::new("/a/B.CSV.GZ")), Some(Format::Csv));
        assert_eq!(Format::of_name(Path::new("a.prom")), Some(Format::Openmetrics));
        assert_eq!(Format::of_name(Path::new("a.b")), None);
        let error = args(&["-"]).options().expect_err("refused").to_string();
        assert!(error.contains("--format"), "{error}");
        assert!(Cli::try_parse_from(["import", "x.csv", "--label", "oops"]).is_err());
        assert!(args(&["/nonexistent.csv"]).open().is_err());
    }

    #[tokio::test]
    async fn the_opened_file_is_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.csv");
        std::fs::write(&path, format!("ts,a\n{NOW_MS},1\n")).expect("written");
        let args = args(&[path.to_str().expect("UTF-8")]);
        let (input, bar) = args.open().expect("opened");
        let server = TestApp::new();
        let options = args.options().expect("options");
        let (store, clock) = (server.store.as_ref(), server.clock.as_ref());
        let summary = import(store, input, options, clock, &bar).await.expect("imported");
        assert_eq!(summary.accepted, 1);
    }
}
