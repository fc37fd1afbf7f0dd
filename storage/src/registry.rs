//! All series that the store knows, by label set and by number.

use crate::labels::Labels;
use crate::series::Series;
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
    by_labels: HashTable<Arc<Series>>,
    hasher: DefaultHashBuilder,
    /// By number: numbers are given out one after the other, and again once they are unused.
    by_id: Vec<Option<Arc<Series>>>,
    /// Numbers of discarded series, to be given out again.
    unused_ids: Vec<u32>,
}

impl Registry {
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
        let series = Arc::new(Series::new(id, Arc::new(labels.clone()), false));
        maps.insert(&series);
        series
    }

    /// Registers a stored series under the number it has.
    pub(crate) fn restore(&self, id: u32, labels: Labels) -> Arc<Series> {
        let series = Arc::new(Series::new(id, Arc::new(labels), true));
        self.reserve(id.saturating_add(1));
        self.maps.write().insert(&series);
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
        let hash = maps.hasher.hash_one(&*series.labels);
        if let Ok(known) = maps.by_labels.find_entry(hash, |known| known.id == series.id) {
            known.remove();
        }
    }
}

impl Maps {
    fn find(&self, labels: &Labels) -> Option<&Arc<Series>> {
        self.by_labels.find(self.hasher.hash_one(labels), |known| *known.labels == *labels)
    }

    fn get(&self, id: u32) -> Option<&Arc<Series>> {
        self.by_id.get(id as usize)?.as_ref()
    }

    fn insert(&mut self, series: &Arc<Series>) {
        let place = series.id as usize;
        if place >= self.by_id.len() {
            self.by_id.resize(place + 1, None);
        }
        self.by_id[place] = Some(Arc::clone(series));
        let Self { by_labels, hasher, .. } = self;
        let hash = |series: &Arc<Series>| hasher.hash_one(&*series.labels);
        let own = hash(series);
        match by_labels.entry(own, |known| known.labels == series.labels, hash) {
            // Of two with these labels the later is the one that lives: the other had been forgotten.
            Entry::Occupied(mut known) if known.get().id < series.id => *known.get_mut() = Arc::clone(series),
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(Arc::clone(series));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_series_that_comes_back_does_not_stand_in_for_its_successor() {
        let labels = Labels::new([("__name__", "m")]).expect("valid");
        for order in [[1, 2], [2, 1]] {
            let registry = Registry::default();
            let restored = order.map(|id| registry.restore(id, labels.clone()));
            assert_eq!(registry.get_or_create(&labels).id, 2);
            let old = restored.iter().find(|series| series.id == 1).expect("restored");
            registry.remove(old);
            assert!(registry.get(1).is_none());
            assert_eq!(registry.get_or_create(&labels).id, 2, "restored as {order:?}");
        }
    }
}
