//! What is said of an answer that rollups had a part in.

use crate::time::format_duration;
use lookback_storage::RangeUse;
use std::collections::BTreeSet;

/// A sentence on what was read; none where that was samples alone.
pub(super) fn answered_from(used: &RangeUse) -> Option<String> {
    if used.windows_ms.is_empty() {
        return None;
    }
    let samples = if used.samples { ", and from samples where they do not stand for them" } else { "" };
    Some(format!("answered from rollups of {}{samples}", listed(&used.windows_ms)))
}

/// Lengths of windows in words.
pub(super) fn listed(windows_ms: &BTreeSet<i64>) -> String {
    windows_ms.iter().map(|window_ms| format_duration(*window_ms)).collect::<Vec<_>>().join(" or ")
}
