//! Expiry: partitions go as a whole, by the window of their class, or because room runs out.
//!
//! It runs beside writers and readers: a reader that took the set of blocks before keeps its files open.

use crate::block::{Block, BlockRecord};
use crate::error::Result;
use crate::inner::{Inner, MaintenanceState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A partition: its class and where it begins.
type Partition = (String, i64);

impl Inner {
    /// Removes the partitions that lie wholly before what their class keeps. Answers how many.
    pub(crate) fn expire(&self, now_ms: i64, maintenance: &mut MaintenanceState) -> Result<usize> {
        let retention = self.state.retention();
        let is_over = |(class, start_ms): &Partition| {
            let keep_ms = retention.keep_of_class(class);
            keep_ms.is_some_and(|keep_ms| {
                start_ms.saturating_add(self.state.partition_ms) <= now_ms.saturating_sub(keep_ms)
            })
        };
        self.drop_partitions(&self.partitions().into_iter().filter(is_over).collect(), maintenance)
    }

    /// Removes the oldest partitions, of whichever class, while the store takes more room than it may
    /// or is about to; then the oldest rollups. The newest partition stays. Answers how many went.
    pub(crate) fn keep_to_size(&self, maintenance: &mut MaintenanceState, now_ms: i64) -> Result<usize> {
        let mut room = self.measure_room(maintenance, now_ms)?;
        let mut dropped = 0;
        while room.is_short() {
            let partitions = self.partitions();
            let newest_ms = partitions.iter().map(|(_, start_ms)| *start_ms).max();
            let oldest = partitions.into_iter().min_by_key(|(_, start_ms)| *start_ms);
            let Some(oldest) = oldest.filter(|(_, start_ms)| Some(*start_ms) != newest_ms) else {
                if self.drop_oldest_rollups(newest_ms.unwrap_or(i64::MAX))? {
                    room = self.measure_room(maintenance, now_ms)?;
                    continue;
                }
                if !maintenance.told_of_no_room {
                    maintenance.told_of_no_room = true;
                    tracing::warn!(
                        used_bytes = room.used_bytes,
                        limit_bytes = room.limit_bytes,
                        "the newest partition alone takes more room than the size limit leaves: raise --retention-size"
                    );
                }
                break;
            };
            tracing::info!(class = %oldest.0, partition_start_ms = oldest.1, used_bytes = room.used_bytes,
                limit_bytes = room.limit_bytes, "room runs out: the oldest partition goes");
            dropped += self.drop_partitions(&BTreeSet::from([oldest]), maintenance)?;
            room = self.measure_room(maintenance, now_ms)?;
        }
        maintenance.told_of_no_room &= room.is_short();
        self.state.counters.partitions_dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        Ok(dropped)
    }

    /// All partitions that have blocks, readable or not.
    fn partitions(&self) -> BTreeSet<Partition> {
        let of = |record: &BlockRecord| (record.class.clone(), record.partition_start_ms);
        let mut partitions: BTreeSet<Partition> =
            self.state.blocks().iter().map(|block| of(block.record())).collect();
        partitions.extend(self.state.quarantined.lock().iter().map(of));
        partitions
    }

    /// Removes partitions: from the index, durably; from readers; from the disk.
    fn drop_partitions(
        &self,
        gone: &BTreeSet<Partition>,
        maintenance: &mut MaintenanceState,
    ) -> Result<usize> {
        if gone.is_empty() {
            return Ok(0);
        }
        for start_ms in gone.iter().map(|(_, start_ms)| *start_ms).collect::<BTreeSet<_>>() {
            self.roll_up_before_drop(start_ms, maintenance)?;
        }
        let goes = |record: &BlockRecord| gone.contains(&(record.class.clone(), record.partition_start_ms));
        for (class, partition_start_ms) in gone {
            self.index.put_blocks(class, *partition_start_ms, &[])?;
        }
        self.index.sync()?;
        let mut dirs: BTreeSet<_> = BTreeSet::new();
        let mut kept: Vec<Arc<Block>> = Vec::new();
        for block in self.state.blocks().iter() {
            if goes(block.record()) {
                dirs.insert(block.record().partition_dir(&self.state.dir));
            } else {
                kept.push(Arc::clone(block));
            }
        }
        self.state.set_blocks(kept);
        self.state.quarantined.lock().retain(|record| {
            let goes = goes(record);
            if goes {
                dirs.insert(record.partition_dir(&self.state.dir));
            }
            !goes
        });
        for dir in dirs {
            self.state.options.disk.remove_dir_all(&dir)?;
        }
        Ok(gone.len())
    }
}
