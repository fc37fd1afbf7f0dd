//! Flags of `lookback inspect`.

use super::LogArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of `lookback inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The data directory; a server may be running on it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// How the result is written.
    #[arg(long, value_name = "FORM", env = "LOOKBACK_OUTPUT", default_value = "text")]
    pub output: Output,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Text,
    /// One JSON object.
    Json,
}
