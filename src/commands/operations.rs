//! `lookback verify` and `restore`, and what `backup` says.

use crate::config::{RestoreArgs, VerifyArgs};
use anyhow::Context as _;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use lookback_storage::BackupReport;
use serde_json::json;
use std::io::Write;

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
    let verified = lookback_storage::verify(&args.data_dir, |done, all| follow(&bar, done, all))?;
    bar.finish_and_clear();
    let mut out = std::io::stdout();
    if args.json {
        let said = json!({
            "blocks": verified.blocks, "bytes": verified.bytes, "chunks": verified.chunks,
            "samples": verified.samples, "series": verified.series, "logGroups": verified.log_groups,
            "damage": verified.damage,
        });
        writeln!(out, "{said}")?;
    } else {
        verified.damage.iter().try_for_each(|what| writeln!(out, "{what}"))?;
        writeln!(
            out,
            "{} samples in {} chunks of {} blocks ({}), {} series, {} log groups",
            HumanCount(verified.samples),
            HumanCount(verified.chunks as u64),
            HumanCount(verified.blocks as u64),
            HumanBytes(verified.bytes),
            HumanCount(verified.series as u64),
            HumanCount(verified.log_groups as u64)
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
    let progress = |done, all| follow(&bar, done, all);
    let restored = lookback_storage::restore(&args.from, &args.data_dir, uuid::Uuid::new_v4(), progress);
    bar.finish_and_clear();
    let report = restored.with_context(|| format!("{} was not restored", args.from.display()))?;
    writeln!(std::io::stdout(), "restored {} into {}", summary(&report), args.data_dir.display())?;
    Ok(())
}

/// What a backup or restore did, in words.
#[must_use]
pub fn summary(report: &BackupReport) -> String {
    format!(
        "{} blocks ({}; {} of them copied) of {} series",
        HumanCount(report.blocks as u64),
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
