//! Latest values of objects, from the store to the answer.

use super::answer::MetricValueList;
use super::path::Values;
use crate::app::App;
use crate::http::error::ApiError;
use crate::kubernetes::catalog::Snapshot;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::resources::{NAMESPACE_LABEL, RESOURCE_INFO_METRIC};
use crate::kubernetes::selector;
use crate::query::latest::{Rule, object_values};
use crate::store::{Context, LabelsRequest, Latest};
use crate::time::whole_ms;
use kube::core::Selector;
use lookback_storage::{METRIC_NAME_LABEL, Matcher};

/// Where the asked objects lie.
pub(super) struct Place {
    /// Whether they lie in namespaces.
    namespaced: bool,
    /// The namespace by which a caller's scope is judged.
    pub(super) scope: Option<String>,
}

/// Where the objects of a question lie: an object of the whole cluster (a node) may be asked for
/// under a namespace, as the autoscaler does.
pub(super) fn place(asked: &Values, snapshot: &Snapshot) -> Result<Place, ApiError> {
    let namespaced = snapshot.namespaced(&asked.resource).unwrap_or(asked.namespace.is_some());
    if namespaced && asked.namespace.is_none() {
        let resource = asked.resource.group_resource();
        return Err(ApiError::not_found(format!(
            "{resource} lie in namespaces: ask for them at namespaces/{{namespace}}/{resource}/{{name}}/{{metric}}"
        )));
    }
    let scope = if asked.resource.is_namespace() { &asked.name } else { &asked.namespace };
    let scope = scope.clone().filter(|_| namespaced || asked.resource.is_namespace());
    Ok(Place { namespaced, scope })
}

/// The answer to a question for values.
pub(super) async fn values(
    app: &App,
    context: &Context,
    asked: &Values,
    place: &Place,
    snapshot: &Snapshot,
    selector: &Selector,
) -> Result<MetricValueList, ApiError> {
    let matchers = matchers(asked, place);
    let not_before_ms = app.clock.now_ms().saturating_sub(whole_ms(app.settings.freshness));
    let found = app.store.latest(context, &matchers, not_before_ms).await?;
    let answer = answer(found, asked, place, snapshot, selector);
    if answer.is_empty() {
        check_may_be_empty(app, context, asked, matchers, selector).await?;
    }
    Ok(answer)
}

fn answer(
    mut found: Vec<Latest>,
    asked: &Values,
    place: &Place,
    snapshot: &Snapshot,
    selector: &Selector,
) -> MetricValueList {
    let described = asked.resource.label.as_ref();
    let identity = [METRIC_NAME_LABEL, described, NAMESPACE_LABEL];
    let identity = if place.namespaced { &identity[..] } else { &identity[..2] };
    found.retain(|latest| selector::matches(selector, &latest.labels, identity));
    let rule = Rule {
        described,
        namespaced: place.namespaced,
        is_resource_label: &|label| snapshot.is_resource_label(label),
        nanos: |value| Quantity::from_f64(value).map(|quantity| quantity.nanos()),
    };
    let repeated = selector::to_label_selector(selector);
    MetricValueList::new(asked.version, &asked.resource, repeated.as_ref(), object_values(&found, &rule))
}

fn matchers(asked: &Values, place: &Place) -> Vec<Matcher> {
    let metric = match &asked.metric {
        Some(metric) => Matcher::equal(METRIC_NAME_LABEL, metric),
        None => Matcher::not_equal(METRIC_NAME_LABEL, RESOURCE_INFO_METRIC),
    };
    let label = asked.resource.label.as_ref();
    let object = match &asked.name {
        Some(name) => Matcher::equal(label, name),
        None => Matcher::not_equal(label, ""),
    };
    let namespace = asked.namespace.as_deref().filter(|_| place.namespaced);
    let namespace = namespace.map(|namespace| Matcher::equal(NAMESPACE_LABEL, namespace));
    [metric, object].into_iter().chain(namespace).collect()
}

/// An answer without items stands for objects that have the metric but no fresh sample. It is no
/// answer for one object's one metric, nor where nobody ever wrote: that is 404.
async fn check_may_be_empty(
    app: &App,
    context: &Context,
    asked: &Values,
    matchers: Vec<Matcher>,
    selector: &Selector,
) -> Result<(), ApiError> {
    let resource = asked.resource.group_resource();
    let whose = match &asked.name {
        Some(name) => format!("{resource} {name}"),
        None => resource,
    };
    let what = match (&asked.metric, &asked.name) {
        (Some(metric), Some(_)) => {
            let with =
                if selector.selects_all() { String::new() } else { format!(" with selector {selector}") };
            return Err(ApiError::not_found(format!(
                "the server could not find the metric {metric} for {whose}{with}"
            )));
        }
        (Some(metric), None) => format!("the metric {metric}"),
        (None, _) => "any metric".to_owned(),
    };
    let request = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers };
    if app.store.labels(context, request).await?.is_empty() {
        return Err(ApiError::not_found(format!("the server could not find {what} for {whose}")));
    }
    Ok(())
}
