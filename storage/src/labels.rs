//! The identity of a series: a sorted set of label names and values.

use std::fmt;
use thiserror::Error;

/// The label that carries the metric's name, as in Prometheus.
pub const METRIC_NAME_LABEL: &str = "__name__";

/// Bounds on one label set, so that a series record always fits one log record.
pub mod limits {
    /// Most labels in a set, the metric's name included.
    pub const LABELS_MAX: usize = 128;
    /// Longest label name, in bytes.
    pub const NAME_BYTES_MAX: usize = 512;
    /// Longest label value, in bytes.
    pub const VALUE_BYTES_MAX: usize = 4_096;
    /// Longest label set, in bytes of names and values together.
    pub const SET_BYTES_MAX: usize = 16_384;
}

/// Why a label set was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LabelError {
    /// No `__name__` label, or an empty one.
    #[error("the metric has no name: give the label {METRIC_NAME_LABEL:?} a value")]
    NoMetricName,
    /// A label with an empty name.
    #[error("a label has an empty name (its value is {value:?})")]
    EmptyName {
        /// The value that came with it.
        value: String,
    },
    /// One name twice.
    #[error("label {name:?} is given more than once")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More labels than [`limits::LABELS_MAX`].
    #[error("{count} labels are more than the {} that one series may carry", limits::LABELS_MAX)]
    TooMany {
        /// How many there were.
        count: usize,
    },
    /// A name longer than [`limits::NAME_BYTES_MAX`].
    #[error("a label name of {bytes} bytes is longer than {}: it begins {start:?}", limits::NAME_BYTES_MAX)]
    NameTooLong {
        /// Its length.
        bytes: usize,
        /// Its beginning.
        start: String,
    },
    /// A value longer than [`limits::VALUE_BYTES_MAX`].
    #[error("the value of label {name:?} has {bytes} bytes, more than {}", limits::VALUE_BYTES_MAX)]
    ValueTooLong {
        /// Whose value.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// A set longer than [`limits::SET_BYTES_MAX`].
    #[error("the label set has {bytes} bytes, more than {}", limits::SET_BYTES_MAX)]
    SetTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A sorted label set with a metric name; immutable, compact, and equal when its labels are.
///
/// Labels with an empty value are left out when the set is made: as in Prometheus, an empty label is
/// an absent one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    /// Names and values one behind the other: `name value name value …`.
    text: Box<str>,
    /// Where each name and each value ends in `text`.
    ends: Box<[u32]>,
}

impl Labels {
    /// Makes a label set of pairs in any order.
    ///
    /// # Errors
    /// When the set breaks a bound, repeats a name or has no metric name.
    pub fn new<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        for (name, value) in &pairs {
            if name.as_ref().is_empty() {
                return Err(LabelError::EmptyName { value: start_of(value.as_ref()) });
            }
        }
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0.as_ref() == w[1].0.as_ref()) {
            return Err(LabelError::Duplicate { name: start_of(twice[0].0.as_ref()) });
        }
        pairs.retain(|(_, value)| !value.as_ref().is_empty());
        Self::from_sorted(&pairs)
    }

    fn from_sorted<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Result<Self, LabelError> {
        if pairs.len() > limits::LABELS_MAX {
            return Err(LabelError::TooMany { count: pairs.len() });
        }
        let mut text = String::new();
        let mut ends = Vec::with_capacity(pairs.len() * 2);
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name.len() > limits::NAME_BYTES_MAX {
                return Err(LabelError::NameTooLong { bytes: name.len(), start: start_of(name) });
            }
            if value.len() > limits::VALUE_BYTES_MAX {
                return Err(LabelError::ValueTooLong { name: name.to_owned(), bytes: value.len() });
            }
            for part in [name, value] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            }
        }
        if text.len() > limits::SET_BYTES_MAX {
            return Err(LabelError::SetTooLong { bytes: text.len() });
        }
        let labels = Self { text: text.into_boxed_str(), ends: ends.into_boxed_slice() };
        match labels.get(METRIC_NAME_LABEL) {
            Some(_) => Ok(labels),
            None => Err(LabelError::NoMetricName),
        }
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut at = 0;
        self.ends.chunks_exact(2).map(move |end| {
            let (name_end, value_end) = (end[0] as usize, end[1] as usize);
            let pair = (&self.text[at..name_end], &self.text[name_end..value_end]);
            at = value_end;
            pair
        })
    }

    /// The value of the label `name`, if the set has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric's name: the value of `__name__`.
    #[must_use]
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME_LABEL).unwrap_or_default()
    }

    /// How many labels the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Never: every set has a metric name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of names and values together.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

/// The beginning of a text, short enough for an error message.
pub(crate) fn start_of(text: &str) -> String {
    text.chars().take(64).collect()
}

/// As Prometheus writes a series: `name{label="value",…}`, or with the name in quotes inside the
/// braces where it is not a classic metric name.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let mut separator = "";
        if is_classic_name(name, true) {
            write!(f, "{name}{{")?;
        } else {
            write!(f, "{{{name:?}")?;
            separator = ",";
        }
        for (label, value) in self.iter().filter(|(n, _)| *n != METRIC_NAME_LABEL) {
            if is_classic_name(label, false) {
                write!(f, "{separator}{label}={value:?}")?;
            } else {
                write!(f, "{separator}{label:?}={value:?}")?;
            }
            separator = ",";
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `name` needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`, with `:` allowed in metric names.
fn is_classic_name(name: &str, colon: bool) -> bool {
    let first = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_set_is_sorted_and_empty_values_are_absent() {
        let labels = Labels::new([("pod", "p1"), ("__name__", "rps"), ("code", "")]).expect("valid");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("__name__", "rps"), ("pod", "p1")]);
        assert_eq!(labels.to_string(), r#"rps{pod="p1"}"#);
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn broken_sets_are_refused_by_name() {
        let refused = |pairs: &[(&str, &str)]| Labels::new(pairs.iter().copied()).expect_err("refused");
        assert_eq!(refused(&[("a", "b")]), LabelError::NoMetricName);
        assert_eq!(refused(&[("__name__", "")]), LabelError::NoMetricName);
        assert_eq!(refused(&[("__name__", "m"), ("", "x")]), LabelError::EmptyName { value: "x".into() });
        assert_eq!(
            refused(&[("__name__", "m"), ("a", "1"), ("a", "")]),
            LabelError::Duplicate { name: "a".into() }
        );
        let long = "x".repeat(limits::VALUE_BYTES_MAX + 1);
        assert!(matches!(refused(&[("__name__", &long)]), LabelError::ValueTooLong { .. }));
        let many: Vec<(String, String)> = (0..10_000).map(|i| (format!("l{i}"), "v".into())).collect();
        assert_eq!(Labels::new(many).expect_err("refused"), LabelError::TooMany { count: 10_000 });
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_sorted(map in proptest::collection::btree_map("[^\\x00]{1,8}", ".{1,8}", 0..12)) {
            let mut map: std::collections::BTreeMap<String, String> = map;
            map.insert(METRIC_NAME_LABEL.into(), "m".into());
            let labels = Labels::new(map.iter().rev()).expect("valid");
            let out: Vec<(String, String)> = labels.iter().map(|(n, v)| (n.into(), v.into())).collect();
            prop_assert_eq!(out, map.into_iter().collect::<Vec<_>>());
        }
    }
}
