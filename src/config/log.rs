//! Flags of logging.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Flags of logging. Logs go to stderr.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", env = "LOOKBACK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or by target as in info,lookback::http=debug.
    #[arg(long, value_name = "LEVEL", env = "LOOKBACK_LOG_LEVEL", default_value = "info")]
    pub log_level: Targets,

    /// How much Lookback itself logs, as Kubernetes counts: from 4 on debug, from 6 on trace. Adds to
    /// --log-level.
    #[arg(long = "v", value_name = "LEVEL", env = "LOOKBACK_V")]
    pub v: Option<u8>,
}

impl LogArgs {
    /// What is logged.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let level = match self.v.unwrap_or_default() {
            0..=3 => return self.log_level.clone(),
            4 | 5 => LevelFilter::DEBUG,
            6.. => LevelFilter::TRACE,
        };
        self.log_level.clone().with_target("lookback", level)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
