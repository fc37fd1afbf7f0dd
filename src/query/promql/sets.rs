//! `and`, `or`, `unless`: which series are there.

use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::{Binary, BinaryOp};
use super::labels::SeriesLabels;
use super::merge::Merger;
use super::series::{Points, Series};
use super::steps::Steps;
use std::collections::HashMap;

/// For each signature, the steps at which any series of it is there.
type Presence = HashMap<SeriesLabels, Points>;

impl Engine<'_> {
    /// A set operator.
    pub(super) fn set(&self, binary: &Binary, steps: Steps, sink: Sink<'_>) -> Result<()> {
        if binary.op == BinaryOp::Or {
            return self.union(binary, steps, sink);
        }
        let mut held = self.hold(0)?;
        let mut there = Presence::new();
        self.vector(&binary.right, steps, &mut |series| {
            let signature = binary.matching.signature(&series.labels);
            if !there.contains_key(&signature) {
                held.absorb(self.hold(steps.count())?);
            }
            note(&mut there, signature, &series);
            self.work(series.points.len())
        })?;
        let wanted = binary.op == BinaryOp::And;
        self.vector(&binary.left, steps, &mut |mut series| {
            let presence = there.get(&binary.matching.signature(&series.labels));
            series.points.replace(|step, value| {
                let is_there = presence.is_some_and(|points| points.get(step).is_some());
                (is_there == wanted).then_some(value)
            });
            if series.points.is_empty() { Ok(()) } else { sink(series) }
        })
    }

    /// The series of the left, and those of the right where the left has none of their signature.
    fn union(&self, binary: &Binary, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let mut held = self.hold(0)?;
        let mut there = Presence::new();
        let mut merger = Merger::default();
        self.vector(&binary.left, steps, &mut |series| {
            held.absorb(self.hold(steps.count().saturating_mul(2))?);
            note(&mut there, binary.matching.signature(&series.labels), &series);
            merger.add(series)
        })?;
        self.vector(&binary.right, steps, &mut |mut series| {
            let presence = there.get(&binary.matching.signature(&series.labels));
            series.points.replace(|step, value| {
                presence.is_none_or(|points| points.get(step).is_none()).then_some(value)
            });
            if series.points.is_empty() {
                return Ok(());
            }
            held.absorb(self.hold(steps.count())?);
            merger.add(series)
        })?;
        merger.into_series().into_iter().try_for_each(sink)
    }
}

fn note(there: &mut Presence, signature: SeriesLabels, series: &Series) {
    let presence = there.entry(signature).or_insert_with(|| Points::absent(series.points.len()));
    for (step, _) in series.points.iter() {
        presence.set(step, Some(1.0));
    }
}
