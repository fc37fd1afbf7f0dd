//! Kills and power cuts of the built server while pushes go to an engine elsewhere, and kills of the engine in between:
//! every push that was acknowledged is at the engine in the end, and nothing is set aside.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "../storage/tests/volume/mod.rs"]
mod volume;

use common::engine::{figure, wait_until_sent};
use common::process::{Client, Server, free_port};
use common::prometheus::{self, Prometheus};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use volume::Volume;

const PUSHERS: usize = 3;
const KILLS: u64 = 12;
const POWER_CUTS: u64 = 6;

/// Pushes that were acknowledged, by pod and value.
#[derive(Default)]
struct Pushes {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<(usize, u64)>>,
    /// The power is being cut: what is acknowledged now proves nothing (`volume`).
    is_cut: AtomicBool,
}

impl Pushes {
    /// Pushes one value after another, until the server is gone.
    fn go_on(&self, address: SocketAddr, pod: usize) {
        let mut client = Client::new(address);
        loop {
            let value = self.next.fetch_add(1, Ordering::SeqCst);
            let path = format!("/write-metrics/namespaces/default/pods/web-{pod}/load");
            match client.send("POST", &path, &[], format!("\"{value}\"").as_bytes()) {
                Ok(reply) if reply.status == 200 => {
                    let mut acknowledged = self.acknowledged.lock().unwrap();
                    if !self.is_cut.load(Ordering::SeqCst) {
                        acknowledged.insert((pod, value));
                    }
                }
                _ => return,
            }
        }
    }
}

/// Numbers without a pattern, the same in each run: xorshift64 (Marsaglia, Journal of Statistical Software 8, 2003).
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

fn start_engine(dir: &Path, address: SocketAddr) -> Prometheus {
    let config = |_| "storage: {tsdb: {out_of_order_time_window: 1h}}\n".to_owned();
    Prometheus::start_on(dir, address, config, &["--web.enable-remote-write-receiver", "--log.level=error"])
}

fn start(data: &Path, engine: SocketAddr) -> Server {
    let url = format!("http://{engine}");
    Server::start(data, &["--store", "prometheus", "--store-url", &url, "--log-level", "off"])
}

/// One life of the server, ended by `end` after a time that the seed chooses.
fn live(data: &Path, engine: SocketAddr, pushes: &Pushes, seed: &mut u64, end: impl FnOnce()) {
    let server = start(data, engine);
    let address = server.address;
    let life = Duration::from_millis(30 + random(seed, 700));
    std::thread::scope(|scope| {
        for pod in 0..PUSHERS {
            scope.spawn(move || pushes.go_on(address, pod));
        }
        std::thread::sleep(life);
        end();
        server.kill9();
    });
}

/// Everything that was acknowledged is at the engine.
#[track_caller]
fn check(data: &Path, engine: &mut Prometheus, pushes: &Pushes) {
    let server = start(data, engine.address);
    wait_until_sent(&server);
    let acknowledged = pushes.acknowledged.lock().unwrap();
    let mut there = BTreeSet::new();
    for series in engine.query("load[1h]") {
        let pod = series["metric"]["pod"].as_str().unwrap().strip_prefix("web-").unwrap().parse().unwrap();
        for sample in series["values"].as_array().unwrap() {
            there.insert((pod, sample[1].as_str().unwrap().parse().unwrap()));
        }
    }
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(acknowledged.len() > 100, "only {} were acknowledged", acknowledged.len());
    assert_eq!(figure(&server, "lookback_outbox_dead_letter_samples"), Some(0));
}

#[test]
fn what_is_acknowledged_reaches_the_engine_through_kills() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut engine = start_engine(there.path(), address);
    let (pushes, mut seed) = (Pushes::default(), 0x9e37_79b9_7f4a_7c15);
    for kill in 1..=KILLS {
        // Every third time the engine dies as well, some time before the server.
        let is_engine_killed = kill % 3 == 0;
        live(data.path(), address, &pushes, &mut seed, || {
            if is_engine_killed {
                engine.process.kill9();
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        if is_engine_killed {
            drop(engine);
            engine = start_engine(there.path(), address);
        }
    }
    check(data.path(), &mut engine, &pushes);
}

#[test]
fn what_is_acknowledged_reaches_the_engine_through_power_cuts() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let volume = match Volume::make() {
        Ok(volume) => volume,
        Err(reason) => {
            eprintln!("SKIPPED: a volume whose power can be cut can't be made here: {reason}");
            return;
        }
    };
    let there = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut engine = start_engine(there.path(), address);
    let (pushes, mut seed) = (Pushes::default(), 0x2545_f491_4f6c_dd1d);
    let mount_point = volume.mount_point();
    let data = Path::new(&mount_point).join("data");
    for cut in 0..POWER_CUTS {
        volume.mount().expect("the file system recovers");
        // While the engine is away, everything stands in the outbox alone.
        let is_engine_away = cut % 2 == 0;
        if is_engine_away {
            engine.process.kill9();
        }
        live(&data, address, &pushes, &mut seed, || {
            let cut = volume.cut_power(|| pushes.is_cut.store(true, Ordering::SeqCst));
            cut.expect("the power is cut");
        });
        pushes.is_cut.store(false, Ordering::SeqCst);
        volume.unmount();
        if is_engine_away {
            drop(engine);
            engine = start_engine(there.path(), address);
        }
    }
    volume.mount().expect("the file system recovers");
    check(&data, &mut engine, &pushes);
    volume.unmount();
}
