//! Remembers what autoscaling did: the state of each HorizontalPodAutoscaler, under the names of
//! kube-state-metrics, and each answer that one of them was given, as ordinary series.
//!
//! An autoscaler's series get a sample when it changes, and at an interval. An answer's series get one
//! each time it is given, at most one in five seconds ([`Answers::is_due`]). An answer without values is also told by an
//! Event on the autoscaler, at most once in [`EVENT_INTERVAL_MS`].
//!
//! [`Answers::is_due`]: crate::kubernetes::autoscalers::Answers::is_due

use crate::app::App;
use crate::kubernetes::autoscalers::{Answer, is_due, targets};
use crate::kubernetes::behavior::{Behavior, Direction, Rules};
use crate::kubernetes::controller_settings::ControllerSettings;
use crate::kubernetes::live::Live;
use crate::store::Scope;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use lookback_storage::{Labels, METRIC_NAME_LABEL, OutOfOrder, STALENESS_MARKER_BITS, WriteBatch};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use tracing::{debug, warn};

/// How often each autoscaler's series get a sample without a change.
const INTERVAL: Duration = Duration::from_secs(30);
/// From one Event to the next of the same autoscaler and metric, at the least.
const EVENT_INTERVAL_MS: i64 = 600_000;
/// Most changes that wait to be written; more wait for the next interval.
const CHANGES_MAX: usize = 4_096;

type Series = (Labels, f64);

/// Remembers until `shutdown`.
pub(super) async fn remember(app: App, shutdown: impl Future<Output = ()>) {
    let Some(live) = app.live().cloned() else { return };
    let Some(mut answers) = live.answers.take_receiver() else { return };
    let (changes, mut changed) = channel(CHANGES_MAX);
    let following = live.autoscalers.follow(live.cluster.lister.clone(), |key, one| {
        let series = one.map_or_else(|| gone(key), |one| state(one, &app.settings.controller));
        leave(&changes, series);
    });
    let mut recorder = Notes::new(app.clone(), live.clone());
    let recording = async {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    let all = live.autoscalers.all();
                    append(&app, all.iter().flat_map(|(_, one)| state(one, &app.settings.controller)).collect()).await;
                }
                Some(series) = changed.recv() => append(&app, series).await,
                Some(answer) = answers.recv() => recorder.note(answer).await,
            }
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = following => {}
        () = recording => {}
    }
}

/// What is dropped here comes with the next interval.
fn leave(changes: &Sender<Vec<Series>>, series: Vec<Series>) {
    let _ = changes.try_send(series);
}

async fn append(app: &App, series: Vec<Series>) {
    if series.is_empty() {
        return;
    }
    let now_ms = app.clock.now_ms();
    let mut batch = WriteBatch::default();
    for (labels, value) in series {
        batch.push(labels, Some(now_ms), value);
    }
    if let Err(error) = app.store.append(&app.context(&Scope::All), batch, now_ms, OutOfOrder::Window).await {
        warn!(%error, "what autoscalers did can't be remembered at present");
    }
}

fn series(metric: &str, namespace: &str, name: &str, more: &[(&str, &str)], value: f64) -> Option<Series> {
    let identity = [(METRIC_NAME_LABEL, metric), ("namespace", namespace), ("horizontalpodautoscaler", name)];
    let labels = Labels::new(identity.iter().chain(more).copied().filter(|(_, value)| !value.is_empty()));
    Some((labels.ok()?, value))
}

/// Replicas and conditions, by the names that kube-state-metrics gives them.
const REPLICAS: [&str; 4] = [
    "kube_horizontalpodautoscaler_spec_min_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_status_desired_replicas",
];

fn state(one: &HorizontalPodAutoscaler, controller: &ControllerSettings) -> Vec<Series> {
    let namespace = one.metadata.namespace.as_deref().unwrap_or_default();
    let name = one.metadata.name.as_deref().unwrap_or_default();
    let put = |metric: &str, more: &[(&str, &str)], value| series(metric, namespace, name, more, value);
    let mut all = Vec::new();
    let (spec, status) = (one.spec.as_ref(), one.status.as_ref());
    let replicas = [
        spec.map(|spec| spec.min_replicas.unwrap_or(1)),
        spec.map(|spec| spec.max_replicas),
        status.and_then(|status| status.current_replicas),
        status.map(|status| status.desired_replicas),
    ];
    for (metric, value) in REPLICAS.into_iter().zip(replicas) {
        all.extend(value.and_then(|value| put(metric, &[], f64::from(value))));
    }
    #[expect(clippy::cast_precision_loss, reason = "times of this age")]
    let times = [
        ("kube_horizontalpodautoscaler_created", one.metadata.creation_timestamp.as_ref()),
        ("lookback_autoscaler_last_scale_seconds", status.and_then(|status| status.last_scale_time.as_ref())),
    ]
    .map(|(metric, time)| (metric, time.map(|time| time.0.as_second() as f64)));
    for (metric, seconds) in times {
        all.extend(seconds.and_then(|seconds| put(metric, &[], seconds)));
    }
    for target in targets(one) {
        let labels = [
            ("metric_name", target.metric.as_str()),
            ("metric_target_type", target.kind),
            ("metric_source", target.source),
            ("container", target.container.as_deref().unwrap_or_default()),
        ];
        all.extend(put("kube_horizontalpodautoscaler_spec_target_metric", &labels, target.value));
    }
    if let Some(spec) = spec {
        let target = &spec.scale_target_ref;
        let labels = [
            ("scaletargetref_api_version", target.api_version.as_deref().unwrap_or_default()),
            ("scaletargetref_kind", target.kind.as_str()),
            ("scaletargetref_name", target.name.as_str()),
        ];
        all.extend(put("kube_horizontalpodautoscaler_info", &labels, 1.0));
        let behavior = Behavior::of(spec, controller);
        if !behavior.is_default {
            of_rules(&mut all, Direction::Up, &behavior.up, &put);
            of_rules(&mut all, Direction::Down, &behavior.down, &put);
        }
    }
    for condition in status.and_then(|status| status.conditions.as_ref()).into_iter().flatten() {
        for possible in ["true", "false", "unknown"] {
            let labels = [("condition", condition.type_.as_str()), ("status", possible)];
            let holds = condition.status.eq_ignore_ascii_case(possible);
            let metric = "kube_horizontalpodautoscaler_status_condition";
            all.extend(put(metric, &labels, f64::from(u8::from(holds))));
        }
    }
    all
}

/// The behavior of one direction.
fn of_rules(
    all: &mut Vec<Series>,
    direction: Direction,
    rules: &Rules,
    put: &impl Fn(&str, &[(&str, &str)], f64) -> Option<Series>,
) {
    let direction = ("direction", direction.as_str());
    let window = f64::from(rules.stabilization_seconds);
    all.extend(put("lookback_autoscaler_behavior_stabilization_seconds", &[direction], window));
    all.extend(put("lookback_autoscaler_behavior_tolerance", &[direction], rules.tolerance));
    let select = [direction, ("select_policy", rules.select.as_str())];
    all.extend(put("lookback_autoscaler_behavior_select_policy", &select, 1.0));
    for policy in &rules.policies {
        let kind = if policy.is_percent { "Percent" } else { "Pods" };
        let period = policy.period_seconds.to_string();
        let labels = [direction, ("policy_type", kind), ("period_seconds", period.as_str())];
        all.extend(put("lookback_autoscaler_behavior_policy", &labels, f64::from(policy.value)));
    }
}

/// Ends the series of one that is gone.
fn gone((namespace, name): &(String, String)) -> Vec<Series> {
    let end = |metric| series(metric, namespace, name, &[], f64::from_bits(STALENESS_MARKER_BITS));
    REPLICAS.into_iter().filter_map(end).collect()
}

/// Notes answers.
struct Notes {
    app: App,
    live: Arc<Live>,
    events: Recorder,
    told_ms: HashMap<[String; 3], i64>,
}

impl Notes {
    fn new(app: App, live: Arc<Live>) -> Self {
        let reporter = Reporter { controller: "lookback".to_owned(), instance: None };
        let events = Recorder::new(live.cluster.lister.clone(), reporter);
        Self { app, live, events, told_ms: HashMap::new() }
    }

    async fn note(&mut self, answer: Answer) {
        let now_ms = self.app.clock.now_ms();
        let asking = self.live.autoscalers.asking(&answer.namespace, &answer.metric, &answer.object);
        append(&self.app, asking.iter().flat_map(|one| of_answer(one, &answer, now_ms)).collect()).await;
        for one in asking.iter().filter(|_| answer.items == 0) {
            self.tell(one, &answer, now_ms).await;
        }
    }

    async fn tell(&mut self, one: &HorizontalPodAutoscaler, answer: &Answer, now_ms: i64) {
        let name = one.metadata.name.clone().unwrap_or_default();
        let key = [answer.namespace.clone(), name.clone(), answer.metric.clone()];
        if !is_due(&mut self.told_ms, key, now_ms, EVENT_INTERVAL_MS) {
            return;
        }
        let why = answer.why.as_deref().unwrap_or("there is none");
        let note: String = format!("No value of the metric {} for {}: {why}", answer.metric, answer.object)
            .chars()
            .take(900)
            .collect();
        let event = Event {
            type_: EventType::Warning,
            reason: "NoMetricInLookback".to_owned(),
            note: Some(note),
            action: "AnswerMetric".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some("autoscaling/v2".to_owned()),
            kind: Some("HorizontalPodAutoscaler".to_owned()),
            name: Some(name),
            namespace: Some(answer.namespace.clone()),
            uid: one.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        if let Err(error) = self.events.publish(&event, &regarding).await {
            debug!(%error, "an Event can't be written");
        }
    }
}

fn of_answer(one: &HorizontalPodAutoscaler, answer: &Answer, now_ms: i64) -> Vec<Series> {
    let name = one.metadata.name.as_deref().unwrap_or_default();
    let labels = [
        ("answered_metric", answer.metric.as_str()),
        ("answered_object", answer.object.as_str()),
        ("answered_selector", answer.selector.as_str()),
    ];
    #[expect(clippy::cast_precision_loss, reason = "counts of objects, ages, millis")]
    let number = |number: i64| number as f64;
    let count = |count: usize| number(i64::try_from(count).unwrap_or(i64::MAX));
    let sum = (answer.items > 0).then_some(number(answer.sum_milli) / 1e3);
    let age = answer.oldest_ms.map(|oldest| number(now_ms.saturating_sub(oldest)) / 1e3);
    let counted = answer.counted.map(|counted| counted.summary);
    let requested = answer.counted.and_then(|counted| counted.requested);
    let values = [
        ("answer_sum", sum),
        ("answer_items", Some(count(answer.items))),
        ("answer_missing", answer.missing.map(count)),
        ("answer_age_seconds", age),
        ("counted_sum", counted.map(|counted| number(counted.sum_milli) / 1e3)),
        ("counted_items", counted.map(|counted| f64::from(counted.items))),
        ("counted_missing", counted.map(|counted| f64::from(counted.missing))),
        ("counted_pending", counted.map(|counted| f64::from(counted.pending))),
        ("requested_by_counted", requested.map(|requested| number(requested.counted) / 1e3)),
        ("requested_by_missing", requested.map(|requested| number(requested.missing) / 1e3)),
        ("requested_by_pending", requested.map(|requested| number(requested.pending) / 1e3)),
    ];
    let put = |(what, value): (&str, Option<f64>)| {
        series(&format!("lookback_autoscaler_{what}"), &answer.namespace, name, &labels, value?)
    };
    values.into_iter().filter_map(put).collect()
}
