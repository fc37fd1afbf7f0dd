//! Flags of `lookback export`.

use super::LogArgs;
use super::delete::{Selector, selector, time};
use clap::Args;
use std::path::PathBuf;

/// Flags of `lookback export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The file to write, compressed if its name ends in .gz; `-` for standard output.
    #[arg(default_value = "-")]
    pub file: PathBuf,

    /// Where the data is kept. No server may hold it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// Which series: a selector such as cpu{namespace="shop"}. Once or more [default: all].
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selector)]
    pub selectors: Vec<Selector>,

    /// Samples from this time on, Unix seconds or RFC 3339 [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub start: Option<i64>,

    /// Samples up to this time [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub end: Option<i64>,

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
