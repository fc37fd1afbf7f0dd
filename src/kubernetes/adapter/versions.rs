//! Questions for metrics of objects in a version that an adapter does not serve: they are put to it in the other
//! one, and its answer is translated.
//!
//! The two versions of `MetricValueList` say the same in different places: v1beta2 has `metric.name`,
//! `metric.selector` and `windowSeconds` where v1beta1 has `metricName`, `selector` and `window`. What is in those
//! places, and all the rest of an item, goes over as it was written.
//!
//! Which versions there are is told by an adapter's lists of resources, not by its group: some adapters
//! leave versions that they serve out of that. It is looked at only when a question meets a 404.

use super::{Adapter, AdapterError, AdapterValues, parse_values};
use crate::kubernetes::served::GroupVersion;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it counts which version an adapter lacks.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// Which version of metrics of objects an adapter lacks, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Lacked(Mutex<Option<(Instant, Option<GroupVersion>)>>);

impl Lacked {
    /// `None`: it is not known at present.
    fn known(&self) -> Option<Option<GroupVersion>> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(since, _)| since.elapsed() < KNOWN_FOR).map(|(_, lacked)| lacked)
    }

    fn note(&self, lacked: Option<GroupVersion>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), lacked));
    }
}

/// A question for metrics of objects, in one version.
struct Versioned<'a> {
    version: GroupVersion,
    other: GroupVersion,
    /// Behind the version, from the slash on.
    rest: &'a str,
}

impl<'a> Versioned<'a> {
    /// `None`: it is no such question.
    fn of(path_and_query: &'a str) -> Option<Self> {
        let pairs = [
            (GroupVersion::CustomV1Beta1, GroupVersion::CustomV1Beta2),
            (GroupVersion::CustomV1Beta2, GroupVersion::CustomV1Beta1),
        ];
        pairs.into_iter().find_map(|(version, other)| {
            let rest = path_and_query.strip_prefix("/apis/")?.strip_prefix(version.group())?;
            let rest = rest.strip_prefix('/')?.strip_prefix(version.version())?;
            rest.starts_with('/').then_some(Self { version, other, rest })
        })
    }
}

impl Adapter {
    /// The values that it has for a question of a metrics API, in the version of the question also where it
    /// serves only the other one.
    ///
    /// # Errors
    /// When it has none, or gives none in time.
    pub async fn values_in_any_version(&self, path_and_query: &str) -> Result<AdapterValues, AdapterError> {
        let Some(asked) = Versioned::of(path_and_query) else { return self.values(path_and_query).await };
        let asking = async {
            if self.lacked.known() != Some(Some(asked.version)) {
                let not_found = match self.values(path_and_query).await {
                    Err(error @ AdapterError::Status { code: 404, .. }) => error,
                    answered => return answered,
                };
                if !self.lacks(&asked).await {
                    return Err(not_found);
                }
            }
            self.translated(&asked).await
        };
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(Err(AdapterError::Slow(self.timeout)))
    }

    /// Whether it serves the other version only. One that can't say so serves what it was asked.
    async fn lacks(&self, asked: &Versioned<'_>) -> bool {
        if let Some(lacked) = self.lacked.known() {
            return lacked == Some(asked.version);
        }
        let (this, other) = tokio::join!(self.list(asked.version), self.list(asked.other));
        let lacks = matches!(this, Err(AdapterError::Status { code: 404, .. })) && other.is_ok();
        if lacks || this.is_ok() {
            self.lacked.note(lacks.then_some(asked.version));
        }
        lacks
    }

    async fn translated(&self, asked: &Versioned<'_>) -> Result<AdapterValues, AdapterError> {
        let Versioned { version, other, rest } = asked;
        let body = self.get(&format!("/apis/{}/{}{rest}", other.group(), other.version())).await?;
        // What is no list is told by what it is.
        let items = parse_values(&body).map_err(AdapterError::Invalid)?;
        let body = translate(&body, *version).map_err(|error| AdapterError::Invalid(error.to_string()))?;
        Ok(AdapterValues { body: body.into(), items })
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, I> {
    #[serde(borrow)]
    kind: &'a RawValue,
    api_version: String,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    items: Option<Vec<I>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta1<'a> {
    #[serde(borrow)]
    described_object: &'a RawValue,
    #[serde(borrow)]
    metric_name: &'a RawValue,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    window: Option<&'a RawValue>,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    selector: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta2<'a> {
    #[serde(borrow)]
    described_object: &'a RawValue,
    #[serde(borrow)]
    metric: Identifier<'a>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    window_seconds: Option<&'a RawValue>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize, Serialize)]
struct Identifier<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    selector: Option<&'a RawValue>,
}

impl<'a> From<V1Beta1<'a>> for V1Beta2<'a> {
    fn from(item: V1Beta1<'a>) -> Self {
        let V1Beta1 { described_object, metric_name: name, timestamp, window, value, selector } = item;
        let metric = Identifier { name, selector };
        Self { described_object, metric, timestamp, window_seconds: window, value }
    }
}

impl<'a> From<V1Beta2<'a>> for V1Beta1<'a> {
    fn from(item: V1Beta2<'a>) -> Self {
        let V1Beta2 { described_object, metric, timestamp, window_seconds: window, value } = item;
        let Identifier { name: metric_name, selector } = metric;
        Self { described_object, metric_name, timestamp, window, value, selector }
    }
}

/// A list of the one version in the other, which is `to`.
fn translate(body: &[u8], to: GroupVersion) -> serde_json::Result<Vec<u8>> {
    match to {
        GroupVersion::CustomV1Beta2 => {
            items_into::<V1Beta1<'_>, V1Beta2<'_>>(serde_json::from_slice(body)?, to)
        }
        _ => items_into::<V1Beta2<'_>, V1Beta1<'_>>(serde_json::from_slice(body)?, to),
    }
}

fn items_into<'a, From, To>(list: List<'a, From>, to: GroupVersion) -> serde_json::Result<Vec<u8>>
where
    To: std::convert::From<From> + Serialize,
{
    // Never null.
    let items = list.items.unwrap_or_default().into_iter().map(To::from).collect();
    let List { kind, metadata, .. } = list;
    serde_json::to_vec(&List { kind, api_version: to.to_string(), metadata, items: Some(items) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","metadata":{},"items":[{"describedObject":{"kind":"Pod","name":"p\u0031","apiVersion":"/v1"},"metricName":"rps","timestamp":"2026-11-22T09:02:00Z","window":60,"value":"1500m","selector":null},{"describedObject":{"kind":"Pod","name":"p2"},"metricName":"rps","timestamp":null,"value":3,"selector":{"matchLabels":{"verb":"GET"}}}]}"#;
    const SECOND: &str = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","metadata":{},"items":[{"describedObject":{"kind":"Pod","name":"p\u0031","apiVersion":"/v1"},"metric":{"name":"rps","selector":null},"timestamp":"2026-11-22T09:02:00Z","windowSeconds":60,"value":"1500m"},{"describedObject":{"kind":"Pod","name":"p2"},"metric":{"name":"rps","selector":{"matchLabels":{"verb":"GET"}}},"timestamp":null,"value":3}]}"#;

    #[test]
    fn each_version_becomes_the_other_with_every_part_as_it_was_written() {
        let text = |body: &str, to| {
            translate(body.as_bytes(), to).map(|body| String::from_utf8(body).expect("text"))
        };
        assert_eq!(text(FIRST, GroupVersion::CustomV1Beta2).expect("translated"), SECOND);
        assert_eq!(text(SECOND, GroupVersion::CustomV1Beta1).expect("translated"), FIRST);
        let empty = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","items":null}"#;
        let expected =
            r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[]}"#;
        assert_eq!(text(empty, GroupVersion::CustomV1Beta2).expect("translated"), expected);
        assert!(text(FIRST, GroupVersion::CustomV1Beta1).is_err(), "an item that names no metric");
    }

    #[test]
    fn only_questions_for_metrics_of_objects_have_another_version() {
        let rest = "/namespaces/a/pods/*/m?labelSelector=x";
        for version in [GroupVersion::CustomV1Beta1, GroupVersion::CustomV1Beta2] {
            let path = format!("/apis/{version}{rest}");
            assert!(Versioned::of(&path).is_some_and(|asked| asked.version == version && asked.rest == rest));
        }
        for path in [
            "/apis/custom.metrics.k8s.io/v1beta1",
            "/apis/custom.metrics.k8s.io/v1beta10/x",
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/a/m",
        ] {
            assert!(Versioned::of(path).is_none(), "{path}");
        }
    }
}
