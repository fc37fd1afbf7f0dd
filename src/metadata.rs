//! What senders say of metrics: type, help and unit. `/api/v1/metadata` answers from here.
//!
//! It is a hint for people and dashboards, not data: senders repeat it, each write of remote write 2.0
//! and each scrape carries it anew. So it is kept in memory, and written to one file
//! ([`file`](mod@file)) a moment later, not before a write is acknowledged.
//!
//! A metric's name says nothing of whose it is. A caller that is bound to namespaces can add what is
//! said of a new name, and can't change what is said already ([`Metadata::note`]); who answers such a
//! caller must leave out names that its scope does not show.

pub mod file;

use crate::store::Scope;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Most metrics that are remembered; what is said of others is dropped, and counted.
pub const METRICS_MAX: usize = 20_000;
/// Longest name that is remembered, in bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest help, in bytes; the rest is cut off.
pub const HELP_BYTES_MAX: usize = 1_024;
/// Longest unit, in bytes; the rest is cut off.
pub const UNIT_BYTES_MAX: usize = 64;

/// What kind of metric a name stands for, in the words of OpenMetrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// Nobody has said.
    #[default]
    Unknown,
    /// Only rises, but for restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
    /// Counts by upper bounds that can fall.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels that say something, with the value 1.
    Info,
    /// One series a state.
    StateSet,
}

impl MetricType {
    /// By its number in remote write's messages, 1.0 and 2.0 alike.
    #[must_use]
    pub const fn of_number(number: u64) -> Self {
        match number {
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => Self::Unknown,
        }
    }

    /// By its word in a `# TYPE` line of either text format.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }
}

/// What is said of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: MetricType,
    /// What it measures, for people; empty: nobody has said.
    #[serde(default)]
    pub help: String,
    /// What it is measured in; empty: nobody has said.
    #[serde(default)]
    pub unit: String,
}

impl Described {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind == MetricType::Unknown && self.help.is_empty() && self.unit.is_empty()
    }

    /// Within the bounds.
    fn cut(mut self) -> Self {
        cut(&mut self.help, HELP_BYTES_MAX);
        cut(&mut self.unit, UNIT_BYTES_MAX);
        self
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// What one request says of metrics; bounded as the whole is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(HashMap<String, Described>);

impl Notes {
    /// Adds what is said of a metric; what says nothing is left out. The last word counts.
    pub fn add(&mut self, metric: &str, described: impl FnOnce() -> Described) {
        if metric.is_empty() || metric.len() > NAME_BYTES_MAX {
            return;
        }
        let full = self.0.len() >= METRICS_MAX;
        match self.0.get_mut(metric) {
            Some(known) => *known = described().cut(),
            None if !full => {
                let described = described().cut();
                if !described.is_empty() {
                    self.0.insert(metric.to_owned(), described);
                }
            }
            None => {}
        }
    }

    /// Whether something is said already of this metric.
    #[must_use]
    pub fn has(&self, metric: &str) -> bool {
        self.0.contains_key(metric)
    }

    /// The part of a metric's description that is said line by line: type, help or unit.
    pub fn edit(&mut self, metric: &str, edit: impl FnOnce(&mut Described)) {
        let mut described = self.0.get(metric).cloned().unwrap_or_default();
        edit(&mut described);
        self.add(metric, || described);
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is known of all metrics.
#[derive(Debug, Default)]
pub struct Metadata {
    // Read by most writes, which say what is known; written when something is new.
    by_metric: RwLock<HashMap<String, Described>>,
    changes: AtomicU64,
    dropped: AtomicU64,
}

impl Metadata {
    /// Remembers what a request of a caller with this scope says.
    pub fn note(&self, scope: &Scope, notes: Notes) {
        let may_change = *scope == Scope::All;
        let news = |known: &HashMap<String, Described>, metric: &String, described: &Described| {
            known.get(metric).is_none_or(|known| may_change && known != described)
        };
        let new: Vec<(String, Described)> = {
            let known = self.read();
            notes.0.into_iter().filter(|(metric, described)| news(&known, metric, described)).collect()
        };
        if new.is_empty() {
            return;
        }
        let mut known = self.write();
        for (metric, described) in new {
            let full = known.len() >= METRICS_MAX;
            match known.entry(metric) {
                Place::Occupied(mut place) if may_change => {
                    place.insert(described);
                }
                Place::Occupied(_) => {}
                Place::Vacant(_) if full => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Place::Vacant(place) => {
                    place.insert(described);
                }
            }
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What is said of one metric.
    #[must_use]
    pub fn get(&self, metric: &str) -> Option<Described> {
        self.read().get(metric).cloned()
    }

    /// What is said of all metrics, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Described)> {
        let mut all: Vec<_> = self.read().iter().map(|(name, said)| (name.clone(), said.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How many times something new was not remembered, because [`METRICS_MAX`] others were.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Differs from what it was where something has changed since.
    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Described>> {
        // Nothing in here can be left half done.
        self.by_metric.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Described>> {
        self.by_metric.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn said(help: &str) -> Described {
        Described { kind: MetricType::Counter, help: help.to_owned(), unit: String::new() }
    }

    fn notes(metric: &str, described: Described) -> Notes {
        let mut notes = Notes::default();
        notes.add(metric, || described);
        notes
    }

    #[test]
    fn the_last_word_counts_and_a_bound_caller_can_only_add() {
        let metadata = Metadata::default();
        let bound = Scope::Namespaces(Arc::new(["a".to_owned()].into()));
        metadata.note(&bound, notes("m", said("first")));
        metadata.note(&bound, notes("m", said("other")));
        assert_eq!(metadata.get("m"), Some(said("first")));
        let before = metadata.changes();
        metadata.note(&Scope::All, notes("m", said("first")));
        assert_eq!(metadata.changes(), before, "nothing new");
        metadata.note(&Scope::All, notes("m", said("second")));
        metadata.note(&Scope::All, notes("a", said("a")));
        assert_eq!(metadata.all(), [("a".to_owned(), said("a")), ("m".to_owned(), said("second"))]);
    }

    #[test]
    fn all_is_bounded_and_what_says_nothing_left_out() {
        let metadata = Metadata::default();
        let long = "ü".repeat(HELP_BYTES_MAX);
        metadata.note(&Scope::All, notes("long", said(&long)));
        let help = metadata.get("long").expect("known").help;
        assert_eq!(help.len(), HELP_BYTES_MAX);
        assert!(notes(&"n".repeat(NAME_BYTES_MAX + 1), said("x")).is_empty());
        assert!(notes("", said("x")).is_empty());
        assert!(notes("m", Described::default()).is_empty());
        for i in 0..METRICS_MAX + 5 {
            metadata.note(&Scope::All, notes(&format!("m{i}"), said("x")));
        }
        assert_eq!((metadata.all().len(), metadata.dropped()), (METRICS_MAX, 6));
    }

    #[test]
    fn types_have_their_words_and_numbers() {
        for (number, word) in [(1, "counter"), (4, "gaugehistogram"), (7, "stateset"), (0, "untyped")] {
            assert_eq!(MetricType::of_word(word), Some(MetricType::of_number(number)));
        }
        assert_eq!(MetricType::of_word("Counter"), None);
        assert_eq!(serde_json::to_string(&MetricType::StateSet).expect("JSON"), "\"stateset\"");
    }
}
