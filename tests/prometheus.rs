//! Debian's real Prometheus scrapes itself and a target of ours and remote-writes all of it here: every
//! sample that it answers itself is held here, equal in time and value, and staleness markers besides.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{SOON, Server, wait_until};
use common::prometheus::{self, Prometheus};
use common::store::{Everything, read_dir};
use lookback_storage::{Labels, STALENESS_MARKER_BITS};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Scrapes of each target that are waited for.
const SCRAPES: f64 = 8.0;

/// A target with values that are hard to keep, until it is dropped.
struct Target {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for (scrape, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(SOON)).unwrap();
                // One request a connection; its head fits one read, or the scrape fails.
                let _ = stream.read(&mut [0; 16 << 10]);
                let body = format!(
                    "odd_gauge{{kind=\"pi\"}} 3.141592653589793\nodd_gauge{{kind=\"tiny\"}} 5e-324\n\
                     odd_gauge{{kind=\"nan\"}} NaN\nodd_gauge{{kind=\"infinite\"}} -Inf\n\
                     odd_gauge{{kind=\"zero\"}} -0\nodd_gauge{{kind=\"a b \\\"ü\\\"\\\\\"}} 1e300\n\
                     # TYPE odd_total counter\nodd_total {}\n",
                    scrape as f64 * 1.1
                );
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { address, stopped, thread: Some(thread) }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A configuration that scrapes itself and `target`, and writes all of it to `write_to`.
fn config(itself: SocketAddr, write_to: SocketAddr, target: SocketAddr) -> String {
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
         scrape_configs:\n\
         - job_name: itself\n  static_configs:\n  - targets: ['{itself}']\n\
         - job_name: odd\n  static_configs:\n  - targets: ['{target}']\n    \
         labels: {{namespace: default, workload: odd, pod: odd-0}}\n\
         remote_write:\n- url: http://{write_to}/api/v1/write\n  \
         queue_config: {{batch_send_deadline: 500ms}}\n"
    )
}

/// Times in milliseconds and values of one series of an answer.
fn points(series: &Value) -> Vec<(i64, f64)> {
    let point = |point: &Value| {
        let at_ms = (point[0].as_f64().unwrap() * 1_000.0).round() as i64;
        (at_ms, point[1].as_str().unwrap().parse().unwrap())
    };
    series["values"].as_array().unwrap().iter().map(point).collect()
}

/// The same value, bit for bit, as far as Prometheus tells it: a NaN is answered as text, so any NaN but a
/// staleness marker is the same; and its protobuf encoder leaves out what equals zero, -0 too.
fn is_same(bits: u64, value: f64) -> bool {
    bits == value.to_bits()
        || (value.is_nan() && f64::from_bits(bits).is_nan() && bits != STALENESS_MARKER_BITS)
        || (value == 0.0 && bits == 0)
}

fn check_equal(held: &Everything, answered: &[Value]) {
    let mut compared = 0;
    for series in answered {
        let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).unwrap();
        let text = Labels::new(labels).unwrap().to_string();
        let points = points(series);
        let (first_ms, last_ms) = (points[0].0, points.last().unwrap().0);
        let ours = held.get(&text).unwrap_or_else(|| panic!("{text} is not here"));
        let ours: Vec<_> = ours
            .iter()
            .filter(|(at_ms, bits)| (first_ms..=last_ms).contains(at_ms) && *bits != STALENESS_MARKER_BITS)
            .collect();
        let same =
            ours.iter().zip(&points).all(|((our_ms, bits), (ms, v))| our_ms == ms && is_same(*bits, *v));
        assert!(same && ours.len() == points.len(), "{text}: here {ours:?}, there {points:?}");
        compared += points.len();
    }
    assert!(answered.len() > 300 && compared > 3_000, "{compared} samples of {} series", answered.len());
    eprintln!("{compared} samples of {} series are equal", answered.len());
}

#[test]
fn what_prometheus_scraped_is_held_here_as_it_holds_it() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    let target = Target::start();
    let configured = |itself| config(itself, server.address, target.address);
    let mut prometheus = Prometheus::start(there.path(), configured, &[]);
    wait_until("the target has been scraped some times", || {
        prometheus.number("count_over_time(odd_total[5m])").is_some_and(|count| count >= SCRAPES)
    });
    drop(target);
    wait_until("Prometheus has noticed the end of the target", || {
        prometheus.number("up{job=\"odd\"}") == Some(0.0)
    });
    let answered = prometheus.query("{__name__=~\".+\"}[5m]");
    let odd = prometheus.query("odd_total[5m]");

    // It sends what it has not sent yet before it ends.
    prometheus.process.signal(Signal::TERM);
    assert!(prometheus.process.wait().success(), "{}", prometheus.process.stderr.all());
    let odd = points(&odd[0]);
    let range = server.get(&format!(
        "/api/v1/metrics?workload=odd&namespace=default&metric=odd_total&step=1ms&start={}&end={}",
        odd[0].0 as f64 / 1_000.0,
        odd.last().unwrap().0 as f64 / 1_000.0
    ));
    assert_eq!(points(&range.json()["data"]["result"][0]), odd, "{}", range.text());
    let metrics = server.get("/metrics").text();
    assert!(!metrics.contains("lookback_samples_rejected_total{"), "{metrics}");

    assert!(server.terminate().success());
    let held = read_dir(data.path());
    check_equal(&held, &answered);
    let mut ended = 0;
    for (series, samples) in held.iter().filter(|(series, _)| series.starts_with("odd_")) {
        let markers = samples.iter().filter(|(_, bits)| *bits == STALENESS_MARKER_BITS).count();
        assert_eq!((samples.last().unwrap().1, markers), (STALENESS_MARKER_BITS, 1), "{series}");
        ended += 1;
    }
    assert_eq!(ended, 7, "each series of the target has ended");
}
