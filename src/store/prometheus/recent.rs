//! How far back the engine has to be asked for latest values.
//!
//! A latest value may be minutes old, but most are of the last seconds, and an engine reads every sample of the time
//! that it is asked for. So it is asked for a short time first, once it is known that every series there is has a
//! sample in it: all that were in the last answer for the whole time must be in that for the short one, or the whole
//! time is asked for as well. It is so every [`WHOLE_EVERY_MS`] anyway: a series of another writer that begins with
//! samples older than the short time is seen no later than that.

use super::engine::within;
use crate::prometheus_client::selector;
use crate::store::Scope;
use lookback_storage::{Labels, Matcher, Sample};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

/// How often the whole time is asked for, in milliseconds.
const WHOLE_EVERY_MS: i64 = 60_000;
/// The short time is no shorter: twice the usual interval of samples.
const SHORT_MS_MIN: i64 = 30_000;
/// For how long a question is remembered that is not asked again.
const REMEMBERED_MS: i64 = 5 * WHOLE_EVERY_MS;
/// Most questions that are remembered, and most series of all of them, 9 to 18 bytes each.
const QUESTIONS_MAX: usize = 1_000;
const SERIES_MAX: usize = 500_000;

/// What is known of each question.
#[derive(Default)]
pub(super) struct Recent {
    hasher: RandomState,
    known: Mutex<HashMap<Question, Arc<Known>>>,
}

/// Whose latest values are asked for, as a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question(String);

impl Question {
    pub(super) fn of(scope: &Scope, matchers: &[Matcher]) -> Self {
        Self(selector(&within(scope, matchers)))
    }
}

/// The last answer for the whole time.
pub(super) struct Known {
    asked_ms: i64,
    /// Since when samples were asked for, …
    whole_start_ms: i64,
    /// … and how short a time should have done.
    short_ms: i64,
    series: HashSet<u64>,
}

impl Known {
    /// From when on is asked, rather than from `start_ms`.
    pub(super) fn start_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.short_ms)
    }
}

impl Recent {
    /// What is known of a question for the time since `start_ms`, if it need not be asked for all of it.
    pub(super) fn known(&self, question: &Question, start_ms: i64, now_ms: i64) -> Option<Arc<Known>> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(question)?;
        let age_ms = now_ms.saturating_sub(known.asked_ms);
        let is_young = (0..WHOLE_EVERY_MS).contains(&age_ms);
        let is_within = start_ms >= known.whole_start_ms && known.start_ms(now_ms) > start_ms;
        (is_young && is_within).then(|| Arc::clone(known))
    }

    /// Whether an answer for the short time has every series of that for the whole time.
    pub(super) fn has_all(&self, known: &Known, newest: &[(Labels, Sample)]) -> bool {
        let there: HashSet<u64> = newest.iter().map(|(labels, _)| self.hasher.hash_one(labels)).collect();
        known.series.is_subset(&there)
    }

    /// Remembers an answer for the whole time since `start_ms`, where the next one can be had of less.
    pub(super) fn note(&self, question: Question, start_ms: i64, now_ms: i64, newest: &[(Labels, Sample)]) {
        // Those that have ended are told by nothing newer, and need not be.
        let live = newest.iter().filter(|(_, sample)| !sample.is_staleness_marker());
        let ages_ms = live.clone().map(|(_, sample)| now_ms.saturating_sub(sample.timestamp_ms));
        let oldest_ms = ages_ms.max().unwrap_or_default().max(0);
        let whole_ms = now_ms.saturating_sub(start_ms);
        let age_ms = |known: &Known| now_ms.saturating_sub(known.asked_ms);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before_ms = all.remove(&question).map_or(SHORT_MS_MIN, |known| known.short_ms);
        // The next sample of a series may be as far behind the last as that is behind now.
        let short_ms = before_ms.max(oldest_ms.saturating_mul(2).saturating_add(1_000));
        all.retain(|_, known| (0..REMEMBERED_MS).contains(&age_ms(known)));
        let remembered: usize = all.values().map(|known| known.series.len()).sum();
        let is_room = all.len() < QUESTIONS_MAX && remembered + newest.len() <= SERIES_MAX;
        if short_ms <= whole_ms / 2 && !newest.is_empty() && is_room {
            let series = live.map(|(labels, _)| self.hasher.hash_one(labels)).collect();
            let known = Known { asked_ms: now_ms, whole_start_ms: start_ms, short_ms, series };
            all.insert(question, Arc::new(known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::STALENESS_MARKER_BITS;

    const NOW_MS: i64 = 1_794_700_800_000;
    const START_MS: i64 = NOW_MS - 300_000;

    fn newest(ages_s: &[(&str, i64)]) -> Vec<(Labels, Sample)> {
        let one = |(pod, age_s): &(&str, i64)| {
            let labels = Labels::new([("__name__", "m"), ("pod", *pod)]).expect("valid");
            (labels, Sample::new(NOW_MS - age_s * 1_000, 1.0))
        };
        ages_s.iter().map(one).collect()
    }

    fn question() -> Question {
        Question::of(&Scope::All, &[Matcher::equal("__name__", "m")])
    }

    #[test]
    fn a_short_time_is_enough_while_every_known_series_is_in_it() {
        let recent = Recent::default();
        assert!(recent.known(&question(), START_MS, NOW_MS).is_none());
        recent.note(question(), START_MS, NOW_MS, &newest(&[("a", 1), ("b", 20)]));
        let known = recent.known(&question(), START_MS, NOW_MS).expect("known");
        assert_eq!(known.start_ms(NOW_MS), NOW_MS - 41_000);
        assert!(recent.has_all(&known, &newest(&[("b", 3), ("new", 1), ("a", 1)])));
        assert!(!recent.has_all(&known, &newest(&[("a", 3), ("new", 1)])));
        let other = Question::of(&Scope::All, &[Matcher::equal("__name__", "other")]);
        assert!(recent.known(&other, START_MS, NOW_MS).is_none());
    }

    #[test]
    fn the_whole_time_is_asked_for_now_and_then_and_when_it_is_longer_than_before() {
        let recent = Recent::default();
        recent.note(question(), START_MS, NOW_MS, &newest(&[("a", 1)]));
        let at = |start_ms, now_ms| recent.known(&question(), start_ms, now_ms).is_some();
        assert!(at(START_MS + 59_999, NOW_MS + 59_999));
        assert!(!at(START_MS + 60_000, NOW_MS + 60_000));
        assert!(!at(START_MS - 1, NOW_MS), "longer than what was answered");
        assert!(!at(NOW_MS - 30_000, NOW_MS), "no longer than the short time");
        assert!(!at(START_MS - 1, NOW_MS - 1), "the clock was put back");
    }

    #[test]
    fn series_with_old_samples_are_looked_for_in_the_whole_time() {
        let recent = Recent::default();
        recent.note(question(), START_MS, NOW_MS, &newest(&[("a", 1), ("b", 100)]));
        assert!(recent.known(&question(), START_MS, NOW_MS).is_none());
        // Of what has ended nothing newer is waited for.
        let mut ended = newest(&[("a", 1), ("b", 100)]);
        ended[1].1.value = f64::from_bits(STALENESS_MARKER_BITS);
        recent.note(question(), START_MS, NOW_MS, &ended);
        let known = recent.known(&question(), START_MS, NOW_MS).expect("known");
        assert!(recent.has_all(&known, &newest(&[("a", 2)])));
    }

    #[test]
    fn a_time_that_was_too_short_once_is_not_taken_again() {
        let recent = Recent::default();
        recent.note(question(), START_MS, NOW_MS, &newest(&[("a", 40)]));
        recent.note(question(), START_MS, NOW_MS, &newest(&[("a", 1)]));
        let known = recent.known(&question(), START_MS, NOW_MS).expect("known");
        assert_eq!(known.start_ms(NOW_MS), NOW_MS - 81_000);
    }

    #[test]
    fn the_questions_that_are_remembered_are_bounded() {
        let recent = Recent::default();
        for number in 0..QUESTIONS_MAX + 50 {
            let question = Question(number.to_string());
            recent.note(question, START_MS, NOW_MS, &newest(&[("a", 1)]));
        }
        let count = || recent.known.lock().expect("no panic").len();
        assert_eq!(count(), QUESTIONS_MAX);
        let later_ms = NOW_MS + REMEMBERED_MS;
        recent.note(question(), later_ms - 300_000, later_ms, &newest(&[("a", -REMEMBERED_MS / 1_000)]));
        assert_eq!(count(), 1);
        recent.note(Question("put back".to_owned()), START_MS, NOW_MS, &newest(&[("a", 1)]));
        assert_eq!(count(), 1);
    }
}
