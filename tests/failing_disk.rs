//! A disk that fails under a running server: writes that meet EIO, syncs that meet EIO. Nothing is
//! acknowledged that is not on disk, the autoscaler still sees the newest values, and writes go on as
//! soon as the disk does, in a log generation of its own: a failed fdatasync is never tried again on the
//! same file, since the kernel may have dropped what it could not write.
//!
//! The faults come from libfiu (<https://blitiri.com.ar/p/libfiu/>), loaded before the C library.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Server, lookback};
use common::store::read_dir;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ARGS: [&str; 4] = ["--retention", "off", "--log-level", "warn"];
/// Linux' number of EIO.
const EIO: i32 = 5;

/// A server whose system calls can be made to fail.
struct Faulty {
    server: Server,
    control: PathBuf,
}

impl Faulty {
    /// `None` where libfiu is not installed.
    fn start(data_dir: &Path, control: &Path) -> Option<Self> {
        let installed = |program: &str| {
            let asked = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.is_ok()
        };
        if !installed("fiu-run") || !installed("fiu-ctrl") {
            return None;
        }
        let binary = lookback();
        let mut command = Command::new("fiu-run");
        for (name, value) in binary.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["-x", "-f"]).arg(control).arg(binary.get_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = Server::start_as(command, data_dir, &ARGS);
        Some(Self { server, control: control.to_owned() })
    }

    fn control(&self, command: &str) {
        let mut fiu = Command::new("fiu-ctrl");
        fiu.args(["-c", command, "-f"]).arg(&self.control).arg(self.server.process.id().to_string());
        let output = fiu.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{command}: {}", String::from_utf8_lossy(&said));
    }

    fn push(&self, value: usize) -> u16 {
        let reply = self.server.post("/write-metrics/namespaces/default/pods/web-0/load", format!("{value}"));
        if reply.status != 200 {
            assert_eq!(reply.status, 503, "{}", reply.text());
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            let said = reply.text();
            assert!(said.contains("nothing of this was stored"), "{said}");
        }
        reply.status
    }

    /// The latest value, and whether the answer says that it is durable.
    fn latest(&self) -> (String, bool) {
        let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/web-0/load";
        let reply = self.server.get(path);
        let value = reply.json()["items"][0]["value"].as_str().unwrap_or_default().to_owned();
        (value, reply.header("warning").is_none())
    }
}

fn generations(data_dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(data_dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Pushes through a disk that fails at these points; answers the log's generations before and after.
fn through_failures(points: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let Some(faulty) = Faulty::start(&data_dir, &dir.path().join("fiu")) else {
        eprintln!("SKIPPED: libfiu (Debian's fiu-utils) is not installed, so no disk can be made to fail");
        return;
    };
    let mut acknowledged = Vec::new();
    let mut next = 0;
    let mut push = |faulty: &Faulty| {
        next += 1;
        let status = faulty.push(next);
        if status == 200 {
            acknowledged.push(next as f64);
        }
        (next, status == 200)
    };
    for point in points {
        assert!(push(&faulty).1);
        let before = generations(&data_dir);
        faulty.control(&format!("enable name={point},failinfo={EIO}"));
        for _ in 0..3 {
            let (value, taken) = push(&faulty);
            assert!(!taken, "{point} fails, so nothing may be acknowledged");
            assert_eq!(faulty.latest(), (value.to_string(), false), "{point}");
        }
        let ready = faulty.server.get("/readyz?verbose");
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("[!]writes refused"), "{}", ready.text());
        assert!(faulty.server.get("/metrics").text().contains("\nlookback_store_latest_undurable 1\n"));
        faulty.control(&format!("disable name={point}"));
        let (value, taken) = push(&faulty);
        assert!(taken, "{point} works again: {}", faulty.server.process.stderr.so_far());
        assert_eq!(faulty.latest(), (value.to_string(), true), "{point}");
        assert_eq!(faulty.server.get("/readyz").text(), "ok");
        let after = generations(&data_dir);
        assert!(after.last() > before.last(), "{point}: the log went on in the file that had failed");
    }
    faulty.server.kill9();
    let stored = read_dir(&data_dir);
    let values: Vec<f64> = stored.values().flatten().map(|(_, bits)| f64::from_bits(*bits)).collect();
    assert_eq!(values, acknowledged, "exactly what was acknowledged is there");
}

#[test]
fn syncs_that_fail_acknowledge_nothing_and_the_log_goes_on_in_another_file() {
    through_failures(&["posix/io/sync/fdatasync"]);
}

#[test]
fn writes_that_fail_acknowledge_nothing_and_the_log_goes_on_in_another_file() {
    through_failures(&["posix/io/rw/pwrite"]);
}
