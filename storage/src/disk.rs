//! Every change of the data directory, made durable where its caller says so: what a power cut must find.
//!
//! All of them go through a [`Disk`], so that a test can watch them, cut them off at any point and tell
//! what would have reached the disk by then. What sled writes by itself is seen when it is synced; see
//! `keyvalue`. Reading goes past it.

use crate::error::{Error, Result};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A file is made, or emptied, and written into from now on.
    Create(&'a Path),
    /// A directory is made.
    MakeDir(&'a Path),
    /// What was written into a file reaches the disk; of a directory: the names in it.
    Sync(&'a Path),
    /// A file or directory gets another name, in the place of what has it.
    Rename {
        /// The name that it has.
        from: &'a Path,
        /// The name that it gets.
        to: &'a Path,
    },
    /// A file is removed.
    Remove(&'a Path),
    /// A directory is removed with all that it holds.
    RemoveDir(&'a Path),
}

/// Is told of each change before it is made.
pub trait Watcher: Send + Sync {
    /// Lets the change be made, or not.
    ///
    /// # Errors
    /// Then it is not made, and whoever wanted it gets this error.
    fn before(&self, change: Change<'_>) -> io::Result<()>;
}

/// The way to the file system.
#[derive(Clone, Default)]
pub struct Disk(Option<Arc<dyn Watcher>>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Disk(watched)" } else { "Disk" })
    }
}

impl Disk {
    /// A disk whose changes are watched.
    #[must_use]
    pub fn watched(watcher: Arc<dyn Watcher>) -> Self {
        Self(Some(watcher))
    }

    fn before(&self, change: Change<'_>) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |watcher| watcher.before(change))
    }

    /// Makes a file, or empties it.
    pub(crate) fn create(&self, path: &Path) -> Result<File> {
        self.before(Change::Create(path)).and_then(|()| File::create(path)).map_err(Error::io("create", path))
    }

    /// Says that a file that is open is written into, or made by being opened.
    pub(crate) fn writes(&self, path: &Path) -> Result<()> {
        self.before(Change::Create(path)).map_err(Error::io("write", path))
    }

    /// Syncs an open file.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> Result<()> {
        self.before(Change::Sync(path)).and_then(|()| file.sync_all()).map_err(Error::io("sync", path))
    }

    /// Syncs what is in an open file, and no more of its attributes than it takes to read that.
    pub(crate) fn sync_data(&self, file: &File, path: &Path) -> Result<()> {
        self.before(Change::Sync(path)).and_then(|()| file.sync_data()).map_err(Error::io("sync", path))
    }

    /// Syncs a file or directory; for a directory: the names in it.
    pub(crate) fn sync_path(&self, path: &Path) -> Result<()> {
        let synced = self.before(Change::Sync(path)).and_then(|()| File::open(path)?.sync_all());
        synced.map_err(Error::io("sync", path))
    }

    /// Syncs the directory that names `path`.
    pub(crate) fn sync_parent(&self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.sync_path(parent))
    }

    /// Gives a file or directory another name; durable once its directories are synced.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self.before(Change::Rename { from, to }).and_then(|()| fs::rename(from, to));
        renamed.map_err(Error::io("rename", from))
    }

    /// Removes a file; durable once its directory is synced.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        self.before(Change::Remove(path))
            .and_then(|()| fs::remove_file(path))
            .map_err(Error::io("remove", path))
    }

    /// Makes a file of these bytes, whole or not at all, durably.
    pub(crate) fn write_durably(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write_durably_with(path, |file| file.write_all(bytes))
    }

    /// The same, of what `write` writes.
    pub(crate) fn write_durably_with(
        &self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<()> {
        let temporary_path = path.with_extension("tmp");
        let mut file = BufWriter::with_capacity(256 << 10, self.create(&temporary_path)?);
        let written = write(&mut file).and_then(|()| file.flush());
        written.map_err(Error::io("write", &temporary_path))?;
        self.sync(file.get_ref(), &temporary_path)?;
        self.rename(&temporary_path, path)?;
        self.sync_parent(path)
    }

    /// Makes a directory and those above it, durably.
    pub(crate) fn create_dir_all(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        match self.before(Change::MakeDir(path)).and_then(|()| fs::create_dir(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::io("make the directory", path))?,
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_path(parent),
            _ => self.sync_path(Path::new(".")),
        }
    }

    /// Removes a directory with all it holds, durably; none is fine.
    pub(crate) fn remove_dir_all(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        match self.before(Change::RemoveDir(path)).and_then(|()| fs::remove_dir_all(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::io("remove", path)).and_then(|()| self.sync_parent(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::bytes_below;
    use parking_lot::Mutex;

    #[test]
    fn nested_directories_are_made_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/c");
        let disk = Disk::default();
        disk.create_dir_all(&path).expect("made");
        fs::write(path.join("f"), b"12345").expect("written");
        assert_eq!(bytes_below(dir.path()), 5);
        disk.remove_dir_all(&dir.path().join("a")).expect("removed");
        disk.remove_dir_all(&dir.path().join("a")).expect("none is fine");
        assert_eq!(bytes_below(dir.path()), 0);
    }

    struct Told(Mutex<Vec<String>>);

    impl Watcher for Told {
        fn before(&self, change: Change<'_>) -> io::Result<()> {
            let mut told = self.0.lock();
            told.push(format!("{change:?}"));
            if told.len() > 3 { Err(io::Error::other("no more")) } else { Ok(()) }
        }
    }

    #[test]
    fn a_watcher_is_told_in_order_and_can_end_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = Arc::new(Told(Mutex::default()));
        let disk = Disk::watched(told.clone());
        let error = disk.write_durably(&dir.path().join("f"), b"1").expect_err("ended").to_string();
        assert!(error.contains("no more"), "{error}");
        let kinds: Vec<String> = told
            .0
            .lock()
            .iter()
            .map(|change| change.split(['(', ' ']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds, ["Create", "Sync", "Rename", "Sync"]);
    }
}
