//! `/api/v1/metrics` as clients send it to the built server: every parameter missing, malformed, contradictory or huge;
//! as a form; compressed; with an entity tag that no later change leaves valid.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Reply, Server, wait_until};
use common::remote_write::{message, series};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;
use tempfile::TempDir;

const START_S: i64 = 1_706_097_600;
const DAY_S: i64 = 86_400;

fn put(server: &Server, samples: &[(i64, f64)]) {
    let labels = [
        ("__name__", "cpu"),
        ("container", "app"),
        ("namespace", "shop"),
        ("pod", "web-0"),
        ("workload", "web"),
    ];
    let reply = server.remote_write(&message(vec![series(&labels, samples)]));
    assert!(reply.is_success(), "{} {}", reply.status, reply.text());
}

/// A day of one container, by the minute, but for the last hour.
fn start() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log-level", "warn", "--retention", "off"]);
    let samples: Vec<_> =
        (0..23 * 60).map(|minute| ((START_S + minute * 60) * 1_000, minute as f64 / 7.0)).collect();
    put(&server, &samples);
    (dir, server)
}

/// The good question with these parameters in place of its own; an empty value leaves one out.
fn question(other: &[(&str, &str)]) -> String {
    let (start, end) = (START_S.to_string(), (START_S + DAY_S).to_string());
    let good = [
        ("workload", "web"),
        ("namespace", "shop"),
        ("metric", "cpu"),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "1m"),
    ];
    let parameters: BTreeMap<&str, &str> = good.into_iter().chain(other.iter().copied()).collect();
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn get(server: &Server, query: &str) -> Reply {
    server.get(&format!("/api/v1/metrics?{query}"))
}

/// What is asked instead, the parameter that the refusal names, and what it says.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn each_parameter_that_is_missing_malformed_contradictory_or_huge_is_named_with_what_to_do() {
    let (_dir, server) = start();
    let long = "a".repeat(40_000);
    let cases: &[Case<'_>] = &[
        (&[("workload", "")], "workload", "it is missing"),
        (&[("namespace", "")], "namespace", "it is missing"),
        (&[("metric", "")], "metric", "it is missing"),
        (&[("start", "")], "start", "RFC 3339 or Unix seconds"),
        (&[("end", "")], "end", "RFC 3339 or Unix seconds"),
        (&[("start", "yesterday")], "start", ""),
        (&[("start", "2024-13-01T00:00:00Z")], "start", ""),
        (&[("start", "2024-01-24T12:00:00+01:00")], "start", "%2B"),
        (&[("end", "NaN")], "end", ""),
        (&[("end", "1e300")], "end", ""),
        (&[("start", "99999999999999999999")], "start", ""),
        (&[("step", "0")], "step", "at least 1ms"),
        (&[("step", "-5m")], "step", ""),
        (&[("step", "five")], "step", ""),
        (&[("step", "5m%00")], "step", ""),
        (&[("step", "200y")], "step", ""),
        (&[("step", "1ms")], "step", "the smallest step that fits is"),
        (&[("end", "1706000000")], "start", "must not be later than end"),
        (&[("rollingWindow", "168h")], "rollingWindow", "together with start"),
        (&[("start", ""), ("rollingWindow", "week")], "rollingWindow", ""),
        (&[("aggregation", "median")], "aggregation", ""),
        (&[("aggregation", "p101")], "aggregation", ""),
        (&[("merge", "both")], "merge", ""),
        (&[("limit", "5")], "limit", "it is unknown"),
        (&[("start", &format!("{START_S}&start={START_S}"))], "start", "more than once"),
        (&[("workload", &long)], "workload", "40000 bytes"),
    ];
    for (other, parameter, why) in cases {
        let reply = get(&server, &question(other));
        let shown: Vec<_> =
            other.iter().map(|(name, value)| (name, value.get(..60).unwrap_or(value))).collect();
        assert_eq!(reply.status, 400, "{shown:?}: {}", reply.text());
        let answer = reply.json();
        assert_eq!((&answer["status"], &answer["errorType"]), (&"error".into(), &"bad_data".into()));
        let said = answer["error"].as_str().unwrap();
        assert!(said.contains(parameter) && said.contains(why), "{shown:?}: {said}");
        assert!(said.len() < 1_000, "{shown:?}: {} bytes", said.len());
    }
}

#[test]
fn the_step_that_a_refusal_names_is_answered_and_a_smaller_one_is_not() {
    let (_dir, server) = start();
    let refused = get(&server, &question(&[("step", "1s")])).json();
    let said = refused["error"].as_str().unwrap();
    let (_, step) = said.split_once("the smallest step that fits is ").unwrap();
    let step = step.split(',').next().unwrap();
    assert_eq!(step, "2s", "{said}");
    assert_eq!(get(&server, &question(&[("step", step)])).status, 200);
}

#[test]
fn what_is_not_there_is_an_empty_answer_that_says_why_and_an_unknown_metric_an_error() {
    let (_dir, server) = start();
    let unknown = get(&server, &question(&[("workload", "absent")]));
    let empty = get(&server, &question(&[("start", &(START_S + DAY_S - 600).to_string())]));
    for (reply, what) in [(unknown, "absent"), (empty, "")] {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        assert_eq!(answer["data"]["result"], serde_json::json!([]));
        let infos = answer["infos"].as_array().unwrap();
        assert!(infos.iter().any(|info| info.as_str().unwrap().contains(what)), "{answer}");
    }
    let reply = get(&server, &question(&[("metric", "nothing_of_this_name")]));
    assert_eq!(reply.status, 404, "{}", reply.text());
    assert!(reply.text().contains("nothing_of_this_name"), "{}", reply.text());
}

#[test]
fn a_form_and_compressed_answers_say_the_same() {
    let (dir, server) = start();
    let plain = get(&server, &question(&[]));
    assert_eq!(plain.status, 200);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let posted = server.client().send("POST", "/api/v1/metrics", &form, question(&[]).as_bytes()).unwrap();
    assert_eq!((posted.status, posted.text()), (200, plain.text()));

    let asked = |encoding: &str| {
        let headers = [("Accept-Encoding", encoding)];
        let path = format!("/api/v1/metrics?{}", question(&[]));
        let reply = server.client().send("GET", &path, &headers, b"").unwrap();
        assert_eq!((reply.status, reply.header("content-encoding")), (200, Some(encoding)));
        assert!(reply.body.len() * 2 < plain.body.len(), "{encoding}: {} bytes", reply.body.len());
        reply.body
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(&asked("gzip")[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text());
    let compressed = asked("zstd");
    assert_eq!(compressed[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let file = dir.path().join("answer.zst");
    std::fs::write(&file, compressed).unwrap();
    match Command::new("zstd").args(["-dc"]).arg(&file).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), plain.text()),
        Err(error) => println!("SKIPPED: there is no zstd to read its answer by: {error}"),
    }
}

#[test]
fn an_entity_tag_is_never_valid_for_another_answer() {
    let (_dir, server) = start();
    let path = format!("/api/v1/metrics?{}", question(&[]));
    let ask = |tag: Option<&str>| {
        let headers: Vec<_> = tag.map(|tag| ("If-None-Match", tag)).into_iter().collect();
        server.client().send("GET", &path, &headers, b"").unwrap()
    };
    let points = |reply: &Reply| -> Value { reply.json()["data"]["result"][0]["values"].clone() };
    let mut held = ask(None);
    assert_eq!(held.header("cache-control"), Some("private, no-cache"));
    // New ones within the closed window, each a minute further on.
    for minute in 23 * 60..23 * 60 + 10 {
        let tag = held.header("etag").unwrap().to_owned();
        let same = ask(Some(&tag));
        assert_eq!((same.status, same.body.len()), (304, 0));
        put(&server, &[((START_S + minute * 60) * 1_000, 1.0)]);
        let other = ask(Some(&tag));
        assert_eq!(other.status, 200, "after minute {minute} the old answer is still called valid");
        assert_ne!(other.header("etag"), Some(tag.as_str()));
        assert_eq!(points(&other).as_array().unwrap().len(), points(&held).as_array().unwrap().len() + 1);
        held = other;
    }
}

#[test]
fn an_entity_tag_ends_with_a_late_sample_a_delete_and_another_retention() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yaml");
    let keep = |days: u32| {
        let text = format!("rules: [{{class: all, match: '{{__name__=\"cpu\"}}', keep: {days}d}}]\n");
        let written = dir.path().join("rules.new");
        std::fs::write(&written, text).unwrap();
        std::fs::rename(&written, &rules).unwrap();
    };
    keep(20_000);
    let (data, rules_flag) = (dir.path().join("data"), format!("--retention-rules={}", rules.display()));
    let server = Server::start(&data, &["--log-level", "warn", "--retention", "off", &rules_flag]);
    let samples: Vec<_> =
        (0..120).map(|minute| ((START_S + minute * 60) * 1_000, minute as f64 / 7.0)).collect();
    put(&server, &samples);
    let path = format!("/api/v1/metrics?{}", question(&[]));
    let ask = |tag: &str| server.client().send("GET", &path, &[("If-None-Match", tag)], b"").unwrap();
    let tag_of = |reply: &Reply| reply.header("etag").unwrap().to_owned();
    let changed = |held: &Reply, what: &str| {
        let other = ask(&tag_of(held));
        assert_eq!(other.status, 200, "after {what} the old answer is still called valid");
        assert_ne!(other.body, held.body, "{what}");
        let same = ask(&tag_of(&other));
        assert_eq!((same.status, same.body.len()), (304, 0), "{what}");
        other
    };
    let delete = |span: &str| {
        let path = format!("/api/v1/admin/tsdb/delete_series?match[]=cpu{span}");
        assert_eq!(server.post(&path, b"").status, 204);
    };
    let mut held = ask("");
    // Older than the newest, within the window of what may come late.
    put(&server, &[((START_S + 100 * 60 - 30) * 1_000, 1_000.0)]);
    held = changed(&held, "a late sample");
    delete(&format!("&start={}&end={}", START_S + 600, START_S + 660));
    held = changed(&held, "a delete of a span");
    keep(30);
    wait_until("the shorter retention holds", || ask(&tag_of(&held)).status == 200);
    held = changed(&held, "a shorter retention");
    keep(20_000);
    wait_until("the longer retention holds", || ask(&tag_of(&held)).status == 200);
    held = changed(&held, "a longer retention");
    delete("");
    held = changed(&held, "a delete of the series");
    put(&server, &samples[..2]);
    changed(&held, "its return");
}
