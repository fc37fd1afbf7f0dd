//! Columns of rollups as they were decoded last, so that what is asked again is not decoded again.
//!
//! Files of rollups never change, and their numbers are not given out again: what is kept can't be stale.
//! invariant: all that is kept takes at most as many bytes as the cache was made for. Where there is no
//! room, columns picked at random go: the same round of questions again finds most of them all the same,
//! where the oldest or the least used would just have gone.

use super::chunk::{Column, Figures};
use super::window::Edges;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

/// Parts that are locked by themselves.
const SHARDS: usize = 16;

/// What an entry takes beside its figures, in bytes: itself twice, as its part grows, and its place in the index.
const ENTRY_BYTES: usize = 160;

/// A column of the values of a series in a file, or of its rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) file: u64,
    pub(super) series: u32,
    pub(super) column: Column,
    pub(super) of_rates: bool,
}

/// A column and, of rates, their edges; `None`: the file has none of the series.
pub(super) type Kept = Option<(Figures, Option<Edges>)>;

/// The columns that are kept.
#[derive(Debug)]
pub(crate) struct ColumnCache {
    shard_bytes_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, usize>,
    entries: Vec<(Key, Arc<Kept>)>,
    bytes: usize,
    /// Of the last pick.
    random: u64,
}

impl ColumnCache {
    /// Keeps nothing yet, and never more than so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { shard_bytes_max: bytes_max / SHARDS, shards: Default::default() }
    }

    /// What is kept under this key, or else what `read` gives, which is kept from then on. What fails is not.
    pub(super) fn get_or_read<E>(
        &self,
        key: Key,
        read: impl FnOnce() -> Result<Kept, E>,
    ) -> Result<Arc<Kept>, E> {
        // Neighbouring series lie in different parts.
        let shard = &self.shards[(key.series as usize ^ key.file as usize) % SHARDS];
        {
            let shard = shard.lock();
            if let Some((_, kept)) = shard.places.get(&key).and_then(|place| shard.entries.get(*place)) {
                return Ok(Arc::clone(kept));
            }
        }
        let kept = Arc::new(read()?);
        shard.lock().keep(key, &kept, self.shard_bytes_max);
        Ok(kept)
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

impl Shard {
    fn keep(&mut self, key: Key, kept: &Arc<Kept>, bytes_max: usize) {
        let bytes = bytes_of(kept);
        if bytes > bytes_max || self.places.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > bytes_max && !self.entries.is_empty() {
            self.remove_any();
        }
        self.places.insert(key, self.entries.len());
        self.entries.push((key, Arc::clone(kept)));
        self.bytes += bytes;
    }

    fn remove_any(&mut self) {
        // A linear congruential generator (Knuth's MMIX); its high bits are the better ones.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (self.random >> 33) as usize % self.entries.len();
        let (key, kept) = self.entries.swap_remove(place);
        self.places.remove(&key);
        self.bytes -= bytes_of(&kept);
        if let Some((moved, _)) = self.entries.get(place) {
            self.places.insert(*moved, place);
        }
    }
}

fn bytes_of(kept: &Kept) -> usize {
    ENTRY_BYTES + kept.as_ref().map_or(0, |(figures, _)| figures.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::window::Rolled;
    use crate::sample::Sample;
    use std::convert::Infallible;

    fn key(series: u32) -> Key {
        Key { file: 1, series, column: Column::Sum, of_rates: false }
    }

    fn column(series: u32) -> Kept {
        let samples: Vec<Sample> = (0..100).map(|i| Sample::new(i * 10, f64::from(series))).collect();
        let rolled = Rolled::of(&samples, 10, false).expect("rolled");
        Some((Figures::of(&rolled.values, 10, Column::Sum), None))
    }

    fn ask(cache: &ColumnCache, series: u32) -> bool {
        let mut found = true;
        let read = || {
            found = false;
            Ok::<_, Infallible>(column(series))
        };
        assert_eq!(*cache.get_or_read(key(series), read).expect("infallible"), column(series));
        found
    }

    #[test]
    fn what_is_kept_is_found_again_and_takes_no_more_than_it_may() {
        let bytes_max = 400_000;
        let cache = ColumnCache::new(bytes_max);
        assert!((0..100).all(|series| !ask(&cache, series)) && (0..100).all(|series| ask(&cache, series)));
        for series in 0..10_000 {
            ask(&cache, series);
            assert!(cache.bytes() <= bytes_max, "{} bytes after {series}", cache.bytes());
        }
        assert!(cache.bytes() > bytes_max / 2);
        // A round of somewhat more than there is room for.
        let fit = u32::try_from(bytes_max / bytes_of(&column(0))).expect("few");
        let round = || (0..fit * 5 / 4).filter(|series| ask(&cache, *series)).count();
        let rounds: Vec<usize> = (0..8).map(|_| round()).collect();
        assert!(rounds[7] > fit as usize / 2, "{rounds:?} of {fit}");
    }

    #[test]
    fn what_fails_or_is_too_large_is_not_kept() {
        let cache = ColumnCache::new(100_000);
        assert_eq!(cache.get_or_read(key(1), || Err("no")).map(|_| ()), Err("no"));
        assert!(!ask(&cache, 1) && ask(&cache, 1));
        let small = ColumnCache::new(0);
        assert!(!ask(&small, 1) && !ask(&small, 1));
    }
}
