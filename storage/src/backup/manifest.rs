//! What a manifest says: a file of the catalogue's form.

use crate::block::BlockRecord;
use crate::catalog::{self, FileEntry, Part, UnitEntry};
use crate::deletes::DeleteRecord;
use crate::error::{Error, Result};
use crate::index::{Checkpoint, StoreRecord};
use crate::log::SeriesDefinition;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) const MANIFEST_FILE: &str = "manifest";
/// The largest manifest that is read: some 5 million series.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// A file's bytes, and their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// A file as a backup knows it: one that is there under this version need not be copied again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    /// Below the backup's directory.
    pub(super) path: PathBuf,
    /// What the file has seen.
    pub(super) sealed_seq: u64,
    pub(super) delete_seq: u64,
}

impl Version {
    pub(super) fn of_block(record: &BlockRecord) -> Self {
        Self { path: record.path(Path::new("")), sealed_seq: record.sealed_seq, delete_seq: 0 }
    }

    pub(super) fn of_rollup(unit: &crate::rollup::UnitRecord, file: &crate::rollup::FileRecord) -> Self {
        Self {
            path: file.path(Path::new(""), unit.partition_start_ms),
            sealed_seq: unit.sealed_seq,
            delete_seq: unit.delete_seq,
        }
    }
}

/// What a manifest says.
pub(crate) struct Manifest {
    pub(super) store: StoreRecord,
    pub(super) series: Vec<SeriesDefinition>,
    pub(super) deletes: Vec<DeleteRecord>,
    pub(super) blocks: Vec<FileEntry>,
    pub(super) units: Vec<UnitEntry>,
    pub(super) checkpoint: Checkpoint,
}

impl Manifest {
    /// The manifest of the backup in the directory `from`.
    pub(super) fn read(from: &Path) -> Result<Self> {
        let path = from.join(MANIFEST_FILE);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Self::read_from(file, &path)
    }

    /// The manifest in `input`, which is called `path`.
    pub(super) fn read_from(input: impl Read, path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = input.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read", path))?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::damaged(path, format!("it is larger than {MANIFEST_BYTES_MAX} bytes")));
        }
        Self::decode(&bytes, path)
    }

    /// The manifest of these bytes: whole, or an error.
    pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let read = catalog::decode(bytes);
        if let Some(what) = read.damaged.first() {
            return Err(Error::damaged(path, what.as_str()));
        }
        let store = read.store.ok_or_else(|| Error::damaged(path, "it does not say whose it is"))?;
        let (mut series, mut deletes, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut units, mut checkpoint) = (Vec::new(), None);
        for part in read.parts {
            match part {
                Part::Series(part) => series.extend(part),
                Part::Deletes(part) => deletes.extend(part),
                Part::Files(part) => blocks.extend(part),
                Part::Checkpoint(part) => checkpoint = Some(part),
                Part::Rollups(part) => units.extend(part),
            }
        }
        let checkpoint = checkpoint.ok_or_else(|| Error::damaged(path, "it is not a backup's"))?;
        let this = Self { store, series, deletes, blocks, units, checkpoint };
        this.check(path)?;
        Ok(this)
    }

    /// Refuses what no backup says: a class that is no name of a directory, a file twice.
    fn check(&self, path: &Path) -> Result<()> {
        let classes = self.blocks.iter().map(|entry| &entry.record.class);
        let of_rollups = self.units.iter().flat_map(|unit| unit.record.files.iter().map(|file| &file.class));
        if let Some(class) = classes.chain(of_rollups).find(|class| !crate::retention::is_class(class)) {
            return Err(Error::damaged(path, format!("{class:?} is no class")));
        }
        if self.units.iter().any(|unit| unit.record.files.len() != unit.files.len()) {
            return Err(Error::damaged(path, "it says something else of its rollups than they are"));
        }
        let mut seen = HashSet::new();
        let twice = self.files().into_iter().find(|(version, _)| !seen.insert(version.path.clone()));
        twice.map_or(Ok(()), |(version, _)| {
            Err(Error::damaged(path, format!("it names {} twice", version.path.display())))
        })
    }

    /// All files that belong to the backup.
    pub(super) fn files(&self) -> Vec<(Version, Sum)> {
        let blocks = self.blocks.iter().map(|entry| {
            let sum = Sum { bytes: entry.bytes, crc32c: entry.crc32c };
            (Version::of_block(&entry.record), sum)
        });
        let rollups = self.units.iter().flat_map(|unit| {
            unit.record.files.iter().zip(&unit.files).map(|(file, (bytes, crc32c))| {
                (Version::of_rollup(&unit.record, file), Sum { bytes: *bytes, crc32c: *crc32c })
            })
        });
        blocks.chain(rollups).collect()
    }

    /// The files of an earlier backup of the same store.
    pub(super) fn earlier(to: &Path, store: &StoreRecord) -> HashMap<Version, Sum> {
        let earlier = Self::read(to).ok().filter(|manifest| manifest.store == *store);
        earlier.map(|manifest| manifest.files().into_iter().collect()).unwrap_or_default()
    }
}
