//! `lookback migrate` by the built binary, into Debian's Prometheus and VictoriaMetrics: killed in the middle and run
//! again, ranges and PromQL answer the same over the engine as before over the own store, sample by sample.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Process, Server, free_port, lookback, run_to_end, wait_until};
use common::prometheus::{self, Prometheus};
use common::proxy::Proxy;
use common::remote_write::{message, series};
use common::store::{now_ms, open};
use common::victoria::{self, VictoriaMetrics};
use lookback_storage::{Labels, OutOfOrder, STALENESS_MARKER_BITS, WriteBatch};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

const DAY_MS: i64 = 86_400_000;
const PODS: usize = 24;
/// Of each pod, every 15 s of two days.
const SAMPLES: i64 = 2 * DAY_MS / 15_000;

/// Two days up to an hour ago: sealed but for the last hours, with samples that are no numbers where the engine keeps
/// their bits.
fn fill(dir: &Path, keeps_bits: bool) -> i64 {
    let db = open(dir);
    let end_ms = (now_ms() - 3_600_000) / 60_000 * 60_000;
    let half = SAMPLES / 2;
    for part in [0..half, half..SAMPLES] {
        for pod in 0..PODS {
            let name = format!("web-{pod}");
            let labels = [
                ("__name__", if pod % 8 == 7 { "http requests/s é" } else { "cpu" }),
                ("namespace", "shop"),
                ("pod", &name),
                ("container", "app"),
                ("workload", "web"),
            ];
            let labels = Labels::new(labels).unwrap();
            let mut batch = WriteBatch::default();
            for at in part.clone() {
                let jitter_ms = (at * 7_919 + pod as i64 * 104_729) % 900;
                let at_ms = end_ms - (SAMPLES - at) * 15_000 + jitter_ms;
                let value = match at % 1_000 {
                    500 => f64::from_bits(STALENESS_MARKER_BITS),
                    600 if keeps_bits => f64::from_bits(0x7ff8_0000_0000_0123),
                    700 if keeps_bits => f64::NEG_INFINITY,
                    _ if keeps_bits => (at as f64 / 3.0).sin() + pod as f64,
                    _ => (at % 977) as f64 / 8.0 + pod as f64,
                };
                batch.push(labels.clone(), Some(at_ms), value);
            }
            db.append_wait(batch, end_ms, OutOfOrder::Lifted).unwrap();
        }
        if part.start == 0 {
            db.seal().unwrap();
        }
    }
    end_ms
}

/// What clients read of these two days.
fn answers(server: &Server, end_ms: i64) -> Vec<serde_json::Value> {
    let (start, end) = ((end_ms - 2 * DAY_MS) / 1_000, end_ms / 1_000);
    let mut paths = Vec::new();
    for aggregation in ["avg", "min", "max", "sum", "count", "last", "p95"] {
        paths.push(format!(
            "/api/v1/metrics?workload=web&namespace=shop&metric=cpu&step=5m&start={start}&end={end}&aggregation={aggregation}"
        ));
    }
    paths.push(format!(
        "/api/v1/summary?workload=web&namespace=shop&metric=cpu&step=5m&start={start}&end={end}"
    ));
    let promql = "sum%20by%20(workload)%20(max_over_time(cpu%5B10m%5D))";
    paths.push(format!("/api/v1/query_range?query={promql}&start={start}&end={end}&step=600"));
    let quoted = "%7B%22http%20requests%2Fs%20%C3%A9%22%7D%5B2d%5D";
    paths.push(format!("/api/v1/query?query={quoted}&time={end}"));
    let answer = |path: &String| {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let mut answer = reply.json();
        let result = answer["data"]["result"].take();
        assert!(result.as_array().is_some_and(|result| !result.is_empty()), "{path}: {}", reply.text());
        result
    };
    paths.iter().map(answer).collect()
}

fn migrate(data: &Path, engine: SocketAddr, more: &[&str]) -> Command {
    let mut command = lookback();
    command.args([
        "migrate",
        "--log-level",
        "warn",
        "--store-url",
        &format!("http://{engine}"),
        "--data-dir",
    ]);
    command.arg(data).args(more);
    command
}

/// Runs it to its end; what it said.
#[track_caller]
fn run(command: &mut Command, code: i32) -> String {
    let output = run_to_end(command);
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Migrates with a kill in the middle, and compares what is answered before and after. `shows` waits until the engine
/// shows everything.
fn migrates_through_a_kill(engine: SocketAddr, keeps_bits: bool, shows: impl FnOnce()) {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let end_ms = fill(data.path(), keeps_bits);
    let server = Server::start(data.path(), &["--retention", "off", "--log-level", "error"]);
    let before = answers(&server, end_ms);
    assert!(server.terminate().success());

    // Up to three requests find out how samples are read, one at least gets through; the answer of the next is lost.
    let proxy = Proxy::start(engine);
    proxy.lose_after.store(4, Ordering::SeqCst);
    let mut migrating = Process::spawn(&mut migrate(data.path(), proxy.address, &[]));
    wait_until("it is in the middle", || {
        assert!(migrating.ended().is_none(), "{}", migrating.stderr.so_far());
        proxy.hits.load(Ordering::SeqCst) >= 6
    });
    let cursor = std::fs::read_to_string(data.path().join("migration.json")).unwrap();
    assert!(cursor.contains("\"window_start_ms\"") && cursor.contains("\"done_upto_ms\":null"), "{cursor}");
    migrating.kill9();
    proxy.lose_after.store(usize::MAX, Ordering::SeqCst);
    let other_target = migrate(data.path(), engine, &[]);
    let said = run(&mut { other_target }, 1);
    assert!(said.contains("another migration") && said.contains("--restart"), "{said}");
    let said = run(&mut migrate(data.path(), proxy.address, &[]), 0);
    let moved: u64 = said.split_whitespace().nth(1).unwrap().replace(',', "").parse().unwrap();
    let all = PODS as u64 * SAMPLES.unsigned_abs();
    assert!(moved > 0 && moved < all, "it went on, and did not begin anew: {said}");
    let said = run(&mut migrate(data.path(), proxy.address, &[]), 0);
    assert!(said.contains("moved 0 samples"), "{said}");

    shows();
    let said = run(&mut migrate(data.path(), proxy.address, &["--restart", "--only-missing"]), 0);
    assert!(said.contains("moved 0 samples"), "every sample is there: {said}");
    let url = format!("http://{engine}");
    let args = ["--store", "prometheus", "--store-url", &url, "--log-level", "error"];
    let server = Server::start(other.path(), &args);
    let after = answers(&server, end_ms);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn start_prometheus(dir: &Path, config: &str) -> Prometheus {
    let args = ["--web.enable-remote-write-receiver", "--log.level=error"];
    Prometheus::start_on(dir, loopback(), |_| config.to_owned(), &args)
}

#[test]
fn history_is_moved_into_prometheus_bit_for_bit() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let there = tempfile::tempdir().unwrap();
    let engine = start_prometheus(there.path(), "storage: {tsdb: {out_of_order_time_window: 10d}}\n");
    migrates_through_a_kill(engine.address, true, || ());
}

#[test]
fn history_is_moved_into_victoria_metrics() {
    if !victoria::is_there() {
        return;
    }
    let there = tempfile::tempdir().unwrap();
    let mut engine = VictoriaMetrics::start(there.path());
    let address = engine.address;
    migrates_through_a_kill(address, false, || {
        let flushed = engine.client.send("GET", "/internal/force_flush", &[], b"");
        assert_eq!(flushed.unwrap().status, 200);
    });
}

#[test]
fn an_engine_that_refuses_what_is_old_ends_it_with_the_reason() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now_ms = now_ms();
    let db = open(data.path());
    let mut batch = WriteBatch::default();
    for at in 0..500 {
        let labels = Labels::new([("__name__", "m"), ("namespace", "shop")]).unwrap();
        batch.push(labels, Some(now_ms - DAY_MS + at * 15_000), at as f64);
    }
    db.append_wait(batch, now_ms, OutOfOrder::Lifted).unwrap();
    drop(db);
    let mut engine = start_prometheus(there.path(), "{}\n");
    let nobody = run(&mut migrate(data.path(), loopback(), &[]), 1);
    assert!(nobody.contains("does not answer"), "{nobody}");
    // Its newest sample is of now, and it takes nothing out of order.
    let fresh = message(vec![series(&[("__name__", "fresh")], &[(now_ms, 1.0)])]);
    assert_eq!(engine.client.remote_write(&fresh).unwrap().status, 204);
    let said = run(&mut migrate(data.path(), engine.address, &["--refused-max", "3"]), 1);
    assert!(said.contains("out_of_order_time_window"), "{said}");
    let list = run(lookback().args(["outbox", "list", "--data-dir"]).arg(data.path()), 0);
    assert!(list.contains("3 samples in 3 letters"), "{list}");
    drop(engine);
    // One that takes it, as the reason said.
    let mut engine = start_prometheus(there.path(), "storage: {tsdb: {out_of_order_time_window: 10d}}\n");
    let said = run(&mut migrate(data.path(), engine.address, &["--restart"]), 0);
    assert!(said.contains("moved 500 samples"), "{said}");
    assert_eq!(engine.number("count_over_time(m[2d])"), Some(500.0));
}
