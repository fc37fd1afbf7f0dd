//! The only file that names sled: ordered keys and values on disk, with a durable sync.
//!
//! What sled 0.34 is known to do badly is dealt with here:
//! - `flush()` ends in `sync_file_range`, which does not survive a power cut: [`KeyValue::sync`] adds
//!   an fdatasync of the data file.
//! - Pages over a quarter of a segment become blob files, which are never synced: values are bounded
//!   by [`value_bytes_max`], which keeps that of the fullest leaf below that. Keys are bounded by whoever makes them.
//! - Two or three segments of a database that is written to are in memory: each has them as small as its values allow.
//!   They can't change later: a database that is there keeps those that it has.
//! - A damaged database panics: every call is guarded and becomes an error that names the database.
//! - It opens a database by the snapshot file whose name is the last, also one that it was still writing when its
//!   process ended: [`KeyValue::open`] removes those first.
//! - New files are not synced into their directories: [`KeyValue::open`] does that.
//!
//! What sled writes does not go through [`Disk`]: a watcher is told when a database is synced, after sled
//! has flushed and before the data file is synced. So of its bytes a watcher knows what was there at each
//! sync, and what is there now, of which any part may reach the disk.

use crate::disk::Disk;
use crate::error::{Error, Result};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest value that any database may hold, in bytes: those of earlier versions have segments of 8 MiB.
pub(crate) const VALUE_BYTES_MAX: usize = value_bytes_max(8 << 20);
const CACHE_BYTES: u64 = 4 << 20;
/// How often, and after which pause, a database is tried again that is not let go yet: 5 seconds in all.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The largest value that may be stored by segments of this size, in bytes: a leaf holds up to about 17, and a page
/// must stay below a quarter of a segment. Whoever fills leaves with values leaves room for their keys as well.
pub(crate) const fn value_bytes_max(segment_bytes: usize) -> usize {
    segment_bytes / (4 * 17)
}

/// One sled database.
pub(crate) struct KeyValue {
    disk: Disk,
    path: PathBuf,
    database: sled::Db,
    data_file: File,
    value_bytes_max: usize,
}

/// A named, ordered map in a database.
#[derive(Clone)]
pub(crate) struct Tree {
    path: PathBuf,
    tree: sled::Tree,
    value_bytes_max: usize,
}

impl KeyValue {
    /// Opens the database at `path`, or makes it, durably, with segments of this size.
    pub(crate) fn open(disk: &Disk, path: &Path, segment_bytes: usize) -> Result<Self> {
        let is_new = !path.exists();
        remove_unfinished_snapshots(disk, path)?;
        let segment_bytes = segment_bytes_of(path).unwrap_or(segment_bytes);
        let config = sled::Config::new()
            .path(path)
            .segment_size(segment_bytes)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        // A thread of its own: what sled keeps in thread-locals is not left half-done by a panic.
        let opened = std::thread::scope(|scope| {
            scope.spawn(|| open_when_let_go(path, &config)).join().unwrap_or_else(|_| {
                Err(Error::KeyValue { path: path.to_owned(), what: "it panicked while opening".to_owned() })
            })
        });
        let database = opened?;
        let data_path = path.join("db");
        let data_file = File::open(&data_path).map_err(Error::io("open", &data_path))?;
        let value_bytes_max = value_bytes_max(segment_bytes);
        let this = Self { disk: disk.clone(), path: path.to_owned(), database, data_file, value_bytes_max };
        if is_new {
            this.sync()?;
            for part in ["conf", "db", "blobs"] {
                disk.sync_path(&path.join(part))?;
            }
            disk.sync_path(path)?;
            disk.sync_parent(path)?;
        }
        Ok(this)
    }

    /// The files of the database at `path` in which values lie, each value in one piece: to be looked
    /// through when no database has them open.
    pub(crate) fn data_files(path: &Path) -> Vec<PathBuf> {
        let blobs = std::fs::read_dir(path.join("blobs")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = blobs.map(|entry| entry.path()).chain([path.join("db")]).collect();
        files.retain(|path| path.is_file());
        files
    }

    /// Whether a path below a database's directory, in its parts, is one of its files.
    pub(crate) fn is_file(parts: &[&str]) -> bool {
        match parts {
            ["conf" | "db"] | ["blobs", _] => true,
            [name] => name.starts_with("snap."),
            _ => false,
        }
    }

    /// The map of this name, made if need be.
    pub(crate) fn tree(&self, name: &str) -> Result<Tree> {
        let tree = guard(&self.path, || self.database.open_tree(name))?;
        Ok(Tree { path: self.path.clone(), tree, value_bytes_max: self.value_bytes_max })
    }

    /// Makes everything written before durable: it survives a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        guard(&self.path, || self.database.flush())?;
        self.disk.sync_data(&self.data_file, &self.path.join("db"))
    }

    /// Closes it, and waits until sled has let go of its files, which it does on threads of its own.
    pub(crate) fn close(self) -> Result<()> {
        let Self { path, database, data_file, .. } = self;
        drop(database);
        for _ in 0..LOCK_TRIES {
            if data_file.try_lock().is_ok() {
                return Ok(());
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(Error::KeyValue { path, what: "it was not let go of when it was closed".to_owned() })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Tree {
    /// Writes one pair; durable after the next [`KeyValue::sync`].
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        assert!(value.len() <= self.value_bytes_max, "a value of {} bytes", value.len());
        guard(&self.path, || self.tree.insert(key, value)).map(drop)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(guard(&self.path, || self.tree.get(key))?.map(|value| value.to_vec()))
    }

    /// Removes one pair. A power cut may bring it back until the next sync, and a kill even after it:
    /// nothing may depend on it being gone.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<()> {
        guard(&self.path, || self.tree.remove(key)).map(drop)
    }

    /// Calls `each` with every pair in key order, until it fails.
    pub(crate) fn scan(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut pairs = guard(&self.path, || Ok(self.tree.iter()))?;
        while let Some((key, value)) = guard(&self.path, || pairs.next().transpose())? {
            each(&key, &value)?;
        }
        Ok(())
    }
}

/// Removes the snapshots of the database at `path` that were never finished: nothing was done by them yet. They are
/// written while a database is being opened, and nobody else opens one.
fn remove_unfinished_snapshots(disk: &Disk, path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            disk.remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// The size of the segments of the database at `path`, as its file `conf` has it in a line of its own; `None` where
/// there is no database, or the file is damaged, which sled then says.
fn segment_bytes_of(path: &Path) -> Option<usize> {
    let conf = std::fs::read(path.join("conf")).ok()?;
    let line = conf.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"segment_size: "))?;
    let bytes: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
    (bytes.is_power_of_two() && (1 << 19..=1 << 24).contains(&bytes)).then_some(bytes)
}

/// Drops what holds a database for the last time: sled panics where the sync fails that it does then.
pub(crate) fn let_go<T>(path: &Path, holder: T) {
    let dropped = guard(path, || {
        drop(holder);
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "a database could not be closed in order");
    }
}

/// Opens a database, waiting for a handle of this process that was dropped a moment ago: sled lets go
/// of its lock on a thread of its own. Other processes are kept out by the lock of the data directory.
fn open_when_let_go(path: &Path, config: &sled::Config) -> Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match guard(path, || config.open()) {
            Err(Error::Io { source, .. }) if source.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    guard(path, || config.open())
}

/// Runs a call of sled; its errors and panics become errors that name the database.
fn guard<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => {
            Err(Error::Io { doing: "use the key-value store", path: path.to_owned(), source })
        }
        Ok(Err(error)) => Err(Error::KeyValue { path: path.to_owned(), what: error.to_string() }),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "it panicked".to_owned());
            Err(Error::KeyValue { path: path.to_owned(), what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_reopening_in_key_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv");
        let open = || KeyValue::open(&Disk::default(), &path, 2 << 20).expect("opens");
        let pairs = |kv: &KeyValue| {
            let mut all = Vec::new();
            let tree = kv.tree("t").expect("a tree");
            tree.scan(|k, v| {
                all.push((k.to_vec(), v.to_vec()));
                Ok(())
            })
            .expect("scans");
            all
        };
        let kv = open();
        let tree = kv.tree("t").expect("a tree");
        for key in [3u8, 1, 2] {
            tree.put(&[key], &vec![key; 30_000]).expect("puts");
        }
        tree.remove(&[2]).expect("removes");
        kv.sync().expect("syncs");
        let before = pairs(&kv);
        assert_eq!(before.iter().map(|(k, _)| k[0]).collect::<Vec<_>>(), [1, 3]);
        drop((tree, kv));
        assert_eq!(pairs(&open()), before);
    }

    #[test]
    fn a_database_keeps_the_segments_with_which_it_was_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv");
        let open = |segment_bytes| KeyValue::open(&Disk::default(), &path, segment_bytes).expect("opens");
        let value = vec![7; VALUE_BYTES_MAX];
        open(8 << 20).tree("t").and_then(|tree| tree.put(b"large", &value)).expect("put");
        let again = open(2 << 20);
        assert_eq!((again.value_bytes_max, segment_bytes_of(&path)), (VALUE_BYTES_MAX, Some(8 << 20)));
        let tree = again.tree("t").expect("a tree");
        assert_eq!(tree.get(b"large").expect("read"), Some(value.clone()));
        tree.put(b"as large", &value).expect("put");
    }

    #[test]
    fn a_snapshot_that_was_never_finished_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv");
        let open = || KeyValue::open(&Disk::default(), &path, 2 << 20).expect("opens");
        open().tree("t").and_then(|tree| tree.put(b"key", b"value")).expect("put");
        let unfinished = path.join("snap.FFFFFFFFFFFFFF00.generating");
        for bytes in [&b""[..], b"a part of it, more than a dozen bytes"] {
            std::fs::write(&unfinished, bytes).expect("written");
            let tree = open().tree("t").expect("a tree");
            assert_eq!(tree.get(b"key").expect("read"), Some(b"value".to_vec()));
            assert!(!unfinished.exists());
        }
    }

    #[test]
    fn a_database_that_is_let_go_late_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv");
        let held = KeyValue::open(&Disk::default(), &path, 2 << 20).expect("opens");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                drop(held);
            });
            KeyValue::open(&Disk::default(), &path, 2 << 20).expect("opens once it is let go");
        });
    }

    #[test]
    fn a_damaged_database_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kv");
        std::fs::create_dir_all(&path).expect("made");
        std::fs::write(path.join("conf"), b"not a configuration").expect("written");
        std::fs::write(path.join("db"), b"not a database").expect("written");
        let error = KeyValue::open(&Disk::default(), &path, 2 << 20).map(drop).expect_err("refused");
        assert!(error.to_string().contains("kv"), "{error}");
    }
}
