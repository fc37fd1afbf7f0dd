//! The built server over a damaged store: it starts, says in its log which file, series and span are lost,
//! counts them in /metrics, answers from all else, and never with a wrong value.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Server, wait_until};
use common::store::{now_ms, open};
use lookback_storage::{Labels, OutOfOrder, WriteBatch};
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn append(dir: &Path, metric: &str, days_ago: i64) {
    let db = open(dir);
    let mut batch = WriteBatch::default();
    let first_ms = (now_ms() / 1_000 - days_ago * 86_400 - 100) * 1_000;
    for pod in 0..2 {
        let labels = Labels::new([("__name__", metric.to_owned()), ("pod", format!("p{pod}"))]).unwrap();
        (0..50).for_each(|i| batch.push(labels.clone(), Some(first_ms + i * 1_000), (i * i) as f64));
    }
    db.append_wait(batch, now_ms(), OutOfOrder::Lifted).unwrap();
    db.seal().unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_server_over_a_damaged_store_names_and_counts_what_is_lost_and_serves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "chunk_hit", 3);
    append(dir.path(), "block_hit", 2);
    append(dir.path(), "whole", 1);
    let blocks = {
        let mut blocks = files(&dir.path().join("blocks"));
        blocks.sort();
        blocks
    };
    let [chunk_hit, block_hit, _] = &blocks[..] else { panic!("{blocks:?}") };
    // The first column of values lies behind the header of 33 bytes and the shared column of timestamps.
    flip(chunk_hit, 33 + 3);
    let length = std::fs::metadata(block_hit).unwrap().len();
    flip(block_hit, usize::try_from(length).unwrap() - 3);
    // The index as a whole: it is made anew.
    let index = dir.path().join("index/db");
    let bytes = std::fs::read(&index).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    (end / 3..end / 2).step_by(7).for_each(|at| flip_in(&index, at));

    let server = Server::start(dir.path(), &["--retention=off"]);
    let count = |metric: &str| {
        let query = format!("/api/v1/query?query=count_over_time({metric}%5B10d%5D)");
        let reply = server.get(&query).json();
        let result = reply["data"]["result"].as_array().unwrap_or_else(|| panic!("{reply}")).clone();
        result
            .iter()
            .map(|one| one["value"][1].as_str().unwrap().parse::<usize>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(count("whole"), [50, 50]);
    assert!(count("block_hit").is_empty(), "its block is left out");
    let left = count("chunk_hit");
    assert!(left.iter().all(|samples| *samples == 50) && left.len() < 2, "{left:?}");

    let log = || server.process.stderr.so_far();
    let path = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
    wait_until("the log names all that is damaged", || {
        let (log, index) = (log(), format!("{}/index", dir.path().display()));
        let names = [path(chunk_hit), path(block_hit), index];
        names.iter().all(|name| log.contains(name.as_str()))
    });
    let of_chunk = log().lines().find(|line| line.contains(&path(chunk_hit))).unwrap().to_owned();
    assert!(of_chunk.contains("series ") && of_chunk.contains(" ms is lost"), "{of_chunk}");

    let metrics = server.get("/metrics").text();
    let metric = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("lookback_store_{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert_eq!(metric("damaged_blocks"), 1);
    assert!(metric("damaged_chunk_reads") >= 1 && metric("set_aside") >= 1, "{metrics}");
    assert!(!files(&dir.path().join("quarantine")).is_empty());
    assert!(server.get("/readyz?verbose").text().contains("damage set aside"));
    // It takes more, and starts again with the same losses and no others.
    assert_eq!(server.post("/write-metrics/nodes/n1/load", "1").status, 200);
    assert!(server.terminate().success());
    let server = Server::start(dir.path(), &["--retention=off"]);
    let value = server.get("/api/v1/query?query=count_over_time(whole%5B10d%5D)").json();
    assert_eq!(value["data"]["result"][0]["value"][1], "50", "{value}");
}

fn flip_in(path: &Path, at: usize) {
    flip(path, at);
}
