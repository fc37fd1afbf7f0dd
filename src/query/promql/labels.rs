//! The labels of a series under way.
//!
//! Most series keep the labels they are stored with, or lose their name only: those are not copied. With a name
//! go the labels that say what kind of metric it is, `__type__` and `__unit__`, as in Prometheus.

use lookback_storage::{Labels, METRIC_NAME_LABEL};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Whether a label says something of a metric that does not hold for what is computed of it.
fn is_of_metric(label: &str) -> bool {
    label.starts_with("__") && matches!(label, METRIC_NAME_LABEL | "__type__" | "__unit__")
}

/// A sorted set of label names and values, with or without a metric name.
#[derive(Clone, Debug)]
pub struct SeriesLabels(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Stored { labels: Arc<Labels>, with_name: bool },
    Made(Arc<[(Box<str>, Box<str>)]>),
}

impl SeriesLabels {
    /// As they are stored.
    #[must_use]
    pub fn stored(labels: Arc<Labels>) -> Self {
        Self(Kind::Stored { labels, with_name: true })
    }

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self(Kind::Made(Arc::new([])))
    }

    /// Of pairs in any order, one a name. Empty values are left out.
    pub(super) fn of<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort_unstable();
        Self(Kind::Made(pairs.into()))
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let (stored, made) = match &self.0 {
            Kind::Stored { labels, with_name } => {
                let kept = move |pair: &(&str, &str)| *with_name || !is_of_metric(pair.0);
                (Some(labels.iter().filter(kept)), None)
            }
            Kind::Made(pairs) => (None, Some(pairs.iter().map(|(name, value)| (&**name, &**value)))),
        };
        stored.into_iter().flatten().chain(made.into_iter().flatten())
    }

    /// The value of a label; empty: it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }

    pub(super) fn without_name(self) -> Self {
        match self.0 {
            Kind::Stored { labels, .. } => Self(Kind::Stored { labels, with_name: false }),
            Kind::Made(ref pairs) if pairs.iter().any(|(name, _)| is_of_metric(name)) => {
                Self::of(self.iter().filter(|(name, _)| !is_of_metric(name)))
            }
            made @ Kind::Made(_) => Self(made),
        }
    }

    /// Those of these names only.
    pub(super) fn only(&self, names: &[String]) -> Self {
        Self::of(self.iter().filter(|(name, _)| names.iter().any(|n| n == name)))
    }

    /// Those of other names only, without the metric's name.
    pub(super) fn without(&self, names: &[String]) -> Self {
        let kept = |name: &str| name != METRIC_NAME_LABEL && !names.iter().any(|n| n == name);
        Self::of(self.iter().filter(|(name, _)| kept(name)))
    }

    /// Those of other names only; the metric's name stays.
    pub(super) fn without_any_of(&self, names: &[String]) -> Self {
        Self::of(self.iter().filter(|(name, _)| !names.iter().any(|n| n == name)))
    }

    /// With this label set; an empty value takes it away.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let others = self.iter().filter(|(n, _)| *n != name);
        Self::of(others.chain([(name, value)]))
    }
}

impl PartialEq for SeriesLabels {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SeriesLabels {}

impl PartialOrd for SeriesLabels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SeriesLabels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl Hash for SeriesLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for pair in self.iter() {
            pair.hash(state);
        }
    }
}

/// As Prometheus writes them in its messages: `{__name__="up", job="a"}`.
impl fmt::Display for SeriesLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (place, (name, value)) in self.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_made_labels_are_equal_where_their_pairs_are() {
        let stored = Labels::new([("__name__", "m"), ("b", "2"), ("a", "1")]).expect("valid");
        let stored = SeriesLabels::stored(Arc::new(stored));
        let made = SeriesLabels::of([("b", "2"), ("a", "1"), ("__name__", "m"), ("c", "")]);
        assert_eq!(stored, made);
        assert_eq!(stored.to_string(), r#"{__name__="m", a="1", b="2"}"#);
        let nameless = stored.clone().without_name();
        assert_eq!((nameless.get(METRIC_NAME_LABEL), &nameless), ("", &made.clone().without_name()));
        let typed =
            SeriesLabels::of([("__name__", "m"), ("__type__", "counter"), ("__unit__", "s"), ("a", "1")]);
        assert_eq!(typed.without_name().to_string(), r#"{a="1"}"#);
        assert_eq!(stored.only(&["a".to_owned()]).to_string(), r#"{a="1"}"#);
        assert_eq!(stored.without(&["a".to_owned()]).to_string(), r#"{b="2"}"#);
        assert_eq!(stored.without_any_of(&["a".to_owned()]).to_string(), r#"{__name__="m", b="2"}"#);
        assert_eq!(stored.with("a", "").with("z", "9").to_string(), r#"{__name__="m", b="2", z="9"}"#);
    }
}
