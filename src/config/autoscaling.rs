//! How the cluster's autoscaling is set: flags of kube-controller-manager, under its own names.

use crate::kubernetes::controller_settings::ControllerSettings;
use crate::time::{parse_duration_or_zero, whole_ms};
use clap::Args;
use std::time::Duration;

/// What kube-controller-manager is told, for those who compute what autoscalers make of answers.
#[derive(Clone, Debug, Args)]
pub struct AutoscalingArgs {
    /// As kube-controller-manager has it: how far a ratio to a target may lie from 1 before anything is changed
    /// [default: 0.1].
    #[arg(long, value_name = "PART", env = "LOOKBACK_HORIZONTAL_POD_AUTOSCALER_TOLERANCE", value_parser = part)]
    pub horizontal_pod_autoscaler_tolerance: Option<f64>,

    /// As kube-controller-manager has it: for how long the most counts on the way down [default: 5m].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_HORIZONTAL_POD_AUTOSCALER_DOWNSCALE_STABILIZATION",
          value_parser = period)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Option<Duration>,

    /// As kube-controller-manager has it: for how long a pod's start may take CPU that is no load [default: 5m].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_HORIZONTAL_POD_AUTOSCALER_CPU_INITIALIZATION_PERIOD",
          value_parser = period)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Option<Duration>,

    /// As kube-controller-manager has it: a pod that was not ready so soon after its start was never ready
    /// [default: 30s].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_HORIZONTAL_POD_AUTOSCALER_INITIAL_READINESS_DELAY",
          value_parser = period)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Option<Duration>,
}

impl AutoscalingArgs {
    /// The defaults, changed by flags.
    #[must_use]
    pub fn settings(&self) -> ControllerSettings {
        let default = ControllerSettings::default();
        let seconds = |period: Duration| u32::try_from(period.as_secs()).unwrap_or(u32::MAX);
        ControllerSettings {
            tolerance: self.horizontal_pod_autoscaler_tolerance.unwrap_or(default.tolerance),
            down_stabilization_seconds: self
                .horizontal_pod_autoscaler_downscale_stabilization
                .map_or(default.down_stabilization_seconds, seconds),
            cpu_initialization_ms: self
                .horizontal_pod_autoscaler_cpu_initialization_period
                .map_or(default.cpu_initialization_ms, whole_ms),
            initial_readiness_ms: self
                .horizontal_pod_autoscaler_initial_readiness_delay
                .map_or(default.initial_readiness_ms, whole_ms),
        }
    }
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|part| part.is_finite() && *part >= 0.0);
    part.ok_or_else(|| format!("{text:?} is no part such as 0.1"))
}

fn period(text: &str) -> Result<Duration, String> {
    let period_ms = parse_duration_or_zero(text).map_err(|error| error.to_string())?;
    u64::try_from(period_ms).map(Duration::from_millis).map_err(|error| error.to_string())
}
