//! What does the server take over HTTP, as senders send it? Remote write of 3,500 series from two
//! connections, one sample a series a request and then twenty; the server's CPU and memory for it, what
//! it takes on disk once sealed, and how soon it is ready again after `kill -9`.
//!
//! Not a criterion bench: one run of the built server as a whole process, bounded in samples.

mod common;
#[path = "../tests/common/remote_write.rs"]
mod remote_write;

use lookback_storage::Labels;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 2;
/// Rounds of one sample a series, and of twenty.
const LIVE_ROUNDS: i64 = 1_500;
const BACKFILL_ROUNDS: i64 = 100;

fn start(dir: &Path) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lookback"))
        .args(["--listen", "127.0.0.1:0", "--secure-port", "0", "--log-level", "warn"])
        .args(["--retention", "off", "--data-dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let address = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.trim().strip_prefix("http://")?.split_whitespace().next()?.to_owned()));
    (process, address.expect("the banner says where it listens"))
}

/// Bodies for one connection, each of at most 2,000 samples a sample of a series, or ten times that.
fn bodies(series: &[Labels], from: i64, rounds: i64, samples_each: i64) -> Vec<(usize, Vec<u8>)> {
    let mut bodies = Vec::new();
    let per_body = if samples_each == 1 { 2_000 } else { 500 };
    for round in 0..rounds {
        for (part, labels) in series.chunks(per_body).enumerate() {
            let timeseries = labels.iter().enumerate().map(|(place, labels)| {
                let pairs: Vec<(&str, &str)> = labels.iter().collect();
                let sample = |i: i64| {
                    let at = from + round * samples_each + i;
                    (common::START_MS + at * common::INTERVAL_MS, common::value(part * per_body + place, at))
                };
                remote_write::series(&pairs, &(0..samples_each).map(sample).collect::<Vec<_>>())
            });
            let message = remote_write::message(timeseries.collect());
            let body = snap::raw::Encoder::new().compress_vec(&message).expect("compressed");
            bodies.push((labels.len() * samples_each as usize, body));
        }
    }
    bodies
}

/// Sends the bodies one by one and answers how many samples were acknowledged.
fn send(address: &str, bodies: &[(usize, Vec<u8>)]) -> usize {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut acknowledged = 0;
    for (samples, body) in bodies {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {address}\r\nContent-Encoding: snappy\r\n\
             Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("answered");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
        acknowledged += samples;
    }
    acknowledged
}

/// CPU seconds that a process has used.
fn cpu_seconds(process: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("read");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

fn peak_mb(process: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("told");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
}

fn metric(address: &str, name: &str) -> f64 {
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let line = answer.lines().find_map(|line| line.strip_prefix(name)).expect("told");
    line.trim().parse().expect("a number")
}

fn main() {
    // `cargo test --benches` and the like only want to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut server, address) = start(dir.path());
    let series = common::series(500);
    let mut from = 0;
    for (name, rounds, samples_each) in [("1 sample", LIVE_ROUNDS, 1), ("20 samples", BACKFILL_ROUNDS, 20)] {
        let parts: Vec<_> = series
            .chunks(series.len().div_ceil(CONNECTIONS))
            .map(|part| bodies(part, from, rounds, samples_each))
            .collect();
        from += rounds * samples_each;
        let (began, cpu) = (Instant::now(), cpu_seconds(&server));
        let acknowledged: usize = std::thread::scope(|scope| {
            let senders: Vec<_> = parts.iter().map(|part| scope.spawn(|| send(&address, part))).collect();
            senders.into_iter().map(|sender| sender.join().expect("sent")).sum()
        });
        let millions = acknowledged as f64 / 1e6;
        println!(
            "{name} a series a request: {:.2} M samples/s durable, {:.2} CPU s/M, peak {} MB",
            millions / began.elapsed().as_secs_f64(),
            (cpu_seconds(&server) - cpu) / millions,
            peak_mb(&server)
        );
    }
    let began = Instant::now();
    while metric(&address, "lookback_store_samples{kind=\"head\"}") > 0.0
        && began.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(200));
    }
    let sealed = metric(&address, "lookback_store_samples{kind=\"sealed\"}");
    let block_bytes = metric(&address, "lookback_store_disk_bytes{kind=\"blocks\"}");
    println!("sealed: {:.1} M samples at {:.2} B/sample", sealed / 1e6, block_bytes / sealed);
    server.kill().expect("killed");
    server.wait().expect("ended");
    let began = Instant::now();
    let (mut server, _) = start(dir.path());
    println!("ready after kill -9: {:.2} s", began.elapsed().as_secs_f64());
    server.kill().expect("killed");
    server.wait().expect("ended");
}
