//! Backups: a directory of blocks and rollups with a manifest, or the same as a tar stream, taken while the
//! store is at work, and stores made of them again.
//!
//! A backup is what was acknowledged when it was begun: everything is sealed first. Files never change, so
//! a backup into the directory of an earlier one copies only those that are new. The manifest, written
//! last, says which files belong to it, with a checksum of each. Only the seal keeps maintenance waiting:
//! what is copied then is held open, and may be merged away or expire meanwhile.
//!
//! `manifest` is what a manifest says, `snapshot` what a backup is made of, `stream` the tar, `restore` the
//! way back.

mod manifest;
mod restore;
mod snapshot;
mod stream;

pub use restore::{restore, restore_stream};

#[cfg(feature = "fuzzing")]
pub(crate) use manifest::Manifest;
pub(crate) use restore::{RESTORING_DIR, received_path, refuse_unfinished};

use crate::block::BLOCKS_DIR;
use crate::catalog::CATALOG_DIR;
use crate::db::Db;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::rollup::ROLLUPS_DIR;
use manifest::{MANIFEST_FILE, Sum};
use snapshot::Source;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How much is copied at once.
const COPY_BYTES: usize = 1 << 20;
/// The directories of a store's files that a backup has as they are.
const PARTS: [&str; 2] = [BLOCKS_DIR, ROLLUPS_DIR];
/// Those that a restore makes anew.
const MADE_PARTS: [&str; 3] = [CATALOG_DIR, crate::recover::INDEX_DIR, crate::log::LOG_DIR];

/// What a backup or a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Blocks that belong to it.
    pub blocks: usize,
    /// Files of rollups that belong to it.
    pub rollups: usize,
    /// Bytes of both.
    pub bytes: u64,
    /// Files that had to be copied; the others were there.
    pub files_copied: usize,
    /// Bytes of those.
    pub bytes_copied: u64,
    /// Series.
    pub series: usize,
    /// What was left out, since it is damaged.
    pub left_out: Vec<String>,
}

impl Db {
    /// Backs the store up into the directory `to`, new or of an earlier backup. Writers and readers go on,
    /// and so does maintenance once everything is sealed. `progress` is told the bytes copied and to be
    /// copied.
    ///
    /// # Errors
    /// When a file can't be read or written: then the earlier backup stands.
    pub fn backup(&self, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<BackupReport> {
        let snapshot = self.inner().snapshot()?;
        Disk::default().create_dir_all(to)?;
        let earlier = manifest::Manifest::earlier(to, &snapshot.store);
        let sources = snapshot.sources();
        let is_there = |source: &Source<'_>| {
            let known = earlier.get(&source.version)?;
            let bytes = fs::metadata(to.join(&source.path)).ok()?.len();
            (bytes == known.bytes).then_some(*known)
        };
        let to_copy = sources.iter().filter(|source| is_there(source).is_none()).map(|s| s.bytes).sum();
        let mut report = snapshot.report();
        let mut sums = Vec::with_capacity(sources.len());
        for source in &sources {
            sums.push(match is_there(source) {
                Some(sum) => sum,
                None => {
                    let sum = copy_durably(source, &to.join(&source.path))?;
                    report.files_copied += 1;
                    report.bytes_copied += sum.bytes;
                    progress(report.bytes_copied, to_copy);
                    sum
                }
            });
        }
        let manifest = snapshot.manifest(&sums);
        Disk::default().write_durably(&to.join(MANIFEST_FILE), &manifest)?;
        remove_others(to, &sources);
        Ok(report)
    }

    /// Writes a whole backup into `to`, as a tar of what [`backup`](Self::backup) makes a directory of, the
    /// manifest last: where that is missing, the stream was cut off. No more than a piece of a file and the
    /// manifest is in memory.
    ///
    /// # Errors
    /// When a file can't be read, or `to` takes no more.
    pub fn backup_stream(&self, to: impl Write, mut progress: impl FnMut(u64, u64)) -> Result<BackupReport> {
        let snapshot = self.inner().snapshot()?;
        let sources = snapshot.sources();
        let mut report = snapshot.report();
        let mut stream = stream::Writer::new(to);
        let mut sums = Vec::with_capacity(sources.len());
        for source in &sources {
            sums.push(stream.add(source)?);
            report.files_copied += 1;
            report.bytes_copied += source.bytes;
            progress(report.bytes_copied, report.bytes);
        }
        stream.finish(&snapshot.manifest(&sums))?;
        Ok(report)
    }
}

/// Copies a file, durably, whole or not at all.
fn copy_durably(source: &Source<'_>, to: &Path) -> Result<Sum> {
    to.parent().map_or(Ok(()), |dir| Disk::default().create_dir_all(dir))?;
    let temporary_path = to.with_extension("tmp");
    let mut output = File::create(&temporary_path).map_err(Error::io("create", &temporary_path))?;
    let mut reader = source.reader();
    let copied = std::io::copy(&mut reader, &mut output);
    copied.map_err(Error::io("copy", &source.path))?;
    output.sync_all().map_err(Error::io("sync", &temporary_path))?;
    fs::rename(&temporary_path, to).map_err(Error::io("rename", &temporary_path))?;
    Disk::default().sync_parent(to)?;
    Ok(reader.sum())
}

/// Removes files that belong to an earlier backup only.
fn remove_others(to: &Path, sources: &[Source<'_>]) {
    let kept: HashSet<PathBuf> = sources.iter().map(|source| to.join(&source.path)).collect();
    let all = PARTS.iter().flat_map(|part| files_below(&to.join(part)));
    for path in all.filter(|path| !kept.contains(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "could not remove a file of an earlier backup");
        }
    }
}
