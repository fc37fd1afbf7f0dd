//! The resource metrics API, `metrics.k8s.io/v1beta1`: what pods and nodes use, as `kubectl top`, the HPA, the VPA and
//! OptiPod ask it; see [`crate::query::usage`] for what an answer is made of.
//!
//! `labelSelector` and `fieldSelector` select objects of the cluster. Objects that are gone are left out, where it is
//! known which there are; without a cluster, or before they have been listed, all are told of that have
//! values. Unlike metrics-server, which has to see each kubelet twice first, it answers at once after a restart.

mod by_rules;
mod fields;
mod path;
mod table;

pub use fields::{FieldSelector, FieldSelectorError};

use self::by_rules::ByRules;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::kubernetes::autoscalers::{Answer, Counted, usage_object};
use crate::kubernetes::objects::Known;
use crate::kubernetes::quantity::saturating_milli;
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::resource_metrics::{
    ContainerMetrics, Metrics, MetricsList, ObjectMeta, ResourceList, go_duration,
};
use crate::kubernetes::resources::resolve;
use crate::kubernetes::scaled_pods::{Apart, Used, UsedByPod};
use crate::kubernetes::selector::{self, Requirements};
use crate::kubernetes::served::{GroupVersion, RESOURCE_METRICS_GROUP};
use crate::query::usage::{self, PodUsage, Usage};
use crate::time::{format_duration, whole_ms};
use axum::Json;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use path::{Asked, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;

const API: GroupVersion = GroupVersion::ResourceV1Beta1;

/// Whether a path is of this API, below its discovery.
pub(super) fn is_asked(path: &str) -> bool {
    path.strip_prefix("/apis/")
        .and_then(|rest| rest.strip_prefix(RESOURCE_METRICS_GROUP))
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Answers a path of this API that is none of its discovery.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Response, ApiError> {
    if !app.settings.served.serves(API) {
        return Err(path::no_such_route());
    }
    let asked = path::parse(uri)?;
    if !caller.read || !caller.scope.allows(asked.namespace.as_deref()) {
        let message = RequestAttributes::of("GET", uri.path()).forbidden(&caller.user);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let of_objects =
        selector::parse(&asked.label_selector).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let requirements = Requirements::of(&of_objects);
    let objects = objects(app, &asked, requirements.is_empty()).await?;
    let selected = Selected { asked: &asked, objects: objects.as_deref(), requirements };
    let items = items(app, caller, &selected).await?;
    note(app, &selected, &items);
    let table = table::wanted(headers, &asked.include_object)?;
    let Some(name) = &asked.name else {
        return Ok(match table {
            Some(rows) => Json(table::of(&items, asked.kind, rows)).into_response(),
            None => Json(list(asked.kind, items)).into_response(),
        });
    };
    let Some(item) = items.into_iter().next() else { return Err(not_found(app, &selected, name)) };
    Ok(match table {
        Some(rows) => Json(table::of(&[item], asked.kind, rows)).into_response(),
        None => {
            let (kind, api_version) = (Some(asked.kind.name()), Some(API.to_string()));
            Json(Metrics { kind, api_version, ..item }).into_response()
        }
    })
}

/// The objects that there are; `None`: that is not known, and nothing is asked of their labels.
async fn objects(app: &App, asked: &Asked, all_selected: bool) -> Result<Option<Arc<Known>>, ApiError> {
    let resource = resolve(asked.kind.plural()).map_err(|error| ApiError::bad_request(error.to_string()))?;
    match (app.live(), all_selected) {
        (None, true) => Ok(None),
        (None, false) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "labelSelector is served only in a cluster, which alone knows the labels of its objects: leave it out, or \
             give --kubeconfig",
        )),
        (Some(live), true) => Ok(live.objects_if_known(&resource).await),
        (Some(live), false) => Ok(Some(live.objects_to_select(&resource).await?)),
    }
}

struct Selected<'a> {
    asked: &'a Asked,
    objects: Option<&'a Known>,
    requirements: Requirements,
}

impl Selected<'_> {
    /// The labels of an object that is selected; `None`: it is not, or there is no such object.
    fn labels(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        if !self.asked.fields.selects(namespace, name) {
            return None;
        }
        let Some(objects) = self.objects else { return Some(BTreeMap::new()) };
        let index = objects.read();
        let labels = index.get(namespace, name).filter(|labels| labels.has(&self.requirements))?;
        Some(labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

async fn items(app: &App, caller: &Caller, selected: &Selected<'_>) -> Result<Vec<Metrics>, ApiError> {
    let context = app.context(&caller.scope);
    let now = timestamp(app.clock.now_ms());
    let (namespace, name) = (selected.asked.namespace.as_deref(), selected.asked.name.as_deref());
    let by_rules = ByRules::of(app, caller, namespace, name);
    match selected.asked.kind {
        Kind::Pods => {
            let pods = match by_rules.pods().await? {
                Some(pods) => pods,
                None => usage::pods(app, &context, namespace, name).await?,
            };
            let item = |pod: PodUsage| of_pod(selected.labels(&pod.namespace, &pod.name)?, pod, now);
            Ok(pods.into_iter().filter_map(item).collect())
        }
        Kind::Nodes => {
            let nodes = match by_rules.nodes().await? {
                Some(nodes) => nodes,
                None => usage::nodes(app, &context, name).await?,
            };
            let item =
                |(name, usage): (String, Usage)| Some(of_node(selected.labels("", &name)?, name, usage, now));
            Ok(nodes.into_iter().filter_map(item).collect())
        }
    }
}

/// What autoscalers of the namespace are answered is remembered, where they go by what pods use.
fn note(app: &App, selected: &Selected<'_>, items: &[Metrics]) {
    let Selected { asked, objects, requirements } = selected;
    let (Some(live), Some(namespace)) = (app.live(), asked.namespace.as_deref()) else { return };
    if asked.kind != Kind::Pods || asked.name.is_some() {
        return;
    }
    let now_ms = app.clock.now_ms();
    let question = |container: Option<&str>, resource: String| Answer {
        namespace: namespace.to_owned(),
        object: usage_object(container),
        metric: resource,
        selector: asked.label_selector.clone(),
        ..Answer::default()
    };
    let targets = live.autoscalers.usage_targets(namespace).into_iter();
    let asked = targets.map(|(resource, container)| (question(container.as_deref(), resource), container));
    let due: Vec<_> = asked.filter(|(question, _)| live.answers.is_due(question, now_ms)).collect();
    if due.is_empty() {
        return;
    }
    let selected = objects.map(|objects| objects.read().selected(namespace, requirements));
    let pods = selected.as_ref().and_then(|selected| live.pods.of(namespace, selected));
    for (question, container) in due {
        let resource = question.metric.as_str();
        let used: UsedByPod =
            items.iter().filter_map(|item| of_item(item, resource, container.as_deref())).collect();
        let counted = pods.as_ref().map(|pods| {
            let apart = Apart::of(pods, resource, &used, now_ms, &app.settings.controller);
            let requested = apart.requested(resource, container.as_deref()).ok();
            Counted { summary: apart.summary(), requested }
        });
        live.answers.leave(Answer {
            sum_milli: used.values().map(|used| used.milli).fold(0, i64::saturating_add),
            items: used.len(),
            missing: selected.as_ref().map(|selected| selected.len().saturating_sub(used.len())),
            oldest_ms: used.values().filter_map(|used| used.timestamp_ms).min(),
            why: used.is_empty().then(|| "nothing is known of what these pods use".to_owned()),
            counted,
            ..question
        });
    }
}

/// What a pod uses of a resource, by one container or all, as an autoscaler reads it.
fn of_item(item: &Metrics, resource: &str, container: Option<&str>) -> Option<(String, Used)> {
    let of = item.containers.iter().flatten();
    let of = of.filter(|one| container.is_none_or(|wanted| wanted == one.name));
    let each: Vec<i64> = of.filter_map(|one| one.usage.of(resource)).map(saturating_milli).collect();
    let milli = each.iter().fold(0_i64, |sum, milli| sum.saturating_add(*milli));
    let timestamp_ms = Some(item.timestamp.as_millisecond());
    let used = Used { milli, timestamp_ms, window_ms: item.window_ms };
    (!each.is_empty()).then(|| (item.metadata.name.clone(), used))
}

/// Times of this API are of whole seconds.
fn timestamp(at_ms: i64) -> Timestamp {
    Timestamp::from_second(at_ms.div_euclid(1_000)).unwrap_or_default()
}

fn of_pod(labels: BTreeMap<String, String>, pod: PodUsage, now: Timestamp) -> Option<Metrics> {
    let oldest = pod.oldest()?;
    let container = |(name, usage): (String, Usage)| ContainerMetrics { name, usage: used(usage) };
    Some(Metrics {
        kind: None,
        api_version: None,
        metadata: ObjectMeta {
            name: pod.name,
            namespace: Some(pod.namespace),
            creation_timestamp: now,
            labels,
        },
        timestamp: timestamp(oldest.timestamp_ms),
        window: go_duration(oldest.window_ms),
        window_ms: oldest.window_ms,
        usage: None,
        containers: Some(pod.containers.into_iter().map(container).collect()),
    })
}

fn of_node(labels: BTreeMap<String, String>, name: String, usage: Usage, now: Timestamp) -> Metrics {
    Metrics {
        kind: None,
        api_version: None,
        metadata: ObjectMeta { name, namespace: None, creation_timestamp: now, labels },
        timestamp: timestamp(usage.timestamp_ms),
        window: go_duration(usage.window_ms),
        window_ms: usage.window_ms,
        usage: Some(used(usage)),
        containers: None,
    }
}

fn used(usage: Usage) -> ResourceList {
    ResourceList { cpu_nanocores: usage.cpu_nanocores, memory_bytes: usage.memory_bytes }
}

fn list(kind: Kind, items: Vec<Metrics>) -> MetricsList {
    MetricsList {
        kind: format!("{}List", kind.name()),
        api_version: API.to_string(),
        metadata: BTreeMap::new(),
        items,
    }
}

/// Says which it is: no such object, or none of which there are two points.
fn not_found(app: &App, selected: &Selected<'_>, name: &str) -> ApiError {
    let Asked { kind, namespace, .. } = selected.asked;
    let namespace = namespace.as_deref();
    let exists = selected.objects.map(|objects| objects.read().get(namespace.unwrap_or(""), name).is_some());
    let whole = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let what = kind.plural();
    let of = if *kind == Kind::Pods { "each of its containers" } else { "it" };
    let why = match exists {
        Some(false) => format!("there is no such object among the cluster's {what}"),
        _ if ByRules::hold(app) => format!(
            "the queries of resourceRules give no value of both cpu and memory for {of} at present: ask them where the \
             rules look"
        ),
        _ => {
            let span = format_duration(whole_ms(app.settings.freshness));
            format!("there are no two points of {of} within {span}: is it new, or its kubelet failing (up)?")
        }
    };
    ApiError::not_found(format!("{what}.{RESOURCE_METRICS_GROUP} {whole:?} not found: {why}"))
}

#[cfg(test)]
mod tests;
