//! What there is, in series, and what of it is still to be written.

use super::facts::{Facts, Shared};
use super::{Change, Metadata, Said};
use crate::kubernetes::pod::Pod;
use crate::kubernetes::pod_states::PodStates;
use crate::kubernetes::scaled_pods::{ScaledPod, kept_label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lookback_storage::Labels;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Most objects of all watches; more are left out, so that memory is bounded.
const OBJECTS_MAX: usize = 200_000;

/// Most series that wait for their end to be written; others are ended by their age.
const ENDED_MAX: usize = 200_000;

/// Most labels of a pod that are taken.
const POD_LABELS_MAX: usize = 64;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watched {
    Pods,
    ReplicaSets,
    Jobs,
}

/// What there is, by object.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    objects: BTreeMap<(Watched, String), Facts>,
    shared: Shared,
    /// What a list that is being read has named so far.
    listing: BTreeMap<Watched, BTreeSet<String>>,
    fresh: HashSet<Labels>,
    ended: HashSet<Labels>,
    pods: Arc<PodStates>,
}

impl Recorded {
    /// Nothing yet. How pods are is told to `pods`.
    pub(super) fn telling(pods: Arc<PodStates>) -> Self {
        Self { pods, ..Self::default() }
    }

    /// Notes what a watch says.
    pub(super) fn take(&mut self, change: Change) {
        match change {
            Change::Relisting(watched) => {
                self.listing.insert(watched, BTreeSet::new());
            }
            Change::Relisted(watched) => {
                let listed = self.listing.remove(&watched).unwrap_or_default();
                let known = self.objects.range((watched, String::new())..);
                let gone: Vec<String> = known
                    .take_while(|((of, _), _)| *of == watched)
                    .filter(|((_, key), _)| !listed.contains(key))
                    .map(|((_, key), _)| key.clone())
                    .collect();
                for key in gone {
                    self.put(watched, key, Said::default());
                }
                if watched == Watched::Pods {
                    self.pods.listed();
                }
            }
            Change::Applied(watched, key, said) => {
                if let Some(listing) = self.listing.get_mut(&watched) {
                    listing.insert(key.clone());
                }
                self.put(watched, key, said);
            }
            Change::Gone(watched, key) => self.put(watched, key, Said::default()),
        }
    }

    fn put(&mut self, watched: Watched, key: String, Said { facts, pod }: Said) {
        if let (Watched::Pods, Some((namespace, name))) = (watched, key.split_once('/')) {
            match pod.filter(|_| self.objects.len() < OBJECTS_MAX) {
                Some(pod) => self.pods.put(namespace, pod),
                None => self.pods.remove(namespace, name),
            }
        }
        let of_object = (watched, key);
        if !facts.is_empty() && self.objects.get(&of_object) == Some(&facts) {
            return;
        }
        let before = self.objects.remove(&of_object).unwrap_or_default();
        let (was, is): (Vec<Labels>, Vec<Labels>) = (before.series().collect(), facts.series().collect());
        self.shared.release(before);
        for labels in was.iter().filter(|labels| !is.contains(labels)) {
            self.fresh.remove(labels);
            if self.ended.len() < ENDED_MAX {
                self.ended.insert(labels.clone());
            }
        }
        if is.is_empty() || self.objects.len() >= OBJECTS_MAX {
            return;
        }
        for labels in is.into_iter().filter(|labels| !was.contains(labels)) {
            self.ended.remove(&labels);
            self.fresh.insert(labels);
        }
        let facts = self.shared.share(facts);
        self.objects.insert(of_object, facts);
    }

    /// All series that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = Labels> {
        self.objects.values().flat_map(Facts::series)
    }

    /// Series that are there since the last call, and series that have ended. They count as written.
    pub(super) fn take_unwritten(&mut self) -> (HashSet<Labels>, HashSet<Labels>) {
        (std::mem::take(&mut self.fresh), std::mem::take(&mut self.ended))
    }

    /// These could not be written: the next write has them again.
    pub(super) fn not_written(&mut self, fresh: HashSet<Labels>, ended: HashSet<Labels>) {
        self.fresh.extend(fresh);
        self.ended.extend(ended);
    }
}

/// What a pod says.
pub(super) fn of_pod(pod: &Pod) -> Said {
    Said { facts: facts_of_pod(pod), pod: Some(ScaledPod::of(pod)) }
}

fn facts_of_pod(pod: &Pod) -> Facts {
    let meta = &pod.metadata;
    let mut facts = Facts::of([("pod", &meta.name), ("uid", &meta.uid)]);
    add_owner("kube_pod_owner", meta, &mut facts);
    if let Some(phase) = pod.status.as_ref().and_then(|status| status.phase.clone()) {
        facts.add("kube_pod_status_phase", meta, [("phase".to_owned(), phase)]);
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") {
        let condition = [("condition".to_owned(), ready.status.to_lowercase())];
        facts.add("kube_pod_status_ready", meta, condition);
    }
    if meta.deletion_timestamp.is_some() {
        facts.add("lookback_pod_terminating", meta, []);
    }
    // Two labels can come to the same name: one of them stands.
    let own: BTreeMap<String, String> =
        meta.labels.iter().flatten().take(POD_LABELS_MAX).map(label).collect();
    facts.add("kube_pod_labels", meta, own);
    facts
}

/// What a ReplicaSet says.
pub(super) fn of_replica_set(object: &Metadata) -> Said {
    of_owner("kube_replicaset_owner", "replicaset", object)
}

/// What a Job says.
pub(super) fn of_job(object: &Metadata) -> Said {
    of_owner("kube_job_owner", "job_name", object)
}

fn of_owner(name: &str, label: &'static str, object: &Metadata) -> Said {
    let meta = &object.metadata;
    let mut facts = Facts::of([(label, &meta.name)]);
    add_owner(name, meta, &mut facts);
    Said { facts, pod: None }
}

/// Adds the series that says who controls an object; none where nothing does.
fn add_owner(name: &str, meta: &ObjectMeta, facts: &mut Facts) {
    let owners = || meta.owner_references.iter().flatten();
    let controller = owners().find(|owner| owner.controller == Some(true)).or_else(|| owners().next());
    if let Some(controller) = controller {
        let more = [
            ("owner_kind".to_owned(), controller.kind.clone()),
            ("owner_name".to_owned(), controller.name.clone()),
            ("owner_is_controller".to_owned(), controller.controller.unwrap_or(false).to_string()),
        ];
        facts.add(name, meta, more);
    }
}

/// A label of a pod, named as kube-state-metrics does.
fn label((name, value): (&String, &String)) -> (String, String) {
    (kept_label(name), value.clone())
}
