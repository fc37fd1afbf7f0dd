//! Flags of `lookback shadow`.

use super::registration::KubeconfigArgs;
use super::{AutoscalingArgs, LogArgs};
use crate::kubernetes::adapter::AdapterAddress;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// How the report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// The whole state, as JSON.
    Json,
}

/// Flags of `lookback shadow`.
#[derive(Clone, Debug, Args)]
pub struct ShadowArgs {
    /// The cluster, and whom its present adapter sees.
    #[command(flatten)]
    pub cluster: KubeconfigArgs,

    /// Lookback's Kubernetes APIs: its secure port, or without a cluster its plain one.
    #[arg(
        long,
        value_name = "NAMESPACE/SERVICE[:PORT]|URL",
        env = "LOOKBACK_SERVER",
        default_value = "lookback/lookback"
    )]
    pub server: AdapterAddress,

    /// The CA of Lookback's certificate, PEM.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_SERVER_CA_FILE")]
    pub server_ca_file: Option<PathBuf>,

    /// The name that Lookback's certificate is for [default: SERVICE.NAMESPACE.svc, or the URL's host].
    #[arg(long, value_name = "NAME", env = "LOOKBACK_SERVER_NAME")]
    pub server_name: Option<String>,

    /// A file with the bearer token to show to Lookback; its user must be allowed to read all metrics.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Only the autoscalers of this namespace [default: all].
    #[arg(long, value_name = "NAMESPACE", env = "LOOKBACK_NAMESPACE")]
    pub namespace: Option<String>,

    /// From one round to the next.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_INTERVAL", default_value = "30s", value_parser = super::duration)]
    pub interval: Duration,

    /// For how long [default: until it is stopped].
    #[arg(long = "for", value_name = "DURATION", env = "LOOKBACK_FOR", value_parser = super::duration)]
    pub duration: Option<Duration>,

    /// How many rounds in all, with those in the state file [default: no limit].
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_ROUNDS")]
    pub rounds: Option<u64>,

    /// How long each answer may take.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_TIMEOUT", default_value = "10s", value_parser = super::duration)]
    pub timeout: Duration,

    /// How far values may differ before they count as different, as a part of the larger one.
    #[arg(long, value_name = "PART", env = "LOOKBACK_VALUE_TOLERANCE", default_value_t = 0.05)]
    pub value_tolerance: f64,

    /// Where it is kept what was found, after each round; read again at the start.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_STATE_FILE", default_value = "lookback-shadow.json")]
    pub state_file: PathBuf,

    /// Only report what the state file has.
    #[arg(long, env = "LOOKBACK_REPORT")]
    pub report: bool,

    /// How the report looks.
    #[arg(long, value_name = "FORM", env = "LOOKBACK_OUTPUT", default_value = "text")]
    pub output: Output,

    /// How the cluster's autoscaling is set.
    #[command(flatten)]
    pub autoscaling: AutoscalingArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
