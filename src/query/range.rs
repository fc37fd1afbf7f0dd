//! The usage history of a workload: the question that OptiPod asks.
//!
//! # What is answered
//!
//! A question names a workload, a namespace, a metric and a time range; see [`RangeQuestion`]. The
//! answer has one series for each pod and container, resampled as [`lookback_storage::resample`] says.
//!
//! 1. The metric is looked up in [`Settings::usage_sources`]: `cpu` and `memory` are ordered lists of
//!    series names. A metric that is not there is itself the name of a stored series.
//! 2. The workload's pods are those that it owned at any time within the range (`ownership`), and
//!    those of series that carry the label `workload="W"`. Where neither has a point in the range, and
//!    for pods whose owner was never noted, the name of the pod decides ([`selection`]). `infos` tells
//!    which applied. Workloads of one name and different kinds are answered side by side, each series
//!    with its `kind`, unless the question names one.
//! 3. For each pod and container the first source that has points wins. Several stored series of one
//!    pod and container (one a CPU, say) are summed point by point.
//! 4. The container `POD`, the sandbox, is left out unless it is asked for by name. A series without a
//!    container (pushed for a whole pod, or the pod's cgroup) counts only where its pod has no series
//!    with one, so that nothing is counted twice.
//! 5. A point that is not finite is left out, and so is a series without points.
//!
//! invariant: an answer carries no NaN and no infinity: OptiPod takes them for a usage.

mod made_of;
mod ownership;
mod pods;
mod question;
pub mod selection;

pub(in crate::query) use question::Given;
pub use question::{Merge, PARAMETERS, RangeQuestion};

use crate::app::{Settings, UsageSource};
use crate::similar::similar;
use crate::store::{Context, LabelsRequest, RangeRead, RangeRequest, Store, StoreError};
use crate::text::start_of;
use lookback_storage::{METRIC_NAME_LABEL, Matcher, RangeUse, Sample};
use ownership::Owners;
use pods::Pods;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The history of a workload's pods.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAnswer {
    /// One a pod and container, in the order of pods, then containers.
    pub series: Vec<PodSeries>,
    /// How the series were found, for people.
    pub infos: Vec<String>,
}

/// The history of one container of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeries {
    /// The pod's name; empty: the series belongs to the workload as a whole. `None`: all pods, merged.
    pub pod: Option<String>,
    /// The container's name; empty: the series belongs to the pod as a whole.
    pub container: String,
    /// The kind of its workload, where workloads of several kinds are answered.
    pub kind: Option<String>,
    /// Its points in time order: at least one, all finite.
    pub samples: Vec<Sample>,
}

/// Why a question was not answered.
#[derive(Debug, Error)]
pub enum RangeError {
    /// A parameter is missing, unknown, given twice or wrong.
    #[error("parameter {name:?}: {problem}")]
    Parameter {
        /// Which one.
        name: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// No usage metric and no series has this name.
    #[error("metric {metric:?} is unknown: it is none of {known}, and no series has this name{hint}")]
    UnknownMetric {
        /// The name that was asked for.
        metric: String,
        /// The usage metrics, for the message.
        known: String,
        /// Names like it, for the message.
        hint: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RangeError {
    pub(in crate::query) fn parameter(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Parameter { name: name.into(), problem: problem.into() }
    }
}

/// Answers `question` from `store`.
///
/// # Errors
/// When the metric is unknown, or the store fails or would read too much.
pub async fn answer(
    store: &dyn Store,
    context: &Context,
    settings: &Settings,
    question: &RangeQuestion,
) -> Result<RangeAnswer, RangeError> {
    let asking = Asking { store, context, settings, question, used: Mutex::default() };
    let mut answer = asking.find().await?;
    if answer.series.is_empty() {
        asking.refuse_unknown_metric().await?;
        answer.infos.push(asking.nothing_found());
    } else if let Some(merge) = question.merge {
        answer.series = pods::merged(answer.series, merge);
    }
    answer.infos.extend(made_of::infos(&asking.used(), question));
    Ok(answer)
}

struct Asking<'a> {
    store: &'a dyn Store,
    context: &'a Context,
    settings: &'a Settings,
    question: &'a RangeQuestion,
    /// What the answer is made of.
    used: Mutex<RangeUse>,
}

impl Asking<'_> {
    fn used(&self) -> MutexGuard<'_, RangeUse> {
        // Whoever panicked with it has left what was joined so far.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> Vec<UsageSource> {
        let itself = || vec![UsageSource { series: self.question.metric.clone(), counter: false }];
        self.settings.usage_sources.get(&self.question.metric).cloned().unwrap_or_else(itself)
    }

    /// The series of the workload's pods.
    async fn find(&self) -> Result<RangeAnswer, RangeError> {
        let RangeQuestion { workload, kind, .. } = self.question;
        let owners = self.owners();
        let mut by_kind = owners.pods_by_kind(workload).await?;
        let mut infos = Vec::new();
        if let Some(kind) = kind {
            by_kind.retain(|known, _| known.eq_ignore_ascii_case(kind));
            if by_kind.is_empty() {
                infos.push(format!(
                    "nothing in kube_pod_owner and kube_replicaset_owner says that a {} of this name had pods in this \
                     range: the kind was not considered",
                    start_of(kind)
                ));
            }
        }
        let mut owned: Vec<(String, Pods)> = Vec::new();
        for (kind, names) in &by_kind {
            let pods = self.pods(&[Matcher::one_of("pod", names.iter().map(String::as_str))]).await?;
            if !pods.is_empty() {
                infos.push(format!("{kind} {workload:?} had {} pods by their owners", names.len()));
                owned.push((kind.clone(), pods));
            }
        }
        if owned.len() > 1 {
            infos.push("several kinds have this name: give kind= to have one".to_owned());
            let series = owned.into_iter().flat_map(|(kind, pods)| pods.into_series(Some(&kind))).collect();
            return Ok(RangeAnswer { series, infos });
        }
        let mut found = owned.pop().map(|(_, pods)| pods).unwrap_or_default();
        let owned_pods = || by_kind.values().flatten().map(String::as_str);
        // The owner's word on a pod stands before the label's.
        let labelled = [selection::by_label(workload), vec![Matcher::none_of("pod", owned_pods())]].concat();
        let labelled = self.pods(&labelled).await?;
        if !labelled.is_empty() {
            infos.push(format!("selected by the label workload={workload:?}"));
            found = found.or_else_pods(labelled);
        }
        // Where the label is in use, a pod without it belongs to something else; and a name has no kind.
        let names_decide = if by_kind.is_empty() { found.is_empty() } else { kind.is_none() };
        if names_decide {
            let named = self.pods_of_unknown_owner(&owners, owned_pods().collect()).await?;
            if !named.is_empty() {
                infos.push(format!(
                    "selected by pod names such as {}: no owner of these is known, and no series has the label \
                     workload={workload:?}",
                    selection::pod_name_examples(workload)
                ));
                found = found.or_else_pods(named);
            }
        }
        Ok(RangeAnswer { series: found.into_series(None), infos })
    }

    /// The series of pods that have the workload's name and of which nothing says whose they are.
    async fn pods_of_unknown_owner(
        &self,
        owners: &Owners<'_>,
        owned: HashSet<&str>,
    ) -> Result<Pods, RangeError> {
        let by_name = selection::by_pod_name(&self.question.workload)?;
        let in_namespace = vec![Matcher::equal("namespace", &self.question.namespace)];
        let request = LabelsRequest {
            name: Some("pod".to_owned()),
            matchers: [in_namespace, by_name.clone()].concat(),
        };
        let mut names = self.store.labels(self.context, request).await?;
        names.retain(|name| !owned.contains(name.as_str()));
        if names.is_empty() {
            return Ok(Pods::default());
        }
        let known = owners.known_pods().await?;
        names.retain(|name| !known.contains(name));
        let one_of = vec![Matcher::one_of("pod", names.iter().map(String::as_str))];
        self.pods(&[by_name, one_of].concat()).await
    }

    fn owners(&self) -> Owners<'_> {
        let RangeQuestion { namespace, start_ms, end_ms, .. } = self.question;
        Owners {
            store: self.store,
            context: self.context,
            namespace,
            start_ms: *start_ms,
            end_ms: *end_ms,
            samples_max: self.settings.samples_max,
        }
    }

    /// Asks all sources at once, so that together they take no longer than one call may.
    async fn pods(&self, selection: &[Matcher]) -> Result<Pods, RangeError> {
        let answers = futures::future::try_join_all(
            self.sources().into_iter().map(|source| self.ask_source(source, selection)),
        )
        .await?;
        let mut used = self.used();
        answers.iter().for_each(|read| used.join(&read.used));
        Ok(answers.into_iter().fold(Pods::default(), |pods, read| pods.or_else(read.series)))
    }

    async fn ask_source(&self, source: UsageSource, selection: &[Matcher]) -> Result<RangeRead, StoreError> {
        let question = self.question;
        let mut matchers = vec![
            Matcher::equal(METRIC_NAME_LABEL, source.series),
            Matcher::equal("namespace", &question.namespace),
            match &question.container {
                Some(container) => Matcher::equal("container", container),
                None => Matcher::not_equal("container", "POD"),
            },
        ];
        matchers.extend_from_slice(selection);
        let request = RangeRequest {
            matchers,
            start_ms: question.start_ms,
            end_ms: question.end_ms,
            step_ms: question.step_ms,
            aggregation: question.aggregation,
            counter: source.counter,
            samples_max: self.settings.samples_max,
        };
        self.store.range(self.context, request).await
    }

    /// A metric that nobody ever wrote is more likely a mistake than an idle workload.
    async fn refuse_unknown_metric(&self) -> Result<(), RangeError> {
        let metric = &self.question.metric;
        if self.settings.usage_sources.contains_key(metric)
            || !self.metric_names(Matcher::equal(METRIC_NAME_LABEL, metric)).await?.is_empty()
        {
            return Ok(());
        }
        let written = self.metric_names(Matcher::equal("namespace", &self.question.namespace)).await?;
        let known = self.settings.usage_sources.keys().map(String::as_str);
        let names = similar(metric, known.clone().chain(written.iter().map(String::as_str)));
        Err(RangeError::UnknownMetric {
            metric: start_of(metric),
            known: known.collect::<Vec<_>>().join(", "),
            hint: if names.is_empty() {
                String::new()
            } else {
                format!("; did you mean {}?", names.join(" or "))
            },
        })
    }

    async fn metric_names(&self, matcher: Matcher) -> Result<Vec<String>, StoreError> {
        let request = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers: vec![matcher] };
        self.store.labels(self.context, request).await
    }

    fn nothing_found(&self) -> String {
        let RangeQuestion { workload, namespace, container, .. } = self.question;
        let sources: Vec<String> = self.sources().into_iter().map(|source| source.series).collect();
        let container = container.as_ref().map(|c| format!(" and container={c:?}")).unwrap_or_default();
        format!(
            "no series matched: none of {} in namespace {namespace:?}{container} has points in this range for \
             pods that workload {workload:?} owned, with the label workload={workload:?} or with pod names such as {}",
            sources.join(", "),
            selection::pod_name_examples(workload)
        )
    }
}

#[cfg(test)]
mod tests;
