//! The identity of a series: a sorted set of label names and values.

use std::cmp::Ordering;
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
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// One allocation: how many labels, the lengths of each one's name and value, then names and values
    /// one behind the other. Numbers are two bytes of seven bits, so that all of it is text.
    packed: Box<str>,
}

/// Bytes of a number in a packed set.
const NUMBER_BYTES: usize = 2;

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
        check_sorted(&pairs)?;
        let bytes = pairs.iter().map(|(name, value)| (name.as_ref().as_bytes(), value.as_ref().as_bytes()));
        let text_bytes = bytes.clone().map(|(name, value)| name.len() + value.len()).sum();
        let packed = String::from_utf8(pack(text_bytes, bytes)).unwrap_or_default();
        Ok(Self { packed: packed.into_boxed_str() })
    }

    /// The same of names and values that may not be text, without a detour; sorts `pairs`. `None` if
    /// anything at all is the matter: [`new`](Self::new) says what.
    #[must_use]
    pub fn from_utf8(pairs: &mut Vec<(&[u8], &[u8])>) -> Option<Self> {
        let are_sorted = |pairs: &[(&[u8], &[u8])]| pairs.is_sorted_by(|a, b| a.0 < b.0);
        if !are_sorted(pairs) {
            pairs.sort_unstable();
            // One name twice.
            if !are_sorted(pairs) {
                return None;
            }
        }
        // Before anything is left out, so that what is wrong can still be said.
        let fits = |(name, value): &(&[u8], &[u8])| {
            (1..=limits::NAME_BYTES_MAX).contains(&name.len()) && value.len() <= limits::VALUE_BYTES_MAX
        };
        if !pairs.iter().all(fits) {
            return None;
        }
        pairs.retain(|(_, value)| !value.is_empty());
        let named = pairs.iter().any(|(name, _)| *name == METRIC_NAME_LABEL.as_bytes());
        let text_bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if !named || pairs.len() > limits::LABELS_MAX || text_bytes > limits::SET_BYTES_MAX {
            return None;
        }
        let packed = pack(text_bytes, pairs.iter().copied());
        let is_ascii = packed.is_ascii();
        let labels = Self { packed: String::from_utf8(packed).ok()?.into_boxed_str() };
        if !is_ascii {
            // A character may not begin in one part and end in the next.
            let mut at = labels.packed.len() - text_bytes;
            for bytes in pairs.iter().flat_map(|(name, value)| [name.len(), value.len()]) {
                at += bytes;
                if !labels.packed.is_char_boundary(at) {
                    return None;
                }
            }
        }
        Some(labels)
    }

    /// Of pairs that have been a set before: valid, and sorted by name.
    pub(crate) fn of_sorted<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let text_bytes: usize = pairs.clone().map(|(name, value)| name.len() + value.len()).sum();
        let mut packed = String::with_capacity(NUMBER_BYTES * (1 + 2 * pairs.len()) + text_bytes);
        let mut put = |number: usize| {
            packed.push(char::from(number as u8 & 0x7f));
            packed.push(char::from((number >> 7) as u8 & 0x7f));
        };
        put(pairs.len());
        for (name, value) in pairs.clone() {
            put(name.len());
            put(value.len());
        }
        for (name, value) in pairs {
            packed.push_str(name);
            packed.push_str(value);
        }
        Self { packed: packed.into_boxed_str() }
    }

    /// The number at this place of the packed set.
    fn number(&self, at: usize) -> usize {
        match self.packed.as_bytes().get(at..at + NUMBER_BYTES) {
            Some([low, high]) => usize::from(*low) | usize::from(*high) << 7,
            _ => 0,
        }
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let count = self.len();
        let mut at = NUMBER_BYTES * (1 + 2 * count);
        (0..count).map(move |label| {
            let lengths = NUMBER_BYTES * (1 + 2 * label);
            let name_end = at + self.number(lengths);
            let value_end = name_end + self.number(lengths + NUMBER_BYTES);
            let pair = (&self.packed[at..name_end], &self.packed[name_end..value_end]);
            at = value_end;
            pair
        })
    }

    /// The labels, sorted by name: how many bytes the name has, and the name with the value right after it.
    pub(crate) fn iter_joined(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let count = self.len();
        let mut at = NUMBER_BYTES * (1 + 2 * count);
        (0..count).map(move |label| {
            let lengths = NUMBER_BYTES * (1 + 2 * label);
            let name_bytes = self.number(lengths);
            let end = at + name_bytes + self.number(lengths + NUMBER_BYTES);
            let joined = self.packed.as_bytes().get(at..end).unwrap_or_default();
            at = end;
            (name_bytes, joined)
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
        self.number(0)
    }

    /// Never: every set has a metric name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of names and values together.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.packed.len() - NUMBER_BYTES * (1 + 2 * self.len())
    }
}

/// By names and values, label by label.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Checks the bounds of sorted pairs, and that a metric is named.
fn check_sorted<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Result<(), LabelError> {
    if pairs.len() > limits::LABELS_MAX {
        return Err(LabelError::TooMany { count: pairs.len() });
    }
    let mut text_bytes = 0;
    let mut named = false;
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(LabelError::NameTooLong { bytes: name.len(), start: start_of(name) });
        }
        if value.len() > limits::VALUE_BYTES_MAX {
            return Err(LabelError::ValueTooLong { name: name.to_owned(), bytes: value.len() });
        }
        text_bytes += name.len() + value.len();
        named |= name == METRIC_NAME_LABEL;
    }
    if text_bytes > limits::SET_BYTES_MAX {
        return Err(LabelError::SetTooLong { bytes: text_bytes });
    }
    if named { Ok(()) } else { Err(LabelError::NoMetricName) }
}

/// Packs sorted pairs that are within the bounds, of so many bytes.
fn pack<'a>(
    text_bytes: usize,
    pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Vec<u8> {
    let mut packed = Vec::with_capacity(NUMBER_BYTES * (1 + 2 * pairs.len()) + text_bytes);
    let mut put =
        |number: usize| packed.extend_from_slice(&[number as u8 & 0x7f, (number >> 7) as u8 & 0x7f]);
    put(pairs.len());
    for (name, value) in pairs.clone() {
        put(name.len());
        put(value.len());
    }
    for (name, value) in pairs {
        packed.extend_from_slice(name);
        packed.extend_from_slice(value);
    }
    packed
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

    #[test]
    fn sets_are_in_the_order_of_their_labels() {
        let set = |value: &str| Labels::new([("__name__", "m"), ("pod", value)]).expect("valid");
        assert!(
            set("a") < set("aa")
                && set("aa") < set("b")
                && set("zz") < Labels::new([("__name__", "n")]).expect("valid")
        );
        assert_eq!(set("a").text_bytes(), 13);
    }

    #[test]
    fn characters_do_not_run_from_one_label_into_the_next() {
        let raw = |name: &'static [u8], value: &'static [u8]| {
            Labels::from_utf8(&mut vec![(name, value), (b"__name__", b"m")])
        };
        assert!(raw(b"caf\xc3", b"\xa9").is_none());
        assert!(raw(b"caf\xc3\xa9", b"\xc3\xa9").is_some());
        assert!(
            raw(b"pod", b"\xff").is_none() && raw(b"", b"x").is_none() && raw(b"__name__", b"n").is_none()
        );
    }

    proptest! {
        #[test]
        fn both_ways_in_agree(pairs in proptest::collection::vec(("[a-c_é]{0,3}", "[a-b]{0,2}"), 0..6), named in any::<bool>()) {
            let mut pairs: Vec<(String, String)> = pairs;
            if named {
                pairs.push((METRIC_NAME_LABEL.to_owned(), "m".to_owned()));
            }
            let mut raw: Vec<(&[u8], &[u8])> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let read = Labels::from_utf8(&mut raw);
            prop_assert_eq!(read, Labels::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).ok());
        }

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
