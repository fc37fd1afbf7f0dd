//! Postings: for each label, which series carry it. How a selector finds its series.

use crate::matcher::{MatchOp, Matcher};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use roaring::{MultiOps, RoaringBitmap};
use std::collections::BTreeMap;
use std::hash::BuildHasher;

/// Lists of at most so many series have no room to grow when they are made, loaded, and stored.
const TRIMMED_SERIES_MAX: u64 = 64;

/// Series numbers by label name and value.
#[derive(Default)]
pub(crate) struct Postings {
    by_name: BTreeMap<Box<str>, LabelPostings>,
    all: RoaringBitmap,
    changed: Changed,
}

#[derive(Default)]
struct LabelPostings {
    by_value: BTreeMap<Box<str>, RoaringBitmap>,
    any: RoaringBitmap,
}

/// One stored piece of a posting list: the series of one label pair whose numbers share their upper
/// 16 bits, which bounds its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PostingKey {
    pub(crate) name: Box<str>,
    pub(crate) value: Box<str>,
    pub(crate) upper: u16,
}

/// Pieces that are to be stored, in a table rather than in nodes of a tree, which would lie between those of the
/// postings and leave their pages half empty. With their hashes, so that a table that grows need not look at text.
#[derive(Default)]
pub(crate) struct Changed {
    keys: HashTable<(u64, PostingKey)>,
    hasher: DefaultHashBuilder,
}

impl Changed {
    fn note(&mut self, name: &str, value: &str, upper: u16) {
        let hash = self.hasher.hash_one((name, value, upper));
        let is_it =
            |(_, key): &(u64, PostingKey)| key.upper == upper && *key.value == *value && *key.name == *name;
        if let Entry::Vacant(free) = self.keys.entry(hash, is_it, |(hash, _)| *hash) {
            free.insert((hash, PostingKey { name: name.into(), value: value.into(), upper }));
        }
    }

    /// The pieces in their order, so that they are stored side by side.
    pub(crate) fn in_order(self) -> Vec<PostingKey> {
        let mut keys: Vec<PostingKey> = self.keys.into_iter().map(|(_, key)| key).collect();
        keys.sort_unstable();
        keys
    }
}

/// Without the room that a list was given to grow, if it is of few series: of most labels there are few, and a
/// copy takes a third.
fn trimmed(posting: RoaringBitmap) -> RoaringBitmap {
    if posting.len() <= TRIMMED_SERIES_MAX { posting.clone() } else { posting }
}

impl Postings {
    /// Adds a series under each of its labels.
    pub(crate) fn add<'a>(&mut self, series: u32, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.all.insert(series);
        for (name, value) in labels {
            if !self.by_name.contains_key(name) {
                self.by_name.insert(name.into(), LabelPostings::default());
            }
            let Some(label) = self.by_name.get_mut(name) else { continue };
            label.any.insert(series);
            match label.by_value.get_mut(value) {
                Some(posting) => {
                    posting.insert(series);
                }
                None => {
                    label.by_value.insert(value.into(), trimmed(RoaringBitmap::from_iter([series])));
                }
            }
            self.note_change(series, name, value);
        }
    }

    /// Removes a series.
    pub(crate) fn remove<'a>(&mut self, series: u32, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.all.remove(series);
        for (name, value) in labels {
            let Some(label) = self.by_name.get_mut(name) else { continue };
            label.any.remove(series);
            if let Some(posting) = label.by_value.get_mut(value) {
                posting.remove(series);
                if posting.is_empty() {
                    label.by_value.remove(value);
                }
            }
            if label.by_value.is_empty() {
                self.by_name.remove(name);
            }
            self.note_change(series, name, value);
        }
    }

    fn note_change(&mut self, series: u32, name: &str, value: &str) {
        self.changed.note(name, value, (series >> 16) as u16);
    }

    /// Adds a stored piece, of which only `known` series count.
    pub(crate) fn load(&mut self, key: &PostingKey, series: &RoaringBitmap, known: &RoaringBitmap) {
        let series = series & known;
        if series.is_empty() {
            return;
        }
        self.all |= &series;
        let label = self.by_name.entry(key.name.clone()).or_default();
        label.any |= &series;
        match label.by_value.get_mut(&key.value) {
            Some(posting) => *posting |= series,
            None => {
                label.by_value.insert(key.value.clone(), trimmed(series));
            }
        }
    }

    /// Which pieces were changed since the last call. A short call: who holds the postings keeps writers waiting.
    pub(crate) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// What a changed piece is now, to be stored.
    pub(crate) fn changed_piece(&mut self, key: &PostingKey) -> RoaringBitmap {
        self.trim(key);
        self.piece(key)
    }

    fn trim(&mut self, key: &PostingKey) {
        let label = self.by_name.get_mut(&key.name);
        if let Some(posting) = label.and_then(|label| label.by_value.get_mut(&key.value)) {
            *posting = trimmed(std::mem::take(posting));
        }
    }

    /// Counts pieces as changed again: they could not be stored.
    pub(crate) fn put_back(&mut self, changed: &[PostingKey]) {
        changed.iter().for_each(|key| self.changed.note(&key.name, &key.value, key.upper));
    }

    fn piece(&self, key: &PostingKey) -> RoaringBitmap {
        let posting = self.by_name.get(&key.name).and_then(|label| label.by_value.get(&key.value));
        let first = u32::from(key.upper) << 16;
        posting.map(|p| p.range(first..=first | 0xffff).collect()).unwrap_or_default()
    }

    /// The series that fit all matchers; without matchers: all.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        // The narrowest kind first; each further matcher only takes away.
        let mut matchers: Vec<&Matcher> = matchers.iter().collect();
        matchers.sort_by_key(|m| match m.op() {
            MatchOp::Equal if !m.value().is_empty() => 0,
            MatchOp::Regex => 1,
            _ => 2,
        });
        let mut selected: Option<RoaringBitmap> = None;
        for matcher in matchers {
            let narrowed = match &selected {
                None => self.matching(matcher),
                Some(selected) => selected & self.matching(matcher),
            };
            if narrowed.is_empty() {
                return narrowed;
            }
            selected = Some(narrowed);
        }
        selected.unwrap_or_else(|| self.all.clone())
    }

    /// Whether the matchers that ask for one value already leave nothing. Looks at no expression, so it is
    /// always a short look.
    pub(crate) fn surely_none(&self, matchers: &[Matcher]) -> bool {
        let of_one_value = |m: &&Matcher| m.op() == MatchOp::Equal && !m.value().is_empty();
        let mut selected: Option<RoaringBitmap> = None;
        for matcher in matchers.iter().filter(of_one_value) {
            let posting =
                self.by_name.get(matcher.name()).and_then(|label| label.by_value.get(matcher.value()));
            let Some(posting) = posting else { return true };
            let left = match selected {
                None => posting.clone(),
                Some(selected) => selected & posting,
            };
            if left.is_empty() {
                return true;
            }
            selected = Some(left);
        }
        false
    }

    fn matching(&self, matcher: &Matcher) -> RoaringBitmap {
        let label = self.by_name.get(matcher.name());
        let absent = || label.map_or_else(|| self.all.clone(), |label| &self.all - &label.any);
        let with_value = |label: &LabelPostings| match matcher.op() {
            MatchOp::Equal => label.by_value.get(matcher.value()).cloned().unwrap_or_default(),
            MatchOp::NotEqual => match label.by_value.get(matcher.value()) {
                Some(excluded) => &label.any - excluded,
                None => label.any.clone(),
            },
            MatchOp::Regex | MatchOp::NotRegex => {
                let (mut matching, mut others) = (Vec::new(), Vec::new());
                for (value, posting) in &label.by_value {
                    if matcher.matches_value(value) { &mut matching } else { &mut others }.push(posting);
                }
                // Of few the union is soon made.
                if others.len() < matching.len() { &label.any - others.union() } else { matching.union() }
            }
        };
        let mut matching = label.map(with_value).unwrap_or_default();
        if matcher.matches_value("") {
            matching |= absent();
        }
        matching
    }

    /// The names of all labels that any of `series` carries, sorted; `None`: any series at all.
    pub(crate) fn names(&self, series: Option<&RoaringBitmap>) -> Vec<String> {
        let carried = |label: &LabelPostings| series.is_none_or(|s| !s.is_disjoint(&label.any));
        self.by_name.iter().filter(|(_, label)| carried(label)).map(|(name, _)| name.to_string()).collect()
    }

    /// The values of one label that any of `series` carries, sorted; `None`: any series at all.
    pub(crate) fn values(&self, name: &str, series: Option<&RoaringBitmap>) -> Vec<String> {
        let Some(label) = self.by_name.get(name) else { return Vec::new() };
        let carried = |posting: &RoaringBitmap| series.is_none_or(|s| !s.is_disjoint(posting));
        label.by_value.iter().filter(|(_, p)| carried(p)).map(|(value, _)| value.to_string()).collect()
    }

    /// How many series carry this label.
    pub(crate) fn carrying(&self, name: &str, value: &str) -> u64 {
        let posting = self.by_name.get(name).and_then(|label| label.by_value.get(value));
        posting.map_or(0, RoaringBitmap::len)
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> u64 {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use proptest::prelude::*;

    fn labels(pod: &str, code: &str) -> Labels {
        Labels::new([("__name__", "m"), ("pod", pod), ("code", code)]).expect("valid")
    }

    fn any_matcher() -> impl Strategy<Value = Matcher> {
        let op = prop_oneof![
            Just(MatchOp::Equal),
            Just(MatchOp::NotEqual),
            Just(MatchOp::Regex),
            Just(MatchOp::NotRegex)
        ];
        let name = prop_oneof![Just("pod"), Just("code"), Just("other")];
        let value = prop_oneof![Just(""), Just("a"), Just("b"), Just("a|b"), Just(".+"), Just(".*")];
        (name, op, value).prop_map(|(n, o, v)| Matcher::new(n, o, v).expect("compiles"))
    }

    proptest! {
        #[test]
        fn a_selection_is_what_the_matchers_say_series_by_series(
            sets in proptest::collection::vec(("[abc]?", "[ab]?"), 0..30),
            removed in proptest::collection::vec(any::<bool>(), 30),
            matchers in proptest::collection::vec(any_matcher(), 0..4),
        ) {
            let mut postings = Postings::default();
            let mut expected = RoaringBitmap::new();
            for (id, (pod, code)) in (60_000u32..).step_by(2_000).zip(&sets) {
                postings.add(id, labels(pod, code).iter());
                if matchers.iter().all(|m| m.matches(&labels(pod, code))) {
                    expected.insert(id);
                }
            }
            for ((id, (pod, code)), removed) in (60_000u32..).step_by(2_000).zip(&sets).zip(&removed) {
                if *removed {
                    postings.remove(id, labels(pod, code).iter());
                    expected.remove(id);
                }
            }
            prop_assert_eq!(postings.select(&matchers), expected.clone());

            let known = postings.all.clone();
            let mut reloaded = Postings::default();
            for key in postings.take_changed().in_order() {
                reloaded.load(&key, &postings.changed_piece(&key), &known);
            }
            prop_assert_eq!(reloaded.select(&matchers), expected);
            prop_assert_eq!(reloaded.names(None), postings.names(None));
        }
    }
}
