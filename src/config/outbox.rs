//! Flags of `lookback outbox`.

use super::LogArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Flags of `lookback outbox`.
#[derive(Clone, Debug, Args)]
pub struct OutboxArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: OutboxCommand,
}

/// What `lookback outbox` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum OutboxCommand {
    /// Show what the engine refused for good, beside a running server or without one.
    List(OutboxDirArgs),
    /// Put it back into the outbox, to be sent again, while no server runs.
    Replay(OutboxDirArgs),
}

/// Where the outbox is.
#[derive(Clone, Debug, Args)]
pub struct OutboxDirArgs {
    /// The data directory of a server with --store prometheus.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

impl OutboxCommand {
    /// How logs look.
    #[must_use]
    pub fn log(&self) -> &LogArgs {
        match self {
            Self::List(args) | Self::Replay(args) => &args.log,
        }
    }
}
