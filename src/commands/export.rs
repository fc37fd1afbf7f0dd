//! `lookback export`: a store, or a part of it, as OpenMetrics text with timestamps.
//!
//! A partition of one series is in memory at a time. A file gets its name when it is whole and on disk; one
//! that was cut off, or standard output that was, lacks `# EOF`, and `lookback import` says so.

mod text;

use crate::config::Selector;
use crate::config::export::ExportArgs;
use crate::store::embedded::EmbeddedStore;
use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lookback_storage::{Db, Labels, Options};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Text that is gathered before it is handed on.
const TEXT_BYTES: usize = 256 << 10;

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Exported {
    series: u64,
    samples: u64,
}

/// Exports what the arguments say, until `cancelled`. What is told, is told on standard error.
///
/// # Errors
/// When the store can't be opened, something can't be written, or it was cancelled; then there is no file.
pub fn export(args: &ExportArgs, cancelled: &AtomicBool) -> anyhow::Result<()> {
    // A directory that is not there holds nothing, and is not made.
    let data_dir = &args.selection.data_dir;
    fs::metadata(data_dir).with_context(|| format!("the data directory {}", data_dir.display()))?;
    // Nothing expires by a retention that is not the server's.
    let store = EmbeddedStore::open(data_dir, Options { retention_ms: None, ..Options::default() })?;
    let damage = store.engine().stats().damage;
    damage.iter().for_each(|what| tracing::error!(what, "not in the export"));
    let to_stdout = args.file == Path::new("-");
    let gzip = args.gzip || args.file.extension().is_some_and(|extension| extension == "gz");
    let exported = if to_stdout {
        write_all(store.engine(), args, io::stdout().lock(), gzip, cancelled).map(|(exported, _)| exported)
    } else {
        write_file(store.engine(), args, gzip, cancelled)
    };
    let stats = store.engine().stats();
    let exported = exported?;
    eprintln!("exported {} samples of {} series", HumanCount(exported.samples), HumanCount(exported.series));
    if stats.damaged_blocks + stats.damaged_chunks > 0 || !damage.is_empty() {
        anyhow::bail!("what is damaged is not in the export: lookback verify names it");
    }
    Ok(())
}

/// Writes a file under another name, and renames it once it is durable.
fn write_file(db: &Db, args: &ExportArgs, gzip: bool, cancelled: &AtomicBool) -> anyhow::Result<Exported> {
    let mut name: OsString = args.file.clone().into_os_string();
    name.push(".part");
    let part = PathBuf::from(name);
    let what = || format!("{} can't be written", args.file.display());
    let written = File::create(&part).with_context(what).and_then(|file| {
        let (exported, file) = write_all(db, args, file, gzip, cancelled)?;
        file.sync_all().and_then(|()| fs::rename(&part, &args.file)).with_context(what)?;
        Ok(exported)
    });
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Writes all, compressed or not, and gives back what it was written to.
fn write_all<W: Write>(
    db: &Db,
    args: &ExportArgs,
    out: W,
    gzip: bool,
    cancelled: &AtomicBool,
) -> anyhow::Result<(Exported, W)> {
    let broken = "the export can't be written";
    if gzip {
        let mut out = BufWriter::with_capacity(TEXT_BYTES, GzEncoder::new(out, Compression::default()));
        let exported = write_text(db, args, &mut out, cancelled)?;
        let encoder = out.into_inner().map_err(io::IntoInnerError::into_error).context(broken)?;
        let mut out = encoder.finish().context(broken)?;
        out.flush().context(broken)?;
        return Ok((exported, out));
    }
    let mut out = BufWriter::with_capacity(TEXT_BYTES, out);
    let exported = write_text(db, args, &mut out, cancelled)?;
    out.flush().context(broken)?;
    let out = out.into_inner().map_err(io::IntoInnerError::into_error).context(broken)?;
    Ok((exported, out))
}

fn write_text(
    db: &Db,
    args: &ExportArgs,
    out: &mut impl Write,
    cancelled: &AtomicBool,
) -> anyhow::Result<Exported> {
    let bar = progress_bar();
    let (mut exported, mut failure) = (Exported::default(), None);
    let (mut of_series, mut lines) = ((usize::MAX, String::new()), String::new());
    let selectors = &args.selection.selectors;
    let any = |labels: &Labels| selectors.iter().any(|selector| selector.fits(labels));
    let selection = Selector::selection(selectors, &any);
    let read = db.select_pieces(
        selection,
        args.selection.span.bounds_ms(),
        &|| cancelled.load(Ordering::Relaxed),
        &mut |piece| {
            if of_series.0 != piece.series_done {
                of_series = (piece.series_done, text::series(piece.labels));
                exported.series += 1;
                bar.set_length(piece.series_all as u64);
                bar.set_position(piece.series_done as u64);
            }
            lines.clear();
            for sample in &piece.samples {
                text::put_sample(&mut lines, &of_series.1, *sample, args.plain);
            }
            exported.samples += lines.bytes().filter(|byte| *byte == b'\n').count() as u64;
            match out.write_all(lines.as_bytes()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        },
    );
    bar.finish_and_clear();
    if let Some(error) = failure {
        return Err(error).context("the export can't be written");
    }
    match read {
        Err(lookback_storage::Error::Cancelled) => anyhow::bail!("interrupted: nothing was exported"),
        read => read?,
    }
    out.write_all(text::END.as_bytes()).context("the export can't be written")?;
    Ok(exported)
}

/// A bar of series on standard error, hidden where that is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} series [{elapsed}, {eta} left]") {
        bar.set_style(style);
    }
    bar
}
