//! The cluster's pods, as far as an autoscaler's formula goes by them, in little memory: what pods of one workload
//! request is kept once.
//!
//! It is told what a watch of whole pods says (see [`crate::sources::ownership`]), and knows nothing until that has been
//! told of all of them.

use super::scaled_pods::{Requests, ScaledPod};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

/// A pod that is found by its name.
#[derive(Debug)]
struct Named(ScaledPod);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.as_str().hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

#[derive(Debug, Default)]
struct Pods {
    by_namespace: HashMap<Box<str>, HashSet<Named>>,
    requests: HashSet<Arc<Requests>>,
    are_listed: bool,
}

/// What is known of them.
#[derive(Debug, Default)]
pub struct PodStates(RwLock<Pods>);

impl PodStates {
    /// Adds a pod, or changes it.
    pub fn put(&self, namespace: &str, mut pod: ScaledPod) {
        let mut pods = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pod.requests = pods.shared(pod.requests);
        if !pods.by_namespace.contains_key(namespace) {
            pods.by_namespace.insert(namespace.into(), HashSet::new());
        }
        let Some(named) = pods.by_namespace.get_mut(namespace) else { return };
        if let Some(former) = named.replace(Named(pod)) {
            pods.release(former.0.requests);
        }
    }

    /// Takes a pod away.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut pods = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(named) = pods.by_namespace.get_mut(namespace) else { return };
        let Some(former) = named.take(name) else { return };
        if named.is_empty() {
            pods.by_namespace.remove(namespace);
        }
        pods.release(former.0.requests);
    }

    /// Says that all pods that there are have been put.
    pub fn listed(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).are_listed = true;
    }

    /// Those of these names in a namespace; `None`: it is not known yet which pods there are. Names that nothing is
    /// known of are left out: pods that have just come.
    #[must_use]
    pub fn of(&self, namespace: &str, names: &[String]) -> Option<Vec<ScaledPod>> {
        let pods = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if !pods.are_listed {
            return None;
        }
        let named = pods.by_namespace.get(namespace);
        let pod = |name: &String| Some(named?.get(name.as_str())?.0.clone());
        Some(names.iter().filter_map(pod).collect())
    }
}

impl Pods {
    fn shared(&mut self, requests: Arc<Requests>) -> Arc<Requests> {
        if let Some(same) = self.requests.get(&requests) {
            return same.clone();
        }
        self.requests.insert(requests.clone());
        requests
    }

    /// Forgets what no other pod requests: then only `requests` and this one hold it.
    fn release(&mut self, requests: Arc<Requests>) {
        if Arc::strong_count(&requests) <= 2 {
            self.requests.remove(&requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::scaled_pods::Phase;
    use std::collections::BTreeMap;

    fn pod(name: &str, phase: Phase, cpu: i64) -> ScaledPod {
        let containers = vec![("app".to_owned(), BTreeMap::from([("cpu".to_owned(), cpu)]))];
        let requests = Arc::new(Requests { containers, pod: None });
        ScaledPod { name: name.to_owned(), phase, requests, ..ScaledPod::default() }
    }

    #[test]
    fn pods_are_what_was_said_of_them_last() {
        let states = PodStates::default();
        let names = ["a", "b", "c"].map(str::to_owned);
        states.put("shop", pod("a", Phase::Pending, 100));
        states.put("other", pod("b", Phase::Running, 100));
        assert_eq!(states.of("shop", &names), None, "not all are known yet");
        states.listed();
        states.put("shop", pod("a", Phase::Running, 200));
        states.put("shop", pod("c", Phase::Running, 200));
        let found = states.of("shop", &names).expect("known");
        assert_eq!(found, [pod("a", Phase::Running, 200), pod("c", Phase::Running, 200)]);
        assert!(Arc::ptr_eq(&found[0].requests, &found[1].requests), "they request the same");
        drop(found);
        states.remove("shop", "a");
        states.remove("shop", "a");
        assert_eq!(states.of("shop", &names).map(|found| found.len()), Some(1));
        states.remove("shop", "c");
        assert_eq!(states.of("shop", &names), Some(Vec::new()));
        assert_eq!(states.0.read().expect("unlocked").requests.len(), 1, "nobody requests 200m any more");
    }

    /// Beside their labels, which [`crate::kubernetes::object_index`] keeps: together less than a kilobyte.
    #[test]
    fn fifty_thousand_pods_take_less_than_three_hundred_bytes_each() {
        let states = PodStates::default();
        for i in 0..50_000 {
            let name = format!("web-frontend-{}-7d4b9c6f5-{i:05}", i / 20);
            states.put("shop", pod(&name, Phase::Running, i / 20));
        }
        let pods = states.0.read().expect("unlocked");
        let (named, requests) = (&pods.by_namespace["shop"], &pods.requests);
        const ALLOCATION: usize = 16;
        let texts: usize = named.iter().map(|one| one.0.name.capacity() + ALLOCATION).sum();
        let tables = named.capacity() * (std::mem::size_of::<Named>() + 1) + requests.capacity() * 9;
        // A set of requests: its counts and list, a container and its name, a node of its map.
        let each = 64 + 64 + 2 * ALLOCATION + std::mem::size_of::<(String, i64)>() * 11 + 16;
        let bytes = texts + tables + requests.len() * each;
        assert_eq!((named.len(), requests.len()), (50_000, 2_500));
        assert!(bytes < 50_000 * 300, "{} bytes a pod", bytes / 50_000);
    }
}
