//! Why an object's metric has no value: what there is instead.
//!
//! Asked only when there is nothing to answer with. It looks from near to far: the very series that was
//! asked for, then the metric of other objects, namespaces and resources, then other names. What it may
//! see is bounded by the caller's scope, as every read is.

use crate::similar::similar;
use crate::store::{Context, LabelsRequest, Latest, Store, StoreError};
use crate::time::format_duration;
use jiff::Timestamp;
use lookback_storage::{METRIC_NAME_LABEL, Matcher};
use std::fmt;

/// Most names that an explanation lists.
const NAMES_MAX: usize = 3;

/// What was asked for, and found nothing.
pub struct Missing<'a> {
    /// The metric.
    pub metric: &'a str,
    /// The label that names the object.
    pub label: &'a str,
    /// The resource, for people: `pods`.
    pub resource: &'a str,
    /// The object's name; `None`: any.
    pub name: Option<&'a str>,
    /// Its namespace; `None`: it has none.
    pub namespace: Option<&'a str>,
    /// The series that were looked at.
    pub matchers: &'a [Matcher],
    /// Whether the selector leaves a series.
    pub is_selected: &'a (dyn Fn(&Latest) -> bool + Sync),
    /// The resource that a label names objects of, if it does.
    pub resource_of_label: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Now, Unix milliseconds.
    pub now_ms: i64,
    /// Older samples are not served.
    pub not_before_ms: i64,
    /// The window over which its rate is answered in place of its value, in milliseconds.
    pub rate_window_ms: Option<i64>,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq)]
pub enum Absence {
    /// No series has the metric's name.
    Unknown {
        /// Metrics of similar names.
        similar: Vec<String>,
    },
    /// The metric is written for objects of other resources only.
    OtherResources {
        /// Which.
        resources: Vec<String>,
    },
    /// The metric is written for the resource, in other namespaces only.
    OtherNamespaces {
        /// The resource.
        resource: String,
        /// Which.
        namespaces: Names,
    },
    /// The metric is written in other namespaces only.
    Elsewhere {
        /// Which; none: its series name no namespace.
        namespaces: Names,
    },
    /// The metric is written for other objects only.
    OtherObjects {
        /// The resource.
        resource: String,
        /// Which.
        names: Names,
    },
    /// Whoever wrote the series said that it ended.
    Ended,
    /// The newest sample is too old.
    Stale {
        /// Its time, Unix milliseconds.
        newest_ms: i64,
        /// Now, Unix milliseconds.
        now_ms: i64,
        /// How old it may be.
        age_max_ms: i64,
    },
    /// The selector leaves none of the series.
    Excluded {
        /// How many there are.
        series: usize,
        /// One of them.
        example: String,
    },
    /// It is a counter, and there are no two samples of a series to tell its rate by.
    NoRate {
        /// The window within which they have to lie, in milliseconds.
        window_ms: i64,
    },
    /// The newest sample is no value that can be served.
    Unusable {
        /// The value.
        value: f64,
    },
}

/// Some names out of so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    some: Vec<String>,
    count: usize,
}

impl Names {
    /// The names most like `wanted`, or the first.
    fn of(all: &[String], wanted: &str) -> Self {
        let mut some: Vec<String> =
            similar(wanted, all.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
        for name in all {
            if some.len() < NAMES_MAX && !some.contains(name) {
                some.push(name.clone());
            }
        }
        Self { some, count: all.len() }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.some.join(", "))?;
        match self.count.saturating_sub(self.some.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { similar } if similar.is_empty() => {
                f.write_str("nothing of this name was written")
            }
            Self::Unknown { similar } => {
                write!(f, "nothing of this name was written, but of similar ones: {}", similar.join(", "))
            }
            Self::OtherResources { resources } if resources.is_empty() => {
                f.write_str("it is written for no object: its series carry no label of a resource")
            }
            Self::OtherResources { resources } => write!(f, "it is written for {}", resources.join(", ")),
            Self::OtherNamespaces { resource, namespaces } => {
                write!(f, "it is written for {resource} of other namespaces: {namespaces}")
            }
            Self::Elsewhere { namespaces } if namespaces.count == 0 => {
                f.write_str("its series name no namespace")
            }
            Self::Elsewhere { namespaces } => write!(f, "it is written in other namespaces: {namespaces}"),
            Self::OtherObjects { resource, names } => {
                write!(f, "it is written for other {resource}: {names}")
            }
            Self::Ended => f.write_str("its series have ended: whoever sent them said so"),
            Self::Stale { newest_ms, now_ms, age_max_ms } => {
                let since = newest_ms.saturating_add(*age_max_ms);
                write!(
                    f,
                    "stale since {}: the newest sample is of {}, {} ago, and may be {} old",
                    shown_time(since),
                    shown_time(*newest_ms),
                    format_duration(whole_seconds(now_ms.saturating_sub(*newest_ms))),
                    format_duration(*age_max_ms),
                )
            }
            Self::Excluded { series, example } => {
                write!(f, "the selector excludes all {series} series that there are, such as {example}")
            }
            Self::NoRate { window_ms } => write!(
                f,
                "it is a counter, and no series of it has two samples within {} to tell a rate by",
                format_duration(*window_ms)
            ),
            Self::Unusable { value } => {
                write!(f, "the newest sample, {value}, is no value that a quantity can carry")
            }
        }
    }
}

/// Long ages need no milliseconds.
fn whole_seconds(duration_ms: i64) -> i64 {
    if duration_ms < 1_000 { duration_ms } else { duration_ms / 1_000 * 1_000 }
}

/// RFC 3339, in whole seconds.
fn shown_time(timestamp_ms: i64) -> String {
    let time = Timestamp::from_second(timestamp_ms.div_euclid(1_000));
    time.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}

/// Why there is nothing of an object, or of any of a resource.
///
/// # Errors
/// The store's.
pub async fn why(store: &dyn Store, context: &Context, missing: &Missing<'_>) -> Result<Absence, StoreError> {
    match here(store, context, missing).await? {
        Some(absence) => Ok(absence),
        None => Search { store, context }.elsewhere(missing).await,
    }
}

/// Why there is nothing of an external metric, which describes no object.
///
/// # Errors
/// The store's.
pub async fn why_external(
    store: &dyn Store,
    context: &Context,
    missing: &Missing<'_>,
) -> Result<Absence, StoreError> {
    match here(store, context, missing).await? {
        Some(absence) => Ok(absence),
        None => Search { store, context }.in_other_namespaces(missing).await,
    }
}

/// What ails the series that were looked at; `None`: there are none.
async fn here(
    store: &dyn Store,
    context: &Context,
    missing: &Missing<'_>,
) -> Result<Option<Absence>, StoreError> {
    let series = store.latest(context, missing.matchers, i64::MIN).await?;
    if let Some(first) = series.first() {
        let newest = series
            .iter()
            .filter(|latest| (missing.is_selected)(latest))
            .max_by_key(|latest| latest.sample.timestamp_ms);
        let age_max_ms = missing.now_ms.saturating_sub(missing.not_before_ms);
        return Ok(Some(match newest.map(|newest| newest.sample) {
            None => Absence::Excluded { series: series.len(), example: first.labels.to_string() },
            Some(sample) if sample.timestamp_ms < missing.not_before_ms => {
                Absence::Stale { newest_ms: sample.timestamp_ms, now_ms: missing.now_ms, age_max_ms }
            }
            Some(sample) => match missing.rate_window_ms.filter(|_| sample.value.is_finite()) {
                Some(window_ms) => Absence::NoRate { window_ms },
                None => Absence::Unusable { value: sample.value },
            },
        }));
    }
    let written = Search { store, context }.values(METRIC_NAME_LABEL, missing.matchers.to_vec()).await?;
    Ok((!written.is_empty()).then_some(Absence::Ended))
}

struct Search<'a> {
    store: &'a dyn Store,
    context: &'a Context,
}

impl Search<'_> {
    async fn elsewhere(&self, missing: &Missing<'_>) -> Result<Absence, StoreError> {
        let metric = Matcher::equal(METRIC_NAME_LABEL, missing.metric);
        let labels = self.ask(None, vec![metric.clone()]).await?;
        if labels.is_empty() {
            return self.unknown(missing.metric).await;
        }
        let of_resource = [metric, Matcher::not_equal(missing.label, "")];
        let resource = || missing.resource.to_owned();
        if !labels.iter().any(|label| label == missing.label) {
            let resources = labels.iter().filter_map(|label| (missing.resource_of_label)(label));
            return Ok(Absence::OtherResources { resources: resources.collect() });
        }
        let mut within = of_resource.to_vec();
        if let Some(namespace) = missing.namespace {
            let namespaces = self.values("namespace", of_resource.to_vec()).await?;
            if !namespaces.iter().any(|other| other == namespace) {
                let namespaces = Names::of(&namespaces, namespace);
                return Ok(Absence::OtherNamespaces { resource: resource(), namespaces });
            }
            within.push(Matcher::equal("namespace", namespace));
        }
        let names = self.values(missing.label, within).await?;
        let names = Names::of(&names, missing.name.unwrap_or_default());
        Ok(Absence::OtherObjects { resource: resource(), names })
    }

    async fn in_other_namespaces(&self, missing: &Missing<'_>) -> Result<Absence, StoreError> {
        let metric = vec![Matcher::equal(METRIC_NAME_LABEL, missing.metric)];
        if self.ask(None, metric.clone()).await?.is_empty() {
            return self.unknown(missing.metric).await;
        }
        let namespaces = self.values("namespace", metric).await?;
        Ok(Absence::Elsewhere { namespaces: Names::of(&namespaces, missing.namespace.unwrap_or_default()) })
    }

    async fn unknown(&self, metric: &str) -> Result<Absence, StoreError> {
        let written = self.values(METRIC_NAME_LABEL, Vec::new()).await?;
        let similar = similar(metric, written.iter().map(String::as_str));
        Ok(Absence::Unknown { similar: similar.into_iter().map(str::to_owned).collect() })
    }

    async fn values(&self, label: &str, matchers: Vec<Matcher>) -> Result<Vec<String>, StoreError> {
        let mut values = self.ask(Some(label.to_owned()), matchers).await?;
        values.retain(|value| !value.is_empty());
        Ok(values)
    }

    async fn ask(&self, name: Option<String>, matchers: Vec<Matcher>) -> Result<Vec<String>, StoreError> {
        self.store.labels(self.context, LabelsRequest { name, matchers }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, TestApp};
    use lookback_storage::STALENESS_MARKER_BITS;

    fn resource_of_label(label: &str) -> Option<String> {
        matches!(label, "pod" | "service").then(|| format!("{label}s"))
    }

    /// Of pod `p1` in the namespace `shop`, which may be a minute old, selected by `verb="GET"`.
    async fn reason(server: &TestApp, metric: &str, name: Option<&str>) -> String {
        let mut matchers =
            vec![Matcher::equal(METRIC_NAME_LABEL, metric), Matcher::equal("namespace", "shop")];
        matchers.push(name.map_or(Matcher::not_equal("pod", ""), |name| Matcher::equal("pod", name)));
        let missing = Missing {
            metric,
            label: "pod",
            resource: "pods",
            name,
            namespace: Some("shop"),
            matchers: &matchers,
            is_selected: &|latest| latest.labels.get("verb").is_none_or(|verb| verb == "GET"),
            resource_of_label: &resource_of_label,
            now_ms: NOW_MS,
            not_before_ms: NOW_MS - 60_000,
            rate_window_ms: (metric == "once_total").then_some(120_000),
        };
        let why = why(server.store.as_ref(), &server.context(), &missing).await.expect("answered");
        why.to_string()
    }

    #[tokio::test]
    async fn each_reason_says_what_there_is_instead() {
        let server = TestApp::new();
        let pod = |metric, namespace, name| [("__name__", metric), ("namespace", namespace), ("pod", name)];
        server.put(&pod("rps", "shop", "p1"), NOW_MS - 90_500, 1.0);
        server.put(&pod("bad", "shop", "p1"), NOW_MS, f64::INFINITY);
        server.put(&pod("once_total", "shop", "p1"), NOW_MS, 1.0);
        server.put(&pod("gone", "shop", "p1"), NOW_MS, f64::from_bits(STALENESS_MARKER_BITS));
        server.put(&[&pod("http", "shop", "p1")[..], &[("verb", "PUT")]].concat(), NOW_MS, 1.0);
        server.put(&[("__name__", "svc"), ("namespace", "shop"), ("service", "web")], NOW_MS, 1.0);
        server.put(&[("__name__", "up"), ("instance", "x")], NOW_MS, 1.0);
        server.put(&pod("far", "web", "p1"), NOW_MS, 1.0);
        for name in ["p2", "p3", "p4", "q"] {
            server.put(&pod("near", "shop", name), NOW_MS, 1.0);
        }
        for (metric, name, said) in [
            (
                "rps",
                Some("p1"),
                "stale since 2026-11-22T09:01:29Z: the newest sample is of 2026-11-22T09:00:29Z, 1m30s ago, \
                 and may be 1m old",
            ),
            (
                "once_total",
                Some("p1"),
                "it is a counter, and no series of it has two samples within 2m to tell a rate by",
            ),
            ("bad", Some("p1"), "the newest sample, inf, is no value that a quantity can carry"),
            ("gone", Some("p1"), "its series have ended: whoever sent them said so"),
            (
                "http",
                Some("p1"),
                "the selector excludes all 1 series that there are, such as \
                 http{namespace=\"shop\",pod=\"p1\",verb=\"PUT\"}",
            ),
            ("svc", Some("p1"), "it is written for services"),
            ("up", None, "it is written for no object: its series carry no label of a resource"),
            ("far", None, "it is written for pods of other namespaces: web"),
            ("near", Some("p1"), "it is written for other pods: p2, p3, p4 and 1 more"),
            ("rpm", Some("p1"), "nothing of this name was written, but of similar ones: rps"),
            ("zzzzzz", Some("p1"), "nothing of this name was written"),
        ] {
            assert_eq!(reason(&server, metric, name).await, said, "{metric}");
        }
    }
}
