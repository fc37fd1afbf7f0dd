//! Reading: samples of selected series, from memory and from blocks, merged.
//!
//! invariant: a reader takes a series' samples in memory before the set of blocks. A seal publishes
//! its blocks before it lets the memory go, so a sample is seen once or twice, never not at all.

use crate::block::{Block, ChunkEntry};
use crate::deletes::Deletes;
use crate::each::Steps;
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::sample::{Sample, sort_and_deduplicate};
use crate::series::Series;
use crate::state::State;
use crate::stored_labels::sort_by_labels;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which series a reader asks for.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// All of these must fit; none: every series.
    pub matchers: &'a [Matcher],
    /// Further restricts the series; `None`: no restriction.
    pub visible: Option<&'a (dyn Fn(&Labels) -> bool + Sync)>,
}

impl Selection<'_> {
    /// Whether a label set is selected.
    pub(crate) fn fits(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
            && self.visible.is_none_or(|visible| visible(labels))
    }
}

/// Bounds of one read.
#[derive(Clone, Copy)]
pub struct ReadLimits<'a> {
    /// Most samples that may be read in all.
    pub samples_max: usize,
    /// Asked now and then; true ends the read with [`Error::Cancelled`].
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Samples of one series, in time order, one a timestamp.
pub type SeriesSamples = (Arc<Labels>, Vec<Sample>);

impl State {
    /// The selected series in label order.
    pub(crate) fn select_in_order(&self, selection: Selection<'_>) -> Vec<Arc<Series>> {
        let mut series = self.select_series(selection);
        sort_by_labels(&mut series, |series| &series.labels);
        series
    }

    /// The selected series.
    pub(crate) fn select_series(&self, selection: Selection<'_>) -> Vec<Arc<Series>> {
        let ids = self.postings.read().select(selection.matchers);
        let mut series = self.registry.get_all(ids.iter());
        if let Some(visible) = selection.visible {
            let asked_for = series.len();
            series.retain(|series| visible(&self.handed_out.labels(series, asked_for)));
        }
        series
    }

    /// All samples of the selected series in `[start_ms, end_ms]`.
    pub(crate) fn select(
        &self,
        selection: Selection<'_>,
        start_ms: i64,
        end_ms: i64,
        limits: ReadLimits<'_>,
    ) -> Result<Vec<SeriesSamples>> {
        self.read_each(selection, start_ms, end_ms, limits, |samples| samples)
    }

    /// Reads series by series; those for which `digest` leaves nothing are left out.
    fn read_each(
        &self,
        selection: Selection<'_>,
        start_ms: i64,
        end_ms: i64,
        limits: ReadLimits<'_>,
        digest: impl Fn(Vec<Sample>) -> Vec<Sample>,
    ) -> Result<Vec<SeriesSamples>> {
        let series = self.select_in_order(selection);
        let mut left = limits.samples_max;
        let too_many = || Error::TooManySamples { samples_max: limits.samples_max };
        let mut answer = Vec::with_capacity(series.len());
        for series in series {
            if (limits.cancelled)() {
                return Err(Error::Cancelled);
            }
            let samples = self.read_series(&series, start_ms, end_ms, left)?.ok_or_else(too_many)?;
            left -= samples.len();
            let samples = digest(samples);
            if !samples.is_empty() {
                answer.push((series.labels.share(), samples));
            }
        }
        Ok(answer)
    }

    /// The samples of one series in `[start_ms, end_ms]`; `None`, as soon as that is known, if they are
    /// more than `samples_max`.
    pub(crate) fn read_series(
        &self,
        series: &Series,
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Option<Vec<Sample>>> {
        self.read_series_at(series, start_ms, end_ms, None, samples_max)
    }

    /// The same; with `steps` of what is in blocks no more need be there than the newest at each of them.
    pub(crate) fn read_series_at(
        &self,
        series: &Series,
        start_ms: i64,
        end_ms: i64,
        steps: Option<Steps>,
        samples_max: usize,
    ) -> Result<Option<Vec<Sample>>> {
        let start_ms = start_ms.max(self.oldest_read_ms(&self.retention(), series));
        let mut in_memory = Vec::new();
        series.read_head(start_ms, end_ms, &mut in_memory);
        let (deletes, blocks) = (self.deletes(), self.blocks());
        let mut chunks = Vec::new();
        for block in blocks.iter().filter(|block| block.overlaps(start_ms, end_ms)) {
            let entries = block.of_series(series.id).into_iter();
            let overlaps = |e: &ChunkEntry| e.min_ms <= end_ms && e.last_ms >= start_ms;
            chunks.extend(entries.filter(overlaps).map(|entry| (block, entry)));
        }
        // Blocks are in the order in which they were made; in time order nothing is left to be sorted.
        chunks.sort_by_key(|(_, entry)| entry.min_ms);
        let most = match steps {
            Some(_) => 0,
            None => chunks.iter().map(|(_, entry)| entry.samples as usize).sum::<usize>(),
        };
        let mut samples = Vec::with_capacity(most.min(samples_max).saturating_add(in_memory.len()));
        // A chunk has its samples in time order: where none reaches into the next, neither do their samples.
        let mut in_order = chunks.is_sorted_by(|(_, one), (_, next)| one.last_ms < next.min_ms);
        for (block, entry) in chunks {
            self.read_entry(block, &entry, (start_ms, end_ms), steps, &deletes, &mut samples)?;
            if samples.len() > samples_max {
                // A sample may lie in two places.
                sort_and_deduplicate(&mut samples);
                if samples.len() > samples_max {
                    return Ok(None);
                }
            }
        }
        sort_and_deduplicate(&mut in_memory);
        in_order &= match (samples.last(), in_memory.first()) {
            (Some(last), Some(first)) => last.timestamp_ms < first.timestamp_ms,
            _ => true,
        };
        samples.append(&mut in_memory);
        if !in_order {
            sort_and_deduplicate(&mut samples);
        }
        Ok((samples.len() <= samples_max).then_some(samples))
    }

    /// Appends what a chunk holds in a range that is neither deleted nor damaged.
    fn read_entry(
        &self,
        block: &Block,
        entry: &ChunkEntry,
        range_ms: (i64, i64),
        steps: Option<Steps>,
        deletes: &Deletes,
        samples: &mut Vec<Sample>,
    ) -> Result<()> {
        let sealed_seq = block.record().sealed_seq;
        if !deletes.touches(entry.series, sealed_seq) {
            return self.told(block.read_into(entry, range_ms, steps, samples)).map(drop);
        }
        // All of them: the newest at a step may be one that is deleted.
        let mut of_entry = Vec::new();
        self.told(block.read_into(entry, range_ms, None, &mut of_entry))?;
        deletes.apply(entry.series, sealed_seq, &mut of_entry);
        samples.append(&mut of_entry);
        Ok(())
    }

    /// The samples of a chunk. A damaged one is counted, logged by name, and `None`.
    pub(crate) fn read_chunk(&self, block: &Block, entry: &ChunkEntry) -> Result<Option<Vec<Sample>>> {
        self.told(block.read(entry))
    }

    /// What was read; what is damaged is counted, logged by name, and `None`.
    fn told<T>(&self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error @ Error::Damaged { .. }) => {
                self.counters.damaged_chunks.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a damaged chunk is left out of an answer");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The newest sample of each selected series, staleness markers included. Touches memory only.
    pub(crate) fn latest(&self, selection: Selection<'_>) -> Vec<(Arc<Labels>, Sample)> {
        let (series, retention) = (self.select_series(selection), self.retention());
        let asked_for = series.len();
        let latest = |series: &Arc<Series>| {
            let sample = series.latest()?;
            let kept = sample.timestamp_ms >= self.oldest_read_ms(&retention, series);
            kept.then(|| (self.handed_out.labels(series, asked_for), sample))
        };
        series.iter().filter_map(latest).collect()
    }

    /// The newest sample of one series, found anew in memory and in blocks.
    pub(crate) fn newest_sample(&self, series: &Series) -> Result<Option<Sample>> {
        let mut newest: Option<Sample> = None;
        let note = |newest: &mut Option<Sample>, samples: &[Sample]| {
            let newest_of_these = samples.iter().copied().max_by(Sample::total_cmp);
            if let Some(sample) = newest_of_these
                && newest.is_none_or(|newest| sample.total_cmp(&newest).is_gt())
            {
                *newest = Some(sample);
            }
        };
        let mut in_memory = Vec::new();
        series.read_head(i64::MIN, i64::MAX, &mut in_memory);
        note(&mut newest, &in_memory);
        let deletes = self.deletes();
        for block in self.blocks().iter() {
            for entry in block.of_series(series.id) {
                if newest.is_some_and(|newest| newest.timestamp_ms > entry.last_ms) {
                    continue;
                }
                let mut left = Vec::new();
                self.read_entry(block, &entry, (i64::MIN, i64::MAX), None, &deletes, &mut left)?;
                note(&mut newest, &left);
            }
        }
        Ok(newest)
    }

    /// Label names, or the values of one label, of the selected series; sorted.
    pub(crate) fn labels(&self, name: Option<&str>, selection: Selection<'_>) -> Vec<String> {
        let selected = match selection.visible {
            None if selection.matchers.is_empty() => None,
            None => Some(self.postings.read().select(selection.matchers)),
            Some(_) => Some(self.select_series(selection).iter().map(|series| series.id).collect()),
        };
        let postings = self.postings.read();
        match name {
            Some(name) => postings.values(name, selected.as_ref()),
            None => postings.names(selected.as_ref()),
        }
    }
}
