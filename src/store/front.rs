//! A store that stands before another, and lets calls through to it or not.

use super::embedded::BackupPieces;
use super::{
    Context, LabelsRequest, Latest, RangeRead, RangeRequest, SeriesReader, SeriesSamples, Store, StoreError,
    StoreStats,
};
use async_trait::async_trait;
use lookback_storage::{BackupReport, Extent, Matcher, OutOfOrder, WriteBatch, WriteReport};
use std::path::PathBuf;

/// Decides of each call whether it goes through. That makes it a [`Store`].
#[async_trait]
pub trait Front: Send + Sync + 'static {
    /// The store behind, if a call may go through to it now.
    async fn behind(&self) -> Result<&dyn Store, StoreError>;
}

#[async_trait]
impl<F: Front> Store for F {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        self.behind().await?.append(context, batch, now_ms, out_of_order).await
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        self.behind().await?.latest(context, matchers, not_before_ms).await
    }

    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        self.behind().await?.select(context, matchers, start_ms, end_ms, samples_max).await
    }

    async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeRead, StoreError> {
        self.behind().await?.range(context, request).await
    }

    async fn reader(&self, context: &Context) -> Result<Box<dyn SeriesReader>, StoreError> {
        self.behind().await?.reader(context).await
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        self.behind().await?.labels(context, request).await
    }

    async fn delete(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, StoreError> {
        self.behind().await?.delete(context, matchers, start_ms, end_ms).await
    }

    async fn backup(&self, to: PathBuf) -> Result<BackupReport, StoreError> {
        self.behind().await?.backup(to).await
    }

    async fn backup_stream(&self) -> Result<BackupPieces, StoreError> {
        self.behind().await?.backup_stream().await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.behind().await?.stats().await
    }

    async fn extent(&self) -> Result<Option<Extent>, StoreError> {
        self.behind().await?.extent().await
    }
}
