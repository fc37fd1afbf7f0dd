//! Whatever is sent, the answer is clear and in the caller's dialect, the server goes on, and it holds
//! exactly what it accepted.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Reply, Server};
use common::remote_write::{message, series};
use common::store::{Everything, now_ms, read_dir};
use lookback_storage::Labels;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const POD: &str = "/write-metrics/namespaces/default/pods/web-0/load";
const MINUTE_MS: i64 = 60_000;

/// A server, and what it must hold in the end.
struct Harness {
    server: Server,
    dir: TempDir,
    accepted: Everything,
}

impl Harness {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--log-level", "warn"]);
        Self { server, dir, accepted: Everything::new() }
    }

    fn accept(&mut self, labels: &[(&str, &str)], at_ms: i64, value: f64) {
        let series = Labels::new(labels.iter().copied()).unwrap().to_string();
        self.accepted.entry(series).or_default().push((at_ms, value.to_bits()));
    }

    /// Pushes one value more and ends the server; it must hold what it accepted and nothing else.
    fn finish(mut self) {
        let at_ms = now_ms();
        let reply = self.server.post(&format!("{POD}_after?timestamp={at_ms}"), "7");
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.accept(&[("__name__", "load_after"), ("namespace", "default"), ("pod", "web-0")], at_ms, 7.0);
        let latest = self
            .server
            .get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/web-0/load_after")
            .json();
        assert_eq!(latest["items"][0]["value"], "7", "{latest}");
        assert!(self.server.terminate().success());
        assert_eq!(read_dir(self.dir.path()), self.accepted);
    }
}

/// Kubernetes' dialect.
#[track_caller]
fn status(reply: &Reply, code: u16, reason: &str, said: &str) {
    let body = reply.json();
    assert_eq!((reply.status, reply.header("content-type")), (code, Some("application/json")), "{body}");
    assert_eq!((body["kind"].as_str(), body["apiVersion"].as_str()), (Some("Status"), Some("v1")), "{body}");
    assert_eq!((body["code"].as_u64(), body["reason"].as_str()), (Some(code.into()), Some(reason)), "{body}");
    assert_eq!(body["status"], "Failure");
    tells(body["message"].as_str().unwrap(), said);
}

/// Prometheus' dialect.
#[track_caller]
fn prometheus(reply: &Reply, code: u16, error_type: &str, said: &str) {
    let body = reply.json();
    assert_eq!((reply.status, reply.header("content-type")), (code, Some("application/json")), "{body}");
    assert_eq!((&body["status"], &body["errorType"]), (&"error".into(), &error_type.into()), "{body}");
    tells(body["error"].as_str().unwrap(), said);
}

#[track_caller]
fn tells(message: &str, said: &str) {
    assert!(message.contains(said), "{said:?} is not in {message:?}");
    assert!(message.len() < 2_000, "{} bytes of message", message.len());
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn chunked(path: &str, headers: &str, bytes: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let mut request = head.into_bytes();
    for _ in 0..bytes / MIB {
        request.extend_from_slice(format!("{MIB:x}\r\n").as_bytes());
        request.resize(request.len() + MIB, b'1');
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

#[test]
fn bodies_of_64_mb_are_refused_and_the_next_request_is_answered() {
    let harness = Harness::start();
    let (body, said) = (vec![b'1'; 64 * MIB], "larger than the 33554432 bytes allowed");
    let mut client = harness.server.client();
    for path in [POD, "/write-metrics"] {
        status(&client.send("POST", path, &[], &body).unwrap(), 413, "RequestEntityTooLarge", said);
        let reply = client.send_raw(&chunked(path, "", 64 * MIB)).unwrap();
        status(&reply, 413, "RequestEntityTooLarge", said);
        assert_eq!(client.send("GET", "/livez", &[], b"").unwrap().status, 200);
    }
    prometheus(&client.send_compressed(&body).unwrap(), 413, "bad_data", said);
    let headers = "Content-Encoding: snappy\r\n";
    let reply = client.send_raw(&chunked("/api/v1/write", headers, 64 * MIB)).unwrap();
    prometheus(&reply, 413, "bad_data", said);
    let form = client.send("POST", "/api/v1/metrics", &[], &body[..MIB]).unwrap();
    prometheus(&form, 413, "bad_data", "larger than the 65536 bytes allowed");
    harness.finish();
}

#[test]
fn snappy_bombs_and_broken_remote_writes_are_refused() {
    let mut harness = Harness::start();
    let mut client = harness.server.client();
    let compress = |message: &[u8]| snap::raw::Encoder::new().compress_vec(message).unwrap();
    let bomb = compress(&vec![0; 129 * MIB]);
    assert!(bomb.len() < 8 * MIB);
    prometheus(&client.send_compressed(&bomb).unwrap(), 413, "bad_data", "135266304 bytes when decompressed");
    // Ten bytes that say they are four gigabytes.
    let boast = [0xff, 0xff, 0xff, 0xff, 0x0f, 0xfe, 0x01, 0x00, 0xfe, 0x01];
    let reply = client.send_compressed(&boast).unwrap();
    assert!((400..500).contains(&reply.status), "{}", reply.text());
    assert_eq!(reply.json()["status"], "error");
    let whole = compress(&message(vec![series(&[("__name__", "m")], &[(now_ms(), 1.0)])]));
    for cut in 0..whole.len() {
        let reply = client.send_compressed(&whole[..cut]).unwrap();
        prometheus(&reply, 400, "bad_data", "snappy");
    }
    prometheus(
        &client.send_compressed(&compress(b"no protobuf")).unwrap(),
        400,
        "bad_data",
        "remote write 1.0",
    );
    let plain = client.send("POST", "/api/v1/write", &[], &whole).unwrap();
    prometheus(&plain, 400, "bad_data", "Content-Encoding: snappy");
    let json = [("Content-Encoding", "snappy"), ("Content-Type", "application/json")];
    let reply = client.send("POST", "/api/v1/write", &json, &whole).unwrap();
    assert_eq!((reply.status, reply.json()["status"].as_str()), (415, Some("error")));

    let now = now_ms();
    let many: Vec<(String, String)> = (0..10_000).map(|i| (format!("l{i}"), "v".to_owned())).collect();
    let mut labels: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    labels.push(("__name__", "many"));
    let reply = harness.server.remote_write(&message(vec![
        series(&labels, &[(now, 1.0)]),
        series(&[("__name__", "late")], &[(now - 16 * 24 * 60 * MINUTE_MS, 1.0), (0, 1.0), (i64::MIN, 1.0)]),
        series(&[("__name__", "early")], &[(now + 11 * MINUTE_MS, 1.0), (i64::MAX, 1.0)]),
        series(&[("name", "less")], &[(now, 1.0)]),
        series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(now, 1.0)]),
        series(&[("__name__", "empty"), ("", "1")], &[(now, 1.0)]),
        series(&[("__name__", "good"), ("ü \"", "\\,\n")], &[(now, f64::from_bits(0x7ff0_0000_0000_0002))]),
    ]));
    let said = "1 samples are stored, 9 refused (bad_labels: 4, beyond_retention: 3, too_far_ahead: 2)";
    prometheus(&reply, 400, "bad_data", said);
    tells(reply.json()["error"].as_str().unwrap(), "10001 labels are more than the 128");
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    harness.accept(&[("__name__", "good"), ("ü \"", "\\,\n")], now, stale);
    harness.finish();
}

#[test]
fn a_negative_zero_keeps_its_sign() {
    let mut harness = Harness::start();
    let (labels, now) = ([("__name__", "zero")], now_ms());
    // By hand, since encoders leave out what equals zero: field 1, a double; field 2, a varint.
    let mut sample = vec![0x09];
    sample.extend_from_slice(&(-0.0_f64).to_le_bytes());
    sample.push(0x10);
    prost::encoding::encode_varint(now.cast_unsigned(), &mut sample);
    let mut one = prost::Message::encode_to_vec(&series(&labels, &[]));
    one.extend_from_slice(&[0x12, u8::try_from(sample.len()).unwrap()]);
    one.extend_from_slice(&sample);
    let mut message = vec![0x0a, u8::try_from(one.len()).unwrap()];
    message.extend_from_slice(&one);
    assert_eq!(harness.server.remote_write(&message).status, 204);
    harness.accept(&labels, now, -0.0);
    harness.finish();
}

#[test]
fn single_values_that_can_not_be_kept_are_refused_with_a_reason() {
    let harness = Harness::start();
    for (body, said) in [
        ("", "the value is empty"),
        ("{\"Value\":42}", "one JSON string or number"),
        ("[42]", "one JSON string or number"),
        ("42 43", "one JSON string or number"),
        ("\"42\" trailing", "one JSON string or number"),
        ("\"42", "one JSON string or number"),
        ("true", "one JSON string or number"),
        ("null", "one JSON string or number"),
        ("NaN", "one JSON string or number"),
        ("Infinity", "one JSON string or number"),
        ("0x10", "one JSON string or number"),
        ("+1", "one JSON string or number"),
        ("\"NaN\"", "is not a quantity"),
        ("\"Inf\"", "is not a quantity"),
        ("\"1 000\"", "is not a quantity"),
        ("\"1KB\"", "is not a quantity"),
        ("1e400", "too large"),
        ("\"1e400\"", "too large"),
        ("-1e400", "too large"),
        ("\"9223372036854775808\"", "too large"),
        ("9007199254740993", "can't be kept exactly"),
    ] {
        status(&harness.server.post(POD, body), 400, "BadRequest", said);
    }
    let long = format!("\"{}\"", "1".repeat(100_000));
    status(&harness.server.post(POD, &long), 400, "BadRequest", "longer than 128");
    status(&harness.server.post(POD, [0xff, 0xfe]), 400, "BadRequest", "one JSON string or number");
    harness.finish();
}

#[test]
fn paths_labels_and_times_that_can_not_be_used_are_refused() {
    let harness = Harness::start();
    let now = now_ms();
    let label = |text: &str| format!("{POD}?labels={}", encode(text));
    let many: Vec<String> = (0..10_000).map(|i| format!("l{i}=v")).collect();
    let at = |at_ms: i64| format!("{POD}?timestamp={at_ms}");
    let cases = [
        ("/write-metrics/a".to_owned(), 404, "invalid path"),
        ("/write-metrics/namespaces/default/pods/web-0".to_owned(), 404, "invalid path"),
        (format!("{POD}/more"), 404, "invalid path"),
        ("/write-metrics/namespaces/default/unicorns/u/m".to_owned(), 404, "unknown resource \"unicorns\""),
        ("/write-metrics/pods/web-0/load".to_owned(), 400, "lie in namespaces"),
        ("/write-metrics/namespaces/default/pods//load".to_owned(), 400, "the object name \"\""),
        ("/write-metrics/namespaces/default/pods/%2A/load".to_owned(), 400, "can't be used"),
        ("/write-metrics/namespaces/default/pods/a%2Fb/load".to_owned(), 400, "can't be used"),
        ("/write-metrics/namespaces/default/pods/%2e%2e/load".to_owned(), 400, "can't be used"),
        ("/write-metrics/namespaces/default/pods/a%0ab/load".to_owned(), 400, "can't be used"),
        ("/write-metrics/namespaces/default/pods/a%00b/load".to_owned(), 400, "can't be used"),
        ("/write-metrics/namespaces/default/pods/%ff/load".to_owned(), 400, "not UTF-8"),
        (format!("/write-metrics/namespaces/default/pods/{}/load", "x".repeat(254)), 400, "can't be used"),
        (format!("{POD}?label=a%3Db"), 400, "unknown query parameter \"label\""),
        (format!("{POD}?labels=a%3Db&labels=c%3Dd"), 400, "more than once"),
        (format!("{POD}?labels=%ff"), 400, "not UTF-8"),
        (label("no value"), 400, "can't be read"),
        (label("=value"), 400, "can't be read"),
        (label("a=b=c"), 400, "can't be read"),
        (label("a=b,a=c"), 400, "given more than once"),
        (label("__name__=x"), 400, "the path sets it"),
        (label("namespace=x"), 400, "the path sets it"),
        (label("pod=x"), 400, "the path sets it"),
        (label(&format!("a={}", "v".repeat(5_000))), 400, "has 5000 bytes, more than 4096"),
        (label(&many[..1_000].join(",")), 400, "labels are more than the 128"),
        (format!("{POD}?timestamp=yesterday"), 400, "timestamp:"),
        (format!("{POD}?timestamp=99999999999999999999"), 400, "timestamp:"),
        (at(0), 400, "older than the retention of class"),
        (at(-1), 400, "older than the retention of class"),
        (at(now - 16 * 24 * 60 * MINUTE_MS), 400, "raise --retention"),
        (at(now + 11 * MINUTE_MS), 400, "ahead of the server's clock"),
        (at(i64::MAX), 400, ""),
    ];
    for (path, code, said) in cases {
        let reason = if code == 404 { "NotFound" } else { "BadRequest" };
        status(&harness.server.post(&path, "42"), code, reason, said);
    }
    let wrong_method = harness.server.get(POD);
    status(&wrong_method, 405, "MethodNotAllowed", "POST");
    assert_eq!(wrong_method.header("allow"), Some("POST"));
    // More than the head of a request may have.
    assert_eq!(harness.server.post(&label(&many.join(",")), "42").status, 414);
    harness.finish();
}

#[test]
fn names_and_labels_of_any_text_are_kept_and_found() {
    let mut harness = Harness::start();
    let now = now_ms();
    for (place, (name, metric, label, value)) in [
        ("a b", "m 1", "l b", "v w"),
        ("pod-ü-漢字-🦀", "metrik_ü", "ключ", "значение"),
        ("q\"uo'te`s", "m\"", "l\"'", "v\"'\\"),
        ("plus+and&", "a?b#c", "d+e&f", "g;h:i@j"),
        ("{brace}", "{m=\"x\"}", "{}", "[]"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("namespaces/default/pods/{}/{}", encode(name), encode(metric));
        let (at_ms, sent) = (now - place as i64, format!("{}", place + 1));
        let query = format!("labels={}%3D{}&timestamp={at_ms}", encode(label), encode(value));
        let reply = harness.server.post(&format!("/write-metrics/{path}?{query}"), &sent);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let labels = [("__name__", metric), ("namespace", "default"), ("pod", name), (label, value)];
        harness.accept(&labels, at_ms, (place + 1) as f64);
        let latest = harness.server.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/{path}")).json();
        assert_eq!(latest["items"][0]["describedObject"]["name"], name, "{latest}");
        assert_eq!(latest["items"][0]["metric"]["name"], metric, "{latest}");
        assert_eq!(latest["items"][0]["value"], sent.as_str(), "{latest}");
        let start = now / 1_000 - 600;
        let range = harness.server.get(&format!(
            "/api/v1/metrics?workload={}&namespace=default&metric={}&step=20m&start={start}&end={}",
            encode(name),
            encode(metric),
            start + 1_200
        ));
        let pod = &range.json()["data"]["result"][0];
        assert_eq!(pod["metric"]["pod"], name, "{}", range.text());
        assert_eq!(pod["values"][0][1], sent.as_str(), "{}", range.text());
    }
    harness.finish();
}

#[test]
fn a_batch_says_of_each_line_why_it_was_refused_and_keeps_the_others() {
    let mut harness = Harness::start();
    let now = now_ms();
    let entry = |change: (&str, serde_json::Value)| {
        let mut entry = serde_json::json!({
            "namespace": "default", "resource": "pods", "name": "b", "metric": "m", "value": "1500m",
            "timestamp": now,
        });
        entry[change.0] = change.1;
        entry.to_string()
    };
    let many: BTreeMap<String, &str> = (0..10_000).map(|i| (format!("l{i}"), "v")).collect();
    let lines = [
        (entry(("value", "1500m".into())), ""),
        ("{".to_owned(), "bad_json"),
        (format!("{} trailing", entry(("value", 1.into()))), "bad_json"),
        ("42".to_owned(), "bad_json"),
        (entry(("Value", 42.into())), "unknown_field"),
        (entry(("value", serde_json::json!({"Value": 42}))), "bad_quantity"),
        (entry(("value", "NaN".into())), "bad_quantity"),
        (entry(("value", 1.into())).replace("\"value\":1", "\"value\":1e400"), "bad_quantity"),
        (entry(("value", serde_json::Value::Null)), "bad_field"),
        (entry(("resource", "unicorns".into())), "bad_object"),
        (entry(("name", "a/b".into())), "bad_object"),
        (entry(("metric", 7.into())), "bad_field"),
        (entry(("timestamp", "soon".into())), "bad_timestamp"),
        (entry(("timestamp", (now + 11 * MINUTE_MS).into())), "too_far_ahead"),
        (entry(("timestamp", 0.into())), "beyond_retention"),
        (entry(("labels", serde_json::json!({"pod": "x"}))), "bad_labels"),
        (entry(("labels", serde_json::json!({"a": 1}))), "bad_labels"),
        (entry(("labels", serde_json::to_value(&many).unwrap())), "bad_labels"),
        (entry(("labels", serde_json::json!({"a b ü": "q\"v"}))), ""),
    ];
    let body: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
    let reply = harness.server.post("/write-metrics", body.join("\n"));
    let answer = reply.json();
    assert_eq!(reply.status, 207, "{answer}");
    let told: BTreeMap<u64, &str> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| {
            assert!(refused["message"].as_str().is_some_and(|message| message.len() < 1_000), "{refused}");
            (refused["line"].as_u64().unwrap(), refused["reason"].as_str().unwrap())
        })
        .collect();
    let numbered = (1..).zip(&lines);
    let expected: BTreeMap<u64, &str> =
        numbered.filter(|(_, (_, reason))| !reason.is_empty()).map(|(n, (_, reason))| (n, *reason)).collect();
    assert_eq!(told, expected, "{answer}");
    assert_eq!((&answer["accepted"], &answer["rejected_count"]), (&2.into(), &17.into()));
    let labels = [("__name__", "m"), ("namespace", "default"), ("pod", "b")];
    harness.accept(&labels, now, 1.5);
    harness.accept(&[&labels[..], &[("a b ü", "q\"v")]].concat(), now, 1.5);

    let good = &lines[0].0;
    for (body, said) in [
        (String::new(), "the body is empty"),
        (" \n \n".to_owned(), "the body is empty"),
        (format!("[{good}"), "not a JSON array"),
        (format!("[{good},]"), "not a JSON array"),
        (format!("[{good}] trailing"), "not a JSON array"),
    ] {
        status(&harness.server.post("/write-metrics", body), 400, "BadRequest", said);
    }
    let none = harness.server.post("/write-metrics", "{}\n{}");
    assert_eq!((none.status, &none.json()["rejected_count"]), (400, &2.into()));
    harness.finish();
}

#[test]
fn ranges_that_can_not_be_answered_name_the_parameter() {
    let harness = Harness::start();
    let good = [
        ("workload", "web"),
        ("namespace", "default"),
        ("metric", "cpu"),
        ("start", "1700000000"),
        ("end", "1700003600"),
    ];
    let ask = |changes: &[(&str, &str)]| {
        let kept = good.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let pairs: Vec<String> = kept.chain(changes).map(|(n, v)| format!("{n}={}", encode(v))).collect();
        harness.server.get(&format!("/api/v1/metrics?{}", pairs.join("&")))
    };
    assert_eq!(ask(&[]).json()["data"]["result"], serde_json::json!([]));
    for (changes, said) in [
        (&[("start", "1700003601")][..], "parameter \"start\": it is after end"),
        (&[("start", "now")], "parameter \"start\""),
        (&[("start", "NaN")], "parameter \"start\""),
        (&[("end", "1e400")], "parameter \"end\""),
        (&[("step", "0")], "parameter \"step\""),
        (&[("step", "-1")], "parameter \"step\""),
        (&[("step", "NaN")], "parameter \"step\""),
        (&[("step", "1e400")], "parameter \"step\""),
        (&[("step", "3.6ms")], "parameter \"step\""),
        (&[("start", "1699000000"), ("end", "1700000000"), ("step", "1")], "1000001 points"),
        (&[("aggregation", "p101")], "parameter \"aggregation\""),
        (&[("workload", "")], "parameter \"workload\": it is missing"),
        (&[("workload", &"w".repeat(5_000))], "parameter \"workload\""),
        (&[("cluster", "x")], "parameter \"cluster\": it is unknown"),
        (&[("step", "1m"), ("step", "1m")], "given more than once"),
    ] {
        prometheus(&ask(changes), 400, "bad_data", said);
    }
    prometheus(&harness.server.get("/api/v1/metrics?%ff=1"), 400, "bad_data", "not UTF-8");
    prometheus(&ask(&[("metric", "nothing")]), 404, "not_found", "metric \"nothing\" is unknown");
    prometheus(&harness.server.get("/api/v1/nothing"), 404, "not_found", "could not find");
    let deleted = harness.server.client().send("DELETE", "/api/v1/metrics", &[], b"").unwrap();
    prometheus(&deleted, 405, "bad_data", "GET");
    harness.finish();
}

#[test]
fn questions_for_values_that_can_not_be_answered_are_status_errors() {
    let harness = Harness::start();
    let root = "/apis/custom.metrics.k8s.io/v1beta2";
    let pods = format!("{root}/namespaces/default/pods");
    for (path, code, reason, said) in [
        ("/apis/unknown.k8s.io/v1".to_owned(), 404, "NotFound", ""),
        (format!("{root}/namespaces/default/unicorns/u/m"), 404, "NotFound", "unicorns"),
        (format!("{pods}/web-0/absent"), 404, "NotFound", "could not find the metric absent for pods web-0"),
        (format!("{pods}/web-0/a/b/c"), 404, "NotFound", ""),
        (format!("{pods}/%ff/m"), 400, "BadRequest", "invalid request path"),
        (
            format!("{pods}/*/m?labelSelector={}", encode("a in (")),
            400,
            "BadRequest",
            "unable to parse requirement",
        ),
        (format!("{pods}/*/m?labelSelector=app%3Dweb"), 501, "NotImplemented", "labelSelector"),
        (format!("{pods}/*/m?metricLabelSelector={}", encode("a==b==c")), 400, "BadRequest", "requirement"),
    ] {
        status(&harness.server.get(&path), code, reason, said);
    }
    let posted = harness.server.post(&format!("{pods}/web-0/m"), "42");
    status(&posted, 405, "MethodNotAllowed", "");
    harness.finish();
}

#[test]
fn bytes_that_are_no_request_do_no_harm() {
    let harness = Harness::start();
    let head = |rest: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{rest}\r\n\r\n");
    for (request, code) in [
        ("\0\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        ("GET /a b c HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        (head("Content-Length: -1"), 400),
        (head("Content-Length: 1\r\nContent-Length: 2"), 400),
        (head("Transfer-Encoding: gzip"), 400),
        (head(&"X: y\r\n".repeat(2_000)), 431),
        (head(&format!("X: {}", "x".repeat(MIB))), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(MIB)), 431),
    ] {
        let start: String = request.chars().take(80).collect();
        match harness.server.client().send_raw(request.as_bytes()) {
            Ok(reply) => assert_eq!(reply.status, code, "{start}"),
            // It was closed while so much was still being sent.
            Err(error) => assert!(request.len() > MIB, "{start}: {error}"),
        }
        assert_eq!(harness.server.get("/livez").status, 200);
    }
    harness.finish();
}
