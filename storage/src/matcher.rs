//! Matchers: conditions on one label, as in a Prometheus selector.

use crate::labels::Labels;
use regex::Regex;
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
    regex: Option<Regex>,
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
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(
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
        Ok(Self { name, op, value, regex })
    }

    /// `name="value"`; with an empty value: the label is absent.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// `name!="value"`; with an empty value: the label is present.
    #[must_use]
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::NotEqual, value: value.into(), regex: None }
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
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => unreachable!("made by Matcher::new only"),
        }
    }

    /// Whether the label set fits.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or_default())
    }
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
        let error = Matcher::new("pod", MatchOp::Regex, "(").expect_err("refused");
        assert!(error.to_string().contains(r#"label "pod""#), "{error}");
    }
}
