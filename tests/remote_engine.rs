//! The built server over real engines that go away, are slow, refuse, restart: nothing that was acknowledged is
//! lost, latest values are served all the time, and what waits is sent as soon as it can be.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::engine::{figure, latest, push, wait_until_sent};
use common::named_engine::{Kind, NamedEngine};
use common::process::{Server, free_port, lookback, run_to_end, wait_until};
use common::prometheus::{self, Prometheus};
use common::proxy::{BUSY_429, ERROR_500, LOSE_ANSWER, PASS, Proxy, SILENT, SLOW};
use common::remote_write::{message, series};
use common::store::now_ms;
use common::victoria::{self, VictoriaMetrics};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn start(data: &Path, engine: SocketAddr, more: &[&str]) -> Server {
    let url = format!("http://{engine}");
    let args = ["--store", "prometheus", "--store-url", &url, "--log-level", "error"];
    Server::start(data, &[&args[..], more].concat())
}

fn start_prometheus(dir: &Path, address: SocketAddr) -> Prometheus {
    let config = |_| "storage: {tsdb: {out_of_order_time_window: 10m}}\n".to_owned();
    Prometheus::start_on(dir, address, config, &["--web.enable-remote-write-receiver", "--log.level=error"])
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1_024
}

/// 1,000 samples each of 10 series.
fn many(request: i64, now_ms: i64) -> Vec<u8> {
    let samples: Vec<(i64, f64)> = (0..1_000)
        .map(|at| (now_ms + request * 1_000 + at - 300_000, (request * 1_000 + at) as f64))
        .collect();
    let pods: Vec<String> = (0..10).map(|pod| format!("many-{pod}")).collect();
    message(
        pods.iter()
            .map(|pod| series(&[("__name__", "many"), ("namespace", "default"), ("pod", pod)], &samples))
            .collect(),
    )
}

#[test]
fn an_engine_that_is_away_loses_nothing_and_is_caught_up_with() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
    let server = start(data.path(), address, &[]);
    for value in 1..=20 {
        assert_eq!(push(&server, "web-0", value), 200);
        assert_eq!(latest(&server, "web-0"), value.to_string());
    }
    // A minute of 10 series at a sample a millisecond: an hour of 2,500 series at 15 s, compressed.
    let now_ms = now_ms();
    for request in 0..60 {
        let reply = server.remote_write(&many(request, now_ms));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    assert_eq!(figure(&server, "lookback_outbox_samples"), Some(600_020));
    assert!(resident_bytes(&server) < 300 << 20, "{} bytes in memory", resident_bytes(&server));
    let ready = server.get("/readyz?verbose");
    assert!(ready.status == 200 && ready.text().contains("wait for the engine"), "{}", ready.text());
    server.kill9();

    let server = start(data.path(), address, &[]);
    assert_eq!(latest(&server, "web-0"), "20", "what waits is served after a restart");
    let mut engine = start_prometheus(there.path(), address);
    wait_until_sent(&server);
    assert_eq!(engine.number("sum(count_over_time(many[10m]))"), Some(600_000.0));
    assert_eq!(engine.number("sum(sum_over_time(many[10m]))"), Some(10.0 * 59_999.0 * 30_000.0));
    assert_eq!(engine.number("count_over_time(load[10m])"), Some(20.0));
    assert_eq!(figure(&server, "lookback_outbox_dead_letter_samples"), Some(0));
    assert_eq!(latest(&server, "web-0"), "20");
}

/// A server before an engine that is reached through a proxy, and how many values were pushed.
struct Pair {
    server: Server,
    proxy: Proxy,
    engine: Prometheus,
    pushed: u32,
    dirs: [tempfile::TempDir; 2],
}

impl Pair {
    /// `None`: there is no Prometheus.
    fn start(more: &[&str]) -> Option<Self> {
        if !prometheus::is_there("prometheus") {
            return None;
        }
        let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
        let engine = start_prometheus(there.path(), address);
        let proxy = Proxy::start(address);
        let server = start(data.path(), proxy.address, more);
        Some(Self { server, proxy, engine, pushed: 0, dirs: [data, there] })
    }

    /// Pushes some values, each of which is read at once.
    #[track_caller]
    fn push_some(&mut self) {
        for _ in 0..5 {
            self.pushed += 1;
            assert_eq!(push(&self.server, "web-0", self.pushed), 200);
            assert_eq!(latest(&self.server, "web-0"), self.pushed.to_string());
        }
    }

    /// Everything that was pushed comes to be there, once, and nothing was set aside: what was sent twice was
    /// refused, found to be there, and left at that.
    #[track_caller]
    fn assert_all_is_there(&mut self) {
        wait_until_sent(&self.server);
        let pushed = f64::from(self.pushed);
        assert_eq!(self.engine.number("count_over_time(load[10m])"), Some(pushed));
        assert_eq!(self.engine.number("sum_over_time(load[10m])"), Some(pushed * (pushed + 1.0) / 2.0));
        assert_eq!(figure(&self.server, "lookback_outbox_dead_letter_samples"), Some(0));
    }
}

/// The engine behaves so, until so many requests have seen it, and then well again.
#[track_caller]
fn nothing_is_lost_while_an_engine_behaves(mode: u8, seen_by: usize, timeout: &str) {
    let Some(mut pair) = Pair::start(&["--store-timeout", timeout]) else { return };
    pair.push_some();
    wait_until_sent(&pair.server);
    pair.proxy.mode.store(mode, Ordering::SeqCst);
    pair.push_some();
    pair.proxy.behave(mode, seen_by);
    pair.push_some();
    pair.proxy.mode.store(PASS, Ordering::SeqCst);
    pair.assert_all_is_there();
}

#[test]
fn an_engine_that_answers_500_loses_nothing() {
    nothing_is_lost_while_an_engine_behaves(ERROR_500, 3, "2s");
}

#[test]
fn an_engine_that_answers_429_loses_nothing() {
    nothing_is_lost_while_an_engine_behaves(BUSY_429, 2, "2s");
}

#[test]
fn an_engine_that_never_answers_loses_nothing() {
    nothing_is_lost_while_an_engine_behaves(SILENT, 2, "2s");
}

#[test]
fn an_engine_whose_answers_are_lost_is_told_everything_once() {
    nothing_is_lost_while_an_engine_behaves(LOSE_ANSWER, 2, "2s");
}

#[test]
fn an_engine_that_is_slow_takes_everything() {
    nothing_is_lost_while_an_engine_behaves(SLOW, 2, "20s");
}

#[test]
fn an_engine_that_dies_within_a_batch_and_comes_back_loses_nothing() {
    let Some(mut pair) = Pair::start(&[]) else { return };
    pair.push_some();
    let (now_ms, address) = (now_ms(), pair.engine.address);
    for request in 0..60 {
        assert_eq!(pair.server.remote_write(&many(request, now_ms)).status, 204);
        if request == 30 {
            pair.engine.process.kill9();
        }
    }
    pair.push_some();
    let waiting = figure(&pair.server, "lookback_outbox_samples").unwrap();
    assert!((290_000..600_010).contains(&waiting), "{waiting} samples wait");
    let there = pair.dirs[1].path().to_owned();
    pair.engine = start_prometheus(&there, address);
    // And again, while it catches up.
    wait_until("it catches up", || figure(&pair.server, "lookback_outbox_samples").unwrap() < waiting);
    pair.engine.process.kill9();
    pair.push_some();
    pair.engine = start_prometheus(&there, address);
    pair.assert_all_is_there();
    assert_eq!(pair.engine.number("sum(count_over_time(many[10m]))"), Some(600_000.0));
}

#[test]
fn an_autoscalers_question_costs_the_engine_one_request() {
    let Some(mut pair) = Pair::start(&[]) else { return };
    pair.push_some();
    for pod in 1..20 {
        assert_eq!(push(&pair.server, &format!("web-{pod}"), pod), 200);
    }
    wait_until_sent(&pair.server);
    let reads = || {
        let heads = pair.proxy.heads.lock().unwrap();
        heads.iter().filter(|head| head.starts_with("post /api/v1/read ")).count()
    };
    let before = reads();
    let all = pair.server.get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/load").json();
    assert_eq!(all["items"].as_array().unwrap().len(), 20, "{all}");
    assert_eq!(reads() - before, 1);
}

#[test]
fn an_autoscaler_is_answered_in_time_whatever_the_engine_does() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    /// What a busy machine may add.
    const MORE: Duration = Duration::from_secs(4);
    let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
    let _engine = start_prometheus(there.path(), address);
    let proxy = Proxy::start(address);
    let server = start(data.path(), proxy.address, &[]);
    let asked = |what: &str| {
        let began = Instant::now();
        let metrics = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*";
        (server.get(&format!("{metrics}/{what}")), began.elapsed())
    };
    assert_eq!(push(&server, "web-0", 7), 200);
    // Of a metric that nobody knows the whole store is asked, again and again: each time it is slow.
    proxy.mode.store(SLOW, Ordering::SeqCst);
    let (reply, taken) = asked("nobody-knows-it");
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(reply.text().contains("no answer within 25 s"), "{}", reply.text());
    assert!(taken < Duration::from_secs(25) + MORE, "{taken:?}");
    // What came in here needs the engine no more than a moment, and while it is away not at all.
    for mode in [SLOW, SILENT] {
        proxy.mode.store(mode, Ordering::SeqCst);
        let (reply, taken) = asked("load");
        assert_eq!((reply.status, &reply.json()["items"][0]["value"]), (200, &"7".into()), "{mode}");
        assert!(taken < Duration::from_secs(2) + MORE, "{taken:?}");
        let (reply, taken) = asked("load");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(taken < MORE, "{taken:?}");
    }
    // What only the engine knows fails at the bound of one call.
    let (reply, taken) = asked("nobody-knows-it");
    assert!(matches!(reply.status, 503 | 504), "{}", reply.text());
    assert!(taken < Duration::from_secs(20) + MORE, "{taken:?}");
}

#[test]
fn what_is_refused_for_good_is_set_aside_listed_and_sent_again() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
    let mut engine = start_prometheus(there.path(), address);
    let server = start(data.path(), address, &[]);
    let (now_ms, old_ms) = (now_ms(), now_ms() - 3_600_000);
    let of = |pod: &str, samples: &[(i64, f64)]| {
        series(&[("__name__", "late"), ("namespace", "default"), ("pod", pod)], samples)
    };
    let first = message(vec![of("a", &[(now_ms, 1.0)]), of("b", &[(now_ms, 1.0)])]);
    assert_eq!(server.remote_write(&first).status, 204);
    wait_until_sent(&server);
    // The old one in the middle would take all of the request with it.
    let mixed = message(vec![
        of("a", &[(now_ms + 1, 2.0)]),
        of("b", &[(old_ms, 7.5), (now_ms + 1, 2.0)]),
        of("c", &[(now_ms, 3.0)]),
    ]);
    assert_eq!(server.remote_write(&mixed).status, 204);
    wait_until_sent(&server);
    assert_eq!(engine.number("sum(sum_over_time(late[10m]))"), Some(9.0));
    assert_eq!(figure(&server, "lookback_outbox_dead_letter_samples"), Some(1));
    let data_dir = format!("--data-dir={}", data.path().display());
    let outbox = |what| {
        let output = run_to_end(lookback().args(["outbox", what, &data_dir]));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (_, listed, _) = outbox("list");
    assert!(listed.contains(r#"late{namespace="default",pod="b"}"#) && listed.contains("7.5"), "{listed}");
    assert!(listed.contains("1 samples in 1 letters"), "{listed}");
    let (replayed, _, said) = outbox("replay");
    assert!(!replayed && said.contains("used by another process"), "{said}");
    assert!(server.terminate().success());
    let (replayed, said, _) = outbox("replay");
    assert!(replayed && said.contains("1 samples are in the outbox again"), "{said}");
    assert!(outbox("list").1.starts_with("0 samples"));
    // An engine that takes it now: one that has nothing yet.
    drop(engine);
    let empty = tempfile::tempdir().unwrap();
    let mut engine = start_prometheus(empty.path(), address);
    let server = start(data.path(), address, &[]);
    wait_until_sent(&server);
    assert_eq!(engine.number("sum(last_over_time(late[2h]))"), Some(7.5));
}

/// A small volume that goes with its guard.
struct Volume(tempfile::TempDir);

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_volume_of_the_outbox_refuses_and_recovers() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let volume = Volume(tempfile::tempdir().unwrap());
    let mut mount = Command::new("mount");
    let mounted = mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(volume.0.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this user may not mount a small tmpfs, so a full volume can't be made");
        return;
    }
    let (there, address, now_ms) = (tempfile::tempdir().unwrap(), loopback(), now_ms());
    let data_dir = volume.0.path().join("data");
    let server = start(&data_dir, address, &[]);
    assert_eq!(push(&server, "web-0", 1), 200);
    let noise = |request: i64| {
        let bits =
            |at: i64| (request * 5_000 + at).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) & !(1 << 62);
        let samples: Vec<(i64, f64)> =
            (0..5_000).map(|at| (now_ms - 5_000 + at, f64::from_bits(bits(at)))).collect();
        let number = request.to_string();
        message(vec![series(&[("__name__", "noise"), ("n", &number)], &samples)])
    };
    let mut taken = 0;
    let refused = loop {
        let reply = server.remote_write(&noise(taken));
        if reply.status != 204 {
            break reply;
        }
        taken += 1;
        assert!(taken < 1_000, "the volume fills up");
    };
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.text().contains("full"), "{}", refused.text());
    // What can't be written is served as a latest value all the same.
    while push(&server, "web-0", 2) == 200 {}
    assert_eq!(push(&server, "web-0", 3), 507);
    assert_eq!(latest(&server, "web-0"), "3");
    assert_eq!(figure(&server, "lookback_store_writable"), Some(0));
    let mut engine = start_prometheus(there.path(), address);
    wait_until_sent(&server);
    wait_until("there is room again", || push(&server, "web-0", 4) == 200);
    assert_eq!(latest(&server, "web-0"), "4");
    wait_until_sent(&server);
    assert_eq!(engine.number("sum(count_over_time(noise[10m]))"), Some((taken * 5_000) as f64));
    assert_eq!(figure(&server, "lookback_store_writable"), Some(1));
}

#[test]
fn what_an_engine_forgets_in_its_last_seconds_is_sent_again() {
    if !victoria::is_there() {
        return;
    }
    let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
    let mut engine = VictoriaMetrics::start_on(there.path(), address);
    let server = start(data.path(), address, &["--store-replay-after", "3s"]);
    for pod in 0..50 {
        assert_eq!(push(&server, &format!("web-{pod}"), pod), 200);
    }
    wait_until_sent(&server);
    engine.process.kill9();
    drop(engine);
    let mut engine = VictoriaMetrics::start_on(there.path(), address);
    wait_until("everything is there", || {
        let _ = engine.client.send("GET", "/internal/force_flush", &[], b"");
        let counted = engine.client.send("GET", "/api/v1/series?match[]=load&start=-10m", &[], b"");
        counted.is_ok_and(|reply| reply.json()["data"].as_array().is_some_and(|all| all.len() == 50))
    });
    assert_eq!(latest(&server, "web-49"), "49");
}

#[test]
fn every_question_is_answered_over_an_engine() {
    if !prometheus::is_there("prometheus") {
        return;
    }
    let (data, there, address) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), loopback());
    let _engine = start_prometheus(there.path(), address);
    let server = start(data.path(), address, &[]);
    every_question_is_answered(&server);
    let refused = server.post("/api/v1/admin/tsdb/delete_series?match[]=cpu", "");
    assert!(refused.text().contains("--web.enable-admin-api"), "{}", refused.text());
}

#[test]
fn every_question_is_answered_over_the_engine_that_runs_already() {
    let Some(engine) = NamedEngine::from_variables() else { return };
    let data = tempfile::tempdir().unwrap();
    let flags = engine.flags();
    let server = Server::start(data.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    every_question_is_answered(&server);
    let deleted = server.post("/api/v1/admin/tsdb/delete_series?match[]=cpu", "");
    match engine.kind {
        Kind::Cortex | Kind::Thanos => assert!(deleted.text().contains("no API"), "{}", deleted.text()),
        Kind::VictoriaMetricsCluster => {
            assert_eq!(deleted.status, 204, "{}", deleted.text());
            wait_until("nothing is there", || {
                server.get("/api/v1/query?query=cpu").json()["data"]["result"] == serde_json::json!([])
            });
        }
    }
    // More at once than Cortex takes in one request is sent in several.
    let now = now_ms();
    for request in 0..6 {
        assert_eq!(server.remote_write(&many(request, now)).status, 204);
    }
    wait_until_sent(&server);
    wait_until("all of it is there", || {
        let count = server.get("/api/v1/query?query=sum(count_over_time(many%5B10m%5D))").json();
        count["data"]["result"][0]["value"][1] == "60000"
    });
    // A sample that it refuses for good is found among others, and set aside.
    let (now_ms, old_ms) = (now_ms(), now_ms() - 3 * 3_600_000);
    let of = |pod: &str, samples: &[(i64, f64)]| {
        series(&[("__name__", "late"), ("namespace", "default"), ("pod", pod)], samples)
    };
    assert_eq!(server.remote_write(&message(vec![of("a", &[(now_ms, 1.0)])])).status, 204);
    wait_until_sent(&server);
    let mixed = message(vec![of("a", &[(old_ms, 7.5), (now_ms + 1, 2.0)]), of("b", &[(now_ms, 3.0)])]);
    assert_eq!(server.remote_write(&mixed).status, 204);
    wait_until_sent(&server);
    let set_aside = u64::from(engine.kind != Kind::VictoriaMetricsCluster);
    assert_eq!(figure(&server, "lookback_outbox_dead_letter_samples"), Some(set_aside));
    wait_until("all else is there", || {
        let sum = server.get("/api/v1/query?query=sum(sum_over_time(late%5B10m%5D))").json();
        sum["data"]["result"][0]["value"][1] == "6"
    });
}

#[track_caller]
fn every_question_is_answered(server: &Server) {
    let batch = r#"
{"namespace":"default","resource":"pods","name":"web-0","metric":"cpu","value":"250m","labels":{"container":"app","workload":"web"}}
{"namespace":"default","resource":"pods","name":"web-1","metric":"cpu","value":0.35,"labels":{"container":"app","workload":"web"}}"#;
    assert_eq!(server.post("/write-metrics", batch).json()["accepted"], 2);
    wait_until_sent(server);
    let start = now_ms() / 1_000;
    let asked = format!(
        "workload=web&namespace=default&metric=cpu&step=1h&aggregation=max&start={start}&end={}",
        start + 3_600
    );
    let range = || server.get(&format!("/api/v1/metrics?{asked}")).json();
    let pods = |range: &serde_json::Value| range["data"]["result"].as_array().map(Vec::len);
    wait_until("the engine shows it", || pods(&range()) == Some(2));
    let range = range();
    assert_eq!(range["data"]["result"][1]["values"][0][1], "0.35", "{range}");
    let summary = server.get(&format!("/api/v1/summary?{asked}")).json();
    assert_eq!(summary["data"]["result"][0]["pods"], 2, "{summary}");
    let sum = server.get("/api/v1/query?query=sum%20by%20(workload)%20(cpu)").json();
    assert_eq!(sum["data"]["result"][0]["value"][1], "0.6", "{sum}");
    let values = server.get("/api/v1/label/pod/values").json();
    assert_eq!(values["data"], serde_json::json!(["web-0", "web-1"]));
    let list = "/apis/custom.metrics.k8s.io/v1beta1";
    wait_until("discovery lists it", || server.get(list).text().contains("pods/cpu"));
    let all = server.get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/cpu").json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    let backup = server.post("/api/v1/admin/backup", "");
    assert!(backup.status >= 400, "{}", backup.text());
}
