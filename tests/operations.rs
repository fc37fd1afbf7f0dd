//! Inspect, verify, backup and restore by the built binary: online and offline, damage found and named.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Server, lookback, run_to_end};
use common::store::{open, read_dir};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

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
    assert_eq!((first.status, &first.json()["data"]["filesCopied"]), (200, &1.into()), "{}", first.text());
    assert!((20..30).all(|value| push(value) == 200));
    let second = backup().json();
    assert_eq!(second["data"]["filesCopied"], 1, "only what is new is copied: {second}");
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

#[test]
fn a_backup_streams_through_pipes_and_over_http_and_tar_packs_and_unpacks_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Server::start(&at("data"), &[]);
    let push = |value: usize| server.post("/write-metrics/nodes/n1/load", value.to_string()).status;
    assert!((0..20).all(|value| push(value) == 200));
    let reply = server.get("/api/v1/admin/backup");
    assert_eq!(reply.status, 200, "{}", reply.text());
    std::fs::write(at("http.tar"), &reply.body).unwrap();
    assert!(server.terminate().success());
    let expected = read_dir(&at("data"));

    let shell = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(dir.path()).env("LOOKBACK", env!("CARGO_BIN_EXE_lookback"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run_to_end(&mut command)
    };
    said(&shell("\"$LOOKBACK\" restore --data-dir of-http - < http.tar"), 0);
    assert_eq!(read_dir(&at("of-http")), expected);
    let through = "\"$LOOKBACK\" backup --data-dir data - | \"$LOOKBACK\" restore --data-dir through -";
    let text = said(&shell(through), 0);
    assert!(text.contains("backed up") && text.contains("restored"), "{text}");
    assert_eq!(read_dir(&at("through")), expected);
    // Unpacked it is a backup's directory; and that is packed again.
    said(
        &shell("mkdir unpacked; tar -C unpacked -xf http.tar; \"$LOOKBACK\" restore --data-dir a unpacked"),
        0,
    );
    assert_eq!(read_dir(&at("a")), expected);
    said(&shell("tar -C unpacked -cf - . | \"$LOOKBACK\" restore --data-dir b -"), 0);
    assert_eq!(read_dir(&at("b")), expected);
    // A stream that ends too soon.
    let text = said(&shell("head -c 700 http.tar | \"$LOOKBACK\" restore --data-dir c -"), 1);
    assert!(text.contains("cut off"), "{text}");
    let left: Vec<PathBuf> = blocks(&at("c"));
    assert!(left.iter().all(|path| path.ends_with("LOCK")), "{left:?}");
    said(&shell("\"$LOOKBACK\" restore --data-dir c - < http.tar"), 0);
    assert_eq!(read_dir(&at("c")), expected);
}

#[test]
fn every_file_of_a_directory_is_verified_and_what_is_not_ours_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--rollups=5m=30d"]);
    let push = |value: usize| server.post("/write-metrics/nodes/n1/load", value.to_string()).status;
    assert!((0..20).all(|value| push(value) == 200));
    assert_eq!(server.get("/api/v1/admin/backup").status, 200, "a backup seals");
    common::process::wait_until("it is rolled up", || !blocks(&data.join("rollups")).is_empty());
    assert_eq!(push(20), 200);
    let verify = |code| said(&run(&["verify", "--data-dir"], &[&data]), code);
    let text = verify(0);
    assert!(!text.contains("note"), "beside a running server: {text}");
    assert!(!text.contains(" 0 rollups") && text.contains("records of the index"), "{text}");
    server.kill9();
    std::fs::write(data.join("stray"), "mine").unwrap();
    let text = verify(0);
    assert!(text.contains("stray: no file of Lookback's"), "{text}");
    for path in blocks(&data) {
        let name = path.strip_prefix(&data).unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        // What nothing depends on is not looked at, as the documentation of `verify` says: of sled's own,
        // all but the files that hold what was written.
        let of_sled = name.starts_with("index/") || name.starts_with("log/");
        let is_sleds_own = of_sled && (name.ends_with("conf") || name.contains("snap."));
        let unread = ["LOCK", "stray", "certs"].iter().any(|part| name.starts_with(part));
        if whole.is_empty() || unread || is_sleds_own {
            continue;
        }
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let flip = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).unwrap();
        };
        if name.ends_with("/db") {
            // Of sled's some places are free: all that is written is wiped out.
            let mut bytes = whole.clone();
            bytes[..end].fill(0);
            std::fs::write(&path, bytes).unwrap();
        } else {
            flip(end / 2);
        }
        eprintln!("damaged: {name}");
        let text = verify(1);
        let of = name.split('/').next().unwrap();
        assert!(text.contains(&format!("{}/{of}", data.display())), "{name}: {text}");
        std::fs::write(&path, &whole).unwrap();
    }
    verify(0);
}
