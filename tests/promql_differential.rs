//! The same random data in Debian's Prometheus and here, and the same random queries to both: the answers are
//! equal to the last bit, or within 1e-9 of each other where sums are added up in another order.
//!
//! A few hundred queries; `LOOKBACK_DIFFERENTIAL_QUERIES` says how many instead, `LOOKBACK_DIFFERENTIAL_SEED`
//! of which data and queries.
//!
//! What is avoided, because Prometheus 2.42 differs from 3, which is followed here: samples on the left edge of
//! a window; rates of counters that are almost nothing behind a gap; names kept through `atan2`; numbers as
//! durations; deviations of infinite values; an `@` around another. And because Prometheus has no answer of its own: dates of NaN
//! and Inf, which depend on the machine; the order of equal values.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;
mod differential;

use common::compare::{Verdict, compare};
use common::process::{Client, Server};
use common::prometheus::{self, Prometheus};
use common::remote_write::message;
use differential::Random;
use differential::data::{all, slices};
use differential::queries::Question;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Of so many differences the text is shown.
const SHOWN_MAX: usize = 25;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

/// What ours, and what Prometheus answers to; both hold the same.
struct Both {
    server: Server,
    prometheus: Prometheus,
    _dirs: [tempfile::TempDir; 2],
}

impl Both {
    fn start(random: &mut Random) -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let args = ["--log-level", "warn", "--retention", "off"];
        let server = Server::start(dirs[0].path(), &args);
        let args = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
        let mut prometheus = Prometheus::start(dirs[1].path(), |_| String::new(), &args);
        let mut ours = server.client();
        for slice in slices(&all(random), 600_000) {
            let message = message(slice);
            for client in [&mut ours, &mut prometheus.client] {
                let reply = client.remote_write(&message).unwrap();
                assert!(reply.is_success(), "{} {}", reply.status, reply.text());
            }
        }
        Self { server, prometheus, _dirs: dirs }
    }
}

fn ask(client: &mut Client, question: &Question) -> (u16, Value) {
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    let query = utf8_percent_encode(&question.text, NON_ALPHANUMERIC);
    let (path, form) = match question.range {
        None => ("/api/v1/query", format!("query={query}&time={}", seconds(question.start_ms))),
        Some((end_ms, step_ms)) => {
            let (start, end, step) = (seconds(question.start_ms), seconds(end_ms), seconds(step_ms));
            ("/api/v1/query_range", format!("query={query}&start={start}&end={end}&step={step}"))
        }
    };
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let reply = client.send("POST", path, &headers, form.as_bytes()).unwrap();
    (reply.status, reply.json())
}

#[derive(Debug, Default)]
struct Tally {
    equal: usize,
    near: usize,
    refused: usize,
    empty: usize,
    points: usize,
    differences: Vec<String>,
}

#[test]
fn random_queries_are_answered_as_prometheus_answers_them() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (count, seed) =
        (setting("LOOKBACK_DIFFERENTIAL_QUERIES", 300), setting("LOOKBACK_DIFFERENTIAL_SEED", 1));
    let mut random = Random::new(seed);
    let mut both = Both::start(&mut random);
    let mut ours = both.server.client();
    let mut tally = Tally::default();
    for place in 0..usize::try_from(count).unwrap() {
        let question = Question::random(&mut random, place);
        let (our_status, our_answer) = ask(&mut ours, &question);
        let (status, answer) = ask(&mut both.prometheus.client, &question);
        match compare((our_status, &our_answer), (status, &answer), question.ordered) {
            Verdict::Equal(0) => tally.empty += 1,
            Verdict::Equal(points) => {
                tally.equal += 1;
                tally.points += points;
            }
            Verdict::Near(points) => {
                tally.near += 1;
                tally.points += points;
            }
            Verdict::Refused => tally.refused += 1,
            Verdict::Differs(how) => tally.differences.push(format!("{question:?}\n    {how}")),
        }
    }
    let Tally { equal, near, refused, empty, points, differences } = tally;
    eprintln!(
        "seed {seed}, {count} queries: {equal} equal to the last bit, {near} within 1e-9, {points} points; \
         {empty} empty, {refused} refused by both, {} differ",
        differences.len()
    );
    let shown = differences.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} differ:\n{shown}", differences.len());
    // A generator that makes little else than errors would show nothing.
    assert!((equal + near) * 2 > usize::try_from(count).unwrap(), "too few answers have points");
}
