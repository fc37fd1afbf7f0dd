//! Operators between two vectors, whose series are brought together by their labels.

use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::{Binary, Cardinality, Matching};
use super::labels::SeriesLabels;
use super::merge::Merger;
use super::series::{Points, Series};
use super::steps::Steps;
use std::collections::{HashMap, HashSet};

impl Matching {
    /// By what a series is matched.
    pub(super) fn signature(&self, labels: &SeriesLabels) -> SeriesLabels {
        if self.on { labels.only(&self.labels) } else { labels.without(&self.labels) }
    }
}

/// Series by what they are matched by; places in the list they came in.
pub(super) fn by_signature(matching: &Matching, all: &[Series]) -> HashMap<SeriesLabels, Vec<usize>> {
    let mut places: HashMap<SeriesLabels, Vec<usize>> = HashMap::new();
    for (place, series) in all.iter().enumerate() {
        places.entry(matching.signature(&series.labels)).or_default().push(place);
    }
    places
}

/// The two sides, the one of which each group has one series at a step as `one`.
struct Sides {
    many: Vec<Series>,
    one: Vec<Series>,
    /// At which steps either side has any series at all.
    any_many: Vec<bool>,
    any_one: Vec<bool>,
}

fn any(all: &[Series], steps: usize) -> Vec<bool> {
    let mut any = vec![false; steps];
    for (step, _) in all.iter().flat_map(|series| series.points.iter()) {
        if let Some(any) = any.get_mut(step) {
            *any = true;
        }
    }
    any
}

impl Engine<'_> {
    /// Arithmetic or a comparison between vectors.
    pub(super) fn matched(&self, binary: &Binary, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let (left, _left_held) = self.collect(&binary.left, steps)?;
        let (right, _right_held) = self.collect(&binary.right, steps)?;
        let swapped = binary.matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let (any_many, any_one) = (any(&many, steps.count()), any(&one, steps.count()));
        let sides = Sides { many, one, any_many, any_one };
        let ones = by_signature(&binary.matching, &sides.one);
        self.check_ones(&binary.matching, &sides, &ones)?;
        // In the order of the many side, so that an instant vector keeps it.
        let mut groups: HashMap<SeriesLabels, Matched> = HashMap::new();
        let mut merger = Merger::default();
        let mut held = self.hold(0)?;
        for many in &sides.many {
            let signature = binary.matching.signature(&many.labels);
            let Some(places) = ones.get(&signature) else { continue };
            let group = groups.entry(signature).or_default();
            for one in places.iter().filter_map(|place| sides.one.get(*place)) {
                self.work(steps.count())?;
                let labels =
                    outcome_labels(binary, &many.labels, &one.labels, self.options().delayed_name_removal);
                let points = group.combine(binary, many, one, &labels, steps)?;
                if points.is_empty() {
                    continue;
                }
                held.absorb(self.hold(points.len())?);
                merger.add(Series { labels, drop_name: binary.as_bool, points })?;
            }
        }
        merger.into_series().into_iter().try_for_each(sink)
    }

    /// Each group has one series of the one side at a step at most.
    fn check_ones(
        &self,
        matching: &Matching,
        sides: &Sides,
        ones: &HashMap<SeriesLabels, Vec<usize>>,
    ) -> Result<()> {
        for (signature, places) in ones.iter().filter(|(_, places)| places.len() > 1) {
            let mut first: Vec<Option<usize>> = vec![None; sides.any_many.len()];
            for place in places {
                let Some(series) = sides.one.get(*place) else { continue };
                self.work(series.points.len())?;
                for (step, _) in series.points.iter() {
                    let both =
                        sides.any_many.get(step) == Some(&true) && sides.any_one.get(step) == Some(&true);
                    let Some(first) = first.get_mut(step).filter(|_| both) else { continue };
                    if let Some(other) = first.and_then(|place| sides.one.get(place)) {
                        return Err(duplicate(matching, signature, &series.labels, &other.labels));
                    }
                    *first = Some(*place);
                }
            }
        }
        Ok(())
    }
}

fn duplicate(matching: &Matching, group: &SeriesLabels, a: &SeriesLabels, b: &SeriesLabels) -> EvalError {
    let side = if matching.card == Cardinality::OneToMany { "left" } else { "right" };
    let (a, b) = (a.to_string(), b.to_string());
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    EvalError::execution(format!(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
         [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
    ))
}

/// What has been matched within a group, by step.
#[derive(Default)]
struct Matched {
    /// One to one: at which steps.
    taken: Vec<bool>,
    /// Otherwise: with which outcome.
    outcomes: HashMap<usize, HashSet<SeriesLabels>>,
    /// The only outcome so far, and where: most groups have no other.
    sole: Option<SeriesLabels>,
}

impl Matched {
    fn combine(
        &mut self,
        binary: &Binary,
        many: &Series,
        one: &Series,
        labels: &SeriesLabels,
        steps: Steps,
    ) -> Result<Points> {
        let mut points = Points::absent(steps.count());
        for (step, many_value) in many.points.iter() {
            let Some(one_value) = one.points.get(step) else { continue };
            self.note(binary.matching.card, step, labels, steps)?;
            let swapped = binary.matching.card == Cardinality::OneToMany;
            let (left, right) = if swapped { (one_value, many_value) } else { (many_value, one_value) };
            let outcome = binary.op.of(left, right);
            let value = if binary.as_bool { Some(f64::from(u8::from(outcome.is_some()))) } else { outcome };
            points.set(step, value);
        }
        Ok(points)
    }

    fn note(&mut self, card: Cardinality, step: usize, labels: &SeriesLabels, steps: Steps) -> Result<()> {
        self.taken.resize(steps.count(), false);
        let Some(taken) = self.taken.get_mut(step) else { return Ok(()) };
        let was_taken = std::mem::replace(taken, true);
        if card == Cardinality::OneToOne {
            if was_taken {
                return Err(EvalError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            return Ok(());
        }
        let sole = self.sole.get_or_insert_with(|| labels.clone());
        let is_new = if was_taken {
            let outcomes = self.outcomes.entry(step).or_insert_with(|| HashSet::from([sole.clone()]));
            outcomes.insert(labels.clone())
        } else {
            if sole != labels {
                self.outcomes.insert(step, HashSet::from([labels.clone()]));
            }
            true
        };
        if is_new {
            return Ok(());
        }
        Err(EvalError::execution("multiple matches for labels: grouping labels must ensure unique matches"))
    }
}

/// The labels of what two series make.
fn outcome_labels(
    binary: &Binary,
    many: &SeriesLabels,
    one: &SeriesLabels,
    delayed_name_removal: bool,
) -> SeriesLabels {
    let matching = &binary.matching;
    let drops_name = binary.op.changes_meaning() || (binary.as_bool && !delayed_name_removal);
    let mut labels = if drops_name { many.clone().without_name() } else { many.clone() };
    if matching.card == Cardinality::OneToOne {
        labels = if matching.on {
            labels.only(&matching.labels)
        } else if matching.labels.is_empty() {
            labels
        } else {
            labels.without_any_of(&matching.labels)
        };
    }
    for name in &matching.include {
        labels = labels.with(name, one.get(name));
    }
    labels
}
