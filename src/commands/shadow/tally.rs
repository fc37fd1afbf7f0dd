//! What was found so far: a few numbers for each autoscaler and each of its metrics, kept in the state file.

use super::round::{AUTOSCALERS_MAX, Compared, ComparedMetric};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form of the state file.
const FORM: u32 = 1;
/// Most metrics of one autoscaler, told apart by name and selector; more are left out.
const METRICS_MAX: usize = 100;
/// Most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;

/// All of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    form: u32,
    /// When it began, Unix milliseconds.
    pub(super) since_ms: i64,
    /// The time of the newest round.
    pub(super) until_ms: i64,
    /// How many rounds there were.
    pub(super) rounds: u64,
    /// By namespace and name.
    pub(super) autoscalers: BTreeMap<String, Tally>,
}

/// Of one autoscaler.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tally {
    /// In how many rounds it was compared.
    pub(super) rounds: u64,
    /// In how many of them it would have been scaled otherwise.
    pub(super) differing: u64,
    /// The most replicas that Lookback's answers asked for more than the present adapter's.
    pub(super) most_more: u32,
    /// The most that they asked for fewer.
    pub(super) most_fewer: u32,
    /// The newest round in which they differed.
    pub(super) last_difference: Option<Difference>,
    /// By name and selector.
    pub(super) metrics: BTreeMap<String, MetricTally>,
}

/// What each asked for. `None`: nothing could be made of the answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Difference {
    pub(super) at_ms: i64,
    pub(super) current: u32,
    pub(super) present: Option<u32>,
    pub(super) lookback: Option<u32>,
}

/// Of one metric.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MetricTally {
    /// In how many rounds both had values.
    pub(super) both: u64,
    /// In how many of them the values differed by more than the tolerance.
    pub(super) differing: u64,
    /// By how much of the larger one at the most.
    pub(super) most_relative: f64,
    /// In how many rounds only Lookback had values, only the present adapter, and neither.
    pub(super) only_lookback: u64,
    pub(super) only_present: u64,
    pub(super) neither: u64,
    /// Why there were none, the last time.
    pub(super) present_error: Option<String>,
    pub(super) lookback_error: Option<String>,
}

impl State {
    pub(super) fn new(now_ms: i64) -> Self {
        Self { form: FORM, since_ms: now_ms, until_ms: now_ms, rounds: 0, autoscalers: BTreeMap::new() }
    }

    /// Adds a round. `value_tolerance`: how far values may differ, as a part of the larger one.
    pub(super) fn add(&mut self, round: &[Compared], now_ms: i64, value_tolerance: f64) {
        self.rounds += 1;
        self.until_ms = now_ms;
        for one in round {
            let is_room = self.autoscalers.len() < AUTOSCALERS_MAX;
            if is_room || self.autoscalers.contains_key(&one.name) {
                self.autoscalers.entry(one.name.clone()).or_default().add(one, now_ms, value_tolerance);
            }
        }
    }
}

impl Tally {
    fn add(&mut self, one: &Compared, now_ms: i64, value_tolerance: f64) {
        self.rounds += 1;
        let Compared { current, present, lookback, .. } = *one;
        if present != lookback {
            self.differing += 1;
            // One that can make nothing of its answers leaves what is there.
            let (by_present, by_lookback) = (present.unwrap_or(current), lookback.unwrap_or(current));
            self.most_more = self.most_more.max(by_lookback.saturating_sub(by_present));
            self.most_fewer = self.most_fewer.max(by_present.saturating_sub(by_lookback));
            self.last_difference = Some(Difference { at_ms: now_ms, current, present, lookback });
        }
        for metric in &one.metrics {
            let is_room = self.metrics.len() < METRICS_MAX;
            if is_room || self.metrics.contains_key(&metric.name) {
                self.metrics.entry(metric.name.clone()).or_default().add(metric, value_tolerance);
            }
        }
    }
}

impl MetricTally {
    fn add(&mut self, metric: &ComparedMetric, value_tolerance: f64) {
        let kept = |error: &String| Some(error.chars().take(ERROR_CHARS_MAX).collect());
        match (&metric.present, &metric.lookback) {
            (Ok(present), Ok(lookback)) => {
                self.both += 1;
                let (of_present, of_lookback) = (present.sum(), lookback.sum());
                let larger = of_present.abs().max(of_lookback.abs());
                let relative = if larger > 0.0 { (of_present - of_lookback).abs() / larger } else { 0.0 };
                self.most_relative = self.most_relative.max(relative);
                self.differing +=
                    u64::from(relative > value_tolerance || present.items() != lookback.items());
            }
            (Ok(_), Err(error)) => {
                self.only_present += 1;
                self.lookback_error = kept(error);
            }
            (Err(error), Ok(_)) => {
                self.only_lookback += 1;
                self.present_error = kept(error);
            }
            (Err(present), Err(lookback)) => {
                self.neither += 1;
                self.present_error = kept(present);
                self.lookback_error = kept(lookback);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::round::Sums;
    use super::*;
    use crate::kubernetes::quantity::saturating_milli;
    use crate::kubernetes::replica_formula::Summary;

    fn metric(present: Result<f64, &str>, lookback: Result<f64, &str>) -> ComparedMetric {
        let answered = |of: Result<f64, &str>| {
            let summary = |sum| {
                let sum_milli = saturating_milli(sum);
                Sums::Values(Summary { sum_milli, items: 1, ..Summary::default() })
            };
            of.map(summary).map_err(str::to_owned)
        };
        ComparedMetric {
            name: "pods rps".to_owned(),
            present: answered(present),
            lookback: answered(lookback),
        }
    }

    #[test]
    fn rounds_add_up_and_survive_the_file() {
        let mut state = State::new(1);
        for (present, lookback, metric) in [
            (Some(3), Some(3), metric(Ok(30.0), Ok(30.1))),
            (Some(3), Some(6), metric(Ok(30.0), Ok(60.0))),
            (Some(3), None, metric(Ok(30.0), Err("no such metric"))),
            (None, None, metric(Err("down"), Err("no such metric"))),
        ] {
            let name = "shop/web".to_owned();
            let one = Compared { name, current: 4, present, lookback, metrics: vec![metric] };
            state.add(&[one], 5, 0.05);
        }
        let text = serde_json::to_string(&state).expect("JSON");
        assert_eq!(serde_json::from_str::<State>(&text).expect("as written"), state);
        let tally = &state.autoscalers["shop/web"];
        assert_eq!((state.rounds, tally.rounds, tally.differing), (4, 4, 2));
        assert_eq!((tally.most_more, tally.most_fewer), (3, 0));
        let last = tally.last_difference.as_ref().expect("one");
        assert_eq!((last.present, last.lookback), (Some(3), None));
        let metric = &tally.metrics["pods rps"];
        assert_eq!((metric.both, metric.differing, metric.only_present, metric.neither), (2, 1, 1, 1));
        assert_eq!(metric.most_relative, 0.5);
        assert_eq!(metric.lookback_error.as_deref(), Some("no such metric"));
    }
}
