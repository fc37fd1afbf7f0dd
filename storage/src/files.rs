//! What files there are, how large they are, and how much room there is. Changes go through `disk`.

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// All files below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Bytes of all files below a directory; what can't be read counts nothing.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A volume's size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume {
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Bytes that an unprivileged process may still write.
    pub(crate) free_bytes: u64,
}

/// The size of the volume of `path`.
pub(crate) fn volume(path: &Path) -> Result<Volume> {
    let volume = rustix::fs::statvfs(path)
        .map_err(|errno| Error::io("ask for the free space of", path)(errno.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
    Ok(Volume { bytes: bytes(volume.f_blocks), free_bytes: bytes(volume.f_bavail) })
}

/// Bytes that an unprivileged process may still write to the volume of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    Ok(volume(path)?.free_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_a_directory_are_found_and_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("made");
        fs::write(dir.path().join("a/b/f"), b"12345").expect("written");
        assert_eq!(files_below(dir.path()), [dir.path().join("a/b/f")]);
        assert_eq!(bytes_below(dir.path()), 5);
        assert!(free_bytes(dir.path()).expect("told") > 0);
    }
}
