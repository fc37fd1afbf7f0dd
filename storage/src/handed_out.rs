//! Label sets by themselves of series whose newest values are asked for again and again.
//!
//! Series keep their labels as references that they share ([`crate::stored_labels`]); a set by itself costs an
//! allocation and a copy. An autoscaler asks for the same series every few seconds, so the sets made for
//! it are kept. invariant: at most [`SLOTS`] sets are kept, each in the one place that its series' number
//! gives it; series that meet there take turns, which costs time and nothing else.

use crate::labels::Labels;
use crate::series::Series;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// Places. Full of sets of 300 bytes they take 6 MB.
const SLOTS: usize = 16_384;

/// A set, and whose it is. The series itself tells, since numbers are given out again.
struct Kept {
    series: Arc<Series>,
    labels: Arc<Labels>,
}

/// The sets that were handed out last.
pub(crate) struct HandedOut {
    slots: Box<[ArcSwapOption<Kept>]>,
}

impl Default for HandedOut {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(ArcSwapOption::empty).take(SLOTS).collect() }
    }
}

impl HandedOut {
    /// The labels of a series that is one of `asked_for`. Never waits for another reader.
    pub(crate) fn labels(&self, series: &Arc<Series>, asked_for: usize) -> Arc<Labels> {
        if asked_for > SLOTS {
            // Nothing would be found again.
            return series.labels.share();
        }
        let slot = &self.slots[series.id as usize % SLOTS];
        if let Some(kept) = &*slot.load()
            && Arc::ptr_eq(&kept.series, series)
        {
            return Arc::clone(&kept.labels);
        }
        let labels = series.labels.share();
        slot.store(Some(Arc::new(Kept { series: Arc::clone(series), labels: Arc::clone(&labels) })));
        labels
    }

    /// Lets go of a series that is no more.
    pub(crate) fn forget(&self, series: &Arc<Series>) {
        let slot = &self.slots[series.id as usize % SLOTS];
        if slot.load().as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.series, series)) {
            slot.store(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_labels::LabelPool;

    fn series(id: u32, pod: &str) -> Arc<Series> {
        let labels = Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
        Arc::new(Series::new(id, LabelPool::default().store(&labels), true))
    }

    #[test]
    fn a_set_is_made_once_and_is_never_another_series() {
        let kept = HandedOut::default();
        let first = series(7, "a");
        let labels = kept.labels(&first, 1);
        assert!(Arc::ptr_eq(&labels, &kept.labels(&first, 1)));
        // Of the same number, after the first is gone; and of another number that has the same place.
        let slots = u32::try_from(SLOTS).expect("small");
        for other in [series(7, "b"), series(7 + slots, "c")] {
            assert!(other.labels.are(&kept.labels(&other, 1)));
            assert!(first.labels.are(&kept.labels(&first, 1)));
        }
    }

    #[test]
    fn what_is_forgotten_is_let_go_of() {
        let kept = HandedOut::default();
        let (first, second) = (series(7, "a"), series(7, "b"));
        kept.labels(&first, 1);
        kept.forget(&second);
        assert_eq!(Arc::strong_count(&first), 2);
        kept.forget(&first);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
