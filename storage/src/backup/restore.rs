//! Restoring: a store of a backup's files and manifest, built aside and moved to its place when it is whole.

use super::manifest::{MANIFEST_FILE, Manifest, Sum};
use super::{BackupReport, COPY_BYTES, MADE_PARTS, PARTS};
use crate::block::BLOCKS_DIR;
use crate::catalog::{self, CATALOG_DIR, Catalog};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::identity;
use crate::index::{StoreRecord, Whole, make_anew};
use crate::labels::Labels;
use crate::log::{LOG_DIR, Log, SeriesDefinition};
use crate::recover::INDEX_DIR;
use crate::retention::is_class;
use crate::rollup::ROLLUPS_DIR;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use uuid::Uuid;

/// Where a restore builds a store, below the data directory, before it moves it up.
pub(crate) const RESTORING_DIR: &str = "restoring";

/// Makes a store of the backup in `from` in the directory `data_dir`, which must be empty. All of the
/// backup is checked first. The store is one of its own, `new_uuid`.
///
/// # Errors
/// When the backup is damaged, the directory is not empty, or a file can't be written.
pub fn restore(
    from: &Path,
    data_dir: &Path,
    new_uuid: Uuid,
    mut progress: impl FnMut(u64, u64),
) -> Result<BackupReport> {
    let manifest = Manifest::read(from)?;
    let files = manifest.files();
    for (version, sum) in &files {
        check(&from.join(&version.path), *sum)?;
    }
    let bytes: u64 = files.iter().map(|(_, sum)| sum.bytes).sum();
    let building = Building::begin(data_dir)?;
    let mut copied_bytes = 0;
    for (version, sum) in &files {
        let path = from.join(&version.path);
        let input = File::open(&path).map_err(Error::io("open", &path))?;
        if building.receive(&version.path, input)? != *sum {
            return Err(Error::damaged(&path, "it changed while it was copied"));
        }
        copied_bytes += sum.bytes;
        progress(copied_bytes, bytes);
    }
    building.finish(manifest, new_uuid)
}

/// Makes a store of a backup that comes as a stream, as [`restore`] does of a directory. Nothing of it is in
/// its place before the stream has been checked to its last file; where it was cut off or is damaged,
/// nothing is left of it. `progress` is told the bytes of files that have come.
///
/// # Errors
/// When the stream is damaged or was cut off, the directory is not empty, or a file can't be written.
pub fn restore_stream(
    from: impl Read,
    data_dir: &Path,
    new_uuid: Uuid,
    progress: impl FnMut(u64),
) -> Result<BackupReport> {
    let building = Building::begin(data_dir)?;
    let received = receive_all(from, &building, progress).and_then(|(manifest, mut received)| {
        for (version, sum) in manifest.files() {
            let path = Path::new("the stream").join(&version.path);
            match received.remove(&version.path) {
                Some(found) if found == sum => {}
                Some(_) => {
                    return Err(Error::damaged(&path, "it is not the file that the manifest describes"));
                }
                None => return Err(Error::damaged(&path, "the manifest names it, and it did not come")),
            }
        }
        // Files of an earlier backup, in a tar that was made of a directory.
        for path in received.keys().map(|path| building.dir.join(path)) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(manifest)
    });
    match received {
        Ok(manifest) => building.finish(manifest, new_uuid),
        Err(error) => {
            building.give_up();
            Err(error)
        }
    }
}

/// Takes all files of a stream, and its manifest.
fn receive_all(
    from: impl Read,
    building: &Building,
    mut progress: impl FnMut(u64),
) -> Result<(Manifest, HashMap<PathBuf, Sum>)> {
    let stream = Path::new("the stream");
    let broken = |error: std::io::Error| {
        Error::damaged(stream, format!("it is no tar of a backup, or was cut off: {error}"))
    };
    let mut archive = tar::Archive::new(from);
    let (mut manifest, mut received, mut bytes) = (None, HashMap::new(), 0);
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let wanted = entry.size();
        let name = received_path(&path).filter(|_| kind.is_file());
        let name = name.ok_or_else(|| {
            Error::damaged(&stream.join(&path), "no backup has such a file: the stream is another's")
        })?;
        if name == Path::new(MANIFEST_FILE) {
            let said = Manifest::read_from(entry, &stream.join(&name))?;
            if manifest.replace(said).is_some() {
                return Err(Error::damaged(&stream.join(&name), "it comes twice"));
            }
            continue;
        }
        let sum = building.receive(&name, entry)?;
        if sum.bytes != wanted {
            return Err(Error::damaged(&stream.join(&name), "the stream was cut off within this file"));
        }
        bytes += sum.bytes;
        progress(bytes);
        if received.insert(name.clone(), sum).is_some() {
            return Err(Error::damaged(&stream.join(&name), "it comes twice"));
        }
    }
    let missing = || Error::damaged(stream, "it ends before its manifest: it was cut off");
    Ok((manifest.ok_or_else(missing)?, received))
}

/// The path of a backup's file, as a stream says it; `None`: no backup has such a file.
pub(crate) fn received_path(path: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let numbered = |name: &str, extension: &str| {
        let number = name.strip_suffix(extension).filter(|number| number.len() == 16);
        number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let is_start = |start: &str| start.parse::<i64>().is_ok_and(|ms| ms.to_string() == start);
    let known = match parts[..] {
        [MANIFEST_FILE] => true,
        [BLOCKS_DIR, class, start, name] => is_class(class) && is_start(start) && numbered(name, ".block"),
        [ROLLUPS_DIR, start, name] => is_start(start) && numbered(name, ".rollup"),
        _ => false,
    };
    known.then(|| parts.iter().collect())
}

/// A store that is being built.
struct Building {
    data_dir: PathBuf,
    dir: PathBuf,
    /// Held locked meanwhile.
    _lock: File,
}

impl Building {
    fn begin(data_dir: &Path) -> Result<Self> {
        Disk::default().create_dir_all(data_dir)?;
        let lock = crate::db::lock(data_dir)?;
        refuse_unless_empty(data_dir)?;
        let dir = data_dir.join(RESTORING_DIR);
        Disk::default().remove_dir_all(&dir)?;
        Disk::default().create_dir_all(&dir)?;
        Ok(Self { data_dir: data_dir.to_owned(), dir, _lock: lock })
    }

    /// Writes a file below the building, durably.
    fn receive(&self, path: &Path, mut input: impl Read) -> Result<Sum> {
        let to = self.dir.join(path);
        to.parent().map_or(Ok(()), |dir| Disk::default().create_dir_all(dir))?;
        let mut output = File::create(&to).map_err(Error::io("create", &to))?;
        let copied = read_through(&mut input, |bytes| output.write_all(bytes));
        let sum = copied.map_err(Error::io("copy into", &to))?;
        output.sync_all().map_err(Error::io("sync", &to))?;
        Disk::default().sync_parent(&to)?;
        Ok(sum)
    }

    /// Makes what the manifest says beside the files, and moves all to where it belongs.
    fn finish(self, manifest: Manifest, new_uuid: Uuid) -> Result<BackupReport> {
        let files = manifest.files();
        let bytes: u64 = files.iter().map(|(_, sum)| sum.bytes).sum();
        let mut report = BackupReport {
            blocks: manifest.blocks.len(),
            rollups: files.len() - manifest.blocks.len(),
            bytes,
            files_copied: files.len(),
            bytes_copied: bytes,
            ..BackupReport::default()
        };
        let store = StoreRecord { uuid: new_uuid, ..manifest.store };
        let mut series = Vec::with_capacity(manifest.series.len());
        for SeriesDefinition { id, labels } in manifest.series {
            let labels = Labels::new(labels)
                .map_err(|error| Error::damaged(Path::new(MANIFEST_FILE), format!("series {id}: {error}")))?;
            series.push((id, labels));
        }
        report.series = series.len();
        let named = || series.iter().map(|(id, labels)| (*id, labels));
        let mut catalog = Catalog::open(&Disk::default(), &self.dir.join(CATALOG_DIR), store)?;
        let parts = catalog::parts_of(named(), &manifest.deletes);
        let parts = parts.chain([catalog::Part::Checkpoint(manifest.checkpoint)]);
        catalog.rewrite(parts)?;
        let whole = Whole {
            checkpoint: manifest.checkpoint,
            series: named().map(|(id, labels)| (id, Cow::Borrowed(labels))).collect(),
            blocks: manifest.blocks.into_iter().map(|entry| entry.record).collect(),
            deletes: manifest.deletes,
            rollups: manifest.units.into_iter().map(|unit| unit.record).collect(),
        };
        make_anew(&Disk::default(), &self.dir.join(INDEX_DIR), store, &whole)?;
        Log::begin(&Disk::default(), &self.dir.join(LOG_DIR), new_uuid, 1, manifest.checkpoint.next_seq)?
            .close()?;
        identity::rewrite(&Disk::default(), &self.dir, &store)?;
        self.move_up()?;
        Ok(report)
    }

    /// Moves a finished store to where it belongs; only when `restoring` is gone it may be opened.
    fn move_up(&self) -> Result<()> {
        for part in PARTS.into_iter().chain(MADE_PARTS).chain(["meta"]) {
            let (from, to) = (self.dir.join(part), self.data_dir.join(part));
            if from.exists() {
                fs::rename(&from, &to).map_err(Error::io("move", &from))?;
            }
        }
        Disk::default().sync_path(&self.data_dir)?;
        Disk::default().remove_dir_all(&self.dir)
    }

    /// Removes what has come.
    fn give_up(self) {
        if let Err(error) = Disk::default().remove_dir_all(&self.dir) {
            tracing::warn!(%error, "could not remove what was restored in part; the next restore does");
        }
    }
}

/// Refuses a directory in which a restore was cut off.
pub(crate) fn refuse_unfinished(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(RESTORING_DIR);
    if path.exists() { Err(Error::Unfinished { path: data_dir.to_owned() }) } else { Ok(()) }
}

/// What a restore may find: nothing, or what a restore that was cut off has left.
fn refuse_unless_empty(data_dir: &Path) -> Result<()> {
    let mut parts = PARTS.into_iter().chain(MADE_PARTS);
    if data_dir.join(RESTORING_DIR).exists() {
        return parts.try_for_each(|part| Disk::default().remove_dir_all(&data_dir.join(part)));
    }
    let taken = parts.chain(["meta"]).find(|part| data_dir.join(part).exists());
    match taken {
        None => Ok(()),
        Some(part) => Err(Error::NotEmpty { path: data_dir.join(part) }),
    }
}

/// Compares a file of a backup with what its manifest says of it.
fn check(path: &Path, expected: Sum) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let found = read_through(&mut file, |_| Ok(())).map_err(Error::io("read", path))?;
    if found == expected {
        return Ok(());
    }
    Err(Error::damaged(path, "it is not the file that the backup's manifest describes"))
}

/// Hands all bytes on, and sums them up.
fn read_through(
    input: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<Sum> {
    let (mut buffer, mut sum) = (vec![0; COPY_BYTES], Sum { bytes: 0, crc32c: 0 });
    loop {
        let read = input.read(&mut buffer)?;
        let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) else { return Ok(sum) };
        each(read)?;
        sum.bytes += read.len() as u64;
        sum.crc32c = crc32c::crc32c_append(sum.crc32c, read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_paths_of_a_backup_are_received() {
        let received = |path: &str| received_path(Path::new(path)).map(|p| p.display().to_string());
        let block = "blocks/cpu/-86400000/00000000000000ff.block";
        assert_eq!(received(block).as_deref(), Some(block));
        assert_eq!(received(&format!("./{block}")).as_deref(), Some(block));
        assert_eq!(
            received("rollups/0/0000000000000001.rollup").as_deref(),
            Some("rollups/0/0000000000000001.rollup")
        );
        assert_eq!(received("manifest").as_deref(), Some("manifest"));
        for wrong in [
            "",
            "/manifest",
            "../manifest",
            "blocks/../manifest",
            "blocks/Cpu/0/0000000000000001.block",
            "blocks/cpu/0/1.block",
            "blocks/cpu/+0/0000000000000001.block",
            "rollups/0/x/0000000000000001.rollup",
            "meta",
            "blocks/cpu/0/0000000000000001.rollup",
        ] {
            assert_eq!(received(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_stream_panics_or_leaves_anything(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let dir = tempfile::tempdir().expect("a directory");
            let restored = restore_stream(&bytes[..], dir.path(), Uuid::from_u128(1), |_| {});
            prop_assert!(restored.is_err());
            prop_assert!(!dir.path().join(RESTORING_DIR).exists() && !dir.path().join("meta").exists());
        }
    }
}
