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

/// Fewer are sorted as they are.
const KEYED_MIN: usize = 32;

/// Sorts by label sets, as they are ordered.
///
/// Those of one selection mostly share their first labels and differ in the values of one name (a pod's), which begin
/// alike: so it is looked once where they begin to differ, and a few bytes from there on tell most of them apart.
pub(crate) fn sort_by_labels<T>(all: &mut Vec<T>, labels: impl Fn(&T) -> &StoredLabels) {
    let Some((shared, skipped)) = Some(&*all).filter(|all| all.len() >= KEYED_MIN).and_then(|all| {
        let sets = || all.iter().map(|one| &*labels(one).0);
        let shared = shared_labels(sets());
        let skipped = shared_bytes(sets().map(|set| set.get(shared)))?;
        Some((shared, skipped))
    }) else {
        all.sort_unstable_by(|a, b| labels(a).cmp(labels(b)));
        return;
    };
    let key = |one: &T| {
        let text = labels(one).0.get(shared).map_or("", |label| &label.text);
        let mut key = [0; 8];
        for (to, from) in key.iter_mut().zip(text.bytes().skip(skipped)) {
            *to = from;
        }
        u64::from_be_bytes(key)
    };
    let mut keyed: Vec<(u64, T)> = all.drain(..).map(|one| (key(&one), one)).collect();
    keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| labels(&a.1).cmp(labels(&b.1))));
    all.extend(keyed.into_iter().map(|(_, one)| one));
}

/// How many labels all sets have in common before they differ.
fn shared_labels<'a>(mut sets: impl Iterator<Item = &'a [Arc<Label>]>) -> usize {
    let Some(first) = sets.next() else { return 0 };
    let mut shared = first;
    for set in sets {
        let same = shared.iter().zip(set).take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
        shared = &shared[..same];
    }
    shared.len()
}

/// With how many bytes all of these begin alike; `None`: not all of them have the same name.
fn shared_bytes<'a>(mut labels: impl Iterator<Item = Option<&'a Arc<Label>>>) -> Option<usize> {
    let first = labels.next()??;
    let mut shared = first.text.as_bytes();
    for label in labels {
        let label = label.filter(|label| label.name_bytes == first.name_bytes)?;
        let same = shared.iter().zip(label.text.as_bytes()).take_while(|(a, b)| a == b).count();
        shared = &shared[..same];
    }
    // A name that differs is no beginning: where it ends counts before what is in it.
    (shared.len() >= first.name_bytes as usize).then_some(shared.len())
}

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

    proptest! {
        #[test]
        fn many_are_sorted_as_they_are_ordered(
            sets in proptest::collection::vec(any_labels(), 0..3 * KEYED_MIN),
            pods in proptest::collection::vec("[a-b]{0,12}é?[a-b]{1,2}", 0..3 * KEYED_MIN),
        ) {
            let of_pods = pods.iter().map(|pod| {
                let last = pod.chars().next_back().map(String::from).unwrap_or_default();
                Labels::new([("__name__", "m"), ("pod", pod), ("z", &last)]).expect("valid")
            });
            for sets in [sets, of_pods.collect()] {
                let mut pool = LabelPool::default();
                let mut stored: Vec<StoredLabels> = sets.iter().map(|set| pool.store(set)).collect();
                sort_by_labels(&mut stored, |set| set);
                let mut expected = sets;
                expected.sort();
                prop_assert_eq!(stored.iter().map(StoredLabels::to_labels).collect::<Vec<_>>(), expected);
            }
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
