//! Files and directories made durable: what a power cut must find.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Syncs a file or directory; for a directory: the names in it.
pub(crate) fn sync_path(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}

/// Syncs the directory that names `path`.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_path)
}

/// Makes a file of these bytes, whole or not at all, durably.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    write_durably_with(path, |file| file.write_all(bytes))
}

/// The same, of what `write` writes.
pub(crate) fn write_durably_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let temporary_path = path.with_extension("tmp");
    let written = File::create(&temporary_path).and_then(|file| {
        let mut file = BufWriter::with_capacity(256 << 10, file);
        write(&mut file)?;
        file.flush()
    });
    written.map_err(Error::io("write", &temporary_path))?;
    sync_path(&temporary_path)?;
    fs::rename(&temporary_path, path).map_err(Error::io("rename", &temporary_path))?;
    sync_parent(path)
}

/// Makes a directory and those above it, durably.
pub(crate) fn create_dir_all(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(Error::io("make the directory", path))?,
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_path(parent),
        _ => sync_path(Path::new(".")),
    }
}

/// Removes a directory with all it holds, durably; none is fine.
pub(crate) fn remove_dir_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)).and_then(|()| sync_parent(path)),
    }
}

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
    fn nested_directories_are_made_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/c");
        create_dir_all(&path).expect("made");
        fs::write(path.join("f"), b"12345").expect("written");
        assert_eq!(bytes_below(dir.path()), 5);
        remove_dir_all(&dir.path().join("a")).expect("removed");
        remove_dir_all(&dir.path().join("a")).expect("none is fine");
        assert_eq!(bytes_below(dir.path()), 0);
        assert!(free_bytes(dir.path()).expect("told") > 0);
    }
}
