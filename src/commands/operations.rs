//! `lookback verify` and `restore`, and what `backup` says. `-` is standard input and output.

use crate::config::{RestoreArgs, VerifyArgs};
use crate::metadata::{self, Metadata};
use anyhow::Context as _;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use lookback_storage::{BackupReport, Verification};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the server has in a data directory besides the store; and what a volume's file system has.
const OTHERS: [&str; 4] = ["certs", metadata::file::FILE_NAME, "metadata.jsonl.new", "lost+found"];

/// A directory for a moment, removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Self {
        let path = std::env::temp_dir().join(format!("lookback-verify-{}", uuid::Uuid::new_v4()));
        // Where nothing can be made, the index is not verified, and that is said.
        let _ = std::fs::create_dir(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Verifies a data directory, and says what is damaged; then it fails.
///
/// # Errors
/// When something is damaged, or the directory can't be read.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let dir = args.data_dir.display();
    if !args.data_dir.is_dir() {
        anyhow::bail!("{dir} is no directory: say where the data is with --data-dir");
    }
    let bar = progress_bar();
    let scratch = Scratch::make();
    let how = Verification { scratch_dir: &scratch.0, others: &OTHERS };
    let verified = lookback_storage::verify(&args.data_dir, how, |done, all| follow(&bar, done, all));
    let mut verified = verified?;
    bar.finish_and_clear();
    match metadata::file::load(&Metadata::default(), &args.data_dir)? {
        0 => {}
        bad => verified.damage.push(format!(
            "{}: {bad} lines can't be read: senders will say those types, helps and units again",
            args.data_dir.join(metadata::file::FILE_NAME).display()
        )),
    }
    let mut out = std::io::stdout();
    if args.json {
        let said = json!({
            "blocks": verified.blocks, "bytes": verified.bytes, "chunks": verified.chunks,
            "samples": verified.samples, "series": verified.series, "logGroups": verified.log_groups,
            "rollups": verified.rollups, "rolledUpSeries": verified.rolled_up,
            "indexRecords": verified.index_records,
            "damage": verified.damage, "notes": verified.notes, "unknown": verified.unknown,
        });
        writeln!(out, "{said}")?;
    } else {
        verified.damage.iter().try_for_each(|what| writeln!(out, "{what}"))?;
        verified.notes.iter().try_for_each(|what| writeln!(out, "note: {what}"))?;
        let unknown = verified.unknown.iter().map(|path| path.display());
        unknown.into_iter().try_for_each(|path| writeln!(out, "note: {path}: no file of Lookback's"))?;
        let count = |number: usize| HumanCount(number as u64);
        writeln!(
            out,
            "{} samples in {} chunks of {} blocks, {} rollups of {} series ({}), {} series, {} log groups, {}",
            HumanCount(verified.samples),
            count(verified.chunks),
            count(verified.blocks),
            count(verified.rollups),
            count(verified.rolled_up),
            HumanBytes(verified.bytes),
            count(verified.series),
            count(verified.log_groups),
            match verified.index_records {
                Some(records) => format!("{} records of the index", count(records)),
                None => "no index".to_owned(),
            }
        )?;
    }
    match verified.damage.len() {
        0 => Ok(()),
        count => anyhow::bail!("{dir} is damaged in {count} places"),
    }
}

/// Makes a store of a backup.
///
/// # Errors
/// When the backup is damaged, or the directory is not empty.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let bar = progress_bar();
    let new_uuid = uuid::Uuid::new_v4();
    let restored = if args.from == Path::new("-") {
        let stdin = std::io::stdin().lock();
        lookback_storage::restore_stream(stdin, &args.data_dir, new_uuid, |done| follow(&bar, done, done))
    } else {
        let progress = |done, all| follow(&bar, done, all);
        lookback_storage::restore(&args.from, &args.data_dir, new_uuid, progress)
    };
    bar.finish_and_clear();
    let report = restored.with_context(|| format!("{} was not restored", args.from.display()))?;
    writeln!(std::io::stdout(), "restored {} into {}", summary(&report), args.data_dir.display())?;
    Ok(())
}

/// What a backup or restore did, in words.
#[must_use]
pub fn summary(report: &BackupReport) -> String {
    format!(
        "{} blocks and {} rollups ({}; {} of them copied) of {} series",
        HumanCount(report.blocks as u64),
        HumanCount(report.rollups as u64),
        HumanBytes(report.bytes),
        HumanBytes(report.bytes_copied),
        HumanCount(report.series as u64)
    )
}

/// A bar on standard error, hidden where that is no terminal.
#[must_use]
pub fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} [{elapsed}, {eta} left]")
    {
        bar.set_style(style);
    }
    bar
}

/// Moves a bar.
pub fn follow(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
