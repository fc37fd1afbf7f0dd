//! What an answer was made of, in words: nothing where that was samples alone.

use super::RangeQuestion;
use crate::query::rollups::{answered_from, listed};
use crate::time::format_duration;
use lookback_storage::RangeUse;

/// Sentences for the answer's `infos`.
pub(super) fn infos(used: &RangeUse, question: &RangeQuestion) -> Vec<String> {
    let mut infos = Vec::from_iter(answered_from(used));
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
