//! Label sets as the store keeps them: a label is in memory once, however many series carry it.
//!
//! Series share nearly all of their labels with others: a namespace, a node, the pod with its other
//! metrics. So a set is a list of references; a [`Labels`] is made of it for whoever reads the series.

use crate::labels::Labels;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A name and a value.
struct Label {
    /// The name, and the value right after it.
    text: Box<str>,
    name_bytes: u32,
}

impl Label {
    fn pair(&self) -> (&str, &str) {
        self.text.split_at(self.name_bytes as usize)
    }
}

/// The labels of one series, sorted by name.
pub(crate) struct StoredLabels(Box<[Arc<Label>]>);

impl StoredLabels {
    /// The labels, sorted by name.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|label| label.pair())
    }

    /// The value of the label `name`, if the set has it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Whether these are the labels of that set.
    pub(crate) fn are(&self, labels: &Labels) -> bool {
        let same = |(own, (name_bytes, text)): (&Arc<Label>, (usize, &[u8]))| {
            own.name_bytes as usize == name_bytes && own.text.as_bytes() == text
        };
        self.0.len() == labels.len() && self.0.iter().zip(labels.iter_joined()).all(same)
    }

    /// The set by itself.
    pub(crate) fn to_labels(&self) -> Labels {
        Labels::of_sorted(self.iter())
    }

    /// The set by itself, to be handed out.
    pub(crate) fn share(&self) -> Arc<Labels> {
        Arc::new(self.to_labels())
    }
}

/// As [`Labels`] are ordered.
impl Ord for StoredLabels {
    fn cmp(&self, other: &Self) -> Ordering {
        for (own, others) in self.0.iter().zip(&other.0) {
            // What is the same label need not be looked at; of equal text they may be two all the same, where
            // stores are compared.
            if !Arc::ptr_eq(own, others) && own.pair() != others.pair() {
                return own.pair().cmp(&others.pair());
            }
        }
        self.0.len().cmp(&other.0.len())
    }
}

impl PartialOrd for StoredLabels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for StoredLabels {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for StoredLabels {}

/// All labels of a store.
#[derive(Default)]
pub(crate) struct LabelPool {
    labels: HashTable<Arc<Label>>,
    hasher: DefaultHashBuilder,
    /// Label sets that were let go of since it was last looked which labels are left.
    let_go: usize,
}

/// Label sets that may be let go of before it is looked which labels are left, beside a part of all.
const LET_GO_MIN: usize = 1_024;

impl LabelPool {
    /// The set, of labels that are in memory already where there are such.
    pub(crate) fn store(&mut self, labels: &Labels) -> StoredLabels {
        StoredLabels(labels.iter().map(|(name, value)| self.label(name, value)).collect())
    }

    fn label(&mut self, name: &str, value: &str) -> Arc<Label> {
        let hash = self.hasher.hash_one((name, value));
        if let Some(known) = self.labels.find(hash, |label| label.pair() == (name, value)) {
            return Arc::clone(known);
        }
        let name_bytes = u32::try_from(name.len()).expect("bounded by labels::limits");
        let label = Arc::new(Label { text: [name, value].concat().into_boxed_str(), name_bytes });
        let hasher = &self.hasher;
        self.labels.insert_unique(hash, Arc::clone(&label), |label| hasher.hash_one(label.pair()));
        label
    }

    /// Notes that a set is about to be let go of. Labels that nobody carries any more go now and then.
    pub(crate) fn note_let_go(&mut self) {
        self.let_go += 1;
        if self.let_go >= LET_GO_MIN + self.labels.len() / 8 {
            self.let_go = 0;
            self.labels.retain(|label| Arc::strong_count(label) > 1);
            let hasher = &self.hasher;
            self.labels.shrink_to_fit(|label| hasher.hash_one(label.pair()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[a-c]{1,2}", "[a-cé]{1,3}", 0..5).prop_map(|mut map| {
            map.insert("__name__".to_owned(), "m".to_owned());
            Labels::new(map).expect("valid")
        })
    }

    proptest! {
        #[test]
        fn stored_sets_are_the_sets_and_in_their_order(a in any_labels(), b in any_labels()) {
            let mut pool = LabelPool::default();
            let (stored_a, stored_b) = (pool.store(&a), pool.store(&b));
            prop_assert_eq!(stored_a.to_labels(), a.clone());
            prop_assert_eq!(stored_a.are(&b), a == b);
            prop_assert_eq!(stored_a.cmp(&stored_b), a.cmp(&b));
            // Of another pool, too.
            prop_assert_eq!(stored_a.cmp(&LabelPool::default().store(&b)), a.cmp(&b));
            prop_assert_eq!(stored_a.get("a"), a.get("a"));
        }
    }

    #[test]
    fn labels_that_nobody_carries_any_more_are_forgotten() {
        let mut pool = LabelPool::default();
        let labels = |pod: usize| {
            Labels::new([("__name__", "m".to_owned()), ("pod", pod.to_string())]).expect("valid")
        };
        let kept = pool.store(&labels(0));
        for pod in 1..=3 * LET_GO_MIN {
            drop(pool.store(&labels(pod)));
            pool.note_let_go();
        }
        assert!(pool.labels.len() < 2 * LET_GO_MIN, "{}", pool.labels.len());
        assert!(kept.are(&labels(0)) && pool.store(&labels(0)).are(&labels(0)));
    }
}
