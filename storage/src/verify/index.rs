//! The index verified, as a copy: a database may be written to as soon as it is opened.
//!
//! A server that runs may write meanwhile. So the index is copied until nothing changed while it was, and
//! what seems to be missing elsewhere counts only if the index is still what was copied.

use super::{SeriesByBlock, Verified};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::index::{Index, Loaded, StoreRecord};
use crate::recover::INDEX_DIR;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How often the index is copied anew, if it changes meanwhile.
const TRIES: usize = 5;
/// The copy, below the scratch directory.
const COPY_DIR: &str = "index";

/// Length and checksum of each file.
type Sums = BTreeMap<PathBuf, (u64, u32)>;

/// Verifies the index: all that it says can be read, and is there.
pub(super) fn verify(
    data_dir: &Path,
    scratch_dir: &Path,
    store: Option<StoreRecord>,
    series_by_block: &SeriesByBlock,
    verified: &mut Verified,
) -> Result<()> {
    let path = data_dir.join(INDEX_DIR);
    if !path.is_dir() {
        if store.is_some() {
            verified.damage.push(Error::damaged(&path, "it is missing").to_string());
        }
        return Ok(());
    }
    let copy = scratch_dir.join(COPY_DIR);
    let mut why = "it changed whenever it was copied".to_owned();
    for _ in 0..TRIES {
        let copied = match copy_settled(&path, &copy) {
            Ok(Some(copied)) => copied,
            Ok(None) => continue,
            Err(error) => {
                why = format!("no copy could be made in {}: {error}", scratch_dir.display());
                break;
            }
        };
        let found = look(&copy, &path, data_dir, store, series_by_block);
        Disk::default().remove_dir_all(&copy)?;
        // What is missing may have been removed since, which the index knows by now.
        if !found.damage.is_empty() && sums(&path).ok().as_ref() != Some(&copied) {
            continue;
        }
        verified.index_records = Some(found.records);
        verified.damage.extend(found.damage);
        return Ok(());
    }
    verified.notes.push(format!("{}: not verified: {why}", path.display()));
    Disk::default().remove_dir_all(&copy)
}

/// Copies all files, and answers their sums; `None`: they changed meanwhile.
fn copy_settled(from: &Path, to: &Path) -> io::Result<Option<Sums>> {
    let _ = fs::remove_dir_all(to);
    let before = sums(from)?;
    for path in before.keys() {
        let to = to.join(path);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(from.join(path), &to)?;
    }
    // sled wants its directory of blobs.
    fs::create_dir_all(to.join("blobs"))?;
    Ok((sums(to)? == before && sums(from)? == before).then_some(before))
}

fn sums(dir: &Path) -> io::Result<Sums> {
    let mut sums = Sums::new();
    for path in files_below(dir) {
        let mut file = fs::File::open(&path)?;
        let (mut buffer, mut bytes, mut crc32c) = (vec![0; 1 << 20], 0, 0);
        loop {
            let read = io::Read::read(&mut file, &mut buffer)?;
            let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) else { break };
            bytes += read.len() as u64;
            crc32c = crc32c::crc32c_append(crc32c, read);
        }
        let below = path.strip_prefix(dir).unwrap_or(&path).to_owned();
        sums.insert(below, (bytes, crc32c));
    }
    Ok(sums)
}

/// What is found in a copy.
struct Found {
    records: usize,
    damage: Vec<String>,
}

fn look(
    copy: &Path,
    path: &Path,
    data_dir: &Path,
    store: Option<StoreRecord>,
    series_by_block: &SeriesByBlock,
) -> Found {
    let damaged = |what: String| Error::damaged(path, what).to_string();
    let nobody = StoreRecord { format: crate::FORMAT_VERSION, uuid: Uuid::nil(), partition_ms: 1 };
    let read = Index::open(&Disk::default(), copy, nobody).and_then(|(index, found)| {
        let loaded = index.load();
        index.close()?;
        Ok((found, loaded?))
    });
    let (found, loaded) = match read {
        Ok(read) => read,
        Err(error) => {
            let what = error.to_string().replace(&copy.display().to_string(), &path.display().to_string());
            return Found { records: 0, damage: vec![damaged(what)] };
        }
    };
    let mut damage = Vec::new();
    match store {
        _ if found == nobody => damage.push(damaged("its records are lost".to_owned())),
        Some(store) if store != found => damage.push(damaged(format!("it is of the store {}", found.uuid))),
        _ => damage.extend(missing(&loaded, data_dir, series_by_block).into_iter().map(damaged)),
    }
    Found { records: count(&loaded), damage }
}

fn count(loaded: &Loaded) -> usize {
    loaded.series.len() + loaded.blocks.len() + loaded.deletes.len() + loaded.rollups.len()
}

/// What the index names and is not there, and what is there and it does not know.
fn missing(loaded: &Loaded, data_dir: &Path, series_by_block: &SeriesByBlock) -> Vec<String> {
    let mut missing = Vec::new();
    let known: RoaringBitmap = loaded.series.iter().map(|(id, _)| *id).collect();
    for path in loaded.blocks.iter().map(|record| record.path(data_dir)) {
        if !path.exists() {
            missing.push(format!("it names {}, which is not there", path.display()));
        }
        let unknown = series_by_block.get(&path).map(|series| (series - &known).len()).unwrap_or_default();
        if unknown > 0 {
            missing.push(format!("it lacks {unknown} series of {}", path.display()));
        }
    }
    for unit in &loaded.rollups {
        let paths = unit.files.iter().map(|file| file.path(data_dir, unit.partition_start_ms));
        let gone = paths.filter(|path| !path.exists());
        missing.extend(gone.map(|path| format!("it names {}, which is not there", path.display())));
    }
    missing
}
