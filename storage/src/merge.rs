//! Merging: one block in the place of several of its partition, without what was deleted since.

use crate::block::{Block, BlockRecord};
use crate::error::{Error, Result};
use crate::inner::Inner;
use crate::sample::{Sample, sort_and_deduplicate};
use crate::seal::take_next;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::sync::Arc;

impl Inner {
    /// Merges the blocks of each partition that has too many into one.
    pub(crate) fn merge_crowded(&self, next_block: &mut u64) -> Result<usize> {
        let mut partitions: BTreeMap<(String, i64), Vec<Arc<Block>>> = BTreeMap::new();
        let unmergeable = self.state.unmergeable.lock().clone();
        for block in self.state.blocks().iter().filter(|b| !unmergeable.contains(&b.record().id)) {
            let record = block.record();
            let key = (record.class.clone(), record.partition_start_ms);
            partitions.entry(key).or_default().push(Arc::clone(block));
        }
        partitions.retain(|_, blocks| blocks.len() > self.state.options.blocks_per_partition_max);
        let mut merged = 0;
        for ((class, partition_start_ms), blocks) in &partitions {
            self.state.check_space()?;
            merged += usize::from(self.merge(class, *partition_start_ms, blocks, take_next(next_block))?);
        }
        Ok(merged)
    }

    /// Puts one block in the place of several. False: one of them is damaged, and they stay as they are.
    fn merge(&self, class: &str, partition_start_ms: i64, blocks: &[Arc<Block>], id: u64) -> Result<bool> {
        let deletes = self.state.deletes();
        let mut series: BTreeSet<u32> = BTreeSet::new();
        series.extend(blocks.iter().flat_map(|b| b.entries().iter().map(|e| e.series)));
        let sealed_seq = blocks.iter().map(|b| b.record().sealed_seq).max().unwrap_or_default();
        let record = BlockRecord { id, class: class.to_owned(), partition_start_ms, sealed_seq };
        let mut writer = crate::block::BlockWriter::create(&self.state.dir, record)?;
        for series in series {
            let mut samples: Vec<Sample> = Vec::new();
            for block in blocks {
                for entry in block.of_series(series) {
                    let Some(mut of_chunk) = self.state.read_chunk(block, entry)? else {
                        self.state.unmergeable.lock().insert(block.record().id);
                        return Ok(false);
                    };
                    deletes.apply(series, block.record().sealed_seq, &mut of_chunk);
                    samples.append(&mut of_chunk);
                }
            }
            sort_and_deduplicate(&mut samples);
            writer.add(series, &samples)?;
        }
        let merged = Arc::new(Block::open(&self.state.dir, writer.finish()?)?);
        let replaced: HashSet<u64> = blocks.iter().map(|b| b.record().id).collect();
        let mut all: Vec<Arc<Block>> = self.state.blocks().iter().cloned().collect();
        all.retain(|b| !replaced.contains(&b.record().id));
        all.push(merged);
        self.index_partition(class, partition_start_ms, &all)?;
        self.index.sync()?;
        self.state.set_blocks(all);
        for block in blocks {
            fs::remove_file(block.path()).map_err(Error::io("remove", block.path()))?;
        }
        self.forget_spent_deletes()?;
        Ok(true)
    }

    /// Deletes that every block has seen need not be remembered.
    fn forget_spent_deletes(&self) -> Result<()> {
        let blocks = self.state.blocks();
        // A block that can't be opened may be mended, and must not bring back what was deleted.
        let quarantined = self.state.quarantined.lock().clone();
        let records = blocks.iter().map(|b| b.record()).chain(&quarantined);
        let oldest = records.map(|record| record.sealed_seq).min().unwrap_or(u64::MAX);
        let mut deletes = (*self.state.deletes()).clone();
        let spent = deletes.take_spent(oldest);
        for delete in &spent {
            self.index.remove_delete(delete)?;
        }
        if !spent.is_empty() {
            self.state.set_deletes(deletes);
        }
        Ok(())
    }
}
