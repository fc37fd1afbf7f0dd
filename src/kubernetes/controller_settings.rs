//! How kube-controller-manager's autoscaling is set, with its own defaults: facts of
//! `pkg/controller/podautoscaler/config/v1alpha1/defaults.go` of Kubernetes 1.36.

/// What its flags `--horizontal-pod-autoscaler-…` say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControllerSettings {
    /// The ratio to a target may differ so much from 1 before anything is changed.
    pub tolerance: f64,
    /// For how long the most counts on the way down, in seconds, where an autoscaler says nothing else.
    pub down_stabilization_seconds: u32,
    /// For how long after its start what a pod uses of `cpu` does not count while it is not ready, in milliseconds.
    pub cpu_initialization_ms: i64,
    /// A pod that was found not ready so soon after its start was never ready, in milliseconds.
    pub initial_readiness_ms: i64,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            down_stabilization_seconds: 300,
            cpu_initialization_ms: 300_000,
            initial_readiness_ms: 30_000,
        }
    }
}
