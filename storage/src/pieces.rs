//! Reading everything, piece by piece: no more than one partition of one series is in memory at a time.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::labels::{Labels, METRIC_NAME_LABEL};
use crate::sample::Sample;
use crate::select::Selection;
use crate::series::Series;
use crate::state::State;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Samples of one series in one partition of time.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The series.
    pub labels: &'a Arc<Labels>,
    /// Its samples there, in time order, one a timestamp; at least one.
    pub samples: Vec<Sample>,
    /// How many of the selected series came before this one.
    pub series_done: usize,
    /// How many series are selected.
    pub series_all: usize,
}

impl Db {
    /// Hands `visit` all samples of the selected series in `[start_ms, end_ms]`, bit for bit, until it
    /// breaks off: series by metric name and then by their labels, pieces of one series one after another in
    /// time order.
    ///
    /// # Errors
    /// When it is `cancelled`, or the file system refuses. Damaged chunks are left out, counted and logged.
    pub fn select_pieces(
        &self,
        selection: Selection<'_>,
        (start_ms, end_ms): (i64, i64),
        cancelled: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let state = &self.inner().state;
        let mut series = state.select_series(selection);
        series.sort_by(|a, b| {
            let by_name = a.labels.get(METRIC_NAME_LABEL).cmp(&b.labels.get(METRIC_NAME_LABEL));
            by_name.then_with(|| a.labels.cmp(&b.labels))
        });
        for (series_done, one) in series.iter().enumerate() {
            let labels = one.labels.share();
            for partition_start_ms in state.partitions_with(one, start_ms, end_ms) {
                if cancelled() {
                    return Err(Error::Cancelled);
                }
                let last_ms = partition_start_ms.saturating_add(state.partition_ms - 1);
                let span = (start_ms.max(partition_start_ms), end_ms.min(last_ms));
                let samples = state.read_series(one, span.0, span.1, usize::MAX)?.unwrap_or_default();
                let piece = Piece { labels: &labels, samples, series_done, series_all: series.len() };
                if !piece.samples.is_empty() && visit(piece).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// Where the partitions begin that may have samples of this series in `[start_ms, end_ms]`, in time order.
    fn partitions_with(&self, series: &Series, start_ms: i64, end_ms: i64) -> BTreeSet<i64> {
        let mut in_memory = Vec::new();
        series.read_head(start_ms, end_ms, &mut in_memory);
        let mut starts: BTreeSet<i64> =
            in_memory.iter().map(|sample| self.partition_start_ms(sample.timestamp_ms)).collect();
        let blocks = self.blocks();
        let blocks = blocks.iter().filter(|block| block.overlaps(start_ms, end_ms));
        starts.extend(blocks.map(|block| block.record().partition_start_ms));
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, OutOfOrder, WriteBatch};

    #[test]
    fn pieces_put_together_are_all_samples_by_metric_in_time_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { partition_ms: 10, retention_ms: None, ..Options::default() };
        let db = Db::open(dir.path(), options, uuid::Uuid::new_v4()).expect("opens");
        // A label in capitals sorts before the name's.
        for (name, capital) in [("b", "1"), ("a", "2"), ("b", "2"), ("a", "1")] {
            let mut batch = WriteBatch::default();
            for at_ms in [-25, -1, 0, 9, 10, 31] {
                batch.push(
                    Labels::new([("__name__", name), ("A", capital)]).expect("valid"),
                    Some(at_ms),
                    at_ms as f64,
                );
            }
            db.append_wait(batch, 100, OutOfOrder::Lifted).expect("appended");
            if name == "a" {
                db.seal().expect("sealed");
            }
        }
        let all = Selection { matchers: &[], visible: None };
        let mut read: Vec<(String, Vec<i64>)> = Vec::new();
        db.select_pieces(all, (-24, 31), &|| false, &mut |piece| {
            let times = piece.samples.iter().map(|sample| sample.timestamp_ms);
            match read.last_mut().filter(|(series, _)| *series == piece.labels.to_string()) {
                Some((_, known)) => known.extend(times),
                None => read.push((piece.labels.to_string(), times.collect())),
            }
            ControlFlow::Continue(())
        })
        .expect("read");
        let expected = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")].map(|(name, capital)| {
            let labels = Labels::new([("__name__", name), ("A", capital)]).expect("valid");
            (labels.to_string(), vec![-1, 0, 9, 10, 31])
        });
        assert_eq!(read, expected);
        let cancelled = db.select_pieces(all, (0, 9), &|| true, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(cancelled, Err(Error::Cancelled)));
    }
}
