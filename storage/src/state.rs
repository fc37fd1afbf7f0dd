//! What the engine's parts share.

use crate::block::{Block, BlockRecord};
use crate::deletes::Deletes;
use crate::error::{Error, Result};
use crate::files;
use crate::handed_out::HandedOut;
use crate::options::Options;
use crate::postings::Postings;
use crate::registry::Registry;
use crate::retention::Retention;
use crate::rollup::{ColumnCache, Units};
use crate::room::Room;
use crate::sample::Sample;
use crate::series::{Inserted, Series};
use crate::undurable::Undurable;
use crossbeam::atomic::AtomicCell;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The state in memory. The committer and maintenance change it, readers read it.
pub(crate) struct State {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) partition_ms: i64,
    pub(crate) registry: Registry,
    /// Label sets of the series whose newest values are asked for.
    pub(crate) handed_out: HandedOut,
    /// The rules of retention; replaced as a whole.
    pub(crate) retention: RwLock<Arc<Retention>>,
    /// The time that maintenance was last told; `None` until then.
    pub(crate) told_ms: AtomicCell<Option<i64>>,
    /// What room there is, as maintenance last found it.
    pub(crate) room: Mutex<Room>,
    /// Written for a moment when series come or go.
    pub(crate) postings: RwLock<Postings>,
    /// Replaced as a whole: a reader works on the set it took.
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
    /// Replaced as a whole, likewise.
    pub(crate) rollups: RwLock<Arc<Units>>,
    /// What was read of them last.
    pub(crate) columns: ColumnCache,
    /// What was in memory up to this log group is in blocks.
    pub(crate) sealed_seq: AtomicU64,
    /// Replaced as a whole, likewise.
    deletes: RwLock<Arc<Deletes>>,
    /// Blocks that could not be opened: the index goes on naming them, so that nothing removes their
    /// files before they expire.
    pub(crate) quarantined: Mutex<Vec<BlockRecord>>,
    /// Numbers of blocks with a damaged chunk: they are not merged, which would remove their files.
    pub(crate) unmergeable: Mutex<HashSet<u64>>,
    /// Durable series that the index database does not have yet.
    pub(crate) unindexed: Mutex<Vec<Arc<Series>>>,
    /// Latest values that could not be written.
    pub(crate) undurable: Undurable,
    /// What was found to be damaged when the store was opened.
    pub(crate) damage: Damage,
    /// Why the last write failed, until one succeeds.
    pub(crate) write_failure: Mutex<Option<String>>,
    /// Whether memory is so short that no new series is let in.
    pub(crate) memory_short: AtomicBool,
    pub(crate) counters: Counters,
}

/// Damage that was found when the store was opened, and set aside.
#[derive(Default)]
pub(crate) struct Damage {
    /// In words, each with the file that is damaged.
    pub(crate) reasons: Mutex<Vec<String>>,
    /// Log generations that are to be set aside once what could be read of them is sealed.
    pub(crate) generations: Mutex<BTreeSet<u64>>,
    /// Groups of the log that were acknowledged and are lost.
    pub(crate) lost_groups: AtomicU64,
}

/// The earliest of times; `None` before there is one.
pub(crate) struct Earliest(AtomicI64);

impl Default for Earliest {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl Earliest {
    pub(crate) fn note(&self, time_ms: i64) {
        self.0.fetch_min(time_ms, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|time_ms| *time_ms != i64::MAX)
    }

    /// As if there had been none; answers what it was.
    pub(crate) fn take(&self) -> Option<i64> {
        Some(self.0.swap(i64::MAX, Ordering::Relaxed)).filter(|time_ms| *time_ms != i64::MAX)
    }
}

/// Numbers for statistics, and for what is due.
#[derive(Default)]
pub(crate) struct Counters {
    /// Changes whenever the set of visible series does.
    pub(crate) series_generation: AtomicU64,
    /// Samples in memory, not yet in a published block.
    pub(crate) head_samples: AtomicU64,
    /// The oldest time of samples that have come into memory since the last seal began.
    pub(crate) head_oldest_ms: Earliest,
    /// Bytes of log groups since the last seal.
    pub(crate) log_bytes: AtomicU64,
    /// Log groups made durable since the start.
    pub(crate) groups_committed: AtomicU64,
    /// Blocks left out because they are damaged.
    pub(crate) damaged_blocks: AtomicU64,
    /// Files of rollups left out because they are damaged, and rollups of series.
    pub(crate) damaged_rollups: AtomicU64,
    /// Partitions that went to make room.
    pub(crate) partitions_dropped: AtomicU64,
    /// Chunks left out because they are damaged.
    pub(crate) damaged_chunks: AtomicU64,
}

impl State {
    pub(crate) fn new(dir: &Path, options: Options, partition_ms: i64) -> Self {
        Self {
            dir: dir.to_owned(),
            retention: RwLock::new(Arc::new(Retention::of(&options))),
            told_ms: AtomicCell::new(None),
            room: Mutex::default(),
            columns: ColumnCache::new(options.rollup_cache_bytes),
            options,
            partition_ms,
            registry: Registry::default(),
            handed_out: HandedOut::default(),
            postings: RwLock::default(),
            blocks: RwLock::default(),
            rollups: RwLock::default(),
            sealed_seq: AtomicU64::new(0),
            deletes: RwLock::default(),
            quarantined: Mutex::default(),
            unmergeable: Mutex::default(),
            unindexed: Mutex::default(),
            undurable: Undurable::default(),
            damage: Damage::default(),
            write_failure: Mutex::default(),
            memory_short: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    pub(crate) fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        Arc::clone(&self.blocks.read())
    }

    pub(crate) fn set_blocks(&self, blocks: Vec<Arc<Block>>) {
        *self.blocks.write() = Arc::new(blocks);
    }

    pub(crate) fn deletes(&self) -> Arc<Deletes> {
        Arc::clone(&self.deletes.read())
    }

    pub(crate) fn set_deletes(&self, deletes: Deletes) {
        *self.deletes.write() = Arc::new(deletes);
    }

    /// Makes a durable series visible to readers.
    pub(crate) fn publish(&self, series: &Arc<Series>) {
        self.postings.write().add(series.id, series.labels.iter());
        self.unindexed.lock().push(Arc::clone(series));
        self.counters.series_generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a durable sample where readers find it.
    pub(crate) fn insert(&self, series: &Series, sample: Sample) -> Inserted {
        let inserted = series.insert(sample);
        self.counters.head_oldest_ms.note(sample.timestamp_ms);
        if inserted == Inserted::Added {
            self.counters.head_samples.fetch_add(1, Ordering::Relaxed);
        }
        inserted
    }

    /// Counts samples that are no longer in memory.
    pub(crate) fn count_gone_from_head(&self, samples: usize) {
        self.counters.head_samples.fetch_sub(samples as u64, Ordering::Relaxed);
    }

    /// Whether the time of the partition that begins there is over, for what comes late too.
    pub(crate) fn is_over(&self, partition_start_ms: i64, now_ms: i64) -> bool {
        let end_ms = partition_start_ms.saturating_add(self.partition_ms);
        end_ms.saturating_add(self.options.out_of_order_window_ms) <= now_ms
    }

    /// Where the partition that holds this time begins.
    pub(crate) fn partition_start_ms(&self, timestamp_ms: i64) -> i64 {
        timestamp_ms.div_euclid(self.partition_ms).saturating_mul(self.partition_ms)
    }

    /// Refuses to write while the volume is nearly full.
    pub(crate) fn check_space(&self) -> Result<()> {
        let free_bytes = files::free_bytes(&self.dir)?;
        let needed_bytes = self.options.free_bytes_min;
        if free_bytes < needed_bytes {
            return Err(Error::NoSpace { path: self.dir.clone(), free_bytes, needed_bytes });
        }
        Ok(())
    }
}
