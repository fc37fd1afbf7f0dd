//! Flags of `lookback delete`. What is deleted is said on the command line only: a variable that was left
//! over from another time must not delete anything.

use super::LogArgs;
use super::selection::{Selector, SpanArgs, selector};
use clap::Args;
use std::path::PathBuf;

/// Flags of `lookback delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteCommand {
    /// Where the data is kept. No server may hold it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// Which series: a selector such as cpu{namespace="shop"}. Once or more.
    #[arg(long = "match", value_name = "SELECTOR", required = true, value_parser = selector)]
    pub selectors: Vec<Selector>,

    /// From when to when.
    #[command(flatten)]
    pub span: SpanArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
