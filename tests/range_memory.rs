//! However large an answer of the range endpoint is, the server holds a part of it: the built server's memory, as the
//! kernel counts it, while it sends three million points.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::Server;
use common::remote_write::{message, series};

const START_S: i64 = 1_706_097_600;
const STEP_S: i64 = 30;
const POINTS: i64 = 20_000;
const PODS: usize = 150;

/// 3 million points, held, take 48 MB; half a million 8 MB.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

fn put(server: &Server, workload: &str, pod: usize) {
    let pod = format!("{workload}-{pod}");
    let labels = [
        ("__name__", "cpu"),
        ("container", "app"),
        ("namespace", "shop"),
        ("pod", pod.as_str()),
        ("workload", workload),
    ];
    let samples: Vec<_> =
        (0..POINTS).map(|at| ((START_S + at * STEP_S) * 1_000, (at % 100) as f64 / 8.0)).collect();
    let reply = server.remote_write(&message(vec![series(&labels, &samples)]));
    assert!(reply.is_success(), "{} {}", reply.status, reply.text());
}

/// By how many bytes the server grew, at its peak, while it answered with all points of so many pods.
fn growth(server: &Server, workload: &str, pods: usize) -> u64 {
    let end = START_S + (POINTS - 1) * STEP_S;
    server.process.forget_peak();
    let before = server.process.peak_bytes();
    let reply = server.get(&format!(
        "/api/v1/metrics?workload={workload}&namespace=shop&metric=cpu&start={START_S}&end={end}&step={STEP_S}"
    ));
    let growth = server.process.peak_bytes().saturating_sub(before);
    assert_eq!(reply.status, 200);
    let body = reply.text();
    let (points, series) = (body.matches("\"],[").count() + pods, body.matches("\"metric\":").count());
    assert_eq!((series, points), (pods, pods * POINTS as usize));
    assert!(body.ends_with("\"]}"), "it is whole");
    growth
}

#[test]
fn an_answer_of_three_million_points_takes_no_more_memory_than_a_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--log-level", "warn", "--retention", "off", "--client-requests-per-second", "off"];
    let server = Server::start(dir.path(), &flags);
    put(&server, "small", 0);
    (0..PODS).for_each(|pod| put(&server, "large", pod));
    let of_small = growth(&server, "small", 1);
    let of_large = growth(&server, "large", PODS);
    println!("it grew by {of_small} bytes for {POINTS} points, by {of_large} for {PODS} times as many");
    assert!(of_large < GROWTH_BYTES_MAX, "it grew by {of_large} bytes");
}
