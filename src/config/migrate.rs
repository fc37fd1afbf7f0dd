//! Flags of `lookback migrate`. The engine is named by the flags that a server has for it.

use super::{EngineArgs, LogArgs, SelectionArgs};
use clap::Args;

/// Flags of `lookback migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    /// What of which data directory.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// Where it goes.
    #[command(flatten)]
    pub engine: EngineArgs,

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
