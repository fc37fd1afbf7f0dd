//! Verifying: every checksum of a data directory is computed, and nothing is changed.
//!
//! No database is opened, so it can be done beside a running server. The index is not read: whether it
//! agrees with the rest is seen when a store is opened, and if not it can be made anew.

use crate::block::{BLOCKS_DIR, Block, BlockRecord};
use crate::catalog::{self, CATALOG_DIR};
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::log::{self, LOG_DIR};
use std::path::Path;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blocks.
    pub blocks: usize,
    /// Chunks in them, each decoded.
    pub chunks: usize,
    /// Samples in those.
    pub samples: u64,
    /// Bytes of blocks.
    pub bytes: u64,
    /// Series in the catalogue.
    pub series: usize,
    /// Groups in the log.
    pub log_groups: usize,
    /// What is damaged, each with its file, and of chunks the series and the span.
    pub damage: Vec<String>,
}

/// Verifies the store in `data_dir`. `progress` is told the bytes of blocks verified and to be verified.
///
/// # Errors
/// When the directory can't be read. Damage is no error: the answer lists it.
pub fn verify(data_dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Verified> {
    let mut verified = Verified::default();
    let contents = catalog::read(&data_dir.join(CATALOG_DIR))?;
    verified.series = contents.series.len();
    verified.damage.extend(contents.damaged.iter().map(ToString::to_string));
    let mut files = files_below(&data_dir.join(BLOCKS_DIR));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "block"));
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let all_bytes = files.iter().map(|path| size(path)).sum();
    for path in &files {
        let bytes = size(path);
        match verify_block(data_dir, path, &mut verified) {
            Ok(()) => {}
            // A server that runs has merged it away in the meantime.
            Err(_) if !path.exists() => continue,
            Err(error) if error.is_loss() => verified.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
        verified.blocks += 1;
        verified.bytes += bytes;
        progress(verified.bytes, all_bytes);
    }
    if let Some(store) = contents.store {
        let (groups, damage) = log::verify(&data_dir.join(LOG_DIR), store.uuid, |_| {})?;
        verified.log_groups = groups;
        verified.damage.extend(damage);
    } else if !files.is_empty() {
        let what = "it does not say whose directory this is, so the log was not verified";
        verified.damage.push(Error::damaged(&data_dir.join(CATALOG_DIR), what).to_string());
    }
    Ok(verified)
}

fn verify_block(data_dir: &Path, path: &Path, verified: &mut Verified) -> Result<()> {
    let record = BlockRecord::of_file(data_dir, path);
    let record = record.ok_or_else(|| Error::damaged(path, "its name or its header is none of a block"))?;
    let block = Block::open(data_dir, record)?;
    for entry in block.entries() {
        verified.chunks += 1;
        match block.read(&entry) {
            Ok(samples) => verified.samples += samples.len() as u64,
            Err(error) if error.is_loss() => verified.damage.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
