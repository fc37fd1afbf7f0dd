//! What the HorizontalPodAutoscaler makes of an answer: its own formula.
//!
//! Facts of `pkg/controller/podautoscaler/replica_calculator.go` and `horizontal.go` of Kubernetes 1.36: the
//! tolerance, how pods that are missing or not started count, and when nothing is changed.

/// The ratio to the target may differ so much from 1 before anything is changed; kube-controller-manager's
/// default.
pub const TOLERANCE: f64 = 0.1;

/// How far the ratio to the target may lie from 1 before anything is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Above.
    pub up: f64,
    /// Below.
    pub down: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { up: TOLERANCE, down: TOLERANCE }
    }
}

impl Tolerances {
    fn cover(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

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
pub fn proposed(
    kind: TargetKind,
    target: f64,
    answer: Summary,
    replicas: Replicas,
    tolerances: Tolerances,
) -> Option<u32> {
    let Replicas { current, ready } = replicas;
    if answer.items == 0 || target <= 0.0 || current == 0 && kind == TargetKind::PodsAverage {
        return None;
    }
    let (ratio, wanted) = match kind {
        TargetKind::PodsAverage => return Some(of_pods(target, answer, current, tolerances)),
        TargetKind::SharedAverage => {
            (answer.sum / (target * f64::from(current.max(1))), (answer.sum / target).ceil())
        }
        TargetKind::Value if current == 0 => return Some(whole((answer.sum / target).ceil())),
        TargetKind::Value => (answer.sum / target, (answer.sum / target * f64::from(ready)).ceil()),
    };
    Some(if current > 0 && tolerances.cover(ratio) { current } else { whole(wanted) })
}

/// How much pods use of a resource, and how much they request, summed up in millis (of cores, bytes, …).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is used by the pods that count.
    pub used: i64,
    /// How many those are.
    pub items: u32,
    /// What those request.
    pub requested: i64,
    /// How many more have started and have no value.
    pub missing: u32,
    /// What those request.
    pub requested_by_missing: i64,
    /// How many have not started yet, or are not ready after their start.
    pub pending: u32,
    /// What those request.
    pub requested_by_pending: i64,
}

impl Usage {
    /// In whole percent of what is requested; `None`: nothing is.
    #[must_use]
    pub fn utilization(&self) -> Option<i64> {
        percent(self.used, self.requested)
    }
}

fn percent(used: i64, requested: i64) -> Option<i64> {
    used.saturating_mul(100).checked_div(requested).filter(|_| requested > 0)
}

/// How many replicas a utilization (a target in percent of what pods request) asks for, before bounds; `None`:
/// nothing can be made of it.
#[must_use]
pub fn proposed_by_utilization(
    target: u32,
    usage: Usage,
    current: u32,
    tolerances: Tolerances,
) -> Option<u32> {
    #[expect(clippy::cast_precision_loss, reason = "percents")]
    let ratio_of = |used, requested| percent(used, requested).map(|is| is as f64 / f64::from(target));
    if usage.items == 0 || target == 0 {
        return None;
    }
    let ratio = ratio_of(usage.used, usage.requested)?;
    let counts = Counts { items: usage.items, missing: usage.missing, pending: usage.pending };
    Some(settled(ratio, counts, current, tolerances, |missing, pending| {
        // Too many pods: those without a value use all that they request, or the target where that is more.
        let fill = i64::from(if ratio < 1.0 { target.max(100) } else { 0 });
        let used = usage.used + if missing { usage.requested_by_missing * fill / 100 } else { 0 };
        let of_missing = if missing { usage.requested_by_missing } else { 0 };
        let of_pending = if pending { usage.requested_by_pending } else { 0 };
        ratio_of(used, usage.requested + of_missing + of_pending).unwrap_or(ratio)
    }))
}

/// Pods without a value count as at the target where there are too many pods, and as idle where there are
/// too few, as do those that have not started.
fn of_pods(target: f64, answer: Summary, replicas: u32, tolerances: Tolerances) -> u32 {
    let items = f64::from(answer.items);
    let ratio = answer.sum / items / target;
    let counts = Counts { items: answer.items, missing: answer.missing, pending: answer.pending };
    settled(ratio, counts, replicas, tolerances, |missing, pending| {
        let missing = if missing { f64::from(answer.missing) } else { 0.0 };
        let pending = if pending { f64::from(answer.pending) } else { 0.0 };
        let fill = if ratio < 1.0 { target } else { 0.0 };
        (answer.sum + fill * missing) / (items + missing + pending) / target
    })
}

/// How many pods there are.
#[derive(Clone, Copy)]
struct Counts {
    /// With a value that counts.
    items: u32,
    missing: u32,
    pending: u32,
}

/// The replicas for a ratio of pods with a value. Where others count too, `filled` tells the ratio of all, given
/// whether those without a value and those that have not started are among them; it changes nothing if that
/// turns it round.
fn settled(
    ratio: f64,
    counts: Counts,
    replicas: u32,
    tolerances: Tolerances,
    filled: impl FnOnce(bool, bool) -> f64,
) -> u32 {
    let counts_pending = counts.pending > 0 && ratio > 1.0;
    if counts.missing == 0 && !counts_pending {
        let wanted = || whole((ratio * f64::from(counts.items)).ceil());
        return if tolerances.cover(ratio) { replicas } else { wanted() };
    }
    // At the target exactly, missing pods change nothing.
    let counts_missing = ratio != 1.0;
    let filled = filled(counts_missing, counts_pending);
    let is_turned = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
    if tolerances.cover(filled) || is_turned {
        return replicas;
    }
    let missing = if counts_missing { counts.missing } else { 0 };
    let pending = if counts_pending { counts.pending } else { 0 };
    let all = f64::from(counts.items) + f64::from(missing) + f64::from(pending);
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
        let (answer, replicas) = (Summary { sum, items, missing, pending }, Replicas::all_ready(replicas));
        proposed(kind, target, answer, replicas, Tolerances::default())
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
        let of_ready = proposed(TargetKind::Value, 10.0, answer, replicas, Tolerances::default());
        assert_eq!(of_ready, Some(5), "of those that are ready");
    }

    #[test]
    fn tolerances_are_each_directions_own() {
        let tolerances = Tolerances { up: 0.0, down: 0.5 };
        for (sum, wanted) in [(31.0, 4), (30.0, 3), (16.0, 3), (14.0, 2)] {
            let answer = Summary { sum, items: 3, ..Summary::default() };
            let replicas = Replicas::all_ready(3);
            assert_eq!(
                proposed(TargetKind::PodsAverage, 10.0, answer, replicas, tolerances),
                Some(wanted),
                "{sum}"
            );
            let usage = Usage { used: (sum * 100.0) as i64, items: 3, requested: 3_000, ..Usage::default() };
            assert_eq!(proposed_by_utilization(100, usage, 3, tolerances), Some(wanted), "{sum}");
        }
    }

    #[test]
    fn utilization_is_of_what_pods_request() {
        // used, items, requested; missing and what they request; pending and what they request.
        let of = |target,
                  [used, items, requested, missing, of_missing, pending, of_pending]: [i64; 7],
                  current| {
            let count = |count: i64| u32::try_from(count).expect("a count");
            let (items, missing, pending) = (count(items), count(missing), count(pending));
            let usage = Usage {
                used,
                items,
                requested,
                missing,
                requested_by_missing: of_missing,
                pending,
                requested_by_pending: of_pending,
            };
            proposed_by_utilization(target, usage, current, Tolerances::default())
        };
        for (target, usage, current, wanted) in [
            // 90 % of 3 pods at a target of 60 %: 1.5 times as many.
            (60, [2_700, 3, 3_000, 0, 0, 0, 0], 3, Some(5)),
            // 65 %: within the tolerance.
            (60, [1_950, 3, 3_000, 0, 0, 0, 0], 3, Some(3)),
            (60, [600, 3, 3_000, 0, 0, 0, 0], 3, Some(1)),
            // Up: one that is missing uses nothing: 60 % of three, which is the target.
            (60, [1_800, 2, 2_000, 1, 1_000, 0, 0], 3, Some(3)),
            // Up, and one has not started either.
            (30, [2_000, 2, 2_000, 1, 1_000, 1, 1_000], 4, Some(7)),
            // Down: one that is missing uses all that it requests: (200 + 1000) / 3000 = 40 %.
            (60, [200, 2, 2_000, 1, 1_000, 0, 0], 3, Some(2)),
            // Down at a target above 100 %: it uses as much as the target.
            (200, [200, 2, 2_000, 1, 1_000, 0, 0], 3, Some(2)),
            // Down: those that have not started do not count.
            (60, [200, 2, 2_000, 0, 0, 2, 2_000], 4, Some(1)),
            (60, [200, 2, 0, 0, 0, 0, 0], 4, None),
            (60, [0; 7], 4, None),
        ] {
            assert_eq!(of(target, usage, current), wanted, "{target} {usage:?}");
        }
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
