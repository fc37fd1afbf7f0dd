//! One series in memory: its identity, its newest sample, and what is not yet sealed of it.

use crate::extent::Extent;
use crate::head::Head;
use crate::latest::Latest;
use crate::retention::RuleOfSeries;
use crate::sample::Sample;
use crate::stored_labels::StoredLabels;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A series that the store knows.
pub(crate) struct Series {
    pub(crate) id: u32,
    pub(crate) labels: StoredLabels,
    /// Its retention rule.
    pub(crate) rule: RuleOfSeries,
    /// Whether its definition is in the log or the index. Only the committer changes it.
    durable: AtomicBool,
    /// Whether it has been removed from the registry: a writer that still holds it must look again.
    removed: AtomicBool,
    /// The newest sample; readable while a writer is at work.
    latest: Latest,
    /// The newest time that the committer has let in, whether or not it is durable yet; before there is
    /// one, the oldest time there is, which every sample is newer than.
    newest_admitted_ms: AtomicI64,
    /// A lock of its own for each series: a reader of one never waits for writers of others.
    unsealed: Mutex<Option<Box<Unsealed>>>,
}

/// Samples that are in the log and in memory, but not in a published block. In a box of its own, which
/// series without any do not have.
#[derive(Default)]
struct Unsealed {
    open: Head,
    /// Being written into a block.
    sealing: Option<Arc<Head>>,
}

/// What became of a sample that was put into a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is one more sample.
    Added,
    /// There was another value at its time: the larger of the two is there now.
    Merged,
    /// It was there before.
    Duplicate,
}

impl Series {
    pub(crate) fn new(id: u32, labels: StoredLabels, durable: bool) -> Self {
        Self {
            id,
            labels,
            rule: RuleOfSeries::default(),
            durable: AtomicBool::new(durable),
            removed: AtomicBool::new(false),
            latest: Latest::default(),
            newest_admitted_ms: AtomicI64::new(i64::MIN),
            unsealed: Mutex::default(),
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable(&self) {
        self.durable.store(true, Ordering::Release);
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// The newest sample, staleness markers included.
    pub(crate) fn latest(&self) -> Option<Sample> {
        self.latest.load()
    }

    pub(crate) fn newest_admitted_ms(&self) -> Option<i64> {
        Some(self.newest_admitted_ms.load(Ordering::Relaxed)).filter(|newest_ms| *newest_ms > i64::MIN)
    }

    /// Notes that a sample of this time is about to be written.
    pub(crate) fn admit(&self, timestamp_ms: i64) {
        // Only the committer gets here, once the store is open.
        if timestamp_ms > self.newest_admitted_ms.load(Ordering::Relaxed) {
            self.newest_admitted_ms.store(timestamp_ms, Ordering::Relaxed);
        }
    }

    /// Forgets what was admitted but not written.
    pub(crate) fn withdraw(&self) {
        let newest_ms = self.latest().map_or(i64::MIN, |latest| latest.timestamp_ms);
        self.newest_admitted_ms.store(newest_ms, Ordering::Relaxed);
    }

    /// Notes a sample that is in a block, where it is the newest.
    pub(crate) fn note_latest(&self, sample: Sample) {
        if self.latest().is_none_or(|latest| sample.total_cmp(&latest).is_gt()) {
            self.latest.store(Some(sample));
        }
        self.admit(sample.timestamp_ms);
    }

    /// Replaces the newest sample: after a delete.
    pub(crate) fn reset_latest(&self, latest: Option<Sample>) {
        self.latest.store(latest);
        self.withdraw();
    }

    /// Puts a durable sample in its place, where readers find it.
    pub(crate) fn insert(&self, sample: Sample) -> Inserted {
        let inserted = self.unsealed.lock().get_or_insert_default().open.insert(sample);
        self.note_latest(sample);
        inserted
    }

    /// Whether exactly this sample is in memory.
    pub(crate) fn holds(&self, sample: Sample) -> bool {
        if self.latest().is_none_or(|latest| sample.timestamp_ms > latest.timestamp_ms) {
            return false;
        }
        let unsealed = self.unsealed.lock();
        unsealed.as_ref().is_some_and(|unsealed| unsealed.heads().any(|head| head.holds(sample)))
    }

    /// Appends what is in memory of `[start_ms, end_ms]` to `samples`, in no order.
    pub(crate) fn read_head(&self, start_ms: i64, end_ms: i64, samples: &mut Vec<Sample>) {
        if let Some(unsealed) = &*self.unsealed.lock() {
            unsealed.heads().for_each(|head| head.read(start_ms, end_ms, samples));
        }
    }

    /// How many samples are in memory.
    pub(crate) fn head_samples(&self) -> usize {
        self.unsealed.lock().as_ref().map_or(0, |unsealed| unsealed.heads().map(Head::len).sum())
    }

    /// Adds how far the samples in memory reach.
    pub(crate) fn add_extent(&self, extent: &mut Extent) {
        if let Some(unsealed) = &*self.unsealed.lock() {
            unsealed.heads().for_each(|head| head.add_extent(extent));
        }
    }

    /// Sets the samples in memory aside to be sealed, and gives them out. They stay readable until
    /// [`finish_seal`](Self::finish_seal) or [`abandon_seal`](Self::abandon_seal); what a seal that
    /// panicked had set aside is among them. `None`: there are none.
    pub(crate) fn begin_seal(&self) -> Option<Arc<Head>> {
        let mut unsealed = self.unsealed.lock();
        let unsealed = unsealed.as_mut()?;
        unsealed.reclaim();
        let sealing = Arc::new(std::mem::take(&mut unsealed.open));
        unsealed.sealing = (!sealing.is_empty()).then(|| Arc::clone(&sealing));
        unsealed.sealing.clone()
    }

    /// The samples set aside are in a published block. Answers how many they were.
    pub(crate) fn finish_seal(&self) -> usize {
        let mut slot = self.unsealed.lock();
        let Some(unsealed) = slot.as_mut() else { return 0 };
        let sealed = unsealed.sealing.take().map_or(0, |sealed| sealed.len());
        if unsealed.open.is_empty() {
            *slot = None;
        }
        sealed
    }

    /// The samples set aside could not be sealed: they are not set aside any more. Answers how many of them
    /// had been written once more in the meantime.
    pub(crate) fn abandon_seal(&self) -> usize {
        self.unsealed.lock().as_mut().map_or(0, |unsealed| unsealed.reclaim())
    }

    /// Deletes the samples in memory in `[start_ms, end_ms]`, and answers how many they were. Never runs
    /// during a seal.
    pub(crate) fn delete_from_head(&self, start_ms: i64, end_ms: i64) -> usize {
        let mut unsealed = self.unsealed.lock();
        let Some(unsealed) = unsealed.as_mut() else { return 0 };
        unsealed.reclaim() + unsealed.open.delete(start_ms, end_ms)
    }
}

impl Unsealed {
    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.sealing.as_deref().into_iter().chain([&self.open])
    }

    /// Takes back what was set aside to be sealed. Answers how many of the samples were there twice.
    fn reclaim(&mut self) -> usize {
        let Some(sealing) = self.sealing.take() else { return 0 };
        if self.open.is_empty() {
            self.open = Arc::unwrap_or_clone(sealing);
            return 0;
        }
        self.open.absorb(&sealing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::sample::sort_and_deduplicate;
    use crate::stored_labels::LabelPool;

    fn series() -> Series {
        let labels = Labels::new([("__name__", "m")]).expect("valid");
        Series::new(1, LabelPool::default().store(&labels), true)
    }

    fn begin_seal(series: &Series) -> usize {
        series.begin_seal().map_or(0, |head| head.len())
    }

    fn all(series: &Series) -> Vec<(i64, f64)> {
        let mut samples = Vec::new();
        series.read_head(i64::MIN, i64::MAX, &mut samples);
        sort_and_deduplicate(&mut samples);
        samples.iter().map(|s| (s.timestamp_ms, s.value)).collect()
    }

    #[test]
    fn samples_take_their_place_and_the_larger_value_wins_a_tie() {
        let series = series();
        for (t, v, inserted) in [
            (5, 1.0, Inserted::Added),
            (3, 2.0, Inserted::Added),
            (5, 4.0, Inserted::Merged),
            (5, 3.0, Inserted::Merged),
            (9, 0.0, Inserted::Added),
        ] {
            assert_eq!(series.insert(Sample::new(t, v)), inserted);
        }
        assert_eq!(series.insert(Sample::new(5, 4.0)), Inserted::Duplicate);
        assert_eq!(all(&series), [(3, 2.0), (5, 4.0), (9, 0.0)]);
        assert_eq!(series.latest(), Some(Sample::new(9, 0.0)));
        assert!(series.holds(Sample::new(5, 4.0)) && !series.holds(Sample::new(5, 3.0)));
    }

    #[test]
    fn a_seal_keeps_samples_readable_and_can_be_abandoned() {
        let series = series();
        series.insert(Sample::new(1, 1.0));
        assert_eq!(begin_seal(&series), 1);
        series.insert(Sample::new(2, 2.0));
        series.insert(Sample::new(1, 0.5));
        assert_eq!(all(&series), [(1, 1.0), (2, 2.0)]);
        series.abandon_seal();
        assert_eq!(all(&series), [(1, 1.0), (2, 2.0)]);
        assert_eq!(begin_seal(&series), 2);
        series.finish_seal();
        assert_eq!(all(&series), []);
        assert_eq!(series.latest(), Some(Sample::new(2, 2.0)));
    }

    #[test]
    fn a_seal_that_broke_off_is_made_up_for_by_the_next() {
        let series = series();
        series.insert(Sample::new(1, 1.0));
        assert_eq!(begin_seal(&series), 1);
        // It panicked: nothing was finished, nothing abandoned.
        series.insert(Sample::new(2, 2.0));
        assert_eq!(begin_seal(&series), 2);
        assert_eq!(all(&series), [(1, 1.0), (2, 2.0)]);
    }
}
