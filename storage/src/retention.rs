//! Retention by rules: the class that a series falls into, and how long what is kept of it.
//!
//! Rules are tried in order and the first that matches a series' labels is its rule; a series that none
//! matches falls under the default. The class of a rule names the partitions that samples are sealed
//! into, so that a class expires whole. A series may match another rule tomorrow: what is sealed stays
//! where it is and expires by its class, but reads go by the rule of today at once.

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::options::Options;
use crate::series::Series;
use crate::state::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use thiserror::Error;

/// The retention class of samples that no rule puts elsewhere.
pub const DEFAULT_CLASS: &str = "default";
/// Most rules.
pub const RULES_MAX: usize = 200;
/// Longest name of a class, in bytes.
const CLASS_BYTES_MAX: usize = 63;

/// How long something is kept: a number of milliseconds, or for ever.
pub type KeepMs = Option<i64>;

/// Rollups that are wanted: their windows in milliseconds, and how long each is kept.
pub type RollupWindows = BTreeMap<i64, KeepMs>;

/// One rule: series that match fall into its class.
#[derive(Clone, Debug)]
pub struct RetentionRule {
    /// The class: a directory on disk, so lower case letters, digits, `-` and `_`.
    pub class: String,
    /// All of these must match.
    pub matchers: Vec<Matcher>,
    /// How long samples are kept.
    pub keep_ms: KeepMs,
    /// What is rolled up, and how long that is kept.
    pub rollups: RollupWindows,
}

/// Rules that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RetentionError {
    /// More than [`RULES_MAX`].
    #[error("{count} retention rules are more than {RULES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Not a name for a class.
    #[error(
        "the class {class:?} is no name for one: use 1 to {CLASS_BYTES_MAX} lower case letters, digits, - and _, \
         beginning with a letter, and not {DEFAULT_CLASS:?}"
    )]
    ClassName {
        /// The name.
        class: String,
    },
    /// Two rules of one class.
    #[error(
        "the class {class:?} has two rules: give each rule a class of its own, or join their matchers with |"
    )]
    ClassTwice {
        /// The class.
        class: String,
    },
    /// A rule that would match everything.
    #[error("the rule of class {class:?} matches every series: what no rule matches falls under --retention")]
    MatchesAll {
        /// The class.
        class: String,
    },
    /// A window that does not fit into partitions.
    #[error(
        "class {class:?}: rollups of {window_ms} ms are not possible: a window divides {partition_ms} ms"
    )]
    Window {
        /// The class.
        class: String,
        /// The window.
        window_ms: i64,
        /// What it must divide.
        partition_ms: i64,
    },
}

/// All rules, checked; the last is the default.
#[derive(Debug)]
pub(crate) struct Retention {
    rules: Vec<RetentionRule>,
    /// Counts the changes of rules, so that what a series remembers of them can be told from what holds.
    generation: u32,
    /// The same for the same rules, also after a restart.
    fingerprint: u32,
}

/// Whether this may be the name of a class: of a directory on disk.
pub(crate) fn is_class(class: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let begins = class.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    begins && class.len() <= CLASS_BYTES_MAX && class.bytes().all(legal)
}

impl Retention {
    /// The default alone.
    pub(crate) fn of(options: &Options) -> Self {
        Self::new(Vec::new(), options, 1)
    }

    /// These rules before the default.
    fn new(mut rules: Vec<RetentionRule>, options: &Options, generation: u32) -> Self {
        rules.push(RetentionRule {
            class: DEFAULT_CLASS.to_owned(),
            matchers: Vec::new(),
            keep_ms: options.retention_ms,
            rollups: options.rollups.clone(),
        });
        let fingerprint = crc32c::crc32c(format!("{rules:?} {:?}", options.counters).as_bytes());
        Self { rules, generation, fingerprint }
    }

    fn check(rules: &[RetentionRule], partition_ms: i64) -> Result<(), RetentionError> {
        if rules.len() > RULES_MAX {
            return Err(RetentionError::TooMany { count: rules.len() });
        }
        for (place, rule) in rules.iter().enumerate() {
            let class = rule.class.clone();
            if !is_class(&class) || class == DEFAULT_CLASS {
                return Err(RetentionError::ClassName { class });
            }
            if rules.iter().take(place).any(|earlier| earlier.class == class) {
                return Err(RetentionError::ClassTwice { class });
            }
            if rule.matchers.is_empty() {
                return Err(RetentionError::MatchesAll { class });
            }
            check_windows(&class, &rule.rollups, partition_ms)?;
        }
        Ok(())
    }

    /// The place of the rule that these labels fall under.
    fn place(&self, labels: &Labels) -> usize {
        let matches = |rule: &RetentionRule| rule.matchers.iter().all(|matcher| matcher.matches(labels));
        self.rules.iter().position(matches).unwrap_or(self.rules.len() - 1)
    }

    /// The rule of a series.
    pub(crate) fn rule_of(&self, series: &Series) -> &RetentionRule {
        let place = if self.rules.len() == 1 {
            0
        } else {
            series.rule.get(self.generation).unwrap_or_else(|| {
                let place = self.place(&series.labels.to_labels());
                series.rule.set(self.generation, place);
                place
            })
        };
        &self.rules[place]
    }

    /// The oldest time of which samples of a series are kept.
    pub(crate) fn oldest_ms(&self, series: &Series, now_ms: i64) -> Option<i64> {
        self.rule_of(series).keep_ms.map(|keep_ms| now_ms.saturating_sub(keep_ms))
    }

    /// How long the partitions of a class are kept. Those of a class that no rule has any more: as long as
    /// the longest of all rules, since their series may match any.
    pub(crate) fn keep_of_class(&self, class: &str) -> KeepMs {
        match self.rules.iter().find(|rule| rule.class == class) {
            Some(rule) => rule.keep_ms,
            None => longest(self.rules.iter().map(|rule| rule.keep_ms)),
        }
    }

    /// How long rollups are kept. Those that no rule asks for any more: as long as the longest that any
    /// rule gives to such rollups, or else to samples.
    pub(crate) fn keep_of_rollups(&self, class: &str, window_ms: i64) -> KeepMs {
        let rule = self.rules.iter().find(|rule| rule.class == class);
        if let Some(keep_ms) = rule.and_then(|rule| rule.rollups.get(&window_ms)) {
            return *keep_ms;
        }
        let of_window: Vec<KeepMs> =
            self.rules.iter().filter_map(|rule| rule.rollups.get(&window_ms).copied()).collect();
        if of_window.is_empty() {
            longest(self.rules.iter().map(|rule| rule.keep_ms))
        } else {
            longest(of_window)
        }
    }

    /// Whether any rule asks for rollups.
    pub(crate) fn rolls_up(&self) -> bool {
        self.rules.iter().any(|rule| !rule.rollups.is_empty())
    }

    /// Tells these rules from others.
    pub(crate) fn fingerprint(&self) -> u32 {
        self.fingerprint
    }
}

/// The longest; `None` is for ever.
fn longest(all: impl IntoIterator<Item = KeepMs>) -> KeepMs {
    all.into_iter().try_fold(0, |longest, keep_ms| keep_ms.map(|keep_ms| keep_ms.max(longest)))
}

/// Refuses windows that do not divide a partition.
pub(crate) fn check_windows(
    class: &str,
    rollups: &RollupWindows,
    partition_ms: i64,
) -> Result<(), RetentionError> {
    match rollups.keys().find(|window_ms| **window_ms <= 0 || partition_ms % **window_ms != 0) {
        Some(window_ms) => {
            Err(RetentionError::Window { class: class.to_owned(), window_ms: *window_ms, partition_ms })
        }
        None => Ok(()),
    }
}

impl State {
    /// The rules that hold now.
    pub(crate) fn retention(&self) -> Arc<Retention> {
        Arc::clone(&self.retention.read())
    }

    /// Puts these rules before the default; from now on they hold.
    pub(crate) fn set_rules(&self, rules: Vec<RetentionRule>) -> Result<(), RetentionError> {
        Retention::check(&rules, self.partition_ms)?;
        let mut retention = self.retention.write();
        let generation = retention.generation % RuleOfSeries::GENERATION_MAX + 1;
        *retention = Arc::new(Retention::new(rules, &self.options, generation));
        Ok(())
    }

    /// The time before which reads leave out samples of a series: by its rule, at the time that the
    /// engine was told last.
    pub(crate) fn oldest_read_ms(&self, retention: &Retention, series: &Series) -> i64 {
        let Some(now_ms) = self.told_ms.load() else { return i64::MIN };
        retention.oldest_ms(series, now_ms).unwrap_or(i64::MIN)
    }
}

/// What a series remembers of its rule: its place, as long as the rules are the same.
#[derive(Debug, Default)]
pub(crate) struct RuleOfSeries(AtomicU32);

impl RuleOfSeries {
    /// Generations fit in the upper 24 bits, places in the lower 8.
    const GENERATION_MAX: u32 = (1 << 24) - 1;

    fn get(&self, generation: u32) -> Option<usize> {
        let remembered = self.0.load(Ordering::Relaxed);
        (remembered >> 8 == generation).then_some((remembered & 0xff) as usize)
    }

    fn set(&self, generation: u32, place: usize) {
        let place = u32::try_from(place).expect("bounded by RULES_MAX");
        self.0.store(generation << 8 | place, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::MatchOp;
    use crate::stored_labels::LabelPool;

    const DAY_MS: i64 = 86_400_000;

    fn rule(class: &str, metric: &str, days: i64) -> RetentionRule {
        RetentionRule {
            class: class.to_owned(),
            matchers: vec![Matcher::new("__name__", MatchOp::Regex, metric).expect("compiles")],
            keep_ms: Some(days * DAY_MS),
            rollups: RollupWindows::new(),
        }
    }

    fn series(metric: &str) -> Series {
        let labels = Labels::new([("__name__", metric)]).expect("valid");
        Series::new(1, LabelPool::default().store(&labels), true)
    }

    fn state() -> State {
        State::new(std::path::Path::new("/nowhere"), Options::default(), DAY_MS)
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_changes_hold_at_once() {
        let (state, debug, cpu) = (state(), series("debug_cpu"), series("cpu"));
        let class = |series: &Series| state.retention().rule_of(series).class.clone();
        assert_eq!(class(&cpu), DEFAULT_CLASS);
        state.set_rules(vec![rule("debug", "debug_.*", 1), rule("cpu", ".*cpu", 30)]).expect("legal");
        assert_eq!((class(&debug), class(&cpu)), ("debug".to_owned(), "cpu".to_owned()));
        assert_eq!(state.retention().oldest_ms(&debug, 5 * DAY_MS), Some(4 * DAY_MS));
        state.set_rules(vec![rule("cpu", ".*cpu", 30)]).expect("legal");
        assert_eq!((class(&debug), class(&cpu)), ("cpu".to_owned(), "cpu".to_owned()));
        state.set_rules(Vec::new()).expect("legal");
        assert_eq!(class(&debug), DEFAULT_CLASS);
        assert_eq!(state.retention().keep_of_class("cpu"), Some(15 * DAY_MS));
    }

    #[test]
    fn a_class_without_a_rule_is_kept_as_long_as_the_longest() {
        let state = state();
        state.set_rules(vec![rule("cpu", "cpu", 30), rule("debug", "debug_.*", 1)]).expect("legal");
        let retention = state.retention();
        assert_eq!(retention.keep_of_class("gone"), Some(30 * DAY_MS));
        assert_eq!(retention.keep_of_class("debug"), Some(DAY_MS));
        let for_ever = RetentionRule { keep_ms: None, ..rule("all", ".*", 1) };
        state.set_rules(vec![for_ever]).expect("legal");
        assert_eq!(state.retention().keep_of_class("gone"), None);
    }

    #[test]
    fn rules_that_can_not_be_kept_apart_on_disk_are_refused() {
        let refused = |rules: Vec<RetentionRule>| state().set_rules(rules).expect_err("refused").to_string();
        for name in ["", "default", "a/b", "..", "A", "1", &"a".repeat(64)] {
            assert!(refused(vec![rule(name, "m", 1)]).contains("no name"), "{name}");
        }
        assert!(refused(vec![rule("a", "m", 1), rule("a", "n", 1)]).contains("two rules"));
        assert!(refused(vec![RetentionRule { matchers: vec![], ..rule("a", "m", 1) }]).contains("every"));
        let seven_minutes = RollupWindows::from([(420_000, None)]);
        assert!(
            refused(vec![RetentionRule { rollups: seven_minutes, ..rule("a", "m", 1) }]).contains("420000")
        );
        assert!(refused((0..=RULES_MAX).map(|i| rule(&format!("c{i}"), "m", 1)).collect()).contains("more"));
    }
}
