//! The file `durable` of a generation: the number below which all groups are durable.
//!
//! A damaged group looks like the end of what was written. This file tells such a loss from an end: it is written after each sync and before the
//! acknowledgement. It is not synced itself, so after a power cut it may say less than was
//! acknowledged, which makes for fewer findings and never for a false one.

use crate::disk::Disk;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const DURABLE_FILE: &str = "durable";
/// The number, and the crc32c of its bytes.
const BYTES: usize = 12;

/// The file, open.
pub(super) struct Durable {
    disk: Disk,
    path: PathBuf,
    file: File,
}

impl Durable {
    /// Opens the file of the generation in `dir`, or makes it.
    pub(super) fn open(disk: &Disk, dir: &Path) -> Result<Self> {
        let path = dir.join(DURABLE_FILE);
        disk.writes(&path)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(Self { disk: disk.clone(), file: file.map_err(Error::io("open", &path))?, path })
    }

    #[cfg(test)]
    fn read(&self) -> Option<u64> {
        self.path.parent().and_then(read)
    }

    /// Says that all groups below this number are durable, which they must be.
    pub(super) fn note(&self, below_seq: u64) -> Result<()> {
        let number = below_seq.to_le_bytes();
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32c::crc32c(&number).to_le_bytes());
        self.disk.writes(&self.path)?;
        self.file.write_all_at(&bytes, 0).map_err(Error::io("write", &self.path))
    }
}

/// The number below which all groups of the generation in `dir` were durable; `None` where nobody has said.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let mut bytes = [0; BYTES];
    File::open(dir.join(DURABLE_FILE)).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    let (number, checksum) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(number).to_le_bytes().as_slice() == checksum).then(|| u64::from_le_bytes(*number))
}

/// Whether the file of the generation in `dir` says something that does not fit its checksum. One that is
/// empty, or all zeros as a power cut leaves it, says nothing.
pub(super) fn is_damaged(dir: &Path) -> bool {
    let bytes = std::fs::read(dir.join(DURABLE_FILE)).unwrap_or_default();
    read(dir).is_none() && bytes.iter().any(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_whole_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let durable = Durable::open(&Disk::default(), dir.path()).expect("opens");
        assert_eq!(durable.read(), None);
        durable.note(7).expect("noted");
        durable.note(9).expect("noted");
        let path = dir.path().join(DURABLE_FILE);
        let durable = Durable::open(&Disk::default(), dir.path()).expect("opens");
        assert_eq!(durable.read(), Some(9));
        let whole = std::fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).expect("written");
            assert_eq!(durable.read(), None);
            std::fs::write(&path, &whole[..at]).expect("written");
            assert_eq!(durable.read(), None);
        }
    }
}
