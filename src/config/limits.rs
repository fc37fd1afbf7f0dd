//! Flags of the bounds on series and memory.

use super::count;
use super::retention::size;
use clap::Args;
use lookback_storage::{Options, SeriesLimits};

/// Flags of the bounds on series and memory.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitsArgs {
    /// Most series in all. At the bound new ones are refused with 429, the others go on [default: no bound].
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_SERIES_MAX", value_parser = count)]
    pub series_max: Option<usize>,

    /// Most series of one namespace, likewise [default: no bound].
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_SERIES_PER_NAMESPACE_MAX", value_parser = count)]
    pub series_per_namespace_max: Option<usize>,

    /// Once the process takes this much memory, new series are refused with 429: 400MiB
    /// [default: 90% of the container's limit, if it has one].
    #[arg(long, value_name = "SIZE", env = "LOOKBACK_MEMORY_MAX", value_parser = size)]
    pub memory_max: Option<u64>,
}

impl LimitsArgs {
    /// Sets the engine's options.
    pub fn apply(&self, options: &mut Options) {
        options.series_limits = SeriesLimits {
            all: self.series_max.map(|max| max as u64),
            per_namespace: self.series_per_namespace_max.map(|max| max as u64),
        };
    }
}
