//! Writing a block, durably.

use super::entries::{Column, IndexWriter, TimesColumn};
use super::{BlockRecord, FOOTER_MAGIC, HEADER_BYTES, HEADER_MAGIC, Stage};
use crate::chunk::{self, CHUNK_SAMPLES_MAX};
use crate::codec::Effort;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::sample::Sample;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Most timestamps that a writer remembers to find a column that it has written: 8 MB. When they are
/// more, it forgets all of them, and at worst writes columns again.
const TIMES_REMEMBERED_MAX: usize = 1 << 20;

/// Writes a block under a temporary name; [`finish`](Self::finish) makes it durable under its own.
pub(crate) struct BlockWriter {
    disk: Disk,
    record: BlockRecord,
    path: PathBuf,
    temporary_path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    index: IndexWriter,
    times_columns: u32,
    remembered: Remembered,
}

/// Columns of timestamps that have been written lately, to be found by what is in them.
#[derive(Default)]
struct Remembered {
    hasher: RandomState,
    by_hash: HashMap<u64, (u32, Box<[i64]>)>,
    timestamps: usize,
}

impl Remembered {
    /// The number of the column of these times, if it has been written lately.
    fn find(&self, hash: u64, times: &[i64]) -> Option<u32> {
        self.by_hash.get(&hash).filter(|(_, known)| **known == *times).map(|(number, _)| *number)
    }

    fn add(&mut self, hash: u64, number: u32, times: Vec<i64>) {
        // A place in the map takes about as much as some timestamps.
        self.timestamps += times.len() + 8;
        if self.timestamps > TIMES_REMEMBERED_MAX {
            self.by_hash = HashMap::new();
            self.timestamps = times.len() + 8;
        }
        self.by_hash.insert(hash, (number, times.into_boxed_slice()));
    }
}

impl BlockWriter {
    pub(crate) fn create(disk: &Disk, data_dir: &Path, record: BlockRecord, stage: Stage) -> Result<Self> {
        disk.create_dir_all(&record.partition_dir(data_dir))?;
        let path = record.path(data_dir);
        if path.exists() {
            return Err(Error::damaged(
                &path,
                "a block of this number is there already, and blocks stay as they are",
            ));
        }
        let temporary_path = path.with_extension("tmp");
        let file = disk.create(&temporary_path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&HEADER_MAGIC);
        header.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&record.partition_start_ms.to_le_bytes());
        header.extend_from_slice(&record.sealed_seq.to_le_bytes());
        header.push(stage as u8);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let mut this = Self {
            disk: disk.clone(),
            index: IndexWriter::new(record.partition_start_ms),
            record,
            path,
            temporary_path,
            file: BufWriter::with_capacity(256 << 10, file),
            offset: 0,
            times_columns: 0,
            remembered: Remembered::default(),
        };
        this.put(&header)?;
        Ok(this)
    }

    /// Adds the samples of a series; series come in rising order, samples in time order.
    pub(crate) fn add(&mut self, series: u32, samples: &[Sample], effort: Effort) -> Result<()> {
        assert!(self.index.last_series().is_none_or(|last| last < series), "series out of order");
        // Chunks of about the same length, rather than a short one at the end.
        let chunks = samples.len().div_ceil(CHUNK_SAMPLES_MAX).max(1);
        for samples in samples.chunks(samples.len().div_ceil(chunks).max(1)) {
            self.add_chunk(series, samples, effort)?;
        }
        Ok(())
    }

    fn add_chunk(&mut self, series: u32, samples: &[Sample], effort: Effort) -> Result<()> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(()) };
        let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp_ms).collect();
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let hash = self.remembered.hasher.hash_one(&times);
        let mut new = None;
        let number = match self.remembered.find(hash, &times) {
            Some(number) => number,
            None => {
                let bytes = chunk::encode_times(&times, effort);
                let column = Column { offset: self.offset, bytes: length(&bytes) };
                new = Some(TimesColumn { column, first_ms: first.timestamp_ms, last_ms: last.timestamp_ms });
                self.put(&bytes)?;
                let number = self.times_columns;
                self.times_columns += 1;
                self.remembered.add(hash, number, times);
                number
            }
        };
        let bytes = chunk::encode_values(&values, effort);
        self.put(&bytes)?;
        let samples = u32::try_from(samples.len()).expect("bounded by CHUNK_SAMPLES_MAX");
        self.index.add(series, samples, length(&bytes), number, new.as_ref(), last.value);
        Ok(())
    }

    /// Writes the index, syncs the file and its name. Only now does the block exist.
    pub(crate) fn finish(mut self) -> Result<BlockRecord> {
        let index_offset = self.offset;
        let index = std::mem::replace(&mut self.index, IndexWriter::new(0));
        let (index, count) = index.finish();
        let mut footer = index_offset.to_le_bytes().to_vec();
        footer.extend_from_slice(&count.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        footer.extend_from_slice(&FOOTER_MAGIC);
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.put(&index)?;
        self.put(&footer)?;
        self.file.flush().map_err(Error::io("write", &self.temporary_path))?;
        self.disk.sync(self.file.get_ref(), &self.temporary_path)?;
        self.disk.rename(&self.temporary_path, &self.path)?;
        self.disk.sync_parent(&self.path)?;
        Ok(self.record.clone())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary_path))
    }
}

fn length(column: &[u8]) -> u32 {
    u32::try_from(column.len()).expect("a column is bounded by its samples")
}

/// A block that was not finished leaves nothing behind.
impl Drop for BlockWriter {
    fn drop(&mut self) {
        // After `finish` there is no such file; else the next start removes what could not be removed.
        if self.temporary_path.exists() {
            let _ = self.disk.remove_file(&self.temporary_path);
        }
    }
}
