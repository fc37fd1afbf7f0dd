//! `lookback outbox`: what the engine refused for good, shown or sent again.

use crate::config::outbox::{OutboxCommand, OutboxDirArgs};
use crate::store::prometheus::dead_letters::{DeadLetter, DeadLetters};
use crate::store::prometheus::outbox::Outbox;
use crate::store::prometheus::{outbox_dir, put_back};
use crate::time::rfc3339;
use anyhow::Context as _;
use lookback_storage::{Labels, Sample};
use std::io::Write;

/// Letters that are put back at once.
const LETTERS_AT_ONCE: usize = 1_000;

/// Does what was asked for.
///
/// # Errors
/// When the outbox can't be read, or a server uses it.
pub async fn outbox(command: &OutboxCommand) -> anyhow::Result<()> {
    match command {
        OutboxCommand::List(args) => list(args),
        OutboxCommand::Replay(args) => replay(args).await,
    }
}

fn letters(args: &OutboxDirArgs) -> anyhow::Result<DeadLetters> {
    let dir = outbox_dir(&args.data_dir);
    std::fs::metadata(&dir).with_context(|| format!("there is no outbox in {}", args.data_dir.display()))?;
    Ok(DeadLetters::new(&dir))
}

fn list(args: &OutboxDirArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (mut count, mut samples, mut written) = (0_u64, 0, Ok(()));
    let broken = letters(args)?.each(|letter| {
        count += 1;
        samples += letter.samples().len();
        if written.is_ok() {
            written = show(&mut out, &letter);
        }
    })?;
    written?;
    writeln!(out, "{samples} samples in {count} letters")?;
    if broken > 0 {
        writeln!(out, "{broken} lines are broken and are left out")?;
    }
    Ok(())
}

fn show(out: &mut impl Write, letter: &DeadLetter) -> std::io::Result<()> {
    let series = letter.labels().map_or_else(|| format!("{:?}", letter.series), |labels| labels.to_string());
    writeln!(out, "{} {} {series}: {}", rfc3339(letter.refused_ms), letter.status, letter.reason)?;
    for sample in letter.samples() {
        writeln!(out, "    {} {}", rfc3339(sample.timestamp_ms), sample.value)?;
    }
    Ok(())
}

async fn replay(args: &OutboxDirArgs) -> anyhow::Result<()> {
    let letters = letters(args)?;
    let dir = outbox_dir(&args.data_dir);
    let (outbox, _) = tokio::task::spawn_blocking(move || Outbox::open(&dir, u64::MAX, |_| ())).await??;
    let mut series: Vec<(Labels, Vec<Sample>)> = Vec::new();
    let broken =
        letters.each(|letter| series.extend(letter.labels().map(|labels| (labels, letter.samples()))))?;
    for some in series.chunks(LETTERS_AT_ONCE) {
        put_back(&outbox, some).await?;
    }
    // Only now: they are durable in the outbox.
    letters.clear()?;
    tokio::task::spawn_blocking(move || drop(outbox)).await?;
    let samples: usize = series.iter().map(|(_, samples)| samples.len()).sum();
    writeln!(
        std::io::stdout(),
        "{samples} samples are in the outbox again: the server sends them when it runs"
    )?;
    if broken > 0 {
        writeln!(std::io::stdout(), "{broken} lines were broken and are gone")?;
    }
    Ok(())
}
