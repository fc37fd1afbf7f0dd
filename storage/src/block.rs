//! A block: an immutable file of sealed chunks of many series in one partition of time.
//! The bytes are specified in FORMAT.md.

mod entries;
mod read;
mod write;

pub(crate) use entries::ChunkEntry;
pub(crate) use read::{Block, CodecWindow};
pub(crate) use write::BlockWriter;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER_MAGIC: [u8; 8] = *b"LBBLOCK1";
const FOOTER_MAGIC: [u8; 8] = *b"LBBLKEND";
const HEADER_BYTES: usize = 33;
/// Where the header says `sealed_seq`.
const SEALED_SEQ_OFFSET: u64 = 20;
const FOOTER_BYTES: usize = 28;

/// How far a block has come on its way from memory to where it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Sealed, or merged of such: encoded quickly, and yet to be merged.
    Young = 0,
    /// All that its partition had, encoded thoroughly.
    Settled = 1,
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
    /// What the name and the header of a block's file say, unchecked: opening it checks them.
    pub(crate) fn of_file(data_dir: &Path, path: &Path) -> Option<Self> {
        let below = path.strip_prefix(data_dir.join(BLOCKS_DIR)).ok()?;
        let parts: Vec<&str> = below.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
        let [class, start, name] = parts.try_into().ok()?;
        let id = u64::from_str_radix(name.strip_suffix(".block")?, 16).ok()?;
        let mut sealed_seq = [0; 8];
        std::fs::File::open(path).ok()?.read_exact_at(&mut sealed_seq, SEALED_SEQ_OFFSET).ok()?;
        Some(Self {
            id,
            class: class.to_owned(),
            partition_start_ms: start.parse().ok()?,
            sealed_seq: u64::from_le_bytes(sealed_seq),
        })
    }

    /// Where its file lies below the data directory.
    pub(crate) fn path(&self, data_dir: &Path) -> PathBuf {
        self.partition_dir(data_dir).join(format!("{:016x}.block", self.id))
    }

    /// The directory of its partition.
    pub(crate) fn partition_dir(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(BLOCKS_DIR).join(&self.class).join(self.partition_start_ms.to_string())
    }
}

/// Reads an index of these bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_index(bytes: &[u8]) {
    let Some((head, index)) = bytes.split_first_chunk::<6>() else { return };
    let [a, b, c, d, e, f] = *head;
    let (count, offset) = (u32::from(u16::from_le_bytes([a, b])), u32::from_le_bytes([c, d, e, f]));
    if let Some(entries) = entries::Entries::parse(index, count, 0, u64::from(offset)) {
        assert_eq!(entries.iter().count(), count as usize);
        assert_eq!(entries.lasts(index).count(), count as usize);
        entries.iter().for_each(|entry| assert!(!entries.of_series(entry.series).is_empty()));
    }
}

/// The directory of all blocks below the data directory.
pub(crate) const BLOCKS_DIR: &str = "blocks";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Effort;
    use crate::disk::Disk;
    use crate::sample::Sample;

    fn record() -> BlockRecord {
        BlockRecord { id: 7, class: "default".into(), partition_start_ms: 0, sealed_seq: 9 }
    }

    fn samples(series: u32) -> Vec<Sample> {
        (0..40).map(|i| Sample::new(i * 1000, f64::from(series) + i as f64)).collect()
    }

    fn written(dir: &Path) -> PathBuf {
        let mut writer = BlockWriter::create(&Disk::default(), dir, record(), Stage::Young).expect("created");
        for series in [1, 2, 5] {
            writer.add(series, &samples(series), Effort::Quick).expect("added");
        }
        writer.finish().expect("finished");
        record().path(dir)
    }

    #[test]
    fn what_is_written_is_read_back_by_series() {
        let dir = tempfile::tempdir().expect("a directory");
        written(dir.path());
        let block = Block::open(dir.path(), record()).expect("opens");
        assert_eq!(block.entries().count(), 3);
        assert_eq!(block.stage(), Stage::Young);
        for series in [1, 2, 5] {
            let entries = block.of_series(series);
            assert_eq!(entries.len(), 1);
            assert_eq!(block.read(&entries[0]).expect("read"), samples(series));
            assert_eq!(Some(entries[0].last_ms), samples(series).last().map(|last| last.timestamp_ms));
            assert_eq!(entries[0].min_ms, 0);
        }
        let mut lasts = Vec::new();
        block.for_each_last(|entry, last| lasts.push((entry.series, Some(last)))).expect("read");
        assert_eq!(lasts, [1, 2, 5].map(|series| (series, samples(series).last().copied())));
        assert!(block.of_series(3).is_empty());
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path());
        let bytes = std::fs::read(&path).expect("read");
        let read_all = || -> crate::error::Result<Vec<Vec<Sample>>> {
            let block = Block::open(dir.path(), record())?;
            block.entries().map(|entry| block.read(&entry)).collect()
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

    #[test]
    fn series_with_the_same_times_keep_them_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let jittered = |series: i64| -> Vec<Sample> {
            let jitter = |i: i64| (i * 7 + i * i * 13 + series / 4 * 17) % 20;
            (0..500).map(|i| Sample::new(i * 1_000 + jitter(i), (series + i) as f64)).collect()
        };
        let mut writer =
            BlockWriter::create(&Disk::default(), dir.path(), record(), Stage::Settled).expect("created");
        for series in 0..200 {
            writer.add(series as u32, &jittered(series), Effort::Thorough).expect("added");
        }
        writer.finish().expect("finished");
        let block = Block::open(dir.path(), record()).expect("opens");
        for series in (0..200).rev() {
            let entries = block.of_series(series as u32);
            assert_eq!(entries.len(), 1);
            assert_eq!(block.read(&entries[0]).expect("read"), jittered(series));
        }
        // Fifty columns of timestamps at 0.55 bytes each, and next to nothing for the values.
        assert!(block.file_bytes() < 50 * 500 * 6 / 10 + 200 * 80, "{} bytes", block.file_bytes());
        assert_eq!((block.samples(), block.stage()), (100_000, Stage::Settled));
    }
}
