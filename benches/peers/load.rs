//! Loading: the same requests for each server, from two connections.

use super::bodies::{Bodies, Request};
use super::http::Connection;
use super::server::Server;
use super::workload::{SLOT_MS, pod};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CONNECTIONS: usize = 2;
/// How many rounds one connection may be ahead of the other: Prometheus refuses what is late.
const AHEAD_MAX: i64 = 20 * 60_000 / SLOT_MS;

/// What loading cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) samples: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    pub(crate) peak_mb: f64,
    /// The most bytes without the log that a sample took while loading, with the samples loaded by then.
    pub(crate) dense: f64,
}

impl Loaded {
    pub(crate) fn samples_per_s(&self) -> f64 {
        self.samples as f64 / self.seconds
    }

    pub(crate) fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s / (self.samples as f64 / 1e6)
    }
}

/// The senders of some pods, one a connection.
pub(crate) fn senders(pods: usize, start_ms: i64) -> Vec<Bodies> {
    senders_of(pods, start_ms, |_| true)
}

/// The same of some of their metrics.
pub(crate) fn senders_of(pods: usize, start_ms: i64, wanted: fn(&str) -> bool) -> Vec<Bodies> {
    let sources = |connection: usize| {
        let (from, to) = (pods * connection / CONNECTIONS, pods * (connection + 1) / CONNECTIONS);
        (from..to).flat_map(pod).filter(|source| wanted(source.metric())).collect()
    };
    (0..CONNECTIONS).map(|connection| Bodies::new(sources(connection), start_ms)).collect()
}

/// Makes the requests before the clock runs, and then sends them.
pub(crate) fn load_made(server: &Server, senders: &mut [Bodies], before: u64) -> Loaded {
    let made: Vec<Vec<Request>> = std::thread::scope(|scope| {
        let making: Vec<_> = senders.iter_mut().map(|bodies| scope.spawn(|| bodies.collect())).collect();
        making.into_iter().map(|made| made.join().expect("made")).collect()
    });
    load(server, made.into_iter().map(Vec::into_iter).collect(), before)
}

/// Sends requests as they are made. `before`: samples that are there already.
pub(crate) fn load<I: Iterator<Item = Request> + Send>(
    server: &Server,
    senders: Vec<I>,
    before: u64,
) -> Loaded {
    server.forget_peak();
    let (began, cpu_s) = (Instant::now(), server.cpu_s());
    let progress: Vec<AtomicI64> = senders.iter().map(|_| AtomicI64::new(0)).collect();
    let (samples, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (seconds, dense) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(server, before, &samples, &done));
        let sending: Vec<_> = senders
            .into_iter()
            .enumerate()
            .map(|(own, requests)| {
                let (progress, samples) = (&progress, &samples);
                scope.spawn(move || send(server, requests, own, progress, samples))
            })
            .collect();
        sending.into_iter().for_each(|sender| sender.join().expect("sent"));
        let seconds = began.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (seconds, watching.join().expect("watched"))
    });
    let samples = samples.into_inner();
    Loaded { samples, seconds, cpu_s: server.cpu_s() - cpu_s, peak_mb: server.peak_mb(), dense }
}

fn send(
    server: &Server,
    requests: impl Iterator<Item = Request>,
    own: usize,
    progress: &[AtomicI64],
    samples: &AtomicU64,
) {
    let mut connection = Connection::open(&server.address).expect("connected");
    for request in requests {
        progress[own].store(request.slot, Ordering::Relaxed);
        let slowest = || progress.iter().map(|p| p.load(Ordering::Relaxed)).min().unwrap_or(i64::MAX);
        while request.slot > slowest().saturating_add(AHEAD_MAX) {
            std::thread::sleep(Duration::from_micros(200));
        }
        let status = connection.write(&request.body).expect("answered");
        let text = String::from_utf8_lossy(&connection.body);
        assert!(status < 300, "{} answered {status}: {text}", server.peer.name());
        samples.fetch_add(request.samples as u64, Ordering::Relaxed);
    }
    progress[own].store(i64::MAX, Ordering::Relaxed);
}

/// Looks at the disk now and then.
fn watch(server: &Server, before: u64, samples: &AtomicU64, done: &AtomicBool) -> f64 {
    let mut dense = 0f64;
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(250));
        let (bytes, log_bytes) = server.disk_bytes();
        let loaded = before + samples.load(Ordering::Relaxed);
        // Of little, what a store takes empty is most.
        if loaded > 10_000_000 {
            dense = dense.max((bytes - log_bytes.min(bytes)) as f64 / loaded as f64);
        }
    }
    dense
}
