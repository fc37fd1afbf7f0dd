//! Recovery: what the index and the log know, brought into memory when a store is opened.

use crate::block::Block;
use crate::deletes::{DeleteRecord, Deletes};
use crate::error::{Error, Result};
use crate::index::Loaded;
use crate::labels::Labels;
use crate::log::{Group, LOG_DIR};
use crate::state::State;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Brings what the index knows into memory. Answers the paths of all blocks it names.
pub(crate) fn restore(state: &State, loaded: Loaded) -> Result<HashSet<PathBuf>> {
    state.registry.reserve(loaded.checkpoint.next_series.max(1));
    for (id, labels) in loaded.series {
        state.registry.restore(id, labels);
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
            Err(error) => {
                state.counters.damaged_blocks.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a damaged block is left out; its file stays until it expires");
                state.quarantined.lock().push(record);
            }
        }
    }
    state.set_blocks(blocks);
    restore_latest(state)?;
    Ok(known)
}

/// Notes the newest sealed sample of each series.
fn restore_latest(state: &State) -> Result<()> {
    let deletes = state.deletes();
    let mut touched = HashSet::new();
    for block in state.blocks().iter() {
        for entry in block.entries() {
            if deletes.touches(entry.series, block.record().sealed_seq) {
                touched.insert(entry.series);
            } else if let Some(series) = state.registry.get(entry.series) {
                series.note_latest(entry.last);
            }
        }
    }
    for series in touched.into_iter().filter_map(|id| state.registry.get(id)) {
        series.reset_latest(state.newest_sample(&series)?);
    }
    Ok(())
}

/// Removes block files that the index does not name: their seal or merge was cut off.
pub(crate) fn remove_orphans(dir: &Path, known: &HashSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            remove_orphans(&path, known);
        } else if !known.contains(&path) && path.extension().is_some_and(|e| e == "block" || e == "tmp") {
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted seal left"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "could not remove a left-over"),
            }
        }
    }
}

/// Applies a group of the log to memory.
pub(crate) fn replay(state: &State, seq: u64, group: Group) -> Result<()> {
    let log_dir = state.dir.join(LOG_DIR);
    let damaged = |what: String| Error::damaged(&log_dir, format!("group {seq}: {what}"));
    for definition in group.series {
        let series = match state.registry.get(definition.id) {
            // A seal was cut off after it had stored this series, maybe before its postings.
            Some(known) => known,
            None => {
                let labels = Labels::new(definition.labels).map_err(|error| damaged(error.to_string()))?;
                state.registry.restore(definition.id, labels)
            }
        };
        state.publish(&series);
    }
    for (id, sample) in group.samples {
        let series = state.registry.get(id).ok_or_else(|| damaged(format!("series {id} is not defined")))?;
        state.insert(&series, sample);
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
    use crate::index::Checkpoint;
    use crate::log::SeriesDefinition;
    use crate::matcher::Matcher;
    use crate::options::Options;
    use crate::postings::Postings;
    use crate::select::Selection;

    #[test]
    fn a_series_that_the_index_stored_without_its_postings_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = State::new(dir.path(), Options::default(), 1_000);
        let pairs = [("__name__", "m"), ("pod", "p")];
        // A seal was cut off between the two.
        let loaded = Loaded {
            checkpoint: Checkpoint::default(),
            series: vec![(1, Labels::new(pairs).expect("valid"))],
            postings: Postings::default(),
            blocks: Vec::new(),
            deletes: Vec::new(),
        };
        restore(&state, loaded).expect("restored");
        let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let series = vec![SeriesDefinition { id: 1, labels }];
        replay(&state, 1, Group { series, ..Group::default() }).expect("replayed");
        let matchers = [Matcher::equal("pod", "p")];
        assert_eq!(state.select_series(Selection { matchers: &matchers, visible: None }).len(), 1);
    }
}
