//! What an answer was made of, in words: nothing where that was samples alone.

use super::RangeQuestion;
use crate::time::format_duration;
use lookback_storage::RangeUse;
use std::collections::BTreeSet;

/// Sentences for the answer's `infos`.
pub(super) fn infos(used: &RangeUse, question: &RangeQuestion) -> Vec<String> {
    let mut infos = Vec::new();
    if !used.windows_ms.is_empty() {
        let samples = if used.samples { ", and from samples where they do not stand for them" } else { "" };
        infos.push(format!("answered from rollups of {}{samples}", listed(&used.windows_ms)));
    }
    if !used.left_out_ms.is_empty() {
        let windows = listed(&used.left_out_ms);
        infos.push(format!(
            "of a part of this range only rollups of {windows} are kept, which can't answer {:?} with start={} and \
             step={}: it is left out. Ask for avg, min, max, last, sum or count with start and step on multiples of \
             {windows}",
            question.aggregation,
            question.start_ms as f64 / 1_000.0,
            format_duration(question.step_ms),
        ));
    }
    infos
}

fn listed(windows_ms: &BTreeSet<i64>) -> String {
    windows_ms.iter().map(|window_ms| format_duration(*window_ms)).collect::<Vec<_>>().join(" or ")
}
