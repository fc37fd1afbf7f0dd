//! The instants of a grid as the matrices of Prometheus' HTTP API have them.

use super::decimal::{self, Fraction};
use std::fmt::{Result, Write};

/// What stands between the values of two points, `"],[TIME,"`, for each point of a grid: it is the same in every
/// series of an answer, so it is written once. invariant: grows with the points of one series alone.
pub(super) struct Stamps {
    start_ms: i64,
    step_ms: i64,
    /// How many points the grid has.
    points: u64,
    fraction: Fraction,
    text: String,
    /// Where the text of each point ends.
    ends: Vec<usize>,
    /// The point that comes next where none is left out, and its time.
    next: usize,
    next_ms: i64,
}

/// What closes the point before; the first of a series has none.
const CLOSE: &str = "\"],";

impl Stamps {
    /// Of a grid of so many points; `fraction` says how those of a second are written.
    pub(super) fn new(start_ms: i64, step_ms: i64, points: u64, fraction: Fraction) -> Self {
        let (text, ends) = Default::default();
        Self { start_ms, step_ms, points, fraction, text, ends, next: 0, next_ms: start_ms }
    }

    /// Writes what stands before the value at a time, which may lie beside the grid.
    pub(super) fn write(&mut self, time_ms: i64, is_first: bool, json: &mut impl Write) -> Result {
        if time_ms != self.next_ms || self.points == 0 {
            match self.place_of(time_ms) {
                Some(place) => self.next = place,
                None => {
                    let close = if is_first { "" } else { CLOSE };
                    return write_stamp(close, time_ms, self.fraction, json);
                }
            }
        }
        let at = self.next;
        (self.next, self.next_ms) = (at + 1, time_ms.saturating_add(self.step_ms));
        while self.ends.len() <= at {
            let steps = i64::try_from(self.ends.len()).unwrap_or(i64::MAX);
            let stamp_ms = self.start_ms.saturating_add(steps.saturating_mul(self.step_ms));
            write_stamp(CLOSE, stamp_ms, self.fraction, &mut self.text)?;
            self.ends.push(self.text.len());
        }
        let begin = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        let begin = if is_first { begin + CLOSE.len() } else { begin };
        let end = self.ends.get(at).copied().unwrap_or_default();
        json.write_str(self.text.get(begin..end).unwrap_or_default())
    }

    /// Which point of the grid lies at a time.
    fn place_of(&self, time_ms: i64) -> Option<usize> {
        let since_start = time_ms.checked_sub(self.start_ms)?;
        let is_on_grid = since_start.checked_rem(self.step_ms) == Some(0);
        let place = u64::try_from(since_start / self.step_ms.max(1)).ok().filter(|_| is_on_grid)?;
        usize::try_from(place).ok().filter(|_| place < self.points)
    }
}

fn write_stamp(close: &str, time_ms: i64, fraction: Fraction, text: &mut impl Write) -> Result {
    text.write_str(close)?;
    text.write_char('[')?;
    decimal::write_seconds(time_ms, text, fraction)?;
    text.write_str(",\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_series_has_the_times_that_are_written_one_by_one(
            start_ms in -3_000i64..3_000,
            step_ms in 1i64..2_000,
            points in 0u64..8,
            series in prop::collection::vec(prop::collection::btree_set(-5_000i64..20_000, 0..12), 0..4),
            on_grid in any::<bool>(),
        ) {
            let mut stamps = Stamps::new(start_ms, step_ms, points, Fraction::ThreeDigits);
            for times in series {
                let (mut written, mut expected) = (String::new(), String::new());
                for (place, time) in times.into_iter().enumerate() {
                    let time_ms = if on_grid { start_ms + time.rem_euclid(9) * step_ms } else { time };
                    stamps.write(time_ms, place == 0, &mut written).expect("written");
                    let close = if place == 0 { "" } else { CLOSE };
                    write_stamp(close, time_ms, Fraction::ThreeDigits, &mut expected).expect("written");
                }
                prop_assert_eq!(written, expected);
            }
        }
    }
}
