//! What is to be said of an answer besides it.

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
}

fn note(notes: &mut BTreeSet<String>, kind: &str, text: &str) {
    if notes.len() < NOTES_MAX {
        notes.insert(format!("{kind}{text}"));
    }
}
