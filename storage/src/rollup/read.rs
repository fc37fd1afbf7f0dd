//! Reading: a resampled range of windows where they say the same as the samples, of samples elsewhere.
//!
//! For each partition and series it is decided anew. Windows are taken where the grid lies on their
//! multiples and the unit has seen all that there is. A reader takes the samples in memory first, then
//! the blocks, then the rollups, so that nothing can fall between.

use super::cache::{Kept, Key};
use super::chunk::{Column, Figures};
use super::parts::Spans;
use super::points::{Points, column};
use super::window::{Edges, gap_max_ms};
use super::{RollupFile, Unit, Units, unseen_deletes};
use crate::block::Block;
use crate::deletes::Deletes;
use crate::error::{Error, Result};
use crate::labels::METRIC_NAME_LABEL;
use crate::resample::{Aggregation, COUNTER_GAP_MAX_MS, Grid, counter_rates, resample};
use crate::retention::Retention;
use crate::sample::Sample;
use crate::select::{ReadLimits, Selection, SeriesSamples};
use crate::series::Series;
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A resampled range, and what it was made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeRead {
    /// The points of each series, in label order.
    pub series: Vec<SeriesSamples>,
    /// What they were made of.
    pub used: RangeUse,
}

/// What a resampled range was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeUse {
    /// Whether samples themselves were read.
    pub samples: bool,
    /// The windows of the rollups that were read, in milliseconds.
    pub windows_ms: BTreeSet<i64>,
    /// Windows of which there are rollups in the range whose samples are gone, and which could not
    /// answer: by the aggregation, or because the grid does not lie on their multiples.
    pub left_out_ms: BTreeSet<i64>,
}

impl RangeUse {
    /// What this and another range together were made of.
    pub fn join(&mut self, other: &Self) {
        self.samples |= other.samples;
        self.windows_ms.extend(&other.windows_ms);
        self.left_out_ms.extend(&other.left_out_ms);
    }
}

/// Figures of one partition that stand for its samples.
pub(super) struct Rolled {
    pub(super) start_ms: i64,
    /// There are figures; with their edges where they are of rates.
    pub(super) kept: Arc<Kept>,
    /// Windows that end before are kept no longer.
    pub(super) oldest_ms: i64,
}

/// What is asked of the windows of rollups.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// Points of a grid, which leave out samples that are not finite.
    Points(Grid),
    /// Parts of spans, which leave out nothing.
    Parts(Spans),
}

impl Asked {
    /// Whether no window of this length in a partition holds samples of which one counts where another does not.
    fn fits(self, window_ms: i64, (start_ms, end_ms): (i64, i64)) -> bool {
        match self {
            Self::Points(grid) => grid.start_ms % window_ms == 0 && grid.step_ms % window_ms == 0,
            Self::Parts(spans) => spans.lie_on(window_ms) || spans.all_hold(start_ms, end_ms),
        }
    }
}

/// One question, and what there is to answer it from.
pub(super) struct Question<'a> {
    pub(super) state: &'a State,
    retention: Arc<Retention>,
    units: Arc<Units>,
    blocks: Arc<Vec<Arc<Block>>>,
    deletes: Arc<Deletes>,
    asked: Asked,
    column: Option<Column>,
    counter: bool,
    gap_max_ms: i64,
    /// Samples from here may count,
    pub(super) start_ms: i64,
    /// up to here.
    pub(super) end_ms: i64,
}

impl State {
    /// Resampled history of the selected series.
    pub(crate) fn range(
        &self,
        selection: Selection<'_>,
        grid: Grid,
        aggregation: Aggregation,
        counter: bool,
        points_max: usize,
        limits: ReadLimits<'_>,
    ) -> Result<RangeRead> {
        let series = self.select_in_order(selection);
        let gap_max_ms = COUNTER_GAP_MAX_MS.max(grid.step_ms);
        let first_ms = grid.first_sample_ms();
        let start_ms = if counter { first_ms.saturating_sub(gap_max_ms) } else { first_ms };
        let (mut left, mut held) = (limits.samples_max, 0);
        let mut read = RangeRead { series: Vec::with_capacity(series.len()), ..RangeRead::default() };
        for series in series {
            if (limits.cancelled)() {
                return Err(Error::Cancelled);
            }
            // What is in memory before what is in blocks, and that before what is rolled up.
            let mut in_memory = Vec::new();
            series.read_head(start_ms, grid.end_ms, &mut in_memory);
            let question = Question {
                counter,
                gap_max_ms,
                ..self.question(Asked::Points(grid), column(aggregation), (start_ms, grid.end_ms))
            };
            let points = Points::new(grid, aggregation);
            let points = question.points(points, &series, &in_memory, &mut left, &mut read.used)?;
            let points = points.ok_or(Error::TooManySamples { samples_max: limits.samples_max })?;
            held += points.len();
            if held > points_max {
                return Err(Error::TooManyPoints { points_max });
            }
            if !points.is_empty() {
                read.series.push((series.labels.share(), points));
            }
        }
        Ok(read)
    }

    /// A question of values, with what there is now to answer it from.
    pub(super) fn question(
        &self,
        asked: Asked,
        column: Option<Column>,
        (start_ms, end_ms): (i64, i64),
    ) -> Question<'_> {
        Question {
            state: self,
            retention: self.retention(),
            blocks: self.blocks(),
            units: self.rollups(),
            deletes: self.deletes(),
            asked,
            column,
            counter: false,
            gap_max_ms: COUNTER_GAP_MAX_MS,
            start_ms,
            end_ms,
        }
    }

    /// Whether the rates of a series are rolled up.
    pub(super) fn is_counter(&self, series: &Series) -> bool {
        let name = series.labels.get(METRIC_NAME_LABEL).unwrap_or_default();
        name.ends_with("_total") || self.options.counters.contains(name)
    }
}

impl Question<'_> {
    /// The points of one series; `None`: they take more than is `left` to read.
    fn points(
        &self,
        mut points: Points,
        series: &Series,
        in_memory: &[Sample],
        left: &mut usize,
        used: &mut RangeUse,
    ) -> Result<Option<Vec<Sample>>> {
        let rolled = self.rolled(series, in_memory, used)?;
        let take = |left: &mut usize, count: usize| {
            let enough = *left >= count;
            *left = left.saturating_sub(count);
            enough
        };
        if rolled.is_empty() {
            let samples = self.state.read_series(series, self.start_ms, self.end_ms, *left)?;
            let Some(samples) = samples.filter(|samples| take(left, samples.len())) else { return Ok(None) };
            used.samples |= !samples.is_empty();
            let (grid, aggregation) = (points.grid, points.aggregation);
            let points = if self.counter {
                resample(&counter_rates(&samples, self.gap_max_ms), grid, aggregation)
            } else {
                resample(&samples, grid, aggregation)
            };
            return Ok(Some(points));
        }
        let (mut at_ms, mut before) = (self.start_ms, None);
        for rolled in rolled {
            if at_ms < rolled.start_ms
                && !self.add_samples(
                    series,
                    (at_ms, rolled.start_ms - 1),
                    left,
                    used,
                    &mut before,
                    &mut points,
                )?
            {
                return Ok(None);
            }
            let Some((figures, edges)) = &*rolled.kept else { continue };
            if !take(left, figures.len()) {
                return Ok(None);
            }
            if let Some(Edges { first, last, .. }) = edges {
                let joined: Vec<Sample> = before.into_iter().chain([*first]).collect();
                points.add_samples(&counter_rates(&joined, self.gap_max_ms));
                before = Some(*last);
            }
            points.add_windows(figures, rolled.oldest_ms);
            at_ms = rolled.start_ms.saturating_add(self.state.partition_ms);
        }
        if at_ms <= self.end_ms
            && !self.add_samples(series, (at_ms, self.end_ms), left, used, &mut before, &mut points)?
        {
            return Ok(None);
        }
        Ok(Some(points.finish()))
    }

    /// Adds the samples of a span. False: they are more than is left to read.
    fn add_samples(
        &self,
        series: &Series,
        (start_ms, end_ms): (i64, i64),
        left: &mut usize,
        used: &mut RangeUse,
        before: &mut Option<Sample>,
        points: &mut Points,
    ) -> Result<bool> {
        let Some(samples) = self.state.read_series(series, start_ms, end_ms, *left)? else {
            return Ok(false);
        };
        *left -= samples.len();
        used.samples |= !samples.is_empty();
        if self.counter {
            let joined: Vec<Sample> = before.iter().chain(&samples).copied().collect();
            points.add_samples(&counter_rates(&joined, self.gap_max_ms));
            *before = samples.last().copied().or(*before);
        } else {
            points.add_samples(&samples);
        }
        Ok(true)
    }

    /// Those partitions of which rollups stand for the samples of a series, in time order.
    pub(super) fn rolled(
        &self,
        series: &Series,
        in_memory: &[Sample],
        used: &mut RangeUse,
    ) -> Result<Vec<Rolled>> {
        let mut rolled = Vec::new();
        if self.units.is_empty() || self.start_ms > self.end_ms {
            return Ok(rolled);
        }
        let first_ms = self.state.partition_start_ms(self.start_ms);
        for unit in self.units.range(first_ms..=self.end_ms).map(|(_, unit)| unit) {
            if unit.files.is_empty() {
                continue;
            }
            match self.rolled_in(unit, series, in_memory)? {
                Some((window_ms, of_unit)) => {
                    used.windows_ms.insert(window_ms);
                    rolled.push(of_unit);
                }
                None if unit.record.samples_dropped => {
                    for file in &unit.files {
                        if file.has(series.id).unwrap_or_default() {
                            used.left_out_ms.insert(file.record.window_ms);
                        }
                    }
                }
                None => {}
            }
        }
        Ok(rolled)
    }

    /// The figures of one partition, if they stand for its samples.
    fn rolled_in(&self, unit: &Unit, series: &Series, in_memory: &[Sample]) -> Result<Option<(i64, Rolled)>> {
        let Some(column) = self.column else { return Ok(None) };
        let start_ms = unit.record.partition_start_ms;
        let partition_ms = self.state.partition_ms;
        let end_ms = start_ms.saturating_add(partition_ms);
        let blocks = || self.blocks.iter().filter(|block| block.record().partition_start_ms == start_ms);
        let has = |block: &Block| !block.of_series(series.id).is_empty();
        let deleted = unseen_deletes(&self.deletes, unit, series.id, partition_ms);
        if !unit.record.samples_dropped {
            let unseen =
                |block: &&Arc<Block>| block.record().sealed_seq > unit.record.sealed_seq && has(block);
            let newer = in_memory.iter().any(|sample| (start_ms..end_ms).contains(&sample.timestamp_ms))
                || blocks().any(|block| unseen(&block))
                || (!deleted.is_empty() && blocks().any(|block| has(block)));
            if newer {
                return Ok(None);
            }
        }
        let fits = |file: &&Arc<RollupFile>| self.asked.fits(file.record.window_ms, (start_ms, end_ms));
        let mut files: Vec<_> = unit.files.iter().filter(fits).collect();
        // Of windows that fit, the longest are the fewest; of two classes' the later knows better.
        files.sort_by_key(|file| std::cmp::Reverse((file.record.window_ms, file.record.id)));
        for file in files {
            let window_ms = file.record.window_ms;
            let read = if deleted.is_empty() {
                let of_rates = self.counter;
                let key = Key { file: file.record.id, series: series.id, column, of_rates };
                self.state.columns.get_or_read(key, || file.figures(series.id, column, of_rates))
            } else {
                let whole = file.read(series.id);
                whole.map(|whole| Arc::new(without(whole, window_ms, &deleted, column, self.counter)))
            };
            let found = match read {
                Err(error @ Error::Damaged { .. }) => {
                    self.state.note_damaged_rollup(&error);
                    unit.broken.store(true, Ordering::Relaxed);
                    None
                }
                read => Some(read?),
            };
            let Some(kept) = found else { continue };
            let Some((figures, edges)) = &*kept else { continue };
            // Windows leave out what is not finite; where nothing was left out, they count every sample.
            let stored = || blocks().map(|block| samples_of(block, series.id)).sum::<u64>();
            if matches!(self.asked, Asked::Parts(_)) && figures.counted() < stored() {
                continue;
            }
            let joins = edges.is_none_or(|edges| {
                gap_max_ms(window_ms) == self.gap_max_ms
                    || edges.gap_min_ms.is_none_or(|gap_ms| gap_ms > self.gap_max_ms)
            });
            if joins {
                let oldest_ms = self.oldest_ms(series, window_ms);
                return Ok(Some((window_ms, Rolled { start_ms, kept, oldest_ms })));
            }
        }
        Ok(None)
    }

    /// The oldest end of windows that are kept, by the rule of today.
    fn oldest_ms(&self, series: &Series, window_ms: i64) -> i64 {
        let rule = self.retention.rule_of(series);
        // Rollups that its rule does not ask for any more tell no more than its samples would.
        let keep_ms = rule.rollups.get(&window_ms).copied().unwrap_or(rule.keep_ms);
        match (keep_ms, self.state.told_ms.load()) {
            (Some(keep_ms), Some(now_ms)) => now_ms.saturating_sub(keep_ms),
            _ => i64::MIN,
        }
    }
}

/// How many samples of a series a block holds.
fn samples_of(block: &Block, series: u32) -> u64 {
    block.of_series(series).iter().map(|entry| u64::from(entry.samples)).sum()
}

/// A column of what is left of a rollup without what was deleted.
fn without(
    rolled: Option<super::window::Rolled>,
    window_ms: i64,
    deleted: &[(i64, i64)],
    column: Column,
    counter: bool,
) -> Kept {
    let left = deleted
        .iter()
        .try_fold(rolled?, |left, (start_ms, end_ms)| left.without(window_ms, *start_ms, *end_ms))?;
    if !counter {
        return Some((Figures::of(&left.values, window_ms, column), None));
    }
    let rates = left.rates?;
    Some((Figures::of(&rates.windows, window_ms, column), Some(rates.edges)))
}
