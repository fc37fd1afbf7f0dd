//! Flags of prometheus-adapter: its rules, and where they look.

use super::prometheus::named as named_server;
use super::{LogArgs, NamedServer, duration};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of rules.
#[derive(Clone, Debug, Args)]
pub struct RulesArgs {
    /// Rules that name metrics and say how to query them, YAML as prometheus-adapter reads it; read again when it
    /// changes.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_CONFIG")]
    pub config: Option<PathBuf>,

    /// How often it is looked which series there are for the rules [default: 30s in the own store,
    /// 1m in servers].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_METRICS_RELIST_INTERVAL", value_parser = duration)]
    pub metrics_relist_interval: Option<Duration>,

    /// How far back a series' samples may lie for it to be there [default: the relist interval, 5m at the least].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_METRICS_MAX_AGE", value_parser = duration)]
    pub metrics_max_age: Option<Duration>,
}

/// Flags of `lookback check-config`.
#[derive(Clone, Debug, Args)]
pub struct CheckConfigArgs {
    /// The file of rules.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The servers that its rules choose from, as `lookback serve` has them; none: the own store. Nobody is asked.
    #[arg(long, value_name = "[NAME=]URL", env = "LOOKBACK_PROMETHEUS_URL", value_delimiter = ',',
          value_parser = named_server)]
    pub prometheus_url: Vec<NamedServer>,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
