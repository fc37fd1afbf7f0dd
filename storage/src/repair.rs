//! A store whose index or log is damaged, opened all the same: from the catalogue, the blocks and what is
//! left of the log.
//!
//! Nothing is removed. The index is made anew whatever was wrong, since that loses nothing: the blocks
//! say which they are, the catalogue has their series and deletes, the log has what is newer. Damaged
//! parts are set aside, the log's once what could be read of it is sealed. Cut off anywhere, the next
//! start does it again.

use crate::block::{BLOCKS_DIR, BlockRecord};
use crate::catalog::{self, CATALOG_DIR, Catalog, Part};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::files::files_below;
use crate::identity;
use crate::index::{Checkpoint, Index, Loaded, StoreRecord, Whole, make_anew};
use crate::log::{self, LOG_DIR, LogOpening, OpenedLog};
use crate::options::Options;
use crate::postings::Postings;
use crate::quarantine;
use crate::recover::{INDEX_DIR, Recovered, replay, restore, restore_latest, sort_orphans};
use crate::rollup;
use crate::state::State;
use crate::stored_labels::LabelPool;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Opens the store in `dir` although it is damaged, as `found` says.
pub(crate) fn repair(dir: &Path, options: &Options, found: Error) -> Result<Recovered> {
    tracing::error!(error = %found, "the store is damaged: it goes on with all that can be read");
    let mut contents = catalog::read(&dir.join(CATALOG_DIR))?;
    let mut reasons: Vec<String> = std::iter::once(found.to_string()).collect();
    reasons.extend(contents.damaged.iter().map(ToString::to_string));
    let by_index = read_index(&options.disk, dir);
    let known = contents.store.or_else(|| identity::read(dir));
    let Some(store) = known.or(by_index.as_ref().map(|(store, _)| *store)) else {
        // Nothing says whose directory it is: then nothing in it may be touched.
        return Err(found);
    };
    // An index that was read whole and has nothing against it need not be kept beside the new one.
    let is_log_only = by_index.is_some()
        && matches!(&found, Error::Damaged { path, .. } if path.starts_with(dir.join(LOG_DIR)));
    let mut needed_from_seq = None;
    let mut rollups = rollup::build::units_below(dir);
    if let Some((_, loaded)) = by_index.filter(|(by_index, _)| *by_index == store) {
        contents.series.extend(loaded.series.iter().map(|(id, labels)| (*id, labels.to_labels())));
        contents.deletes.extend(loaded.deletes.into_iter().map(|d| ((d.seq, d.series), d)));
        needed_from_seq = Some(loaded.checkpoint.next_seq);
        rollups = loaded.rollups;
    }
    let deletes: Vec<_> = contents.deletes.into_values().collect();

    // All that is known is written down in one place before the index goes.
    let mut catalog = Catalog::open(&options.disk, &dir.join(CATALOG_DIR), store)?;
    let mut parts: Vec<_> =
        catalog::parts_of(contents.series.iter().map(|(id, labels)| (*id, labels)), &deletes).collect();
    parts.extend(contents.checkpoint.map(Part::Checkpoint));
    if contents.damaged.is_empty() {
        catalog.rewrite(parts)?;
    } else {
        catalog.rewrite_damaged(dir, parts)?;
    }

    let blocks = blocks_below(dir);
    let sealed_to = blocks.iter().map(|record| record.sealed_seq).max().unwrap_or_default();
    let checkpoint = Checkpoint {
        // Blocks may have expired since, so what was noted counts as well.
        next_seq: needed_from_seq.unwrap_or_else(|| {
            let noted = contents.checkpoint.map_or(0, |checkpoint| checkpoint.next_seq);
            noted.max(sealed_to + 1)
        }),
        next_series: contents.series.last_key_value().map_or(1, |(id, _)| id.saturating_add(1)),
        next_block: blocks
            .iter()
            .map(|record| record.id)
            .chain(rollups.iter().flat_map(|unit| unit.files.iter().map(|file| file.id)))
            .max()
            .map_or(1, |id| id.saturating_add(1)),
    };
    let index_path = dir.join(INDEX_DIR);
    if index_path.exists() && !is_log_only {
        let to = quarantine::set_aside(&options.disk, dir, &index_path)?;
        tracing::warn!(to = %to.display(), "set the index aside: it is made anew");
    }
    let series = contents.series.iter().map(|(id, labels)| (*id, Cow::Borrowed(labels))).collect();
    make_anew(
        &options.disk,
        &index_path,
        store,
        &Whole {
            checkpoint,
            series,
            blocks: blocks.clone(),
            deletes: deletes.clone(),
            rollups: rollups.clone(),
        },
    )?;
    identity::rewrite(&options.disk, dir, &store)?;
    let (index, _) = Index::open(&options.disk, &index_path, store)?;

    let state = Arc::new(State::new(dir, options.clone(), store.partition_ms));
    let mut postings = Postings::default();
    contents.series.iter().for_each(|(id, labels)| postings.add(*id, labels.iter()));
    postings.take_changed();
    let mut labels = LabelPool::default();
    let series = contents.series.iter().map(|(id, set)| (*id, labels.store(set))).collect();
    let loaded = Loaded { checkpoint, series, labels, postings, blocks, deletes, rollups: Vec::new() };
    let known = restore(&state, loaded)?;
    rollup::build::restore(&state, rollups)?;
    let (log, oldest_seq) = salvage_log(&state, store, checkpoint.next_seq, &mut reasons)?;
    // Series of a seal that was cut off may be defined in the log only.
    note_nameless(&state, &mut reasons)?;
    // A seal may have been cut off between two blocks: the log says how far it goes back, and what is in
    // blocks as well is read as one.
    let next_seq = needed_from_seq.or(oldest_seq).unwrap_or_else(|| log.next_seq());
    index.move_checkpoint(Checkpoint { next_seq, ..checkpoint })?;
    sort_orphans(&state, &known, checkpoint.next_seq)?;
    for reason in &reasons {
        tracing::error!(reason, "damage that was set aside");
    }
    *state.damage.reasons.lock() = reasons;
    Ok(Recovered { state, index, store, catalog, log, next_block: checkpoint.next_block, seal_soon: true })
}

/// What the index says, if it can be read as a whole.
fn read_index(disk: &Disk, dir: &Path) -> Option<(StoreRecord, Loaded)> {
    let path = dir.join(INDEX_DIR);
    // Opening makes what is not there.
    if !path.exists() {
        return None;
    }
    let nobody = StoreRecord { format: crate::FORMAT_VERSION, uuid: uuid::Uuid::nil(), partition_ms: 1 };
    let (index, store) = Index::open(disk, &path, nobody).ok()?;
    let loaded = index.load().ok();
    index.close().ok()?;
    Some((store, loaded?)).filter(|(store, _)| *store != nobody)
}

/// The blocks that lie in the directory.
fn blocks_below(dir: &Path) -> Vec<BlockRecord> {
    let files = files_below(&dir.join(BLOCKS_DIR));
    let mut records: Vec<_> = files.iter().filter_map(|path| BlockRecord::of_file(dir, path)).collect();
    records.sort_by_key(|record| record.id);
    records
}

/// Counts and names what blocks hold of series whose labels are lost.
fn note_nameless(state: &State, reasons: &mut Vec<String>) -> Result<()> {
    const NAMED_MAX: usize = 20;
    let nameless = restore_latest(state)?;
    reasons.extend(nameless.iter().take(NAMED_MAX).map(|(block, series)| {
        format!("{}: the labels of series {series} are lost, and with them its samples", block.display())
    }));
    if nameless.len() > NAMED_MAX {
        reasons.push(format!("the labels of {} more series are lost", nameless.len() - NAMED_MAX));
    }
    Ok(())
}

fn salvage_log(
    state: &State,
    store: StoreRecord,
    needed_from_seq: u64,
    reasons: &mut Vec<String>,
) -> Result<(log::Log, Option<u64>)> {
    let mut nameless_samples = 0;
    let log_dir = state.dir.join(LOG_DIR);
    let opening = LogOpening {
        disk: state.options.disk.clone(),
        writer: store.uuid,
        replay_from_seq: 0,
        needed_from_seq,
        strict: false,
    };
    let opened = opening.open(&log_dir, |seq, group| {
        replay(state, seq, group, &mut |_| {
            nameless_samples += 1;
            Ok(())
        })
    })?;
    let OpenedLog { log, oldest_seq, damaged, lost, reasons: of_log, .. } = opened;
    reasons.extend(of_log);
    for groups in &lost {
        state.damage.lost_groups.fetch_add(groups.end - groups.start, Ordering::Relaxed);
    }
    if nameless_samples > 0 {
        reasons.push(format!(
            "{}: {nameless_samples} samples are lost, since the groups that define their series are",
            log_dir.display()
        ));
    }
    *state.damage.generations.lock() = damaged;
    // So that the next seal comes soon, whatever the log's own size says.
    state.counters.log_bytes.fetch_add(1, Ordering::Relaxed);
    Ok((log, oldest_seq))
}
