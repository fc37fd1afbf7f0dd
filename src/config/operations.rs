//! Flags of the commands that work on a data directory as a whole.

use super::{LogArgs, StoreArgs};
use clap::Args;
use std::path::PathBuf;

/// Flags of `lookback verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The data directory; a server may be running on it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// Write the result as JSON.
    #[arg(long)]
    pub json: bool,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `lookback backup`.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// Where the backup goes: a new directory, or that of an earlier backup, which is brought up to date; or `-`
    /// for a tar on standard output.
    pub to: PathBuf,

    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `lookback restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The directory of the backup; or `-` for a tar on standard input.
    pub from: PathBuf,

    /// The data directory of the new store: empty, or not there yet.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
