//! Flags of PromQL.

use super::{count, duration};
use crate::app::QuerySettings;
use clap::Args;
use std::time::Duration;

/// How PromQL is evaluated.
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// How long a PromQL query may take; a caller can ask for less.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_QUERY_TIMEOUT", default_value = "2m",
          value_parser = duration)]
    pub query_timeout: Duration,

    /// How many PromQL queries are evaluated at once; others wait for their turn.
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_QUERY_CONCURRENCY", default_value = "20",
          value_parser = count)]
    pub query_concurrency: usize,

    /// How old a sample may be that stands for its series at an instant of a PromQL query.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_QUERY_LOOKBACK_DELTA", default_value = "5m",
          value_parser = duration)]
    pub query_lookback_delta: Duration,

    /// The step of a PromQL subquery that says none.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_QUERY_EVALUATION_INTERVAL", default_value = "1m",
          value_parser = duration)]
    pub query_evaluation_interval: Duration,

    /// Take metric names off at the end of a PromQL query instead of with each function, as Prometheus
    /// does with its feature promql-delayed-name-removal.
    #[arg(long, env = "LOOKBACK_QUERY_DELAYED_NAME_REMOVAL")]
    pub query_delayed_name_removal: bool,
}

impl QueryArgs {
    /// What they mean.
    pub(super) fn settings(&self) -> QuerySettings {
        QuerySettings {
            timeout: self.query_timeout,
            concurrency: self.query_concurrency,
            lookback_delta: self.query_lookback_delta,
            evaluation_interval: self.query_evaluation_interval,
            delayed_name_removal: self.query_delayed_name_removal,
        }
    }
}
