//! What the handles of an open store share, and what seals and maintenance work on.

use crate::commit::Command;
use crate::error::{Error, Result};
use crate::index::{Index, StoreRecord};
use crate::log::LOG_DIR;
use crate::merge::Quiet;
use crate::room::Growth;
use crate::state::State;
use crossbeam::channel::Sender;
use parking_lot::Mutex;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

/// An open store.
pub(crate) struct Inner {
    pub(crate) state: Arc<State>,
    pub(crate) index: Index,
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
    pub(crate) last_seal_ms: Option<i64>,
    pub(crate) quiet: Quiet,
    pub(crate) growth: Growth,
    /// Whether it has been logged that there is no partition left to make room with.
    pub(crate) told_of_no_room: bool,
}

impl Inner {
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::Closed)
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
