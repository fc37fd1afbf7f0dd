//! The rollup of one series over one partition, as bytes. Specified in FORMAT.md.

use super::window::{Edges, Rates, Rolled, Window};
use crate::bytes::{Reader, put_varint};
use crate::codec::{Effort, decode_values, encode_values};
use crate::sample::Sample;

/// Most windows of a series in one partition: a day of minutes, and the one that the day begins in.
const WINDOWS_MAX: u64 = 100_000;

/// Which figure of each window of a rollup is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The sum of all values.
    Sum,
    /// The newest value.
    Last,
}

/// The order in which figures are written.
const COLUMNS: [Column; 4] = [Column::Min, Column::Max, Column::Sum, Column::Last];

/// One figure of each window, as it is read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Where the first window ends.
    first_ms: i64,
    window_ms: i64,
    /// How many windows each lies after the first; `None`: they lie one behind the other.
    places: Option<Vec<u32>>,
    values: Vec<f64>,
    counts: Counts,
}

/// How many samples each window holds.
#[derive(Debug, PartialEq)]
enum Counts {
    Same(u32),
    Each(Vec<u32>),
}

impl Default for Counts {
    fn default() -> Self {
        Self::Same(0)
    }
}

impl Counts {
    fn of(counts: Vec<u32>) -> Self {
        match counts.first() {
            Some(first) if counts.iter().all(|count| count == first) => Self::Same(*first),
            _ => Self::Each(counts),
        }
    }
}

impl Figures {
    /// One column of windows of this length.
    pub(super) fn of(windows: &[Window], window_ms: i64, column: Column) -> Self {
        let first_ms = windows.first().map_or(0, |window| window.end_ms);
        // A partition has far fewer windows than 2³².
        let place =
            |window: &Window| u32::try_from((window.end_ms - first_ms) / window_ms).unwrap_or(u32::MAX);
        Self {
            first_ms,
            window_ms,
            places: gaps(windows.iter().map(place).collect()),
            values: windows.iter().map(|window| figure(window, column)).collect(),
            counts: Counts::of(windows.iter().map(|window| window.count).collect()),
        }
    }

    /// How many windows there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many samples all of them hold.
    pub(super) fn counted(&self) -> u64 {
        match &self.counts {
            Counts::Same(count) => u64::from(*count) * self.values.len() as u64,
            Counts::Each(counts) => counts.iter().copied().map(u64::from).sum(),
        }
    }

    /// What they take in memory, in bytes, themselves aside.
    pub(super) fn bytes(&self) -> usize {
        let counts = if let Counts::Each(counts) = &self.counts { counts.capacity() } else { 0 };
        self.values.capacity() * 8 + (self.places.as_ref().map_or(0, Vec::capacity) + counts) * 4
    }

    /// Where each window ends, its figure, and how many samples it holds, in time order.
    #[inline]
    pub(super) fn each(&self, mut take: impl FnMut(i64, f64, u32)) {
        for (at, value) in self.values.iter().enumerate() {
            // As many places and counts as values: each is there.
            let place =
                self.places.as_ref().map_or(Some(at as i64), |places| places.get(at).map(|p| i64::from(*p)));
            let count = match &self.counts {
                Counts::Same(count) => Some(*count),
                Counts::Each(counts) => counts.get(at).copied(),
            };
            if let (Some(place), Some(count)) = (place, count) {
                take(self.first_ms + place * self.window_ms, *value, count);
            }
        }
    }
}

/// Places of windows, where they do not lie one behind the other.
fn gaps(places: Vec<u32>) -> Option<Vec<u32>> {
    let regular = places.iter().zip(0..).all(|(place, next)| *place == next);
    (!regular).then_some(places)
}

/// Writes the rollup of a series; `window_ms` is the file's.
pub(super) fn encode(rolled: &Rolled, window_ms: i64) -> Vec<u8> {
    let mut bytes = vec![u8::from(rolled.rates.is_some())];
    put_windows(&rolled.values, window_ms, &mut bytes);
    if let Some(Rates { windows, edges }) = &rolled.rates {
        for edge in [edges.first, edges.last] {
            bytes.extend_from_slice(&edge.timestamp_ms.to_le_bytes());
            bytes.extend_from_slice(&edge.value.to_le_bytes());
        }
        // A gap is longer than no time, so 0 says that there is none.
        put_varint(&mut bytes, edges.gap_min_ms.unwrap_or_default().unsigned_abs());
        put_windows(windows, window_ms, &mut bytes);
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads a whole rollup; `None`: the bytes are none.
pub(super) fn decode(bytes: &[u8], window_ms: i64) -> Option<Rolled> {
    let mut reader = Reader::new(checked(bytes)?);
    let counter = flag(&mut reader)?;
    let values = windows(&mut reader, window_ms)?;
    let rates = if counter {
        let edges = edges(&mut reader)?;
        Some(Rates { windows: windows(&mut reader, window_ms)?, edges })
    } else {
        None
    };
    reader.rest().is_empty().then_some(Rolled { values, rates })
}

/// Reads one column of the values, or of a counter's rates with its edges. The inner `None`: it has none.
pub(super) fn decode_figures(
    bytes: &[u8],
    window_ms: i64,
    column: Column,
    of_rates: bool,
) -> Option<Option<(Figures, Option<Edges>)>> {
    let mut reader = Reader::new(checked(bytes)?);
    let counter = flag(&mut reader)?;
    if !of_rates {
        return Some(Some((figures(&mut reader, window_ms, Some(column))?, None)));
    }
    if !counter {
        return Some(None);
    }
    figures(&mut reader, window_ms, None)?;
    let edges = edges(&mut reader)?;
    Some(Some((figures(&mut reader, window_ms, Some(column))?, Some(edges))))
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*checksum)).then_some(body)
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.array::<1>()? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

fn edges(reader: &mut Reader<'_>) -> Option<Edges> {
    let mut sample = || Some(Sample::new(reader.i64()?, f64::from_bits(reader.u64()?)));
    let (first, last) = (sample()?, sample()?);
    let gap_min_ms = i64::try_from(reader.varint()?).ok().filter(|gap_ms| *gap_ms > 0);
    Some(Edges { first, last, gap_min_ms })
}

fn put_windows(windows: &[Window], window_ms: i64, bytes: &mut Vec<u8>) {
    put_varint(bytes, windows.len() as u64);
    let Some(first) = windows.first() else { return };
    let place = |window: &Window| window.end_ms / window_ms;
    let first_place = place(first);
    bytes.extend_from_slice(&first_place.to_le_bytes());
    // From window to window: almost always the next.
    let steps: Vec<u64> = windows.windows(2).map(|pair| place(&pair[1]).abs_diff(place(&pair[0]))).collect();
    put_numbers(&steps, bytes);
    put_numbers(&windows.iter().map(|window| u64::from(window.count)).collect::<Vec<_>>(), bytes);
    for column in COLUMNS {
        let values: Vec<f64> = windows.iter().map(|window| figure(window, column)).collect();
        let mut encoded = Vec::new();
        encode_values(&values, Effort::Thorough, &mut encoded);
        put_varint(bytes, encoded.len() as u64);
        bytes.extend_from_slice(&encoded);
    }
}

fn figure(window: &Window, column: Column) -> f64 {
    match column {
        Column::Min => window.min,
        Column::Max => window.max,
        Column::Sum => window.sum,
        Column::Last => window.last,
    }
}

fn figure_mut(window: &mut Window, column: Column) -> &mut f64 {
    match column {
        Column::Min => &mut window.min,
        Column::Max => &mut window.max,
        Column::Sum => &mut window.sum,
        Column::Last => &mut window.last,
    }
}

/// Numbers that are mostly the same: 1 and the number, or 0 and each.
fn put_numbers(numbers: &[u64], bytes: &mut Vec<u8>) {
    match numbers.first() {
        Some(first) if numbers.iter().all(|number| number == first) => {
            bytes.push(1);
            put_varint(bytes, *first);
        }
        _ => {
            bytes.push(0);
            numbers.iter().for_each(|number| put_varint(bytes, *number));
        }
    }
}

fn numbers(reader: &mut Reader<'_>, count: usize) -> Option<Vec<u64>> {
    if flag(reader)? {
        return Some(vec![reader.varint()?; count]);
    }
    (0..count).map(|_| reader.varint()).collect()
}

/// Reads windows, of their figures one column or none.
fn figures(reader: &mut Reader<'_>, window_ms: i64, wanted: Option<Column>) -> Option<Figures> {
    let count = reader.varint().filter(|count| *count <= WINDOWS_MAX)?;
    let count = usize::try_from(count).ok()?;
    if count == 0 {
        return Some(Figures::default());
    }
    let first_place = reader.i64()?;
    let first_ms = first_place.checked_mul(window_ms)?;
    let mut places = Vec::with_capacity(count);
    places.push(0u32);
    let mut place = 0u32;
    for step in numbers(reader, count - 1)? {
        place = place.checked_add(u32::try_from(step).ok().filter(|step| *step > 0)?)?;
        places.push(place);
    }
    // The last is the furthest: where it is a time, all are.
    first_place.checked_add(i64::from(place))?.checked_mul(window_ms)?;
    let counts = numbers(reader, count)?;
    let counts = counts.into_iter().map(|count| u32::try_from(count).ok()).collect::<Option<_>>()?;
    let mut values = Vec::new();
    for column in COLUMNS {
        let length = usize::try_from(reader.varint()?).ok()?;
        let encoded = reader.take(length)?;
        if wanted == Some(column) {
            values = decode_values(encoded, count)?;
        }
    }
    Some(Figures { first_ms, window_ms, places: gaps(places), values, counts: Counts::of(counts) })
}

fn windows(reader: &mut Reader<'_>, window_ms: i64) -> Option<Vec<Window>> {
    let mut windows: Vec<Window> = Vec::new();
    let start = *reader;
    for column in COLUMNS {
        *reader = start;
        let figures = figures(reader, window_ms, Some(column))?;
        windows.reserve(figures.len());
        let mut at = 0;
        figures.each(|end_ms, value, count| {
            if at == windows.len() {
                windows.push(Window { end_ms, count, min: value, max: value, sum: value, last: value });
            }
            if let Some(window) = windows.get_mut(at) {
                *figure_mut(window, column) = value;
            }
            at += 1;
        });
    }
    Some(windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rolled(samples: &[(i64, f64)], counter: bool) -> Option<Rolled> {
        let samples: Vec<Sample> = samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect();
        Rolled::of(&samples, 10, counter)
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected() {
        let samples: Vec<(i64, f64)> = (0..60).map(|i| (i * 7 + i % 3, (i * i) as f64 * 0.1)).collect();
        let bytes = encode(&rolled(&samples, true).expect("rolled"), 10);
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at], 10), None, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(decode(&flipped, 10), None, "bit {bit} of byte {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_whole_and_by_column(
            mut times in proptest::collection::vec(-500i64..500, 1..80),
            values in proptest::collection::vec(proptest::num::f64::NORMAL, 80),
            counter in any::<bool>(),
        ) {
            times.sort_unstable();
            times.dedup();
            let samples: Vec<(i64, f64)> = times.into_iter().zip(values).map(|(t, v)| (t, v / 1e10)).collect();
            let Some(rolled) = rolled(&samples, counter) else { return Ok(()) };
            let bytes = encode(&rolled, 10);
            prop_assert_eq!(decode(&bytes, 10), Some(rolled.clone()));
            for column in COLUMNS {
                let (figures, _) = decode_figures(&bytes, 10, column, false).flatten().expect("there");
                prop_assert_eq!(&figures, &Figures::of(&rolled.values, 10, column));
                let mut told = Vec::new();
                figures.each(|end_ms, value, count| told.push((end_ms, value, count)));
                let expected: Vec<_> =
                    rolled.values.iter().map(|w| (w.end_ms, figure(w, column), w.count)).collect();
                prop_assert_eq!(told, expected);
                let of_rates = decode_figures(&bytes, 10, column, true).expect("whole");
                prop_assert_eq!(of_rates.is_some(), rolled.rates.is_some());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = body;
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            let _ = decode(&bytes, 10);
            let _ = decode_figures(&bytes, 10, Column::Sum, true);
        }
    }
}
