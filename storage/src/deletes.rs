//! Deletes of samples that lie in blocks: remembered until the blocks are rewritten.

use crate::sample::Sample;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A delete: applies to the samples that were written before log group `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeleteRecord {
    pub(crate) seq: u64,
    pub(crate) series: u32,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

/// All deletes that may still apply to a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletes {
    by_series: BTreeMap<u32, Vec<DeleteRecord>>,
}

impl Deletes {
    pub(crate) fn add(&mut self, delete: DeleteRecord) {
        self.by_series.entry(delete.series).or_default().push(delete);
    }

    /// Whether any delete touches this series in a block sealed at `sealed_seq`.
    pub(crate) fn touches(&self, series: u32, sealed_seq: u64) -> bool {
        self.by_series.get(&series).is_some_and(|deletes| deletes.iter().any(|d| d.seq > sealed_seq))
    }

    /// Takes out of `samples`, read from a block sealed at `sealed_seq`, what was deleted later.
    pub(crate) fn apply(&self, series: u32, sealed_seq: u64, samples: &mut Vec<Sample>) {
        let Some(deletes) = self.by_series.get(&series) else { return };
        for delete in deletes.iter().filter(|d| d.seq > sealed_seq) {
            samples.retain(|s| s.timestamp_ms < delete.start_ms || s.timestamp_ms > delete.end_ms);
        }
    }

    /// Those of one series.
    pub(crate) fn of_series(&self, series: u32) -> &[DeleteRecord] {
        self.by_series.get(&series).map(Vec::as_slice).unwrap_or_default()
    }

    /// Removes and gives out the deletes that nothing needs any more: those not after
    /// `oldest_sealed_seq`, the smallest of all blocks, that are not `needed` by rollups.
    pub(crate) fn take_spent(
        &mut self,
        oldest_sealed_seq: u64,
        needed: impl Fn(&DeleteRecord) -> bool,
    ) -> Vec<DeleteRecord> {
        let mut spent = Vec::new();
        for deletes in self.by_series.values_mut() {
            spent.extend(deletes.extract_if(.., |d| d.seq <= oldest_sealed_seq && !needed(d)));
        }
        self.by_series.retain(|_, deletes| !deletes.is_empty());
        spent
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &DeleteRecord> {
        self.by_series.values().flatten()
    }
}
