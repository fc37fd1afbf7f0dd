//! The servers that are measured, each a process of its own on a free port of loopback, and what the
//! kernel says of them.

use super::http::Connection;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Lookback,
    VictoriaMetrics,
    Prometheus,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Lookback, Self::VictoriaMetrics, Self::Prometheus];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lookback => "lookback",
            Self::VictoriaMetrics => "victoria-metrics",
            Self::Prometheus => "prometheus",
        }
    }

    fn ready_path(self) -> &'static str {
        match self {
            Self::Lookback => "/readyz",
            Self::VictoriaMetrics => "/health",
            Self::Prometheus => "/-/ready",
        }
    }

    /// What turns off the cache of whole answers.
    pub(crate) fn uncached(self) -> &'static str {
        if self == Self::VictoriaMetrics { "&nocache=1" } else { "" }
    }

    fn command(self, dir: &Path, address: &str, more: &[&str]) -> Command {
        let data = |flag: &str| format!("{flag}={}", dir.join("data").display());
        let mut command = match self {
            Self::Lookback => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_lookback"));
                command.args(["--listen", address, "--secure-port", "0", "--log-level", "warn"]);
                command.args(["--retention", "off", &data("--data-dir")]);
                command.args(["--client-requests-per-second", "off"]);
                command
            }
            Self::VictoriaMetrics => {
                let mut command = Command::new("victoria-metrics");
                command.args([data("-storageDataPath"), format!("-httpListenAddr={address}")]);
                command.args(["-retentionPeriod=12", "-search.latencyOffset=0s"]);
                command
            }
            Self::Prometheus => {
                let config = dir.join("prometheus.yml");
                fs::write(&config, "global: {scrape_interval: 1h}\n").expect("written");
                let mut command = Command::new("prometheus");
                command.args([data("--storage.tsdb.path"), format!("--config.file={}", config.display())]);
                command.args(["--storage.tsdb.retention.time=60d", "--web.enable-remote-write-receiver"]);
                command.arg(format!("--web.listen-address={address}"));
                command
            }
        };
        command.args(more);
        command
    }
}

/// A server that runs; it is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) address: String,
    dir: PathBuf,
    process: Child,
    /// How long it took until it said that it is ready.
    pub(crate) ready_s: f64,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts it on what is in `dir`; `None` where this machine does not have it.
    pub(crate) fn start(peer: Peer, dir: &Path, more: &[&str]) -> Option<Self> {
        fs::create_dir_all(dir).expect("made");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        let log = File::options().append(true).create(true).open(dir.join("log")).expect("opened");
        let began = Instant::now();
        let process = peer
            .command(dir, &address, more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .ok()?;
        let mut server = Self { peer, address, dir: dir.to_owned(), process, ready_s: 0.0 };
        while !server.is_ready() {
            if server.process.try_wait().expect("asked").is_some()
                || began.elapsed() > Duration::from_secs(120)
            {
                panic!("{} does not get ready: see {}", peer.name(), dir.join("log").display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        server.ready_s = began.elapsed().as_secs_f64();
        Some(server)
    }

    fn is_ready(&self) -> bool {
        let asked = Connection::open(&self.address).and_then(|mut c| c.get(self.peer.ready_path()));
        asked.is_ok_and(|status| status == 200)
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap_or_default()
    }

    /// CPU seconds that it has used.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: Option<&&str>| field.and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(fields.get(11)) + ticks(fields.get(12))) / 100.0
    }

    fn status_mb(&self, name: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kb = line.trim_start_matches(':').split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok());
        kb.unwrap_or(0.0) / 1_024.0
    }

    /// Memory that it holds.
    pub(crate) fn rss_mb(&self) -> f64 {
        self.status_mb("VmRSS")
    }

    /// The most that it held since [`Server::forget_peak`].
    pub(crate) fn peak_mb(&self) -> f64 {
        self.status_mb("VmHWM")
    }

    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").expect("written");
    }

    /// Bytes of its data, and of the part of them that is its write-ahead log.
    pub(crate) fn disk_bytes(&self) -> (u64, u64) {
        let data = self.dir.join("data");
        let log = match self.peer {
            Peer::Lookback => data.join("log"),
            _ => data.join("wal"),
        };
        (bytes_below(&data), bytes_below(&log))
    }

    /// Waits until it has been at rest for `quiet`, at most for `at_most`. Answers whether it came to that.
    pub(crate) fn wait_for_rest(&self, quiet: Duration, at_most: Duration) -> bool {
        let began = Instant::now();
        let mut since = (Instant::now(), self.cpu_s(), self.disk_bytes());
        while since.0.elapsed() < quiet {
            if began.elapsed() > at_most {
                return false;
            }
            std::thread::sleep(Duration::from_secs(1));
            let (cpu_s, disk) = (self.cpu_s(), self.disk_bytes());
            // A server at rest still looks at its clock now and then.
            let idle = cpu_s - since.1 < 0.05 * since.0.elapsed().as_secs_f64().max(1.0) && disk == since.2;
            if !idle {
                since = (Instant::now(), cpu_s, disk);
            }
        }
        true
    }

    /// Kills it as `kill -9` does, and starts it again on its data.
    pub(crate) fn kill_and_start(self, more: &[&str]) -> Option<Self> {
        let (peer, dir) = (self.peer, self.dir.clone());
        drop(self);
        Self::start(peer, &dir, more)
    }
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
