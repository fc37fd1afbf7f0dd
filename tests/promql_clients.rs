//! Who asks Prometheus asks Lookback: the exact requests of OptiPod, VPA, KRR, KEDA and Grafana, and
//! promtool itself. Debian's Prometheus holds the same two weeks, and says the same.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::compare::{Verdict, compare};
use common::process::{Client, Reply, Server};
use common::prometheus::{self, Prometheus};
use common::remote_write::{TimeSeries, message, series};
use flate2::read::GzDecoder;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// The end of all samples.
const END_MS: i64 = 1_700_000_000_000;

/// OptiPod reads cpu back twice its window of a week.
const DAYS: i64 = 14;

/// A test's question: path and form.
type Form<'a> = &'a [(&'a str, &'a str)];

fn encoded(form: Form<'_>) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    form.iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn post(client: &mut Client, path: &str, form: Form<'_>) -> Reply {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    client.send("POST", path, &headers, encoded(form).as_bytes()).unwrap()
}

fn get(client: &mut Client, path: &str, form: Form<'_>) -> Reply {
    client.send("GET", &format!("{path}?{}", encoded(form)), &[], b"").unwrap()
}

/// A series from its first to its last minute, one sample each so many; values by the minute.
fn each(labels: &[(&str, &str)], minutes: i64, value: impl Fn(i64) -> f64) -> TimeSeries {
    let first_ms = END_MS - DAYS * DAY_MS;
    let samples: Vec<(i64, f64)> = (0..DAYS * 24 * 60)
        .step_by(usize::try_from(minutes).unwrap())
        .map(|minute| (first_ms + minute * MINUTE_MS + 300 + minute % 7 * 50, value(minute)))
        .collect();
    series(labels, &samples)
}

/// What cAdvisor and kube-state-metrics tell of a Deployment with two pods.
fn cluster() -> Vec<TimeSeries> {
    let mut all = Vec::new();
    for (place, pod) in ["web-7d9c-a", "web-7d9c-b"].into_iter().enumerate() {
        let place = place as i64;
        let of = |name: &'static str| {
            [
                ("__name__", name),
                ("job", "kubernetes-cadvisor"),
                ("namespace", "shop"),
                ("pod", pod),
                ("pod_name", pod),
            ]
        };
        let app = [("container", "app"), ("name", "k8s_app_web")];
        let pause = [("container", "POD"), ("name", "POD")];
        let cores = |minute: i64| (minute * (20 + place) + minute % 11) as f64 / 8.0;
        let bytes = |minute: i64| (100_000_000 + minute % 1_440 * 10_000 + place * 77) as f64;
        all.push(each(&[&of("container_cpu_usage_seconds_total")[..], &app].concat(), 1, cores));
        all.push(each(&[&of("container_memory_working_set_bytes")[..], &app].concat(), 1, bytes));
        all.push(each(&[&of("container_memory_working_set_bytes")[..], &pause].concat(), 60, |_| 1e6));
        let state =
            |name: &'static str| [("__name__", name), ("job", "kube-state-metrics"), ("namespace", "shop")];
        let owner = [("owner_kind", "ReplicaSet"), ("owner_name", "web-7d9c"), ("pod", pod)];
        all.push(each(&[&state("kube_pod_owner")[..], &owner].concat(), 4, |_| 1.0));
        all.push(each(
            &[&state("kube_pod_labels")[..], &[("label_app", "web"), ("pod", pod)]].concat(),
            4,
            |_| 1.0,
        ));
        let phase = [("phase", "Running"), ("pod", pod)];
        all.push(each(&[&state("kube_pod_status_phase")[..], &phase].concat(), 4, |_| 1.0));
    }
    let owned = [("owner_kind", "Deployment"), ("owner_name", "web"), ("replicaset", "web-7d9c")];
    let state = [("__name__", "kube_replicaset_owner"), ("job", "kube-state-metrics"), ("namespace", "shop")];
    all.push(each(&[&state[..], &owned].concat(), 4, |_| 1.0));
    all
}

/// Sends a day at a time, as a sender would.
fn feed(client: &mut Client, all: &[TimeSeries]) {
    for day in 0..DAYS {
        let within = END_MS - (DAYS - day) * DAY_MS..END_MS - (DAYS - day - 1) * DAY_MS;
        let cut = |one: &TimeSeries| {
            let samples = one.samples.iter().filter(|sample| within.contains(&sample.timestamp));
            TimeSeries { labels: one.labels.clone(), samples: samples.cloned().collect() }
        };
        let reply = client.remote_write(&message(all.iter().map(cut).collect())).unwrap();
        assert!(reply.is_success(), "{} {}", reply.status, reply.text());
    }
}

fn lookback() -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log-level", "warn", "--retention", "off"]);
    feed(&mut server.client(), &cluster());
    (server, dir)
}

/// With the same data; `None`: there is none on this machine.
fn debian() -> Option<(Prometheus, TempDir)> {
    if !prometheus::is_there("prometheus") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    let mut prometheus = Prometheus::start(dir.path(), |_| String::new(), &args);
    feed(&mut prometheus.client, &cluster());
    Some((prometheus, dir))
}

/// Asks both and answers how many points there are in what they agree on.
#[track_caller]
fn agreed(ours: &mut Client, theirs: &mut Client, path: &str, form: Form<'_>) -> usize {
    let (our_answer, their_answer) = (post(ours, path, form), post(theirs, path, form));
    let verdict =
        compare((our_answer.status, &our_answer.json()), (their_answer.status, &their_answer.json()), false);
    match verdict {
        Verdict::Equal(points) | Verdict::Near(points) => points,
        other => panic!("{form:?}: {other:?}"),
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

const AT_MS: i64 = END_MS + 137;
const CPU: &str =
    r#"rate(container_cpu_usage_seconds_total{namespace="shop",pod="web-7d9c-a",container="app"}[168h])"#;
const MEMORY: &str =
    r#"container_memory_working_set_bytes{namespace="shop",pod="web-7d9c-a",container="app"}"#;

#[test]
fn optipod_gets_a_week_at_30_seconds_which_prometheus_refuses() {
    let (server, _dir) = lookback();
    let mut client = server.client();
    assert_eq!(get(&mut client, "/api/v1/status/buildinfo", &[]).json()["status"], "success");
    let (start, end) = (AT_MS - 7 * DAY_MS, AT_MS);
    let mut answers = Vec::new();
    for query in [CPU, MEMORY] {
        let form = [("query", query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", "30")];
        let answer = post(&mut client, "/api/v1/query_range", &form);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let result = answer["data"]["result"].as_array().unwrap();
        assert_eq!(result.len(), 1, "it takes the first series only");
        let points = result[0]["values"].as_array().unwrap();
        assert_eq!(points.len(), 20_161);
        let numbers =
            points.iter().all(|point| point[1].as_str().unwrap().parse::<f64>().is_ok_and(f64::is_finite));
        assert!(numbers, "it takes no NaN and no Inf");
        answers.push(answer);
    }
    // 20 eighths of a core second a minute.
    let last: f64 = answers[0]["data"]["result"][0]["values"][20_160][1].as_str().unwrap().parse().unwrap();
    assert!((last - 20.0 / 8.0 / 60.0).abs() < 1e-5, "{last}");

    let Some((mut prometheus, _there)) = debian() else { return };
    let form = [("query", CPU), ("start", &seconds(start)), ("end", &seconds(end)), ("step", "30")];
    let refused = post(&mut prometheus.client, "/api/v1/query_range", &form);
    assert_eq!(refused.status, 400, "so Prometheus has learnt it");
    for query in [CPU, MEMORY] {
        let middle = start + (end - start) / 2;
        let halves = [(start, middle), (middle, end)];
        let points = halves.map(|(start, end)| {
            let form = [("query", query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", "30")];
            agreed(&mut client, &mut prometheus.client, "/api/v1/query_range", &form)
        });
        assert_eq!(points, [10_081, 10_081]);
    }
}

#[test]
fn vpa_and_krr_are_answered_as_prometheus_answers_them() {
    let (server, _dir) = lookback();
    let Some((mut prometheus, _there)) = debian() else { return };
    let (mut client, theirs) = (server.client(), &mut prometheus.client);
    let (start, end) = (seconds(AT_MS - 8 * DAY_MS), seconds(AT_MS));
    let of_pods = r#"{job="kubernetes-cadvisor", pod_name=~".+", name!="POD", name!=""}"#;
    for query in [
        format!("rate(container_cpu_usage_seconds_total{of_pods}[1h])"),
        format!("container_memory_working_set_bytes{of_pods}"),
    ] {
        let form = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "3600")];
        assert_eq!(agreed(&mut client, theirs, "/api/v1/query_range", &form), 2 * 193, "{query}");
    }

    let of_app = r#"namespace="shop",pod=~"web-7d9c-a|web-7d9c-b",container="app""#;
    let by = "by (container, pod, job)";
    let (cpu, memory) = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes");
    for (query, points) in [
        // VPA: a range selector at an instant.
        (r#"kube_pod_labels{job="kube-state-metrics"}[8d]"#.to_owned(), 2 * 8 * 360),
        (format!("quantile_over_time(0.95, max(rate({cpu}{{{of_app}}}[75s])) {by}[14d:75s])"), 2),
        (format!("max_over_time(max({memory}{{{of_app}}}) {by}[14d:75s])"), 2),
        (format!("count_over_time(max({memory}{{{of_app}}}) {by}[14d:75s])"), 2),
        (
            r#"kube_replicaset_owner{owner_name="web",owner_kind="Deployment",namespace="shop"}[14d]"#.to_owned(),
            14 * 360,
        ),
        (
            r#"last_over_time(kube_pod_owner{owner_name=~"web-7d9c",owner_kind="ReplicaSet",namespace="shop"}[14d])"#
                .to_owned(),
            2,
        ),
        (
            r#"kube_pod_status_phase{phase="Running",pod=~"web-7d9c-a|web-7d9c-b",namespace="shop"} == 1"#.to_owned(),
            2,
        ),
    ] {
        let form = [("query", query.as_str()), ("time", &end)];
        assert_eq!(agreed(&mut client, theirs, "/api/v1/query", &form), points, "{query}");
    }
    // KRR sees by this whether anybody is there; and says no time.
    let reply = post(&mut client, "/api/v1/query", &[("query", "example")]);
    assert_eq!((reply.status, &reply.json()["data"]["result"]), (200, &json!([])));
}

#[test]
fn keda_and_grafana_find_what_they_ask_for() {
    let (server, _dir) = lookback();
    let mut client = server.client();
    // KEDA: RFC 3339, one number.
    let query = r#"sum(rate(container_cpu_usage_seconds_total{namespace="shop"}[2m]))"#;
    let keda =
        get(&mut client, "/api/v1/query", &[("query", query), ("time", "2023-11-14T22:13:20Z")]).json();
    let result = keda["data"]["result"].as_array().unwrap();
    assert_eq!((result.len(), &keda["data"]["resultType"]), (1, &json!("vector")));
    assert!(result[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap() > 0.0);

    // Grafana: its health check, what it knows of the server, and what its builder offers.
    let health = post(&mut client, "/api/v1/query", &[("query", "1+1"), ("time", "4")]).json();
    assert_eq!(health["data"], json!({"resultType": "scalar", "result": [4, "2"]}));
    let (start, end) = (seconds(END_MS - DAY_MS), seconds(END_MS));
    let within = [("start", start.as_str()), ("end", end.as_str())];
    let with = |more: Form<'static>| [&within[..], more].concat();
    let matched = with(&[("match[]", "kube_pod_labels")]);
    for answer in
        [post(&mut client, "/api/v1/labels", &matched), get(&mut client, "/api/v1/labels", &matched)]
    {
        assert_eq!(answer.json()["data"], json!(["__name__", "job", "label_app", "namespace", "pod"]));
    }
    let values = get(&mut client, "/api/v1/label/pod/values", &matched);
    assert_eq!(values.json()["data"], json!(["web-7d9c-a", "web-7d9c-b"]));
    let found = post(&mut client, "/api/v1/series", &matched).json();
    assert_eq!(found["data"].as_array().map(Vec::len), Some(2), "{found}");
    let form = with(&[("query", "sum by (pod) (container_memory_working_set_bytes)"), ("step", "300")]);
    let range = post(&mut client, "/api/v1/query_range", &form).json();
    assert_eq!(range["data"]["result"].as_array().map(Vec::len), Some(2), "{range}");
    for (path, form, data) in [
        ("/api/v1/query_exemplars", with(&[("query", "up")]), json!([])),
        ("/api/v1/rules", Vec::new(), json!({"groups": []})),
        ("/api/v1/alerts", Vec::new(), json!({"alerts": []})),
        ("/api/v1/metadata", vec![("limit", "10")], json!({})),
    ] {
        assert_eq!(
            get(&mut client, path, &form).json(),
            json!({"status": "success", "data": data}),
            "{path}"
        );
    }
    assert_eq!(post(&mut client, "/api/v1/query_exemplars", &[("query", "up")]).status, 200);
    assert_eq!(get(&mut client, "/-/healthy", &[]).status, 200);
    assert_eq!(get(&mut client, "/-/ready", &[]).status, 200);
}

#[test]
fn a_large_answer_is_compressed_for_who_accepts_it() {
    let (server, _dir) = lookback();
    let mut client = server.client();
    let (start, end) = (seconds(AT_MS - DAY_MS), seconds(AT_MS));
    let form = encoded(&[("query", MEMORY), ("start", &start), ("end", &end), ("step", "30")]);
    let path = format!("/api/v1/query_range?{form}");
    let plain = client.send("GET", &path, &[], b"").unwrap();
    let gzip = client.send("GET", &path, &[("accept-encoding", "gzip")], b"").unwrap();
    assert_eq!((plain.header("content-encoding"), gzip.header("content-encoding")), (None, Some("gzip")));
    let mut body = Vec::new();
    GzDecoder::new(&*gzip.body).read_to_end(&mut body).unwrap();
    assert!(body == plain.body && gzip.body.len() * 3 < plain.body.len(), "{} bytes", gzip.body.len());
    let zstd = client.send("GET", &path, &[("accept-encoding", "zstd")], b"").unwrap();
    assert_eq!(zstd.header("content-encoding"), Some("zstd"));
}

/// What promtool says, sorted: nobody promises an order of series.
fn promtool(args: &[&str]) -> (bool, Vec<String>) {
    let output = Command::new("promtool").args(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    (output.status.success(), lines)
}

#[test]
fn promtool_reads_here_what_it_reads_from_prometheus() {
    let (server, _dir) = lookback();
    if !prometheus::is_there("promtool") {
        return;
    }
    let Some((prometheus, _there)) = debian() else { return };
    let (ours, theirs) = (format!("http://{}", server.address), format!("http://{}", prometheus.address));
    let (start, end) = ((END_MS / 1_000 - 3_600).to_string(), (END_MS / 1_000).to_string());
    let of = |flags: &[&'static str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let within = [format!("--start={start}"), format!("--end={end}")];
    let at = format!("--time={end}");
    for (command, flags, rest) in [
        (of(&["query", "instant"]), vec![at.clone()], of(&["sum by (pod) (kube_pod_owner)"])),
        (of(&["query", "instant", "-o", "json"]), vec![at.clone()], of(&["kube_pod_labels[5m]"])),
        (of(&["query", "instant"]), vec![at.clone()], of(&["1 + 1"])),
        (of(&["query", "range", "--step=5m"]), within.to_vec(), of(&["container_memory_working_set_bytes"])),
        (of(&["query", "series", "--match=kube_pod_owner"]), within.to_vec(), Vec::new()),
        (of(&["query", "labels"]), within.to_vec(), of(&["pod"])),
        (of(&["query", "labels", "--match=kube_pod_owner"]), within.to_vec(), of(&["job"])),
    ] {
        let said = [&ours, &theirs].map(|url| {
            let args: Vec<&str> =
                command.iter().chain(&flags).chain([url]).chain(&rest).map(String::as_str).collect();
            promtool(&args)
        });
        let [(ok, ours), (_, theirs)] = said;
        assert!(ok && !ours.is_empty(), "{command:?} {rest:?}: {ours:?}");
        assert_eq!(ours, theirs, "{command:?} {rest:?}");
    }
    let (ok, said) = promtool(&["query", "instant", &ours, "sum("]);
    assert!(!ok && said.iter().any(|line| line.contains("bad_data")), "{said:?}");
}

/// So that the value of a query is looked at once by hand, not only by comparison.
#[test]
fn krrs_quantile_is_the_rate_that_was_sent() {
    let (server, _dir) = lookback();
    let query = r#"quantile_over_time(0.5, max(rate(container_cpu_usage_seconds_total{pod="web-7d9c-b"}[5m])) by (pod)[14d:75s])"#;
    let time = seconds(AT_MS);
    let answer = post(&mut server.client(), "/api/v1/query", &[("query", query), ("time", &time)]).json();
    let value: Value = answer["data"]["result"][0]["value"][1].clone();
    // 21 eighths of a core second a minute, give or take the sawtooth.
    let value: f64 = value.as_str().unwrap().parse().unwrap();
    assert!((value - 21.0 / 8.0 / 60.0).abs() < 5e-3, "{answer}");
}
