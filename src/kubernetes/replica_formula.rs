//! What the HorizontalPodAutoscaler makes of an answer: its own formula.
//!
//! Facts of `pkg/controller/podautoscaler/replica_calculator.go` and `horizontal.go` of Kubernetes 1.36: the
//! tolerance, how pods that are missing or not started count, and when nothing is changed.

/// The ratio to the target may differ so much from 1 before anything is changed; kube-controller-manager's
/// default.
pub const TOLERANCE: f64 = 0.1;

/// How a target is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Of each pod's own metric, the mean.
    PodsAverage,
    /// Of an object's or an external metric, shared by the pods.
    SharedAverage,
    /// Of an object's or an external metric, as it is.
    Value,
}

/// An answer, as the autoscaler sums it up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The sum of the values. Of metrics of pods: of those that have started, are not being deleted and have not
    /// failed.
    pub sum: f64,
    /// How many values there are.
    pub items: u32,
    /// How many such pods have none. Only of metrics of pods.
    pub missing: u32,
    /// How many pods have not started yet. Only of metrics of pods.
    pub pending: u32,
}

/// The pods that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// As many as the target's `scale` has.
    pub current: u32,
    /// How many of them are ready.
    pub ready: u32,
}

impl Replicas {
    /// All of them ready.
    #[must_use]
    pub const fn all_ready(current: u32) -> Self {
        Self { current, ready: current }
    }
}

/// How many replicas an answer asks for, before bounds; `None`: nothing can be made of it, and the
/// autoscaler does nothing for this metric.
#[must_use]
pub fn proposed(kind: TargetKind, target: f64, answer: Summary, replicas: Replicas) -> Option<u32> {
    let Replicas { current, ready } = replicas;
    if answer.items == 0 || target <= 0.0 || current == 0 && kind == TargetKind::PodsAverage {
        return None;
    }
    let (ratio, wanted) = match kind {
        TargetKind::PodsAverage => return Some(of_pods(target, answer, current)),
        TargetKind::SharedAverage => {
            (answer.sum / (target * f64::from(current.max(1))), (answer.sum / target).ceil())
        }
        TargetKind::Value if current == 0 => return Some(whole((answer.sum / target).ceil())),
        TargetKind::Value => (answer.sum / target, (answer.sum / target * f64::from(ready)).ceil()),
    };
    Some(if current > 0 && is_within_tolerance(ratio) { current } else { whole(wanted) })
}

/// Pods without a value count as at the target where there are too many pods, and as idle where there are
/// too few, as do those that have not started; the answer changes nothing if that turns it round.
fn of_pods(target: f64, answer: Summary, replicas: u32) -> u32 {
    let items = f64::from(answer.items);
    let ratio = answer.sum / items / target;
    let counts_pending = answer.pending > 0 && ratio > 1.0;
    if answer.missing == 0 && !counts_pending {
        return if is_within_tolerance(ratio) { replicas } else { whole((ratio * items).ceil()) };
    }
    let fill = if ratio < 1.0 { target } else { 0.0 };
    // At the target exactly, missing pods change nothing.
    let missing = if ratio == 1.0 { 0.0 } else { f64::from(answer.missing) };
    let pending = if counts_pending { f64::from(answer.pending) } else { 0.0 };
    let all = items + missing + pending;
    let filled = (answer.sum + fill * missing) / all / target;
    let is_turned = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
    if is_within_tolerance(filled) || is_turned {
        return replicas;
    }
    let wanted = whole((filled * all).ceil());
    let is_backwards = (filled < 1.0 && wanted > replicas) || (filled > 1.0 && wanted < replicas);
    if is_backwards { replicas } else { wanted }
}

/// What all metrics of an autoscaler ask for together, within its bounds: the most; where one has no answer, no
/// fewer than there are. `None`: none has an answer, and it does nothing.
#[must_use]
pub fn together(proposals: &[Option<u32>], current: u32, (min, max): (u32, u32)) -> Option<u32> {
    let most = proposals.iter().flatten().copied().max()?;
    let has_gap = proposals.iter().any(Option::is_none);
    let wanted = if has_gap && most < current { current } else { most };
    Some(wanted.max(min).min(max))
}

fn is_within_tolerance(ratio: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio)
}

fn whole(replicas: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; a cast saturates")]
    let whole = replicas.clamp(0.0, f64::from(i32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        kind: TargetKind,
        target: f64,
        (sum, items, missing, pending): (f64, u32, u32, u32),
        replicas: u32,
    ) -> Option<u32> {
        proposed(kind, target, Summary { sum, items, missing, pending }, Replicas::all_ready(replicas))
    }

    #[test]
    fn pods_scale_by_their_mean_and_missing_ones_never_make_it_worse() {
        use TargetKind::PodsAverage as P;
        for (target, answer, replicas, wanted) in [
            (10.0, (60.0, 3, 0, 0), 3, Some(6)),
            (10.0, (32.0, 3, 0, 0), 3, Some(3)), // 1.07: within the tolerance
            (10.0, (15.0, 3, 0, 0), 3, Some(2)),
            (10.0, (60.0, 2, 1, 0), 3, Some(6)), // up: the missing one counts as idle
            (10.0, (10.0, 2, 1, 0), 3, Some(2)), // down: as at the target
            (10.0, (24.0, 2, 1, 0), 3, Some(3)), // 1.2 turns into 0.8: nothing
            (10.0, (30.0, 3, 1, 0), 4, Some(4)), // at the target: the missing one is as nothing
            (10.0, (0.0, 0, 3, 0), 3, None),
            (10.0, (60.0, 2, 0, 2), 4, Some(6)), // up: those that start count as idle
            (10.0, (40.0, 2, 0, 2), 4, Some(4)), // 2.0 becomes 1.0: nothing until they have started
            (10.0, (5.0, 1, 0, 2), 3, Some(1)),  // down: they do not count
        ] {
            assert_eq!(of(P, target, answer, replicas), wanted, "{answer:?}");
        }
    }

    #[test]
    fn shared_metrics_scale_by_value_or_by_share() {
        for (kind, target, sum, replicas, wanted) in [
            (TargetKind::Value, 10.0, 25.0, 2, Some(5)),
            (TargetKind::Value, 10.0, 10.9, 2, Some(2)),
            (TargetKind::Value, 10.0, 25.0, 0, Some(3)),
            (TargetKind::SharedAverage, 10.0, 25.0, 2, Some(3)),
            (TargetKind::SharedAverage, 10.0, 21.0, 2, Some(2)),
            (TargetKind::SharedAverage, 10.0, 5.0, 3, Some(1)),
            (TargetKind::SharedAverage, 0.0, 5.0, 3, None),
        ] {
            assert_eq!(of(kind, target, (sum, 1, 0, 0), replicas), wanted, "{kind:?} {sum} {replicas}");
        }
        let answer = Summary { sum: 25.0, items: 1, ..Summary::default() };
        let replicas = Replicas { current: 4, ready: 2 };
        assert_eq!(proposed(TargetKind::Value, 10.0, answer, replicas), Some(5), "of those that are ready");
    }

    #[test]
    fn the_most_counts_and_a_metric_without_an_answer_keeps_it_from_going_down() {
        for (proposals, current, wanted) in [
            (&[Some(3), Some(5)][..], 4, Some(5)),
            (&[Some(3), Some(20)], 4, Some(10)),
            (&[Some(1)], 4, Some(2)),
            (&[Some(3), None], 4, Some(4)),
            (&[Some(6), None], 4, Some(6)),
            (&[None, None], 4, None),
        ] {
            assert_eq!(together(proposals, current, (2, 10)), wanted, "{proposals:?}");
        }
    }
}
