//! What was refused of a request or a file: how much, why, and the first few cases in words.

use std::collections::BTreeMap;
use std::fmt;

/// How many cases are told in words; the others are only counted.
const EXAMPLES_MAX: usize = 5;

/// Reasons of the store (`Reject::reason`) that say nothing against the sample.
const LIMITS: [&str; 2] = ["series_limit", "memory_limit"];

/// Counts of refused samples by reason, with examples. Its `Display` is a sentence for the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    by_reason: BTreeMap<&'static str, usize>,
    examples: Vec<String>,
}

impl Refusals {
    /// Adds `samples` refused for one reason. `example` is asked for words only while few are known.
    pub fn add(&mut self, reason: &'static str, samples: usize, example: impl FnOnce() -> String) {
        *self.by_reason.entry(reason).or_default() += samples;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    /// Reasons and how many samples each refused.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        self.by_reason.iter().map(|(reason, samples)| (*reason, *samples))
    }

    /// The first few cases in words.
    #[must_use]
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    /// How many samples were refused.
    #[must_use]
    pub fn total(&self) -> usize {
        self.by_reason.values().sum()
    }

    /// Whether nothing but bounds on series stood in the way: a sender may try again later.
    #[must_use]
    pub fn are_limits(&self) -> bool {
        !self.is_empty() && self.by_reason.keys().all(|reason| LIMITS.contains(reason))
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_reason.is_empty()
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused (", self.total())?;
        for (place, (reason, samples)) in self.by_reason().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{reason}: {samples}")?;
        }
        write!(f, "); for example: {}", self.examples.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_few_told() {
        let mut refusals = Refusals::default();
        refusals.add("late", 2, || "one".to_owned());
        for _ in 0..9 {
            refusals.add("early", 1, || "two".to_owned());
        }
        assert_eq!(refusals.examples().len(), EXAMPLES_MAX);
        assert_eq!((refusals.total(), refusals.is_empty()), (11, false));
        assert_eq!(
            refusals.to_string(),
            "11 refused (early: 9, late: 2); for example: one; two; two; two; two"
        );
    }
}
