//! Writing a block, durably.

use super::{BlockRecord, ChunkEntry, FOOTER_MAGIC, HEADER_BYTES, HEADER_MAGIC};
use crate::chunk::{self, CHUNK_SAMPLES_MAX};
use crate::error::{Error, Result};
use crate::files;
use crate::sample::Sample;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a block under a temporary name; [`finish`](Self::finish) makes it durable under its own.
pub(crate) struct BlockWriter {
    record: BlockRecord,
    path: PathBuf,
    temporary_path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    entries: Vec<ChunkEntry>,
}

impl BlockWriter {
    pub(crate) fn create(data_dir: &Path, record: BlockRecord) -> Result<Self> {
        files::create_dir_all(&record.partition_dir(data_dir))?;
        let path = record.path(data_dir);
        if path.exists() {
            return Err(Error::damaged(
                &path,
                "a block of this number is there already, and blocks stay as they are",
            ));
        }
        let temporary_path = path.with_extension("tmp");
        let file = File::create(&temporary_path).map_err(Error::io("create", &temporary_path))?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&HEADER_MAGIC);
        header.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&record.partition_start_ms.to_le_bytes());
        header.extend_from_slice(&record.sealed_seq.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let mut this =
            Self { record, path, temporary_path, file: BufWriter::new(file), offset: 0, entries: Vec::new() };
        this.put(&header)?;
        Ok(this)
    }

    /// Adds the samples of a series; series come in rising order, samples in time order.
    pub(crate) fn add(&mut self, series: u32, samples: &[Sample]) -> Result<()> {
        assert!(self.entries.last().is_none_or(|e| e.series < series), "series out of order");
        for samples in samples.chunks(CHUNK_SAMPLES_MAX) {
            let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
            let bytes = chunk::encode(samples);
            self.entries.push(ChunkEntry {
                series,
                offset: self.offset,
                bytes: u32::try_from(bytes.len()).expect("a chunk is bounded by its samples"),
                samples: u32::try_from(samples.len()).expect("bounded by CHUNK_SAMPLES_MAX"),
                min_ms: first.timestamp_ms,
                last: *last,
            });
            self.put(&bytes)?;
        }
        Ok(())
    }

    /// Writes the index, syncs the file and its name. Only now does the block exist.
    pub(crate) fn finish(mut self) -> Result<BlockRecord> {
        let index_offset = self.offset;
        let mut index = Vec::with_capacity(self.entries.len() * super::ENTRY_BYTES);
        for entry in &self.entries {
            entry.write(&mut index);
        }
        let count = u32::try_from(self.entries.len()).expect("series are numbered in 32 bits");
        let mut footer = index_offset.to_le_bytes().to_vec();
        footer.extend_from_slice(&count.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        footer.extend_from_slice(&FOOTER_MAGIC);
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.put(&index)?;
        self.put(&footer)?;
        let path = self.temporary_path.clone();
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(Error::io("sync", &path))?;
        fs::rename(&self.temporary_path, &self.path).map_err(Error::io("rename", &self.temporary_path))?;
        files::sync_parent(&self.path)?;
        Ok(self.record.clone())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary_path))
    }
}

/// A block that was not finished leaves nothing behind.
impl Drop for BlockWriter {
    fn drop(&mut self) {
        // After `finish` there is no such file; else the next start removes what could not be removed.
        let _ = fs::remove_file(&self.temporary_path);
    }
}
