//! Lookback's own settings file, YAML.
//!
//! ```yaml
//! # What is not said keeps its default.
//! usage_sources:          # a metric that is named here replaces the list it has by default
//!   cpu:
//!     - series: cpu
//!     - series: container_cpu_usage_seconds_total
//!       counter: true     # read as a rate a second
//! freshness: 5m           # samples older than this are not served as a latest value
//! metric_rules:           # latest values: the first rule that fits decides, what it leaves out is as default
//!   - metric: queue_*     # '*' stands for any run of characters
//!     namespace: shop     # left out: any
//!     resource: pods      # left out: any
//!     freshness: 2m       # samples older than this are stale
//!     hold: 10m           # then the last value is served, and marked, for this long; left out: not at all
//!   - metric: http_requests_total
//!     rate_window: 1m     # a counter: its rate a second over this window is served
//! store_timeout: 30s      # how long one call of the store may take
//! points_max: 50000       # points a series in one range answer
//! samples_max: 50000000   # samples that one read of the store may take
//! body_bytes_max: 33554432        # request body, as sent
//! decoded_bytes_max: 134217728    # request body, decompressed
//! request_bytes_max: 536870912    # what all requests under way may take together
//! discovery_max: 2000     # resource/metric entries in discovery
//! ```
//!
//! Unknown fields are refused; errors tell the line and column.

use super::yaml::{self, FILE_BYTES_MAX};
use crate::app::{Settings, UsageSource};
use crate::query::freshness::{MetricRule, Pattern};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why a settings file can't be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// It can't be read.
    #[error("the settings file {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// It is larger than any sensible one.
    #[error("the settings file {} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not what is documented.
    #[error("the settings file {} is wrong: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    usage_sources: Option<BTreeMap<String, Vec<UsageSource>>>,
    freshness: Option<PlainDuration>,
    metric_rules: Option<Vec<FileRule>>,
    store_timeout: Option<PlainDuration>,
    points_max: Option<NonZeroUsize>,
    samples_max: Option<NonZeroUsize>,
    body_bytes_max: Option<NonZeroUsize>,
    decoded_bytes_max: Option<NonZeroUsize>,
    request_bytes_max: Option<NonZeroUsize>,
    discovery_max: Option<NonZeroUsize>,
}

/// A rule for latest values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    metric: String,
    namespace: Option<String>,
    resource: Option<String>,
    freshness: Option<PlainDuration>,
    hold: Option<PlainDuration>,
    rate_window: Option<PlainDuration>,
}

impl FileRule {
    fn rule(self) -> Result<MetricRule, String> {
        let metric = self.metric;
        if metric.is_empty() {
            return Err("metric_rules: a rule has an empty metric: name one, or * for all".to_owned());
        }
        if self.rate_window.is_some_and(|window| window.0.subsec_millis() != 0) {
            return Err(format!(
                "metric_rules: the rate_window of {metric:?} is to be in whole seconds: answers carry it so"
            ));
        }
        let pattern = |text: Option<String>| text.map_or_else(Pattern::any, Pattern::new);
        Ok(MetricRule {
            metric: Pattern::new(metric),
            namespace: pattern(self.namespace),
            resource: pattern(self.resource),
            freshness: self.freshness.map(|duration| duration.0),
            hold: self.hold.map(|duration| duration.0),
            rate_window: self.rate_window.map(|duration| duration.0),
        })
    }
}

/// A duration as flags take it.
#[derive(Clone, Copy, Debug)]
struct PlainDuration(Duration);

impl<'de> Deserialize<'de> for PlainDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Changes `settings` as the file at `path` says.
pub(super) fn apply(path: &Path, settings: &mut Settings) -> Result<(), SettingsError> {
    let text = yaml::read_text(path)
        .map_err(|reason| SettingsError::Unreadable { path: path.to_owned(), reason })?
        .ok_or_else(|| SettingsError::TooLarge { path: path.to_owned() })?;
    apply_text(&text, settings).map_err(|problem| SettingsError::Wrong { path: path.to_owned(), problem })
}

fn apply_text(text: &str, settings: &mut Settings) -> Result<(), String> {
    let file: SettingsFile = yaml::parse(text)?;
    for (metric, sources) in file.usage_sources.unwrap_or_default() {
        if metric.is_empty() || sources.iter().any(|source| source.series.is_empty()) {
            return Err(format!("usage_sources: {metric:?} has an empty name"));
        }
        if sources.is_empty() {
            return Err(format!("usage_sources: {metric:?} has no series: name at least one"));
        }
        settings.usage_sources.insert(metric, sources);
    }
    if let Some(rules) = file.metric_rules {
        settings.metric_rules = rules.into_iter().map(FileRule::rule).collect::<Result<_, _>>()?;
    }
    let durations =
        [(file.freshness, &mut settings.freshness), (file.store_timeout, &mut settings.store_timeout)];
    for (given, setting) in durations {
        *setting = given.map_or(*setting, |duration| duration.0);
    }
    for (given, setting) in [
        (file.points_max, &mut settings.points_max),
        (file.samples_max, &mut settings.samples_max),
        (file.body_bytes_max, &mut settings.body_bytes_max),
        (file.decoded_bytes_max, &mut settings.decoded_bytes_max),
        (file.request_bytes_max, &mut settings.request_bytes_max),
        (file.discovery_max, &mut settings.discovery_max),
    ] {
        *setting = given.map_or(*setting, NonZeroUsize::get);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        apply_text(text, &mut settings).map(|()| settings)
    }

    #[test]
    fn the_documented_file_is_read() {
        let documented: String = include_str!("settings_file.rs")
            .lines()
            .skip_while(|line| *line != "//! ```yaml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").strip_prefix(' ').unwrap_or_default()))
            .collect();
        let settings = applied(&documented).expect("read");
        let defaults = Settings::default();
        let queue = settings.latest_policies().of("queue_length", "shop", "pods");
        assert_eq!((queue.freshness_ms, queue.hold_ms, queue.rate_window), (120_000, 600_000, None));
        let requests = settings.latest_policies().of("http_requests_total", "", "nodes");
        assert_eq!(requests.rate_window, Some(Duration::from_secs(60)));
        assert_eq!(settings.usage_sources["cpu"].len(), 2);
        assert!(settings.usage_sources["cpu"][1].counter);
        assert_eq!(settings.usage_sources["memory"], defaults.usage_sources["memory"]);
        assert_eq!(
            Settings { usage_sources: defaults.usage_sources.clone(), metric_rules: Vec::new(), ..settings },
            defaults,
            "the documented defaults are the defaults"
        );
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        for text in ["", "# nothing\n", "{}"] {
            assert_eq!(applied(text).expect("read"), Settings::default(), "{text:?}");
        }
        assert_eq!(applied("freshness: 90").expect("read").freshness, Duration::from_secs(90));
        assert_eq!(applied("points_max: 12").expect("read").points_max, 12);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, said) in [
            ("points_max: 1\nfreshnes: 5m\n", "freshnes"),
            ("points_max: 1\nfreshness: soon\n", "soon"),
            ("freshness: 5m\npoints_max: 0\n", "zero"),
            ("freshness: 5m\npoints_max: many\n", ""),
            ("usage_sources:\n  cpu:\n    - serie: x\n", "serie"),
            ("freshness: 5m\nfreshness: 6m\n", "freshness"),
            ("freshness: 5m\n points_max: [\n", ""),
        ] {
            let error = applied(text).expect_err(text);
            assert!(error.contains("line ") && error.contains(said), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        for (rule, said) in [
            ("{metric: ''}", "empty metric"),
            ("{namespace: x}", "metric"),
            ("{metric: m, rate_window: 1500ms}", "whole seconds"),
            ("{metric: m, hold: 0}", "zero"),
        ] {
            let error = applied(&format!("metric_rules: [{rule}]")).expect_err(rule);
            assert!(error.contains(said), "{rule}: {error}");
        }
        assert!(applied("usage_sources: {cpu: []}").expect_err("refused").contains("at least one"));
        assert!(applied("usage_sources: {cpu: [{series: ''}]}").expect_err("refused").contains("empty"));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_with_its_path() {
        let error =
            apply(Path::new("/nowhere/lookback.yaml"), &mut Settings::default()).expect_err("refused");
        assert!(error.to_string().contains("/nowhere/lookback.yaml can't be read"), "{error}");
    }
}
