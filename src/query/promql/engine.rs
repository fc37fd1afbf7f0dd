//! Evaluation put together: which expression is whose, and what all of them share.

use super::error::{EvalError, Result};
use super::expr::{At, Expr, Moment};
use super::functions::Function;
use super::notes::Notes;
use super::series::{Points, Series};
use super::steps::Steps;
use crate::store::{EachRequest, PartsRequest, SeriesReader, StoreError};
use lookback_storage::{Figure, Labels, Matcher, Pick, RangeUse, Sample, SeriesParts, Spans};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Choices and bounds of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most samples and points that one query holds in memory.
    pub values_max: usize,
    /// How old a sample may be that stands for its series at an instant.
    pub lookback_ms: i64,
    /// The step of a subquery that says none.
    pub default_step_ms: i64,
    /// Names go at the end of the evaluation instead of with each function (a feature flag of Prometheus).
    pub delayed_name_removal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            values_max: 50_000_000,
            lookback_ms: 300_000,
            default_step_ms: 60_000,
            delayed_name_removal: false,
        }
    }
}

/// Why an evaluation has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its time is over.
    Timeout,
    /// Nobody waits for it.
    Canceled,
}

/// Where, when and how a query is evaluated.
pub struct Task<'a> {
    /// The series.
    pub reader: &'a dyn SeriesReader,
    /// Choices and bounds.
    pub options: Options,
    /// The instants of the query.
    pub steps: Steps,
    /// Asked now and then.
    pub stop: &'a (dyn Fn() -> Option<Stop> + Sync),
}

/// Takes the series of an outcome one by one.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Series) -> Result<()>;

/// Takes stored series one by one, with their samples, or with parts that stand for them.
pub(super) type StoredSink<'s, T = Vec<Sample>> = &'s mut dyn FnMut(&Arc<Labels>, T) -> Result<()>;

/// Hands what a reader gives on, until it breaks off.
type Handing<'h, T> = &'h mut dyn FnMut(&Arc<Labels>, T) -> ControlFlow<()>;

/// So many values pass before it is looked whether to stop.
const WORK_BETWEEN_LOOKS: usize = 1 << 19;

/// An evaluation under way.
pub(super) struct Engine<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) notes: RefCell<Notes>,
    /// What was read where rollups could stand for samples.
    used: RefCell<RangeUse>,
    held: Cell<usize>,
    work: Cell<usize>,
}

/// Values held in memory, until it is dropped.
pub(super) struct Held<'e> {
    held: &'e Cell<usize>,
    count: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.held.set(self.held.get().saturating_sub(self.count));
    }
}

impl Held<'_> {
    /// Takes over what another one holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.count += std::mem::take(&mut other.count);
    }
}

impl<'a> Engine<'a> {
    pub(super) fn new(task: &'a Task<'a>) -> Self {
        let (notes, used) = Default::default();
        Self { task, notes, used, held: Cell::new(0), work: Cell::new(0) }
    }

    /// What is to be said of the outcome.
    pub(super) fn into_notes(self) -> Notes {
        let mut notes = self.notes.into_inner();
        notes.made_of(&self.used.into_inner());
        notes
    }

    pub(super) fn options(&self) -> &Options {
        &self.task.options
    }

    /// Counts values as held.
    pub(super) fn hold(&self, count: usize) -> Result<Held<'_>> {
        let values_max = self.options().values_max;
        let held = self.held.get().saturating_add(count);
        if held > values_max {
            return Err(EvalError::TooLarge { values_max });
        }
        self.held.set(held);
        Ok(Held { held: &self.held, count })
    }

    /// Counts work, and ends the evaluation where it has to stop.
    pub(super) fn work(&self, count: usize) -> Result<()> {
        let work = self.work.get().saturating_add(count.saturating_add(1));
        if work < WORK_BETWEEN_LOOKS {
            self.work.set(work);
            return Ok(());
        }
        self.work.set(0);
        self.look()
    }

    fn look(&self) -> Result<()> {
        match (self.task.stop)() {
            None => Ok(()),
            Some(Stop::Timeout) => Err(EvalError::Timeout),
            Some(Stop::Canceled) => Err(EvalError::Canceled),
        }
    }

    /// The instant meant at a time.
    pub(super) fn moment_ms(&self, moment: Moment, time_ms: i64) -> i64 {
        let time_ms = match moment.at {
            None => time_ms,
            Some(At::Start) => self.task.steps.time_ms(0),
            Some(At::End) => self.task.steps.last_ms(),
            Some(At::Ms(at_ms)) => at_ms,
        };
        time_ms.saturating_sub(moment.offset_ms)
    }

    /// Reads stored series one by one.
    pub(super) fn read(
        &self,
        matchers: &[Matcher],
        (start_ms, end_ms): (i64, i64),
        pick: Pick,
        visit: StoredSink<'_>,
    ) -> Result<()> {
        let samples_max = self.samples_max();
        let request = EachRequest { matchers, start_ms, end_ms, pick, samples_max };
        self.reading(Vec::len, visit, |cancelled, hand| self.task.reader.each(&request, cancelled, hand))
    }

    /// Reads stored series one by one, with parts that stand for samples of a figure where they can.
    pub(super) fn read_parts(
        &self,
        matchers: &[Matcher],
        spans: Spans,
        figure: Figure,
        visit: StoredSink<'_, SeriesParts>,
    ) -> Result<()> {
        let request = PartsRequest { matchers, spans, figure, samples_max: self.samples_max() };
        let used = self.reading(SeriesParts::len, visit, |cancelled, hand| {
            self.task.reader.parts(&request, cancelled, hand)
        })?;
        self.used.borrow_mut().join(&used);
        Ok(())
    }

    fn samples_max(&self) -> usize {
        self.options().values_max.saturating_sub(self.held.get())
    }

    /// Holds and counts what `read` hands out, of which `len` says how much it is, while it is visited.
    fn reading<T, R>(
        &self,
        len: fn(&T) -> usize,
        visit: StoredSink<'_, T>,
        read: impl FnOnce(&(dyn Fn() -> bool + Sync), Handing<'_, T>) -> std::result::Result<R, StoreError>,
    ) -> Result<R> {
        let mut failed = None;
        let stop = self.task.stop;
        let read = read(&|| stop().is_some(), &mut |labels, of_series| {
            let count = len(&of_series);
            let visited = self.hold(count).and_then(|_held| {
                self.work(count)?;
                visit(labels, of_series)
            });
            match visited {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        match (failed, read) {
            (Some(error), _) => Err(error),
            (None, Ok(read)) => Ok(read),
            (None, Err(StoreError::TooLarge(_))) => {
                Err(EvalError::TooLarge { values_max: self.options().values_max })
            }
            (None, Err(error)) => self.look().and(Err(error.into())),
        }
    }

    /// Evaluates to an instant vector at each step; its series go to `sink` one by one.
    pub(super) fn vector(&self, expr: &Expr, steps: Steps, sink: Sink<'_>) -> Result<()> {
        match expr {
            Expr::Selector(selector) => self.select(selector, steps, sink),
            Expr::Call(call) => self.call(call, steps, sink),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, steps, sink),
            Expr::Binary(binary) => self.binary(binary, steps, sink),
            Expr::Negate(expr) => self.map_values(expr, steps, &mut |_, value| Some(-value), sink),
            Expr::Number(_) | Expr::Text(_) | Expr::Range(_) => {
                Err(EvalError::execution("expected an instant vector: a function was given something else"))
            }
        }
    }

    /// Evaluates to an instant vector at each step, and holds it.
    pub(super) fn collect(&self, expr: &Expr, steps: Steps) -> Result<(Vec<Series>, Held<'_>)> {
        let mut held = self.hold(0)?;
        let mut all = Vec::new();
        self.vector(expr, steps, &mut |series| {
            held.absorb(self.hold(series.points.len())?);
            all.push(series);
            Ok(())
        })?;
        Ok((all, held))
    }

    /// Evaluates to a number at each step.
    pub(super) fn scalar(&self, expr: &Expr, steps: Steps) -> Result<Vec<f64>> {
        // Held by its caller for no longer than it works.
        drop(self.hold(steps.count())?);
        match expr {
            Expr::Number(number) => Ok(vec![*number; steps.count()]),
            Expr::Negate(expr) => Ok(self.scalar(expr, steps)?.into_iter().map(|value| -value).collect()),
            Expr::Binary(binary) => {
                let (left, right) = (self.scalar(&binary.left, steps)?, self.scalar(&binary.right, steps)?);
                Ok(left.into_iter().zip(right).map(|(l, r)| binary.op.of_scalars(l, r)).collect())
            }
            Expr::Call(call) => match (call.function, call.args.first()) {
                (Function::Time, _) => {
                    Ok((0..steps.count()).map(|step| steps.time_ms(step) as f64 / 1_000.0).collect())
                }
                (Function::Pi, _) => Ok(vec![std::f64::consts::PI; steps.count()]),
                (Function::Scalar, Some(vector)) => self.scalar_of(vector, steps),
                _ => Err(EvalError::execution("expected a scalar")),
            },
            _ => Err(EvalError::execution("expected a scalar")),
        }
    }

    /// The value of a vector's only series at each step; NaN where there is none, or more than one.
    fn scalar_of(&self, vector: &Expr, steps: Steps) -> Result<Vec<f64>> {
        let mut seen = Points::absent(steps.count());
        let mut several = vec![false; steps.count()];
        self.vector(vector, steps, &mut |series| {
            for (step, value) in series.points.iter() {
                match several.get_mut(step) {
                    Some(several) if seen.get(step).is_some() => *several = true,
                    _ => seen.set(step, Some(value)),
                }
            }
            Ok(())
        })?;
        let value = |(step, several): (usize, bool)| if several { None } else { seen.get(step) };
        Ok(several.into_iter().enumerate().map(|s| value(s).unwrap_or(f64::NAN)).collect())
    }
}
