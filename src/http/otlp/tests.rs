use super::*;
use crate::testing::{Answer, NOW_MS, TestApp};
use std::io::Write;

const NOW_NS: i64 = NOW_MS * 1_000_000;

async fn send(server: &TestApp, content_type: &str, gzip: bool, body: impl AsRef<[u8]>) -> Answer {
    let mut request = Request::post("/v1/metrics").header("content-type", content_type);
    let mut body = body.as_ref().to_vec();
    if gzip {
        request = request.header("content-encoding", "gzip");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body).expect("compressed");
        body = encoder.finish().expect("compressed");
    }
    server.call(request.body(body.into()).expect("a request")).await
}

async fn send_json(server: &TestApp, metrics: &serde_json::Value) -> Answer {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let resource =
        [text("service.name", "shop"), text("k8s.namespace.name", "default"), text("k8s.pod.name", "p")];
    let body = json!({"resourceMetrics": [{
        "scopeMetrics": [{"scope": {"name": "s"}, "metrics": metrics, "unknown": [1]}],
        "resource": {"attributes": resource},
    }]});
    send(server, "application/json; charset=utf-8", true, body.to_string()).await
}

fn delta(at_ns: i64, value: u64) -> serde_json::Value {
    let point = json!({"timeUnixNano": at_ns.to_string(), "asInt": value.to_string()});
    json!([{"name": "hits", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [point]}}])
}

#[tokio::test]
async fn json_of_each_kind_is_stored_as_series_of_the_pod() {
    let server = TestApp::serving(routes());
    let at = NOW_NS.to_string();
    let list =
        json!({"key": "l", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"boolValue": true}]}}});
    let answer = send_json(
        &server,
        &json!([
            {"name": "temp", "unit": "Cel", "description": "how warm", "gauge": {"dataPoints": [
                {"timeUnixNano": at, "asDouble": 21.5, "attributes": [list]},
                {"timeUnixNano": at, "asDouble": "NaN"}]}},
            {"name": "hits", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
                "isMonotonic": true, "dataPoints": [{"timeUnixNano": NOW_NS, "asInt": 3}]}},
            {"name": "wait", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [
                {"timeUnixNano": at, "count": "3", "sum": 1.5, "bucketCounts": ["1", "2"], "explicitBounds": [0.5],
                 "exemplars": [{}]}]}},
            {"name": "q", "summary": {"dataPoints": [{"timeUnixNano": at, "count": 1, "sum": 2,
                "quantileValues": [{"quantile": 0.5, "value": 2}]}]}},
        ]),
    )
    .await;
    assert_eq!((answer.code, answer.body.as_str(), answer.api), (StatusCode::OK, "{}", Some("otlp")));
    let all = server.everything();
    let own = r#"job="shop", namespace="default", pod="p""#;
    let value = |name: &str, more: (&str, &str)| {
        let labels =
            [more.0, own, more.1].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        let series = format!("{name}{{{}}}", labels.join(", "));
        let found = all.iter().find(|(s, ..)| s.replace(",", ", ").replace(",  ", ", ") == series);
        found.unwrap_or_else(|| panic!("{series}: {all:?}")).2
    };
    assert_eq!(value("temp_celsius", ("", "")).to_bits() << 1, f64::NAN.to_bits() << 1);
    assert_eq!(value("hits_total", ("", "")), 3.0);
    assert_eq!(value("wait_seconds_sum", ("", "")), 1.5);
    assert_eq!(value("q_count", ("", "")), 1.0);
    assert_eq!(all.len(), 2 + 1 + 4 + 3, "{all:?}");
    assert!(all.iter().any(|(series, ..)| series.contains(r#"l="[1,true]""#)), "{all:?}");
    assert_eq!(server.app.metadata.get("temp_celsius").map(|said| said.help), Some("how warm".to_owned()));
}

#[tokio::test]
async fn deltas_become_cumulative_and_are_counted_once() {
    let server = TestApp::serving(routes());
    assert_eq!(send_json(&server, &delta(NOW_NS, 2)).await.body, "{}");
    assert_eq!(send_json(&server, &delta(NOW_NS + 1_000_000, 3)).await.body, "{}");
    let again = send_json(&server, &delta(NOW_NS + 1_000_000, 3)).await;
    assert_eq!(again.code, StatusCode::OK);
    assert_eq!(again.json()["partialSuccess"]["rejectedDataPoints"], "1");
    let values: Vec<_> = server.everything().iter().map(|(_, _, value)| *value).collect();
    assert_eq!(values, [2.0, 5.0]);
    // Other routes, as after a restart: what is stored is added to.
    let server = server.routed(routes());
    assert_eq!(send_json(&server, &delta(NOW_NS + 2_000_000, 1)).await.body, "{}");
    assert_eq!(server.everything().last().map(|(_, _, value)| *value), Some(6.0));
}

#[tokio::test]
async fn refused_points_are_told_in_numbers_and_words() {
    let server = TestApp::serving(routes());
    let points = json!([
        {"timeUnixNano": (NOW_NS + 3_600_000_000_000).to_string(), "asInt": 1},
        {"timeUnixNano": NOW_NS.to_string(), "asInt": 1},
        {"timeUnixNano": NOW_NS.to_string()},
    ]);
    let metrics = json!([
        {"name": "m", "gauge": {"dataPoints": points}},
        {"name": "e", "exponentialHistogram": {"dataPoints": [{}, {}]}},
    ]);
    let answer = send_json(&server, &metrics).await;
    assert_eq!(answer.code, StatusCode::OK);
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["rejectedDataPoints"], "4", "{partial}");
    let message = partial["errorMessage"].as_str().expect("words");
    assert!(
        message.contains("exponential_histogram: 2") && message.contains("too_far_ahead: 1"),
        "{message}"
    );
    assert_eq!(server.everything().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_the_encoding_of_the_request() {
    let server = TestApp::serving(routes());
    for (content_type, body, code) in [
        ("application/json", "{", 400),
        (
            "application/json",
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":"x"}]}}]}]}]}"#,
            400,
        ),
        ("application/x-protobuf", "\u{a}\u{7f}", 400),
        ("text/plain", "", 415),
    ] {
        let answer = send(&server, content_type, false, body).await;
        assert_eq!(answer.code.as_u16(), code, "{body}: {}", answer.body);
        let json = content_type != "application/x-protobuf";
        assert_eq!(answer.headers["content-type"] == "application/json", json);
    }
    let bomb = vec![b' '; 5 << 20];
    assert_eq!(send(&server, "application/json", true, bomb).await.code.as_u16(), 413);
    let mut full = TestApp::full(routes());
    let answer = send_json(&full, &delta(NOW_NS, 1)).await;
    assert_eq!((answer.code.as_u16(), &answer.json()["code"]), (503, &json!(14)));
    assert!(answer.headers.contains_key("retry-after"));
    full.caller = Some(Caller { write: false, ..Caller::local() });
    assert_eq!(send_json(&full, &delta(NOW_NS, 1)).await.code.as_u16(), 403);
    assert!(send(&server, "application/x-protobuf", false, "").await.body.is_empty());
}
