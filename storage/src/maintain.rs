//! Maintenance: what the engine does in the background when it is told what time it is: expire,
//! seal, merge (in `merge`), forget.

use crate::commit::Command;
use crate::error::{Error, Result};
use crate::inner::{Inner, MaintenanceState};
use crate::merge::{SETTLE_AFTER_MS, SETTLE_LITTLE_AFTER_MS};
use crate::series::Series;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What one run of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions that expired and are gone.
    pub partitions_expired: usize,
    /// Files of rollups that expired and are gone.
    pub rollups_expired: usize,
    /// Partitions that were rolled up.
    pub partitions_rolled_up: usize,
    /// Whether samples in memory were sealed.
    pub sealed: bool,
    /// Merges that were made: several blocks, or one that was young, became one.
    pub partitions_merged: usize,
    /// Series without samples that were forgotten.
    pub series_forgotten: usize,
}

impl Inner {
    /// Does what is due at `now_ms`.
    pub(crate) fn maintain(&self, now_ms: i64) -> Result<Maintained> {
        self.state.undurable.expire(now_ms);
        let mut maintenance = self.maintenance.lock();
        self.renew_doubtful_index()?;
        self.state.told_ms.store(Some(now_ms));
        let rollups_expired = self.expire_rollups(now_ms)?;
        let partitions_expired =
            self.expire(now_ms, &mut maintenance)? + self.keep_to_size(&mut maintenance, now_ms)?;
        let mut done = Maintained { partitions_expired, rollups_expired, ..Maintained::default() };
        done.sealed = self.seal_if_due(now_ms, &mut maintenance)?;
        done.partitions_rolled_up = self.roll_up_due(now_ms, &mut maintenance)?;
        done.partitions_merged = self.merge_due(now_ms, &mut maintenance)?;
        if done.partitions_expired + done.rollups_expired > 0 || done.sealed {
            done.series_forgotten = self.forget_empty_series()?;
        }
        self.tidy_catalog()?;
        self.index.let_go_of_memory(self.state.options.index_memory_max)?;
        drop(maintenance);
        if done != Maintained::default()
            && let Some(when_idle) = self.state.options.when_idle
        {
            when_idle();
        }
        Ok(done)
    }

    /// Seals once memory is full, or an eighth full and nothing comes, holds a partition back, or was sealed long enough
    /// ago. Answers whether it did.
    pub(crate) fn seal_if_due(&self, now_ms: i64, maintenance: &mut MaintenanceState) -> Result<bool> {
        let last_seal_ms = *maintenance.last_seal_ms.get_or_insert(now_ms);
        let log_bytes = self.state.counters.log_bytes.load(Ordering::Relaxed);
        let quiet_ms = self.quiet_ms(now_ms, maintenance);
        // Not after each burst of those who send once a minute.
        let is_quiet = quiet_ms >= SETTLE_AFTER_MS
            && maintenance
                .quiet_seal_ms
                .is_none_or(|last| now_ms.saturating_sub(last) >= SETTLE_LITTLE_AFTER_MS)
            && self.much_is_in_memory();
        let due = maintenance.seal_soon
            || self.memory_is_full()
            || is_quiet
            || self.holds_back_a_partition(now_ms, last_seal_ms, quiet_ms)
            || (log_bytes > 0 && now_ms.saturating_sub(last_seal_ms) >= self.state.options.seal_every_ms);
        if due {
            self.seal(&mut maintenance.next_block)?;
            maintenance.last_seal_ms = Some(now_ms);
            maintenance.seal_soon = false;
            if is_quiet {
                maintenance.quiet_seal_ms = Some(now_ms);
            }
        }
        Ok(due)
    }

    /// Whether samples in memory are all that keeps a partition from being settled: its time is over, and nothing
    /// comes any more, or nothing has been sealed for a while.
    fn holds_back_a_partition(&self, now_ms: i64, last_seal_ms: i64, quiet_ms: i64) -> bool {
        let Some(oldest_ms) = self.state.counters.head_oldest_ms.get() else { return false };
        self.state.is_over(self.state.partition_start_ms(oldest_ms), now_ms)
            && (quiet_ms >= SETTLE_AFTER_MS || now_ms.saturating_sub(last_seal_ms) >= SETTLE_LITTLE_AFTER_MS)
    }

    /// For how long nothing has been written.
    fn quiet_ms(&self, now_ms: i64, maintenance: &mut MaintenanceState) -> i64 {
        let groups = self.state.counters.groups_committed.load(Ordering::Relaxed);
        let (known, since_ms) = *maintenance.groups_since.get_or_insert((groups, now_ms));
        let since_ms = if known == groups { since_ms } else { now_ms };
        maintenance.groups_since = Some((groups, since_ms));
        now_ms.saturating_sub(since_ms)
    }

    /// Whether it is worth to seal what is in memory when nothing comes: each series that has any there takes far more
    /// than its samples.
    fn much_is_in_memory(&self) -> bool {
        let samples = self.state.counters.head_samples.load(Ordering::Relaxed);
        samples >= (self.state.options.seal_head_samples / 8).max(1)
    }

    /// Whether so much has come since the last seal that the next one is due, whatever the time.
    pub(crate) fn memory_is_full(&self) -> bool {
        let (counters, options) = (&self.state.counters, &self.state.options);
        counters.log_bytes.load(Ordering::Relaxed) >= options.seal_log_bytes
            || counters.head_samples.load(Ordering::Relaxed) >= options.seal_head_samples
    }

    /// Forgets series that have no sample left, neither in memory nor in a block, and no rollup.
    fn forget_empty_series(&self) -> Result<usize> {
        // A block that can't be opened may hold samples of any series, and may be mended yet.
        if !self.state.quarantined.lock().is_empty() {
            return Ok(0);
        }
        let in_blocks: HashSet<u32> =
            self.state.blocks().iter().flat_map(|b| b.entries().map(|e| e.series)).collect();
        let empty: Vec<Arc<Series>> = self
            .state
            .registry
            .all()
            .into_iter()
            .filter(|s| s.is_durable() && !in_blocks.contains(&s.id) && s.head_samples() == 0)
            .filter(|s| !self.state.is_rolled_up(s.id))
            .collect();
        if empty.is_empty() {
            return Ok(0);
        }
        let (done, answer) = crossbeam::channel::bounded(1);
        self.send(Command::Forget { series: empty, done })?;
        let forgotten = answer.recv().map_err(|_| Error::Closed)?;
        for series in &forgotten {
            self.index.remove_series(series.id)?;
        }
        Ok(forgotten.len())
    }
}
