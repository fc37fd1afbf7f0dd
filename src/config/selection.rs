//! Flags that choose series and times of a data directory.

use crate::series_selector;
use crate::time::{UnixUnit, parse_timestamp};
use clap::Args;
use lookback_storage::{Labels, Matcher, Selection};
use std::path::PathBuf;

/// Which part of a data directory: all of it, or what fits.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    /// Where the data is kept. No server may hold it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// Which series: a selector such as cpu{namespace="shop"}. Once or more [default: all].
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selector)]
    pub selectors: Vec<Selector>,

    /// From when to when.
    #[command(flatten)]
    pub span: SpanArgs,
}

/// From when to when, Unix milliseconds. They are said on the command line only.
#[derive(Clone, Copy, Debug, Args)]
pub struct SpanArgs {
    /// Samples from this time on, Unix seconds or RFC 3339 [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub start: Option<i64>,

    /// Samples up to this time [default: all].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub end: Option<i64>,
}

impl SpanArgs {
    /// The first and the last millisecond; those that are not said are the outermost ones.
    #[must_use]
    pub fn bounds_ms(self) -> (i64, i64) {
        (self.start.unwrap_or(i64::MIN), self.end.unwrap_or(i64::MAX))
    }
}

/// The matchers of a selector.
#[derive(Clone, Debug)]
pub struct Selector(pub Vec<Matcher>);

impl Selector {
    /// Whether a series is selected.
    #[must_use]
    pub fn fits(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.matches(labels))
    }

    /// What any of the selectors selects; none: everything. `any` says whether one of them fits.
    pub fn selection<'a>(selectors: &'a [Self], any: &'a (dyn Fn(&Labels) -> bool + Sync)) -> Selection<'a> {
        match selectors {
            [] => Selection { matchers: &[], visible: None },
            [Self(matchers)] => Selection { matchers, visible: None },
            _ => Selection { matchers: &[], visible: Some(any) },
        }
    }
}

pub(super) fn selector(text: &str) -> Result<Selector, String> {
    series_selector::parse(text).map(Selector).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<i64, String> {
    parse_timestamp(text, UnixUnit::Seconds).map_err(|error| error.to_string())
}
