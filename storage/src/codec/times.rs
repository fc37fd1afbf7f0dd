//! A column of timestamps.
//!
//! Samples come at a fixed interval, or nearly: what is scraped keeps its phase, jitters by some
//! milliseconds, and misses a beat now and then. So a column is a grid (start, step), the beats that it
//! leaves out, and the distances from the grid where there are any.

use super::quantile::{self, LEVEL_THOROUGH};
use super::{Effort, packed, unzigzag, zigzag};
use crate::bytes::{Reader, put_varint};

/// How a column of timestamps is written: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeCodec {
    /// Eight bytes each, little-endian.
    Raw = 0,
    /// Quantile compression.
    Pco = 1,
    /// All of them on a grid.
    Grid = 2,
    /// A grid, and distances from it in frame of reference.
    GridPacked = 3,
    /// A grid, and distances from it by quantile compression.
    GridPco = 4,
}

const ALL: [TimeCodec; 5] =
    [TimeCodec::Raw, TimeCodec::Pco, TimeCodec::Grid, TimeCodec::GridPacked, TimeCodec::GridPco];

/// What FORMAT.md calls the codec of a column's first byte.
pub(crate) fn time_codec_name(byte: u8) -> Option<&'static str> {
    ALL.into_iter().find(|known| *known as u8 == byte).map(|codec| match codec {
        TimeCodec::Raw => "raw",
        TimeCodec::Pco => "pco",
        TimeCodec::Grid => "grid",
        TimeCodec::GridPacked => "grid, packed",
        TimeCodec::GridPco => "grid, pco",
    })
}

/// Appends timestamps, the codec's byte first. They are in rising order, or they take more bytes.
pub(crate) fn encode_times(times: &[i64], effort: Effort, bytes: &mut Vec<u8>) {
    let (codec, column) = smallest(times, effort);
    bytes.push(codec as u8);
    bytes.extend_from_slice(&column);
}

fn smallest(times: &[i64], effort: Effort) -> (TimeCodec, Vec<u8>) {
    let mut best: Option<(TimeCodec, Vec<u8>)> = None;
    let mut offer = |codec, column: Vec<u8>| {
        if best.as_ref().is_none_or(|(_, best)| column.len() < best.len()) {
            best = Some((codec, column));
        }
    };
    if let Some((grid, distances)) = Grid::find(times) {
        let mut header = Vec::new();
        grid.put(&mut header);
        if distances.iter().all(|distance| *distance == 0) {
            return (TimeCodec::Grid, header);
        }
        let mut column = header.clone();
        packed::encode(&distances, &mut column);
        offer(TimeCodec::GridPacked, column);
        if effort == Effort::Thorough
            && let Some(distances) = quantile::encode(&distances, LEVEL_THOROUGH)
        {
            offer(TimeCodec::GridPco, [header, distances].concat());
        }
    }
    if effort != Effort::Least
        && best.as_ref().is_none_or(|(_, best)| best.len() > times.len() * 2)
        && let Some(column) = quantile::encode(times, LEVEL_THOROUGH)
        && best.as_ref().is_none_or(|(_, best)| column.len() < best.len())
    {
        best = Some((TimeCodec::Pco, column));
    }
    match best {
        Some((codec, column)) if column.len() < times.len() * 8 => (codec, column),
        _ => (TimeCodec::Raw, times.iter().flat_map(|time| time.to_le_bytes()).collect()),
    }
}

/// Takes [`encode_times`] back: `count` timestamps, which are all that the bytes hold.
pub(crate) fn decode_times(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let (codec, column) = bytes.split_first()?;
    let mut reader = Reader::new(column);
    match ALL.into_iter().find(|known| *known as u8 == *codec)? {
        TimeCodec::Raw => {
            let (words, rest) = column.as_chunks::<8>();
            let whole = rest.is_empty() && words.len() == count;
            whole.then(|| words.iter().map(|word| i64::from_le_bytes(*word)).collect())
        }
        TimeCodec::Pco => quantile::decode(column, count),
        TimeCodec::Grid => {
            let times = Grid::read(&mut reader, count)?.times(count);
            reader.rest().is_empty().then_some(times)
        }
        TimeCodec::GridPacked => {
            let grid = Grid::read(&mut reader, count)?;
            let distances = packed::decode(&mut reader, count)?;
            reader.rest().is_empty().then(|| grid.times_at(distances))
        }
        TimeCodec::GridPco => {
            let grid = Grid::read(&mut reader, count)?;
            Some(grid.times_at(quantile::decode::<u64>(reader.rest(), count)?))
        }
    }
}

/// Beats at a fixed step, some of them left out.
#[derive(Debug, PartialEq, Eq)]
struct Grid {
    start: i64,
    step: i64,
    /// Before which samples beats are left out, and how many.
    gaps: Vec<(usize, u64)>,
}

impl Grid {
    /// The grid that these times lie near, and how far above its beat each is.
    fn find(times: &[i64]) -> Option<(Self, Vec<u64>)> {
        let (first, last) = (*times.first()?, *times.last()?);
        let mut steps = Vec::with_capacity(times.len());
        for pair in times.windows(2) {
            steps.push(pair[1].checked_sub(pair[0]).filter(|step| *step > 0)?);
        }
        let usual = median(&steps)?;
        let mut gaps = Vec::new();
        let mut beats = 0i64;
        for (at, step) in steps.iter().enumerate() {
            // Exactly the usual step is by far the most frequent, and divisions take long.
            let passed =
                if *step < usual.checked_mul(3)? / 2 { 1 } else { step.checked_add(usual / 2)? / usual };
            if passed > 1 {
                gaps.push((at + 1, (passed - 1) as u64));
            }
            beats = beats.checked_add(passed)?;
        }
        if gaps.len() > times.len() / 8 + 1 {
            return None;
        }
        let span = last.checked_sub(first)?;
        let step = if beats == 0 { 1 } else { span.checked_add(beats / 2)? / beats };
        let mut grid = Self { start: first, step: step.max(1), gaps };
        let on_grid = grid.times(times.len());
        let mut lowest = 0;
        for (time, beat) in times.iter().zip(&on_grid) {
            lowest = lowest.min(time.checked_sub(*beat)?);
        }
        grid.start = grid.start.checked_add(lowest)?;
        let distances =
            times.iter().zip(&on_grid).map(|(time, beat)| (time - beat).wrapping_sub(lowest) as u64);
        let distances = distances.collect();
        Some((grid, distances))
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        put_varint(bytes, zigzag(self.start));
        put_varint(bytes, zigzag(self.step));
        put_varint(bytes, self.gaps.len() as u64);
        let mut next = 0;
        for (at, left_out) in &self.gaps {
            put_varint(bytes, (at - next) as u64);
            put_varint(bytes, *left_out);
            next = *at;
        }
    }

    fn read(reader: &mut Reader<'_>, count: usize) -> Option<Self> {
        let start = unzigzag(reader.varint()?);
        let step = unzigzag(reader.varint()?);
        let gaps_count = usize::try_from(reader.varint()?).ok().filter(|n| *n <= count)?;
        let mut gaps = Vec::with_capacity(gaps_count);
        let mut at = 0usize;
        for _ in 0..gaps_count {
            at = at.checked_add(usize::try_from(reader.varint()?).ok()?)?;
            gaps.push((at, reader.varint()?));
        }
        Some(Self { start, step, gaps })
    }

    /// The first `count` beats that are not left out; wrapping.
    fn times(&self, count: usize) -> Vec<i64> {
        let mut times = Vec::with_capacity(count);
        let mut gaps = self.gaps.iter().peekable();
        let mut time = self.start;
        while times.len() < count {
            let upto = match gaps.next_if(|(at, _)| *at <= times.len()) {
                Some((_, left_out)) => {
                    time = time.wrapping_add(self.step.wrapping_mul(*left_out as i64));
                    continue;
                }
                None => gaps.peek().map_or(count, |(at, _)| (*at).min(count)),
            };
            while times.len() < upto {
                times.push(time);
                time = time.wrapping_add(self.step);
            }
        }
        times
    }

    /// What lies so far above the first beats that are not left out; wrapping.
    fn times_at(&self, distances: Vec<u64>) -> Vec<i64> {
        if self.gaps.is_empty() {
            let mut beat = self.start;
            let time = |distance: u64| {
                let time = beat.wrapping_add(distance as i64);
                beat = beat.wrapping_add(self.step);
                time
            };
            // In place, as numbers of one size are.
            return distances.into_iter().map(time).collect();
        }
        let mut times = self.times(distances.len());
        times
            .iter_mut()
            .zip(distances)
            .for_each(|(time, distance)| *time = time.wrapping_add(distance as i64));
        times
    }
}

/// The middle one of some of the steps; 1 if there are none.
fn median(steps: &[i64]) -> Option<i64> {
    // A few dozen from all over say as much as thousands.
    let every = steps.len() / 64 + 1;
    let mut some: Vec<i64> = steps.iter().copied().step_by(every).collect();
    if some.is_empty() {
        return Some(1);
    }
    let middle = some.len() / 2;
    some.select_nth_unstable(middle);
    some.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(times: &[i64], effort: Effort) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_times(times, effort, &mut bytes);
        assert_eq!(decode_times(&bytes, times.len()).expect("decodes"), times);
        bytes
    }

    const START: i64 = 1_794_700_800_123;

    #[test]
    fn a_grid_takes_a_dozen_bytes_and_each_gap_a_few_more() {
        let grid: Vec<i64> = (0..5_760).map(|i| START + i * 15_000).collect();
        let bytes = bytes_of(&grid, Effort::Quick);
        assert!(bytes[0] == TimeCodec::Grid as u8 && bytes.len() < 16, "{bytes:?}");
        let mut gaps = grid;
        gaps.drain(1_000..1_240);
        gaps.remove(77);
        let with_gaps = bytes_of(&gaps, Effort::Quick);
        assert!(with_gaps[0] == TimeCodec::Grid as u8 && with_gaps.len() < 24, "{with_gaps:?}");
    }

    #[test]
    fn jitter_takes_little_more_than_its_entropy() {
        let jitter = |i: i64| (i.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 33).rem_euclid(21);
        let mut times: Vec<i64> = (0..5_760).map(|i| START + i * 15_000 + jitter(i)).collect();
        // log2(21) is 4.39 bits.
        let thorough = bytes_of(&times, Effort::Thorough).len() as f64 * 8.0 / 5_760.0;
        assert!(thorough < 4.6, "{thorough} bits a timestamp");
        times.drain(100..110);
        let quick = bytes_of(&times, Effort::Quick).len() as f64 * 8.0 / 5_750.0;
        assert!(quick < 5.4, "{quick} bits a timestamp");
    }

    proptest! {
        #[test]
        fn any_times_come_back(mut times in proptest::collection::vec(any::<i64>(), 1..200), near in any::<bool>()) {
            if near {
                times.iter_mut().for_each(|time| *time = START + (*time >> 45));
            }
            times.sort_unstable();
            bytes_of(&times, Effort::Least);
            bytes_of(&times, Effort::Quick);
            bytes_of(&times, Effort::Thorough);
        }

        #[test]
        fn broken_grids_come_back(steps in proptest::collection::vec((0i64..40, 0i64..30), 1..300)) {
            let mut at = START;
            let times: Vec<i64> = steps.iter().map(|(gap, jitter)| {
                at += 15_000 * if *gap > 36 { gap - 30 } else { 1 };
                at + jitter
            }).collect();
            bytes_of(&times, Effort::Least);
            bytes_of(&times, Effort::Quick);
            bytes_of(&times, Effort::Thorough);
        }

        #[test]
        fn every_codec_takes_any_bytes(codec in 0u8..7, body in proptest::collection::vec(any::<u8>(), 0..200), count in 0usize..500) {
            let bytes = [&[codec], body.as_slice()].concat();
            if let Some(times) = decode_times(&bytes, count) {
                prop_assert_eq!(times.len(), count);
            }
        }
    }
}
