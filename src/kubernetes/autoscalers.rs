//! The cluster's HorizontalPodAutoscalers, and what they were answered.
//!
//! [`Autoscalers`] keeps them as a watch tells them. [`Answers`] is where handlers leave what they
//! answered: a bounded queue, on which nobody waits; at the bound an answer is not noted, and counted.

use super::cluster::reasons;
use super::quantity::Quantity;
use super::replica_formula::{Requested, Summary};
use futures::StreamExt;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricTarget};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::warn;

/// Most autoscalers that are kept; more are left out.
const AUTOSCALERS_MAX: usize = 20_000;
/// Most answers that wait to be noted.
const ANSWERS_MAX: usize = 4_096;
/// From one noted answer to the next of the same question, at the least.
const ANSWER_INTERVAL_MS: i64 = 5_000;
/// Most questions that are told apart; past that all are forgotten, and noted anew.
const QUESTIONS_MAX: usize = 20_000;

/// One metric of an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where it comes from: `pods`, `object`, `external`, `resource` or `containerresource`.
    pub source: &'static str,
    /// Its name.
    pub metric: String,
    /// Of which container, where it is that of one.
    pub container: Option<String>,
    /// How it is meant: `average`, `value` or `utilization`.
    pub kind: &'static str,
    /// The target.
    pub value: f64,
}

/// The metrics of an autoscaler, those that can be read.
#[must_use]
pub fn targets(autoscaler: &HorizontalPodAutoscaler) -> Vec<Target> {
    let metrics = autoscaler.spec.as_ref().and_then(|spec| spec.metrics.as_ref());
    metrics.into_iter().flatten().filter_map(target).collect()
}

fn target(spec: &MetricSpec) -> Option<Target> {
    let container = spec.container_resource.as_ref().map(|source| source.container.clone());
    let (source, metric, target) = if let Some(pods) = &spec.pods {
        ("pods", &pods.metric.name, &pods.target)
    } else if let Some(object) = &spec.object {
        ("object", &object.metric.name, &object.target)
    } else if let Some(external) = &spec.external {
        ("external", &external.metric.name, &external.target)
    } else if let Some(resource) = &spec.resource {
        ("resource", &resource.name, &resource.target)
    } else {
        let container = spec.container_resource.as_ref()?;
        ("containerresource", &container.name, &container.target)
    };
    let (kind, value) = target_value(target)?;
    Some(Target { source, metric: metric.clone(), container, kind, value })
}

fn target_value(target: &MetricTarget) -> Option<(&'static str, f64)> {
    let value = |text: &str| Quantity::parse(text).ok()?.value().ok();
    if let Some(average) = &target.average_value {
        return Some(("average", value(&average.0)?));
    }
    if let Some(plain) = &target.value {
        return Some(("value", value(&plain.0)?));
    }
    Some(("utilization", f64::from(target.average_utilization?)))
}

type Key = (String, String);

/// The autoscalers, by namespace and name.
#[derive(Default)]
pub struct Autoscalers(Mutex<BTreeMap<Key, Arc<HorizontalPodAutoscaler>>>);

impl Autoscalers {
    /// All as of now.
    #[must_use]
    pub fn all(&self) -> Vec<(Key, Arc<HorizontalPodAutoscaler>)> {
        self.lock().iter().map(|(key, one)| (key.clone(), one.clone())).collect()
    }

    /// What autoscalers of a namespace go by of what pods use: the resource, and of which container (all: `None`).
    #[must_use]
    pub fn usage_targets(&self, namespace: &str) -> BTreeSet<(String, Option<String>)> {
        let from = (namespace.to_owned(), String::new());
        let all = self.lock();
        let within = all.range(from..).take_while(|((of, _), _)| of == namespace);
        let targets = within.flat_map(|(_, one)| targets(one));
        let of_usage = targets.filter(|target| target.source.ends_with("resource"));
        of_usage.map(|target| (target.metric, target.container)).collect()
    }

    /// Those of a namespace that go by a metric of what an [`Answer`] says in place of its object.
    #[must_use]
    pub fn asking(&self, namespace: &str, metric: &str, object: &str) -> Vec<Arc<HorizontalPodAutoscaler>> {
        let from = (namespace.to_owned(), String::new());
        let all = self.lock();
        let within = all.range(from..).take_while(|((of, _), _)| of == namespace);
        let asks = |one: &HorizontalPodAutoscaler| {
            let is_asked = |target: &Target| {
                let (source, container) = (target.source, target.container.as_deref());
                target.metric == metric && answers(object, source, container)
            };
            targets(one).iter().any(is_asked)
        };
        within.filter(|(_, one)| asks(one)).map(|(_, one)| one.clone()).collect()
    }

    /// Follows the cluster's; never ends. `changed` is told of each that changes, `None` where it is gone.
    pub async fn follow(&self, client: Client, changed: impl Fn(&Key, Option<&HorizontalPodAutoscaler>)) {
        let events = watcher(Api::<HorizontalPodAutoscaler>::all(client), Config::default());
        let mut events = std::pin::pin!(events.default_backoff());
        let (mut listed, mut is_failing) = (BTreeMap::new(), false);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = BTreeMap::new(),
                Ok(Event::InitApply(one)) if listed.len() < AUTOSCALERS_MAX => {
                    let (key, one) = kept(one);
                    changed(&key, Some(&one));
                    listed.insert(key, Arc::new(one));
                }
                Ok(Event::InitApply(_)) => {}
                Ok(Event::InitDone) => {
                    let before = std::mem::replace(&mut *self.lock(), std::mem::take(&mut listed));
                    let gone: Vec<Key> =
                        before.into_keys().filter(|key| !self.lock().contains_key(key)).collect();
                    gone.iter().for_each(|key| changed(key, None));
                }
                Ok(Event::Apply(one)) => {
                    let (key, one) = kept(one);
                    changed(&key, Some(&one));
                    let mut all = self.lock();
                    if all.len() < AUTOSCALERS_MAX || all.contains_key(&key) {
                        all.insert(key, Arc::new(one));
                    }
                }
                Ok(Event::Delete(one)) => {
                    let (key, _) = kept(one);
                    self.lock().remove(&key);
                    changed(&key, None);
                }
                Err(error) => {
                    if !is_failing {
                        warn!(error = %reasons(&error), "autoscalers can't be watched at present");
                    }
                    is_failing = true;
                    continue;
                }
            }
            is_failing = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<HorizontalPodAutoscaler>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without what only kube-apiserver needs.
fn kept(mut one: HorizontalPodAutoscaler) -> (Key, HorizontalPodAutoscaler) {
    one.metadata.managed_fields = None;
    one.metadata.annotations = None;
    let key =
        (one.metadata.namespace.clone().unwrap_or_default(), one.metadata.name.clone().unwrap_or_default());
    (key, one)
}

/// What an answer to a question for an external metric says in place of its object.
pub const EXTERNAL: &str = "external";

/// What an answer to a question for what pods use says in place of its object, of one container or all.
#[must_use]
pub fn usage_object(container: Option<&str>) -> String {
    let container = container.map(|name| format!(" container {name}")).unwrap_or_default();
    format!("{USAGE} pods/*{container}")
}

/// The API that tells what pods use.
const USAGE: &str = "metrics.k8s.io";

/// Whether an answer of this object is one for a metric of this source (and container).
#[must_use]
pub fn answers(object: &str, source: &str, container: Option<&str>) -> bool {
    match source {
        "external" => object == EXTERNAL,
        "resource" | "containerresource" => object == usage_object(container),
        "pods" => object == "pods/*",
        _ => object != EXTERNAL && object != "pods/*" && !object.starts_with(USAGE),
    }
}

/// One answer to a question for a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The namespace that was asked about.
    pub namespace: String,
    /// Of what: `pods/*`, `services/web`, [`EXTERNAL`], or as [`usage_object`] says.
    pub object: String,
    /// Which metric.
    pub metric: String,
    /// The selectors, as asked.
    pub selector: String,
    /// The sum of the values in millis, each rounded as the autoscaler does.
    pub sum_milli: i64,
    /// How many values there are.
    pub items: usize,
    /// How many objects are selected and have no value; `None`: not known.
    pub missing: Option<usize>,
    /// The time of the oldest sample in it, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Why it is empty.
    pub why: Option<String>,
    /// Of pods: how the autoscaler takes it; `None`: it is not known how these pods are.
    pub counted: Option<Counted>,
}

/// An answer about pods, as the autoscaler's formula takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The values that count, and the pods without one.
    pub summary: Summary,
    /// What these pods request; `None`: that is not asked, or one of them says nothing.
    pub requested: Option<Requested>,
}

/// Answers on their way to be noted.
pub struct Answers {
    sender: Sender<Answer>,
    receiver: Mutex<Option<Receiver<Answer>>>,
    dropped: Counter,
    /// When each question was noted last, by its hash: what is not due costs the one who answers next to nothing.
    noted_ms: Mutex<HashMap<u64, i64>>,
    hasher: RandomState,
}

impl Answers {
    /// None yet; `dropped` counts those that are dropped.
    #[must_use]
    pub fn counting(dropped: Counter) -> Self {
        let (sender, receiver) = channel(ANSWERS_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            dropped,
            noted_ms: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Whether the answer to a question is to be noted: the last was a while ago. Then this one counts as noted.
    #[must_use]
    pub fn is_due(&self, question: &Answer, now_ms: i64) -> bool {
        let Answer { namespace, object, metric, selector, .. } = question;
        let question = self.hasher.hash_one((namespace, object, metric, selector));
        let mut noted_ms = self.noted_ms.lock().unwrap_or_else(PoisonError::into_inner);
        is_due(&mut noted_ms, question, now_ms, ANSWER_INTERVAL_MS)
    }

    /// Leaves an answer to be noted. Never waits: where too many wait already it is dropped, and counted.
    pub fn leave(&self, answer: Answer) {
        if self.sender.try_send(answer).is_err() {
            self.dropped.inc();
        }
    }

    /// The other end; `None` where it has been taken before.
    pub fn take_receiver(&self) -> Option<Receiver<Answer>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether the last time was a while ago; then it is now. Past a bound all times are forgotten.
pub fn is_due<K: Hash + Eq>(at_ms: &mut HashMap<K, i64>, key: K, now_ms: i64, interval_ms: i64) -> bool {
    if at_ms.len() >= QUESTIONS_MAX {
        at_ms.clear();
    }
    let last = at_ms.entry(key).or_insert(i64::MIN);
    let is_due = now_ms.saturating_sub(*last) >= interval_ms;
    if is_due {
        *last = now_ms;
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_target_is_read() {
        let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({"spec": {
            "maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1500m"}}},
                {"type": "Object", "object": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "2k"},
                    "describedObject": {"kind": "Service", "name": "web"}}},
                {"type": "External", "external": {"metric": {"name": "jobs"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                {"type": "Pods", "pods": {"metric": {"name": "bad"}, "target": {"type": "AverageValue", "averageValue": "x"}}},
            ]}})).expect("an autoscaler");
        let read: Vec<_> =
            targets(&autoscaler).into_iter().map(|t| (t.source, t.metric, t.kind, t.value)).collect();
        let row = |source, metric: &str, kind, value| (source, metric.to_owned(), kind, value);
        assert_eq!(
            read,
            [
                row("pods", "rps", "average", 1.5),
                row("object", "queue", "value", 2000.0),
                row("external", "jobs", "average", 3.0),
                row("resource", "cpu", "utilization", 60.0),
            ]
        );
    }

    #[test]
    fn a_question_is_noted_at_intervals() {
        let answers = Answers::counting(Counter::default());
        let asked = |metric: &str| Answer { metric: metric.to_owned(), ..Answer::default() };
        let due = [("a", 0), ("a", 4_999), ("b", 4_999), ("a", 5_000), ("a", 9_000)]
            .map(|(metric, at_ms)| answers.is_due(&asked(metric), at_ms));
        assert_eq!(due, [true, false, true, true, false]);
    }

    #[test]
    fn answers_beyond_the_bound_are_dropped_and_counted() {
        let dropped = Counter::default();
        let answers = Answers::counting(dropped.clone());
        let answer = Answer::default();
        (0..ANSWERS_MAX + 3).for_each(|_| answers.leave(answer.clone()));
        assert_eq!(dropped.get(), 3);
        assert!(answers.take_receiver().is_some() && answers.take_receiver().is_none());
    }
}
