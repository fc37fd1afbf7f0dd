//! The external metrics API: any series of a namespace, without an object that it would describe.
//!
//! Contract: `k8s.io/metrics/pkg/apis/external_metrics`. An answer has one item a series, which is what
//! the autoscaler sums. `labelSelector` selects by metric labels; the namespace is that of the path.

mod by_rule;
mod stored;

use self::by_rule::ByRule;
use self::stored::Asking;
use super::Source;
use super::auth::Caller;
use super::delegation::Delegate;
use super::error::ApiError;
use super::warnings::warn;
use crate::app::App;
use crate::kubernetes::autoscalers::{Answer, EXTERNAL};
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::selector::{self, Requirements};
use crate::kubernetes::served::{EXTERNAL_METRICS_GROUP, GroupVersion};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use lookback_storage::{Labels, METRIC_NAME_LABEL};
use percent_encoding::percent_decode_str;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most series in one answer; more is 422.
const ITEMS_MAX: usize = 10_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The namespace of the path.
    pub namespace: String,
    /// Which metric.
    pub metric: String,
    /// `labelSelector`, as it was sent; empty where there is none.
    pub selector: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValueList {
    kind: &'static str,
    api_version: String,
    metadata: BTreeMap<String, String>,
    items: Vec<ExternalMetricValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue {
    metric_name: String,
    metric_labels: MetricLabels,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
    value: String,
}

/// Labels but for the metric's name.
enum MetricLabels {
    /// Of a stored series.
    Stored(Arc<Labels>),
    /// Of what a query made.
    Made(BTreeMap<String, String>),
}

impl Serialize for MetricLabels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let is_label = |name: &str| name != METRIC_NAME_LABEL;
        match self {
            Self::Stored(labels) => {
                for (name, value) in labels.iter().filter(|(name, _)| is_label(name)) {
                    map.serialize_entry(name, value)?;
                }
            }
            Self::Made(labels) => {
                for (name, value) in labels.iter().filter(|(name, _)| is_label(name)) {
                    map.serialize_entry(name, value)?;
                }
            }
        }
        map.end()
    }
}

/// Whether a path is of this API, below its discovery.
pub(super) fn is_asked(path: &str) -> bool {
    path.strip_prefix("/apis/")
        .and_then(|rest| rest.strip_prefix(EXTERNAL_METRICS_GROUP))
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Answers a path for values. `delegate` is asked for metrics that are not known here.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    delegate: Option<Delegate<'_>>,
) -> Result<Response, ApiError> {
    if !app.settings.served.serves(GroupVersion::ExternalV1Beta1) {
        return Err(no_such_route());
    }
    let asked = parse(uri)?;
    if !caller.read || !caller.scope.allows(Some(&asked.namespace)) {
        let message = RequestAttributes::of("GET", uri.path()).forbidden(&caller.user);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let selector =
        selector::parse(&asked.selector).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let context = app.context(&caller.scope);
    let asking = Asking { app, context: &context, asked: &asked, requirements: Requirements::of(&selector) };
    let question = Answer {
        namespace: asked.namespace.clone(),
        object: EXTERNAL.to_owned(),
        metric: asked.metric.clone(),
        selector: if selector.selects_all() { String::new() } else { selector.to_string() },
        ..Answer::default()
    };
    let by_rule = ByRule::of(app, &asked);
    let unknown_elsewhere = match delegate.filter(|_| by_rule.is_none()) {
        Some(delegate) if !asking.is_known().await? => {
            match delegate.answer(uri, Some(question.clone())).await? {
                Ok(response) => return Ok(response),
                Err(unknown) => Some(unknown),
            }
        }
        _ => None,
    };
    let (source, answered) = match by_rule {
        Some(by_rule) => ("rule", by_rule.answer(app, &asked, &selector, &caller.scope).await),
        None => ("store", asking.answer().await),
    };
    let answered = answered.map_err(|error| match unknown_elsewhere {
        Some(unknown) => unknown.added_to(error),
        None => error,
    });
    if let Some(live) = app.live().filter(|live| live.answers.is_due(&question, app.clock.now_ms())) {
        live.answers.leave(noted(question, &answered));
    }
    let Answered { list, warnings, .. } = answered?;
    let mut response = Source(source).gave(axum::Json(list).into_response());
    warn(&mut response, warnings);
    Ok(response)
}

/// What autoscalers are answered is remembered.
fn noted(question: Answer, answered: &Result<Answered, ApiError>) -> Answer {
    match answered {
        Ok(Answered { list, why, sum_milli, oldest_ms, .. }) => Answer {
            sum_milli: *sum_milli,
            items: list.items.len(),
            oldest_ms: *oldest_ms,
            why: why.clone(),
            ..question
        },
        Err(error) => Answer { why: Some(error.message.clone()), ..question },
    }
}

/// The answer, and what to say beside it.
struct Answered {
    list: ExternalMetricValueList,
    /// Why it is empty.
    why: Option<String>,
    /// For people.
    warnings: Vec<String>,
    sum_milli: i64,
    oldest_ms: Option<i64>,
}

fn no_such_route() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

/// Reads `/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}` and the query.
///
/// # Errors
/// 404 for another path, 400 for one of no valid form, 405 for a watch.
pub fn parse(uri: &Uri) -> Result<Asked, ApiError> {
    let invalid = || ApiError::bad_request("invalid request path");
    let decode = |part: &str| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned());
    let path = uri.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<String> =
        path.trim_start_matches('/').split('/').map(decode).collect::<Option<_>>().ok_or_else(invalid)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["apis", EXTERNAL_METRICS_GROUP, version, "namespaces", namespace, metric] = parts.as_slice() else {
        return Err(no_such_route());
    };
    if *version != GroupVersion::ExternalV1Beta1.version() {
        return Err(no_such_route());
    }
    if namespace.is_empty() || metric.is_empty() {
        return Err(invalid());
    }
    let query = uri.query().unwrap_or_default();
    let value = |name: &str| -> Option<String> {
        let pair = query.split('&').find(|pair| pair.split('=').next() == Some(name))?;
        decode(&pair.split_once('=').map_or("", |(_, value)| value).replace('+', " "))
    };
    if value("watch").is_some_and(|watch| !matches!(watch.as_str(), "false" | "0" | "")) {
        return Err(ApiError::method_not_allowed(
            "external metrics can't be watched: ask again",
            "GET, HEAD",
        ));
    }
    Ok(Asked {
        namespace: (*namespace).to_owned(),
        metric: (*metric).to_owned(),
        selector: value("labelSelector").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Settings;
    use crate::http::kubernetes_apis::routes;
    use crate::kubernetes::served::Served;
    use crate::query::freshness::{MetricRule, Pattern};
    use crate::store::Scope;
    use crate::testing::{NOW_MS, TestApp};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use std::time::Duration;

    const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces";

    fn server(settings: Settings) -> TestApp {
        let server = TestApp::with_settings(settings).routed(routes());
        let series = |route: &'static str| [("__name__", "jobs"), ("namespace", "shop"), ("queue", route)];
        server.put(&series("a"), NOW_MS - 1_500, 1.5);
        server.put(&series("b"), NOW_MS - 500, 2.0);
        server.put(&series("nan"), NOW_MS, f64::NAN);
        server.put(&series("old"), NOW_MS - 400_000, 9.0);
        server.put(&[("__name__", "jobs"), ("namespace", "bank")], NOW_MS, 7.0);
        server.put(&[("__name__", "old"), ("namespace", "shop")], NOW_MS - 400_000, 7.0);
        server.put(&[("__name__", "up")], NOW_MS, 1.0);
        server
    }

    async fn items(server: &TestApp, path: &str) -> Vec<Value> {
        let answer = server.get(&format!("{BASE}/{path}")).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        assert_eq!(answer.json()["kind"], "ExternalMetricValueList");
        answer.json()["items"].as_array().expect("a list").clone()
    }

    #[tokio::test]
    async fn every_fresh_series_of_the_namespace_is_an_item() {
        let server = server(Settings::default());
        assert_eq!(
            items(&server, "shop/jobs").await,
            [
                json!({"metricName": "jobs", "metricLabels": {"namespace": "shop", "queue": "a"},
                    "timestamp": "2026-11-22T09:01:58Z", "value": "1500m"}),
                json!({"metricName": "jobs", "metricLabels": {"namespace": "shop", "queue": "b"},
                    "timestamp": "2026-11-22T09:01:59Z", "value": "2"}),
            ]
        );
        let values = async |query: &str| -> Vec<Value> {
            let items = items(&server, &format!("shop/jobs?labelSelector={query}")).await;
            items.iter().map(|item| item["value"].clone()).collect()
        };
        assert_eq!(values("queue%3Da").await, ["1500m"]);
        assert_eq!(values("queue+in+%28a%2Cb%29").await, ["1500m", "2"]);
        assert_eq!(values("%21queue").await, [""; 0]);
        let warned = async |path: &str| {
            let answer = server.get(&format!("{BASE}/{path}")).await;
            assert_eq!((answer.code.as_u16(), &answer.json()["items"]), (200, &json!([])), "{path}");
            answer.headers["warning"].to_str().expect("ASCII").to_owned()
        };
        let said = warned("shop/old").await;
        assert!(
            said.contains("no value of the metric old in the namespace shop: stale since 2026-11-22T09:00:"),
            "{said}"
        );
        let said = warned("shop/jobs?labelSelector=%21queue").await;
        assert!(said.contains("the selector excludes all 4 series that there are"), "{said}");
        assert_eq!(items(&server, "bank/jobs/?timeout=5s").await.len(), 1);
    }

    #[tokio::test]
    async fn what_can_not_be_answered_says_why() {
        let mut server = server(Settings::default());
        for (path, code, message) in [
            (
                "shop/nope",
                404,
                "the server could not find the metric nope in the namespace shop: nothing of this name was written",
            ),
            (
                "web/jobs",
                404,
                "the server could not find the metric jobs in the namespace web: it is written in other namespaces: bank, shop",
            ),
            (
                "shop/up",
                404,
                "the server could not find the metric up in the namespace shop: its series name no namespace",
            ),
            ("shop/jobs?watch=true", 405, "external metrics can't be watched"),
            ("shop/jobs?labelSelector=!!", 400, "unable to parse requirement: "),
            ("shop", 404, "the server could not find the requested resource"),
            ("shop/jobs/more", 404, "the server could not find the requested resource"),
            ("%FF/jobs", 400, "invalid request path"),
        ] {
            let answer = server.get(&format!("{BASE}/{path}")).await;
            let said = answer.json()["message"].as_str().expect("a message").to_owned();
            assert!(answer.code == code && said.starts_with(message), "{path}: {} {said}", answer.code);
        }
        let other = Scope::Namespaces(Arc::new(BTreeSet::from(["bank".to_owned()])));
        server.caller = Some(Caller { user: "eve".to_owned(), scope: other, ..Caller::local() });
        let answer = server.get(&format!("{BASE}/shop/jobs")).await;
        assert_eq!(answer.code, 403);
        let message = "jobs.external.metrics.k8s.io is forbidden: User \"eve\" cannot list resource \"jobs\" in API \
                       group \"external.metrics.k8s.io\" in the namespace \"shop\"";
        assert_eq!(answer.json()["message"], message);
    }

    #[tokio::test]
    async fn a_version_that_is_turned_off_is_not_there() {
        let served = Served::of_runtime_config(["external.metrics.k8s.io=false"]).expect("usable");
        let server = server(Settings { served, ..Settings::default() });
        assert_eq!(server.get(&format!("{BASE}/shop/jobs")).await.code, 404);
    }

    #[tokio::test]
    async fn a_counter_is_answered_by_its_rate() {
        let rule = MetricRule {
            metric: Pattern::new("sent_total"),
            namespace: Pattern::any(),
            resource: Pattern::any(),
            freshness: None,
            hold: None,
            rate_window: Some(Duration::from_secs(60)),
        };
        let server = server(Settings { metric_rules: vec![rule], ..Settings::default() });
        let samples: Vec<(i64, f64)> =
            (0..=60).map(|s| (NOW_MS - 60_000 + s * 1_000, s as f64 * 4.0)).collect();
        server.put_all(&[("__name__", "sent_total"), ("namespace", "shop")], &samples);
        let item = &items(&server, "shop/sent_total").await[0];
        assert_eq!((&item["value"], &item["window"]), (&json!("4"), &json!(60)));
        server.put(&[("__name__", "sent_total"), ("namespace", "bank")], NOW_MS, 4.0);
        let answer = server.get(&format!("{BASE}/bank/sent_total")).await;
        let said = answer.headers["warning"].to_str().expect("ASCII");
        assert!(said.contains("no series of it has two samples within 1m to tell a rate by"), "{said}");
    }

    #[tokio::test]
    async fn what_is_held_is_marked_and_counted() {
        let rule = MetricRule {
            metric: Pattern::new("old"),
            namespace: Pattern::any(),
            resource: Pattern::any(),
            freshness: None,
            hold: Some(Duration::from_secs(200)),
            rate_window: None,
        };
        let server = server(Settings { metric_rules: vec![rule], ..Settings::default() });
        let answer = server.get(&format!("{BASE}/shop/old")).await;
        assert_eq!(answer.json()["items"][0]["value"], "7");
        let said = answer.headers["warning"].to_str().expect("ASCII");
        assert_eq!(said, "299 lookback \"1 values of old are not fresh: held as a metric rule allows\"");
        assert_eq!(server.app.metrics.values_held.get(), 1);
        server.clock.set_ms(NOW_MS + 100_001);
        assert_eq!(items(&server, "shop/old").await, [""; 0], "for a capped time");
    }

    proptest! {
        #[test]
        fn no_path_panics(rest in "[!-~]{0,40}", query in "[!-~]{0,40}") {
            if let Ok(uri) = format!("{BASE}/{rest}?{query}").parse::<Uri>() {
                let _ = parse(&uri);
            }
        }
    }
}
