//! Reading a block.

use super::entries::{Column, Entries};
use super::{BlockRecord, ChunkEntry, FOOTER_BYTES, FOOTER_MAGIC, HEADER_BYTES, HEADER_MAGIC, Stage};
use crate::bytes::Reader;
use crate::chunk;
use crate::each::Steps;
use crate::error::{Error, Result};
use crate::sample::Sample;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much of a block is read at once to look at the codecs of its columns.
const CODEC_WINDOW_BYTES: usize = 256 << 10;

/// The part of a block that was read last.
#[derive(Debug, Default)]
pub(crate) struct CodecWindow {
    offset: u64,
    bytes: Vec<u8>,
}

/// An open block, its index in memory.
#[derive(Debug)]
pub(crate) struct Block {
    record: BlockRecord,
    stage: Stage,
    path: PathBuf,
    file: File,
    file_bytes: u64,
    entries: Entries,
}

impl Block {
    /// Opens the block of this record and checks its header, its index and its footer.
    pub(crate) fn open(data_dir: &Path, record: BlockRecord) -> Result<Self> {
        let path = record.path(data_dir);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", &path))?.len();
        let Index { stage, bytes, count, offset } = read_index(&file, file_bytes, &record, &path)?;
        let entries = Entries::parse(&bytes, count, record.partition_start_ms, offset)
            .ok_or_else(|| Error::damaged(&path, "its index contradicts itself"))?;
        Ok(Self { record, stage, path, file, file_bytes, entries })
    }

    pub(crate) fn record(&self) -> &BlockRecord {
        &self.record
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(crate) fn samples(&self) -> u64 {
        self.entries.samples
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> u64 {
        u64::from(self.entries.chunks)
    }

    /// The times of the first and of the last sample.
    pub(crate) fn span_ms(&self) -> (i64, i64) {
        (self.entries.min_ms, self.entries.max_ms)
    }

    /// All chunks, by series and then by time.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ChunkEntry> {
        self.entries.iter()
    }

    /// All chunks with their last samples, so that opening a store need not decode chunks to know the newest
    /// values. Those are not kept in memory: the file is read.
    pub(crate) fn for_each_last(&self, mut each: impl FnMut(&ChunkEntry, Sample)) -> Result<()> {
        let index = read_index(&self.file, self.file_bytes, &self.record, &self.path)?;
        self.entries.lasts(&index.bytes).for_each(|(entry, last)| each(&entry, last));
        Ok(())
    }

    /// Whether any sample may lie in `[start_ms, end_ms]`.
    pub(crate) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.entries.min_ms <= end_ms && self.entries.max_ms >= start_ms
    }

    /// The chunks of one series, in time order.
    pub(crate) fn of_series(&self, series: u32) -> Vec<ChunkEntry> {
        self.entries.of_series(series)
    }

    /// The byte that names a column's codec, unchecked; `None`: the file ends before it. `window` is for
    /// columns that are asked for in rising order.
    pub(crate) fn codec_byte(&self, column: Column, window: &mut CodecWindow) -> Result<Option<u8>> {
        let inside = |window: &CodecWindow| {
            let at = usize::try_from(column.offset.checked_sub(window.offset)?).ok()?;
            window.bytes.get(at).copied()
        };
        if let Some(byte) = inside(window) {
            return Ok(Some(byte));
        }
        window.offset = column.offset;
        window.bytes.resize(CODEC_WINDOW_BYTES, 0);
        let read = self.file.read_at(&mut window.bytes, column.offset);
        window.bytes.truncate(read.map_err(Error::io("read", &self.path))?);
        Ok(inside(window))
    }

    /// The samples of one chunk.
    pub(crate) fn read(&self, entry: &ChunkEntry) -> Result<Vec<Sample>> {
        let mut samples = Vec::with_capacity(entry.samples as usize);
        self.read_into(entry, (i64::MIN, i64::MAX), None, &mut samples)?;
        Ok(samples)
    }

    /// Appends the samples of one chunk that lie in `[start_ms, end_ms]`; with `steps` the newest at each of them.
    pub(crate) fn read_into(
        &self,
        entry: &ChunkEntry,
        range_ms: (i64, i64),
        steps: Option<Steps>,
        samples: &mut Vec<Sample>,
    ) -> Result<()> {
        let damaged = |error: &dyn std::fmt::Display| {
            let what = format!(
                "{error}: series {} from {} to {} ms is lost",
                entry.series, entry.min_ms, entry.last_ms
            );
            Error::damaged(&self.path, what)
        };
        let (times_bytes, values_bytes) = (entry.times.bytes as usize, entry.values.bytes as usize);
        let mut bytes = vec![0; times_bytes + values_bytes];
        let (times, values) = bytes.split_at_mut(times_bytes);
        let adjacent = entry.times.offset + u64::from(entry.times.bytes) == entry.values.offset;
        // Bytes that the disk does not give back are damaged as well: what lies beside them goes on.
        let read = if adjacent {
            self.file.read_exact_at(&mut bytes, entry.times.offset)
        } else {
            let times = self.file.read_exact_at(times, entry.times.offset);
            times.and_then(|()| self.file.read_exact_at(values, entry.values.offset))
        };
        read.map_err(|error| damaged(&error))?;
        let (times, values) = bytes.split_at(times_bytes);
        chunk::decode_into(times, values, entry.samples as usize, range_ms, steps, samples)
            .map_err(|error| damaged(&error))
    }
}

/// A block's index as it stands in the file.
struct Index {
    stage: Stage,
    bytes: Vec<u8>,
    /// How many entries it has.
    count: u32,
    /// Where it begins.
    offset: u64,
}

/// Reads the index, and checks it, the header and the footer by their checksums.
fn read_index(file: &File, file_bytes: u64, record: &BlockRecord, path: &Path) -> Result<Index> {
    let damaged = |what: &str| Error::damaged(path, what);
    let read = |offset: u64, bytes: &mut [u8]| {
        file.read_exact_at(bytes, offset).map_err(|_| damaged("the file is shorter than it says"))
    };
    let mut header = [0; HEADER_BYTES];
    read(0, &mut header)?;
    let stage = check_header(&header, record, path)?;

    let mut footer = [0; FOOTER_BYTES];
    let footer_offset =
        file_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
    read(footer_offset, &mut footer)?;
    let (index_offset, count, index_checksum) =
        parse_footer(&footer).ok_or_else(|| damaged("its footer is broken"))?;

    let index_bytes = footer_offset.checked_sub(index_offset);
    let index_bytes = index_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let mut index = vec![0; index_bytes.ok_or_else(|| damaged("its index does not end at its footer"))?];
    read(index_offset, &mut index)?;
    if crc32c::crc32c(&index) != index_checksum {
        return Err(damaged("its index does not fit its checksum"));
    }
    Ok(Index { stage, bytes: index, count, offset: index_offset })
}

fn check_header(header: &[u8; HEADER_BYTES], record: &BlockRecord, path: &Path) -> Result<Stage> {
    let damaged = |what: &str| Error::damaged(path, what);
    let mut reader = Reader::new(header);
    let broken = || damaged("its header is broken");
    let magic: [u8; 8] = reader.array().ok_or_else(broken)?;
    let format = reader.u32().ok_or_else(broken)?;
    let partition_start_ms = reader.i64().ok_or_else(broken)?;
    let sealed_seq = reader.u64().ok_or_else(broken)?;
    let [stage] = reader.array().ok_or_else(broken)?;
    let checksum = reader.u32().ok_or_else(broken)?;
    if magic != HEADER_MAGIC || crc32c::crc32c(&header[..HEADER_BYTES - 4]) != checksum {
        return Err(broken());
    }
    if format > crate::FORMAT_VERSION {
        return Err(damaged("it was written by a later version"));
    }
    if partition_start_ms != record.partition_start_ms || sealed_seq != record.sealed_seq {
        return Err(damaged("its header is that of another block"));
    }
    [Stage::Young, Stage::Settled].into_iter().find(|known| *known as u8 == stage).ok_or_else(broken)
}

/// The index's offset, its number of entries and its checksum.
fn parse_footer(footer: &[u8; FOOTER_BYTES]) -> Option<(u64, u32, u32)> {
    let mut reader = Reader::new(footer);
    let (index_offset, count, index_checksum) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let magic: [u8; 8] = reader.array()?;
    let checksum = reader.u32()?;
    let whole = magic == FOOTER_MAGIC && crc32c::crc32c(&footer[..FOOTER_BYTES - 4]) == checksum;
    whole.then_some((index_offset, count, index_checksum))
}
