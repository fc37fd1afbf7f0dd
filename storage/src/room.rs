//! Room: how much the store takes, how much it may, and when there will be none.

use crate::error::Result;
use crate::files;
use crate::inner::{Inner, MaintenanceState};
use std::collections::{BTreeMap, VecDeque};

/// How much room a store may take: all of its directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SizeMax {
    /// So many bytes.
    Bytes(u64),
    /// This part of the volume, in percent of its size.
    VolumePercent(f64),
}

impl SizeMax {
    fn bytes(self, volume_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::VolumePercent(percent) => (volume_bytes as f64 * percent / 100.0) as u64,
        }
    }
}

/// Growth is measured over the last 25 hours, so that a day's expiry is in it,
const GROWTH_SPAN_MS: i64 = 25 * 3_600_000;
/// from a measurement every five minutes,
const GROWTH_STEP_MS: i64 = 300_000;
/// and told once it has been seen for ten.
const GROWTH_SPAN_MIN_MS: i64 = 600_000;

/// What room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that the store takes.
    pub(crate) used_bytes: u64,
    /// Bytes that it may take, if that is limited.
    pub(crate) limit_bytes: Option<u64>,
    /// Bytes that it may come to take before there is another look at it.
    pub(crate) headroom_bytes: u64,
    /// In how long there is no room left, if the store goes on growing as it does.
    pub(crate) full_in_ms: Option<i64>,
}

impl Room {
    /// Whether the limit is about to be crossed.
    pub(crate) fn is_short(&self) -> bool {
        let next = self.used_bytes.saturating_add(self.headroom_bytes);
        self.limit_bytes.is_some_and(|limit_bytes| next > limit_bytes)
    }
}

/// How the store grew.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Times and bytes, a step apart.
    seen: VecDeque<(i64, u64)>,
    /// What was found last.
    last_bytes: Option<u64>,
}

impl Growth {
    /// Notes how much the store takes. Answers how much it grew since the last look.
    fn note(&mut self, now_ms: i64, used_bytes: u64) -> u64 {
        if self.seen.back().is_none_or(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= GROWTH_STEP_MS) {
            self.seen.push_back((now_ms, used_bytes));
        }
        while self.seen.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) > GROWTH_SPAN_MS) {
            self.seen.pop_front();
        }
        let last_bytes = self.last_bytes.replace(used_bytes).unwrap_or(used_bytes);
        used_bytes.saturating_sub(last_bytes)
    }

    /// In how long `left_bytes` are used up; `None`: it does not grow, or that is not known yet.
    fn full_in_ms(&self, now_ms: i64, used_bytes: u64, left_bytes: u64) -> Option<i64> {
        let (first_ms, first_bytes) = self.seen.front()?;
        let span_ms = now_ms.saturating_sub(*first_ms);
        let grown_bytes = used_bytes.checked_sub(*first_bytes).filter(|bytes| *bytes > 0)?;
        let full_in_ms = left_bytes as f64 / grown_bytes as f64 * span_ms as f64;
        (span_ms >= GROWTH_SPAN_MIN_MS).then_some(full_in_ms as i64)
    }
}

impl Inner {
    /// Looks how much room there is.
    pub(crate) fn measure_room(&self, maintenance: &mut MaintenanceState, now_ms: i64) -> Result<Room> {
        let volume = files::volume(&self.state.dir)?;
        let used_bytes = files::bytes_below(&self.state.dir);
        let grown_bytes = maintenance.growth.note(now_ms, used_bytes);
        let limit_bytes = self.state.options.size_max.map(|size_max| size_max.bytes(volume.bytes));
        let free_bytes = volume.free_bytes.saturating_sub(self.state.options.free_bytes_min);
        let left_bytes = limit_bytes.map_or(free_bytes, |l| free_bytes.min(l.saturating_sub(used_bytes)));
        let room = Room {
            used_bytes,
            limit_bytes,
            // As much as the last interval brought, twice, and what a seal or a merge writes before it removes.
            headroom_bytes: (limit_bytes.unwrap_or_default() / 50)
                .max(grown_bytes.saturating_mul(2))
                .max(self.largest_rewrite_bytes()),
            full_in_ms: maintenance.growth.full_in_ms(now_ms, used_bytes, left_bytes),
        };
        *self.state.room.lock() = room;
        Ok(room)
    }

    /// The most that a merge may write before it removes what it replaces.
    fn largest_rewrite_bytes(&self) -> u64 {
        let mut partitions: BTreeMap<(String, i64), (usize, u64)> = BTreeMap::new();
        for block in self.state.blocks().iter() {
            let key = (block.record().class.clone(), block.record().partition_start_ms);
            let (blocks, bytes) = partitions.entry(key).or_default();
            *blocks += 1;
            *bytes += block.file_bytes();
        }
        let rewritten = partitions.values().filter(|(blocks, _)| *blocks > 1).map(|(_, bytes)| *bytes);
        rewritten.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn what_grows_is_full_one_day_and_what_does_not_never() {
        let mut growth = Growth::default();
        for hour in 0..48 {
            assert_eq!(growth.note(hour * HOUR_MS, hour as u64 * 1_000), if hour == 0 { 0 } else { 1_000 });
        }
        assert_eq!(growth.full_in_ms(47 * HOUR_MS, 47_000, 5_000), Some(5 * HOUR_MS));
        assert_eq!(growth.full_in_ms(47 * HOUR_MS, 47_000, 0), Some(0));
        assert_eq!(growth.full_in_ms(47 * HOUR_MS, 22_000, 5_000), None, "as large as a day before");
        let mut young = Growth::default();
        young.note(0, 0);
        assert_eq!(young.full_in_ms(GROWTH_SPAN_MIN_MS - 1, 500, 5_000), None, "seen too shortly");
        assert!(growth.seen.len() <= 27, "{} measurements are kept", growth.seen.len());
    }

    #[test]
    fn a_limit_is_of_bytes_or_of_the_volume() {
        assert_eq!(SizeMax::Bytes(7).bytes(100), 7);
        assert_eq!(SizeMax::VolumePercent(80.0).bytes(1_000), 800);
        let room = |used_bytes, headroom_bytes| Room {
            used_bytes,
            headroom_bytes,
            limit_bytes: Some(100),
            full_in_ms: None,
        };
        assert!(!room(90, 10).is_short() && room(90, 11).is_short() && room(101, 0).is_short());
        assert!(!Room { limit_bytes: None, ..room(u64::MAX, 1) }.is_short());
    }
}
