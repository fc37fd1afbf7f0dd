//! Scripts in the language of Prometheus' own PromQL tests, loaded by remote write and asked over HTTP: those
//! in `tests/promql`, and those in the directory that `LOOKBACK_PROMQLTEST_DIR` names.
//!
//! Native histograms and what Prometheus has behind feature flags are skipped, and counted.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Client, Server};
use common::remote_write::{Label, Sample, TimeSeries, message};
use lookback::time::parse_duration_or_zero;
use lookback_storage::STALENESS_MARKER_BITS;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Labels = BTreeMap<String, String>;

/// How far a value may lie from the expected one, relative to it, as in Prometheus' own runner.
const TOLERANCE: f64 = 1e-6;

/// Values at steps, some of them omitted.
fn parse_values(text: &str) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        if word == "stale" {
            values.push(Some(f64::from_bits(STALENESS_MARKER_BITS)));
            continue;
        }
        let (value, times) = match word.rsplit_once('x') {
            Some((value, times)) if !value.starts_with("0x") => (value, Some(times.parse::<usize>().ok()?)),
            _ => (word, None),
        };
        if value == "_" {
            values.extend(vec![None; times.unwrap_or(1)]);
            continue;
        }
        if value == "stale" {
            values.extend(vec![Some(f64::from_bits(STALENESS_MARKER_BITS)); times? + 1]);
            continue;
        }
        // The sign of a slope, not that of a number or of an exponent.
        let slope_at = value
            .char_indices()
            .skip(1)
            .find(|(at, c)| matches!(c, '+' | '-') && !value[..*at].ends_with(['e', 'E']));
        let (start, slope) = match slope_at.filter(|_| times.is_some()) {
            Some((at, _)) => (number(&value[..at])?, number(&value[at..])?),
            None => (number(value)?, 0.0),
        };
        values.extend((0..=times.unwrap_or(0)).scan(start, |next, _| {
            let value = *next;
            *next += slope;
            Some(Some(value))
        }));
    }
    Some(values)
}

fn number(text: &str) -> Option<f64> {
    text.replace("Inf", "inf").parse().ok()
}

/// `name{label="value"} rest`
fn parse_metric(line: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    if name_end > 0 {
        labels.insert("__name__".to_owned(), line[..name_end].to_owned());
    }
    let Some(mut rest) = line[name_end..].strip_prefix('{') else { return Some((labels, &line[name_end..])) };
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = match rest.starts_with(['"', '\'']) {
            true => quoted(rest)?,
            false => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))?;
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        let after = after.trim_start();
        let Some(value) = after.strip_prefix('=') else {
            labels.insert("__name__".to_owned(), name);
            rest = after;
            continue;
        };
        let (value, after) = quoted(value.trim_start())?;
        // An empty label is none.
        if !value.is_empty() {
            labels.insert(name, value);
        }
        rest = after;
    }
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            '\\' if quote != '`' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                c => c,
            }),
            c => value.push(c),
        }
    }
    None
}

/// What an `eval` asks, and what it expects.
#[derive(Debug, Default)]
struct Eval {
    place: String,
    query: String,
    /// Start, end and step of a range; the instant is a start alone. Milliseconds.
    times_ms: (i64, Option<(i64, i64)>),
    fails: bool,
    says: Option<String>,
    ordered: bool,
    warns: Option<bool>,
    informs: Option<bool>,
    unsupported: bool,
    expected: Vec<(Labels, Vec<Option<f64>>)>,
    scalar: Option<f64>,
    text: Option<String>,
}

impl Eval {
    fn parse(line: &str, place: String) -> Option<Self> {
        let (command, rest) = line.split_once(char::is_whitespace)?;
        let mut eval = Self { place, ..Self::default() };
        match command {
            "eval" => {}
            "eval_fail" => eval.fails = true,
            "eval_ordered" => eval.ordered = true,
            "eval_warn" => eval.warns = Some(true),
            "eval_info" => eval.informs = Some(true),
            _ => return None,
        }
        let time = |text: &str| parse_duration_or_zero(text).ok();
        let mut words = rest.split_whitespace();
        match words.next()? {
            "instant" => {
                let (_, rest) = rest.split_once("at ")?;
                let (at, query) = rest.trim_start().split_once(char::is_whitespace)?;
                eval.times_ms = (time(at)?, None);
                eval.query = query.trim().to_owned();
            }
            "range" => {
                let (_, rest) = rest.split_once("from ")?;
                let (start, rest) = rest.split_once(" to ")?;
                let (end, rest) = rest.split_once(" step ")?;
                let (step, query) = rest.split_once(' ')?;
                eval.times_ms = (time(start.trim())?, Some((time(end.trim())?, time(step)?)));
                eval.query = query.trim().to_owned();
            }
            _ => return None,
        }
        Some(eval)
    }

    fn expect(&mut self, line: &str) -> Option<()> {
        if let Some(expectation) = line.strip_prefix("expect ") {
            let (what, how) = expectation.split_once(char::is_whitespace).unwrap_or((expectation, ""));
            match what {
                "fail" => {
                    self.fails = true;
                    self.says = how.strip_prefix("msg:").map(|text| text.trim().to_owned());
                }
                "ordered" => self.ordered = true,
                "warn" => self.warns = Some(true),
                "no_warn" => self.warns = Some(false),
                "info" => self.informs = Some(true),
                "no_info" => self.informs = Some(false),
                "string" => self.text = Some(quoted(how.trim())?.0),
                _ => self.unsupported = true,
            }
            return Some(());
        }
        if let Some(message) = line.strip_prefix("expected_fail_message ") {
            self.says = Some(message.trim().to_owned());
            return Some(());
        }
        if line.contains("{{") {
            self.unsupported = true;
            return Some(());
        }
        if let Some(value) = number(line) {
            self.scalar = Some(value);
            return Some(());
        }
        let (labels, values) = parse_metric(line)?;
        self.expected.push((labels, parse_values(values)?));
        Some(())
    }

    fn ask(&self, client: &mut Client) -> (u16, Value) {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        let query = encode(&self.query);
        let path = match self.times_ms {
            (at_ms, None) => format!("/api/v1/query?query={query}&time={}", seconds(at_ms)),
            (start_ms, Some((end_ms, step_ms))) => format!(
                "/api/v1/query_range?query={query}&start={}&end={}&step={}",
                seconds(start_ms),
                seconds(end_ms),
                seconds(step_ms)
            ),
        };
        let reply = client.send("GET", &path, &[], b"").unwrap();
        (reply.status, reply.json())
    }

    /// What is wrong with an answer, if anything is.
    fn check(&self, status: u16, answer: &Value) -> Result<(), String> {
        if self.fails {
            let error = answer["error"].as_str().unwrap_or_default();
            return match (status, &self.says) {
                (200, _) => Err("it does not fail".to_owned()),
                (_, Some(says)) if !error.contains(says.as_str()) => Err(format!("it says {error:?}")),
                _ => Ok(()),
            };
        }
        if status != 200 {
            return Err(format!("{status} {}", answer["error"]));
        }
        for (wanted, name) in [(self.warns, "warnings"), (self.informs, "infos")] {
            if wanted.is_some_and(|wanted| wanted == answer[name].is_null()) {
                return Err(format!("{name}: {}", answer[name]));
            }
        }
        let (data, start_ms) = (&answer["data"], self.times_ms.0);
        if let Some(text) = &self.text {
            return same(data["result"][1].as_str() == Some(text), data);
        }
        if data["resultType"] == "scalar" {
            let value = number(data["result"][1].as_str().unwrap_or_default());
            return same(value.zip(self.scalar).is_some_and(|(a, b)| is_near(a, b)), data);
        }
        let step_ms = self.times_ms.1.map_or(1, |(_, step_ms)| step_ms);
        let mut answered: Vec<(Labels, BTreeMap<i64, f64>)> = Vec::new();
        for series in data["result"].as_array().ok_or("no result")? {
            let labels: Labels = serde_json::from_value(series["metric"].clone()).unwrap();
            let one = [series["value"].clone()];
            let points = series["values"].as_array().map_or(&one[..], Vec::as_slice);
            let point = |point: &Value| {
                let at_ms = (point[0].as_f64().unwrap() * 1_000.0).round() as i64;
                ((at_ms - start_ms) / step_ms, number(point[1].as_str().unwrap()).unwrap())
            };
            answered.push((labels, points.iter().map(point).collect()));
        }
        let mut expected: Vec<(Labels, BTreeMap<i64, f64>)> =
            self.expected.iter().map(expected_points).collect();
        if !self.ordered {
            answered.sort_by(|a, b| a.0.cmp(&b.0));
            expected.sort_by(|a, b| a.0.cmp(&b.0));
        }
        expected.retain(|(_, points)| !points.is_empty());
        let near = answered.len() == expected.len()
            && answered.iter().zip(&expected).all(|(a, e)| {
                a.0 == e.0
                    && a.1.len() == e.1.len()
                    && a.1.iter().zip(&e.1).all(|(a, e)| a.0 == e.0 && is_near(*a.1, *e.1))
            });
        same(near, data)
    }
}

fn expected_points((labels, values): &(Labels, Vec<Option<f64>>)) -> (Labels, BTreeMap<i64, f64>) {
    let points = values.iter().enumerate().filter_map(|(step, value)| Some((step as i64, (*value)?)));
    (labels.clone(), points.collect())
}

fn same(is_same: bool, data: &Value) -> Result<(), String> {
    if is_same { Ok(()) } else { Err(format!("answered {data}")) }
}

fn is_near(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * (a.abs() + b.abs())
}

/// How a script went.
#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

/// A server with what has been loaded since the last `clear`.
struct Loaded {
    server: Server,
    _dir: tempfile::TempDir,
    native: Vec<String>,
    /// Classic histograms are there as native ones too, in Prometheus.
    has_converted: bool,
}

impl Loaded {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "--log-level",
            "warn",
            "--retention",
            "off",
            "--out-of-order-window",
            "10y",
            "--query-delayed-name-removal",
        ];
        Self { server: Server::start(dir.path(), &args), _dir: dir, native: Vec::new(), has_converted: false }
    }

    fn load(&mut self, step_ms: i64, lines: &[&str]) {
        // Of two lines of one series the last one counts, as in Prometheus' own loader.
        let mut all: BTreeMap<Labels, TimeSeries> = BTreeMap::new();
        for line in lines {
            if line.contains("{{") {
                let name = line.split(['{', ' ', '\t']).next().unwrap_or_default();
                self.native.push(name.to_owned());
                continue;
            }
            let parsed =
                parse_metric(line).and_then(|(labels, values)| Some((labels, parse_values(values)?)));
            let Some((labels, values)) = parsed else {
                // Start timestamps and the like.
                let name = line.split(['{', ' ', '\t']).next().unwrap_or_default();
                self.native.push(name.to_owned());
                continue;
            };
            let label =
                |(name, value): (&String, &String)| Label { name: name.clone(), value: value.clone() };
            let sample = |(step, value): (usize, Option<f64>)| {
                Some(Sample { value: value?, timestamp: step as i64 * step_ms })
            };
            let samples = values.into_iter().enumerate().filter_map(sample).collect();
            let series = TimeSeries { labels: labels.iter().map(label).collect(), samples };
            all.insert(labels, series);
        }
        let all = message(all.into_values().collect());
        let body = snap::raw::Encoder::new().compress_vec(&all).unwrap();
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        let reply = self.server.client().send("POST", "/api/v1/write", &headers, &body).unwrap();
        assert!(reply.is_success(), "{} {}", reply.status, reply.text());
    }

    /// Whether a refusal, or data that is not there, is what this store does not have.
    fn is_unsupported(&self, eval: &Eval, answer: &Value) -> bool {
        let error = answer["error"].as_str().unwrap_or_default();
        let refused = ["is not supported", "are not supported", "unknown function", "not PromQL"];
        let native = self.native.iter().any(|name| name.is_empty() || eval.query.contains(name.as_str()));
        let converted = self.has_converted && !eval.query.contains("_bucket");
        eval.unsupported
            || native
            || converted
            || (!eval.fails && refused.iter().any(|text| error.contains(text)))
    }
}

fn run(path: &Path) -> Tally {
    let script = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = script.lines().map(str::trim).collect();
    let mut tally = Tally::default();
    let mut loaded = Loaded::start();
    let mut at = 0;
    while at < lines.len() {
        let (line, place) = (lines[at], at + 1);
        at += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let block: Vec<&str> = lines[at..]
            .iter()
            .copied()
            .take_while(|l| !l.is_empty())
            .filter(|l| !l.starts_with('#'))
            .collect();
        if line == "clear" {
            loaded = Loaded::start();
        } else if let Some(step) = line.strip_prefix("load ").or(line.strip_prefix("load_with_nhcb ")) {
            loaded.has_converted |= line.starts_with("load_with_nhcb");
            loaded.load(parse_duration_or_zero(step.trim()).unwrap(), &block);
            at += lines[at..].iter().take_while(|l| !l.is_empty()).count();
        } else if line.starts_with("eval") {
            let is_command = |l: &&str| l.starts_with("eval") || l.starts_with("load") || *l == "clear";
            let mut eval = Eval::parse(line, format!("{}:{place}", path.display()));
            while at < lines.len() && !lines[at].is_empty() && !is_command(&lines[at]) {
                let expected = eval.as_mut().filter(|_| !lines[at].starts_with('#'));
                if let Some(eval) = expected
                    && eval.expect(lines[at]).is_none()
                {
                    eval.unsupported = true;
                }
                at += 1;
            }
            let Some(eval) = eval else {
                tally.skipped += 1;
                continue;
            };
            let (status, answer) = eval.ask(&mut loaded.server.client());
            match eval.check(status, &answer) {
                Ok(()) => tally.passed += 1,
                Err(_) if loaded.is_unsupported(&eval, &answer) => tally.skipped += 1,
                Err(error) => tally.failed.push(format!("{}: {}: {error}", eval.place, eval.query)),
            }
        } else {
            tally.skipped += 1;
            at += lines[at..].iter().take_while(|l| !l.is_empty()).count();
        }
    }
    tally
}

fn run_all(dir: &Path) -> Vec<String> {
    let mut scripts: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|end| end == "test"));
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", dir.display());
    let mut failed = Vec::new();
    for path in scripts {
        let tally = run(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        eprintln!(
            "{name}: {} passed, {} failed, {} skipped",
            tally.passed,
            tally.failed.len(),
            tally.skipped
        );
        failed.extend(tally.failed);
    }
    failed
}

#[test]
fn our_own_scripts_hold() {
    let failed = run_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql"));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_scripts_of_a_directory_hold() {
    let Some(dir) = std::env::var_os("LOOKBACK_PROMQLTEST_DIR") else {
        eprintln!("SKIPPED: LOOKBACK_PROMQLTEST_DIR names no directory with scripts");
        return;
    };
    let failed = run_all(Path::new(&dir));
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}
