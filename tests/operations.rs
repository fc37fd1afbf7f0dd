//! Inspect, verify, backup and restore by the built binary: online and offline, damage found and named.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Server, lookback, run_to_end};
use common::store::{open, read_dir};
use std::path::{Path, PathBuf};
use std::process::Output;

fn run(args: &[&str], paths: &[&Path]) -> Output {
    run_to_end(lookback().args(args).args(paths))
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn blocks(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { blocks(&path) } else { vec![path] }).collect()
}

#[test]
fn a_running_server_is_backed_up_and_what_was_acknowledged_before_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let backup_dir = at("backup").display().to_string();
    let server = Server::start(&at("data"), &["--backup-dir", &backup_dir]);
    let push = |value: usize| server.post("/write-metrics/nodes/n1/load", value.to_string()).status;
    let backup = || server.post("/api/v1/admin/backup", "");
    assert!((0..20).all(|value| push(value) == 200));
    let first = backup();
    assert_eq!((first.status, &first.json()["data"]["blocksCopied"]), (200, &1.into()), "{}", first.text());
    assert!((20..30).all(|value| push(value) == 200));
    let second = backup().json();
    assert_eq!(second["data"]["blocksCopied"], 1, "only what is new is copied: {second}");
    assert_eq!(push(99), 200, "acknowledged after the backup");
    // Beside the running server.
    said(&run(&["verify", "--data-dir"], &[&at("data")]), 0);
    server.kill9();

    let text = said(&run(&["restore", "--data-dir"], &[&at("restored"), &at("backup")]), 0);
    assert!(text.contains("1 series"), "{text}");
    let values = |dir: &Path| -> Vec<f64> {
        read_dir(dir)["load{node=\"n1\"}"].iter().map(|(_, bits)| f64::from_bits(*bits)).collect()
    };
    assert_eq!(values(&at("restored")), (0..30).map(f64::from).collect::<Vec<_>>());
    // It is a store like any other, and takes no second restore.
    let server = Server::start(&at("restored"), &[]);
    assert_eq!(server.post("/write-metrics/nodes/n1/load", "30").status, 200);
    assert_eq!(server.post("/api/v1/admin/backup", "").status, 501, "nobody said where to");
    assert!(server.terminate().success());
    assert_eq!(values(&at("restored")).len(), 31);
    let text = said(&run(&["restore", "--data-dir"], &[&at("restored"), &at("backup")]), 1);
    assert!(text.contains("empty --data-dir"), "{text}");

    // Offline, incrementally: the store of the same directory, another identity.
    let text = said(&run(&["backup", "--data-dir"], &[&at("data"), &at("backup")]), 0);
    assert!(text.contains("3 blocks"), "{text}");
    // A backup that is damaged is not restored.
    let block = blocks(&at("backup/blocks")).pop().unwrap();
    let mut bytes = std::fs::read(&block).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&block, bytes).unwrap();
    let text = said(&run(&["restore", "--data-dir"], &[&at("other"), &at("backup")]), 1);
    assert!(text.contains(block.to_str().unwrap()), "{text}");
    assert!(!at("other").exists(), "nothing was begun");
}

#[test]
fn each_damaged_byte_of_a_block_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.post("/write-metrics/nodes/n1/load", "1").status, 200);
    assert!(server.terminate().success());
    open(dir.path()).seal().unwrap();
    let text = said(&run(&["verify", "--data-dir"], &[dir.path()]), 0);
    assert!(text.contains("1 samples in 1 chunks of 1 blocks"), "{text}");
    let block = blocks(&dir.path().join("blocks")).pop().unwrap();
    let whole = std::fs::read(&block).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 10) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&block, bytes).unwrap();
        let text = said(&run(&["verify", "--json", "--data-dir"], &[dir.path()]), 1);
        assert!(text.contains(block.to_str().unwrap()), "byte {at}: {text}");
    }
    std::fs::write(&block, whole).unwrap();
    said(&run(&["verify", "--data-dir"], &[dir.path()]), 0);
}

#[test]
fn what_a_directory_holds_is_shown_beside_a_running_server_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let backup_dir = at("backup").display().to_string();
    let server = Server::start(&at("data"), &["--backup-dir", &backup_dir]);
    let push = |value: usize| server.post("/write-metrics/nodes/n1/load", value.to_string()).status;
    assert!((0..40).all(|value| push(value) == 200));
    assert_eq!(server.post("/api/v1/admin/backup", "").status, 200, "a backup seals");
    assert!((40..50).all(|value| push(value) == 200));
    assert_eq!(server.post("/write-metrics/nodes/n2/load", "1").status, 200);
    let shown = || {
        let output = run(&["inspect", "--output=json", "--data-dir"], &[&at("data")]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    for _ in 0..2 {
        let shown = shown();
        let sealed = &shown["partitions"];
        let sum =
            |field: &str| sealed.as_array().unwrap().iter().map(|p| p[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!(
            (sum("samples"), &shown["log"]["samples"], &shown["samples"]),
            (40, &11.into(), &51.into())
        );
        assert_eq!((&shown["series"], &sealed[0]["class"]), (&2.into(), &"default".into()), "{shown}");
        let codecs = shown["codecs"].as_array().unwrap();
        let of = |column: &str| codecs.iter().filter(|c| c["column"] == column).collect::<Vec<_>>();
        assert!(!of("times").is_empty() && !of("values").is_empty(), "{shown}");
        assert!(codecs.iter().all(|codec| codec["codec"] != "unknown"), "{shown}");
        let columns: u64 = of("values").iter().map(|codec| codec["columns"].as_u64().unwrap()).sum();
        assert_eq!(columns, sum("chunks"));
        assert!(shown["bytes"].as_u64() > shown["index"]["bytes"].as_u64());
        assert_eq!(shown["damage"], serde_json::json!([]));
    }
    server.kill9();
    let text = said(&run(&["inspect", "--data-dir"], &[&at("data")]), 0);
    for part in ["2 series, 51 samples", "CLASS", "default", "COLUMN", "log: 11 samples", "index: "] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = said(&run(&["inspect", "--data-dir"], &[&at("nowhere")]), 1);
    assert!(text.contains("--data-dir"), "{text}");
}
