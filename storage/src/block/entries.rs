//! A block's index: what it says of each chunk, packed.
//!
//! Entries follow one another in the order of their chunks, so that offsets need not be said. A store
//! keeps the indexes of all its blocks in memory: they stay packed there too, with a mark every so many
//! entries to begin reading at, and without the last values, which are most of an entry and asked for at the
//! start alone.

use super::HEADER_BYTES;
use crate::bytes::{Reader, put_varint};
use crate::chunk::CHUNK_SAMPLES_MAX;
use crate::sample::Sample;

/// What the index says of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    /// The series.
    pub(crate) series: u32,
    /// How many samples.
    pub(crate) samples: u32,
    /// Where its column of timestamps lies in the file; other chunks may share it.
    pub(crate) times: Column,
    /// Where its column of values lies in the file.
    pub(crate) values: Column,
    /// The time of its first sample.
    pub(crate) min_ms: i64,
    /// The time of its last sample.
    pub(crate) last_ms: i64,
}

/// Where a column lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

impl Column {
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bytes))
    }
}

/// A column of timestamps, by its number in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimesColumn {
    pub(super) column: Column,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
}

/// Writes an index entry by entry.
pub(super) struct IndexWriter {
    partition_start_ms: i64,
    bytes: Vec<u8>,
    entries: u32,
    last_series: u32,
    times_columns: u32,
}

impl IndexWriter {
    pub(super) fn new(partition_start_ms: i64) -> Self {
        Self { partition_start_ms, bytes: Vec::new(), entries: 0, last_series: 0, times_columns: 0 }
    }

    /// Adds a chunk whose column of timestamps is number `times`: either the next one, which stands right
    /// before the column of values and is described by `new`, or one that has been before.
    pub(super) fn add(
        &mut self,
        series: u32,
        samples: u32,
        values_bytes: u32,
        times: u32,
        new: Option<&TimesColumn>,
        last_value: f64,
    ) {
        put_varint(&mut self.bytes, u64::from(series - self.last_series));
        put_varint(&mut self.bytes, u64::from(samples));
        put_varint(&mut self.bytes, u64::from(values_bytes));
        put_varint(&mut self.bytes, u64::from(self.times_columns - times));
        if let Some(new) = new {
            put_varint(&mut self.bytes, u64::from(new.column.bytes));
            // Within a partition both are positive, and small.
            put_varint(&mut self.bytes, new.first_ms.wrapping_sub(self.partition_start_ms) as u64);
            put_varint(&mut self.bytes, new.last_ms.wrapping_sub(new.first_ms) as u64);
            self.times_columns += 1;
        }
        self.bytes.extend_from_slice(&last_value.to_le_bytes());
        self.last_series = series;
        self.entries += 1;
    }

    /// The series that was added last, if any.
    pub(super) fn last_series(&self) -> Option<u32> {
        (self.entries > 0).then_some(self.last_series)
    }

    /// The bytes, and how many entries they hold.
    pub(super) fn finish(self) -> (Vec<u8>, u32) {
        (self.bytes, self.entries)
    }
}

/// One mark every so many entries.
const MARK_EVERY: u32 = 32;

/// Where reading may begin.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The series of the entry before.
    series: u32,
    /// Where the entry begins in the bytes.
    at: u32,
    /// How many columns of timestamps came before.
    times_columns: u32,
    /// Where its columns begin in the file.
    offset: u64,
}

/// Bytes of a last value.
const LAST_BYTES: usize = 8;

/// A block's index in memory.
#[derive(Debug)]
pub(super) struct Entries {
    /// As in the file, but for the last values.
    bytes: Box<[u8]>,
    times: Box<[TimesColumn]>,
    marks: Box<[Mark]>,
    pub(super) chunks: u32,
    pub(super) samples: u64,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
}

impl Entries {
    /// Takes over an index of `count` entries, whose columns must lie before `index_offset`. `None`: it
    /// says what can't be.
    pub(super) fn parse(
        index: &[u8],
        count: u32,
        partition_start_ms: i64,
        index_offset: u64,
    ) -> Option<Self> {
        u32::try_from(index.len()).ok()?;
        let mut reader = Reader::new(index);
        let mut bytes = Vec::with_capacity(index.len().saturating_sub(LAST_BYTES * count as usize));
        let (mut times, mut marks) = (Vec::new(), Vec::new());
        let (mut samples, mut min_ms, mut max_ms) = (0u64, i64::MAX, i64::MIN);
        let mut at = Mark { series: 0, at: 0, times_columns: 0, offset: HEADER_BYTES as u64 };
        for number in 0..count {
            if number % MARK_EVERY == 0 {
                marks.push(at);
            }
            let before = reader.rest();
            let entry = read_entry(&mut reader, &mut at, |of| match of {
                Times::Column { bytes, first, span, offset } => {
                    let first_ms = partition_start_ms.wrapping_add(first as i64);
                    let last_ms = first_ms.checked_add_unsigned(span)?;
                    let column = TimesColumn { column: Column { offset, bytes }, first_ms, last_ms };
                    times.push(column);
                    Some(column)
                }
                Times::Known(number) => times.get(number as usize).copied(),
            })?;
            bytes.extend_from_slice(before.get(..before.len() - reader.rest().len())?);
            at.at = bytes.len() as u32;
            reader.take(LAST_BYTES)?;
            let inside = entry.values.end() <= index_offset;
            let filled = (1..=CHUNK_SAMPLES_MAX).contains(&(entry.samples as usize));
            if !inside || !filled {
                return None;
            }
            samples += u64::from(entry.samples);
            min_ms = min_ms.min(entry.min_ms);
            max_ms = max_ms.max(entry.last_ms);
        }
        let whole = reader.rest().is_empty() && at.offset == index_offset;
        whole.then(|| Self {
            times: times.into_boxed_slice(),
            marks: marks.into_boxed_slice(),
            chunks: count,
            samples,
            min_ms,
            max_ms,
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// All entries, by series and then by time.
    pub(super) fn iter(&self) -> impl Iterator<Item = ChunkEntry> {
        self.iter_with_ends().map(|(entry, _)| entry)
    }

    /// The same, each with where it ends in the bytes.
    fn iter_with_ends(&self) -> impl Iterator<Item = (ChunkEntry, usize)> {
        self.from(self.marks.first().copied())
    }

    /// All entries with their last samples, of the bytes that this was made of.
    pub(super) fn lasts<'a>(&'a self, index: &'a [u8]) -> impl Iterator<Item = (ChunkEntry, Sample)> + 'a {
        let mut in_file = Reader::new(index);
        let mut at = 0;
        self.iter_with_ends().map_while(move |(entry, end)| {
            in_file.take(end - std::mem::replace(&mut at, end))?;
            let last = Sample::new(entry.last_ms, f64::from_bits(in_file.u64()?));
            Some((entry, last))
        })
    }

    /// The entries of one series, in time order.
    pub(super) fn of_series(&self, series: u32) -> Vec<ChunkEntry> {
        // A mark names the series before it: from the last one below, the series' entries are to come.
        let after = self.marks.partition_point(|mark| mark.series < series);
        let mark = self.marks.get(after.saturating_sub(1)).copied();
        let from_mark = self.from(mark).map(|(entry, _)| entry);
        from_mark.skip_while(|e| e.series < series).take_while(|e| e.series == series).collect()
    }

    /// The entries from a mark on, each with where it ends in the bytes.
    fn from(&self, mark: Option<Mark>) -> impl Iterator<Item = (ChunkEntry, usize)> {
        let mut at = mark;
        let mut reader = Reader::new(at.and_then(|at| self.bytes.get(at.at as usize..)).unwrap_or_default());
        std::iter::from_fn(move || {
            let at = at.as_mut()?;
            let next = at.times_columns;
            // Everything was read once when the index was parsed.
            let entry = read_entry(&mut reader, at, |times| {
                let number = match times {
                    Times::Column { .. } => next,
                    Times::Known(number) => number,
                };
                self.times.get(number as usize).copied()
            })?;
            Some((entry, self.bytes.len() - reader.rest().len()))
        })
    }
}

/// The column of timestamps that an entry speaks of.
enum Times {
    /// It comes with this entry.
    Column { bytes: u32, first: u64, span: u64, offset: u64 },
    /// It has this number.
    Known(u32),
}

/// Reads the next entry up to its last value, and moves `at` past it, its `at` aside.
fn read_entry(
    reader: &mut Reader<'_>,
    at: &mut Mark,
    times_column: impl FnOnce(Times) -> Option<TimesColumn>,
) -> Option<ChunkEntry> {
    let small = |number: Option<u64>| number.and_then(|n| u32::try_from(n).ok());
    let series = at.series.checked_add(small(reader.varint())?)?;
    let samples = small(reader.varint())?;
    let values_bytes = small(reader.varint())?;
    let back = small(reader.varint())?;
    let times = if back == 0 {
        let bytes = small(reader.varint())?;
        let (first, span) = (reader.varint()?, reader.varint()?);
        let times = times_column(Times::Column { bytes, first, span, offset: at.offset })?;
        at.times_columns = at.times_columns.checked_add(1)?;
        at.offset = at.offset.checked_add(u64::from(bytes))?;
        times
    } else {
        times_column(Times::Known(at.times_columns.checked_sub(back)?))?
    };
    let values = Column { offset: at.offset, bytes: values_bytes };
    at.offset = at.offset.checked_add(u64::from(values_bytes))?;
    at.series = series;
    Some(ChunkEntry {
        series,
        samples,
        times: times.column,
        values,
        min_ms: times.first_ms,
        last_ms: times.last_ms,
    })
}
