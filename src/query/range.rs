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
//! An answer of more than [`Settings::range_points_held_max`] points is read and sent pods by pods ([`LargeAnswer`]), with
//! the same result.
//!
//! invariant: an answer carries no NaN and no infinity: OptiPod takes them for a usage.

mod large;
mod made_of;
mod ownership;
mod pods;
mod question;
pub mod selection;

pub use large::LargeAnswer;
pub(in crate::query) use question::Given;
pub use question::{Merge, PARAMETERS, RangeQuestion};

use crate::app::{Settings, UsageSource};
use crate::similar::similar;
use crate::store::{Context, LabelsRequest, RangeRead, RangeRequest, Store, StoreError};
use crate::text::start_of;
use lookback_storage::{METRIC_NAME_LABEL, Matcher, RangeUse, Sample};
pub(in crate::query) use ownership::Owners;
use pods::{Merging, Pods};
use std::collections::{BTreeMap, BTreeSet, HashSet};
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

/// Where a question is put, on whose behalf, and by which choices.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What is asked.
    pub question: &'a RangeQuestion,
    /// Has the samples.
    pub store: &'a dyn Store,
    /// On whose behalf, and how long each call of the store may take.
    pub context: &'a Context,
    /// Which series answer which metric, and bounds.
    pub settings: &'a Settings,
}

/// An answer, or the way to it.
#[derive(Debug)]
pub enum Answering {
    /// All of it.
    Whole(RangeAnswer),
    /// It is too large to be held.
    Large(LargeAnswer),
}

/// Answers a question, however large the answer is.
///
/// # Errors
/// When the metric is unknown, or the store fails or would read too much.
pub async fn answer(asked: Asked<'_>) -> Result<RangeAnswer, RangeError> {
    Asking::of(asked).answer(usize::MAX).await
}

/// Answers a question where the answer can be held; else finds out how it is read part by part. What is
/// merged can always be held.
///
/// # Errors
/// As [`answer`].
pub async fn begin(asked: Asked<'_>) -> Result<Answering, RangeError> {
    match Asking::of(asked).answer(asked.settings.range_points_held_max).await {
        Err(RangeError::Store(StoreError::TooManyPoints { .. })) => {}
        answered => return answered.map(Answering::Whole),
    }
    let asking = Asking::of(asked);
    let (by_kind, infos) = asking.pods_by_kind(&asking.owners()).await?;
    let mut large = LargeAnswer::plan(&asking, by_kind, infos).await?;
    let Some(merge) = asked.question.merge else { return Ok(Answering::Large(large)) };
    let mut merging = Merging::of(merge);
    large.merge(&asking, &mut merging).await?;
    Ok(Answering::Whole(RangeAnswer { series: merging.finish(), infos: large.infos(&asking) }))
}

impl LargeAnswer {
    /// The next series, in the order in which an answer has them; `None`: there are no more.
    ///
    /// # Errors
    /// When the store fails or would read too much.
    pub async fn next_series(&mut self, asked: Asked<'_>) -> Result<Option<Vec<PodSeries>>, RangeError> {
        self.next(&Asking::of(asked)).await
    }

    /// How the series were found, for people: once all of them have been read.
    #[must_use]
    pub fn infos_of(&self, asked: Asked<'_>) -> Vec<String> {
        self.infos(&Asking::of(asked))
    }
}

/// For people.
const SEVERAL_KINDS: &str = "several kinds have this name: give kind= to have one";

struct Asking<'a> {
    store: &'a dyn Store,
    context: &'a Context,
    settings: &'a Settings,
    question: &'a RangeQuestion,
    /// What the answer is made of.
    used: Mutex<RangeUse>,
}

impl<'a> Asking<'a> {
    fn of(Asked { question, store, context, settings }: Asked<'a>) -> Self {
        Self { store, context, settings, question, used: Mutex::default() }
    }
}

impl Asking<'_> {
    /// All of the answer, if no source has more points than this.
    async fn answer(&self, points_max: usize) -> Result<RangeAnswer, RangeError> {
        let mut answer = self.find(points_max).await?;
        if answer.series.is_empty() {
            self.refuse_unknown_metric().await?;
            answer.infos.push(self.nothing_found());
        } else if let Some(merge) = self.question.merge {
            let mut merging = Merging::of(merge);
            merging.add(answer.series);
            answer.series = merging.finish();
        }
        answer.infos.extend(made_of::infos(&self.used(), self.question));
        Ok(answer)
    }

    fn used(&self) -> MutexGuard<'_, RangeUse> {
        // Whoever panicked with it has left what was joined so far.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> Vec<UsageSource> {
        let itself = || vec![UsageSource { series: self.question.metric.clone(), counter: false }];
        self.settings.usage_sources.get(&self.question.metric).cloned().unwrap_or_else(itself)
    }

    /// The pods that the workload owned, by its kind, and what there is to say of that.
    async fn pods_by_kind(
        &self,
        owners: &Owners<'_>,
    ) -> Result<(BTreeMap<String, BTreeSet<String>>, Vec<String>), RangeError> {
        let RangeQuestion { workload, kind, .. } = self.question;
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
        Ok((by_kind, infos))
    }

    /// The series of the workload's pods.
    async fn find(&self, points_max: usize) -> Result<RangeAnswer, RangeError> {
        let (by_kind, mut infos) = self.pods_by_kind(&self.owners()).await?;
        let mut owned: Vec<(String, Pods)> = Vec::new();
        for (kind, names) in &by_kind {
            let one_of = Matcher::one_of("pod", names.iter().map(String::as_str));
            let pods = self.pods(&[one_of], points_max).await?;
            if !pods.is_empty() {
                infos.push(self.owned_info(kind, names.len()));
                owned.push((kind.clone(), pods));
            }
        }
        if owned.len() > 1 {
            infos.push(SEVERAL_KINDS.to_owned());
            let series = owned.into_iter().flat_map(|(kind, pods)| pods.into_series(Some(&kind))).collect();
            return Ok(RangeAnswer { series, infos });
        }
        let mut found = owned.pop().map(|(_, pods)| pods).unwrap_or_default();
        let owned_pods = || by_kind.values().flatten().map(String::as_str);
        // The owner's word on a pod stands before the label's.
        let workload = &self.question.workload;
        let labelled = [selection::by_label(workload), vec![Matcher::none_of("pod", owned_pods())]].concat();
        let labelled = self.pods(&labelled, points_max).await?;
        if !labelled.is_empty() {
            infos.push(self.labelled_info());
            found = found.or_else_pods(labelled);
        }
        if self.names_decide(&by_kind, !found.is_empty())
            && let Some((_, named)) = self.of_unknown_owner(owned_pods().collect()).await?
        {
            let named = self.pods(&named, points_max).await?;
            if !named.is_empty() {
                infos.push(self.named_info());
                found = found.or_else_pods(named);
            }
        }
        Ok(RangeAnswer { series: found.into_series(None), infos })
    }

    /// Whether the names of pods tell whose they are. Where the label is in use, a pod without it belongs to
    /// something else; and a name has no kind.
    fn names_decide(&self, by_kind: &BTreeMap<String, BTreeSet<String>>, found: bool) -> bool {
        if by_kind.is_empty() { !found } else { self.question.kind.is_none() }
    }

    fn owned_info(&self, kind: &str, pods: usize) -> String {
        format!("{kind} {:?} had {pods} pods by their owners", self.question.workload)
    }

    fn labelled_info(&self) -> String {
        format!("selected by the label workload={:?}", self.question.workload)
    }

    fn named_info(&self) -> String {
        let workload = &self.question.workload;
        format!(
            "selected by pod names such as {}: no owner of these is known, and no series has the label \
             workload={workload:?}",
            selection::pod_name_examples(workload)
        )
    }

    /// The pods that have the workload's name and of which nothing says whose they are, and what selects them.
    async fn of_unknown_owner(
        &self,
        owned: HashSet<&str>,
    ) -> Result<Option<(Vec<String>, Vec<Matcher>)>, RangeError> {
        let by_name = selection::by_pod_name(&self.question.workload)?;
        let in_namespace = vec![Matcher::equal("namespace", &self.question.namespace)];
        let request = LabelsRequest {
            name: Some("pod".to_owned()),
            matchers: [in_namespace, by_name.clone()].concat(),
        };
        let mut names = self.store.labels(self.context, request).await?;
        names.retain(|name| !owned.contains(name.as_str()));
        if names.is_empty() {
            return Ok(None);
        }
        let known = self.owners().known_pods().await?;
        names.retain(|name| !known.contains(name));
        let one_of = vec![Matcher::one_of("pod", names.iter().map(String::as_str))];
        Ok(Some((names, [by_name, one_of].concat())))
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
    async fn pods(&self, selection: &[Matcher], points_max: usize) -> Result<Pods, RangeError> {
        let ask = |source| self.ask_source(source, selection, points_max);
        let answers = futures::future::try_join_all(self.sources().into_iter().map(ask)).await?;
        let mut used = self.used();
        answers.iter().for_each(|read| used.join(&read.used));
        Ok(answers.into_iter().fold(Pods::default(), |pods, read| pods.or_else(read.series)))
    }

    async fn ask_source(
        &self,
        source: UsageSource,
        selection: &[Matcher],
        points_max: usize,
    ) -> Result<RangeRead, StoreError> {
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
            points_max,
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
