//! Debian's real Prometheus, run as its users run it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use super::process::{Client, Process, free_port, wait_until};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether this machine has a program of Debian's package `prometheus`. Where it has none that is told, and
/// fails in CI.
#[track_caller]
pub fn is_there(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    let sentence =
        format!("there is no `{program}` on the path: apt-get install prometheus (tests/run does)");
    assert!(std::env::var_os("CI").is_none(), "{sentence}");
    eprintln!("SKIPPED: {sentence}");
    false
}

/// A server with its data in a directory, killed when it is dropped.
pub struct Prometheus {
    pub process: Process,
    pub client: Client,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts one, and waits until it is ready. `config` is told the address that it will listen on.
    #[track_caller]
    pub fn start(dir: &Path, config: impl FnOnce(SocketAddr) -> String, args: &[&str]) -> Self {
        Self::start_on(dir, SocketAddr::from(([127, 0, 0, 1], free_port())), config, args)
    }

    /// The same on a port that is known before.
    #[track_caller]
    pub fn start_on(
        dir: &Path,
        address: SocketAddr,
        config: impl FnOnce(SocketAddr) -> String,
        args: &[&str],
    ) -> Self {
        let process = Self::spawn(dir, address, &config(address), args);
        let mut this = Self { process, client: Client::new(address), address };
        wait_until("Prometheus is ready", || {
            assert!(this.process.ended().is_none(), "it ended:\n{}", this.process.stderr.all());
            this.client.send("GET", "/-/ready", &[], b"").is_ok_and(|reply| reply.status == 200)
        });
        this
    }

    /// The process alone, that is not waited for.
    #[track_caller]
    pub fn spawn(dir: &Path, address: SocketAddr, config: &str, args: &[&str]) -> Process {
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).expect("a configuration");
        Process::spawn(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
    }

    /// The result of a query, now.
    #[track_caller]
    pub fn query(&mut self, query: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC));
        let reply = self.client.send("GET", &path, &[], b"").expect("an answer");
        let mut answer = reply.json();
        match answer["data"]["result"].take() {
            Value::Array(result) => result,
            _ => panic!("{}", reply.text()),
        }
    }

    /// The value of a query that has one.
    #[track_caller]
    pub fn number(&mut self, query: &str) -> Option<f64> {
        self.query(query).first()?["value"][1].as_str()?.parse().ok()
    }
}
