//! All series that the store knows, by label set and by number.

use crate::labels::Labels;
use crate::series::Series;
use crate::stored_labels::{LabelPool, StoredLabels};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Finds and makes series. Reads wait only for the insertion of a new series into the maps.
#[derive(Default)]
pub(crate) struct Registry {
    maps: RwLock<Maps>,
    next_id: AtomicU32,
}

#[derive(Default)]
struct Maps {
    /// By label set. Its own hasher, since std's takes several times as long for what senders repeat with
    /// each sample; it is seeded anew in each process.
    by_labels: HashTable<Place>,
    hasher: DefaultHashBuilder,
    labels: LabelPool,
    /// By number: numbers are given out one after the other, and again once they are unused.
    by_id: Vec<Option<Arc<Series>>>,
    /// Numbers of discarded series, to be given out again.
    unused_ids: Vec<u32>,
}

/// Where a series is found by its labels. With its hash, so that a table that grows need not look at series.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    id: u32,
}

impl Place {
    /// The hash as the table needs it: it looks at the lowest and at the highest bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// So many series of a batch are looked up before others may insert theirs.
const LOOKED_UP_AT_ONCE: usize = 256;

impl Registry {
    /// The series of these label sets; made if need be, not yet durable.
    pub(crate) fn get_or_create_all(&self, sets: &[Labels]) -> Vec<Arc<Series>> {
        let mut all = Vec::with_capacity(sets.len());
        for sets in sets.chunks(LOOKED_UP_AT_ONCE) {
            let before = all.len();
            let maps = self.maps.read();
            all.extend(sets.iter().map_while(|labels| maps.find(labels).cloned()));
            drop(maps);
            // From the first on that there was not.
            let known = all.len() - before;
            all.extend(sets.iter().skip(known).map(|labels| self.get_or_create(labels)));
        }
        all
    }

    /// The series of this label set; made if need be, not yet durable.
    pub(crate) fn get_or_create(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.maps.read().find(labels) {
            return Arc::clone(series);
        }
        let mut maps = self.maps.write();
        if let Some(series) = maps.find(labels) {
            return Arc::clone(series);
        }
        let id = maps.unused_ids.pop().unwrap_or_else(|| self.next_id.fetch_add(1, Ordering::Relaxed));
        assert!(id < u32::MAX, "series numbers are used up");
        let series = Arc::new(Series::new(id, maps.labels.store(labels), false));
        maps.insert(&series, labels);
        series
    }

    /// Takes over the labels of stored series, before there is any.
    pub(crate) fn adopt(&self, labels: LabelPool) {
        self.maps.write().labels = labels;
    }

    /// Registers a stored series, of labels that were [taken over](Self::adopt), under the number it has.
    pub(crate) fn restore_stored(&self, id: u32, stored: StoredLabels) {
        self.reserve(id.saturating_add(1));
        let labels = stored.to_labels();
        self.maps.write().insert(&Arc::new(Series::new(id, stored, true)), &labels);
    }

    /// Registers a stored series under the number it has.
    pub(crate) fn restore(&self, id: u32, labels: &Labels) -> Arc<Series> {
        self.reserve(id.saturating_add(1));
        let mut maps = self.maps.write();
        let series = Arc::new(Series::new(id, maps.labels.store(labels), true));
        maps.insert(&series, labels);
        series
    }

    /// No new series gets a number below `next_id`.
    pub(crate) fn reserve(&self, next_id: u32) {
        self.next_id.fetch_max(next_id, Ordering::Relaxed);
    }

    /// The number that the next new series gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// The series of this number.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Series>> {
        self.maps.read().get(id).cloned()
    }

    /// The series of these numbers that are known.
    pub(crate) fn get_all(&self, ids: impl Iterator<Item = u32>) -> Vec<Arc<Series>> {
        let maps = self.maps.read();
        ids.filter_map(|id| maps.get(id).cloned()).collect()
    }

    /// All series.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        self.maps.read().by_id.iter().flatten().cloned().collect()
    }

    /// Forgets a series that was never durable, and its number with it.
    pub(crate) fn discard(&self, series: &Series) {
        self.remove(series);
        self.maps.write().unused_ids.push(series.id);
    }

    /// Forgets a series; a writer that still holds it sees that it is removed.
    pub(crate) fn remove(&self, series: &Series) {
        let mut maps = self.maps.write();
        series.set_removed();
        if let Some(place) = maps.by_id.get_mut(series.id as usize) {
            *place = None;
        }
        // A series that came back from the index does not take its successor with it.
        let hash = maps.hash(&series.labels.to_labels());
        if let Ok(known) = maps.by_labels.find_entry(Place::spread(hash), |known| known.id == series.id) {
            known.remove();
        }
        maps.labels.note_let_go();
    }
}

impl Maps {
    /// Half of the hash is enough to tell series apart before their labels are looked at.
    fn hash(&self, labels: &Labels) -> u32 {
        self.hasher.hash_one(labels) as u32
    }

    fn find(&self, labels: &Labels) -> Option<&Arc<Series>> {
        let hash = self.hash(labels);
        let is_it = |known: &Place| {
            known.hash == hash && self.get(known.id).is_some_and(|series| series.labels.are(labels))
        };
        self.get(self.by_labels.find(Place::spread(hash), is_it)?.id)
    }

    fn get(&self, id: u32) -> Option<&Arc<Series>> {
        self.by_id.get(id as usize)?.as_ref()
    }

    fn insert(&mut self, series: &Arc<Series>, labels: &Labels) {
        let place = series.id as usize;
        if place >= self.by_id.len() {
            self.by_id.resize(place + 1, None);
        }
        self.by_id[place] = Some(Arc::clone(series));
        let own = Place { hash: self.hash(labels), id: series.id };
        let Self { by_labels, by_id, .. } = self;
        let is_it = |known: &Place| {
            let series = by_id.get(known.id as usize).and_then(Option::as_ref);
            known.hash == own.hash && series.is_some_and(|series| series.labels.are(labels))
        };
        match by_labels.entry(Place::spread(own.hash), is_it, |known| Place::spread(known.hash)) {
            // Of two with these labels the later is the one that lives: the other had been forgotten.
            Entry::Occupied(mut known) if known.get().id < own.id => *known.get_mut() = own,
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gets_its_series_in_its_order() {
        let set = |pod: usize| Labels::new([("__name__", "m"), ("pod", &pod.to_string())]).expect("valid");
        let registry = Registry::default();
        for pod in (0..700).filter(|pod| pod % 3 == 0 || *pod < LOOKED_UP_AT_ONCE) {
            registry.get_or_create(&set(pod));
        }
        // Known ones only, then known and new ones, one of them twice.
        let sets: Vec<Labels> = (0..700).chain([5, 599, 699]).map(set).collect();
        let all = registry.get_or_create_all(&sets);
        assert_eq!(all.len(), sets.len());
        for (series, labels) in all.iter().zip(&sets) {
            assert!(series.labels.are(labels) && series.id == registry.get_or_create(labels).id);
        }
        assert_eq!(registry.all().len(), 700);
    }

    #[test]
    fn a_forgotten_series_that_comes_back_does_not_stand_in_for_its_successor() {
        let labels = Labels::new([("__name__", "m")]).expect("valid");
        for order in [[1, 2], [2, 1]] {
            let registry = Registry::default();
            let restored = order.map(|id| registry.restore(id, &labels));
            assert_eq!(registry.get_or_create(&labels).id, 2);
            let old = restored.iter().find(|series| series.id == 1).expect("restored");
            registry.remove(old);
            assert!(registry.get(1).is_none());
            assert_eq!(registry.get_or_create(&labels).id, 2, "restored as {order:?}");
        }
    }
}
