//! Which pods a workload had, from ordinary series with kube-state-metrics' names.
//!
//! | series | says |
//! |---|---|
//! | `kube_pod_owner{namespace,pod,owner_kind,owner_name}` | who controls a pod |
//! | `kube_replicaset_owner{namespace,replicaset,owner_kind,owner_name}` | who controls a ReplicaSet |
//! | `kube_job_owner{namespace,job_name,owner_kind,owner_name}` | who controls a Job |
//!
//! Lookback writes them itself where it is connected to a cluster; kube-state-metrics' own serve as well.
//! They are history like any other, so pods that a rollout has replaced are still known. A series counts
//! where it has a sample within the range, or up to [`LOOKBACK_MS`] before it.

use crate::store::{Context, LabelsRequest, RangeRequest, Store, StoreError};
use lookback_storage::{Aggregation, Labels, METRIC_NAME_LABEL, Matcher};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// How far before a range a sample still says who owned what when it began.
pub(in crate::query) const LOOKBACK_MS: i64 = 5 * 60 * 1_000;

/// What controls pods by way of others: the series that says so, and the label with its name there.
const INTERMEDIATES: [(&str, &str, &str); 2] =
    [("ReplicaSet", "kube_replicaset_owner", "replicaset"), ("Job", "kube_job_owner", "job_name")];

/// When and where owners are looked for.
pub(in crate::query) struct Owners<'a> {
    pub(in crate::query) store: &'a dyn Store,
    pub(in crate::query) context: &'a Context,
    pub(in crate::query) namespace: &'a str,
    pub(in crate::query) start_ms: i64,
    pub(in crate::query) end_ms: i64,
    pub(in crate::query) samples_max: usize,
}

impl Owners<'_> {
    /// The pods of each workload of this name, by its kind.
    pub(in crate::query) async fn pods_by_kind(
        &self,
        workload: &str,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
        let mut by_kind: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let of_workload = Matcher::equal("owner_name", workload);
        for labels in self.seen("kube_pod_owner", vec![of_workload.clone()]).await? {
            if let (Some(kind), Some(pod)) = (labels.get("owner_kind"), labels.get("pod")) {
                by_kind.entry(kind.to_owned()).or_default().insert(pod.to_owned());
            }
        }
        for (between, series, name_label) in INTERMEDIATES {
            let mut kind_of: BTreeMap<String, String> = BTreeMap::new();
            for labels in self.seen(series, vec![of_workload.clone()]).await? {
                if let (Some(kind), Some(name)) = (labels.get("owner_kind"), labels.get(name_label)) {
                    kind_of.insert(name.to_owned(), kind.to_owned());
                }
            }
            if kind_of.is_empty() {
                continue;
            }
            let one_of = Matcher::one_of("owner_name", kind_of.keys().map(String::as_str));
            for labels in
                self.seen("kube_pod_owner", vec![Matcher::equal("owner_kind", between), one_of]).await?
            {
                let kind = labels.get("owner_name").and_then(|owner| kind_of.get(owner));
                if let (Some(kind), Some(pod)) = (kind, labels.get("pod")) {
                    by_kind.entry(kind.clone()).or_default().insert(pod.to_owned());
                }
            }
        }
        Ok(by_kind)
    }

    /// Every pod of the namespace whose owner is or was known.
    pub(in crate::query) async fn known_pods(&self) -> Result<HashSet<String>, StoreError> {
        let matchers = vec![
            Matcher::equal(METRIC_NAME_LABEL, "kube_pod_owner"),
            Matcher::equal("namespace", self.namespace),
        ];
        let request = LabelsRequest { name: Some("pod".to_owned()), matchers };
        Ok(self.store.labels(self.context, request).await?.into_iter().collect())
    }

    /// The series of this name with a sample in the range.
    async fn seen(&self, name: &str, more: Vec<Matcher>) -> Result<Vec<std::sync::Arc<Labels>>, StoreError> {
        let mut matchers =
            vec![Matcher::equal(METRIC_NAME_LABEL, name), Matcher::equal("namespace", self.namespace)];
        matchers.extend(more);
        // One point at the end, whose window is the whole range.
        let request = RangeRequest {
            matchers,
            start_ms: self.end_ms,
            end_ms: self.end_ms,
            step_ms: self.end_ms.saturating_sub(self.start_ms).saturating_add(LOOKBACK_MS),
            aggregation: Aggregation::Last,
            counter: false,
            samples_max: self.samples_max,
            points_max: usize::MAX,
        };
        Ok(self
            .store
            .range(self.context, request)
            .await?
            .series
            .into_iter()
            .map(|series| series.labels)
            .collect())
    }
}
