//! What is to be said of an answer besides it.

use crate::query::rollups::{answered_from, listed};
use lookback_storage::RangeUse;
use std::collections::BTreeSet;

/// Most warnings, and most infos, of one query; more add nothing a reader would look at.
const NOTES_MAX: usize = 20;

/// Warnings and infos of a query, each said once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What makes the answer doubtful.
    pub warnings: BTreeSet<String>,
    /// What may be worth a look.
    pub infos: BTreeSet<String>,
}

impl Notes {
    pub(super) fn warn(&mut self, text: &str) {
        note(&mut self.warnings, "PromQL warning: ", text);
    }

    pub(super) fn info(&mut self, text: &str) {
        note(&mut self.infos, "PromQL info: ", text);
    }

    /// Says what part rollups had in the outcome.
    pub(super) fn made_of(&mut self, used: &RangeUse) {
        if let Some(text) = answered_from(used) {
            self.info(&text);
        }
        if !used.left_out_ms.is_empty() {
            let windows = listed(&used.left_out_ms);
            self.info(&format!(
                "of a part of this time only rollups of {windows} are kept, which can't answer this: it is left out. \
                 Let start, step and range be multiples of {windows}"
            ));
        }
    }
}

fn note(notes: &mut BTreeSet<String>, kind: &str, text: &str) {
    if notes.len() < NOTES_MAX {
        notes.insert(format!("{kind}{text}"));
    }
}
