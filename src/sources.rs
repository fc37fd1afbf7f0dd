//! What Lookback fetches itself, beside what is pushed.
//!
//! - [`scrape`] asks targets for what they expose, as Prometheus does.
//! - [`kubelet`] asks the cluster's kubelets what containers, pods and nodes use.
//! - [`ownership`] follows who owns which pods.

pub mod kubelet;
pub mod ownership;
mod schedule;
pub mod scrape;
