//! What a backup is made of: all that was acknowledged at one moment, its files held open.

use super::BackupReport;
use super::manifest::{Sum, Version};
use crate::block::Block;
use crate::catalog::{self, FileEntry, Part, UnitEntry};
use crate::deletes::DeleteRecord;
use crate::error::Result;
use crate::index::{Checkpoint, StoreRecord};
use crate::inner::Inner;
use crate::rollup::{RollupFile, UnitRecord, unit_dir};
use crate::series::Series;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Blocks in one part of a manifest.
const FILES_PER_PART: usize = 2_000;

/// A store at one moment.
pub(super) struct Snapshot {
    pub(super) store: StoreRecord,
    checkpoint: Checkpoint,
    series: Vec<Arc<Series>>,
    deletes: Vec<DeleteRecord>,
    blocks: Arc<Vec<Arc<Block>>>,
    /// With files that could be opened only.
    units: Vec<(UnitRecord, Vec<Arc<RollupFile>>)>,
    left_out: Vec<String>,
}

/// A file that belongs to a backup.
pub(super) struct Source<'a> {
    pub(super) version: Version,
    /// Below the backup's directory.
    pub(super) path: PathBuf,
    file: &'a File,
    pub(super) bytes: u64,
}

impl Inner {
    /// Seals everything, and takes hold of all that there is then.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let mut maintenance = self.maintenance.lock();
        self.seal(&mut maintenance.next_block)?;
        let mut series = self.state.registry.all();
        series.retain(|series| series.is_durable());
        let damaged = self.state.quarantined.lock().clone();
        let mut left_out: Vec<String> =
            damaged.iter().map(|record| record.path(Path::new("")).display().to_string()).collect();
        let mut units = Vec::new();
        for unit in self.state.rollups().values().filter(|unit| !unit.record.files.is_empty()) {
            let broken = unit.broken.load(Ordering::Relaxed);
            if broken && !unit.record.samples_dropped {
                // It is made anew of the samples, here as there.
                continue;
            }
            if broken {
                let dir = unit_dir(Path::new(""), unit.record.partition_start_ms);
                left_out.push(format!("{}: what is damaged of its rollups", dir.display()));
            }
            let files = unit.files.iter().map(|file| file.record.clone()).collect();
            units.push((UnitRecord { files, ..unit.record.clone() }, unit.files.clone()));
        }
        Ok(Snapshot {
            store: self.store,
            checkpoint: self.index.checkpoint(),
            series,
            deletes: self.state.deletes().iter().copied().collect(),
            blocks: self.state.blocks(),
            units,
            left_out,
        })
    }
}

impl Snapshot {
    /// All files, blocks first.
    pub(super) fn sources(&self) -> Vec<Source<'_>> {
        let source =
            |version: Version, file, bytes| Source { path: version.path.clone(), version, file, bytes };
        let blocks = self
            .blocks
            .iter()
            .map(|block| source(Version::of_block(block.record()), block.file(), block.file_bytes()));
        let rollups = self.units.iter().flat_map(|(unit, files)| {
            files.iter().map(move |file| {
                let version = Version::of_rollup(unit, &file.record);
                Source { path: version.path.clone(), version, file: file.file(), bytes: file.file_bytes() }
            })
        });
        blocks.chain(rollups).collect()
    }

    /// What can be said before anything is copied.
    pub(super) fn report(&self) -> BackupReport {
        BackupReport {
            blocks: self.blocks.len(),
            rollups: self.units.iter().map(|(_, files)| files.len()).sum(),
            bytes: self.sources().iter().map(|source| source.bytes).sum(),
            series: self.series.len(),
            left_out: self.left_out.clone(),
            ..BackupReport::default()
        }
    }

    /// The manifest's bytes; `sums` are those of [`sources`](Self::sources), in their order.
    pub(super) fn manifest(&self, sums: &[Sum]) -> Vec<u8> {
        let mut parts: Vec<_> = catalog::parts(&self.series, &self.deletes).collect();
        let (of_blocks, mut of_rollups) = sums.split_at(self.blocks.len());
        let entries: Vec<FileEntry> = self
            .blocks
            .iter()
            .zip(of_blocks)
            .map(|(block, sum)| FileEntry {
                record: block.record().clone(),
                bytes: sum.bytes,
                crc32c: sum.crc32c,
            })
            .collect();
        parts.extend(entries.chunks(FILES_PER_PART).map(|files| Part::Files(files.to_vec())));
        for (record, files) in &self.units {
            let (of_unit, rest) = of_rollups.split_at(files.len());
            of_rollups = rest;
            let files = of_unit.iter().map(|sum| (sum.bytes, sum.crc32c)).collect();
            parts.push(Part::Rollups(vec![UnitEntry { record: record.clone(), files }]));
        }
        parts.push(Part::Checkpoint(self.checkpoint));
        catalog::encode(&self.store, &parts)
    }
}

impl<'a> Source<'a> {
    /// Reads the file from its beginning, beside whoever else reads it.
    pub(super) fn reader(&self) -> SourceReader<'a> {
        SourceReader { file: self.file, bytes: self.bytes, at: 0, crc32c: 0 }
    }
}

/// Reads exactly the bytes that a file had when it was opened, and sums them up.
pub(super) struct SourceReader<'a> {
    file: &'a File,
    bytes: u64,
    at: u64,
    crc32c: u32,
}

impl SourceReader<'_> {
    /// The sum of what was read.
    pub(super) fn sum(&self) -> Sum {
        Sum { bytes: self.at, crc32c: self.crc32c }
    }
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..left).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.file.read_at(buffer, self.at)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        };
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.at += read as u64;
        Ok(read)
    }
}
