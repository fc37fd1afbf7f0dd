//! Flags of `lookback migrate`. The engine is named by the flags that a server has for it.

use super::delete::{Selector, selector, time};
use super::{EngineArgs, LogArgs};
use clap::Args;
use std::path::PathBuf;

/// Flags of `lookback migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    /// Where the data is kept. No server may hold it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// Where it goes.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Which series: a selector such as cpu{namespace="shop"}. Once or more [default: all].
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selector)]
    pub selectors: Vec<Selector>,

    /// Samples from this time on, Unix seconds or RFC 3339 [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub start: Option<i64>,

    /// Samples up to this time [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub end: Option<i64>,

    /// Most samples that the engine may refuse for good: they are set aside, and `lookback outbox` lists them.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub refused_max: u64,

    /// Ask the engine before each request what it holds already, and send what it lacks: to find out whether
    /// everything is there, or after the engine lost its last seconds.
    #[arg(long)]
    pub only_missing: bool,

    /// Begin anew, wherever the migration before stands.
    #[arg(long)]
    pub restart: bool,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}
