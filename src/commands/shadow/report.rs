//! The report, for people.

use super::tally::{Difference, MetricTally, State, Tally};
use super::time;
use std::fmt::Write as _;
use std::io::Write as _;

/// What was found, the autoscalers that would have been scaled otherwise first.
pub(super) fn text(state: &State) -> String {
    let mut all: Vec<(&String, &Tally)> = state.autoscalers.iter().collect();
    all.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.differing));
    let differing = all.iter().filter(|(_, tally)| tally.differing > 0).count();
    let mut text = format!(
        "{} rounds from {} to {}: {differing} of {} autoscalers would have been scaled otherwise\n",
        state.rounds,
        time(state.since_ms),
        time(state.until_ms),
        all.len()
    );
    for (name, tally) in all {
        let _ = writeln!(text, "\n{name}: {}", scaled(tally));
        if let Some(Difference { at_ms, current, present, lookback }) = &tally.last_difference {
            let shown =
                |replicas: &Option<u32>| replicas.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let _ = writeln!(
                text,
                "  last at {}: of {current} replicas {} by the present adapter, {} by Lookback",
                time(*at_ms),
                shown(present),
                shown(lookback)
            );
        }
        tally.metrics.iter().for_each(|(name, metric)| text.push_str(&of_metric(name, metric)));
    }
    text
}

fn scaled(Tally { rounds, differing, most_more, most_fewer, .. }: &Tally) -> String {
    match differing {
        0 => format!("the same replicas in {rounds} rounds"),
        _ => format!(
            "other replicas in {differing} of {rounds} rounds, Lookback up to {most_more} more and {most_fewer} fewer"
        ),
    }
}

fn of_metric(name: &str, metric: &MetricTally) -> String {
    let MetricTally { both, differing, most_relative, only_lookback, only_present, neither, .. } = metric;
    let mut text = format!(
        "  {name}: {both} answers of both, {differing} with other values, by {:.1} % at the most\n",
        most_relative * 100.0
    );
    for (rounds, who, error) in [
        (only_present, "Lookback had none", &metric.lookback_error),
        (only_lookback, "the present adapter had none", &metric.present_error),
        (neither, "neither had one", &metric.lookback_error),
    ] {
        if *rounds > 0 {
            let error = error.as_deref().unwrap_or_default();
            let _ = writeln!(text, "    {who} in {rounds} rounds: {error}");
        }
    }
    text
}

/// A closed stdout is nobody's loss.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
