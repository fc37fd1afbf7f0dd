//! Matchers: conditions on one label, as in a Prometheus selector.

use crate::labels::Labels;
use regex::Regex;
use std::collections::HashSet;
use std::sync::Arc;
use thiserror::Error;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

/// A condition on one label. A label that a series does not have compares as the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    test: Test,
}

/// How a value is compared, beyond equality.
#[derive(Clone, Debug)]
enum Test {
    Equality,
    Regex(Regex),
    OneOf(Arc<HashSet<String>>),
}

/// A regular expression that can't be used.
#[derive(Debug, Error)]
#[error("the expression {expression:?} for label {name:?} can't be used: {source}")]
pub struct MatcherError {
    name: String,
    expression: String,
    source: regex::Error,
}

/// Most memory that one compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Matcher {
    /// A matcher by its parts.
    ///
    /// # Errors
    /// When `op` is a regular expression and `value` is not one, or one too large to compile.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let test = match op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Equality,
            _ if is_list_of_words(&value) => {
                Test::OneOf(Arc::new(value.split('|').map(str::to_owned).collect()))
            }
            MatchOp::Regex | MatchOp::NotRegex => Test::Regex(
                regex::RegexBuilder::new(&format!("^(?s:{value})$"))
                    .size_limit(REGEX_BYTES_MAX)
                    .build()
                    .map_err(|source| MatcherError {
                        name: name.clone(),
                        expression: value.clone(),
                        source,
                    })?,
            ),
        };
        Ok(Self { name, op, value, test })
    }

    /// `name="value"`; with an empty value: the label is absent.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), test: Test::Equality }
    }

    /// `name!="value"`; with an empty value: the label is present.
    #[must_use]
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::NotEqual, value: value.into(), test: Test::Equality }
    }

    /// `name=~"a|b|c"` for values that stand for themselves: as many as there are, and none fits where
    /// there are none.
    #[must_use]
    pub fn one_of<'a>(name: impl Into<String>, values: impl Iterator<Item = &'a str>) -> Self {
        let set: HashSet<String> = values.map(str::to_owned).collect();
        let mut sorted: Vec<String> = set.iter().map(|value| regex::escape(value)).collect();
        sorted.sort_unstable();
        // An empty class: an expression that nothing fits.
        let value = if sorted.is_empty() { "[^\\s\\S]".to_owned() } else { sorted.join("|") };
        Self { name: name.into(), op: MatchOp::Regex, value, test: Test::OneOf(Arc::new(set)) }
    }

    /// `name!~"a|b|c"` for values that stand for themselves.
    #[must_use]
    pub fn none_of<'a>(name: impl Into<String>, values: impl Iterator<Item = &'a str>) -> Self {
        Self { op: MatchOp::NotRegex, ..Self::one_of(name, values) }
    }

    /// The label that is compared.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is compared.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it is compared with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label of this value (empty: absent) fits.
    #[must_use]
    pub fn matches_value(&self, value: &str) -> bool {
        let fits = match &self.test {
            Test::Equality => value == self.value,
            Test::Regex(regex) => regex.is_match(value),
            Test::OneOf(set) => set.contains(value),
        };
        fits == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }

    /// Whether the label set fits.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or_default())
    }
}

/// Whether an expression is words that stand for themselves, with `|` between them, as lists of pods are:
/// however long, it needs no automaton.
fn is_list_of_words(expression: &str) -> bool {
    expression.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'/' | b'|'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_label_compares_as_empty_and_expressions_are_anchored() {
        let labels = Labels::new([("__name__", "m"), ("pod", "web-1")]).expect("valid");
        assert!(Matcher::equal("code", "").matches(&labels));
        assert!(!Matcher::not_equal("code", "").matches(&labels));
        let regex = |op, v| Matcher::new("pod", op, v).expect("compiles");
        assert!(!regex(MatchOp::Regex, "web").matches(&labels));
        assert!(regex(MatchOp::Regex, "web-.|db").matches(&labels));
        assert!(regex(MatchOp::NotRegex, "web").matches(&labels));
        let any_of = |values: &[&str]| Matcher::one_of("pod", values.iter().copied());
        assert!(any_of(&["web-1", "db"]).matches(&labels) && !any_of(&["web-.", "web"]).matches(&labels));
        assert!(any_of(&[""]).matches_value("") && !any_of(&[]).matches_value(""));
        assert!(!Matcher::none_of("pod", ["web-1"].into_iter()).matches(&labels));
        assert!(Matcher::none_of("pod", std::iter::empty()).matches(&labels));
        let pods: Vec<String> = (0..50_000).map(|i| format!("web-7d4b9c6f5-{i:05}")).collect();
        let long = Matcher::new("pod", MatchOp::Regex, pods.join("|")).expect("a list of any length");
        assert!(long.matches_value("web-7d4b9c6f5-49999") && !long.matches_value("web-7d4b9c6f5"));
        assert!(
            regex(MatchOp::Regex, "a||b").matches_value("") && regex(MatchOp::Regex, "").matches_value("")
        );
        for set in [any_of(&["a.b", "c|d"]), any_of(&[])] {
            let same = Matcher::new("pod", MatchOp::Regex, set.value()).expect("compiles");
            for value in ["a.b", "axb", "c|d", "c", ""] {
                assert_eq!(set.matches_value(value), same.matches_value(value), "{value}");
            }
        }
        let error = Matcher::new("pod", MatchOp::Regex, "(").expect_err("refused");
        assert!(error.to_string().contains(r#"label "pod""#), "{error}");
    }
}
