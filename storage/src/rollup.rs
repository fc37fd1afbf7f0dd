//! Rollups: min, max, sum, count and last of the samples in each window of a grid, kept longer than the
//! samples, and read in their place where that gives the same.
//!
//! A window at `t` is `(t − w, t]`, with `t` a multiple of `w` since the Unix epoch: so a point of
//! [`crate::resample`] whose grid lies on multiples of `w` is made of whole windows. A partition is rolled
//! up for itself: its first window may hold no more than the sample at its very beginning, and is joined
//! with the last one of the partition before when it is read. Only finite samples count, as in `resample`.
//! A series with a window whose sum is beyond f64 is not rolled up.
//!
//! Of counters the rates between neighbouring samples are rolled up as well, with the partition's first and
//! last sample, so that the rate across the boundary is made when it is read.
//!
//! All rollups of one partition of time are a *unit*: they are written together, and the index names them
//! together. A unit says up to which log group it has seen what lies in blocks (`sealed_seq`), and which
//! deletes (`delete_seq`). What came later, in blocks or in memory, makes readers take the samples
//! themselves, and maintenance roll the partition up anew. Once samples of the partition have been dropped,
//! its rollups are what is left: then they only ever lose what is deleted.

pub(crate) mod build;
mod cache;
mod chunk;
mod file;
mod parts;
mod points;
mod read;
mod window;

pub(crate) use cache::ColumnCache;
pub use chunk::Column as Figure;
pub(crate) use file::RollupFile;
pub use parts::{Part, SeriesParts, Spans, VisitParts};
pub use read::{RangeRead, RangeUse};

use crate::bytes::sortable;
use crate::deletes::{DeleteRecord, Deletes};
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Reads rollups of these bytes: of a series, and, in the directory `dir`, a whole file.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8], dir: &Path) {
    let whole = [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();
    for window_ms in [1, 300_000] {
        let _ = chunk::decode(&whole, window_ms);
        for column in [chunk::Column::Min, chunk::Column::Max, chunk::Column::Sum, chunk::Column::Last] {
            let _ = chunk::decode_figures(&whole, window_ms, column, false);
            let _ = chunk::decode_figures(&whole, window_ms, column, true);
        }
    }
    let record = FileRecord { id: 3, class: "default".to_owned(), window_ms: 10 };
    let path = record.path(dir, 0);
    let _ = crate::disk::Disk::default().create_dir_all(&unit_dir(dir, 0));
    if std::fs::write(&path, bytes).is_ok()
        && let Ok(file) = RollupFile::open(dir, 0, record)
    {
        file.series().unwrap_or_default().into_iter().for_each(|series| drop(file.read(series)));
    }
}

/// The directory of all rollups below the data directory.
pub(crate) const ROLLUPS_DIR: &str = "rollups";

/// What the index says of the rollups of one partition of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitRecord {
    /// Where the partition begins, Unix milliseconds.
    pub(crate) partition_start_ms: i64,
    /// What was sealed up to this log group has been seen.
    pub(crate) sealed_seq: u64,
    /// Deletes up to this log group have been applied.
    pub(crate) delete_seq: u64,
    /// The fingerprint of the rules by which it was made.
    pub(crate) rules: u32,
    /// Whether samples of the partition have been dropped since.
    pub(crate) samples_dropped: bool,
    /// The files.
    pub(crate) files: Vec<FileRecord>,
}

/// One file of rollups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Its number; larger is later.
    pub(crate) id: u64,
    /// The retention class of its series.
    pub(crate) class: String,
    /// The window.
    pub(crate) window_ms: i64,
}

impl FileRecord {
    pub(crate) fn path(&self, data_dir: &Path, partition_start_ms: i64) -> PathBuf {
        unit_dir(data_dir, partition_start_ms).join(format!("{:016x}.rollup", self.id))
    }
}

/// The directory of a unit.
pub(crate) fn unit_dir(data_dir: &Path, partition_start_ms: i64) -> PathBuf {
    data_dir.join(ROLLUPS_DIR).join(partition_start_ms.to_string())
}

/// The key of a unit in the index: keys are in order of time.
pub(crate) fn unit_key(partition_start_ms: i64) -> [u8; 8] {
    sortable(partition_start_ms)
}

/// The open rollups of one partition of time.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) record: UnitRecord,
    pub(crate) files: Vec<Arc<RollupFile>>,
    /// Whether something of it turned out to be damaged: it is to be made anew.
    pub(crate) broken: AtomicBool,
}

impl Unit {
    pub(crate) fn new(record: UnitRecord, files: Vec<Arc<RollupFile>>) -> Self {
        Self { record, files, broken: AtomicBool::new(false) }
    }

    /// Whether a delete that it has not seen may touch it.
    pub(crate) fn is_touched_by(&self, delete: &DeleteRecord, partition_ms: i64) -> bool {
        let start_ms = self.record.partition_start_ms;
        delete.seq > self.record.delete_seq
            && delete.end_ms >= start_ms
            && delete.start_ms < start_ms.saturating_add(partition_ms)
    }
}

/// All units, by where their partition begins.
pub(crate) type Units = BTreeMap<i64, Arc<Unit>>;

impl State {
    pub(crate) fn rollups(&self) -> Arc<Units> {
        Arc::clone(&self.rollups.read())
    }

    /// Puts a unit in the place of the one of its partition.
    pub(crate) fn set_unit(&self, unit: Unit) {
        let mut units = self.rollups.write();
        let mut changed = (**units).clone();
        changed.insert(unit.record.partition_start_ms, Arc::new(unit));
        *units = Arc::new(changed);
    }

    /// Whether rollups still have to be freed of what this deletes.
    pub(crate) fn rollups_need(&self, delete: &DeleteRecord) -> bool {
        self.rollups()
            .values()
            .any(|unit| !unit.files.is_empty() && unit.is_touched_by(delete, self.partition_ms))
    }
}

/// The spans of a series' deletes that a unit has not seen.
fn unseen_deletes(deletes: &Deletes, unit: &Unit, series: u32, partition_ms: i64) -> Vec<(i64, i64)> {
    let touching = deletes.of_series(series).iter().filter(|d| unit.is_touched_by(d, partition_ms));
    touching.map(|delete| (delete.start_ms, delete.end_ms)).collect()
}
