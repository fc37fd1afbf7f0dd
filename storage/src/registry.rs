//! All series that the store knows, by label set and by number.

use crate::labels::Labels;
use crate::series::Series;
use parking_lot::RwLock;
use std::collections::HashMap;
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
    by_labels: HashMap<Arc<Labels>, Arc<Series>>,
    by_id: HashMap<u32, Arc<Series>>,
    /// Numbers of discarded series, to be given out again.
    unused_ids: Vec<u32>,
}

impl Registry {
    /// The series of this label set; made if need be, not yet durable.
    pub(crate) fn get_or_create(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.maps.read().by_labels.get(labels) {
            return Arc::clone(series);
        }
        let mut maps = self.maps.write();
        if let Some(series) = maps.by_labels.get(labels) {
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
        self.maps.read().by_id.get(&id).cloned()
    }

    /// The series of these numbers that are known.
    pub(crate) fn get_all(&self, ids: impl Iterator<Item = u32>) -> Vec<Arc<Series>> {
        let maps = self.maps.read();
        ids.filter_map(|id| maps.by_id.get(&id).cloned()).collect()
    }

    /// All series.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        self.maps.read().by_id.values().cloned().collect()
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
        maps.by_id.remove(&series.id);
        // A series that came back from the index does not take its successor with it.
        if maps.by_labels.get(&series.labels).is_some_and(|known| known.id == series.id) {
            maps.by_labels.remove(&series.labels);
        }
    }
}

impl Maps {
    fn insert(&mut self, series: &Arc<Series>) {
        // Of two with these labels the later is the one that lives: the other had been forgotten.
        if self.by_labels.get(&series.labels).is_none_or(|known| known.id < series.id) {
            self.by_labels.insert(Arc::clone(&series.labels), Arc::clone(series));
        }
        self.by_id.insert(series.id, Arc::clone(series));
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
