//! `lookback inspect`: what a data directory holds, in tables or as JSON.

use super::operations::{follow, progress_bar};
use crate::config::inspect::{InspectArgs, Output};
use crate::time::format_duration;
use indicatif::{HumanBytes, HumanCount};
use lookback_storage::Inspected;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Looks into a data directory and says what is there.
///
/// # Errors
/// When the directory can't be read, or standard output is closed.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let dir = args.data_dir.display();
    if !args.data_dir.is_dir() {
        anyhow::bail!("{dir} is no directory: say where the data is with --data-dir");
    }
    let bar = progress_bar();
    let inspected = lookback_storage::inspect(&args.data_dir, |done, all| follow(&bar, done, all))?;
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", as_json(&inspected))?,
        Output::Text => {
            writeln!(out, "{dir}{}", identity(&inspected))?;
            write_text(&mut out, &inspected)?;
        }
    }
    Ok(())
}

fn as_json(inspected: &Inspected) -> Value {
    let partitions = inspected.partitions.iter().map(|one| {
        json!({
            "class": one.class, "startMs": one.start_ms, "minMs": one.min_ms, "maxMs": one.max_ms,
            "blocks": one.blocks, "series": one.series, "chunks": one.chunks, "samples": one.samples,
            "bytes": one.bytes, "bytesPerSample": per_sample(one.bytes, one.samples),
        })
    });
    let codecs = inspected.codecs.iter().map(
        |one| json!({"column": one.column, "codec": one.codec, "columns": one.columns, "bytes": one.bytes}),
    );
    let rollups = inspected.rollups.iter().map(|one| {
        json!({
            "startMs": one.start_ms, "windowMs": one.window_ms, "files": one.files, "series": one.series,
            "bytes": one.bytes,
        })
    });
    json!({
        "format": inspected.format, "uuid": inspected.uuid, "partitionMs": inspected.partition_ms,
        "series": inspected.series, "samples": inspected.samples, "bytes": inspected.bytes,
        "bytesPerSample": per_sample(inspected.bytes, inspected.samples),
        "partitions": partitions.collect::<Vec<_>>(),
        "codecs": codecs.collect::<Vec<_>>(),
        "rollups": rollups.collect::<Vec<_>>(),
        "log": {
            "groups": inspected.log.groups, "samples": inspected.log.samples, "bytes": inspected.log.bytes,
        },
        "catalogue": {
            "files": inspected.catalog_files, "deletes": inspected.deletes, "bytes": inspected.catalog_bytes,
        },
        "index": {"bytes": inspected.index_bytes},
        "quarantine": {"entries": inspected.quarantined, "bytes": inspected.quarantine_bytes},
        "damage": inspected.damage,
    })
}

/// Bytes a sample; `None` without samples.
fn per_sample(bytes: u64, samples: u64) -> Option<f64> {
    (samples > 0).then(|| (bytes as f64 / samples as f64 * 1_000.0).round() / 1_000.0)
}

fn per_sample_text(bytes: u64, samples: u64) -> String {
    per_sample(bytes, samples).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn identity(inspected: &Inspected) -> String {
    match (inspected.format, inspected.uuid, inspected.partition_ms) {
        (Some(format), Some(uuid), Some(partition_ms)) => {
            format!(": format {format}, store {uuid}, partitions of {}", format_duration(partition_ms))
        }
        _ => ": it does not say whose it is".to_owned(),
    }
}

fn write_text(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let (bytes, samples) = (inspected.bytes, inspected.samples);
    writeln!(
        out,
        "{} series, {} samples, {}, {} B/sample with all that is in the directory",
        HumanCount(inspected.series),
        HumanCount(samples),
        HumanBytes(bytes),
        per_sample_text(bytes, samples)
    )?;
    write_partitions(out, inspected)?;
    write_codecs(out, inspected)?;
    write_rollups(out, inspected)?;
    write_rest(out, inspected)?;
    inspected.damage.iter().try_for_each(|what| writeln!(out, "damaged: {what}"))
}

fn write_partitions(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let mut rows = vec![
        [
            "CLASS",
            "FIRST SAMPLE",
            "LAST SAMPLE",
            "BLOCKS",
            "SERIES",
            "CHUNKS",
            "SAMPLES",
            "BYTES",
            "B/SAMPLE",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(inspected.partitions.iter().map(|one| {
        vec![
            one.class.clone(),
            moment(one.min_ms),
            moment(one.max_ms),
            HumanCount(one.blocks as u64).to_string(),
            HumanCount(one.series).to_string(),
            HumanCount(one.chunks).to_string(),
            HumanCount(one.samples).to_string(),
            HumanCount(one.bytes).to_string(),
            per_sample_text(one.bytes, one.samples),
        ]
    }));
    write_table(out, 3, &rows)
}

fn write_codecs(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let mut rows = vec![["COLUMN", "CODEC", "COLUMNS", "BYTES", "SHARE"].map(str::to_owned).to_vec()];
    let all: u64 = inspected.codecs.iter().map(|one| one.bytes).sum();
    rows.extend(inspected.codecs.iter().map(|one| {
        vec![
            one.column.to_owned(),
            one.codec.to_owned(),
            HumanCount(one.columns).to_string(),
            HumanCount(one.bytes).to_string(),
            format!("{:.1}%", one.bytes as f64 * 100.0 / all.max(1) as f64),
        ]
    }));
    write_table(out, 2, &rows)
}

fn write_rollups(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let mut rows = vec![["ROLLUPS FROM", "WINDOW", "FILES", "SERIES", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(inspected.rollups.iter().map(|one| {
        vec![
            moment(one.start_ms),
            format_duration(one.window_ms),
            HumanCount(one.files as u64).to_string(),
            HumanCount(one.series).to_string(),
            HumanCount(one.bytes).to_string(),
        ]
    }));
    write_table(out, 2, &rows)
}

fn write_rest(out: &mut impl Write, inspected: &Inspected) -> io::Result<()> {
    let log = inspected.log;
    writeln!(
        out,
        "\nlog: {} samples in {} groups, {}\ncatalogue: {} files, {}; {} deletes\nindex: {}",
        HumanCount(log.samples),
        HumanCount(log.groups as u64),
        HumanBytes(log.bytes),
        HumanCount(inspected.catalog_files as u64),
        HumanBytes(inspected.catalog_bytes),
        HumanCount(inspected.deletes as u64),
        HumanBytes(inspected.index_bytes)
    )?;
    if inspected.quarantined > 0 {
        let (count, bytes) = (HumanCount(inspected.quarantined), HumanBytes(inspected.quarantine_bytes));
        writeln!(out, "quarantine: {count} entries, {bytes}")?;
    }
    Ok(())
}

fn moment(at_ms: i64) -> String {
    let known = jiff::Timestamp::from_millisecond(at_ms);
    known.map_or_else(|_| format!("{at_ms} ms"), |at| at.to_string())
}

/// Writes rows under their headings, the first `left` columns to the left; nothing if there are no rows.
fn write_table(out: &mut impl Write, left: usize, rows: &[Vec<String>]) -> io::Result<()> {
    let Some(headings) = rows.first().filter(|_| rows.len() > 1) else { return Ok(()) };
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or_default()).collect();
    writeln!(out)?;
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_wide_as_their_widest_cell_and_empty_ones_are_left_out() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let mut text = Vec::new();
        write_table(&mut text, 1, &[row(["NAME", "N"])]).expect("written");
        assert!(text.is_empty());
        write_table(&mut text, 1, &[row(["NAME", "N"]), row(["a", "10"])]).expect("written");
        assert_eq!(String::from_utf8_lossy(&text), "\nNAME   N\na     10\n");
    }

    #[test]
    fn bytes_a_sample_are_told_only_where_there_are_samples() {
        assert_eq!((per_sample(10, 4), per_sample(10, 0)), (Some(2.5), None));
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(i64::MAX), format!("{} ms", i64::MAX));
    }
}
