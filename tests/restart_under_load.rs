//! A restart, as an upgrade makes it, under writers of every kind: SIGTERM, drain, close, start again on
//! the same port and directory.
//!
//! What was acknowledged is there afterwards, bit for bit. A writer that retries is answered by every
//! attempt that did not meet the restart: errors lie between the signal and readiness, by the order of
//! events and not by a clock, and none of them is one that a sender must not retry.
//!
//! 12 restarts; as many as `LOOKBACK_RESTARTS` says in the long run.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Client, Reply, Server, free_port};
use common::remote_write::{message, series};
use common::store::{Everything, now_ms, read_dir};
use lookback_storage::Labels;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BATCH_ENTRIES: i64 = 20;
const REMOTE_SAMPLES: i64 = 50;

/// What the writers know of the server: even numbers while it is ready, odd ones from the signal until
/// it is ready again.
#[derive(Default)]
struct Life {
    phase: AtomicU64,
    done: AtomicBool,
}

impl Life {
    fn phase(&self) -> u64 {
        self.phase.load(Ordering::SeqCst)
    }

    fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Single,
    Batch,
    Remote,
}

/// One sender, which sends a request again until it is acknowledged.
struct Writer {
    name: String,
    kind: Kind,
    base_ms: i64,
    requests: i64,
    retries: u64,
    acknowledged: BTreeMap<String, BTreeMap<i64, u64>>,
}

type Sample = (String, i64, f64);

impl Writer {
    fn new(number: usize, kind: Kind, base_ms: i64) -> Self {
        let name = format!("{kind:?}-{number}").to_lowercase();
        Self { name, kind, base_ms, requests: 0, retries: 0, acknowledged: BTreeMap::new() }
    }

    fn run(&mut self, life: &Life, connect: impl Fn() -> Client) {
        let (mut client, mut connected_in) = (connect(), life.phase());
        while !life.done.load(Ordering::SeqCst) {
            let (samples, send) = self.request();
            loop {
                let began_in = life.phase();
                if connected_in != began_in {
                    // The connection of another life: senders see it closed and make a new one.
                    (client, connected_in) = (connect(), began_in);
                }
                let answer = send(&mut client);
                if answer.as_ref().is_ok_and(Reply::is_success) {
                    break;
                }
                let status = answer.as_ref().ok().map(|reply| reply.status);
                assert!(
                    status.is_none_or(|status| status == 503),
                    "{}: an answer that is not to be retried: {answer:?}",
                    self.name
                );
                let met_a_restart = began_in % 2 == 1 || life.phase() != began_in;
                assert!(met_a_restart, "{}: an error outside of a restart: {answer:?}", self.name);
                self.retries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            for (series, at_ms, value) in samples {
                self.acknowledged.entry(series).or_default().insert(at_ms, value.to_bits());
            }
            self.requests += 1;
        }
    }

    /// The next request's samples, and how it is sent.
    fn request(&self) -> (Vec<Sample>, impl Fn(&mut Client) -> io::Result<Reply> + use<>) {
        let (name, first_ms) = (&self.name, self.base_ms + self.requests * REMOTE_SAMPLES);
        let count = match self.kind {
            Kind::Single => 1,
            Kind::Batch => BATCH_ENTRIES,
            Kind::Remote => REMOTE_SAMPLES,
        };
        let points: Vec<(i64, f64)> =
            (first_ms..first_ms + count).map(|at_ms| (at_ms, (at_ms % 100_003) as f64)).collect();
        let labels = [("__name__", "restart"), ("namespace", "default"), ("pod", name.as_str())];
        let text = Labels::new(labels).unwrap().to_string();
        let samples = points.iter().map(|(at_ms, value)| (text.clone(), *at_ms, *value)).collect();
        let (path, body) = match self.kind {
            Kind::Single => {
                let (at_ms, value) = points[0];
                let path = format!("/write-metrics/namespaces/default/pods/{name}/restart?timestamp={at_ms}");
                (path, format!("\"{value}\"").into_bytes())
            }
            Kind::Batch => {
                let mut body = String::new();
                for (at_ms, value) in &points {
                    writeln!(
                        body,
                        r#"{{"namespace":"default","resource":"pods","name":"{name}","metric":"restart","value":{value},"timestamp":{at_ms}}}"#
                    )
                    .unwrap();
                }
                ("/write-metrics".to_owned(), body.into_bytes())
            }
            Kind::Remote => (String::new(), message(vec![series(&labels, &points)])),
        };
        let send = move |client: &mut Client| match path.as_str() {
            "" => client.remote_write(&body),
            path => client.send("POST", path, &[], &body),
        };
        (samples, send)
    }

    fn check(&self, everything: &Everything) -> usize {
        for (series, acknowledged) in &self.acknowledged {
            let stored: BTreeMap<i64, u64> = everything[series].iter().copied().collect();
            let lost: Vec<_> =
                acknowledged.iter().filter(|(at_ms, bits)| stored.get(at_ms) != Some(bits)).take(5).collect();
            assert!(lost.is_empty(), "{series}: acknowledged and not there, or another: {lost:?}");
        }
        self.acknowledged.values().map(BTreeMap::len).sum()
    }
}

#[test]
fn a_restart_under_load_loses_nothing_and_retrying_senders_see_errors_only_while_it_lasts() {
    let restarts: u64 =
        std::env::var("LOOKBACK_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("--listen=127.0.0.1:{}", free_port());
    let args = [listen.as_str(), "--retention=off", "--log-level=warn"];
    let base_ms = now_ms() - 600_000;
    let kinds = [Kind::Single, Kind::Single, Kind::Single, Kind::Batch, Kind::Remote, Kind::Remote];
    let mut writers: Vec<Writer> =
        kinds.into_iter().enumerate().map(|(number, kind)| Writer::new(number, kind, base_ms)).collect();
    let life = Life::default();
    let mut server = Server::start(dir.path(), &args);
    let address = server.address;
    let mut away = Duration::ZERO;
    std::thread::scope(|scope| {
        let running: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(|| writer.run(&life, || Client::new(address))))
            .collect();
        for _ in 0..restarts {
            std::thread::sleep(Duration::from_millis(150));
            let began = Instant::now();
            life.next_phase();
            server.process.signal(Signal::TERM);
            let status = server.process.wait();
            assert!(status.success(), "{status}: {}", server.process.stderr.all());
            server = Server::start(dir.path(), &args);
            life.next_phase();
            away = away.max(began.elapsed());
            if running.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(150));
        life.done.store(true, Ordering::SeqCst);
        for writer in running {
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert!(server.terminate().success());
    let everything = read_dir(dir.path());
    let acknowledged: usize = writers.iter().map(|writer| writer.check(&everything)).sum();
    let retries: u64 = writers.iter().map(|writer| writer.retries).sum();
    assert!(writers.iter().all(|writer| writer.requests > 0), "every writer was acknowledged something");
    assert!(retries > 0, "no restart was met, so nothing was shown");
    eprintln!(
        "{restarts} restarts, at most {away:?} from signal to readiness: {acknowledged} samples \
         acknowledged, none lost, {retries} attempts retried"
    );
}
