//! Verifying: every checksum of a data directory is computed, and nothing in it is changed.
//!
//! No database is opened there, so it can be done beside a running server: the index is opened as a copy, in
//! a directory that the caller gives. Every file is accounted for: what is none of ours is named.
//!
//! What can't be told: bits of sled's own that no group and no record depends on (its file `conf` of a
//! generation of the log, free room in its files) are not looked at, since nothing ever is read from there.

mod files;
mod index;

use crate::block::{BLOCKS_DIR, Block, BlockRecord};
use crate::catalog::{self, CATALOG_DIR};
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::identity;
use crate::index::StoreRecord;
use crate::log::{self, LOG_DIR};
use crate::rollup::{ROLLUPS_DIR, RollupFile};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blocks.
    pub blocks: usize,
    /// Chunks in them, each decoded.
    pub chunks: usize,
    /// Samples in those.
    pub samples: u64,
    /// Bytes of blocks and of rollups.
    pub bytes: u64,
    /// Files of rollups.
    pub rollups: usize,
    /// Series in those, each decoded.
    pub rolled_up: usize,
    /// Series in the catalogue.
    pub series: usize,
    /// Groups in the log.
    pub log_groups: usize,
    /// Records of the index; `None`: it was not verified, and `notes` say why.
    pub index_records: Option<usize>,
    /// What is damaged, each with its file, and of chunks the series and the span.
    pub damage: Vec<String>,
    /// What is no damage and yet worth knowing: left-overs of what was cut off, what was set aside, what could
    /// not be verified.
    pub notes: Vec<String>,
    /// Files that no store has.
    pub unknown: Vec<PathBuf>,
}

/// How a directory is verified.
#[derive(Clone, Copy, Debug)]
pub struct Verification<'a> {
    /// Where a copy of the index may be made; it is removed again.
    pub scratch_dir: &'a Path,
    /// Files and directories of the caller's own, directly below the data directory.
    pub others: &'a [&'a str],
}

/// The series of blocks by the blocks' paths.
type SeriesByBlock = HashMap<PathBuf, RoaringBitmap>;

/// Verifies the store in `data_dir`. `progress` is told the bytes of blocks and rollups verified and to be
/// verified.
///
/// # Errors
/// When the directory can't be read. Damage is no error: the answer lists it.
pub fn verify(
    data_dir: &Path,
    how: Verification<'_>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified> {
    let mut verified = Verified::default();
    let contents = catalog::read(&data_dir.join(CATALOG_DIR))?;
    verified.series = contents.series.len();
    verified.damage.extend(contents.damaged.iter().map(ToString::to_string));
    let series_by_block = verify_files(data_dir, &mut verified, &mut progress)?;
    let store = verify_identity(data_dir, contents.store, &mut verified);
    if let Some(store) = store {
        let (groups, damage) = log::verify(&data_dir.join(LOG_DIR), store.uuid, |_| {})?;
        verified.log_groups = groups;
        verified.damage.extend(damage);
    } else if verified.blocks > 0 {
        let what = "it does not say whose directory this is, so the log was not verified";
        verified.damage.push(Error::damaged(&data_dir.join(CATALOG_DIR), what).to_string());
    }
    index::verify(data_dir, how.scratch_dir, store, &series_by_block, &mut verified)?;
    files::account(data_dir, how.others, &mut verified);
    Ok(verified)
}

/// Whose directory it is, by the file that says so and by the catalogue.
fn verify_identity(
    data_dir: &Path,
    by_catalog: Option<StoreRecord>,
    verified: &mut Verified,
) -> Option<StoreRecord> {
    let by_meta = identity::read(data_dir);
    let path = data_dir.join(identity::META_FILE);
    let what = match (by_meta, by_catalog) {
        (Some(meta), Some(catalog)) if meta != catalog => "it does not say what the catalogue says",
        (None, _) if path.exists() => "it does not fit its checksum",
        (None, Some(_)) => "it is missing",
        _ => return by_meta,
    };
    verified.damage.push(Error::damaged(&path, what).to_string());
    by_catalog.or(by_meta)
}

/// Verifies blocks and rollups. Answers which series are in which block.
fn verify_files(
    data_dir: &Path,
    verified: &mut Verified,
    progress: &mut impl FnMut(u64, u64),
) -> Result<SeriesByBlock> {
    let with = |part: &str, wanted: &str| {
        let mut files = files_below(&data_dir.join(part));
        files.retain(|path| path.extension().is_some_and(|extension| extension == wanted));
        files.sort();
        files
    };
    let (blocks, rollups) = (with(BLOCKS_DIR, "block"), with(ROLLUPS_DIR, "rollup"));
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let all_bytes = blocks.iter().chain(&rollups).map(size).sum();
    let mut series_by_block = SeriesByBlock::new();
    for path in &blocks {
        let bytes = size(path);
        let found = verify_block(data_dir, path, verified);
        let Some(series) = found_or_damaged(path, found, verified)? else { continue };
        series_by_block.insert(path.clone(), series);
        verified.blocks += 1;
        verified.bytes += bytes;
        progress(verified.bytes, all_bytes);
    }
    for path in &rollups {
        let bytes = size(path);
        let found = verify_rollup(data_dir, path, verified);
        if found_or_damaged(path, found, verified)?.is_some() {
            verified.rollups += 1;
            verified.bytes += bytes;
            progress(verified.bytes, all_bytes);
        }
    }
    Ok(series_by_block)
}

/// What was found in a file; nothing where it is damaged, which is noted, or has gone in the meantime: a
/// server that runs merges blocks away.
fn found_or_damaged<T>(path: &Path, found: Result<T>, verified: &mut Verified) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(_) if !path.exists() => Ok(None),
        Err(error) if error.is_loss() => {
            verified.damage.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn verify_block(data_dir: &Path, path: &Path, verified: &mut Verified) -> Result<RoaringBitmap> {
    let record = BlockRecord::of_file(data_dir, path);
    let record = record.ok_or_else(|| Error::damaged(path, "its name or its header is none of a block"))?;
    let block = Block::open(data_dir, record)?;
    let mut series = RoaringBitmap::new();
    for entry in block.entries() {
        series.insert(entry.series);
        verified.chunks += 1;
        match block.read(&entry) {
            Ok(samples) => verified.samples += samples.len() as u64,
            Err(error) if error.is_loss() => verified.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(series)
}

fn verify_rollup(data_dir: &Path, path: &Path, verified: &mut Verified) -> Result<()> {
    let (_, file) = RollupFile::open_by_name(data_dir, path)?;
    for series in file.series()? {
        match file.read(series) {
            Ok(_) => verified.rolled_up += 1,
            Err(error) if error.is_loss() => verified.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
