//! An answer that is too large to be held: it is read pods after pods, while what was read is sent.
//!
//! invariant: no more than [`crate::app::Settings::range_points_held_max`] points of each source are held at a time,
//! or those of one pod, if it has more.
//!
//! What holds for the answer as a whole (which kinds have points, whether the label `workload` is in use)
//! is found out before, and then holds for each of its parts.

use super::pods::{Merging, Pods};
use super::{Asking, PodSeries, RangeError, selection};
use crate::store::{LabelsRequest, StoreError};
use lookback_storage::{Matcher, RangeUse};
use std::collections::{BTreeMap, BTreeSet};

/// Containers that a pod is taken to have until it is known better.
const CONTAINERS: u64 = 4;

/// A question's pods, and how far it is answered.
#[derive(Debug)]
pub struct LargeAnswer {
    groups: Vec<Group>,
    /// The group that is read, and how many of its pods have been.
    group: usize,
    done: usize,
    /// How many pods are read at a time.
    at_a_time: usize,
    infos: Vec<String>,
    used: RangeUse,
}

/// Pods that are answered together.
#[derive(Debug)]
struct Group {
    /// The kind that is told with each series.
    kind: Option<String>,
    /// All of its pods, sorted. The empty name: series without a pod.
    pods: Vec<String>,
    /// Those of them whose owner is known.
    owned: BTreeSet<String>,
    /// What else selects series of its pods, in the order of preference.
    more: Vec<Vec<Matcher>>,
}

impl LargeAnswer {
    /// Finds out what holds for all of it. `by_kind` are the pods that the workload owned.
    pub(super) async fn plan(
        asking: &Asking<'_>,
        by_kind: BTreeMap<String, BTreeSet<String>>,
        mut infos: Vec<String>,
    ) -> Result<Self, RangeError> {
        let workload = &asking.question.workload;
        let mut groups = Vec::new();
        for (kind, names) in &by_kind {
            let one_of = Matcher::one_of("pod", names.iter().map(String::as_str));
            if asking.has_points(&[one_of]).await? {
                infos.push(asking.owned_info(kind, names.len()));
                let pods = names.iter().cloned().collect();
                groups.push(Group { kind: Some(kind.clone()), pods, owned: names.clone(), more: Vec::new() });
            }
        }
        if groups.len() > 1 {
            infos.push(super::SEVERAL_KINDS.to_owned());
        } else {
            let owned = groups.pop().map(|group| group.owned).unwrap_or_default();
            let known: BTreeSet<&str> = by_kind.values().flatten().map(String::as_str).collect();
            let none_of = Matcher::none_of("pod", known.iter().copied());
            let labelled = [selection::by_label(workload), vec![none_of]].concat();
            let (mut pods, mut more) = (owned.clone(), Vec::new());
            if asking.has_points(&labelled).await? {
                infos.push(asking.labelled_info());
                pods.extend(asking.pod_names(&labelled).await?);
                more.push(labelled);
            }
            let found = !owned.is_empty() || !more.is_empty();
            if asking.names_decide(&by_kind, found) {
                let named = asking.of_unknown_owner(known.into_iter().collect()).await?;
                if let Some((names, named)) = named
                    && asking.has_points(&named).await?
                {
                    infos.push(asking.named_info());
                    pods.extend(names);
                    more.push(named);
                }
            }
            groups.push(Group { kind: None, pods: pods.into_iter().collect(), owned, more });
        }
        let held_max = asking.settings.range_points_held_max as u64;
        let at_a_time = held_max / asking.question.points().saturating_mul(CONTAINERS).max(1);
        let at_a_time = usize::try_from(at_a_time).unwrap_or(usize::MAX).max(1);
        Ok(Self { groups, group: 0, done: 0, at_a_time, infos, used: RangeUse::default() })
    }

    /// The next series, in the order in which an answer has them; `None`: there are no more.
    pub(super) async fn next(&mut self, asking: &Asking<'_>) -> Result<Option<Vec<PodSeries>>, RangeError> {
        let held_max = asking.settings.range_points_held_max;
        while let Some(group) = self.groups.get(self.group) {
            let left = group.pods.get(self.done..).unwrap_or_default();
            let pods = left.get(..self.at_a_time.min(left.len())).unwrap_or_default();
            if pods.is_empty() {
                (self.group, self.done) = (self.group + 1, 0);
                continue;
            }
            // A pod by itself is answered however much it has.
            let points_max = if pods.len() > 1 { held_max } else { usize::MAX };
            match group.read(asking, pods, points_max).await {
                Err(RangeError::Store(StoreError::TooManyPoints { .. })) if pods.len() > 1 => {
                    self.at_a_time = (pods.len() / 2).max(1);
                }
                Err(error) => return Err(error),
                Ok(series) => {
                    self.done += pods.len();
                    let points: usize = series.iter().map(|series| series.samples.len()).sum();
                    if points < held_max / 4 {
                        self.at_a_time = self.at_a_time.saturating_mul(2);
                    }
                    self.used.join(&asking.used());
                    if !series.is_empty() {
                        return Ok(Some(series));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What an answer that has been read says of itself.
    pub(super) fn infos(&self, asking: &Asking<'_>) -> Vec<String> {
        let made_of = super::made_of::infos(&self.used, asking.question);
        self.infos.iter().cloned().chain(made_of).collect()
    }

    /// Folds all of it into one series a container.
    pub(super) async fn merge(
        &mut self,
        asking: &Asking<'_>,
        merging: &mut Merging,
    ) -> Result<(), RangeError> {
        while let Some(series) = self.next(asking).await? {
            merging.add(series);
        }
        Ok(())
    }
}

impl Group {
    async fn read(
        &self,
        asking: &Asking<'_>,
        pods: &[String],
        points_max: usize,
    ) -> Result<Vec<PodSeries>, RangeError> {
        let names = || pods.iter().map(String::as_str);
        let owned: Vec<&str> = names().filter(|pod| self.owned.contains(*pod)).collect();
        let mut found = Pods::default();
        if !owned.is_empty() {
            found = asking.pods(&[Matcher::one_of("pod", owned.into_iter())], points_max).await?;
        }
        for matchers in &self.more {
            let of_these = [matchers.clone(), vec![Matcher::one_of("pod", names())]].concat();
            found = found.or_else_pods(asking.pods(&of_these, points_max).await?);
        }
        Ok(found.into_series(self.kind.as_deref()))
    }
}

impl Asking<'_> {
    /// Whether any series of a selection has a point.
    async fn has_points(&self, selection: &[Matcher]) -> Result<bool, RangeError> {
        match self.pods(selection, self.settings.range_points_held_max).await {
            Ok(pods) => Ok(!pods.is_empty()),
            Err(RangeError::Store(StoreError::TooManyPoints { .. })) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The pods of a selection, and the empty name for series without one.
    async fn pod_names(&self, selection: &[Matcher]) -> Result<Vec<String>, RangeError> {
        let in_namespace = vec![Matcher::equal("namespace", &self.question.namespace)];
        let request = LabelsRequest {
            name: Some("pod".to_owned()),
            matchers: [in_namespace, selection.to_vec()].concat(),
        };
        let mut names = self.store.labels(self.context, request).await?;
        names.push(String::new());
        Ok(names)
    }
}
