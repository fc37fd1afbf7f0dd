//! Real clients send what they send anywhere: prometheus_client and OpenTelemetry's SDK of PyPI, and a
//! client of remote write 2.0 made here, as Debian's Prometheus speaks 1.0 only.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::{output_of, root, tool};
use common::process::{Process, Server, wait_until};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A script of `tests/clients`, run by the Python of `target/venv` where that has `module`.
fn python(script: &str, module: &str) -> Option<Command> {
    let path: PathBuf = tool("python")?;
    let has = Command::new(&path).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !has.unwrap().success() {
        println!("SKIPPED: {module} is missing in target/venv: tests/venv.sh installs it from PyPI");
        return None;
    }
    let mut command = Command::new(path);
    command.arg(root().join("tests/clients").join(script));
    Some(command)
}

/// The latest value of a pod's metric as the HPA reads it; `None`: there is none.
fn latest(server: &Server, pod: &str, metric: &str) -> Option<String> {
    let path = format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/{pod}/{metric}");
    let reply = server.get(&path);
    (reply.status == 200).then(|| reply.json()["items"][0]["value"].as_str().unwrap().to_owned())
}

#[test]
fn what_prometheus_client_pushes_is_the_pods_latest_value_until_it_is_replaced() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    let address = server.address.to_string();
    let push = |args: &[&str]| {
        let mut command = python("push.py", "prometheus_client")?;
        Some(output_of(command.arg(&address).args(args)))
    };
    if push(&["put", "12"]).is_none() {
        return;
    }
    let read = |metric| latest(&server, "batch-0", metric);
    assert_eq!((read("rows").as_deref(), read("errors_total").as_deref()), (Some("12"), Some("3")));
    assert_eq!(read("took_seconds_count").as_deref(), Some("1"));
    push(&["add", "13"]).unwrap();
    assert_eq!((read("rows").as_deref(), read("errors_total").as_deref()), (Some("13"), Some("3")));
    push(&["put", "14"]).unwrap();
    push(&["delete"]).unwrap();
    assert_eq!((read("rows"), read("errors_total"), read("took_seconds_count")), (None, None, None));
}

/// A running `expose.py`, which ends with its stdin.
struct Exposing(Child, u16);

impl Exposing {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::<ChildStdout>::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self(child, port.trim().parse().unwrap())
    }
}

impl Drop for Exposing {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn job(name: &str, port: u16, more: &str) -> String {
    format!(
        "- job_name: {name}\n  scrape_interval: 200ms\n  {more}\n  static_configs:\n  - targets: ['localhost:{port}']\n    \
         labels: {{namespace: default, pod: {name}-0}}\n"
    )
}

#[test]
fn what_prometheus_client_exposes_is_scraped_also_over_tls_and_ends_with_the_target() {
    let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) =
        (file("tls.crt", &signed.cert.pem()), file("tls.key", &signed.signing_key.serialize_pem()));
    let Some(plain) = python("expose.py", "prometheus_client") else { return };
    let plain = Exposing::start(plain);
    let mut tls = python("expose.py", "prometheus_client").unwrap();
    tls.args([&certificate, &key]);
    let tls = Exposing::start(tls);
    let mut mutual = python("expose.py", "prometheus_client").unwrap();
    mutual.args([&certificate, &key, &certificate]);
    let mutual = Exposing::start(mutual);
    let https = format!("scheme: https\n  tls_config: {{ca_file: {certificate}}}");
    let shown = format!(
        "scheme: https\n  tls_config: {{ca_file: {certificate}, cert_file: {certificate}, key_file: {key}}}"
    );
    let config = "scrape_configs:\n".to_owned()
        + &job("plain", plain.1, "honor_labels: false")
        + &job("tls", tls.1, &https)
        + &job("mutual", mutual.1, &shown)
        + &job("stranger", mutual.1, &https);
    let config = file("scrape.yml", &config);
    let server = Server::start(data.path(), &["--log-level", "warn", "--scrape-config", &config]);
    for pod in ["plain-0", "tls-0", "mutual-0"] {
        wait_until("the target is scraped", || latest(&server, pod, "visits_total").as_deref() == Some("7"));
        assert_eq!(latest(&server, pod, "temperature").as_deref(), Some("21500m"));
        assert_eq!(latest(&server, pod, "up").as_deref(), Some("1"));
    }
    wait_until("who shows no certificate is told so", || {
        latest(&server, "stranger-0", "up").as_deref() == Some("0")
    });
    drop(plain);
    wait_until("the target is down, and its series have ended", || {
        latest(&server, "plain-0", "up").as_deref() == Some("0")
            && latest(&server, "plain-0", "visits_total").is_none()
    });
    assert_eq!(latest(&server, "tls-0", "visits_total").as_deref(), Some("7"));
    assert!(server.terminate().success());
}

#[test]
fn what_the_sdk_of_open_telemetry_sends_adds_up_also_past_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let send = |server: &Server, path: &str, temporality: &str| {
        let mut command = python("otel.py", "opentelemetry.exporter.otlp.proto.http")?;
        Some(output_of(command.arg(format!("http://{}{path}", server.address)).arg(temporality)))
    };
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    if send(&server, "/v1/metrics", "cumulative").is_none() {
        return;
    }
    assert_eq!(latest(&server, "shop-cumulative", "orders_placed_total").as_deref(), Some("10"));
    assert_eq!(latest(&server, "shop-cumulative", "queue_length").as_deref(), Some("4"));
    assert_eq!(
        latest(&server, "shop-cumulative", "http_server_duration_seconds_count").as_deref(),
        Some("2")
    );
    send(&server, "/api/v1/otlp/v1/metrics", "delta").unwrap();
    assert_eq!(latest(&server, "shop-delta", "orders_placed_total").as_deref(), Some("10"));
    server.kill9();
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    send(&server, "/v1/metrics", "delta").unwrap();
    assert_eq!(latest(&server, "shop-delta", "orders_placed_total").as_deref(), Some("20"));
    assert_eq!(latest(&server, "shop-delta", "http_server_duration_seconds_count").as_deref(), Some("4"));
    let metrics = server.get("/metrics").text();
    assert!(!metrics.contains("lookback_samples_rejected_total{"), "{metrics}");
}

/// `io.prometheus.write.v2.Request`, as far as it is used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<common::remote_write::Sample>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    histograms: Vec<Vec<u8>>,
}

#[test]
fn remote_write_2_is_told_from_1_and_says_what_it_wrote() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    let symbols = ["", "__name__", "rps", "namespace", "default", "pod", "web-0"].map(str::to_owned).to_vec();
    let timestamp = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let series = |value: f64, timestamp: i64, histograms: Vec<Vec<u8>>| TimeSeries {
        labels_refs: vec![1, 2, 3, 4, 5, 6],
        samples: vec![common::remote_write::Sample { value, timestamp }],
        histograms,
    };
    let send = |proto: &str, body: &[u8]| {
        let content_type = format!("application/x-protobuf;proto={proto}");
        let headers = [
            ("Content-Type", content_type.as_str()),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        server.client().send("POST", "/api/v1/write", &headers, body).unwrap()
    };
    let v2 = "io.prometheus.write.v2.Request";
    let encode = |timeseries| {
        let message = prost::Message::encode_to_vec(&Request { symbols: symbols.clone(), timeseries });
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    };
    let written = |reply: &common::process::Reply| {
        ["Samples", "Histograms", "Exemplars"]
            .map(|what| reply.header(&format!("X-Prometheus-Remote-Write-{what}-Written")).map(str::to_owned))
    };
    let counts = |samples: &str| [samples, "0", "0"].map(|count| Some(count.to_owned()));
    let reply = send(v2, &encode(vec![series(12.0, timestamp, vec![])]));
    assert_eq!((reply.status, written(&reply)), (204, counts("1")), "{}", reply.text());
    assert_eq!(latest(&server, "web-0", "rps").as_deref(), Some("12"));
    let hour_ms = 3_600_000;
    let mixed = vec![
        series(13.0, timestamp + 1, vec![vec![]]),
        series(14.0, timestamp + hour_ms, vec![]),
        series(15.0, timestamp - 2 * hour_ms, vec![]),
    ];
    let reply = send(v2, &encode(mixed));
    assert_eq!((reply.status, written(&reply)), (400, counts("1")), "{}", reply.text());
    for word in ["histogram: 1", "too_far_ahead: 1", "out_of_order: 1"] {
        assert!(reply.text().contains(word), "{word}: {}", reply.text());
    }
    assert_eq!(latest(&server, "web-0", "rps").as_deref(), Some("13"));
    assert_eq!(send("io.prometheus.write.v3.Request", &encode(vec![])).status, 415);
    let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 200 << 20]).unwrap();
    assert_eq!(send(v2, &bomb).status, 413);
    assert_eq!(send(v2, b"\xff").status, 400);
}

/// The memory that a process has had at most, in kB.
fn peak_kb(process: &Process) -> u64 {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(process.id().to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bombs_in_gzip_take_bounded_memory() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--log-level", "warn"]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..1_024 {
        std::io::Write::write_all(&mut encoder, &spaces).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let before_kb = peak_kb(&server.process);
    for (path, content_type) in [
        ("/v1/metrics", "application/json"),
        ("/v1/metrics", "application/x-protobuf"),
        ("/metrics/job/j", "text/plain"),
        ("/api/v1/import/prometheus", "text/plain"),
    ] {
        let headers = [("Content-Type", content_type), ("Content-Encoding", "gzip")];
        let reply = server.client().send("POST", path, &headers, &bomb).unwrap();
        assert_eq!(reply.status, 413, "{path}: {}", reply.text());
    }
    let grown_kb = peak_kb(&server.process) - before_kb;
    assert!(grown_kb < 600 << 10, "{grown_kb} kB more for bodies of a GiB");
}
