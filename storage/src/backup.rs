//! Backups: a directory of blocks and a manifest, taken while the store is at work, and stores made of
//! them again.
//!
//! A backup is what was acknowledged when it was begun: everything is sealed first. Blocks never change,
//! so a backup into the directory of an earlier one copies only those that are new. The manifest, written
//! last, says which blocks belong to it, with a checksum of each.
//!
//! **Limit.** Rollups are not in a backup: a restored store makes them anew of its samples. Those of
//! partitions whose samples have expired are not restored, and the report names them.

use crate::block::{BLOCKS_DIR, Block};
use crate::catalog::{self, CATALOG_DIR, Catalog, FileEntry, Part};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::files::{self, files_below};
use crate::identity;
use crate::index::{Checkpoint, StoreRecord, Whole, make_anew};
use crate::labels::Labels;
use crate::log::{LOG_DIR, Log, SeriesDefinition};
use crate::recover::INDEX_DIR;
use crate::rollup;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MANIFEST_FILE: &str = "manifest";
/// Where a restore builds a store, below the data directory, before it moves it up.
const RESTORING_DIR: &str = "restoring";
const FILES_PER_PART: usize = 2_000;
const COPY_BYTES: usize = 1 << 20;

/// What a backup or a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Blocks that belong to it.
    pub blocks: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// Blocks that had to be copied; the others were there.
    pub blocks_copied: usize,
    /// Bytes of those.
    pub bytes_copied: u64,
    /// Series.
    pub series: usize,
    /// What was left out: blocks that are damaged, and rollups that have outlived their samples.
    pub left_out: Vec<String>,
}

/// What a manifest says.
struct Manifest {
    store: StoreRecord,
    series: Vec<SeriesDefinition>,
    deletes: Vec<crate::deletes::DeleteRecord>,
    files: Vec<FileEntry>,
    checkpoint: Checkpoint,
}

impl Db {
    /// Backs the store up into the directory `to`, new or of an earlier backup. Writers and readers go on;
    /// seals, merges and expiry wait. `progress` is told the bytes copied and to be copied.
    ///
    /// # Errors
    /// When a block can't be read or a file can't be written: then the earlier backup stands.
    pub fn backup(&self, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<BackupReport> {
        let inner = self.inner();
        let mut maintenance = inner.maintenance.lock();
        inner.seal(&mut maintenance.next_block)?;
        let (blocks, deletes) = (inner.state.blocks(), inner.state.deletes());
        let mut series = inner.state.registry.all();
        series.retain(|series| series.is_durable());
        files::create_dir_all(to)?;
        let earlier = earlier_files(to, &inner.store);
        let damaged = inner.state.quarantined.lock().clone();
        let left_out = damaged.iter().map(|record| record.path(Path::new("")).display().to_string());
        let mut report =
            BackupReport { series: series.len(), left_out: left_out.collect(), ..BackupReport::default() };
        let units = inner.state.rollups();
        let outlived = units.values().filter(|unit| unit.record.samples_dropped && !unit.files.is_empty());
        report.left_out.extend(outlived.map(|unit| {
            let dir = rollup::unit_dir(Path::new(""), unit.record.partition_start_ms);
            format!("{}: its samples have expired, and rollups are not backed up", dir.display())
        }));
        let is_there = |block: &Block| {
            let known = earlier.get(&block.record().id)?;
            let bytes = fs::metadata(known.record.path(to)).ok()?.len();
            (known.record == *block.record() && bytes == known.bytes).then(|| known.clone())
        };
        let to_copy: u64 = blocks.iter().filter(|b| is_there(b).is_none()).map(|b| b.file_bytes()).sum();
        let mut entries = Vec::with_capacity(blocks.len());
        for block in blocks.iter() {
            let entry = match is_there(block) {
                Some(entry) => entry,
                None => {
                    let entry = FileEntry {
                        record: block.record().clone(),
                        bytes: block.file_bytes(),
                        crc32c: copy_durably(block.path(), &block.record().path(to))?,
                    };
                    report.blocks_copied += 1;
                    report.bytes_copied += entry.bytes;
                    progress(report.bytes_copied, to_copy);
                    entry
                }
            };
            report.bytes += entry.bytes;
            entries.push(entry);
        }
        report.blocks = entries.len();
        let deletes: Vec<_> = deletes.iter().copied().collect();
        let mut parts = catalog::parts(&series, &deletes);
        parts.extend(entries.chunks(FILES_PER_PART).map(|files| Part::Files(files.to_vec())));
        parts.push(Part::Checkpoint(inner.index.checkpoint()));
        files::write_durably(&to.join(MANIFEST_FILE), &catalog::encode(&inner.store, &parts))?;
        remove_others(to, &entries);
        Ok(report)
    }
}

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
    let manifest = read_manifest(from)?;
    let bytes: u64 = manifest.files.iter().map(|entry| entry.bytes).sum();
    for entry in &manifest.files {
        check(from, entry)?;
    }
    files::create_dir_all(data_dir)?;
    let _lock = crate::db::lock(data_dir)?;
    refuse_unless_empty(data_dir)?;
    let building = data_dir.join(RESTORING_DIR);
    files::remove_dir_all(&building)?;
    files::create_dir_all(&building)?;
    let mut report = BackupReport { blocks: manifest.files.len(), bytes, ..BackupReport::default() };
    for entry in &manifest.files {
        copy_durably(&entry.record.path(from), &entry.record.path(&building))?;
        report.blocks_copied += 1;
        report.bytes_copied += entry.bytes;
        progress(report.bytes_copied, bytes);
    }
    let store = StoreRecord { uuid: new_uuid, ..manifest.store };
    let mut series = Vec::with_capacity(manifest.series.len());
    for SeriesDefinition { id, labels } in manifest.series {
        let labels = Labels::new(labels);
        series.push((id, labels.map_err(|error| broken(from, &format!("series {id}: {error}")))?));
    }
    report.series = series.len();
    let named = || series.iter().map(|(id, labels)| (*id, labels));
    let mut catalog = Catalog::open(&building.join(CATALOG_DIR), store)?;
    catalog.rewrite(catalog::parts_of(named(), &manifest.deletes))?;
    let whole = Whole {
        checkpoint: manifest.checkpoint,
        series: named().collect(),
        blocks: manifest.files.iter().map(|entry| entry.record.clone()).collect(),
        deletes: manifest.deletes,
        // They are made anew of the samples.
        rollups: Vec::new(),
    };
    make_anew(&building.join(INDEX_DIR), store, &whole)?;
    Log::begin(&building.join(LOG_DIR), new_uuid, 1, manifest.checkpoint.next_seq)?.close()?;
    identity::rewrite(&building, &store)?;
    move_up(&building, data_dir)?;
    Ok(report)
}

/// Refuses a directory in which a restore was cut off.
pub(crate) fn refuse_unfinished(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(RESTORING_DIR);
    if path.exists() { Err(Error::Unfinished { path: data_dir.to_owned() }) } else { Ok(()) }
}

/// What a restore may find: nothing, or what a restore that was cut off has left.
fn refuse_unless_empty(data_dir: &Path) -> Result<()> {
    let parts = [BLOCKS_DIR, CATALOG_DIR, INDEX_DIR, LOG_DIR];
    if data_dir.join(RESTORING_DIR).exists() {
        return parts.iter().try_for_each(|part| files::remove_dir_all(&data_dir.join(part)));
    }
    let taken = parts.iter().chain(&["meta"]).find(|part| data_dir.join(part).exists());
    match taken {
        None => Ok(()),
        Some(part) => Err(Error::NotEmpty { path: data_dir.join(part) }),
    }
}

/// Moves a finished store to where it belongs; only when `restoring` is gone it may be opened.
fn move_up(building: &Path, data_dir: &Path) -> Result<()> {
    for part in [BLOCKS_DIR, CATALOG_DIR, INDEX_DIR, LOG_DIR, "meta"] {
        let (from, to) = (building.join(part), data_dir.join(part));
        if from.exists() {
            fs::rename(&from, &to).map_err(Error::io("move", &from))?;
        }
    }
    files::sync_path(data_dir)?;
    files::remove_dir_all(building)
}

/// The blocks of an earlier backup of the same store, by number.
fn earlier_files(to: &Path, store: &StoreRecord) -> HashMap<u64, FileEntry> {
    let earlier = read_manifest(to).ok().filter(|manifest| manifest.store == *store);
    earlier.into_iter().flat_map(|manifest| manifest.files).map(|entry| (entry.record.id, entry)).collect()
}

fn broken(from: &Path, what: &str) -> Error {
    Error::damaged(&from.join(MANIFEST_FILE), what)
}

fn read_manifest(from: &Path) -> Result<Manifest> {
    let path = from.join(MANIFEST_FILE);
    let read = catalog::decode(&fs::read(&path).map_err(Error::io("read", &path))?);
    if let Some(what) = read.damaged.first() {
        return Err(broken(from, what));
    }
    let store = read.store.ok_or_else(|| broken(from, "it does not say whose it is"))?;
    let (mut series, mut deletes, mut files, mut checkpoint) = (Vec::new(), Vec::new(), Vec::new(), None);
    for part in read.parts {
        match part {
            Part::Series(part) => series.extend(part),
            Part::Deletes(part) => deletes.extend(part),
            Part::Files(part) => files.extend(part),
            Part::Checkpoint(part) => checkpoint = Some(part),
        }
    }
    let checkpoint = checkpoint.ok_or_else(|| broken(from, "it is not a backup's"))?;
    Ok(Manifest { store, series, deletes, files, checkpoint })
}

/// Compares a file of a backup with what its manifest says of it.
fn check(from: &Path, entry: &FileEntry) -> Result<()> {
    let path = entry.record.path(from);
    let mut file = File::open(&path).map_err(Error::io("open", &path))?;
    let (bytes, crc32c) = read_through(&mut file, |_| Ok(())).map_err(Error::io("read", &path))?;
    if (bytes, crc32c) == (entry.bytes, entry.crc32c) {
        return Ok(());
    }
    Err(Error::damaged(&path, "it is not the file that the backup's manifest describes"))
}

/// Copies a file, durably, whole or not at all; answers the checksum of its bytes.
fn copy_durably(from: &Path, to: &Path) -> Result<u32> {
    to.parent().map_or(Ok(()), files::create_dir_all)?;
    let temporary_path = to.with_extension("tmp");
    let mut input = File::open(from).map_err(Error::io("open", from))?;
    let mut output = File::create(&temporary_path).map_err(Error::io("create", &temporary_path))?;
    let copied = read_through(&mut input, |bytes| output.write_all(bytes));
    let (_, crc32c) = copied.map_err(Error::io("copy", from))?;
    output.sync_all().map_err(Error::io("sync", &temporary_path))?;
    fs::rename(&temporary_path, to).map_err(Error::io("rename", &temporary_path))?;
    files::sync_parent(to)?;
    Ok(crc32c)
}

/// Hands all bytes on; answers how many they are, and their checksum.
fn read_through(
    input: &mut File,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, u32)> {
    let (mut buffer, mut bytes, mut crc32c) = (vec![0; COPY_BYTES], 0, 0);
    loop {
        let read = input.read(&mut buffer)?;
        let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) else {
            return Ok((bytes, crc32c));
        };
        each(read)?;
        bytes += read.len() as u64;
        crc32c = crc32c::crc32c_append(crc32c, read);
    }
}

/// Removes block files that belong to an earlier backup only.
fn remove_others(to: &Path, entries: &[FileEntry]) {
    let kept: HashSet<PathBuf> = entries.iter().map(|entry| entry.record.path(to)).collect();
    for path in files_below(&to.join(BLOCKS_DIR)).into_iter().filter(|path| !kept.contains(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "could not remove a block of an earlier backup");
        }
    }
}
