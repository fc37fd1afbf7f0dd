//! Stored series become one series for each pod and container.

use super::{Merge, PodSeries};
use crate::store::SeriesSamples;
use lookback_storage::{Labels, Sample};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Points by pod and container.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<(String, String), Vec<Sample>>);

impl Pods {
    /// These, and from the series of the next source those pods and containers that are missing.
    pub(super) fn or_else(mut self, source: Vec<SeriesSamples>) -> Self {
        let mut sums: BTreeMap<(String, String), Vec<Sample>> = BTreeMap::new();
        for SeriesSamples { labels, samples } in source {
            let sum = sums.entry(pod_and_container(&labels)).or_default();
            *sum = add(std::mem::take(sum), samples);
        }
        for (key, mut samples) in sums {
            samples.retain(|sample| sample.value.is_finite());
            if !samples.is_empty() {
                self.0.entry(key).or_insert(samples);
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and of the others those pods and containers that are missing.
    pub(super) fn or_else_pods(mut self, others: Self) -> Self {
        for (key, samples) in others.0 {
            self.0.entry(key).or_insert(samples);
        }
        self
    }

    /// In the order of pods, then containers. The series of a whole pod is left out where there are
    /// series of its containers.
    pub(super) fn into_series(self, kind: Option<&str>) -> Vec<PodSeries> {
        let mut series: Vec<PodSeries> = Vec::with_capacity(self.0.len());
        for ((pod, container), samples) in self.0 {
            // The empty name sorts first, so the pod's own series is the last one taken.
            let of_pod = |last: &PodSeries| last.pod.as_deref() == Some(&pod) && last.container.is_empty();
            if series.last().is_some_and(of_pod) {
                series.pop();
            }
            series.push(PodSeries { pod: Some(pod), container, kind: kind.map(str::to_owned), samples });
        }
        series
    }
}

fn pod_and_container(labels: &Labels) -> (String, String) {
    let value = |name| labels.get(name).unwrap_or_default().to_owned();
    (value("pod"), value("container"))
}

/// Series on their way to one for each container (and kind), of all pods together.
#[derive(Debug)]
pub(super) struct Merging {
    merge: Merge,
    containers: BTreeMap<(Option<String>, String), Folded>,
}

/// The points of each time: what they are folded to, and how many they are.
type Folded = BTreeMap<i64, (f64, u32)>;

impl Merging {
    pub(super) fn of(merge: Merge) -> Self {
        Self { merge, containers: BTreeMap::new() }
    }

    /// Takes series of further pods.
    pub(super) fn add(&mut self, series: Vec<PodSeries>) {
        for PodSeries { container, kind, samples, .. } in series {
            let folded = self.containers.entry((kind, container)).or_default();
            for Sample { timestamp_ms, value } in samples {
                let (so_far, count) = folded.entry(timestamp_ms).or_insert((value, 0));
                *count += 1;
                if *count > 1 {
                    *so_far = match self.merge {
                        Merge::Sum | Merge::Avg => *so_far + value,
                        Merge::Min => so_far.min(value),
                        Merge::Max => so_far.max(value),
                    };
                }
            }
        }
    }

    /// The series of each container.
    pub(super) fn finish(self) -> Vec<PodSeries> {
        let point = |(timestamp_ms, (folded, count)): (i64, (f64, u32))| {
            let value = if self.merge == Merge::Avg { folded / f64::from(count) } else { folded };
            Sample::new(timestamp_ms, value)
        };
        let merged = self.containers.into_iter().map(|((kind, container), folded)| {
            let samples = folded.into_iter().map(point).filter(|sample| sample.value.is_finite()).collect();
            PodSeries { pod: None, container, kind, samples }
        });
        merged.filter(|series: &PodSeries| !series.samples.is_empty()).collect()
    }
}

/// The sum point by point; a time that only one side has keeps its value.
fn add(a: Vec<Sample>, b: Vec<Sample>) -> Vec<Sample> {
    if a.is_empty() {
        return b;
    }
    let mut sum = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.timestamp_ms.cmp(&y.timestamp_ms),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return sum,
        };
        let from_a = if order.is_le() { a.next() } else { None };
        let from_b = if order.is_ge() { b.next() } else { None };
        match (from_a, from_b) {
            (Some(x), Some(y)) => sum.push(Sample::new(x.timestamp_ms, x.value + y.value)),
            (one, other) => sum.extend(one.or(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn series(pod: &str, container: &str, cpu: &str, samples: &[(i64, f64)]) -> SeriesSamples {
        let labels = Labels::new([("__name__", "cpu"), ("pod", pod), ("container", container), ("cpu", cpu)]);
        SeriesSamples {
            labels: Arc::new(labels.expect("valid")),
            samples: samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect(),
        }
    }

    /// `pod/container time=value …`, one a series.
    fn told(pods: Pods) -> Vec<String> {
        let point = |s: &Sample| format!(" {}={}", s.timestamp_ms, s.value);
        let series = pods.into_series(None).into_iter();
        series
            .map(|s| {
                format!(
                    "{}/{}{}",
                    s.pod.unwrap_or_default(),
                    s.container,
                    s.samples.iter().map(point).collect::<String>()
                )
            })
            .collect()
    }

    #[test]
    fn series_of_one_container_are_summed_and_what_is_not_finite_is_left_out() {
        let pods = Pods::default().or_else(vec![
            series("p", "app", "0", &[(1, 1.0), (2, 2.0), (4, f64::MAX)]),
            series("p", "app", "1", &[(2, 10.0), (3, 5.0), (4, f64::MAX)]),
            series("q", "app", "0", &[(1, f64::NAN), (2, f64::INFINITY)]),
        ]);
        assert_eq!(told(pods), ["p/app 1=1 2=12 3=5"]);
    }

    #[test]
    fn the_first_source_with_points_wins_for_each_container() {
        let pods = Pods::default()
            .or_else(vec![series("p", "a", "", &[(1, 1.0)]), series("p", "b", "", &[(1, f64::NAN)])])
            .or_else(vec![series("p", "a", "", &[(1, 9.0)]), series("p", "b", "", &[(1, 2.0)])]);
        assert_eq!(told(pods), ["p/a 1=1", "p/b 1=2"]);
    }

    #[test]
    fn a_whole_pod_counts_only_where_none_of_its_containers_does() {
        let pods = Pods::default().or_else(vec![
            series("p", "", "", &[(1, 3.0)]),
            series("p", "a", "", &[(1, 1.0)]),
            series("p", "b", "", &[(1, 2.0)]),
            series("q", "", "", &[(1, 4.0)]),
        ]);
        assert_eq!(told(pods), ["p/a 1=1", "p/b 1=2", "q/ 1=4"]);
    }

    #[test]
    fn merged_pods_are_one_series_a_container() {
        let pods = || {
            Pods::default().or_else(vec![
                series("p", "a", "", &[(1, 1.0), (2, 2.0)]),
                series("q", "a", "", &[(2, 6.0), (3, 3.0)]),
                series("q", "b", "", &[(2, 5.0)]),
            ])
        };
        let of_merge = |merge| {
            let mut merging = Merging::of(merge);
            // Pods come in parts.
            pods().into_series(None).into_iter().for_each(|series| merging.add(vec![series]));
            let all = merging.finish();
            all.iter()
                .map(|s| (s.container.clone(), s.samples.iter().map(|s| s.value).collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        };
        for (merge, both) in [(Merge::Sum, 8.0), (Merge::Avg, 4.0), (Merge::Min, 2.0), (Merge::Max, 6.0)] {
            let expected = [("a".to_owned(), vec![1.0, both, 3.0]), ("b".to_owned(), vec![5.0])];
            assert_eq!(of_merge(merge), expected, "{merge:?}");
        }
    }
}
