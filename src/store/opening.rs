//! A store that is still being opened: it says so, until the real one takes its place.
//!
//! Replaying a log takes time. With this the server answers meanwhile: probes live, readiness 503,
//! discovery from memory, everything else 503 with what to do.

use super::{Context, LabelsRequest, Latest, RangeRequest, SeriesSamples, Store, StoreError, StoreStats};
use async_trait::async_trait;
use lookback_storage::{Matcher, OutOfOrder, WriteBatch, WriteReport};
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

    fn store(&self) -> Result<&dyn Store, StoreError> {
        let opening = || StoreError::Unavailable("it is being opened: ask again in a moment".to_owned());
        self.0.get().map(AsRef::as_ref).ok_or_else(opening)
    }
}

#[async_trait]
impl Store for OpeningStore {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        self.store()?.append(context, batch, now_ms, out_of_order).await
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        self.store()?.latest(context, matchers, not_before_ms).await
    }

    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        self.store()?.select(context, matchers, start_ms, end_ms, samples_max).await
    }

    async fn range(
        &self,
        context: &Context,
        request: RangeRequest,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        self.store()?.range(context, request).await
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        self.store()?.labels(context, request).await
    }

    async fn delete(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, StoreError> {
        self.store()?.delete(context, matchers, start_ms, end_ms).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.store()?.stats().await
    }
}
