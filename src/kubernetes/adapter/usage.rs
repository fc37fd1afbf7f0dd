//! What pods use, as a server of `metrics.k8s.io` tells autoscalers.

use super::{Adapter, AdapterError};
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::scaled_pods::{Used, UsedByPod};
use crate::text;
use crate::time::parse_duration;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What one pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// The pod's name.
    pub pod: String,
    timestamp_ms: Option<i64>,
    window_ms: i64,
    /// In millis by resource, of each container.
    containers: Vec<(String, BTreeMap<String, i64>)>,
}

impl PodUsage {
    /// Of a resource by one container, or by all; `None`: it is not known of one of them.
    fn used(&self, resource: &str, container: Option<&str>) -> Option<Used> {
        let of = self.containers.iter().filter(|(name, _)| container.is_none_or(|wanted| wanted == name));
        let each = of.map(|(_, usage)| usage.get(resource).copied());
        let milli = each.collect::<Option<Vec<i64>>>().filter(|each| !each.is_empty())?;
        let (timestamp_ms, window_ms) = (self.timestamp_ms, self.window_ms);
        Some(Used { milli: milli.into_iter().sum(), timestamp_ms, window_ms })
    }
}

/// What pods use of a resource, by one container or all of them; pods of which it is not known, such as those that do
/// not have the container, are left out.
#[must_use]
pub fn used(pods: &[PodUsage], resource: &str, container: Option<&str>) -> UsedByPod {
    let used = |pod: &PodUsage| Some((pod.pod.clone(), pod.used(resource, container)?));
    pods.iter().filter_map(used).collect()
}

impl Adapter {
    /// What pods use, by a question of `metrics.k8s.io` for many of them.
    ///
    /// # Errors
    /// When it does not say so, or not in time.
    pub async fn usage(&self, path_and_query: &str) -> Result<Vec<PodUsage>, AdapterError> {
        parse_usage(&self.get(path_and_query).await?).map_err(AdapterError::Invalid)
    }
}

#[derive(Deserialize)]
struct List {
    kind: String,
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    timestamp: Option<String>,
    window: Option<String>,
    containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    usage: BTreeMap<String, String>,
}

fn parse_usage(body: &[u8]) -> Result<Vec<PodUsage>, String> {
    let list: List = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if list.kind != "PodMetricsList" {
        return Err(format!("its kind is {:?}", text::start_of(&list.kind)));
    }
    list.items.unwrap_or_default().into_iter().map(pod).collect()
}

fn pod(item: Item) -> Result<PodUsage, String> {
    let milli = |(resource, text): (String, String)| {
        let quantity = Quantity::parse(&text).map_err(|error| error.to_string())?;
        let milli = quantity.milli().ok_or_else(|| format!("{text} {resource} is too much"))?;
        Ok((resource, milli))
    };
    let container = |container: Container| {
        let usage = container.usage.into_iter().map(milli).collect::<Result<_, String>>()?;
        Ok((container.name, usage))
    };
    let timestamp = item.timestamp.and_then(|text| text.parse::<Timestamp>().ok());
    let window = item.window.and_then(|text| parse_duration(&text).ok());
    Ok(PodUsage {
        pod: item.metadata.name,
        timestamp_ms: timestamp.map(Timestamp::as_millisecond),
        window_ms: window.unwrap_or(0),
        containers: item
            .containers
            .unwrap_or_default()
            .into_iter()
            .map(container)
            .collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_pods_use_is_read_and_summed_up_over_containers() {
        let pod = |name: &str, containers: serde_json::Value| {
            json!({"metadata": {"name": name, "namespace": "shop"}, "timestamp": "2026-11-22T10:00:00Z",
                "window": "15.5s", "containers": containers})
        };
        let list = json!({"kind": "PodMetricsList", "items": [
            pod("a", json!([{"name": "app", "usage": {"cpu": "250m", "memory": "1Ki"}},
                {"name": "log", "usage": {"cpu": "1500u"}}])),
            pod("b", json!([{"name": "app", "usage": {"cpu": "1"}}])),
            pod("c", json!([])),
        ]});
        let pods = parse_usage(list.to_string().as_bytes()).expect("usage");
        let of = |milli| Used { milli, timestamp_ms: Some(1_795_341_600_000), window_ms: 15_500 };
        // 1500 micro are two milli.
        let cpu = used(&pods, "cpu", None);
        assert_eq!(cpu, BTreeMap::from([("a".to_owned(), of(252)), ("b".to_owned(), of(1_000))]));
        assert_eq!(used(&pods, "memory", None), BTreeMap::new(), "one container of it says nothing");
        let log = used(&pods, "cpu", Some("log"));
        assert_eq!(log, BTreeMap::from([("a".to_owned(), of(2))]), "the others do not have it");
        let app = used(&pods[..2], "memory", Some("app"));
        assert_eq!(app, BTreeMap::from([("a".to_owned(), of(1_024_000))]));
        for body in [r#"{"kind":"Status"}"#, "<html>", r#"{"kind":"PodMetricsList","items":[{}]}"#] {
            assert!(parse_usage(body.as_bytes()).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,20}") {
            let _ = parse_usage(&body);
            let list = json!({"kind": "PodMetricsList", "items": [{"metadata": {"name": text}, "timestamp": text, "window": text,
                "containers": [{"name": text, "usage": {"cpu": text}}]}]});
            let _ = parse_usage(list.to_string().as_bytes());
        }
    }
}
