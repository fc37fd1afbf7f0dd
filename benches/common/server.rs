//! The built server, or another one, as a process of its own, and what the kernel says of it.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("it runs")
    }

    /// CPU seconds that it has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
    }

    /// Memory by its name in `/proc/PID/status`, such as `VmRSS` or `VmHWM`, its peak.
    pub(crate) fn memory_mb(&self, name: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
        let kb = line.trim_start_matches(':').split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok());
        kb.expect("a number") / 1_024.0
    }
}

/// Starts the built server in a cluster: the plain and the secure address.
pub(crate) fn start(dir: &Path, kubeconfig: &Path, more: &[&str]) -> (Running, SocketAddr, SocketAddr) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lookback"))
        .args(["--listen", "127.0.0.1:0", "--trust-loopback", "--log-level", "warn", "--secure-port"])
        .arg(free_port().to_string())
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--data-dir")
        .arg(dir)
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let (mut plain, mut secure) = (None, None);
    for line in BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        for word in line.split_whitespace() {
            if let Some(address) = word.strip_prefix("https://") {
                secure = secure.or(address.parse().ok());
            } else if let Some(address) = word.strip_prefix("http://") {
                plain = plain.or(address.parse().ok());
            }
        }
        if plain.is_some() && secure.is_some() {
            break;
        }
    }
    (Running(process), plain.expect("it says where"), secure.expect("it says where"))
}
