//! Recovery: what the index and the log know, brought into memory when a store is opened.

use crate::block::{BLOCKS_DIR, Block, BlockRecord};
use crate::catalog::{self, CATALOG_DIR, Catalog, Part};
use crate::deletes::{DeleteRecord, Deletes};
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::identity;
use crate::index::{Checkpoint, Index, Loaded, StoreRecord, finish_renewal};
use crate::labels::Labels;
use crate::log::{Group, LOG_DIR, Log, LogOpening};
use crate::options::Options;
use crate::quarantine;
use crate::rollup;
use crate::state::State;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The index database below the data directory.
pub(crate) const INDEX_DIR: &str = "index";

/// More generations of the log than this, as restarts leave them, are sealed at the start.
const GENERATIONS_MAX: usize = 8;

/// A store brought into memory.
pub(crate) struct Recovered {
    pub(crate) state: Arc<State>,
    pub(crate) index: Index,
    pub(crate) store: StoreRecord,
    pub(crate) catalog: Catalog,
    pub(crate) log: Log,
    pub(crate) next_block: u64,
    /// Whether what is in memory is to be sealed at once.
    pub(crate) seal_soon: bool,
}

/// Brings the store in `dir` into memory; a new one is `new_store`. Refuses what is damaged, but for
/// blocks, which are left out.
pub(crate) fn recover(dir: &Path, options: &Options, new_store: StoreRecord) -> Result<Recovered> {
    let index_path = dir.join(INDEX_DIR);
    finish_renewal(&options.disk, &index_path)?;
    let new_store = if index_path.exists() { new_store } else { begin(dir, options, new_store)? };
    let (index, store) = Index::open(&options.disk, &index_path, new_store)?;
    identity::check(&options.disk, dir, &store)?;
    let mut loaded = index.load()?;
    index.let_go_of_memory(options.index_memory_max)?;
    let state = Arc::new(State::new(dir, options.clone(), store.partition_ms));
    let checkpoint = loaded.checkpoint;
    state.sealed_seq.store(checkpoint.next_seq.saturating_sub(1), Ordering::Relaxed);
    let rollups = std::mem::take(&mut loaded.rollups);
    let known = restore(&state, loaded)?;
    let known_rollups = rollup::build::restore(&state, rollups)?;
    let nameless = restore_latest(&state)?;
    if let Some((block, series)) = nameless.first() {
        let what = format!("it lacks series {series} of {}, and maybe more", block.display());
        return Err(Error::damaged(&index_path, what));
    }
    let opening = LogOpening {
        disk: options.disk.clone(),
        writer: store.uuid,
        replay_from_seq: checkpoint.next_seq,
        needed_from_seq: checkpoint.next_seq,
        strict: true,
    };
    let log = opening.open(&dir.join(LOG_DIR), |seq, group| {
        replay(&state, seq, group, &mut |series| {
            let what = format!("group {seq}: series {series} is not defined");
            Err(Error::damaged(&dir.join(LOG_DIR), what))
        })
    })?;
    state.counters.log_bytes.store(log.replayed_bytes, Ordering::Relaxed);
    // Only now is it certain that the index is not older than the log.
    let next_block = sort_orphans(&state, &known, checkpoint.next_seq)?.max(checkpoint.next_block);
    rollup::build::remove_unnamed(&options.disk, dir, &known_rollups);
    let catalog = open_catalog(&state, store, checkpoint)?;
    let seal_soon = log.older_generations > GENERATIONS_MAX;
    Ok(Recovered { state, index, store, catalog, log: log.log, next_block, seal_soon })
}

/// Begins a store in a directory that has none, with whose it is: cut off at any point, the next start can
/// tell.
fn begin(dir: &Path, options: &Options, new_store: StoreRecord) -> Result<StoreRecord> {
    let parts = [CATALOG_DIR, LOG_DIR, BLOCKS_DIR, rollup::ROLLUPS_DIR];
    if parts.iter().any(|part| dir.join(part).exists()) {
        return Err(Error::damaged(&dir.join(INDEX_DIR), "it is missing"));
    }
    let store = identity::read(dir).unwrap_or(new_store);
    identity::rewrite(&options.disk, dir, &store)?;
    Ok(store)
}

/// Whether no store was ever open in this directory: the catalogue is made at the end of the first opening.
pub(crate) fn was_never_open(dir: &Path) -> bool {
    let parts = [CATALOG_DIR, BLOCKS_DIR, rollup::ROLLUPS_DIR];
    !parts.iter().any(|part| dir.join(part).exists())
}

/// Opens the catalogue, and writes it where there is none yet.
fn open_catalog(state: &State, store: StoreRecord, checkpoint: Checkpoint) -> Result<Catalog> {
    let mut catalog = Catalog::open(&state.options.disk, &state.dir.join(CATALOG_DIR), store)?;
    if catalog.is_empty() {
        // Those that only the log has so far, the next seal adds.
        let deletes: Vec<_> = state.deletes().iter().copied().collect();
        let series = state.registry.all();
        let parts = catalog::parts(&series, &deletes);
        catalog.rewrite(parts.chain([Part::Checkpoint(checkpoint)]))?;
    }
    Ok(catalog)
}

/// Brings what the index knows into memory. Answers the paths of all blocks it names.
pub(crate) fn restore(state: &State, loaded: Loaded) -> Result<HashSet<PathBuf>> {
    state.registry.reserve(loaded.checkpoint.next_series.max(1));
    state.registry.adopt(loaded.labels);
    for (id, labels) in loaded.series {
        state.registry.restore_stored(id, labels);
    }
    *state.postings.write() = loaded.postings;
    let mut deletes = Deletes::default();
    loaded.deletes.into_iter().for_each(|delete| deletes.add(delete));
    state.set_deletes(deletes);

    let mut blocks = Vec::with_capacity(loaded.blocks.len());
    let known: HashSet<PathBuf> = loaded.blocks.iter().map(|record| record.path(&state.dir)).collect();
    for record in loaded.blocks {
        match Block::open(&state.dir, record.clone()) {
            Ok(block) => blocks.push(Arc::new(block)),
            // Any other failure may pass, and must not look like a loss.
            Err(error) if error.is_loss() => {
                state.counters.damaged_blocks.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a damaged block is left out; its file stays until it expires");
                state.quarantined.lock().push(record);
            }
            Err(error) => return Err(error),
        }
    }
    state.set_blocks(blocks);
    Ok(known)
}

/// Notes the newest sealed sample of each series. Answers series of blocks that nobody knows the labels
/// of, each with a block that has it.
pub(crate) fn restore_latest(state: &State) -> Result<Vec<(PathBuf, u32)>> {
    let deletes = state.deletes();
    let (mut touched, mut nameless) = (HashSet::new(), Vec::new());
    for block in state.blocks().iter() {
        block.for_each_last(|entry, last| {
            if deletes.touches(entry.series, block.record().sealed_seq) {
                touched.insert(entry.series);
            } else if let Some(series) = state.registry.get(entry.series) {
                series.note_latest(last);
            } else {
                nameless.push((block.path().to_owned(), entry.series));
            }
        })?;
    }
    for series in touched.into_iter().filter_map(|id| state.registry.get(id)) {
        series.reset_latest(state.newest_sample(&series)?);
    }
    Ok(nameless)
}

/// Deals with block files that the index does not name. Where the log still has their samples, their seal
/// was cut off, and they are removed. The others are what a merge that was cut off left, or the index
/// lost them: they are taken in, since a sample in two blocks is one sample to a reader, and the next
/// merge makes it one. Answers a number above all of theirs.
pub(crate) fn sort_orphans(state: &State, known: &HashSet<PathBuf>, next_seq: u64) -> Result<u64> {
    let (mut blocks, mut next_block) = ((*state.blocks()).clone(), 0);
    for path in files_below(&state.dir.join(BLOCKS_DIR)) {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if known.contains(&path) || !["block", "tmp"].contains(&extension) {
            continue;
        }
        let record = BlockRecord::of_file(&state.dir, &path).filter(|_| extension == "block");
        let is_in_log = record.as_ref().is_some_and(|record| record.sealed_seq >= next_seq);
        let record = match record {
            Some(record) if !is_in_log => record,
            None if extension == "block" => {
                let to = quarantine::set_aside(&state.options.disk, &state.dir, &path)?;
                tracing::warn!(to = %to.display(), "set aside a file that is no block");
                continue;
            }
            _ => {
                match state.options.disk.remove_file(&path) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted seal left"),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "could not remove a left-over")
                    }
                }
                continue;
            }
        };
        next_block = next_block.max(record.id.saturating_add(1));
        match Block::open(&state.dir, record) {
            Ok(block) => {
                tracing::info!(path = %path.display(), "took in a block that the index does not name");
                blocks.push(Arc::new(block));
            }
            Err(error) if error.is_loss() => {
                let to = quarantine::set_aside(&state.options.disk, &state.dir, &path)?;
                tracing::warn!(%error, to = %to.display(), "set aside a broken block that the index does not name");
            }
            Err(error) => return Err(error),
        }
    }
    if next_block > 0 {
        state.set_blocks(blocks);
        restore_latest(state)?;
    }
    Ok(next_block)
}

/// Applies a group of the log to memory.
///
/// `undefined` is asked what to make of a sample whose series nobody has defined.
pub(crate) fn replay(
    state: &State,
    seq: u64,
    group: Group,
    undefined: &mut impl FnMut(u32) -> Result<()>,
) -> Result<()> {
    let log_dir = state.dir.join(LOG_DIR);
    let damaged = |what: String| Error::damaged(&log_dir, format!("group {seq}: {what}"));
    for definition in group.series {
        let series = match state.registry.get(definition.id) {
            // A seal was cut off after it had stored this series, maybe before its postings.
            Some(known) => known,
            None => {
                let labels = Labels::new(definition.labels).map_err(|error| damaged(error.to_string()))?;
                state.registry.restore(definition.id, &labels)
            }
        };
        state.publish(&series);
    }
    for (id, sample) in group.samples {
        match state.registry.get(id) {
            Some(series) => drop(state.insert(&series, sample)),
            None => undefined(id)?,
        }
    }
    if !group.deletes.is_empty() {
        let mut deletes = (*state.deletes()).clone();
        let mut touched = Vec::with_capacity(group.deletes.len());
        for delete in group.deletes {
            deletes.add(DeleteRecord {
                seq,
                series: delete.series,
                start_ms: delete.start_ms,
                end_ms: delete.end_ms,
            });
            // Forgotten since: then it had nothing left.
            let Some(series) = state.registry.get(delete.series) else { continue };
            state.count_gone_from_head(series.delete_from_head(delete.start_ms, delete.end_ms));
            touched.push(series);
        }
        state.set_deletes(deletes);
        for series in touched {
            series.reset_latest(state.newest_sample(&series)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SeriesDefinition;
    use crate::matcher::Matcher;
    use crate::postings::Postings;
    use crate::select::Selection;
    use crate::stored_labels::LabelPool;

    #[test]
    fn a_series_that_the_index_stored_without_its_postings_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path(), Options::default(), 1_000);
        let pairs = [("__name__", "m"), ("pod", "p")];
        // A seal was cut off between the two.
        let mut labels = LabelPool::default();
        let loaded = Loaded {
            checkpoint: Checkpoint::default(),
            series: vec![(1, labels.store(&Labels::new(pairs).expect("valid")))],
            labels,
            postings: Postings::default(),
            blocks: Vec::new(),
            deletes: Vec::new(),
            rollups: Vec::new(),
        };
        restore(&state, loaded).expect("restored");
        let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let series = vec![SeriesDefinition { id: 1, labels }];
        replay(&state, 1, Group { series, ..Group::default() }, &mut |_| Ok(())).expect("replayed");
        let matchers = [Matcher::equal("pod", "p")];
        assert_eq!(state.select_series(Selection { matchers: &matchers, visible: None }).len(), 1);
    }
}
