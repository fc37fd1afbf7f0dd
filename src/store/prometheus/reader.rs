//! The engine's series one after another, for a thread that may block.

use super::PrometheusStore;
use super::engine::{EngineRead, complete, failed, within};
use crate::prometheus_client::selector;
use crate::store::{Context, EachRequest, SeriesReader, StoreError};
use lookback_storage::{Labels, Matcher, Sample, Visit};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Reads what its context allows, in its time.
pub(super) struct RemoteReader {
    pub(super) store: PrometheusStore,
    pub(super) context: Context,
    pub(super) runtime: Handle,
}

impl RemoteReader {
    /// Whether the series come in the order of their labels.
    fn is_sorted(&self) -> Result<bool, StoreError> {
        let timeout = self.context.timeout;
        let method = self.runtime.block_on(self.store.engine().method(timeout));
        Ok(method.map_err(|error| failed(error, timeout))?.is_sorted())
    }
}

impl SeriesReader for RemoteReader {
    fn each(
        &self,
        request: &EachRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let is_sorted = self.is_sorted()?;
        let mut broken_off = false;
        let mut one_too_large = false;
        let mut unsorted: Vec<(Arc<Labels>, Vec<Sample>)> = Vec::new();
        let each = |labels: Labels, samples: Vec<Sample>| {
            if cancelled() {
                broken_off = true;
                return ControlFlow::Break(());
            }
            if samples.len() > request.samples_max {
                one_too_large = true;
                return ControlFlow::Break(());
            }
            let labels = Arc::new(labels);
            if is_sorted {
                return visit(&labels, samples);
            }
            unsorted.push((labels, samples));
            ControlFlow::Continue(())
        };
        // One series at a time is held where they come sorted; else all of them, within this bound.
        let samples_max = if is_sorted { usize::MAX } else { self.store.unsorted_samples_max() };
        let read = EngineRead {
            scope: &self.context.scope,
            matchers: request.matchers,
            within_ms: (request.start_ms, request.end_ms),
            pick: request.pick,
            samples_max,
            timeout: self.context.timeout,
        };
        self.runtime.block_on(self.store.engine().each(read, each))?;
        if broken_off {
            return Err(StoreError::Unavailable("the read was broken off".to_owned()));
        }
        if one_too_large {
            let samples_max = request.samples_max;
            let error = lookback_storage::Error::TooManySamples { samples_max };
            return Err(StoreError::TooLarge(error.to_string()));
        }
        unsorted.sort_by(|a, b| a.0.cmp(&b.0));
        for (labels, samples) in unsorted {
            if visit(&labels, samples).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn series(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Arc<Labels>>, StoreError> {
        let Context { scope, timeout } = &self.context;
        let engine = self.store.engine();
        let selectors = [selector(&within(scope, matchers))];
        let within_ms = Some((start_ms.max(0), end_ms.min(self.store.newest_ms())));
        let asked = engine.client().series(&selectors, within_ms, engine.timeout(*timeout));
        let found = complete(self.runtime.block_on(asked), *timeout)?;
        let kept = |labels: &Labels| {
            scope.allows_series(labels) && matchers.iter().all(|matcher| matcher.matches(labels))
        };
        let series = found.into_iter().filter_map(|labels| Labels::new(labels).ok()).filter(kept);
        let mut series: Vec<_> = series.map(Arc::new).collect();
        series.sort();
        series.dedup();
        Ok(series)
    }
}
