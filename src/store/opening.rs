//! A store that is still being opened: it says so, until the real one takes its place.
//!
//! Replaying a log takes time. With this the server answers meanwhile: probes live, readiness 503,
//! discovery from memory, everything else 503 with what to do.

use super::front::Front;
use super::{Store, StoreError};
use async_trait::async_trait;
use std::sync::{Arc, OnceLock};

/// Stands in for a store until it is open.
#[derive(Default)]
pub struct OpeningStore(OnceLock<Arc<dyn Store>>);

impl OpeningStore {
    /// The store is open: from now on it answers.
    pub fn opened(&self, store: Arc<dyn Store>) {
        // Opened once only; a second store would change nothing.
        let _ = self.0.set(store);
    }
}

#[async_trait]
impl Front for OpeningStore {
    async fn behind(&self) -> Result<&dyn Store, StoreError> {
        let opening = || StoreError::Unavailable("it is being opened: ask again in a moment".to_owned());
        self.0.get().map(AsRef::as_ref).ok_or_else(opening)
    }
}
