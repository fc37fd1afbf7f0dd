//! Flags of retention, and the file of its rules.
//!
//! ```yaml
//! # The first rule that matches a series is its rule; the rest falls under --retention and --rollups.
//! rules:
//!   - class: cpu                              # a directory on disk: lower case letters, digits, - and _
//!     match: '{__name__=~"cpu|container_cpu_.*", namespace!="dev"}'    # a series selector
//!     keep: 30d                               # of samples; off: for ever
//!     rollups: {5m: 90d, 1h: 400d}            # min, max, sum, count and last of each window, and how long
//!   - class: debug
//!     match: '{__name__=~"debug_.*"}'
//!     keep: 1d
//! ```
//!
//! The server reads the file again when it changes. What is wrong is told with its line; then the rules
//! before hold on.

use super::yaml::{self, FILE_BYTES_MAX};
use crate::series_selector;
use crate::time::{parse_duration, whole_ms};
use clap::Args;
use lookback_storage::{KeepMs, Options, RetentionRule, RollupWindows, SizeMax};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Flags of retention.
#[derive(Clone, Debug, Args)]
pub struct RetentionArgs {
    /// How long samples are kept: 15d, 8w, or off to keep them for ever. What no rule says otherwise of.
    #[arg(long, value_name = "DURATION|off", env = "LOOKBACK_RETENTION", default_value = "15d",
          value_parser = retention)]
    pub retention: Retention,

    /// What is rolled up of them, and how long that is kept, separated by commas: 5m=90d,1h=400d
    /// [default: nothing].
    #[arg(long, value_name = "WINDOW=DURATION", env = "LOOKBACK_ROLLUPS", value_delimiter = ',',
          value_parser = rollup)]
    pub rollups: Vec<Rollup>,

    /// Rules that keep series by their labels, YAML. Read again when it changes.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_RETENTION_RULES")]
    pub retention_rules: Option<PathBuf>,

    /// The most that the data may take: 50GiB, or 80% of its volume. The oldest days go before it takes
    /// more [default: no limit].
    #[arg(long, value_name = "SIZE|%", env = "LOOKBACK_RETENTION_SIZE", value_parser = size_max)]
    pub retention_size: Option<SizeMax>,
}

/// How long samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// This long.
    AtLeast(Duration),
    /// For ever.
    Off,
}

impl Retention {
    fn keep_ms(self) -> KeepMs {
        match self {
            Self::AtLeast(retention) => Some(whole_ms(retention)),
            Self::Off => None,
        }
    }
}

/// Rollups of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollup {
    window_ms: i64,
    keep: Retention,
}

impl RetentionArgs {
    /// Sets the engine's options.
    pub fn apply(&self, options: &mut Options) {
        options.retention_ms = self.retention.keep_ms();
        options.rollups =
            self.rollups.iter().map(|rollup| (rollup.window_ms, rollup.keep.keep_ms())).collect();
        options.size_max = self.retention_size;
    }
}

/// Why a file of rules can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the retention rules {}: {problem}", path.display())]
pub struct RulesError {
    path: PathBuf,
    problem: String,
}

impl RulesError {
    /// Of the file at `path`.
    #[must_use]
    pub fn new(path: &Path, problem: impl ToString) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// The text of a file of rules.
///
/// # Errors
/// When it can't be read or is too large.
pub fn read_rules_file(path: &Path) -> Result<String, RulesError> {
    let text = yaml::read_text(path).map_err(|error| RulesError::new(path, error))?;
    text.ok_or_else(|| RulesError::new(path, format!("larger than {FILE_BYTES_MAX} bytes")))
}

/// The rules in a file's text.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse_rules(path: &Path, text: &str) -> Result<Vec<RetentionRule>, RulesError> {
    parse(text).map_err(|problem| RulesError::new(path, problem))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rules: Vec<Spanned<FileRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    class: String,
    r#match: String,
    keep: String,
    #[serde(default)]
    rollups: BTreeMap<String, String>,
}

fn parse(text: &str) -> Result<Vec<RetentionRule>, String> {
    let file: File = yaml::parse(text)?;
    let rule = |spanned: Spanned<FileRule>| {
        let line = spanned.referenced.line();
        spanned.value.into_rule().map_err(|problem| format!("line {line}: {problem}"))
    };
    file.rules.into_iter().map(rule).collect()
}

impl FileRule {
    fn into_rule(self) -> Result<RetentionRule, String> {
        let mut rollups = RollupWindows::new();
        for (window, keep) in &self.rollups {
            let Rollup { window_ms, keep } = rollup_of(window, keep)?;
            rollups.insert(window_ms, keep.keep_ms());
        }
        Ok(RetentionRule {
            class: self.class,
            matchers: series_selector::parse(&self.r#match).map_err(|error| format!("match: {error}"))?,
            keep_ms: retention(&self.keep).map_err(|error| format!("keep: {error}"))?.keep_ms(),
            rollups,
        })
    }
}

fn retention(text: &str) -> Result<Retention, String> {
    if text == "off" {
        return Ok(Retention::Off);
    }
    super::duration(text).map(Retention::AtLeast).map_err(|error| format!("{error}, or off"))
}

fn rollup(text: &str) -> Result<Rollup, String> {
    let (window, keep) = text.split_once('=').ok_or("write WINDOW=DURATION, such as 5m=90d")?;
    rollup_of(window, keep)
}

fn rollup_of(window: &str, keep: &str) -> Result<Rollup, String> {
    let window_ms = parse_duration(window).map_err(|error| format!("rollups: {error}"))?;
    // Reads of an hour or a day are then answered from any of them.
    const WINDOWS: [i64; 7] = [60_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 21_600_000];
    if !WINDOWS.contains(&window_ms) {
        return Err(format!(
            "rollups: a window of {window} is not possible: use 1m, 5m, 10m, 15m, 30m, 1h or 6h"
        ));
    }
    Ok(Rollup { window_ms, keep: retention(keep).map_err(|error| format!("rollups: {error}"))? })
}

/// Bytes with a unit, or percent.
fn size_max(text: &str) -> Result<SizeMax, String> {
    const ACCEPTED: &str =
        "use a size such as 50GiB, 500MB or 1073741824, or a part of the volume such as 80%";
    let Some(percent) = text.strip_suffix('%') else {
        return size(text).map(SizeMax::Bytes).map_err(|_| ACCEPTED.to_owned());
    };
    let percent = percent.trim().parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
    percent.map(SizeMax::VolumePercent).ok_or_else(|| ACCEPTED.to_owned())
}

/// A size in bytes, with or without a unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let refused = || "use a size such as 50GiB, 500MB or 1073741824".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1 << 40,
        _ => return Err(refused()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::Labels;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn the_documented_file_is_read() {
        let documented: String = include_str!("retention.rs")
            .lines()
            .skip_while(|line| *line != "//! ```yaml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").strip_prefix(' ').unwrap_or_default()))
            .collect();
        let rules = parse(&documented).expect("read");
        assert_eq!(rules.iter().map(|rule| rule.class.as_str()).collect::<Vec<_>>(), ["cpu", "debug"]);
        assert_eq!(rules[0].keep_ms, Some(30 * DAY_MS));
        let rollups = [(300_000, Some(90 * DAY_MS)), (3_600_000, Some(400 * DAY_MS))];
        assert_eq!(rules[0].rollups, RollupWindows::from(rollups));
        let labels = |namespace| Labels::new([("__name__", "cpu"), ("namespace", namespace)]).expect("valid");
        let matches = |namespace| rules[0].matchers.iter().all(|matcher| matcher.matches(&labels(namespace)));
        assert!(matches("prod") && !matches("dev"));
        assert!(parse("").expect("no rules").is_empty() && parse("rules: []").expect("none").is_empty());
        assert_eq!(parse("rules: [{class: a, match: m, keep: off}]").expect("read")[0].keep_ms, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, said) in [
            ("rule: []\n", "rule"),
            ("rules:\n  - {class: a, match: m}\n", "keep"),
            ("rules:\n  - {class: a, match: m, keep: soon}\n", "soon"),
            ("rules:\n  - {class: a, match: 'm{', keep: 1d}\n", "m{"),
            ("rules:\n  - {class: a, match: m, keep: 1d, rollups: {7m: 1d}}\n", "7m"),
            ("rules:\n  - {class: a, match: m, keep: 1d, rollups: {5m: x}}\n", "x"),
            ("rules: [\n", ""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("line ") && error.contains(said), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = read_rules_file(Path::new("/nowhere/rules.yaml")).expect_err("refused");
        assert!(error.to_string().contains("/nowhere/rules.yaml"), "{error}");
    }

    #[test]
    fn sizes_are_bytes_or_parts_of_the_volume() {
        for (text, size) in [
            ("1024", SizeMax::Bytes(1_024)),
            ("50GiB", SizeMax::Bytes(50 << 30)),
            ("50Gi", SizeMax::Bytes(50 << 30)),
            ("5 MB", SizeMax::Bytes(5_000_000)),
            ("80%", SizeMax::VolumePercent(80.0)),
        ] {
            assert_eq!(size_max(text), Ok(size), "{text}");
        }
        for text in ["", "0", "GiB", "-1GiB", "1.5GiB", "0%", "101%", "NaN%", "9999999999TiB", "10 apples"] {
            assert!(size_max(text).expect_err(text).contains("50GiB"), "{text}");
        }
    }

    #[test]
    fn a_rollup_flag_is_a_window_and_how_long_it_is_kept() {
        assert_eq!(rollup("1h=off"), Ok(Rollup { window_ms: 3_600_000, keep: Retention::Off }));
        for text in ["5m", "5m=", "7m=1d", "=1d", "5m=1d=2d"] {
            assert!(rollup(text).is_err(), "{text}");
        }
    }
}
