//! `kill -9` of the whole server at random points, while it starts and while writers of every kind
//! push: what was acknowledged is there afterwards, bit for bit.
//!
//! 100 kills; as many as `LOOKBACK_KILLS` says in the long run. `LOOKBACK_SEED` repeats a run's choices.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Client, Reply, Server};
use common::remote_write::{message, series};
use common::store::{Everything, now_ms, open, read};
use lookback::kubernetes::quantity::Quantity;
use lookback_storage::{Labels, STALENESS_MARKER_BITS};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const ARGS: [&str; 4] = ["--retention", "off", "--log-level", "warn"];
const SINGLE_WRITERS: usize = 3;
/// Entries of one batch, and samples of one remote write request.
const BATCH_ENTRIES: i64 = 40;
const REMOTE_SERIES: i64 = 10;
const REMOTE_SAMPLES: i64 = 20;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash(writer: usize, series: i64, at: i64) -> u64 {
    mix(mix(writer as u64 ^ mix(series.cast_unsigned())) ^ at.cast_unsigned())
}

/// A quantity with millis, and the float that it means.
fn quantity(writer: usize, series: i64, at: i64) -> (String, f64) {
    let millis = hash(writer, series, at) % 1_000_000_000_000;
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    let value = text.parse().unwrap();
    (text, value)
}

/// Any bit pattern, and every tenth a staleness marker.
fn any_bits(writer: usize, series: i64, at: i64) -> u64 {
    if at % 10 == 9 { STALENESS_MARKER_BITS } else { hash(writer, series, at) }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One value a request, with its time.
    Single,
    /// One value a request, stamped by the server.
    Stamped,
    /// JSON lines.
    Batch,
    /// Remote write, new series among them.
    Remote,
}

/// One sender. It sends a request again that was not answered, as senders do.
struct Writer {
    number: usize,
    kind: Kind,
    base_ms: i64,
    /// The place of the next request.
    next: i64,
    /// Samples that were answered with 2xx, by series.
    acknowledged: BTreeMap<String, BTreeMap<i64, u64>>,
    /// Of [`Kind::Stamped`], whose times the server makes: the values.
    stamped: Vec<f64>,
}

fn text_of(labels: &[(&str, &str)]) -> String {
    Labels::new(labels.iter().copied()).unwrap().to_string()
}

impl Writer {
    fn pod(&self) -> String {
        format!("pod-{}", self.number)
    }

    /// Sends until the server is gone. Whatever else is answered than 2xx ends the test.
    fn run(&mut self, mut client: Client) {
        loop {
            let (samples, answer) = match self.kind {
                Kind::Single => self.send_single(&mut client),
                Kind::Stamped => self.send_stamped(&mut client),
                Kind::Batch => self.send_batch(&mut client),
                Kind::Remote => self.send_remote(&mut client),
            };
            let Ok(reply) = answer else {
                // Nobody knows whether this one was written; a second one would be another sample.
                self.next += i64::from(self.kind == Kind::Stamped);
                return;
            };
            assert!(reply.is_success(), "writer {}: {} {}", self.number, reply.status, reply.text());
            for (series, at_ms, bits) in samples {
                self.acknowledged.entry(series).or_default().insert(at_ms, bits);
            }
            if self.kind == Kind::Stamped {
                self.stamped.push(self.next as f64);
            }
            self.next += 1;
        }
    }

    fn send_single(&self, client: &mut Client) -> (Vec<(String, i64, u64)>, std::io::Result<Reply>) {
        let (pod, at_ms) = (self.pod(), self.base_ms + self.next);
        let (text, value) = quantity(self.number, 0, self.next);
        let path = format!(
            "/write-metrics/namespaces/default/pods/{pod}/kill?labels=workload%3Dkill&timestamp={at_ms}"
        );
        let series =
            text_of(&[("__name__", "kill"), ("namespace", "default"), ("pod", &pod), ("workload", "kill")]);
        (vec![(series, at_ms, value.to_bits())], client.send("POST", &path, &[], text.as_bytes()))
    }

    fn send_stamped(&self, client: &mut Client) -> (Vec<(String, i64, u64)>, std::io::Result<Reply>) {
        let path = format!("/write-metrics/namespaces/default/pods/{}/stamped", self.pod());
        (Vec::new(), client.send("POST", &path, &[], format!("\"{}\"", self.next).as_bytes()))
    }

    fn send_batch(&self, client: &mut Client) -> (Vec<(String, i64, u64)>, std::io::Result<Reply>) {
        let (mut samples, mut body) = (Vec::new(), String::new());
        for entry in 0..BATCH_ENTRIES {
            let (deployment, at_ms) =
                (format!("web-{}", entry % 4), self.base_ms + self.next * 10 + entry / 4);
            let (text, value) = quantity(self.number, entry % 4, at_ms);
            writeln!(
                body,
                r#"{{"namespace":"default","resource":"deployments.apps","name":"{deployment}","metric":"batch","value":"{text}","timestamp":{at_ms},"labels":{{"a b":"ü\"{}"}}}}"#,
                entry % 4
            )
            .unwrap();
            let label = format!("ü\"{}", entry % 4);
            let series = text_of(&[
                ("__name__", "batch"),
                ("namespace", "default"),
                ("deployment", &deployment),
                ("a b", &label),
            ]);
            samples.push((series, at_ms, value.to_bits()));
        }
        (samples, client.send("POST", "/write-metrics", &[], body.as_bytes()))
    }

    fn send_remote(&self, client: &mut Client) -> (Vec<(String, i64, u64)>, std::io::Result<Reply>) {
        let (mut samples, mut sent) = (Vec::new(), Vec::new());
        for number in 0..REMOTE_SERIES {
            // One in ten is a series that only a few requests write.
            let (name, part) = if number == 0 { ("short", self.next / 3) } else { ("long", number) };
            let (part, writer) = (part.to_string(), self.number.to_string());
            let labels = [("__name__", name), ("n", part.as_str()), ("writer", writer.as_str())];
            let points: Vec<(i64, f64)> = (0..REMOTE_SAMPLES)
                .map(|place| {
                    let at = self.next * REMOTE_SAMPLES + place;
                    (self.base_ms + at, f64::from_bits(any_bits(self.number, number, at)))
                })
                .collect();
            let text = text_of(&labels);
            samples.extend(points.iter().map(|(at_ms, value)| (text.clone(), *at_ms, value.to_bits())));
            sent.push(series(&labels, &points));
        }
        (samples, client.remote_write(&message(sent)))
    }

    /// Compares with what the store holds.
    fn check(&self, everything: &Everything) -> usize {
        let empty = Vec::new();
        for (series, acknowledged) in &self.acknowledged {
            let stored: BTreeMap<i64, u64> =
                everything.get(series).unwrap_or(&empty).iter().copied().collect();
            let wrong: Vec<_> =
                acknowledged.iter().filter(|(at_ms, bits)| stored.get(at_ms) != Some(bits)).take(5).collect();
            assert!(wrong.is_empty(), "{series}: acknowledged and not there, or another: {wrong:?}");
        }
        if self.kind == Kind::Stamped {
            let series = text_of(&[("__name__", "stamped"), ("namespace", "default"), ("pod", &self.pod())]);
            let stored = everything.get(&series).unwrap_or(&empty);
            let stored: Vec<f64> = stored.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            assert!(stored.is_sorted_by(|a, b| a < b), "each value once, in the order of sending");
            let lost: Vec<_> = self.stamped.iter().filter(|value| !stored.contains(value)).take(5).collect();
            assert!(lost.is_empty(), "{series}: acknowledged and not there: {lost:?}");
        }
        self.stamped.len() + self.acknowledged.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Compares the newest samples with what the server answers.
    fn check_over_http(&self, server: &Server) {
        if self.kind == Kind::Stamped {
            let Some(newest) = self.stamped.last() else { return };
            let path =
                format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/{}/stamped", self.pod());
            let answer = server.get(&path).json();
            // 1,000 is written as 1k.
            let text = answer["items"][0]["value"].as_str().unwrap_or_else(|| panic!("{answer}"));
            let value = Quantity::parse(text).and_then(|quantity| quantity.value()).unwrap();
            assert!(value >= *newest, "{newest} was acknowledged: {answer}");
        }
        if self.kind != Kind::Single {
            return;
        }
        let Some(samples) = self.acknowledged.values().next() else { return };
        let newest: BTreeMap<i64, u64> = samples.iter().rev().take(500).map(|(t, v)| (*t, *v)).collect();
        let seconds = |at_ms: &i64| format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000);
        let (start, end) = (newest.keys().next().unwrap(), newest.keys().next_back().unwrap());
        let answer = server.get(&format!(
            "/api/v1/metrics?workload=kill&namespace=default&metric=kill&step=1ms&start={}&end={}",
            seconds(start),
            seconds(end)
        ));
        let answer = answer.json();
        let pods = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let pod = pods.iter().find(|pod| pod["metric"]["pod"] == self.pod().as_str());
        let read: BTreeMap<i64, u64> = pod.expect("it has points")["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| {
                let at_ms = (point[0].as_f64().unwrap() * 1_000.0).round() as i64;
                (at_ms, point[1].as_str().unwrap().parse::<f64>().unwrap().to_bits())
            })
            .collect();
        assert_eq!(read, newest);
    }
}

/// The number of samples that were acknowledged, all of which are there.
fn check(dir: &Path, writers: &[Writer], seal: bool) -> usize {
    let db = open(dir);
    let everything = read(&db, &[]);
    let acknowledged = writers.iter().map(|writer| writer.check(&everything)).sum();
    if seal {
        db.seal().unwrap();
    }
    acknowledged
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn what_was_acknowledged_survives_kills_of_the_server() {
    let kills = variable("LOOKBACK_KILLS", 100);
    let seed = variable("LOOKBACK_SEED", 0x2545_f491_4f6c_dd1d);
    eprintln!("LOOKBACK_KILLS={kills} LOOKBACK_SEED={seed}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let base_ms = now_ms() - 60_000;
    let kinds = [Kind::Stamped, Kind::Batch, Kind::Remote, Kind::Remote];
    let mut writers: Vec<Writer> = [Kind::Single; SINGLE_WRITERS]
        .into_iter()
        .chain(kinds)
        .enumerate()
        .map(|(number, kind)| Writer {
            number,
            kind,
            base_ms,
            next: 0,
            acknowledged: BTreeMap::new(),
            stamped: Vec::new(),
        })
        .collect();
    let began = Instant::now();
    let (mut while_starting, mut while_writing) = (0, 0);
    for kill in 0..kills {
        if random.below(8) == 0 {
            let mut starting = Server::spawn(dir.path(), &ARGS);
            std::thread::sleep(Duration::from_millis(random.below(120)));
            starting.kill9();
            while_starting += 1;
        } else {
            let server = Server::start(dir.path(), &ARGS);
            writers.iter().for_each(|writer| writer.check_over_http(&server));
            std::thread::scope(|scope| {
                for writer in &mut writers {
                    let client = server.client();
                    scope.spawn(move || writer.run(client));
                }
                std::thread::sleep(Duration::from_micros(10_000 + random.below(300_000)));
                server.kill9();
            });
            while_writing += 1;
        }
        if kill % 20 == 19 {
            // Some of the next lives begin with blocks and an empty log.
            check(dir.path(), &writers, kill % 40 == 39);
        }
    }
    assert!(Server::start(dir.path(), &ARGS).terminate().success());
    let acknowledged = check(dir.path(), &writers, false);
    for writer in &writers {
        assert!(writer.next as u64 > while_writing, "writer {} hardly wrote", writer.number);
    }
    eprintln!(
        "{while_starting} kills while starting, {while_writing} while writing: {acknowledged} samples \
         acknowledged, none lost, in {:?}",
        began.elapsed()
    );
}
