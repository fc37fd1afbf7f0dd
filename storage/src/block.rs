//! A block: an immutable file of sealed chunks of many series in one partition of time.
//! The bytes are specified in FORMAT.md.

mod read;
mod write;

pub(crate) use read::Block;
pub(crate) use write::BlockWriter;

use crate::bytes::Reader;
use crate::sample::Sample;
use std::path::{Path, PathBuf};

const HEADER_MAGIC: [u8; 8] = *b"LBBLOCK1";
const FOOTER_MAGIC: [u8; 8] = *b"LBBLKEND";
const HEADER_BYTES: usize = 32;
const FOOTER_BYTES: usize = 28;
const ENTRY_BYTES: usize = 44;

/// What the index says of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    /// The series.
    pub(crate) series: u32,
    /// Where its bytes begin in the file.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) bytes: u32,
    /// How many samples.
    pub(crate) samples: u32,
    /// The time of its first sample.
    pub(crate) min_ms: i64,
    /// Its last sample, so that opening a store need not decode chunks to know the newest values.
    pub(crate) last: Sample,
}

impl ChunkEntry {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.series.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.samples.to_le_bytes());
        bytes.extend_from_slice(&self.min_ms.to_le_bytes());
        bytes.extend_from_slice(&self.last.timestamp_ms.to_le_bytes());
        bytes.extend_from_slice(&self.last.value.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            series: reader.u32()?,
            offset: reader.u64()?,
            bytes: reader.u32()?,
            samples: reader.u32()?,
            min_ms: reader.i64()?,
            last: Sample::new(reader.i64()?, f64::from_bits(reader.u64()?)),
        })
    }
}

/// What makes a block known: one record of the index database.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct BlockRecord {
    /// Its number; larger is later.
    pub(crate) id: u64,
    /// The retention class it belongs to.
    pub(crate) class: String,
    /// Where its partition of time begins, Unix milliseconds.
    pub(crate) partition_start_ms: i64,
    /// The last log group whose samples it may hold: a delete with a later number applies to it.
    pub(crate) sealed_seq: u64,
}

impl BlockRecord {
    /// Where its file lies below the data directory.
    pub(crate) fn path(&self, data_dir: &Path) -> PathBuf {
        self.partition_dir(data_dir).join(format!("{:016x}.block", self.id))
    }

    /// The directory of its partition.
    pub(crate) fn partition_dir(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(BLOCKS_DIR).join(&self.class).join(self.partition_start_ms.to_string())
    }
}

/// The directory of all blocks below the data directory.
pub(crate) const BLOCKS_DIR: &str = "blocks";

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> BlockRecord {
        BlockRecord { id: 7, class: "default".into(), partition_start_ms: 0, sealed_seq: 9 }
    }

    fn samples(series: u32) -> Vec<Sample> {
        (0..40).map(|i| Sample::new(i * 1000, f64::from(series) + i as f64)).collect()
    }

    fn written(dir: &Path) -> PathBuf {
        let mut writer = BlockWriter::create(dir, record()).expect("created");
        for series in [1, 2, 5] {
            writer.add(series, &samples(series)).expect("added");
        }
        writer.finish().expect("finished");
        record().path(dir)
    }

    #[test]
    fn what_is_written_is_read_back_by_series() {
        let dir = tempfile::tempdir().expect("a directory");
        written(dir.path());
        let block = Block::open(dir.path(), record()).expect("opens");
        assert_eq!(block.entries().len(), 3);
        for series in [1, 2, 5] {
            let entries = block.of_series(series);
            assert_eq!(entries.len(), 1);
            assert_eq!(block.read(&entries[0]).expect("read"), samples(series));
            assert_eq!(Some(&entries[0].last), samples(series).last());
        }
        assert!(block.of_series(3).is_empty());
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path());
        let bytes = std::fs::read(&path).expect("read");
        let read_all = || -> crate::error::Result<Vec<Vec<Sample>>> {
            let block = Block::open(dir.path(), record())?;
            block.entries().iter().map(|entry| block.read(entry)).collect()
        };
        assert!(read_all().is_ok());
        for at in 0..bytes.len() {
            std::fs::write(&path, &bytes[..at]).expect("written");
            assert!(read_all().is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).expect("written");
            let error = read_all().expect_err("detected").to_string();
            assert!(error.contains("0000000000000007.block"), "{error}");
        }
    }
}
