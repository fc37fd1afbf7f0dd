//! The same samples remote-written to Debian's Prometheus and here: each point of `/api/v1/metrics` is what
//! `AGGREGATION_over_time(…[step])` is there, to the last bit, or within 1e-9 where sums are added up in another order
//! or a percentile is interpolated.
//!
//! Windows are closed on both sides in Prometheus 2.42, and open to the left here: no sample lies on an edge.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::compare::{Verdict, compare};
use common::process::Server;
use common::prometheus::{self, Prometheus};
use common::random::Random;
use common::recording::recording;
use common::remote_write::{TimeSeries, message, series};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// `aggregation=`, and the function of Prometheus with what comes before the selector.
const AGGREGATIONS: [(&str, &str); 10] = [
    ("avg", "avg_over_time("),
    ("max", "max_over_time("),
    ("min", "min_over_time("),
    ("last", "last_over_time("),
    ("sum", "sum_over_time("),
    ("count", "count_over_time("),
    ("p50", "quantile_over_time(0.5, "),
    ("p95", "quantile_over_time(0.95, "),
    ("p99", "quantile_over_time(0.99, "),
    ("p99.9", "quantile_over_time(0.999, "),
];

/// Both hold the same series.
struct Both {
    server: Server,
    prometheus: Prometheus,
    _dirs: [tempfile::TempDir; 2],
}

/// A range of one workload's metric.
struct Question {
    metric: String,
    start_ms: i64,
    end_ms: i64,
    step_s: i64,
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

impl Both {
    fn start(all: &[TimeSeries]) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let server = Server::start(dirs[0].path(), &["--log-level", "warn", "--retention", "off"]);
        let args = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
        let mut prometheus = Prometheus::start(dirs[1].path(), |_| String::new(), &args);
        let mut ours = server.client();
        // In slices of time, as a sender brings them: Prometheus takes nothing that is older than its head.
        let times = || all.iter().flat_map(|one| &one.samples).map(|sample| sample.timestamp);
        let (first_ms, last_ms) = (times().min().unwrap(), times().max().unwrap());
        for from_ms in (first_ms..=last_ms).step_by(600_000) {
            let within = from_ms..from_ms + 600_000;
            let slice = |one: &TimeSeries| {
                let samples = one.samples.iter().filter(|sample| within.contains(&sample.timestamp));
                let samples: Vec<_> = samples.cloned().collect();
                (!samples.is_empty()).then(|| TimeSeries { labels: one.labels.clone(), samples })
            };
            let message = message(all.iter().filter_map(slice).collect());
            for client in [&mut ours, &mut prometheus.client] {
                let reply = client.remote_write(&message).unwrap();
                assert!(reply.is_success(), "{} {}", reply.status, reply.text());
            }
        }
        Self { server, prometheus, _dirs: dirs }
    }

    fn ours(&self, question: &Question, aggregation: &str) -> (u16, Value) {
        let Question { metric, start_ms, end_ms, step_s } = question;
        let reply = self.server.get(&format!(
            "/api/v1/metrics?workload=web&namespace=default&metric={metric}&start={}&end={}&step={step_s}s&\
             aggregation={aggregation}",
            seconds(*start_ms),
            seconds(*end_ms)
        ));
        (reply.status, reply.json())
    }

    /// The same question there, its answer with the three labels that ours has.
    fn theirs(&mut self, question: &Question, function: &str) -> (u16, Value) {
        let Question { metric, start_ms, end_ms, step_s } = question;
        let query = format!("{function}{metric}{{namespace=\"default\",workload=\"web\"}}[{step_s}s])");
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={}&step={step_s}",
            utf8_percent_encode(&query, NON_ALPHANUMERIC),
            seconds(*start_ms),
            seconds(*end_ms)
        );
        let reply = self.prometheus.client.send("GET", &path, &[], b"").unwrap();
        let mut answer = reply.json();
        for row in answer["data"]["result"].as_array_mut().into_iter().flatten() {
            let labels = &row["metric"];
            row["metric"] = json!({
                "container": labels["container"], "pod": labels["pod"], "namespace": labels["namespace"],
            });
        }
        (reply.status, answer)
    }

    /// Asks all aggregations of both; answers how many points were compared, and how many answers were equal.
    #[track_caller]
    fn compare(&mut self, question: &Question) -> (usize, usize) {
        let (mut points, mut equal) = (0, 0);
        for (aggregation, function) in AGGREGATIONS {
            let (ours, theirs) = (self.ours(question, aggregation), self.theirs(question, function));
            match compare((ours.0, &ours.1), (theirs.0, &theirs.1), false) {
                Verdict::Equal(count) => (points, equal) = (points + count, equal + 1),
                // Only these add up.
                Verdict::Near(count) if ["avg", "sum"].contains(&aggregation) => points += count,
                // Interpolated: a(1−f) + bf there.
                Verdict::Near(count) if aggregation.starts_with('p') => points += count,
                verdict => panic!(
                    "{aggregation} of {} from {} to {} by {} s: {verdict:?}",
                    question.metric, question.start_ms, question.end_ms, question.step_s
                ),
            }
        }
        (points, equal)
    }
}

const BASE_MS: i64 = 1_700_000_000_000;
const COUNT: i64 = 1_500;

/// Three pods of two containers; gauges with every digit, with gaps, each pod for a part of the time.
fn random_series(random: &mut Random) -> Vec<TimeSeries> {
    let mut all = Vec::new();
    for (pod, first) in
        [("web-7d9c5b6f4-aaaaa", 0), ("web-7d9c5b6f4-bbbbb", 300), ("web-5c8d7f9b6-ccccc", 900)]
    {
        for container in ["app", "proxy"] {
            let mut samples = Vec::new();
            for place in first..COUNT.min(first + 900) {
                let jitter_ms = 200 + i64::try_from(random.below(600)).unwrap();
                if !random.chance(10) {
                    let value = random.next() as f64 / 1e15 - 3_000.0;
                    samples.push((BASE_MS + place * 15_000 + jitter_ms, value));
                }
            }
            let labels = [
                ("__name__", "queue_depth"),
                ("container", container),
                ("namespace", "default"),
                ("pod", pod),
                ("workload", "web"),
            ];
            all.push(series(&labels, &samples));
        }
    }
    all
}

#[test]
fn points_of_random_series_are_what_prometheus_computes() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let random = &mut Random::new(7);
    let mut both = Both::start(&random_series(random));
    let (mut points, mut equal) = (0, 0);
    for _ in 0..25 {
        let place = |random: &mut Random, below: u64| i64::try_from(random.below(below)).unwrap();
        // Whole seconds: samples lie between them.
        let start_ms = BASE_MS + (place(random, 26_000) - 3_000) * 1_000;
        let step_s = 7 + place(random, 1_200);
        let end_ms = start_ms + step_s * 1_000 * (1 + place(random, 60)) + place(random, 5_000);
        let question = Question { metric: "queue_depth".to_owned(), start_ms, end_ms, step_s };
        let (more, same) = both.compare(&question);
        (points, equal) = (points + more, equal + same);
    }
    eprintln!("{points} points, {equal} of 250 answers equal to the last bit");
    assert!(points > 10_000 && equal > 100, "{points} points, {equal} answers equal to the last bit");
}

#[test]
fn points_of_the_recording_are_what_prometheus_computes() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let recording = recording();
    let all: Vec<TimeSeries> = recording
        .iter()
        .map(|(heading, samples)| {
            let labels = [
                ("__name__", heading.as_str()),
                ("container", "recorder"),
                ("namespace", "default"),
                ("pod", "web-0"),
                ("workload", "web"),
            ];
            let samples: Vec<_> = samples.iter().map(|(at, bits)| (*at, f64::from_bits(*bits))).collect();
            series(&labels, &samples)
        })
        .collect();
    let (first_ms, last_ms) = (recording["load1"][0].0, recording["load1"].last().unwrap().0);
    // A time of a second at which no sample lies.
    let is_free = |ms: &i64| recording["load1"].iter().all(|(at_ms, _)| at_ms % 1_000 != *ms);
    let free_ms = (0..1_000).find(is_free).expect("an edge that touches none");
    let mut both = Both::start(&all);
    let (mut points, mut equal) = (0, 0);
    for (place, metric) in recording.keys().enumerate() {
        let step_s = [15, 60, 300][place % 3];
        let start_ms = first_ms / 1_000 * 1_000 + free_ms - 1_000;
        let question = Question { metric: metric.clone(), start_ms, end_ms: last_ms, step_s };
        let (more, same) = both.compare(&question);
        (points, equal) = (points + more, equal + same);
    }
    eprintln!("{points} points, {equal} of 1170 answers equal to the last bit");
    assert!(points > 30_000 && equal > 500, "{points} points, {equal} answers equal to the last bit");
}
