//! What is in memory of a series: its newest samples as they came, and those before them packed.
//!
//! Samples are packed in runs of [`RUN_SAMPLES`] by the codecs of blocks, each run by what makes it
//! smallest: some three bytes a sample instead of sixteen. Samples that come late gather, and are packed into
//! the runs among which they lie when they are as many as a run has.

use crate::codec::{Effort, decode_times, decode_values, encode_times, encode_values};
use crate::extent::Extent;
use crate::sample::{Sample, sort_and_deduplicate};
use crate::series::Inserted;
use smallvec::SmallVec;

/// So many samples are packed at once.
const RUN_SAMPLES: usize = 64;

/// Unpacked samples in time order, one a timestamp. Two lie where the list itself does: of most series few are in
/// memory, and there are many of them.
type Unpacked = SmallVec<[Sample; 2]>;

/// Samples in time order, one a timestamp.
#[derive(Clone, Default)]
pub(crate) struct Head {
    /// In a box of their own: of many series only few samples are in memory.
    older: Option<Box<Older>>,
    /// Newer than those of all runs, and fewer than would be packed.
    newest: Unpacked,
}

/// All but the newest samples.
#[derive(Clone, Default)]
struct Older {
    runs: Vec<Run>,
    /// Not newer than those of all runs, at times that no run has; fewer than would be packed.
    late: Unpacked,
}

/// Consecutive samples, packed.
#[derive(Clone)]
struct Run {
    first_ms: i64,
    last_ms: i64,
    samples: u16,
    times_bytes: u16,
    /// A column of timestamps and one of values.
    columns: Box<[u8]>,
}

impl Run {
    /// Packs samples: at least one, at most [`RUN_SAMPLES`].
    fn pack(samples: &[Sample]) -> Self {
        let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp_ms).collect();
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let mut columns = Vec::with_capacity(samples.len() * 4);
        encode_times(&times, Effort::Least, &mut columns);
        let times_bytes = columns.len();
        encode_values(&values, Effort::Least, &mut columns);
        let small = |number: usize| u16::try_from(number).expect("a run is short");
        Self {
            first_ms: times.first().copied().unwrap_or_default(),
            last_ms: times.last().copied().unwrap_or_default(),
            samples: small(samples.len()),
            times_bytes: small(times_bytes),
            columns: columns.into_boxed_slice(),
        }
    }

    fn samples(&self) -> impl Iterator<Item = Sample> {
        let (times, values) = self.columns.split_at(usize::from(self.times_bytes));
        let count = usize::from(self.samples);
        let times = decode_times(times, count).expect("packed in this process");
        let values = decode_values(values, count).expect("packed in this process");
        times.into_iter().zip(values).map(|(time_ms, value)| Sample::new(time_ms, value))
    }
}

impl Head {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        let packed: usize = self.runs().iter().map(|run| usize::from(run.samples)).sum();
        packed + self.late().len() + self.newest.len()
    }

    fn runs(&self) -> &[Run] {
        self.older.as_ref().map(|older| older.runs.as_slice()).unwrap_or_default()
    }

    fn late(&self) -> &[Sample] {
        self.older.as_ref().map(|older| older.late.as_slice()).unwrap_or_default()
    }

    /// Puts a sample in its place.
    pub(crate) fn insert(&mut self, sample: Sample) -> Inserted {
        if let Some(older) = &mut self.older
            && older.runs.last().is_some_and(|run| sample.timestamp_ms <= run.last_ms)
        {
            return older.insert(sample);
        }
        let inserted = insert(&mut self.newest, sample);
        if self.newest.len() >= RUN_SAMPLES {
            self.older.get_or_insert_default().runs.push(Run::pack(&self.newest));
            self.newest.clear();
        }
        inserted
    }

    /// Whether exactly this sample is there.
    pub(crate) fn holds(&self, sample: Sample) -> bool {
        let held = |samples: &[Sample]| {
            let at = samples.binary_search_by_key(&sample.timestamp_ms, |s| s.timestamp_ms);
            at.is_ok_and(|at| samples.get(at) == Some(&sample))
        };
        let at = self.runs().partition_point(|run| run.last_ms < sample.timestamp_ms);
        let run = self.runs().get(at).filter(|run| run.first_ms <= sample.timestamp_ms);
        held(&self.newest) || held(self.late()) || run.is_some_and(|run| run.samples().any(|s| s == sample))
    }

    /// Appends the samples in `[start_ms, end_ms]`, in time order.
    pub(crate) fn read(&self, start_ms: i64, end_ms: i64, samples: &mut Vec<Sample>) {
        let within = |sample: &Sample| (start_ms..=end_ms).contains(&sample.timestamp_ms);
        let before = samples.len();
        for run in self.runs().iter().filter(|run| run.first_ms <= end_ms && run.last_ms >= start_ms) {
            samples.extend(run.samples().filter(within));
        }
        samples.extend(self.newest.iter().filter(|sample| within(sample)));
        let in_order = samples.len();
        samples.extend(self.late().iter().filter(|sample| within(sample)));
        if samples.len() > in_order
            && let Some(added) = samples.get_mut(before..)
        {
            added.sort_unstable_by_key(|sample| sample.timestamp_ms);
        }
    }

    /// All samples, in time order.
    pub(crate) fn all(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.len());
        self.read(i64::MIN, i64::MAX, &mut samples);
        samples
    }

    /// Calls `each` with all that the times of samples come to, in no order; `of` rises with its argument.
    pub(crate) fn for_each_time(&self, of: impl Fn(i64) -> i64, mut each: impl FnMut(i64)) {
        for run in self.runs() {
            let first = of(run.first_ms);
            each(first);
            if of(run.last_ms) != first {
                run.samples().for_each(|sample| each(of(sample.timestamp_ms)));
            }
        }
        self.late().iter().chain(&self.newest).for_each(|sample| each(of(sample.timestamp_ms)));
    }

    /// Adds how far the samples reach.
    pub(crate) fn add_extent(&self, extent: &mut Extent) {
        self.runs().iter().for_each(|run| extent.add(1, (run.first_ms, run.last_ms)));
        for unpacked in [self.late(), self.newest.as_slice()] {
            if let (Some(first), Some(last)) = (unpacked.first(), unpacked.last()) {
                extent.add(1, (first.timestamp_ms, last.timestamp_ms));
            }
        }
    }

    /// Takes the samples of another one in. Answers how many of them were there twice.
    pub(crate) fn absorb(&mut self, other: &Self) -> usize {
        let mut all = other.all();
        all.append(&mut self.all());
        let before = all.len();
        sort_and_deduplicate(&mut all);
        *self = Self::of(&all);
        before - all.len()
    }

    /// Deletes the samples in `[start_ms, end_ms]`, and answers how many they were.
    pub(crate) fn delete(&mut self, start_ms: i64, end_ms: i64) -> usize {
        let mut left = self.all();
        let before = left.len();
        left.retain(|s| s.timestamp_ms < start_ms || s.timestamp_ms > end_ms);
        let deleted = before - left.len();
        if deleted > 0 {
            *self = Self::of(&left);
        }
        deleted
    }

    /// Of samples in time order, one a timestamp.
    fn of(samples: &[Sample]) -> Self {
        let runs = samples.chunks_exact(RUN_SAMPLES);
        let newest = Unpacked::from_slice(runs.remainder());
        let runs: Vec<Run> = runs.map(Run::pack).collect();
        let older = (!runs.is_empty()).then(|| Box::new(Older { runs, late: Unpacked::new() }));
        Self { older, newest }
    }
}

impl Older {
    /// Puts a late sample in its place.
    fn insert(&mut self, sample: Sample) -> Inserted {
        if let Some(run) = self.run_of_mut(sample.timestamp_ms) {
            let mut samples: Unpacked = run.samples().collect();
            if samples.binary_search_by_key(&sample.timestamp_ms, |s| s.timestamp_ms).is_ok() {
                let inserted = insert(&mut samples, sample);
                *run = Run::pack(&samples);
                return inserted;
            }
        }
        let inserted = insert(&mut self.late, sample);
        if self.late.len() >= RUN_SAMPLES {
            self.pack_late();
        }
        inserted
    }

    /// Packs late samples together with the runs among which they lie.
    fn pack_late(&mut self) {
        let (Some(first), Some(last)) = (self.late.first(), self.late.last()) else { return };
        let from = self.runs.partition_point(|run| run.last_ms < first.timestamp_ms);
        let to = self.runs.partition_point(|run| run.first_ms <= last.timestamp_ms).max(from);
        let mut samples = std::mem::take(&mut self.late);
        samples.extend(self.runs.get(from..to).unwrap_or_default().iter().flat_map(Run::samples));
        samples.sort_unstable_by_key(|sample| sample.timestamp_ms);
        let runs = samples.len().div_ceil(RUN_SAMPLES);
        let packed = samples.chunks(samples.len().div_ceil(runs)).map(Run::pack);
        self.runs.splice(from..to, packed.collect::<Vec<_>>());
    }

    fn run_of_mut(&mut self, timestamp_ms: i64) -> Option<&mut Run> {
        let at = self.runs.partition_point(|run| run.last_ms < timestamp_ms);
        self.runs.get_mut(at).filter(|run| run.first_ms <= timestamp_ms)
    }
}

/// Puts a sample in its place among others.
fn insert(samples: &mut Unpacked, sample: Sample) -> Inserted {
    if samples.last().is_none_or(|last| sample.timestamp_ms > last.timestamp_ms) {
        if samples.len() == samples.capacity() {
            // By halves, not twice as many.
            samples.reserve_exact((samples.len() / 2).max(1));
        }
        samples.push(sample);
        return Inserted::Added;
    }
    match samples.binary_search_by_key(&sample.timestamp_ms, |s| s.timestamp_ms) {
        Ok(at) if samples[at] == sample => Inserted::Duplicate,
        Ok(at) => {
            if sample.total_cmp(&samples[at]).is_gt() {
                samples[at] = sample;
            }
            Inserted::Merged
        }
        Err(at) => {
            samples.insert(at, sample);
            Inserted::Added
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn packed_samples_take_a_few_bytes() {
        let mut head = Head::default();
        for i in 0..1_000i64 {
            let value = ((i * 7_919) % 1_000) as f64 / 1e3;
            head.insert(Sample::new(1_794_700_800_000 + i * 15_000 + i % 21, value));
        }
        let bytes: usize = head.runs().iter().map(|run| run.columns.len() + size_of::<Run>()).sum();
        assert!(bytes < 4_000, "{bytes} bytes");
        assert_eq!((head.len(), head.newest.len()), (1_000, 1_000 % RUN_SAMPLES));
    }

    proptest! {
        #[test]
        fn a_head_is_a_sorted_map_in_which_the_larger_value_stands(
            steps in proptest::collection::vec((0i64..600, 0u64..3, any::<bool>()), 0..900),
            cut in 0i64..400,
        ) {
            let mut head = Head::default();
            let mut expected: BTreeMap<i64, f64> = BTreeMap::new();
            for (place, (time, value, late)) in steps.iter().enumerate() {
                let time = if *late { *time } else { place as i64 };
                let sample = Sample::new(time, *value as f64);
                let known = expected.get(&time).copied();
                let inserted = head.insert(sample);
                prop_assert_eq!(inserted, match known {
                    None => Inserted::Added,
                    Some(known) if known == sample.value => Inserted::Duplicate,
                    Some(_) => Inserted::Merged,
                });
                let stands = known.map_or(sample.value, |known| known.max(sample.value));
                expected.insert(time, stands);
                prop_assert!(head.holds(Sample::new(time, stands)));
                prop_assert!(!head.holds(Sample::new(time, 7.0)));
            }
            let samples = |range: std::ops::RangeInclusive<i64>| -> Vec<Sample> {
                expected.range(range).map(|(t, v)| Sample::new(*t, *v)).collect()
            };
            prop_assert_eq!(head.all(), samples(0..=2_000));
            prop_assert_eq!(head.len(), expected.len());
            let mut read = Vec::new();
            head.read(cut, cut + 50, &mut read);
            prop_assert_eq!(read, samples(cut..=cut + 50));
            let mut tens = Vec::new();
            head.for_each_time(|time| time / 10, |ten| tens.push(ten));
            tens.sort_unstable();
            tens.dedup();
            let mut expected_tens: Vec<i64> = expected.keys().map(|time| time / 10).collect();
            expected_tens.dedup();
            prop_assert_eq!(tens, expected_tens);

            let mut twice = head.clone();
            prop_assert_eq!(twice.absorb(&head), expected.len());
            prop_assert_eq!(twice.all(), samples(0..=2_000));
            let gone = samples(cut..=cut + 50).len();
            prop_assert_eq!(head.delete(cut, cut + 50), gone);
            prop_assert_eq!(head.len(), expected.len() - gone);
        }
    }
}
