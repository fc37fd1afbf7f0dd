//! Follows the pods of a cluster and keeps what targets they are; the pods themselves are not kept.

use super::config::TARGETS_MAX;
use super::settings::Target;
use crate::kubernetes::pod::Pod;
use futures::StreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

/// Pods in one page of a list.
const PAGE_PODS: u32 = 500;

/// How long changes are gathered before targets change.
const SETTLE: Duration = Duration::from_millis(500);

/// Watches pods for ever. `targets_of` says which targets a pod is; `tell` is told of all of them, once they are
/// listed or can't be, and when they change. A pod of which there is something wrong is none, and that is logged.
pub(super) async fn watch(
    pods: Api<Pod>,
    config: Config,
    targets_of: impl Fn(&Pod) -> Result<Vec<Target>, String>,
    tell: impl Fn(Vec<Target>),
) {
    let mut events = pin!(watcher(pods, config.page_size(PAGE_PODS)).default_backoff());
    let (mut known, mut listing) = (Known::default(), Known::default());
    let (mut changed, mut told, mut failing) = (false, false, false);
    loop {
        let event = match tokio::time::timeout(SETTLE, events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                if std::mem::take(&mut changed) {
                    tell(known.targets());
                    told = true;
                }
                continue;
            }
        };
        if let Err(error) = &event
            && !failing
        {
            tracing::warn!(%error, "pods can't be watched; what is known is scraped on");
        }
        failing = event.is_err();
        match event {
            Ok(Event::Init) => listing = Known::default(),
            Ok(Event::InitApply(pod)) => {
                let key = key(&pod);
                // What was wrong before is not logged again.
                if let Some(found) = known.by_pod.get(&key).filter(|found| found.problem.is_some()) {
                    listing.by_pod.insert(key, found.clone());
                }
                listing.apply(&pod, targets_of(&pod));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                changed |= !told || listed != known;
                known = listed;
            }
            Ok(Event::Apply(pod)) => changed |= known.apply(&pod, targets_of(&pod)),
            Ok(Event::Delete(pod)) => changed |= known.remove(&key(&pod)),
            Err(_) => changed |= !told,
        }
    }
}

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) fn key(pod: &Pod) -> Key {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    (name(&pod.metadata.namespace), name(&pod.metadata.name))
}

/// What a pod is.
#[derive(Clone, PartialEq)]
struct Found {
    targets: Vec<Target>,
    /// Why it is no target, where something is wrong.
    problem: Option<String>,
}

/// The targets of pods.
#[derive(Default, PartialEq)]
struct Known {
    by_pod: BTreeMap<Key, Found>,
    count: usize,
}

impl Known {
    fn targets(&self) -> Vec<Target> {
        self.by_pod.values().flat_map(|found| &found.targets).cloned().collect()
    }

    /// Takes what a pod is now. Answers whether there are other targets than before.
    fn apply(&mut self, pod: &Pod, found: Result<Vec<Target>, String>) -> bool {
        let key = key(pod);
        let before = self.by_pod.get(&key);
        let others = self.count - before.map_or(0, |found| found.targets.len());
        let full = || format!("there are more than {TARGETS_MAX} targets of pods: it is left out");
        let found = match found {
            Ok(targets) if others + targets.len() > TARGETS_MAX => Err(full()),
            found => found,
        };
        match found {
            Ok(targets) if targets.is_empty() => self.remove(&key),
            Ok(targets) => {
                let changed = before.is_none_or(|before| before.targets != targets);
                self.count = others + targets.len();
                self.by_pod.insert(key, Found { targets, problem: None });
                changed
            }
            Err(problem) => {
                if before.and_then(|before| before.problem.as_ref()) != Some(&problem) {
                    tracing::warn!(namespace = key.0, pod = key.1, "a pod can't be scraped: {problem}");
                }
                let changed = before.is_some_and(|before| !before.targets.is_empty());
                self.count = others;
                self.by_pod.insert(key, Found { targets: Vec::new(), problem: Some(problem) });
                changed
            }
        }
    }

    /// Lets go of a pod. Answers whether it was a target.
    fn remove(&mut self, key: &Key) -> bool {
        let Some(found) = self.by_pod.remove(key) else { return false };
        self.count -= found.targets.len();
        !found.targets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::scrape::config::parse;
    use serde_json::json;

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}})).expect("a pod")
    }

    fn targets(count: usize) -> Vec<Target> {
        let addresses: Vec<String> = (0..count).map(|i| format!("'t:{}'", i + 1)).collect();
        let addresses = addresses.join(", ");
        let text = format!("scrape_configs: [{{job_name: j, static_configs: [{{targets: [{addresses}]}}]}}]");
        parse(&text, true).expect("understood").targets
    }

    #[test]
    fn pods_come_change_and_go_within_the_bound() {
        let mut known = Known::default();
        assert!(known.apply(&pod("a"), Ok(targets(2))) && !known.apply(&pod("a"), Ok(targets(2))));
        assert!(!known.apply(&pod("b"), Ok(Vec::new())), "no target");
        assert!(!known.apply(&pod("b"), Ok(targets(TARGETS_MAX - 1))), "too many");
        assert!(
            known.by_pod[&key(&pod("b"))].problem.as_ref().is_some_and(|p| p.contains("more than 10000"))
        );
        assert!(known.apply(&pod("b"), Ok(targets(TARGETS_MAX - 2))));
        assert_eq!((known.targets().len(), known.count), (TARGETS_MAX, TARGETS_MAX));
        assert!(
            known.apply(&pod("a"), Err("wrong".to_owned()))
                && !known.apply(&pod("a"), Err("wrong".to_owned()))
        );
        assert!(!known.remove(&key(&pod("a"))) && known.remove(&key(&pod("b"))));
        assert!(known == Known::default());
    }
}
