//! Flags of `lookback export`.

use super::{LogArgs, SelectionArgs};
use clap::Args;
use std::path::PathBuf;

/// Flags of `lookback export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The file to write, compressed if its name ends in .gz; `-` for standard output.
    #[arg(default_value = "-")]
    pub file: PathBuf,

    /// What of which data directory.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// Compress, whatever the file's name.
    #[arg(long)]
    pub gzip: bool,

    /// Write only what every reader of OpenMetrics understands: each NaN as NaN, and no staleness markers.
    /// Else `lookback import` brings back the bits.
    #[arg(long)]
    pub plain: bool,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
