//! Flags of `lookback explain`.

use super::LogArgs;
use super::registration::service;
use crate::kubernetes::registration::ServiceName;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Flags of `lookback explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// What is to be explained.
    #[command(subcommand)]
    pub what: ExplainCommand,

    /// The plain port of the running Lookback.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LOOKBACK_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,

    /// A file with the bearer token to show there.
    #[arg(long, global = true, value_name = "FILE", env = "LOOKBACK_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What can be explained.
#[derive(Clone, Debug, Subcommand)]
pub enum ExplainCommand {
    /// An autoscaler: what it asks, what it is answered, and what it makes of it.
    Hpa {
        /// Which.
        #[arg(value_name = "NAMESPACE/NAME", value_parser = service)]
        name: ServiceName,

        /// At that moment in the past, as 2026-11-22T09:02:00Z or in Unix seconds [default: now].
        #[arg(long, value_name = "TIME", env = "LOOKBACK_AT")]
        at: Option<String>,
    },
}
