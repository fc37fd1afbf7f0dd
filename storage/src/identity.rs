//! The file `meta`: which store a data directory belongs to, told a second time outside of the index.
//!
//! sled takes a database whose bytes are lost for an empty one. With this file such an index is
//! recognised, and nothing is mistaken for new, or removed because the index does not know it.

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::StoreRecord;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

pub(crate) const META_FILE: &str = "meta";

/// Refuses a directory of a later format by what its file says, before anything else of it is read: only
/// that file is the same in every format.
pub(crate) fn refuse_later_format(dir: &Path) -> Result<()> {
    let Ok(said) = fs::read_to_string(dir.join(META_FILE)) else {
        // Missing or unreadable: `check` says so, once the index is open.
        return Ok(());
    };
    let Some((body, checksum)) = said.trim_end().rsplit_once(" crc32c ") else { return Ok(()) };
    let found = body.strip_prefix("format ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    match found {
        Some(found) if found > crate::FORMAT_VERSION && checksum_of(body) == checksum => {
            Err(Error::NewerFormat { path: dir.to_owned(), found, known: crate::FORMAT_VERSION })
        }
        _ => Ok(()),
    }
}

/// Checks that the directory belongs to the store of the index; notes it in a new one.
pub(crate) fn check(disk: &Disk, dir: &Path, store: &StoreRecord) -> Result<()> {
    let path = dir.join(META_FILE);
    let expected = text(store);
    match fs::read(&path) {
        Ok(found) if found == expected.as_bytes() => Ok(()),
        Ok(found) => {
            let found = String::from_utf8_lossy(&found);
            let what = format!(
                "it says {:?} and the index says {:?}: one of them is damaged or from another store; \
                 restore the directory from a backup",
                found.trim_end(),
                expected.trim_end()
            );
            Err(Error::damaged(&path, what))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => disk.write_durably(&path, expected.as_bytes()),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// What the file says, if it is whole.
pub(crate) fn read(dir: &Path) -> Option<StoreRecord> {
    let said = fs::read_to_string(dir.join(META_FILE)).ok()?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let ["format", format, "uuid", uuid, "partition_ms", partition_ms, "crc32c", _] = words[..] else {
        return None;
    };
    let store = StoreRecord {
        format: format.parse().ok()?,
        uuid: uuid.parse().ok()?,
        partition_ms: partition_ms.parse().ok()?,
    };
    (text(&store) == said).then_some(store)
}

/// Makes the file say that the directory belongs to this store.
pub(crate) fn rewrite(disk: &Disk, dir: &Path, store: &StoreRecord) -> Result<()> {
    disk.write_durably(&dir.join(META_FILE), text(store).as_bytes())
}

fn text(store: &StoreRecord) -> String {
    let body = format!("format {} uuid {} partition_ms {}", store.format, store.uuid, store.partition_ms);
    format!("{body} crc32c {}\n", checksum_of(&body))
}

fn checksum_of(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_truncation_is_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StoreRecord { format: 1, uuid: uuid::Uuid::from_u128(7), partition_ms: 1_000 };
        check(&Disk::default(), dir.path(), &store).expect("noted");
        assert_eq!(read(dir.path()), Some(store));
        let whole = fs::read(dir.path().join(META_FILE)).expect("read");
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                for bytes in [&flipped[..], &whole[..at]] {
                    fs::write(dir.path().join(META_FILE), bytes).expect("written");
                    assert_eq!(read(dir.path()), None);
                    let error = check(&Disk::default(), dir.path(), &store).expect_err("refused");
                    assert!(error.is_loss(), "{error}");
                }
            }
        }
    }
}
