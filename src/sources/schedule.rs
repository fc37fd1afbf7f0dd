//! When something that is asked again and again is asked next: each at a time of its own within the interval.

use std::hash::{DefaultHasher, Hash, Hasher};

/// When within its interval something is asked: always the same, and different for each.
pub(in crate::sources) fn offset_ms(of: &impl Hash, interval_ms: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() % interval_ms.max(1)
}

/// How long it is to the next time, at least a millisecond. `interval_ms` is more than 0.
pub(in crate::sources) fn until_next_ms(now_ms: i64, interval_ms: u64, offset_ms: u64) -> u64 {
    let within = now_ms.rem_euclid(i64::try_from(interval_ms).unwrap_or(i64::MAX)).unsigned_abs();
    let wait = (interval_ms - within).saturating_add(offset_ms) % interval_ms;
    if wait == 0 { interval_ms } else { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_time_in_the_interval() {
        assert_eq!(until_next_ms(1_000, 100, 30), 30);
        assert_eq!(until_next_ms(1_030, 100, 30), 100);
        assert_eq!(until_next_ms(1_031, 100, 30), 99);
        assert_eq!(until_next_ms(-1, 100, 0), 1);
        for now_ms in [0, 1, 99, 123_456, -77] {
            let at_ms = now_ms + i64::try_from(until_next_ms(now_ms, 100, 7)).expect("small");
            assert_eq!(at_ms.rem_euclid(100), 7);
        }
        let offsets: std::collections::BTreeSet<u64> =
            (0..100).map(|node| offset_ms(&format!("node-{node}"), 15_000)).collect();
        assert!(offsets.len() > 90, "{offsets:?}");
    }
}
