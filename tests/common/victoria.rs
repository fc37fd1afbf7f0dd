//! Debian's real VictoriaMetrics, run as its users run it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use super::process::{Client, Process, free_port, wait_until};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether this machine has it. Where it has not, that is told, and fails in CI.
#[track_caller]
pub fn is_there() -> bool {
    if Command::new("victoria-metrics").arg("--version").output().is_ok() {
        return true;
    }
    let sentence =
        "there is no `victoria-metrics` on the path: apt-get install victoria-metrics (tests/run does)";
    assert!(std::env::var_os("CI").is_none(), "{sentence}");
    eprintln!("SKIPPED: {sentence}");
    false
}

/// A server with its data in a directory, killed when it is dropped.
pub struct VictoriaMetrics {
    pub process: Process,
    pub client: Client,
    pub address: SocketAddr,
}

impl VictoriaMetrics {
    /// Starts one, and waits until it is ready.
    #[track_caller]
    pub fn start(dir: &Path) -> Self {
        Self::start_on(dir, SocketAddr::from(([127, 0, 0, 1], free_port())))
    }

    /// The same on a port that is known before.
    #[track_caller]
    pub fn start_on(dir: &Path, address: SocketAddr) -> Self {
        Self::start_with(dir, address, &[])
    }

    /// The same with more flags.
    #[track_caller]
    pub fn start_with(dir: &Path, address: SocketAddr, args: &[&str]) -> Self {
        let process = Process::spawn(
            Command::new("victoria-metrics")
                .arg(format!("-storageDataPath={}", dir.join("data").display()))
                .arg(format!("-httpListenAddr={address}"))
                .args(["-retentionPeriod=100y", "-memory.allowedBytes=64MiB", "-selfScrapeInterval=0"])
                .arg("-search.disableCache")
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut this = Self { process, client: Client::new(address), address };
        wait_until("VictoriaMetrics is ready", || {
            assert!(this.process.ended().is_none(), "it ended:\n{}", this.process.stderr.all());
            this.client.send("GET", "/health", &[], b"").is_ok_and(|reply| reply.status == 200)
        });
        this
    }
}
