//! How sending to the engine goes: what the sender leaves, and the store tells.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How sending goes.
#[derive(Default)]
pub(super) struct SendState {
    /// Why the engine took nothing the last time, and since when.
    failure: Mutex<Option<String>>,
    /// Samples in the dead letters.
    pub(super) set_aside: AtomicU64,
    /// Spans that are to be sent a second time.
    pub(super) held: AtomicUsize,
    /// Somebody waits for that.
    pub(super) hurried: AtomicUsize,
}

impl SendState {
    pub(super) fn succeeded(&self) {
        let before = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() {
            tracing::info!("the engine takes samples again");
        }
    }

    pub(super) fn failed(&self, reason: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            tracing::warn!(reason, "the engine takes no samples: they wait in the outbox");
        }
        *failure = Some(reason.to_owned());
    }

    pub(super) fn set_aside(&self, samples: usize) {
        self.set_aside.fetch_add(samples as u64, Ordering::Relaxed);
    }

    pub(super) fn replay_now(&self) -> bool {
        self.hurried.load(Ordering::Relaxed) > 0
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
