//! Reading a block.

use super::{BlockRecord, ChunkEntry, ENTRY_BYTES, FOOTER_BYTES, FOOTER_MAGIC, HEADER_BYTES, HEADER_MAGIC};
use crate::bytes::Reader;
use crate::chunk;
use crate::error::{Error, Result};
use crate::sample::Sample;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open block, its index in memory.
#[derive(Debug)]
pub(crate) struct Block {
    record: BlockRecord,
    path: PathBuf,
    file: File,
    file_bytes: u64,
    /// Sorted by series, then by time.
    entries: Vec<ChunkEntry>,
    samples: u64,
    min_ms: i64,
    max_ms: i64,
}

impl Block {
    /// Opens the block of this record and checks its header, its index and its footer.
    pub(crate) fn open(data_dir: &Path, record: BlockRecord) -> Result<Self> {
        let path = record.path(data_dir);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", &path))?.len();
        let entries = read_index(&file, file_bytes, &record, &path)?;
        let samples = entries.iter().map(|e| u64::from(e.samples)).sum();
        let min_ms = entries.iter().map(|e| e.min_ms).min().unwrap_or(i64::MAX);
        let max_ms = entries.iter().map(|e| e.last.timestamp_ms).max().unwrap_or(i64::MIN);
        Ok(Self { record, path, file, file_bytes, entries, samples, min_ms, max_ms })
    }

    pub(crate) fn record(&self) -> &BlockRecord {
        &self.record
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    pub(crate) fn entries(&self) -> &[ChunkEntry] {
        &self.entries
    }

    /// Whether any sample may lie in `[start_ms, end_ms]`.
    pub(crate) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && self.max_ms >= start_ms
    }

    /// The chunks of one series, in time order.
    pub(crate) fn of_series(&self, series: u32) -> &[ChunkEntry] {
        let from = self.entries.partition_point(|e| e.series < series);
        let rest = self.entries.get(from..).unwrap_or_default();
        let count = rest.partition_point(|e| e.series == series);
        rest.get(..count).unwrap_or_default()
    }

    /// The samples of one chunk.
    pub(crate) fn read(&self, entry: &ChunkEntry) -> Result<Vec<Sample>> {
        let mut bytes = vec![0; entry.bytes as usize];
        let damaged = |error: &dyn std::fmt::Display| {
            let what = format!(
                "{error}: series {} from {} to {} ms is lost",
                entry.series, entry.min_ms, entry.last.timestamp_ms
            );
            Error::damaged(&self.path, what)
        };
        // Bytes that the disk does not give back are damaged as well: what lies beside them goes on.
        self.file.read_exact_at(&mut bytes, entry.offset).map_err(|error| damaged(&error))?;
        chunk::decode(&bytes).map_err(|error| damaged(&error))
    }
}

fn read_index(file: &File, file_bytes: u64, record: &BlockRecord, path: &Path) -> Result<Vec<ChunkEntry>> {
    let damaged = |what: &str| Error::damaged(path, what);
    let read = |offset: u64, bytes: &mut [u8]| {
        file.read_exact_at(bytes, offset).map_err(|_| damaged("the file is shorter than it says"))
    };
    let mut header = [0; HEADER_BYTES];
    read(0, &mut header)?;
    check_header(&header, record, path)?;

    let mut footer = [0; FOOTER_BYTES];
    let footer_offset =
        file_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
    read(footer_offset, &mut footer)?;
    let (index_offset, count, index_checksum) =
        parse_footer(&footer).ok_or_else(|| damaged("its footer is broken"))?;

    let index_bytes = u64::from(count) * ENTRY_BYTES as u64;
    if index_offset.checked_add(index_bytes) != Some(footer_offset) {
        return Err(damaged("its index does not end at its footer"));
    }
    let mut index = vec![0; usize::try_from(index_bytes).map_err(|_| damaged("its index is too large"))?];
    read(index_offset, &mut index)?;
    if crc32c::crc32c(&index) != index_checksum {
        return Err(damaged("its index does not fit its checksum"));
    }
    let mut reader = Reader::new(&index);
    let entries: Option<Vec<ChunkEntry>> = (0..count).map(|_| ChunkEntry::read(&mut reader)).collect();
    let entries = entries.ok_or_else(|| damaged("its index is too short"))?;
    let inside = entries
        .iter()
        .all(|e| e.offset.checked_add(u64::from(e.bytes)).is_some_and(|end| end <= index_offset));
    if inside { Ok(entries) } else { Err(damaged("its index points outside of it")) }
}

fn check_header(header: &[u8; HEADER_BYTES], record: &BlockRecord, path: &Path) -> Result<()> {
    let damaged = |what: &str| Error::damaged(path, what);
    let mut reader = Reader::new(header);
    let broken = || damaged("its header is broken");
    let magic: [u8; 8] = reader.array().ok_or_else(broken)?;
    let format = reader.u32().ok_or_else(broken)?;
    let partition_start_ms = reader.i64().ok_or_else(broken)?;
    let sealed_seq = reader.u64().ok_or_else(broken)?;
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
    Ok(())
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
