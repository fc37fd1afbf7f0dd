//! Merging: one block in the place of several of its partition, without what was deleted since.
//!
//! A partition's blocks are *young* when they come from memory: short chunks, encoded quickly. While the
//! partition fills, young blocks of about the same size are merged into one as soon as there are more
//! than [`Options::blocks_per_partition_max`](crate::Options::blocks_per_partition_max) of them. Once its
//! time is over and nothing more comes, all its blocks become one, encoded thoroughly: it is *settled*.
//!
//! So a sample is written into a block once when it is sealed, once a tier that it passes (each eight
//! times as large as the one before), and once when it settles: three times on a day of two-hourly
//! seals. What comes late is written with its whole partition again, so it is let gather: to an eighth
//! of what is settled, or until nothing has come for ten minutes.

use crate::block::{Block, BlockRecord, BlockWriter, Stage};
use crate::codec::Effort;
use crate::error::Result;
use crate::inner::{Inner, MaintenanceState};
use crate::sample::{Sample, sort_and_deduplicate};
use crate::seal::take_next;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// How long nothing must have come to a partition whose time is over before it is settled.
pub(crate) const SETTLE_AFTER_MS: i64 = 30_000;
/// How long, if what has come late is little.
pub(crate) const SETTLE_LITTLE_AFTER_MS: i64 = 600_000;
/// What is less than this part of the settled block is little.
const LITTLE_PART: u64 = 8;
/// Smaller blocks are all of one size.
const TIER_BYTES_MIN: u64 = 64 << 10;
/// How many series are merged between two looks at whether memory wants to be sealed.
const SERIES_BETWEEN_SEALS: usize = 256;

/// A partition: its class, and where it begins.
pub(crate) type PartitionKey = (String, i64);

/// What merging remembers from one run to the next.
#[derive(Default)]
pub(crate) struct Quiet {
    /// The newest block of each partition, and since when it has been that.
    newest: BTreeMap<PartitionKey, (u64, i64)>,
}

impl Quiet {
    /// For how long nothing has come to a partition with these blocks.
    fn for_ms(&mut self, key: &PartitionKey, blocks: &[Arc<Block>], now_ms: i64) -> i64 {
        let newest = blocks.iter().map(|block| block.record().id).max().unwrap_or_default();
        let known = self.newest.entry(key.clone()).or_insert((newest, now_ms));
        if known.0 != newest {
            *known = (newest, now_ms);
        }
        now_ms.saturating_sub(known.1)
    }
}

/// Blocks to be made one.
struct Job {
    key: PartitionKey,
    blocks: Vec<Arc<Block>>,
    stage: Stage,
}

impl Inner {
    /// Merges what is due. Answers how many blocks that made.
    pub(crate) fn merge_due(&self, now_ms: i64, maintenance: &mut MaintenanceState) -> Result<usize> {
        let mut partitions: BTreeMap<PartitionKey, Vec<Arc<Block>>> = BTreeMap::new();
        for block in self.state.blocks().iter() {
            let record = block.record();
            let key = (record.class.clone(), record.partition_start_ms);
            partitions.entry(key).or_default().push(Arc::clone(block));
        }
        maintenance.quiet.newest.retain(|key, _| partitions.contains_key(key));
        let mut merged = 0;
        for (key, blocks) in partitions {
            let quiet_ms = maintenance.quiet.for_ms(&key, &blocks, now_ms);
            if let Some(job) = self.job(key, blocks, quiet_ms, now_ms) {
                self.state.check_space()?;
                merged += usize::from(self.merge(&job, now_ms, maintenance)?);
            }
        }
        Ok(merged)
    }

    /// What is to be merged of a partition's blocks.
    fn job(&self, key: PartitionKey, mut blocks: Vec<Arc<Block>>, quiet_ms: i64, now_ms: i64) -> Option<Job> {
        let unmergeable = self.state.unmergeable.lock();
        blocks.retain(|block| !unmergeable.contains(&block.record().id));
        drop(unmergeable);
        if self.state.is_over(key.1, now_ms) && self.should_settle(&blocks, quiet_ms) {
            return Some(Job { key, blocks, stage: Stage::Settled });
        }
        let mut tiers: BTreeMap<u32, Vec<Arc<Block>>> = BTreeMap::new();
        for block in blocks.into_iter().filter(|block| block.stage() == Stage::Young) {
            let tier = (block.file_bytes().max(TIER_BYTES_MIN) / TIER_BYTES_MIN).ilog2() / 3;
            tiers.entry(tier).or_default().push(block);
        }
        let crowded =
            tiers.into_values().find(|blocks| blocks.len() > self.state.options.blocks_per_partition_max);
        crowded.map(|blocks| Job { key, blocks, stage: Stage::Young })
    }

    /// Whether a partition whose time is over becomes one settled block.
    fn should_settle(&self, blocks: &[Arc<Block>], quiet_ms: i64) -> bool {
        let bytes = |stage| -> u64 {
            blocks.iter().filter(|block| block.stage() == stage).map(|block| block.file_bytes()).sum()
        };
        let (young, settled) = (bytes(Stage::Young), bytes(Stage::Settled));
        let after_ms = if young >= settled / LITTLE_PART { SETTLE_AFTER_MS } else { SETTLE_LITTLE_AFTER_MS };
        let due = young > 0 || blocks.len() > 1 || blocks.iter().any(|block| self.has_deleted(block));
        due && quiet_ms >= after_ms
    }

    /// Whether samples of a block were deleted since it was written.
    fn has_deleted(&self, block: &Block) -> bool {
        let deletes = self.state.deletes();
        deletes.iter().any(|delete| {
            delete.seq > block.record().sealed_seq
                && block
                    .of_series(delete.series)
                    .iter()
                    .any(|entry| entry.min_ms <= delete.end_ms && entry.last_ms >= delete.start_ms)
        })
    }

    /// Puts one block in the place of several. False: one of them is damaged, and they stay as they are.
    fn merge(&self, job: &Job, now_ms: i64, maintenance: &mut MaintenanceState) -> Result<bool> {
        let Job { key: (class, partition_start_ms), blocks, stage } = job;
        let deletes = self.state.deletes();
        // Every delete that there is has been applied to what is merged.
        let sealed = blocks.iter().map(|block| block.record().sealed_seq);
        let sealed_seq = sealed.chain(deletes.iter().map(|delete| delete.seq)).max().unwrap_or_default();
        let id = take_next(&mut maintenance.next_block);
        let record =
            BlockRecord { id, class: class.clone(), partition_start_ms: *partition_start_ms, sealed_seq };
        let effort = match stage {
            Stage::Young => Effort::Quick,
            Stage::Settled => Effort::Thorough,
        };
        let mut writer = BlockWriter::create(&self.state.options.disk, &self.state.dir, record, *stage)?;
        for (at, series) in series_of(blocks).into_iter().enumerate() {
            if at % SERIES_BETWEEN_SEALS == 0 {
                // A merge takes long, and memory must not fill up meanwhile.
                self.seal_if_due(now_ms, maintenance)?;
            }
            let mut samples: Vec<Sample> = Vec::new();
            for block in blocks {
                for entry in block.of_series(series) {
                    let Some(mut of_chunk) = self.state.read_chunk(block, &entry)? else {
                        self.state.unmergeable.lock().insert(block.record().id);
                        return Ok(false);
                    };
                    deletes.apply(series, block.record().sealed_seq, &mut of_chunk);
                    samples.append(&mut of_chunk);
                }
            }
            sort_and_deduplicate(&mut samples);
            writer.add(series, &samples, effort)?;
        }
        let merged = Arc::new(Block::open(&self.state.dir, writer.finish()?)?);
        self.replace(blocks, merged)?;
        self.forget_spent_deletes()?;
        Ok(true)
    }

    /// Makes the index name the merged block instead of those it stands for, and removes them.
    fn replace(&self, blocks: &[Arc<Block>], merged: Arc<Block>) -> Result<()> {
        let replaced: HashSet<u64> = blocks.iter().map(|b| b.record().id).collect();
        let mut all: Vec<Arc<Block>> = self.state.blocks().iter().cloned().collect();
        all.retain(|b| !replaced.contains(&b.record().id));
        let (class, start_ms) = (merged.record().class.clone(), merged.record().partition_start_ms);
        all.push(merged);
        self.index_partition(&class, start_ms, &all)?;
        self.index.sync()?;
        self.state.set_blocks(all);
        for block in blocks {
            self.state.options.disk.remove_file(block.path())?;
        }
        // Before deletes that only those needed are forgotten: a file that a power cut brings back is taken
        // in again at the next start.
        if let Some(block) = blocks.first() {
            self.state.options.disk.sync_parent(block.path())?;
        }
        Ok(())
    }

    /// Deletes that every block has seen need not be remembered.
    fn forget_spent_deletes(&self) -> Result<()> {
        let blocks = self.state.blocks();
        // A block that can't be opened may be mended, and must not bring back what was deleted.
        let quarantined = self.state.quarantined.lock().clone();
        let records = blocks.iter().map(|b| b.record()).chain(&quarantined);
        let oldest = records.map(|record| record.sealed_seq).min().unwrap_or(u64::MAX);
        let mut deletes = (*self.state.deletes()).clone();
        let spent = deletes.take_spent(oldest, |delete| self.state.rollups_need(delete));
        for delete in &spent {
            self.index.remove_delete(delete)?;
        }
        if !spent.is_empty() {
            self.state.set_deletes(deletes);
        }
        Ok(())
    }
}

/// The numbers of all series in these blocks, rising.
fn series_of(blocks: &[Arc<Block>]) -> Vec<u32> {
    let mut series: Vec<u32> = Vec::new();
    for block in blocks {
        let of_block = block.entries().map(|entry| entry.series);
        let before = series.len();
        for number in of_block {
            if series.len() == before || series.last() != Some(&number) {
                series.push(number);
            }
        }
    }
    series.sort_unstable();
    series.dedup();
    series
}
