//! A volume that fills up under a running server: writes are refused with a reason, reads go on, the
//! autoscaler still sees the newest values, marked as not durable, and writes are taken again as soon as
//! there is room, without a restart.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Reply, Server};
use common::remote_write::{message, series};
use common::store::{now_ms, read_dir};
use lookback_storage::Labels;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const ARGS: [&str; 4] = ["--retention", "off", "--log-level", "warn"];
const POD: &str = "/write-metrics/namespaces/default/pods/web-0/load?labels=workload%3Dweb";
/// More than fits a volume of [`SMALL`] beside the reserve.
const REQUESTS_MAX: i64 = 5_000;
const SAMPLES: i64 = 5_000;
const SMALL: &str = "size=112m";
const LARGE: &str = "size=256m";

/// A small volume that goes with its guard.
struct Volume(tempfile::TempDir);

impl Volume {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount(&["-t", "tmpfs", "-o", SMALL, "tmpfs"], dir.path()).then(|| Self(dir))
    }

    fn grow(&self) {
        assert!(mount(&["-o", &format!("remount,{LARGE}")], self.0.path()), "the volume grows");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn mount(args: &[&str], on: &Path) -> bool {
    Command::new("mount").args(args).arg(on).output().is_ok_and(|output| output.status.success())
}

/// Remote write requests of values that nothing compresses, and what was acknowledged of them.
#[derive(Default)]
struct Sender {
    next: i64,
    acknowledged: BTreeMap<String, Vec<(i64, u64)>>,
}

impl Sender {
    fn send(&mut self, server: &Server, now_ms: i64) -> Reply {
        let number = self.next.to_string();
        self.next += 1;
        let samples: Vec<(i64, f64)> = (0..SAMPLES)
            .map(|at| {
                let bits = (self.next * SAMPLES + at).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (now_ms - SAMPLES + at, f64::from_bits(bits))
            })
            .collect();
        let labels = [("__name__", "filling"), ("n", number.as_str())];
        let reply = server.remote_write(&message(vec![series(&labels, &samples)]));
        if reply.is_success() {
            let bits = samples.iter().map(|(at_ms, value)| (*at_ms, value.to_bits())).collect();
            self.acknowledged.insert(Labels::new(labels).unwrap().to_string(), bits);
        }
        reply
    }
}

fn check_refused(reply: &Reply) -> String {
    assert_eq!(reply.status, 507, "{}", reply.text());
    assert!(reply.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{reply:?}");
    reply.text()
}

fn check_status(reply: &Reply) {
    let said = check_refused(reply);
    let status = reply.json();
    assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &507.into()), "{said}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("no space left") && message.contains("--retention"), "{message}");
}

/// The latest value of a pod, and whether the answer says that it is durable.
fn latest(server: &Server, pod: &str) -> (String, bool) {
    let reply =
        server.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/{pod}/load"));
    let value = reply.json()["items"][0]["value"].as_str().unwrap_or_default().to_owned();
    let warning = reply.header("warning");
    assert!(
        warning.is_none_or(|said| said.starts_with("299 ") && said.contains("not durable")),
        "{warning:?}"
    );
    (value, warning.is_none())
}

/// History is served as it is on disk.
fn check_reads(server: &Server, now_ms: i64) {
    let (start, end) = (now_ms / 1_000 - 600, now_ms / 1_000 + 600);
    let range = server.get(&format!(
        "/api/v1/metrics?workload=web&namespace=default&metric=load&step=20m&start={start}&end={end}"
    ));
    assert_eq!(range.json()["data"]["result"][0]["values"][0][1], "0.25", "{}", range.text());
}

#[test]
fn a_full_volume_refuses_writes_serves_reads_and_recovers() {
    let Some(volume) = Volume::mount() else {
        eprintln!("SKIPPED: this user may not mount a small tmpfs, so a full volume can't be made");
        return;
    };
    let data_dir = volume.0.path().join("data");
    let mut server = Server::start(&data_dir, &ARGS);
    let (now_ms, mut sender) = (now_ms(), Sender::default());
    assert_eq!(server.post(POD, "\"250m\"").status, 200);

    let refused = (0..REQUESTS_MAX).map(|_| sender.send(&server, now_ms)).find(|reply| reply.status != 204);
    let refused = refused.expect("the volume fills up");
    let said = check_refused(&refused);
    assert_eq!(refused.json()["status"], "error", "{said}");
    assert!(refused.json()["error"].as_str().unwrap().contains("no space left"), "{said}");
    assert!(sender.acknowledged.len() > 5, "only {} requests fitted", sender.acknowledged.len());

    for _ in 0..3 {
        check_status(&server.post(POD, "\"500m\""));
        let entry = r#"{"namespace":"default","resource":"pods","name":"web-0","metric":"load","value":"500m","labels":{"workload":"web"}}"#;
        check_status(&server.post("/write-metrics", entry));
        check_refused(&sender.send(&server, now_ms));
        check_reads(&server, now_ms);
        assert_eq!(latest(&server, "web-0"), ("500m".to_owned(), false));
        // A pod of which nothing was ever stored.
        check_status(&server.post(POD.replace("web-0", "new-0").as_str(), "\"1\""));
        assert_eq!(latest(&server, "new-0"), ("1".to_owned(), false));
        assert_eq!(server.get("/livez").status, 200);
        // Reads are served, so the pod stays in its Service, and says what is wrong.
        let ready = server.get("/readyz?verbose");
        assert_eq!(ready.status, 200, "{}", ready.text());
        assert!(ready.text().contains("writes refused"), "{}", ready.text());
        assert!(ready.text().contains("served from memory, not durable"), "{}", ready.text());
        let metrics = server.get("/metrics").text();
        assert!(metrics.contains("\nlookback_store_writable 0\n"), "{metrics}");
        assert!(!metrics.contains("\nlookback_store_latest_undurable 0\n"), "{metrics}");
    }
    assert!(server.process.ended().is_none(), "the server lives");

    volume.grow();
    assert_eq!(server.post(POD.replace("web-0", "web-1").as_str(), "\"750m\"").status, 200);
    assert_eq!(sender.send(&server, now_ms).status, 204);
    check_reads(&server, now_ms);
    // What was refused is served until something newer is stored.
    assert_eq!(latest(&server, "web-0"), ("500m".to_owned(), false));
    assert_eq!(server.post(POD, "\"125m\"").status, 200);
    assert_eq!(latest(&server, "web-0"), ("125m".to_owned(), true));
    assert_eq!(latest(&server, "new-0"), ("1".to_owned(), false));
    assert_eq!(server.get("/readyz").text(), "ok");
    assert!(server.get("/metrics").text().contains("\nlookback_store_writable 1\n"));

    server.kill9();
    let stored = read_dir(&data_dir);
    for (series, samples) in &sender.acknowledged {
        assert!(stored.get(series) == Some(samples), "{series} was acknowledged");
    }
    let filled = stored.keys().filter(|series| series.starts_with("filling")).count();
    assert_eq!(filled, sender.acknowledged.len(), "what was refused is not there");
    let pods =
        stored.iter().filter(|(series, _)| series.starts_with("load")).map(|(_, samples)| samples.len());
    assert_eq!(pods.collect::<Vec<_>>(), [2, 1], "what was served from memory is not history");
}
