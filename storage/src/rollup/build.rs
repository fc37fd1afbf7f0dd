//! Rolling up: which partitions are due, and how their rollups are made, kept and removed.
//!
//! The order makes it safe to be cut off anywhere: files, durable; the index names them, durable; readers
//! see them; the files before are removed. What the index does not name, the next start removes.

use super::file::RollupWriter;
use super::window::Rolled;
use super::{FileRecord, ROLLUPS_DIR, RollupFile, Unit, UnitRecord, unit_dir};
use crate::block::Block;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::inner::{Inner, MaintenanceState};
use crate::retention::Retention;
use crate::sample::{Sample, sort_and_deduplicate};
use crate::seal::take_next;
use crate::series::Series;
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often a partition that still fills is rolled up,
const OPEN_EVERY_MS: i64 = 2 * 3_600_000;
/// and one whose time is over, when something late has come.
const OVER_EVERY_MS: i64 = 60_000;

/// Files that are being written, by class and window.
type Writers = BTreeMap<(String, i64), RollupWriter>;

/// Opens the rollups that the index knows. Answers the paths of all files that it names.
pub(crate) fn restore(state: &State, records: Vec<UnitRecord>) -> Result<HashSet<PathBuf>> {
    let mut known = HashSet::new();
    for mut record in records.into_iter().filter(|record| !record.files.is_empty()) {
        let start_ms = record.partition_start_ms;
        record.samples_dropped |= !state.has_samples(start_ms);
        let (mut opened, mut broken) = (Vec::new(), false);
        for file in &record.files {
            known.insert(file.path(&state.dir, start_ms));
            match RollupFile::open(&state.dir, start_ms, file.clone()) {
                Ok(file) => opened.push(Arc::new(file)),
                Err(error) if error.is_loss() => {
                    state.note_damaged_rollup(&error);
                    broken = true;
                }
                Err(error) => return Err(error),
            }
        }
        let unit = Unit::new(record, opened);
        unit.broken.store(broken, Ordering::Relaxed);
        state.set_unit(unit);
    }
    Ok(known)
}

/// What rollup files in the directory say themselves, for an index that is lost: they have seen nothing for
/// certain, so samples are read where there are any.
pub(crate) fn units_below(dir: &Path) -> Vec<UnitRecord> {
    let mut units: BTreeMap<i64, UnitRecord> = BTreeMap::new();
    for path in files_below(&dir.join(ROLLUPS_DIR)) {
        let Some((partition_start_ms, file)) = super::file::record_of(&path) else { continue };
        let unit = units.entry(partition_start_ms).or_insert_with(|| UnitRecord {
            partition_start_ms,
            sealed_seq: 0,
            delete_seq: 0,
            rules: 0,
            samples_dropped: false,
            files: Vec::new(),
        });
        unit.files.push(file);
    }
    units.into_values().collect()
}

/// Removes files that the index does not name: rolling up was cut off.
pub(crate) fn remove_unnamed(disk: &Disk, dir: &Path, known: &HashSet<PathBuf>) {
    for path in files_below(&dir.join(ROLLUPS_DIR)).into_iter().filter(|path| !known.contains(path)) {
        match disk.remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted rollup left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not remove a left-over"),
        }
    }
}

impl State {
    /// Whether there are samples of this partition in blocks, readable or not.
    fn has_samples(&self, partition_start_ms: i64) -> bool {
        let quarantined = self.quarantined.lock();
        let mut quarantined = quarantined.iter().map(|record| record.partition_start_ms);
        quarantined.any(|start_ms| start_ms == partition_start_ms)
            || self.blocks().iter().any(|block| block.record().partition_start_ms == partition_start_ms)
    }

    pub(super) fn note_damaged_rollup(&self, error: &Error) {
        self.counters.damaged_rollups.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "a damaged rollup is left out; it is made anew where the samples are still there");
    }

    /// Whether any rollups have this series.
    pub(crate) fn is_rolled_up(&self, series: u32) -> bool {
        let units = self.rollups();
        // What can't be read may have it.
        units.values().flat_map(|unit| &unit.files).any(|file| file.has(series).unwrap_or(true))
    }
}

impl Inner {
    /// Rolls up the partitions that are due. Answers how many.
    pub(crate) fn roll_up_due(&self, now_ms: i64, maintenance: &mut MaintenanceState) -> Result<usize> {
        let units = self.state.rollups();
        if units.is_empty() && !self.state.retention().rolls_up() {
            return Ok(0);
        }
        let mut starts: BTreeSet<i64> = units.keys().copied().collect();
        starts.extend(self.state.blocks().iter().map(|block| block.record().partition_start_ms));
        maintenance.rolled_up_ms.retain(|start_ms, _| starts.contains(start_ms));
        let mut done = 0;
        for start_ms in starts {
            let over_ms = start_ms
                .saturating_add(self.state.partition_ms)
                .saturating_add(self.state.options.out_of_order_window_ms);
            let every_ms = if now_ms >= over_ms { OVER_EVERY_MS } else { OPEN_EVERY_MS };
            let rested = maintenance
                .rolled_up_ms
                .get(&start_ms)
                .is_none_or(|at_ms| now_ms.saturating_sub(*at_ms) >= every_ms);
            if self.is_roll_up_due(start_ms, rested) {
                self.state.check_space()?;
                // Memory must not fill up while many partitions are rolled up.
                self.seal_if_due(now_ms, maintenance)?;
                self.roll_up(start_ms, maintenance)?;
                maintenance.rolled_up_ms.insert(start_ms, now_ms);
                done += 1;
            }
        }
        Ok(done)
    }

    /// Whether the rollups of a partition are not what they should be. What was deleted does not wait;
    /// what came only if it has `rested`.
    fn is_roll_up_due(&self, start_ms: i64, rested: bool) -> bool {
        let (units, retention) = (self.state.rollups(), self.state.retention());
        let Some(unit) = units.get(&start_ms) else { return rested && retention.rolls_up() };
        let deletes = self.state.deletes();
        let deleted = deletes.iter().any(|delete| unit.is_touched_by(delete, self.state.partition_ms));
        if !unit.files.is_empty() && deleted {
            return true;
        }
        let of_rules = unit.record.rules != retention.fingerprint() && !unit.record.samples_dropped;
        rested && (of_rules || unit.broken.load(Ordering::Relaxed) || !self.unseen_blocks(unit).is_empty())
    }

    /// The blocks of its partition that a unit has not seen.
    fn unseen_blocks(&self, unit: &Unit) -> Vec<Arc<Block>> {
        let mut blocks = self.blocks_of(unit.record.partition_start_ms);
        blocks.retain(|block| block.record().sealed_seq > unit.record.sealed_seq);
        blocks
    }

    /// The blocks of a partition of time, of all classes.
    fn blocks_of(&self, start_ms: i64) -> Vec<Arc<Block>> {
        let blocks = self.state.blocks();
        blocks.iter().filter(|block| block.record().partition_start_ms == start_ms).cloned().collect()
    }

    /// Makes the rollups of a partition, of all classes and windows.
    fn roll_up(&self, start_ms: i64, maintenance: &mut MaintenanceState) -> Result<()> {
        let (units, retention) = (self.state.rollups(), self.state.retention());
        let before = units.get(&start_ms).map(Arc::as_ref);
        let record = UnitRecord {
            partition_start_ms: start_ms,
            sealed_seq: self.state.sealed_seq.load(Ordering::Relaxed),
            delete_seq: self.state.deletes().iter().map(|delete| delete.seq).max().unwrap_or_default(),
            rules: retention.fingerprint(),
            samples_dropped: before.is_some_and(|unit| unit.record.samples_dropped),
            files: Vec::new(),
        };
        let blocks = self.blocks_of(start_ms);
        let mut numbers: BTreeSet<u32> = blocks.iter().flat_map(|b| b.entries().map(|e| e.series)).collect();
        for file in before.iter().flat_map(|unit| &unit.files) {
            numbers.extend(self.readable(file.series())?.unwrap_or_default());
        }
        let mut writers = Writers::new();
        for series in numbers.into_iter().filter_map(|number| self.state.registry.get(number)) {
            let samples = self.sealed_samples(&series, &blocks)?;
            let rolled = self.rolled(&series, samples, before, &retention)?;
            for ((class, window_ms), rolled) in rolled {
                let writer = match writers.entry((class, window_ms)) {
                    std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                    std::collections::btree_map::Entry::Vacant(missing) => {
                        let class = missing.key().0.clone();
                        let record =
                            FileRecord { id: take_next(&mut maintenance.next_block), class, window_ms };
                        missing.insert(RollupWriter::create(
                            &self.state.options.disk,
                            &self.state.dir,
                            start_ms,
                            record,
                        )?)
                    }
                };
                writer.add(series.id, &rolled)?;
            }
        }
        let files = writers.into_values().map(|w| w.finish().map(Arc::new)).collect::<Result<Vec<_>>>()?;
        self.replace_unit(record, files)
    }

    /// The rollups of one series, by class and window.
    fn rolled(
        &self,
        series: &Series,
        samples: Option<Vec<Sample>>,
        before: Option<&Unit>,
        retention: &Retention,
    ) -> Result<BTreeMap<(String, i64), Rolled>> {
        let rule = retention.rule_of(series);
        let mut rolled = BTreeMap::new();
        let mut from_samples = samples.filter(|samples| !samples.is_empty());
        if let Some(before) = before {
            let copy = before.record.samples_dropped || from_samples.is_none();
            for file in before.files.iter().filter(|_| copy) {
                let window_ms = file.record.window_ms;
                let Some(mut kept) = self.readable(file.read(series.id))? else { continue };
                for (start_ms, end_ms) in
                    super::unseen_deletes(&self.state.deletes(), before, series.id, self.state.partition_ms)
                {
                    kept = kept.and_then(|kept| kept.without(window_ms, start_ms, end_ms));
                }
                if let Some(kept) = kept {
                    let asked = rule.rollups.contains_key(&window_ms);
                    let class = if asked { &rule.class } else { &file.record.class };
                    rolled.insert((class.clone(), window_ms), kept);
                }
            }
            if before.record.samples_dropped && !rolled.is_empty() {
                // What is left of the samples is not all that the rollups have seen.
                from_samples = None;
            }
        }
        let counter = self.state.is_counter(series);
        for window_ms in rule.rollups.keys() {
            let made = from_samples.as_ref().and_then(|samples| Rolled::of(samples, *window_ms, counter));
            if let Some(made) = made {
                rolled.insert((rule.class.clone(), *window_ms), made);
            }
        }
        Ok(rolled)
    }

    /// The samples of a series in these blocks; `None`: some of them are damaged, or there are none.
    fn sealed_samples(&self, series: &Series, blocks: &[Arc<Block>]) -> Result<Option<Vec<Sample>>> {
        let deletes = self.state.deletes();
        let mut samples = Vec::new();
        for block in blocks {
            for entry in block.of_series(series.id) {
                let Some(mut of_chunk) = self.state.read_chunk(block, &entry)? else { return Ok(None) };
                deletes.apply(series.id, block.record().sealed_seq, &mut of_chunk);
                samples.append(&mut of_chunk);
            }
        }
        sort_and_deduplicate(&mut samples);
        Ok(Some(samples))
    }

    /// What was read, or `None` where it is damaged, which is noted.
    fn readable<T>(&self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error @ Error::Damaged { .. }) => {
                self.state.note_damaged_rollup(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts files in the place of those that a partition had.
    fn replace_unit(&self, mut record: UnitRecord, files: Vec<Arc<RollupFile>>) -> Result<()> {
        let start_ms = record.partition_start_ms;
        record.files = files.iter().map(|file| file.record.clone()).collect();
        let kept: HashSet<u64> = record.files.iter().map(|file| file.id).collect();
        let before = self.state.rollups().get(&start_ms).map(|unit| unit.record.files.clone());
        self.index.put_rollups(&record)?;
        self.index.sync()?;
        self.state.set_unit(Unit::new(record, files));
        for file in before.unwrap_or_default().iter().filter(|file| !kept.contains(&file.id)) {
            let path = file.path(&self.state.dir, start_ms);
            if path.exists() {
                self.state.options.disk.remove_file(&path)?;
            }
        }
        if kept.is_empty() {
            self.state.options.disk.remove_dir_all(&unit_dir(&self.state.dir, start_ms))?;
        }
        Ok(())
    }

    /// Before samples of a partition are dropped: rolls up what is not yet, and notes that from now on
    /// the rollups are all there is.
    pub(crate) fn roll_up_before_drop(
        &self,
        start_ms: i64,
        maintenance: &mut MaintenanceState,
    ) -> Result<()> {
        if self.is_roll_up_due(start_ms, true) {
            match self.state.check_space().and_then(|()| self.roll_up(start_ms, maintenance)) {
                // Without room there is no other way to get some.
                Err(error) if error.is_no_space() => {
                    tracing::warn!(%error, start_ms, "samples go before they could be rolled up");
                }
                rolled_up => rolled_up?,
            }
        }
        let units = self.state.rollups();
        let Some(unit) = units.get(&start_ms).filter(|unit| !unit.files.is_empty()) else { return Ok(()) };
        let record = UnitRecord { samples_dropped: true, ..unit.record.clone() };
        self.replace_unit(record, unit.files.clone())
    }

    /// Removes rollups that are older than they are kept. Answers how many files.
    pub(crate) fn expire_rollups(&self, now_ms: i64) -> Result<usize> {
        let retention = self.state.retention();
        let mut removed = 0;
        for (start_ms, unit) in self.state.rollups().iter() {
            let end_ms = start_ms.saturating_add(self.state.partition_ms);
            let is_kept = |file: &Arc<RollupFile>| {
                let keep_ms = retention.keep_of_rollups(&file.record.class, file.record.window_ms);
                keep_ms.is_none_or(|keep_ms| end_ms > now_ms.saturating_sub(keep_ms))
            };
            let kept: Vec<_> = unit.files.iter().filter(|file| is_kept(file)).cloned().collect();
            if kept.len() < unit.files.len() {
                removed += unit.files.len() - kept.len();
                self.replace_unit(unit.record.clone(), kept)?;
            }
            let forgotten = unit.files.is_empty() && !self.state.has_samples(*start_ms);
            if forgotten {
                let mut units = self.state.rollups.write();
                let mut left = (**units).clone();
                left.remove(start_ms);
                *units = Arc::new(left);
            }
        }
        Ok(removed)
    }

    /// The oldest partition that has rollups, and older than this, loses them. Answers whether one did.
    pub(crate) fn drop_oldest_rollups(&self, before_ms: i64) -> Result<bool> {
        let units = self.state.rollups();
        let Some(unit) = units.values().find(|unit| !unit.files.is_empty()) else { return Ok(false) };
        if unit.record.partition_start_ms >= before_ms {
            return Ok(false);
        }
        self.replace_unit(unit.record.clone(), Vec::new())?;
        Ok(true)
    }
}
