//! Export by the built binary: import brings the same store back bit for bit, Prometheus' own tool reads
//! the plain form, and what is cut off is no export.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{lookback, run_to_end};
use common::store::{Everything, open, read_dir};
use lookback_storage::{Labels, OutOfOrder, STALENESS_MARKER_BITS, WriteBatch};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output};

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 20_000 * DAY_MS;

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn export(data_dir: &Path, args: &[&str]) -> Output {
    run_to_end(lookback().args(["export", "--data-dir"]).arg(data_dir).args(args))
}

/// Series with odd names, labels and values, in blocks of several days and in memory.
fn fill(dir: &Path) -> Everything {
    let db = open(dir);
    let sets = [
        Labels::new([("__name__", "cpu"), ("namespace", "shop"), ("Zone", "a")]),
        Labels::new([("__name__", "cpu"), ("namespace", "dev"), ("Abc", "q\"\\\n\té")]),
        Labels::new([("__name__", "http.requests"), ("k8s.pod", "p 1")]),
        Labels::new([("__name__", "a:b")]),
    ];
    let odd = [
        STALENESS_MARKER_BITS,
        f64::NAN.to_bits(),
        0x7ff8_0000_0000_0001,
        0xfff0_dead_beef_0001,
        (-0.0f64).to_bits(),
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        f64::MAX.to_bits(),
        5e-324f64.to_bits(),
        0.1f64.to_bits(),
    ];
    for day in 0..4 {
        for (number, labels) in sets.iter().enumerate() {
            let mut batch = WriteBatch::default();
            for i in 0..200i64 {
                let bits = match i % 20 {
                    place @ 0..10 => odd[usize::try_from(place).unwrap()],
                    place => (place as f64 * 1.25 + number as f64 / 3.0).to_bits(),
                };
                let at_ms = NOW_MS - (4 - day) * DAY_MS + i * 15_001;
                batch.push(labels.clone().unwrap(), Some(at_ms), f64::from_bits(bits));
            }
            db.append_wait(batch, NOW_MS, OutOfOrder::Lifted).unwrap();
        }
        if day < 3 {
            db.seal().unwrap();
        }
    }
    drop(db);
    read_dir(dir)
}

fn import(data_dir: &Path, file: &Path) -> Output {
    run_to_end(lookback().args(["import", "--retention=off", "--data-dir"]).args([data_dir, file]))
}

#[test]
fn an_import_of_an_export_is_the_same_store_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let all = fill(&at("data"));
    let file = at("all.om.gz");
    let text = said(&export(&at("data"), &[file.to_str().unwrap()]), 0);
    assert!(text.contains("exported 3,200 samples of 4 series"), "{text}");
    assert_eq!(std::fs::read(&file).unwrap()[..2], [0x1f, 0x8b], "compressed, as its name says");
    said(&import(&at("again"), &file), 0);
    assert_eq!(read_dir(&at("again")), all);

    // What is cut off is refused, and said to be.
    let plain = at("all.om");
    said(&export(&at("data"), &[plain.to_str().unwrap()]), 0);
    let whole = std::fs::read(&plain).unwrap();
    std::fs::write(&plain, &whole[..whole.len() - 6]).unwrap();
    let text = said(&import(&at("cut"), &plain), 1);
    assert!(text.contains("# EOF"), "{text}");
    assert!(!at("all.om.part").exists());
}

#[test]
fn a_selector_and_a_span_choose_what_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let all = fill(dir.path());
    let (start, end) = (NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS);
    let bounds = [format!("--start={}", start / 1_000), format!("--end={}", end / 1_000)];
    let args = [
        "--match=cpu{namespace=\"shop\"}",
        "--match={__name__=~\"a:.|cpu\",Abc=\"\"}",
        &bounds[0],
        &bounds[1],
    ];
    let output = export(dir.path(), &args);
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text.lines().map(|line| line.split([' ', '{']).next().unwrap()).collect();
    assert_eq!(names.last(), Some(&"#"), "{text}");
    let expected = |series: &str| {
        let (_, samples) = all.iter().find(|(labels, _)| labels.contains(series)).unwrap();
        samples.iter().filter(|(at_ms, _)| (start..=end).contains(at_ms)).count()
    };
    let found = |name: &str| names.iter().filter(|found| **found == name).count();
    assert_eq!((found("cpu"), found("a:b")), (expected("shop"), expected("a:b")), "each series once");
    assert_eq!(names.len(), expected("shop") + expected("a:b") + 1);
}

#[test]
fn prometheus_own_tool_reads_what_is_exported_plain() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let all = fill(&at("data"));
    let file = at("plain.om");
    // Prometheus of Debian knows classic names only.
    let args = ["--plain", "--match={namespace!=\"\"}", "--match=a:b", file.to_str().unwrap()];
    said(&export(&at("data"), &args), 0);
    let promtool = |args: &[&str], path: &Path| Command::new("promtool").args(args).arg(path).output();
    let blocks = at("blocks");
    let made = match promtool(&["tsdb", "create-blocks-from", "openmetrics", file.to_str().unwrap()], &blocks)
    {
        Err(error) => {
            eprintln!("SKIPPED: promtool, of Debian's package prometheus, does not run: {error}");
            return;
        }
        Ok(made) => made,
    };
    said(&made, 0);
    // It reads a head as well, which there is none of.
    std::fs::create_dir(blocks.join("wal")).unwrap();
    let dump = said(&promtool(&["tsdb", "dump"], &blocks).unwrap(), 0);
    let mut read: Vec<(i64, f64)> = Vec::new();
    for line in dump.lines().filter(|line| line.contains("shop")) {
        let mut words = line.rsplit(' ');
        let at_ms = words.next().unwrap().parse().unwrap();
        read.push((at_ms, words.next().unwrap().parse().unwrap()));
    }
    let (_, samples) = all.iter().find(|(labels, _)| labels.contains("shop")).unwrap();
    let expected: Vec<(i64, f64)> = samples
        .iter()
        .filter(|(_, bits)| *bits != STALENESS_MARKER_BITS)
        .map(|(at_ms, bits)| (*at_ms, f64::from_bits(*bits)))
        .collect();
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.iter().zip(&expected) {
        assert_eq!(read.0, expected.0);
        let same = read.1.to_bits() == expected.1.to_bits() || (read.1.is_nan() && expected.1.is_nan());
        assert!(same, "{read:?} {expected:?}");
    }
}

#[test]
fn an_interrupted_export_ends_without_a_file_and_without_its_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let db = open(&at("data"));
    for series in 0..60 {
        let labels = Labels::new([("__name__", "m".to_owned()), ("n", series.to_string())]).unwrap();
        let mut batch = WriteBatch::default();
        (0..2_000).for_each(|i| batch.push(labels.clone(), Some(NOW_MS - i), i as f64));
        db.append_wait(batch, NOW_MS, OutOfOrder::Lifted).unwrap();
    }
    drop(db);
    let mut process = lookback().args(["export", "--data-dir"]).arg(at("data")).spawn().unwrap();
    // It writes until the pipe is full, and is told to stop there.
    let mut out = process.stdout.take().unwrap();
    let mut text = vec![0; 1_000];
    out.read_exact(&mut text).unwrap();
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    // Nothing more is read before it says that it was told.
    let (mut stderr, mut said) = (BufReader::new(process.stderr.take().unwrap()), String::new());
    while !said.contains("stopping") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    out.read_to_end(&mut text).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(!String::from_utf8(text).unwrap().contains("# EOF"));
}
