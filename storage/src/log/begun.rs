//! The file `begun` of a generation, made once it is ready: the number of its first group.
//!
//! sled takes a database whose bytes are lost for an empty one; with this file it is seen that it was
//! not, and where it began.

use crate::disk::Disk;
use crate::error::Result;
use std::fs;
use std::path::Path;

const BEGUN_FILE: &str = "begun";

/// Whether the generation in `dir` was ready.
pub(super) fn exists(dir: &Path) -> bool {
    dir.join(BEGUN_FILE).exists()
}

/// Says that it is, durably.
pub(super) fn write(disk: &Disk, dir: &Path, first_seq: u64) -> Result<()> {
    let number = first_seq.to_le_bytes();
    let mut bytes = number.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&number).to_le_bytes());
    disk.write_durably(&dir.join(BEGUN_FILE), &bytes)
}

/// The number of its first group; `None` where the file is missing or damaged.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let bytes: [u8; 12] = fs::read(dir.join(BEGUN_FILE)).ok()?.try_into().ok()?;
    let (number, checksum) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(number).to_le_bytes().as_slice() == checksum).then(|| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_truncation_is_detected() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!((exists(dir.path()), read(dir.path())), (false, None));
        write(&Disk::default(), dir.path(), 7).expect("written");
        assert_eq!((exists(dir.path()), read(dir.path())), (true, Some(7)));
        let whole = fs::read(dir.path().join(BEGUN_FILE)).expect("read");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&flipped[..], &whole[..at]] {
                fs::write(dir.path().join(BEGUN_FILE), bytes).expect("written");
                assert_eq!(read(dir.path()), None);
            }
        }
    }
}
