//! What the handles of an open store share, and what seals and maintenance work on.

use crate::catalog::{self, Catalog, Part};
use crate::commit::Command;
use crate::error::{Error, Result};
use crate::index::{Index, StoreRecord, Whole};
use crate::log::LOG_DIR;
use crate::merge::Quiet;
use crate::room::Growth;
use crate::state::State;
use crossbeam::channel::Sender;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

/// An open store.
pub(crate) struct Inner {
    pub(crate) state: Arc<State>,
    pub(crate) index: Index,
    /// Series and deletes a second time; locked for a moment by seals and maintenance.
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) store: StoreRecord,
    pub(crate) commands: Sender<Command>,
    /// Samples sent to the committer and not yet taken by it.
    pub(crate) queued_samples: Arc<AtomicUsize>,
    /// Held by seals, merges, expiry and deletes: one of them at a time.
    pub(crate) maintenance: Mutex<MaintenanceState>,
    pub(crate) committer: Option<JoinHandle<()>>,
    /// Held locked while the store is open.
    pub(crate) _lock: File,
}

/// Kept by maintenance from one run to the next, under its lock.
#[derive(Default)]
pub(crate) struct MaintenanceState {
    pub(crate) next_block: u64,
    /// Whether to seal at the next occasion, whatever the log's size says: what was found in a damaged
    /// log is only in memory until then.
    pub(crate) seal_soon: bool,
    pub(crate) last_seal_ms: Option<i64>,
    /// Log groups at the last look, and since when there have been no more.
    pub(crate) groups_since: Option<(u64, i64)>,
    /// When it was sealed last because nothing came.
    pub(crate) quiet_seal_ms: Option<i64>,
    pub(crate) quiet: Quiet,
    /// When partitions were last rolled up.
    pub(crate) rolled_up_ms: BTreeMap<i64, i64>,
    pub(crate) growth: Growth,
    /// Whether it has been logged that there is no partition left to make room with.
    pub(crate) told_of_no_room: bool,
}

impl Inner {
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::Closed)
    }

    /// Makes the index anew from memory if a sync of it failed: the kernel may have dropped what it could
    /// not write, and the next sync of the same file would say nothing of it.
    pub(crate) fn renew_doubtful_index(&self) -> Result<()> {
        if !self.index.is_doubtful() {
            return Ok(());
        }
        let series: Vec<_> = self.state.registry.all().into_iter().filter(|s| s.is_durable()).collect();
        let blocks = self.state.blocks();
        let quarantined = self.state.quarantined.lock().clone();
        self.index.renew(&Whole {
            checkpoint: self.index.checkpoint(),
            series: series.iter().map(|series| (series.id, Cow::Owned(series.labels.to_labels()))).collect(),
            blocks: blocks.iter().map(|block| block.record().clone()).chain(quarantined).collect(),
            deletes: self.state.deletes().iter().copied().collect(),
            rollups: self.state.rollups().values().map(|unit| unit.record.clone()).collect(),
        })?;
        tracing::warn!("the index was made anew after a sync of it had failed");
        Ok(())
    }

    /// Rewrites the catalogue as one file once it is many, or mostly of series that are forgotten.
    pub(crate) fn tidy_catalog(&self) -> Result<()> {
        let mut catalog = self.catalog.lock();
        if !catalog.is_sprawling() {
            return Ok(());
        }
        let mut series = self.state.registry.all();
        series.retain(|series| series.is_durable());
        let deletes: Vec<_> = self.state.deletes().iter().copied().collect();
        let parts = catalog::parts(&series, &deletes);
        catalog.rewrite(parts.chain([Part::Checkpoint(self.index.checkpoint())]))
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.state.dir.join(LOG_DIR)
    }
}

/// Closes the store: what was handed to it is written first.
impl Drop for Inner {
    fn drop(&mut self) {
        // The committer may have ended by a panic of its own: then there is nothing to stop.
        let _ = self.commands.send(Command::Stop);
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}
