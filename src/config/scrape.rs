//! Flags of the scraper.

use super::duration;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of what Lookback scrapes itself.
#[derive(Clone, Debug, Default, Args)]
pub struct ScrapeArgs {
    /// Targets to scrape, YAML in the words of Prometheus' configuration; read again when it changes.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_SCRAPE_CONFIG")]
    pub scrape_config: Option<PathBuf>,

    /// Scrape the cluster's pods that are annotated prometheus.io/scrape: "true".
    #[arg(long, env = "LOOKBACK_SCRAPE_PODS")]
    pub scrape_pods: bool,

    /// How often annotated pods are scraped [default: 1m].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_SCRAPE_PODS_INTERVAL", value_parser = duration)]
    pub scrape_pods_interval: Option<Duration>,
}
