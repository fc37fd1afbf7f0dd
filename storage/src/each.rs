//! Reading one series after another, so that a reader holds the samples of one at a time.

use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::retention::Retention;
use crate::sample::Sample;
use crate::select::{ReadLimits, Selection};
use crate::series::Series;
use crate::state::State;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Takes series one by one, with their samples, until it breaks off.
pub type Visit<'v> = dyn FnMut(&Arc<Labels>, Vec<Sample>) -> ControlFlow<()> + 'v;

/// Which samples of each series [`crate::Db::select_each`] hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All that lie in the range.
    All,
    /// The newest that lies in the range. It is told from memory where it is the series' newest at all.
    Newest,
    /// At each of these times the newest until then; others may be among them. Of most samples nothing but the times
    /// is looked at.
    AtSteps(Steps),
}

/// Times from `first_ms` on, `step_ms` apart, which is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first of them, Unix time in milliseconds.
    pub first_ms: i64,
    /// From one to the next, in milliseconds.
    pub step_ms: i64,
}

impl Steps {
    /// The first of them that is not before `time_ms`.
    fn from(self, time_ms: i64) -> i64 {
        let step_ms = self.step_ms.max(1);
        let after_ms = time_ms.saturating_sub(self.first_ms).max(0);
        let steps = (after_ms / step_ms).saturating_add(i64::from(after_ms % step_ms > 0));
        self.first_ms.saturating_add(steps.saturating_mul(step_ms))
    }

    /// The places of those of rising `times` that are the newest at one of them, and of the last.
    pub(crate) fn newest(self, times: &[i64]) -> Vec<usize> {
        let mut places = Vec::new();
        let mut next = 0;
        while let Some(time_ms) = times.get(next) {
            let step_ms = self.from(*time_ms);
            // In strides that double: there are about as many samples from each step to the next.
            let mut stride = 1;
            while times.get(next + stride).is_some_and(|time_ms| *time_ms <= step_ms) {
                next += stride;
                stride *= 2;
            }
            let within = times.get(next + 1..(next + stride).min(times.len())).unwrap_or_default();
            next += within.partition_point(|time_ms| *time_ms <= step_ms);
            places.push(next);
            next += 1;
        }
        places
    }
}

/// So many newest samples, told from memory, are handed out between two looks at whether to stop.
const NEWEST_BETWEEN_LOOKS: usize = 64;

impl State {
    /// Hands `visit` the selected series that have samples in `[start_ms, end_ms]`, one after another in
    /// label order, until it breaks off. `limits.samples_max` bounds one series.
    pub(crate) fn select_each(
        &self,
        selection: Selection<'_>,
        (start_ms, end_ms): (i64, i64),
        pick: Pick,
        limits: ReadLimits<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let series = self.select_in_order(selection);
        let asked_for = series.len();
        let retention = self.retention();
        for (place, series) in series.into_iter().enumerate() {
            let looks = pick != Pick::Newest || place.is_multiple_of(NEWEST_BETWEEN_LOOKS);
            if looks && (limits.cancelled)() {
                return Err(Error::Cancelled);
            }
            let samples = match pick {
                Pick::All => self.read_series(&series, start_ms, end_ms, limits.samples_max)?,
                Pick::AtSteps(steps) => {
                    self.read_series_at(&series, start_ms, end_ms, Some(steps), limits.samples_max)?
                }
                Pick::Newest => {
                    self.read_newest(&series, &retention, start_ms, end_ms, limits.samples_max)?
                }
            };
            let samples = samples.ok_or(Error::TooManySamples { samples_max: limits.samples_max })?;
            if samples.is_empty() {
                continue;
            }
            let labels = match pick {
                Pick::All | Pick::AtSteps(_) => series.labels.share(),
                Pick::Newest => self.handed_out.labels(&series, asked_for),
            };
            if visit(&labels, samples).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_newest(
        &self,
        series: &Series,
        retention: &Retention,
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Option<Vec<Sample>>> {
        let start_ms = start_ms.max(self.oldest_read_ms(retention, series));
        let Some(latest) = series.latest() else { return Ok(Some(Vec::new())) };
        if latest.timestamp_ms <= end_ms {
            // Nothing of the series is newer, so it is this one or none.
            let in_range = latest.timestamp_ms >= start_ms;
            return Ok(Some(if in_range { vec![latest] } else { Vec::new() }));
        }
        let samples = self.read_series(series, start_ms, end_ms, samples_max)?;
        Ok(samples.map(|samples| samples.last().copied().into_iter().collect()))
    }

    /// The label sets of the selected series that may have samples in `[start_ms, end_ms]`, as far as
    /// memory and the indices of the blocks tell, in label order.
    pub(crate) fn series_within(
        &self,
        selection: Selection<'_>,
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<Arc<Labels>> {
        let mut series = self.select_in_order(selection);
        series.retain(|series| self.may_have_samples(series, start_ms, end_ms));
        series.iter().map(|series| series.labels.share()).collect()
    }

    fn may_have_samples(&self, series: &Series, start_ms: i64, end_ms: i64) -> bool {
        let start_ms = start_ms.max(self.oldest_read_ms(&self.retention(), series));
        match series.latest() {
            None => return false,
            Some(latest) if latest.timestamp_ms < start_ms => return false,
            Some(latest) if latest.timestamp_ms <= end_ms => return true,
            Some(_) => {}
        }
        let mut in_memory = Vec::new();
        series.read_head(start_ms, end_ms, &mut in_memory);
        let in_block = |entry: &crate::block::ChunkEntry| entry.min_ms <= end_ms && entry.last_ms >= start_ms;
        !in_memory.is_empty()
            || self
                .blocks()
                .iter()
                .filter(|block| block.overlaps(start_ms, end_ms))
                .any(|block| block.of_series(series.id).iter().any(in_block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Db, Matcher, Options, OutOfOrder, WriteBatch};
    use proptest::prelude::*;

    /// The newest of samples at each step until `end_ms`.
    fn at_steps(samples: &[Sample], steps: Steps, end_ms: i64) -> Vec<Option<Sample>> {
        let at = |at_ms| samples.iter().rfind(|sample| sample.timestamp_ms <= at_ms).copied();
        (0..)
            .map(|n| steps.first_ms + n * steps.step_ms)
            .take_while(|at_ms| *at_ms <= end_ms)
            .map(at)
            .collect()
    }

    proptest! {
        #[test]
        fn the_newest_at_each_step_are_picked_and_few_others(
            gaps in proptest::collection::vec(1i64..40, 0..200),
            first_ms in -50i64..3_000,
            step_ms in 1i64..300,
        ) {
            let mut at = 0;
            let times: Vec<i64> = gaps.iter().map(|gap| { at += gap; at }).collect();
            let samples: Vec<Sample> = times.iter().map(|time| Sample::new(*time, 0.0)).collect();
            let steps = Steps { first_ms, step_ms };
            let places = steps.newest(&times);
            prop_assert!(places.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(places.last().copied(), times.len().checked_sub(1));
            let picked: Vec<Sample> = places.iter().map(|place| samples[*place]).collect();
            prop_assert_eq!(at_steps(&picked, steps, at + 300), at_steps(&samples, steps, at + 300));
            // One for each step at most, and the last.
            let in_range = (at - first_ms).max(0) / step_ms + 2;
            prop_assert!(places.len() as i64 <= in_range);
        }

        #[test]
        fn what_is_read_at_steps_is_what_all_samples_tell(
            times in proptest::collection::vec((0i64..4_000, 0u8..4), 1..120),
            seals in proptest::collection::vec(0usize..120, 0..5),
            deleted in proptest::option::of((0i64..4_000, 0i64..800)),
            step_ms in 1i64..600,
        ) {
            let (db, _dir) = db_with(&[("other", 1, 1.0)]);
            for (place, (at_ms, value)) in times.iter().enumerate() {
                let mut batch = WriteBatch::default();
                let labels = Labels::new([("__name__", "m"), ("pod", "a")]).expect("valid");
                batch.push(labels, Some(*at_ms), f64::from(*value) / 4.0);
                db.append_wait(batch, 10_000, OutOfOrder::Lifted).expect("appended");
                if seals.contains(&place) {
                    db.seal().expect("sealed");
                }
            }
            let matchers = [Matcher::equal("pod", "a")];
            let selection = Selection { matchers: &matchers, visible: None };
            if let Some((from_ms, length_ms)) = deleted {
                db.delete(selection, from_ms, from_ms + length_ms).expect("deleted");
            }
            let steps = Steps { first_ms: 500, step_ms };
            let read = |pick| {
                let mut read = Vec::new();
                let limits = ReadLimits { samples_max: 1_000, cancelled: &|| false };
                db.select_each(selection, (300, 3_500), pick, limits, &mut |_, samples| {
                    read = samples;
                    ControlFlow::Continue(())
                })
                .expect("read");
                read
            };
            let (all, picked) = (read(Pick::All), read(Pick::AtSteps(steps)));
            prop_assert_eq!(at_steps(&picked, steps, 3_500), at_steps(&all, steps, 3_500));
        }
    }

    fn db_with(samples: &[(&str, i64, f64)]) -> (Db, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::open(dir.path(), Options::default(), uuid::Uuid::new_v4()).expect("opens");
        let mut batch = WriteBatch::default();
        for (pod, at_ms, value) in samples {
            let labels = Labels::new([("__name__", "m"), ("pod", *pod)]).expect("valid");
            batch.push(labels, Some(*at_ms), *value);
        }
        db.append_wait(batch, 10_000, OutOfOrder::Lifted).expect("appended");
        (db, dir)
    }

    fn read(db: &Db, range: (i64, i64), pick: Pick, series_max: usize) -> Vec<(String, Vec<i64>)> {
        let matchers = [Matcher::equal("__name__", "m")];
        let selection = Selection { matchers: &matchers, visible: None };
        let limits = ReadLimits { samples_max: 100, cancelled: &|| false };
        let mut seen = Vec::new();
        db.select_each(selection, range, pick, limits, &mut |labels, samples| {
            let pod = labels.get("pod").unwrap_or_default().to_owned();
            seen.push((pod, samples.iter().map(|s| s.timestamp_ms).collect()));
            if seen.len() == series_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .expect("read");
        seen
    }

    #[test]
    fn series_come_one_by_one_in_label_order_and_can_be_broken_off() {
        let (db, _dir) = db_with(&[("b", 1, 1.0), ("a", 1, 1.0), ("a", 5, 2.0), ("c", 9, 1.0)]);
        for _ in 0..2 {
            let all = read(&db, (0, 6), Pick::All, 10);
            assert_eq!(all, [("a".to_owned(), vec![1, 5]), ("b".to_owned(), vec![1])]);
            assert_eq!(read(&db, (0, 9), Pick::All, 1).len(), 1);
            db.seal().expect("sealed");
        }
    }

    #[test]
    fn the_newest_is_the_same_from_memory_and_from_blocks() {
        let (db, _dir) = db_with(&[("a", 1, 1.0), ("a", 5, 2.0), ("b", 3, 1.0)]);
        for _ in 0..2 {
            let newest = |range| read(&db, range, Pick::Newest, 10);
            assert_eq!(newest((0, 9)), [("a".to_owned(), vec![5]), ("b".to_owned(), vec![3])]);
            assert_eq!(newest((0, 4)), [("a".to_owned(), vec![1]), ("b".to_owned(), vec![3])]);
            assert_eq!(newest((4, 9)), [("a".to_owned(), vec![5])]);
            assert_eq!(newest((2, 2)), []);
            db.seal().expect("sealed");
        }
    }

    #[test]
    fn series_without_samples_in_a_range_are_not_listed() {
        let (db, _dir) = db_with(&[("a", 1, 1.0), ("a", 9, 2.0), ("b", 3, 1.0)]);
        let matchers = [Matcher::equal("__name__", "m")];
        let selection = Selection { matchers: &matchers, visible: None };
        let listed = |start_ms, end_ms| db.series_within(selection, start_ms, end_ms).len();
        assert_eq!((listed(0, 10), listed(4, 10), listed(2, 5), listed(4, 8)), (2, 1, 1, 0));
        db.seal().expect("sealed");
        // A chunk spans from its first sample to its last.
        assert_eq!((listed(0, 10), listed(4, 10), listed(10, 20), listed(4, 8)), (2, 1, 0, 1));
    }
}
