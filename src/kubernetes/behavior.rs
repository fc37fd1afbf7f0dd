//! How fast an autoscaler goes where its metrics point: `spec.behavior`, by kube-controller-manager's own rules.
//!
//! Facts of `pkg/controller/podautoscaler/horizontal.go` of Kubernetes 1.36. First the recommendations of a while are
//! weighed (stabilization: the least of them is followed up, the most of them down), then policies limit the step.
//! Without `spec.behavior` only the most of five minutes counts down, and a step up doubles at the most.

use super::controller_settings::ControllerSettings;
use super::quantity::Quantity;
use super::replica_formula::{Tolerances, whole};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More replicas.
    Up,
    /// Fewer.
    Down,
}

impl Direction {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// By how much the replicas may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In percent of the replicas at the period's beginning; else by so many pods.
    pub is_percent: bool,
    /// How much.
    pub value: u32,
    /// The period, in seconds.
    pub period_seconds: u32,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// That which allows the largest step.
    Max,
    /// That which allows the smallest.
    Min,
    /// None: there is no step this way.
    Disabled,
}

impl Select {
    /// As in `selectPolicy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Max => "Max",
            Self::Min => "Min",
            Self::Disabled => "Disabled",
        }
    }

    /// The one of this name; an unknown one is the default, `Max`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "Min" => Self::Min,
            "Disabled" => Self::Disabled,
            _ => Self::Max,
        }
    }
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// For how long recommendations are weighed, in seconds.
    pub stabilization_seconds: u32,
    /// How far the ratio to a target may lie from 1 this way.
    pub tolerance: f64,
    /// What limits a step.
    pub policies: Vec<Policy>,
    /// Which of these counts.
    pub select: Select,
}

/// An autoscaler's behavior.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// On the way up.
    pub up: Rules,
    /// On the way down.
    pub down: Rules,
    /// Whether the autoscaler has none of its own.
    pub is_default: bool,
}

fn rules(own: Option<&HPAScalingRules>, direction: Direction, controller: &ControllerSettings) -> Rules {
    let percent = Policy { is_percent: true, value: 100, period_seconds: 15 };
    let pods = Policy { is_percent: false, value: 4, period_seconds: 15 };
    let (stabilization_seconds, policies) = match direction {
        Direction::Up => (0, vec![pods, percent]),
        Direction::Down => (controller.down_stabilization_seconds, vec![percent]),
    };
    let default =
        Rules { stabilization_seconds, tolerance: controller.tolerance, policies, select: Select::Max };
    let Some(own) = own else { return default };
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    let policy = |policy: &k8s_openapi::api::autoscaling::v2::HPAScalingPolicy| Policy {
        is_percent: policy.type_ == "Percent",
        value: count(policy.value),
        period_seconds: count(policy.period_seconds),
    };
    let tolerance = own.tolerance.as_ref().and_then(|text| Quantity::parse(&text.0).ok()?.value().ok());
    Rules {
        stabilization_seconds: own.stabilization_window_seconds.map_or(stabilization_seconds, count),
        tolerance: tolerance.unwrap_or(controller.tolerance),
        policies: match &own.policies {
            Some(policies) => policies.iter().map(policy).collect(),
            None => default.policies,
        },
        select: own.select_policy.as_deref().map_or(Select::Max, Select::of),
    }
}

/// A change of the replicas in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// How long ago, in milliseconds.
    pub ago_ms: i64,
    /// By how many; negative: fewer.
    pub by: i64,
}

/// What became of a recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// After the recommendations of a while were weighed.
    pub stabilized: u32,
    /// After policies and bounds: what it goes to.
    pub replicas: u32,
}

impl Behavior {
    /// That of an autoscaler that has none of its own.
    #[must_use]
    pub fn default_of(controller: &ControllerSettings) -> Self {
        let of = |direction| rules(None, direction, controller);
        Self { up: of(Direction::Up), down: of(Direction::Down), is_default: true }
    }

    /// That of an autoscaler.
    #[must_use]
    pub fn of(spec: &HorizontalPodAutoscalerSpec, controller: &ControllerSettings) -> Self {
        let Some(behavior) = &spec.behavior else { return Self::default_of(controller) };
        Self {
            up: rules(behavior.scale_up.as_ref(), Direction::Up, controller),
            down: rules(behavior.scale_down.as_ref(), Direction::Down, controller),
            is_default: false,
        }
    }

    /// How far ratios to a target may lie from 1.
    #[must_use]
    pub const fn tolerances(&self) -> Tolerances {
        Tolerances { up: self.up.tolerance, down: self.down.tolerance }
    }

    /// For how long what was wanted is weighed, in seconds.
    #[must_use]
    pub fn weighed_seconds(&self) -> u32 {
        self.up.stabilization_seconds.max(self.down.stabilization_seconds)
    }

    /// What an autoscaler makes of `wanted`, which its metrics ask for now. `before`: what they asked for earlier, with
    /// how many milliseconds ago. `bounds`: its least and most replicas.
    #[must_use]
    pub fn decide(
        &self,
        wanted: u32,
        current: u32,
        before: &[(i64, u32)],
        changes: &[Change],
        (min, max): (u32, u32),
    ) -> Decision {
        let within = |seconds: u32| {
            let within = move |(ago_ms, _): &&(i64, u32)| *ago_ms < i64::from(seconds) * 1_000;
            before.iter().filter(within).map(|(_, wanted)| *wanted).chain([wanted])
        };
        let most = within(self.down.stabilization_seconds).max().unwrap_or(wanted);
        let least = within(self.up.stabilization_seconds).min().unwrap_or(wanted);
        let stabilized = if self.is_default { most } else { current.max(least).min(most) };
        let replicas = if stabilized > current {
            stabilized.min(self.limit_up(current, changes).max(current))
        } else if stabilized < current {
            stabilized.max(self.limit_down(current, changes).min(current))
        } else {
            stabilized
        };
        Decision { stabilized, replicas: replicas.max(min).min(max) }
    }

    fn limit_up(&self, current: u32, changes: &[Change]) -> u32 {
        if self.is_default {
            return current.saturating_mul(2).max(4);
        }
        let allowed = self.up.policies.iter().map(|policy| {
            let start = at_start(current, policy.period_seconds, changes);
            if policy.is_percent {
                return whole((start * (1.0 + f64::from(policy.value) / 100.0)).ceil());
            }
            whole(start + f64::from(policy.value))
        });
        match self.up.select {
            Select::Disabled => Some(current),
            Select::Min => allowed.min(),
            Select::Max => allowed.max(),
        }
        .unwrap_or(current)
    }

    fn limit_down(&self, current: u32, changes: &[Change]) -> u32 {
        if self.is_default {
            return 0;
        }
        let allowed = self.down.policies.iter().map(|policy| {
            let start = at_start(current, policy.period_seconds, changes);
            if policy.is_percent {
                return whole((start * (1.0 - f64::from(policy.value) / 100.0)).trunc());
            }
            whole(start - f64::from(policy.value))
        });
        // The largest step leads to the fewest.
        match self.down.select {
            Select::Disabled => Some(current),
            Select::Min => allowed.max(),
            Select::Max => allowed.min(),
        }
        .unwrap_or(current)
    }
}

/// How many replicas there were at the beginning of a period that ends now. Steps in percent of them are computed in
/// floats, as the controller does: a tenth more than 100 are 111, as 110.00000000000001 is rounded up.
fn at_start(current: u32, period_seconds: u32, changes: &[Change]) -> f64 {
    let within = |change: &&Change| change.ago_ms < i64::from(period_seconds) * 1_000;
    let by: i64 = changes.iter().filter(within).map(|change| change.by).sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of pods")]
    let start = (i64::from(current) - by) as f64;
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn behavior(behavior: serde_json::Value) -> Behavior {
        let spec = json!({"maxReplicas": 100, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "behavior": behavior});
        Behavior::of(&serde_json::from_value(spec).expect("a spec"), &ControllerSettings::default())
    }

    const BOUNDS: (u32, u32) = (1, 100);

    fn replicas(behavior: &Behavior, wanted: u32, current: u32, changes: &[Change]) -> u32 {
        behavior.decide(wanted, current, &[], changes, BOUNDS).replicas
    }

    #[test]
    fn without_one_a_step_up_doubles_and_the_most_of_five_minutes_counts_down() {
        let none = Behavior::default_of(&ControllerSettings::default());
        for (wanted, current, expected) in
            [(9, 1, 4), (9, 3, 6), (5, 3, 5), (200, 90, 100), (1, 50, 1), (0, 2, 1)]
        {
            assert_eq!(replicas(&none, wanted, current, &[]), expected, "{wanted} of {current}");
        }
        let before = [(299_000, 7), (301_000, 9)];
        let decided = none.decide(2, 8, &before, &[], BOUNDS);
        assert_eq!(decided, Decision { stabilized: 7, replicas: 7 });
        assert_eq!(none.tolerances(), Tolerances::default());
    }

    #[test]
    fn policies_limit_the_step_within_their_period() {
        let up = behavior(json!({"scaleUp": {"policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
        assert_eq!(replicas(&up, 50, 10, &[]), 12, "the larger step counts");
        assert_eq!(replicas(&up, 50, 31, &[]), 35, "a tenth, rounded up");
        let (up, many) = (&up, (1, 1_000));
        assert_eq!(up.decide(500, 100, &[], &[], many).replicas, 111, "as floats have it");
        let added = [Change { ago_ms: 30_000, by: 1 }, Change { ago_ms: 61_000, by: 5 }];
        assert_eq!(replicas(up, 50, 10, &added), 11, "one was added within the period");
        let removed = [Change { ago_ms: 30_000, by: -3 }];
        assert_eq!(replicas(up, 50, 10, &removed), 15);
        let least = behavior(json!({"scaleUp": {"selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]}}));
        assert_eq!(replicas(&least, 50, 10, &[]), 12);
        let default = behavior(json!({}));
        assert_eq!((replicas(&default, 50, 3, &[]), replicas(&default, 50, 10, &[])), (7, 20));

        let down = behavior(json!({"scaleDown": {"policies": [
            {"type": "Percent", "value": 10, "periodSeconds": 60}, {"type": "Pods", "value": 5, "periodSeconds": 60}]}}));
        assert_eq!((replicas(&down, 1, 80, &[]), replicas(&down, 1, 40, &[])), (72, 35));
        let most = behavior(
            json!({"scaleDown": {"policies": [{"type": "Percent", "value": 90, "periodSeconds": 60}]}}),
        );
        assert_eq!(replicas(&most, 1, 100, &[]), 9, "as floats have it");
        let slow = behavior(json!({"scaleDown": {"selectPolicy": "Min", "policies": [
            {"type": "Percent", "value": 10, "periodSeconds": 60}, {"type": "Pods", "value": 5, "periodSeconds": 60}]}}));
        assert_eq!((replicas(&slow, 1, 80, &[]), replicas(&slow, 1, 40, &[])), (75, 36));
        let never = behavior(
            json!({"scaleDown": {"selectPolicy": "Disabled"}, "scaleUp": {"selectPolicy": "Disabled"}}),
        );
        assert_eq!((replicas(&never, 1, 40, &[]), replicas(&never, 90, 40, &[])), (40, 40));
    }

    #[test]
    fn the_least_of_a_while_counts_up_and_the_most_down() {
        let calm = behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 60, "tolerance": "0.05"},
            "scaleDown": {"stabilizationWindowSeconds": 120}}));
        assert_eq!(calm.tolerances(), Tolerances { up: 0.05, down: 0.1 });
        let before = [(30_000, 6), (90_000, 12), (130_000, 40)];
        for (wanted, current, stabilized) in [(20, 4, 6), (20, 8, 8), (2, 20, 12), (5, 3, 5), (2, 4, 4)] {
            assert_eq!(
                calm.decide(wanted, current, &before, &[], BOUNDS).stabilized,
                stabilized,
                "{wanted} of {current}"
            );
        }
        let at_once = behavior(json!({"scaleDown": {"stabilizationWindowSeconds": 0}}));
        assert_eq!(at_once.decide(2, 20, &before, &[], BOUNDS).stabilized, 2);
        let controller = ControllerSettings {
            down_stabilization_seconds: 60,
            tolerance: 0.2,
            ..ControllerSettings::default()
        };
        let shorter = Behavior::default_of(&controller);
        assert_eq!(shorter.decide(2, 20, &before, &[], BOUNDS).stabilized, 6);
        assert_eq!(shorter.tolerances(), Tolerances { up: 0.2, down: 0.2 });
    }
}
