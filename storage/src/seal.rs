//! Sealing: what is in memory becomes blocks, and the log that held it goes.
//!
//! The order is what makes it safe to be cut off anywhere: a new log generation first; then blocks,
//! durable before the index names them; then the index, durable before the checkpoint moves; then
//! readers see the blocks, and only then are the samples in memory and the older log let go. What is
//! written twice on the way is the same sample twice, which reads merge.

use crate::block::{Block, BlockRecord, BlockWriter, Stage};
use crate::codec::Effort;
use crate::commit::{Command, Rotated};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::index::Checkpoint;
use crate::inner::Inner;
use crate::log;
use crate::postings::PostingKey;
use crate::series::Series;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many entries are put into the index before it is synced.
const PUTS_PER_SYNC: usize = 5_000;

/// Samples of a series that are set aside to be sealed.
type Frozen = Arc<Head>;

impl Inner {
    /// Seals all samples in memory. The caller holds the maintenance lock.
    pub(crate) fn seal(&self, next_block: &mut u64) -> Result<()> {
        self.renew_doubtful_index()?;
        let (done, answer) = crossbeam::channel::bounded(1);
        self.send(Command::Rotate { done })?;
        let Rotated { generation, first_seq, older_bytes, oldest_ms } =
            answer.recv().map_err(|_| Error::Closed)??;
        let series = self.state.registry.all();
        let mut written = Vec::new();
        let sealed = self
            .write_blocks(&series, first_seq, next_block, &mut written)
            .inspect_err(|_| remove_blocks(&self.state.options.disk, &written))
            .and_then(|()| self.name_blocks(&written));
        match sealed {
            Ok(blocks) => {
                self.state.set_blocks(blocks);
                self.state.sealed_seq.store(first_seq - 1, Ordering::Relaxed);
                let sealed = series.iter().map(|series| series.finish_seal()).sum();
                self.state.count_gone_from_head(sealed);
            }
            Err(error) => {
                let merged = series.iter().map(|series| series.abandon_seal()).sum();
                self.state.count_gone_from_head(merged);
                oldest_ms.inspect(|oldest_ms| self.state.counters.head_oldest_ms.note(*oldest_ms));
                return Err(error);
            }
        }
        let checkpoint = Checkpoint {
            next_seq: first_seq,
            next_series: self.state.registry.next_id(),
            next_block: *next_block,
        };
        self.index.move_checkpoint(checkpoint)?;
        self.catalog.lock().note_checkpoint(checkpoint)?;
        let damaged = self.state.damage.generations.lock().clone();
        log::drop_older(&self.state.options.disk, &self.state.dir, generation, &damaged)?;
        self.state.counters.log_bytes.fetch_sub(older_bytes, Ordering::Relaxed);
        self.index.let_go_of_memory(self.state.options.index_memory_max)
    }

    /// Writes a block for each class and partition, durably, into `written`.
    fn write_blocks(
        &self,
        series: &[Arc<Series>],
        first_seq: u64,
        next_block: &mut u64,
        written: &mut Vec<Arc<Block>>,
    ) -> Result<()> {
        let mut frozen: Vec<(&Series, Frozen)> =
            series.iter().filter_map(|series| Some((&**series, series.begin_seal()?))).collect();
        frozen.sort_unstable_by_key(|(series, _)| series.id);
        let retention = self.state.retention();
        let mut by_class: BTreeMap<&str, Vec<(u32, Frozen)>> = BTreeMap::new();
        for (series, samples) in frozen {
            by_class.entry(&retention.rule_of(series).class).or_default().push((series.id, samples));
        }
        for (class, frozen) in by_class {
            let mut partitions = BTreeSet::new();
            for (_, samples) in &frozen {
                let partition = |timestamp_ms| self.state.partition_start_ms(timestamp_ms);
                samples.for_each_time(partition, |start_ms| {
                    partitions.insert(start_ms);
                });
            }
            for partition_start_ms in partitions {
                let record = BlockRecord {
                    id: take_next(next_block),
                    class: class.to_owned(),
                    partition_start_ms,
                    sealed_seq: first_seq - 1,
                };
                written.push(Arc::new(self.write_block(record, &frozen)?));
            }
        }
        self.index_new_series()
    }

    /// Makes the index name these blocks, durably. Answers all blocks there now are.
    fn name_blocks(&self, written: &[Arc<Block>]) -> Result<Vec<Arc<Block>>> {
        let mut blocks = (*self.state.blocks()).clone();
        blocks.extend_from_slice(written);
        for block in written {
            let record = block.record();
            self.index_partition(&record.class, record.partition_start_ms, &blocks)?;
        }
        for delete in self.state.deletes().iter() {
            self.index.put_delete(delete)?;
        }
        self.index.sync()?;
        Ok(blocks)
    }

    /// Writes one block of what lies in its partition, series in rising order, durably, and opens it.
    fn write_block(&self, record: BlockRecord, frozen: &[(u32, Frozen)]) -> Result<Block> {
        let partition_start_ms = record.partition_start_ms;
        let mut writer =
            BlockWriter::create(&self.state.options.disk, &self.state.dir, record, Stage::Young)?;
        let end_ms = partition_start_ms.saturating_add(self.state.partition_ms - 1);
        let mut samples = Vec::new();
        for (series, frozen) in frozen {
            samples.clear();
            frozen.read(partition_start_ms, end_ms, &mut samples);
            writer.add(*series, &samples, Effort::Quick)?;
        }
        Block::open(&self.state.dir, writer.finish()?)
    }

    /// Makes the index name exactly those of `blocks` that belong to a partition, and its quarantined ones.
    pub(crate) fn index_partition(
        &self,
        class: &str,
        partition_start_ms: i64,
        blocks: &[Arc<Block>],
    ) -> Result<()> {
        let quarantined = self.state.quarantined.lock();
        let records = blocks.iter().map(|block| block.record()).chain(quarantined.iter());
        let of_partition: Vec<BlockRecord> = records
            .filter(|r| r.class == class && r.partition_start_ms == partition_start_ms)
            .cloned()
            .collect();
        self.index.put_blocks(class, partition_start_ms, &of_partition)
    }

    /// Puts series and postings, durably.
    fn put_new(&self, series: &[Arc<Series>], changed: &[PostingKey]) -> Result<()> {
        for (place, series) in series.iter().enumerate() {
            self.sync_now_and_then(place)?;
            self.index.put_series(series.id, series.labels.iter())?;
        }
        for (place, key) in changed.iter().enumerate() {
            self.sync_now_and_then(place)?;
            // It may name series by now that the index does not have yet: those count for nothing there, and the
            // log, which has them under these numbers for good, brings them back.
            let piece = self.state.postings.write().changed_piece(key);
            self.index.put_postings(key, &piece)?;
        }
        self.index.sync()
    }

    /// What was put and not yet synced stays in memory, however small the database's cache is.
    fn sync_now_and_then(&self, place: usize) -> Result<()> {
        if place > 0 && place.is_multiple_of(PUTS_PER_SYNC) { self.index.sync() } else { Ok(()) }
    }

    /// Stores the series and postings that the index does not have yet.
    fn index_new_series(&self) -> Result<()> {
        let new = std::mem::take(&mut *self.state.unindexed.lock());
        let changed = self.state.postings.write().take_changed();
        let changed = changed.in_order();
        let live: Vec<Arc<Series>> = new.iter().filter(|series| !series.is_removed()).cloned().collect();
        let stored = self.catalog.lock().add(&live, &self.state.deletes());
        let stored = stored.and_then(|()| self.put_new(&live, &changed));
        if stored.is_err() {
            self.state.unindexed.lock().extend(new);
            self.state.postings.write().put_back(&changed);
        }
        stored
    }
}

/// Removes blocks that nothing names yet. What can't be removed, the next start removes.
fn remove_blocks(disk: &Disk, written: &[Arc<Block>]) {
    for block in written {
        if let Err(error) = disk.remove_file(block.path()) {
            tracing::warn!(path = %block.path().display(), %error, "could not remove an unfinished seal's block");
        }
    }
}

/// Takes the next number.
pub(crate) fn take_next(next: &mut u64) -> u64 {
    let taken = *next;
    *next += 1;
    taken
}
