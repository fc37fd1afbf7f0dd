//! Looking into a data directory: what lies where, in which codecs, and how much room it takes.
//!
//! Nothing is opened as a database, locked or changed, so it can be done beside a running server. What is
//! not yet in blocks is counted in the log, and what is in both is counted twice while a seal ends.

use crate::block::{BLOCKS_DIR, Block, BlockRecord, CodecWindow};
use crate::catalog::{self, CATALOG_DIR};
use crate::codec::{time_codec_name, value_codec_name};
use crate::error::{Error, Result};
use crate::files::{bytes_below, files_below};
use crate::identity;
use crate::log::{self, LOG_DIR};
use crate::quarantine::{self, QUARANTINE_DIR};
use crate::recover::INDEX_DIR;
use crate::rollup::{ROLLUPS_DIR, RollupFile};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

/// What a data directory holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspected {
    /// The version of its format, if it can be told.
    pub format: Option<u32>,
    /// The store's identity, if it can be told.
    pub uuid: Option<Uuid>,
    /// The time that a partition spans, if it can be told.
    pub partition_ms: Option<i64>,
    /// Different series in blocks, in the catalogue and in the log.
    pub series: u64,
    /// Samples in blocks and in the log.
    pub samples: u64,
    /// Bytes of the directory, whatever they are.
    pub bytes: u64,
    /// Partitions that have blocks, by class and time.
    pub partitions: Vec<InspectedPartition>,
    /// Codecs of columns in blocks, those that take most first.
    pub codecs: Vec<InspectedCodec>,
    /// Rollups, by time and window.
    pub rollups: Vec<InspectedRollups>,
    /// The write-ahead log.
    pub log: InspectedLog,
    /// Files of the catalogue.
    pub catalog_files: usize,
    /// Bytes of those.
    pub catalog_bytes: u64,
    /// Deletes that may still apply to a block.
    pub deletes: usize,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Files and directories that were set aside because they are damaged.
    pub quarantined: u64,
    /// Bytes of those.
    pub quarantine_bytes: u64,
    /// What could not be read, each with its file.
    pub damage: Vec<String>,
}

/// The blocks of one class in one partition of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InspectedPartition {
    /// The retention class.
    pub class: String,
    /// Where the partition begins, Unix milliseconds.
    pub start_ms: i64,
    /// The first sample in it.
    pub min_ms: i64,
    /// The last sample in it.
    pub max_ms: i64,
    /// Blocks.
    pub blocks: usize,
    /// Different series in them.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes of the blocks' files.
    pub bytes: u64,
}

/// One codec of one kind of column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedCodec {
    /// `times` or `values`.
    pub column: &'static str,
    /// The codec, as FORMAT.md calls it.
    pub codec: &'static str,
    /// How many columns are in it; chunks may share one of times.
    pub columns: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// Rollups of one window in one partition of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedRollups {
    /// Where the partition begins, Unix milliseconds.
    pub start_ms: i64,
    /// The window.
    pub window_ms: i64,
    /// Files, one a class.
    pub files: usize,
    /// Series in them.
    pub series: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// The write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedLog {
    /// Groups.
    pub groups: usize,
    /// Samples in them.
    pub samples: u64,
    /// Bytes on disk: files grow ahead of what is written.
    pub bytes: u64,
}

/// Looks into the data directory. `progress` is told the bytes of blocks looked at, and of all blocks.
///
/// # Errors
/// When the directory can't be read. Damage is no error: the answer lists it.
pub fn inspect(data_dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Inspected> {
    let contents = catalog::read(&data_dir.join(CATALOG_DIR))?;
    let store = identity::read(data_dir).or(contents.store);
    let mut inspected = Inspected {
        format: store.map(|store| store.format),
        uuid: store.map(|store| store.uuid),
        partition_ms: store.map(|store| store.partition_ms),
        bytes: bytes_below(data_dir),
        catalog_files: files_below(&data_dir.join(CATALOG_DIR)).len(),
        catalog_bytes: bytes_below(&data_dir.join(CATALOG_DIR)),
        deletes: contents.deletes.len(),
        index_bytes: bytes_below(&data_dir.join(INDEX_DIR)),
        quarantined: quarantine::count(data_dir),
        quarantine_bytes: bytes_below(&data_dir.join(QUARANTINE_DIR)),
        damage: contents.damaged.iter().map(ToString::to_string).collect(),
        ..Inspected::default()
    };
    let mut series: RoaringBitmap = contents.series.keys().copied().collect();
    series |= look_at_blocks(data_dir, &mut inspected, &mut progress)?;
    look_at_rollups(data_dir, &mut inspected)?;
    inspected.log.bytes = bytes_below(&data_dir.join(LOG_DIR));
    if let Some(store) = store {
        let (groups, damage) = log::verify(&data_dir.join(LOG_DIR), store.uuid, |group| {
            inspected.log.samples += group.samples.len() as u64;
            series.extend(group.series.iter().map(|definition| definition.id));
        })?;
        inspected.log.groups = groups;
        inspected.damage.extend(damage);
    }
    inspected.samples += inspected.log.samples;
    inspected.series = series.len();
    Ok(inspected)
}

/// Counts what is in blocks. Answers the numbers of their series.
fn look_at_blocks(
    data_dir: &Path,
    inspected: &mut Inspected,
    progress: &mut impl FnMut(u64, u64),
) -> Result<RoaringBitmap> {
    let mut files = files_below(&data_dir.join(BLOCKS_DIR));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "block"));
    files.sort();
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let (mut done_bytes, all_bytes) = (0, files.iter().map(|path| size(path)).sum());
    let mut partitions: BTreeMap<(String, i64), (InspectedPartition, RoaringBitmap)> = BTreeMap::new();
    let mut codecs = Codecs::default();
    for path in files {
        let bytes = size(&path);
        let looked = BlockRecord::of_file(data_dir, &path)
            .ok_or_else(|| Error::damaged(&path, "its name or its header is none of a block"))
            .and_then(|record| Block::open(data_dir, record));
        match looked {
            Ok(block) => {
                let record = block.record();
                let key = (record.class.clone(), record.partition_start_ms);
                let (partition, series) = partitions.entry(key).or_default();
                look_at_block(&block, partition, series, &mut codecs)?;
            }
            // A server that runs has merged it away in the meantime.
            Err(_) if !path.exists() => continue,
            Err(error) if error.is_loss() => inspected.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
        done_bytes += bytes;
        progress(done_bytes, all_bytes);
    }
    let mut all_series = RoaringBitmap::new();
    for ((class, start_ms), (partition, series)) in partitions {
        inspected.samples += partition.samples;
        inspected.partitions.push(InspectedPartition { class, start_ms, series: series.len(), ..partition });
        all_series |= series;
    }
    inspected.codecs = codecs.listed();
    Ok(all_series)
}

fn look_at_block(
    block: &Block,
    partition: &mut InspectedPartition,
    series: &mut RoaringBitmap,
    codecs: &mut Codecs,
) -> Result<()> {
    if partition.blocks == 0 {
        (partition.min_ms, partition.max_ms) = (i64::MAX, i64::MIN);
    }
    partition.blocks += 1;
    partition.bytes += block.file_bytes();
    let mut window = CodecWindow::default();
    let mut times_end = None;
    for entry in block.entries() {
        series.insert(entry.series);
        partition.chunks += 1;
        partition.samples += u64::from(entry.samples);
        partition.min_ms = partition.min_ms.min(entry.min_ms);
        partition.max_ms = partition.max_ms.max(entry.last_ms);
        // Columns of times come in rising order; one that is shared has been counted.
        if times_end.is_none_or(|end| entry.times.offset >= end) {
            times_end = Some(entry.times.offset + u64::from(entry.times.bytes));
            let name = block.codec_byte(entry.times, &mut window)?.and_then(time_codec_name);
            codecs.count("times", name, entry.times.bytes);
        }
        let name = block.codec_byte(entry.values, &mut window)?.and_then(value_codec_name);
        codecs.count("values", name, entry.values.bytes);
    }
    Ok(())
}

fn look_at_rollups(data_dir: &Path, inspected: &mut Inspected) -> Result<()> {
    let mut rollups: BTreeMap<(i64, i64), InspectedRollups> = BTreeMap::new();
    let mut files = files_below(&data_dir.join(ROLLUPS_DIR));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rollup"));
    for path in files {
        let looked = RollupFile::open_by_name(data_dir, &path).and_then(|(start_ms, file)| {
            let series = file.series()?.len() as u64;
            Ok((start_ms, file, series))
        });
        match looked {
            Ok((start_ms, file, series)) => {
                let window_ms = file.record.window_ms;
                let none = InspectedRollups { start_ms, window_ms, files: 0, series: 0, bytes: 0 };
                let of_window = rollups.entry((start_ms, window_ms)).or_insert(none);
                of_window.files += 1;
                of_window.series += series;
                of_window.bytes += file.file_bytes();
            }
            // Made anew in the meantime.
            Err(_) if !path.exists() => {}
            Err(error) if error.is_loss() => inspected.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    inspected.rollups = rollups.into_values().collect();
    Ok(())
}

/// Columns by codec.
#[derive(Default)]
struct Codecs(BTreeMap<(&'static str, &'static str), (u64, u64)>);

impl Codecs {
    fn count(&mut self, column: &'static str, codec: Option<&'static str>, bytes: u32) {
        let counted = self.0.entry((column, codec.unwrap_or("unknown"))).or_default();
        counted.0 += 1;
        counted.1 += u64::from(bytes);
    }

    fn listed(self) -> Vec<InspectedCodec> {
        let mut listed: Vec<_> = self
            .0
            .into_iter()
            .map(|((column, codec), (columns, bytes))| InspectedCodec { column, codec, columns, bytes })
            .collect();
        listed.sort_by_key(|codec| std::cmp::Reverse(codec.bytes));
        listed
    }
}
