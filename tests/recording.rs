//! A real recording, imported, killed, imported on, and read back: every sample, bit for bit.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Process, Server, lookback, run_to_end};
use common::recording::{FILE, recording};
use common::store::{Everything, now_ms, read_dir};
use lookback_storage::Labels;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KILLS: u32 = 12;
/// The server's default bound on the points of one series.
const POINTS_MAX: i64 = 50_000;

fn import(dir: &Path) -> Command {
    let mut command = lookback();
    command.args(["import", "--retention", "off", "--label", "namespace=default"]);
    command.args(["--label", "pod=recorder-0", "--label", "workload=recorder", "--data-dir"]);
    command.arg(dir).arg(FILE);
    command
}

fn series_of(heading: &str) -> String {
    let labels =
        [("__name__", heading), ("namespace", "default"), ("pod", "recorder-0"), ("workload", "recorder")];
    Labels::new(labels).unwrap().to_string()
}

/// What a store that holds the recording and nothing else gives.
fn expected(recording: &BTreeMap<String, Vec<(i64, u64)>>) -> Everything {
    recording.iter().map(|(heading, samples)| (series_of(heading), samples.clone())).collect()
}

fn samples(everything: &Everything) -> usize {
    everything.values().map(Vec::len).sum()
}

/// One series through the range endpoint, a point a millisecond, as many at a time as are allowed.
fn read_over_http(server: &Server, heading: &str, from_ms: i64, to_ms: i64) -> Vec<(i64, u64)> {
    let seconds = |at_ms: i64| format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000);
    let mut client = server.client();
    let mut read = Vec::new();
    let mut start_ms = from_ms;
    while start_ms <= to_ms {
        let end_ms = to_ms.min(start_ms + POINTS_MAX - 1);
        let path = format!(
            "/api/v1/metrics?workload=recorder&namespace=default&metric={heading}&step=1ms&start={}&end={}",
            seconds(start_ms),
            seconds(end_ms)
        );
        let reply = client.send("GET", &path, &[], b"").unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        for series in reply.json()["data"]["result"].as_array().unwrap() {
            assert_eq!(series["metric"]["pod"], "recorder-0");
            for point in series["values"].as_array().unwrap() {
                let at_ms = (point[0].as_f64().unwrap() * 1_000.0).round() as i64;
                read.push((at_ms, point[1].as_str().unwrap().parse::<f64>().unwrap().to_bits()));
            }
        }
        start_ms = end_ms + 1;
    }
    read
}

/// All rates, which have every digit that a float can, and one series of each other kind.
fn headings_to_read(recording: &BTreeMap<String, Vec<(i64, u64)>>) -> Vec<&str> {
    let others = ["c_cpu_user_seconds", "mem_MemFree", "net_eth0_rx", "load1"];
    let read: Vec<&str> = recording
        .keys()
        .map(String::as_str)
        .filter(|heading| heading.starts_with("rate_") || others.contains(heading))
        .collect();
    assert_eq!(read.len(), 16);
    read
}

#[track_caller]
fn check_over_http(server: &Server, recording: &BTreeMap<String, Vec<(i64, u64)>>) {
    let ends = |samples: &Vec<(i64, u64)>| (samples[0].0, samples.last().unwrap().0);
    for heading in headings_to_read(recording) {
        let (from_ms, to_ms) = ends(&recording[heading]);
        let read = read_over_http(server, heading, from_ms - 10, to_ms + 10);
        assert!(read == recording[heading], "{heading} is read back otherwise over HTTP");
    }
}

/// Kills imports at points spread over the time that a whole one takes, then lets one finish; answers
/// the directory that they all worked on.
fn import_with_kills(mut whole: Duration, recording: &BTreeMap<String, Vec<(i64, u64)>>) -> TempDir {
    let expected = expected(recording);
    let mut dir = tempfile::tempdir().unwrap();
    let (mut landed, mut partial, mut before) = (0, 0, 0);
    for attempt in 0..10 * KILLS {
        let mut importing = Process::spawn(&mut import(dir.path()));
        std::thread::sleep(whole.mul_f64(0.9 * f64::from(attempt % KILLS + 1) / f64::from(KILLS)));
        if importing.ended().is_some() {
            // Imports take less time than the first one did. There must be something left to import.
            whole = whole.mul_f64(0.7);
            (dir, before) = (tempfile::tempdir().unwrap(), 0);
            continue;
        }
        importing.kill9();
        landed += 1;
        let stored = read_dir(dir.path());
        for (series, samples) in &stored {
            assert!(samples.iter().all(|sample| expected[series].binary_search(sample).is_ok()), "{series}");
        }
        let now = samples(&stored);
        assert!(now >= before, "{now} samples, and {before} were durable before");
        before = now;
        partial += u32::from(now > 0 && now < samples(&expected));
        if landed >= KILLS && partial >= 3 {
            break;
        }
    }
    assert!(landed >= KILLS && partial >= 3, "{landed} kills while importing, {partial} left a part");
    let done = run_to_end(&mut import(dir.path()));
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("of 117 series"), "{done:?}");
    eprintln!("{landed} kills while importing, {partial} of them left a part");
    dir
}

#[test]
fn a_recording_is_read_back_bit_for_bit_before_and_after_kills() {
    let recording = recording();
    let expected = expected(&recording);
    let began = Instant::now();
    let unkilled = tempfile::tempdir().unwrap();
    let done = run_to_end(&mut import(unkilled.path()));
    let whole = began.elapsed();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "372,294 samples stored, of 117 series");
    assert!(read_dir(unkilled.path()) == expected, "an undisturbed import is read back otherwise");
    eprintln!("imported in {whole:?}");

    let dir = import_with_kills(whole, &recording);
    assert!(read_dir(dir.path()) == expected, "the killed import is read back otherwise");

    let args = ["--retention", "off", "--log-level", "warn"];
    let server = Server::start(dir.path(), &args);
    check_over_http(&server, &recording);
    kill_with_writers(server);
    let server = Server::start(dir.path(), &args);
    check_over_http(&server, &recording);
    assert!(server.terminate().success());
    let mut stored = read_dir(dir.path());
    stored.retain(|series, _| !series.starts_with("writer"));
    assert!(stored == expected, "the recording is read back otherwise after the kill of the server");
}

/// Kills the server once each of several writers has pushed some values.
fn kill_with_writers(server: Server) {
    let (acknowledged, each) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (mut client, acknowledged) = (server.client(), acknowledged.clone());
            scope.spawn(move || {
                let path = format!("/write-metrics/namespaces/default/pods/recorder-0/writer_{writer}");
                for value in 0.. {
                    let Ok(reply) = client.send("POST", &path, &[], value.to_string().as_bytes()) else {
                        return;
                    };
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    // The main thread has heard enough after a while.
                    let _ = acknowledged.send((writer, now_ms()));
                }
            });
        }
        for _ in 0..200 {
            each.recv_timeout(common::process::SOON).expect("the writers are answered");
        }
        server.kill9();
    });
}
