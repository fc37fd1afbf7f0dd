//! How many series there may be. At the bound new series are refused, and those that there are go on:
//! a sender with a runaway label must not take the store from all others.

use crate::append::Reject;
use crate::series::Series;
use crate::state::State;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// The label that names the namespace of a series.
const NAMESPACE_LABEL: &str = "namespace";

/// Bounds on the number of series; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesLimits {
    /// In all.
    pub all: Option<u64>,
    /// That carry one value of the label `namespace`.
    pub per_namespace: Option<u64>,
}

/// The series that one commit lets in for the first time.
#[derive(Default)]
pub(crate) struct Newcomers {
    ids: HashSet<u32>,
    by_namespace: HashMap<Box<str>, u64>,
}

impl Newcomers {
    /// Lets a series in that has no sample yet, if there is room. Asked once a sample: a series that has
    /// been let in, or was there before, is no newcomer.
    pub(crate) fn admit(&mut self, state: &State, series: &Series) -> Result<(), Reject> {
        if series.is_durable() || self.ids.contains(&series.id) {
            return Ok(());
        }
        if state.memory_short.load(Ordering::Relaxed) {
            return Err(Reject::MemoryLimit);
        }
        let limits = &state.options.series_limits;
        let namespace = series.labels.get(NAMESPACE_LABEL);
        if limits.all.is_some() || limits.per_namespace.is_some() {
            let postings = state.postings.read();
            let let_in = self.ids.len() as u64;
            if let Some(series_max) = limits.all.filter(|max| postings.len() + let_in >= *max) {
                return Err(Reject::SeriesLimit { series_max, namespace: None });
            }
            if let (Some(series_max), Some(namespace)) = (limits.per_namespace, namespace) {
                let let_in = self.by_namespace.get(namespace).copied().unwrap_or_default();
                if postings.carrying(NAMESPACE_LABEL, namespace) + let_in >= series_max {
                    return Err(Reject::SeriesLimit { series_max, namespace: Some(namespace.to_owned()) });
                }
            }
        }
        self.ids.insert(series.id);
        if let Some(namespace) = namespace.filter(|_| limits.per_namespace.is_some()) {
            *self.by_namespace.entry(namespace.into()).or_default() += 1;
        }
        Ok(())
    }
}
