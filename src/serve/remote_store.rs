//! A Prometheus-compatible engine as the store, open, with what sends the outbox to it.

use crate::clock::Clock;
use crate::store::prometheus::{PrometheusStore, RemoteSettings, outbox_dir};
use anyhow::Context as _;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The store and what sends its outbox.
pub struct RemoteStore {
    /// The store.
    pub store: PrometheusStore,
    sending: JoinHandle<()>,
    stop: CancellationToken,
}

impl RemoteStore {
    /// Opens the outbox in the data directory and begins to send it.
    ///
    /// # Errors
    /// When files are missing or wrong, or another process uses the outbox.
    pub async fn open(
        data_dir: &Path,
        settings: RemoteSettings,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let (dir, stop) = (outbox_dir(data_dir), CancellationToken::new());
        let stopped = stop.clone();
        let opened = tokio::task::spawn_blocking(move || {
            PrometheusStore::open(&dir, settings, clock, Box::new(random), stopped)
        });
        let (store, sender) = opened.await??;
        Ok(Self { store, sending: tokio::spawn(sender.run()), stop })
    }

    /// Ends the sending. What is not sent stays in the outbox, until the next start.
    ///
    /// # Errors
    /// When it ended badly.
    pub async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.sending.await.context("what sends the outbox ended badly")?;
        let store = self.store;
        tokio::task::spawn_blocking(move || drop(store)).await.context("the outbox did not close")
    }
}

/// A number from 0 to 1, of the system's randomness.
#[must_use]
pub fn random() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff;
    bits as f64 / f64::from(u32::MAX)
}
