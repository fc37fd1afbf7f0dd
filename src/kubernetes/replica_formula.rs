//! What the HorizontalPodAutoscaler makes of an answer: its own formula.
//!
//! Facts of `pkg/controller/podautoscaler/replica_calculator.go`, `metrics/utilization.go` and `horizontal.go` of
//! Kubernetes 1.36: the tolerance, how pods that are missing or not started count, when nothing is changed, and that
//! it computes in whole millis, of which a mean is cut off.

use super::controller_settings::ControllerSettings;

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
        let tolerance = ControllerSettings::default().tolerance;
        Self { up: tolerance, down: tolerance }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The sum of the values, in millis, each rounded away from zero. Of metrics of pods: of those that have started, are
    /// not being deleted and have not failed.
    pub sum_milli: i64,
    /// How many values there are.
    pub items: u32,
    /// How many such pods have none. Only of metrics of pods.
    pub missing: u32,
    /// How many pods have not started yet. Only of metrics of pods.
    pub pending: u32,
}

/// What pods request of a resource, summed up in millis (of cores, bytes, …).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// By the pods with a value that counts.
    pub counted: i64,
    /// By those that have started and have no value.
    pub missing: i64,
    /// By those that have not started yet.
    pub pending: i64,
}

/// The pods that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// As many as the target's `scale` is to have: `spec.replicas`.
    pub current: u32,
    /// As many as it has: `status.replicas`. What pods share of a metric goes by these.
    pub status: u32,
    /// How many of them are ready; `None`: the target's selector selects no pods at all.
    pub ready: Option<u32>,
}

impl Replicas {
    /// All there and ready.
    #[must_use]
    pub const fn all_ready(current: u32) -> Self {
        Self { current, status: current, ready: Some(current) }
    }
}

/// How many replicas an answer asks for, before bounds, of a target in millis; `None`: nothing can be made of it, and
/// the autoscaler reports that this metric failed.
#[must_use]
pub fn proposed(
    kind: TargetKind,
    target_milli: i64,
    answer: Summary,
    replicas: Replicas,
    tolerances: Tolerances,
) -> Option<u32> {
    if answer.items == 0 || target_milli <= 0 {
        return None;
    }
    let share = ratio(answer.sum_milli, target_milli);
    match kind {
        TargetKind::PodsAverage => Some(of_pods(target_milli, answer, replicas.current, tolerances)),
        TargetKind::SharedAverage => {
            // Without replicas no ratio is within the tolerance.
            let is_tolerated = tolerances.cover(share / f64::from(replicas.status));
            Some(if is_tolerated { replicas.status } else { whole(share.ceil()) })
        }
        TargetKind::Value if replicas.current == 0 => Some(whole(share.ceil())),
        TargetKind::Value if tolerances.cover(share) => Some(replicas.current),
        TargetKind::Value => Some(whole((share * f64::from(replicas.ready?)).ceil())),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the controller's own arithmetic")]
fn ratio(is: i64, target: i64) -> f64 {
    is as f64 / target as f64
}

/// What is used, in whole percent of what is requested; `None`: nothing is.
#[must_use]
pub fn utilization(answer: Summary, requested: Requested) -> Option<i64> {
    percent(answer.sum_milli, requested.counted)
}

fn percent(used: i64, requested: i64) -> Option<i64> {
    used.saturating_mul(100).checked_div(requested).filter(|_| requested > 0)
}

/// How many replicas a utilization (a target in percent of what pods request) asks for, before bounds; `None`:
/// nothing can be made of it.
#[must_use]
pub fn proposed_by_utilization(
    target: u32,
    answer: Summary,
    requested: Requested,
    current: u32,
    tolerances: Tolerances,
) -> Option<u32> {
    let ratio_of = |used, requested| percent(used, requested).map(|is| ratio(is, i64::from(target)));
    if answer.items == 0 || target == 0 {
        return None;
    }
    let ratio = ratio_of(answer.sum_milli, requested.counted)?;
    Some(settled(ratio, answer, current, tolerances, |missing, pending| {
        // Too many pods: those without a value use all that they request, or the target where that is more.
        let fill = i64::from(if ratio < 1.0 { target.max(100) } else { 0 });
        let filled = if missing { requested.missing.saturating_mul(fill) / 100 } else { 0 };
        let of_missing = if missing { requested.missing } else { 0 };
        let of_pending = if pending { requested.pending } else { 0 };
        let used = answer.sum_milli.saturating_add(filled);
        ratio_of(used, requested.counted + of_missing + of_pending).unwrap_or(ratio)
    }))
}

/// Pods without a value count as at the target where there are too many pods, and as idle where there are
/// too few, as do those that have not started.
fn of_pods(target_milli: i64, answer: Summary, replicas: u32, tolerances: Tolerances) -> u32 {
    // The mean is cut off.
    let ratio_of = |sum: i64, pods: u32| ratio(sum / i64::from(pods.max(1)), target_milli);
    let ratio = ratio_of(answer.sum_milli, answer.items);
    settled(ratio, answer, replicas, tolerances, |missing, pending| {
        let missing = if missing { answer.missing } else { 0 };
        let pending = if pending { answer.pending } else { 0 };
        let fill = if ratio < 1.0 { target_milli } else { 0 };
        let sum = answer.sum_milli.saturating_add(fill.saturating_mul(i64::from(missing)));
        ratio_of(sum, answer.items + missing + pending)
    })
}

/// The replicas for a ratio of pods with a value. Where others count too, `filled` tells the ratio of all, given
/// whether those without a value and those that have not started are among them; it changes nothing if that
/// turns it round.
fn settled(
    ratio: f64,
    counts: Summary,
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

/// What is known of an autoscaler that matters where its target has no replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtZero {
    /// Whether the autoscaler took the last of them away, by its condition `ScaledToZero`; `None`: it has none, as
    /// before Kubernetes 1.36.
    pub is_its_doing: Option<bool>,
    /// Whether it goes by a metric of another object, or an external one: others have no value without pods.
    pub has_shared_metric: bool,
    /// Whether its condition `ScalingActive` is not `False`.
    pub is_active: bool,
}

/// What an autoscaler does without asking for any metric: it brings replicas back into its bounds, and is turned off
/// where the target was given none by others. `None`: it goes by its metrics.
#[must_use]
pub fn without_metrics(current: u32, (min, max): (u32, u32), at_zero: AtZero) -> Option<u32> {
    if current == 0 {
        let goes_by_metrics = match at_zero.is_its_doing {
            Some(is_its_doing) => is_its_doing && (min != 0 || at_zero.has_shared_metric),
            None => min == 0 && at_zero.is_active,
        };
        return (!goes_by_metrics).then_some(0);
    }
    let bounded = current.max(min).min(max);
    (bounded != current).then_some(bounded)
}

/// What all metrics of an autoscaler ask for together, within its bounds: the most; where one failed, no fewer than
/// there are. `None`: none has an answer, and it does nothing.
#[must_use]
pub fn together(proposals: &[Option<u32>], current: u32, (min, max): (u32, u32)) -> Option<u32> {
    let most = proposals.iter().flatten().copied().max()?;
    let has_gap = proposals.iter().any(Option::is_none);
    let wanted = if has_gap && most < current { current } else { most };
    Some(wanted.max(min).min(max))
}

/// Replicas, none where they are negative.
pub(super) fn whole(replicas: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; a cast saturates")]
    let whole = replicas.clamp(0.0, f64::from(i32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        kind: TargetKind,
        target: i64,
        (sum_milli, items, missing, pending): (i64, u32, u32, u32),
        replicas: u32,
    ) -> Option<u32> {
        let answer = Summary { sum_milli, items, missing, pending };
        proposed(kind, target, answer, Replicas::all_ready(replicas), Tolerances::default())
    }

    #[test]
    fn pods_scale_by_their_mean_and_missing_ones_never_make_it_worse() {
        use TargetKind::PodsAverage as P;
        for (target, answer, replicas, wanted) in [
            (10_000, (60_000, 3, 0, 0), 3, Some(6)),
            (10_000, (32_000, 3, 0, 0), 3, Some(3)), // 1.07: within the tolerance
            (10_000, (15_000, 3, 0, 0), 3, Some(2)),
            (10_000, (60_000, 2, 1, 0), 3, Some(6)), // up: the missing one counts as idle
            (10_000, (10_000, 2, 1, 0), 3, Some(2)), // down: as at the target
            (10_000, (24_000, 2, 1, 0), 3, Some(3)), // 1.2 turns into 0.8: nothing
            (10_000, (30_000, 3, 1, 0), 4, Some(4)), // at the target: the missing one is as nothing
            (10_000, (0, 0, 3, 0), 3, None),
            (10_000, (60_000, 2, 0, 2), 4, Some(6)), // up: those that start count as idle
            (10_000, (40_000, 2, 0, 2), 4, Some(4)), // 2.0 becomes 1.0: nothing until they have started
            (10_000, (5_000, 1, 0, 2), 3, Some(1)),  // down: they do not count
            (10_000, (-5_000, 1, 0, 0), 3, Some(0)),
            // Means are of whole millis: 4 / 3 is 1, which is the target.
            (1, (4, 3, 0, 0), 3, Some(3)),
            // 5 / 3 is 1; with the missing one as at the target (5 + 3) / 4 is 2: two thirds of four pods.
            (3, (5, 3, 1, 0), 4, Some(3)),
        ] {
            assert_eq!(of(P, target, answer, replicas), wanted, "{target} {answer:?}");
        }
    }

    #[test]
    fn shared_metrics_scale_by_value_or_by_share() {
        for (kind, target, sum, replicas, wanted) in [
            (TargetKind::Value, 10_000, 25_000, 2, Some(5)),
            (TargetKind::Value, 10_000, 10_900, 2, Some(2)),
            (TargetKind::Value, 10_000, 25_000, 0, Some(3)),
            (TargetKind::Value, 10_000, 10_500, 0, Some(2)), // from zero no tolerance counts
            (TargetKind::SharedAverage, 10_000, 25_000, 2, Some(3)),
            (TargetKind::SharedAverage, 10_000, 21_000, 2, Some(2)),
            (TargetKind::SharedAverage, 10_000, 5_000, 3, Some(1)),
            (TargetKind::SharedAverage, 10_000, 25_000, 0, Some(3)),
            (TargetKind::SharedAverage, 10_000, 0, 0, Some(0)),
            (TargetKind::SharedAverage, 0, 5_000, 3, None),
        ] {
            assert_eq!(of(kind, target, (sum, 1, 0, 0), replicas), wanted, "{kind:?} {sum} {replicas}");
        }
        let of = |kind, sum_milli, replicas| {
            let answer = Summary { sum_milli, items: 1, ..Summary::default() };
            proposed(kind, 10_000, answer, replicas, Tolerances::default())
        };
        // To be four, of which there are three and two are ready.
        let replicas = Replicas { current: 4, status: 3, ready: Some(2) };
        assert_eq!(of(TargetKind::Value, 25_000, replicas), Some(5), "of those that are ready");
        assert_eq!(of(TargetKind::Value, 10_500, replicas), Some(4), "as many as there are to be");
        assert_eq!(of(TargetKind::SharedAverage, 31_000, replicas), Some(3), "as many as there are");
        let none = Replicas { ready: None, ..replicas };
        assert_eq!(of(TargetKind::Value, 25_000, none), None, "no pods are selected");
        assert_eq!(of(TargetKind::Value, 10_500, none), Some(4));
    }

    #[test]
    fn tolerances_are_each_directions_own() {
        let tolerances = Tolerances { up: 0.0, down: 0.5 };
        for (sum, wanted) in [(31, 4), (30, 3), (16, 3), (14, 2)] {
            let answer = Summary { sum_milli: sum * 1_000, items: 3, ..Summary::default() };
            let replicas = Replicas::all_ready(3);
            assert_eq!(
                proposed(TargetKind::PodsAverage, 10_000, answer, replicas, tolerances),
                Some(wanted),
                "{sum}"
            );
            let (answer, requested) = (
                Summary { sum_milli: sum * 100, ..answer },
                Requested { counted: 3_000, ..Requested::default() },
            );
            assert_eq!(proposed_by_utilization(100, answer, requested, 3, tolerances), Some(wanted), "{sum}");
        }
    }

    #[test]
    fn utilization_is_of_what_pods_request() {
        // used, items, requested; missing and what they request; pending and what they request.
        let of = |target,
                  [sum_milli, items, counted, missing, of_missing, pending, of_pending]: [i64; 7],
                  current| {
            let count = |count: i64| u32::try_from(count).expect("a count");
            let (items, missing, pending) = (count(items), count(missing), count(pending));
            let answer = Summary { sum_milli, items, missing, pending };
            let requested = Requested { counted, missing: of_missing, pending: of_pending };
            proposed_by_utilization(target, answer, requested, current, Tolerances::default())
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

    #[test]
    fn replicas_out_of_bounds_are_brought_back_and_zero_turns_it_off() {
        let at_zero = |is_its_doing, has_shared_metric, is_active| AtZero {
            is_its_doing,
            has_shared_metric,
            is_active,
        };
        let none = at_zero(None, true, false);
        for (current, bounds, at_zero, expected) in [
            (4, (2, 10), none, None),
            (12, (2, 10), none, Some(10)),
            (1, (2, 10), none, Some(2)),
            (0, (2, 10), none, Some(0)),
            // Kubernetes 1.36: only where the autoscaler itself went to zero.
            (0, (0, 10), at_zero(Some(false), true, true), Some(0)),
            (0, (0, 10), at_zero(Some(true), true, true), None),
            (0, (0, 10), at_zero(Some(true), false, true), Some(0)),
            (0, (2, 10), at_zero(Some(true), false, true), None),
            // Before: where it may go to zero.
            (0, (0, 10), at_zero(None, true, true), None),
            (0, (0, 10), at_zero(None, true, false), Some(0)),
        ] {
            assert_eq!(
                without_metrics(current, bounds, at_zero),
                expected,
                "{current} {bounds:?} {at_zero:?}"
            );
        }
    }
}
