use super::*;
use crate::app::Settings;
use crate::http::auth::Caller;
use crate::store::Scope;
use crate::testing::{Fault, NOW_MS, TestApp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn app() -> TestApp {
    let app = TestApp::serving(routes(&QuerySettings::default()));
    for (namespace, value) in [("a", 1.0), ("b", 2.0)] {
        let labels = [("__name__", "m"), ("namespace", namespace)];
        app.put_all(&labels, &[(NOW_MS - 60_000, value), (NOW_MS, value * 10.0)]);
    }
    app
}

fn uri(path: &str, pairs: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
    format!("/api/v1/{path}?{}", pairs.join("&"))
}

async fn ask(app: &TestApp, path: &str, pairs: &[(&str, &str)]) -> (u16, Value) {
    let answer = app.get(&uri(path, pairs)).await;
    assert_eq!(answer.api, Some("promql"));
    (answer.code.as_u16(), answer.json())
}

#[tokio::test]
async fn instants_and_ranges_are_answered_as_prometheus_does() {
    let app = app();
    let (code, answer) = ask(&app, "query", &[("query", "m")]).await;
    assert_eq!(code, 200);
    assert_eq!(answer["data"]["resultType"], "vector");
    assert_eq!(
        answer["data"]["result"][0],
        json!({"metric": {"__name__": "m", "namespace": "a"}, "value": [1_795_338_120, "10"]})
    );
    let (_, scalar) = ask(&app, "query", &[("query", "1e30"), ("time", "1.5")]).await;
    assert_eq!(scalar["data"], json!({"resultType": "scalar", "result": [1.5, "1e+30"]}));
    let (_, text) = ask(&app, "query", &[("query", "\"a\""), ("time", "1")]).await;
    assert_eq!(text["data"], json!({"resultType": "string", "result": [1, "a"]}));
    let (start, end) = ("2026-11-22T09:01:00Z", "1795338120");
    let pairs = [("query", "sum(m)"), ("start", start), ("end", end), ("step", "60")];
    let (_, range) = ask(&app, "query_range", &pairs).await;
    let values = json!([[1_795_338_060, "3"], [1_795_338_120, "30"]]);
    assert_eq!(range["data"], json!({"resultType": "matrix", "result": [{"metric": {}, "values": values}]}));
    let (_, raw) = ask(&app, "query", &[("query", "m{namespace='b'}[5m]")]).await;
    assert_eq!(raw["data"]["resultType"], "matrix");
    assert_eq!(raw["data"]["result"][0]["values"].as_array().map(Vec::len), Some(2));
    let (_, limited) = ask(&app, "query", &[("query", "m"), ("limit", "1")]).await;
    assert_eq!(limited["data"]["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(limited["warnings"], json!(["results truncated due to limit"]));
    let (_, noted) = ask(&app, "query", &[("query", "rate(m[5m])")]).await;
    assert!(
        noted["infos"][0].as_str().is_some_and(|info| info.contains("might not be a counter")),
        "{noted}"
    );
}

#[tokio::test]
async fn a_form_says_the_same_as_a_query_string() {
    let app = app();
    let request = axum::http::Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from("query=m%7Bnamespace%3D%22a%22%7D"))
        .expect("a request");
    let answer = app.call(request).await;
    assert_eq!(answer.json()["data"]["result"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_can_not_be_answered_names_its_parameter_and_kind() {
    let app = app();
    let deep = "(".repeat(10_000);
    let q = |pairs: &[(&'static str, &'static str)]| pairs.to_vec();
    for (path, pairs, code, kind, said) in [
        ("query", q(&[]), 400, "bad_data", "\"query\""),
        ("query", q(&[("query", "m +")]), 400, "bad_data", "\"query\""),
        ("query", q(&[("query", "m{a=~\"(\"}")]), 400, "bad_data", "("),
        ("query", q(&[("query", "nothing(m)")]), 400, "bad_data", "nothing"),
        ("query", q(&[("query", "m"), ("time", "now")]), 400, "bad_data", "\"time\""),
        ("query", q(&[("query", "m"), ("timeout", "x")]), 400, "bad_data", "\"timeout\""),
        ("query", q(&[("query", "m"), ("limit", "-1")]), 400, "bad_data", "\"limit\""),
        ("query", q(&[("query", "m * on () m")]), 422, "execution", "duplicate series"),
        ("query_range", q(&[("query", "m")]), 400, "bad_data", "\"start\""),
        (
            "query_range",
            q(&[("query", "m"), ("start", "1"), ("end", "0"), ("step", "1")]),
            400,
            "bad_data",
            "\"end\"",
        ),
        (
            "query_range",
            q(&[("query", "m"), ("start", "0"), ("end", "1"), ("step", "0")]),
            400,
            "bad_data",
            "\"step\"",
        ),
        (
            "query_range",
            q(&[("query", "m"), ("start", "0"), ("end", "60000"), ("step", "1")]),
            400,
            "bad_data",
            "50000 points",
        ),
        (
            "query_range",
            q(&[("query", "m[5m]"), ("start", "0"), ("end", "1"), ("step", "1")]),
            400,
            "bad_data",
            "range vector",
        ),
        ("series", q(&[]), 400, "bad_data", "match[]"),
        ("series", q(&[("match[]", "sum(m)")]), 400, "bad_data", "not a series selector"),
    ] {
        let (answered, answer) = ask(&app, path, &pairs).await;
        assert_eq!((answered, answer["errorType"].as_str()), (code, Some(kind)), "{path} {pairs:?} {answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(said), "{path} {pairs:?} {error}");
    }
    let (code, answer) = ask(&app, "query", &[("query", &deep)]).await;
    assert_eq!(code, 400, "{answer}");
    let answer = app.post("/api/v1/label/a/values", "").await;
    assert_eq!((answer.code.as_u16(), answer.json()["errorType"].as_str()), (405, Some("bad_data")));
}

#[tokio::test]
async fn series_labels_and_values_are_listed() {
    let app = app();
    app.put(&[("__name__", "old"), ("node", "n")], 1_000, 1.0);
    let (_, series) = ask(&app, "series", &[("match[]", "m{namespace!='b'}"), ("match[]", "old")]).await;
    assert_eq!(
        series["data"],
        json!([{"__name__": "m", "namespace": "a"}, {"__name__": "old", "node": "n"}])
    );
    let (_, recent) = ask(&app, "series", &[("match[]", "{__name__=~'.+'}"), ("start", "1795330000")]).await;
    assert_eq!(recent["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(ask(&app, "labels", &[]).await.1["data"], json!(["__name__", "namespace", "node"]));
    assert_eq!(ask(&app, "labels", &[("match[]", "m")]).await.1["data"], json!(["__name__", "namespace"]));
    assert_eq!(ask(&app, "label/namespace/values", &[]).await.1["data"], json!(["a", "b"]));
    let (_, values) = ask(&app, "label/namespace/values", &[("end", "1795338120"), ("limit", "1")]).await;
    assert_eq!(values["data"], json!(["a"]));
    assert_eq!(values["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(ask(&app, "metadata", &[]).await.1, json!({"status": "success", "data": {}}));
    assert_eq!(ask(&app, "status/buildinfo", &[]).await.1["data"]["application"], "lookback");
    assert_eq!(ask(&app, "status/tsdb", &[]).await.1["data"]["headStats"]["numSeries"], 3);
    let (_, formatted) = ask(&app, "format_query", &[("query", "sum(m)by(a)")]).await;
    assert_eq!(formatted["data"], "sum by (a) (m)");
    assert_eq!(ask(&app, "parse_query", &[("query", "m[5m]")]).await.1["data"]["type"], "matrixSelector");
    let (_, tsdb) = ask(&app, "status/tsdb", &[("limit", "1")]).await;
    assert_eq!(tsdb["data"]["seriesCountByMetricName"], json!([{"name": "m", "value": 2}]));
    assert_eq!(tsdb["data"]["headStats"]["numLabelPairs"], 5);
    assert_eq!(tsdb["data"]["headStats"]["chunkCount"], 3);
    assert_eq!(tsdb["data"]["headStats"]["minTime"], 1_000);
    assert_eq!(tsdb["data"]["headStats"]["maxTime"], NOW_MS);
    for (path, data) in [
        ("rules", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("query_exemplars?query=m", json!([])),
    ] {
        assert_eq!(
            app.get(&format!("/api/v1/{path}")).await.json(),
            json!({"status": "success", "data": data})
        );
    }
    assert_eq!(ask(&app, "query_exemplars", &[]).await.0, 400);
}

#[tokio::test]
async fn a_caller_sees_its_namespaces_only_everywhere() {
    let mut app = app();
    app.put(&[("__name__", "elsewhere"), ("node", "n")], NOW_MS, 1.0);
    let namespaces = Scope::Namespaces(Arc::new(BTreeSet::from(["a".to_owned()])));
    app.caller = Some(Caller { scope: namespaces, ..Caller::local() });
    let (_, sum) = ask(&app, "query", &[("query", "sum({__name__=~'.+'})")]).await;
    assert_eq!(sum["data"]["result"][0]["value"][1], "10");
    let (_, absent) = ask(&app, "query", &[("query", "absent(elsewhere)")]).await;
    assert_eq!(absent["data"]["result"][0]["value"][1], "1");
    let pairs = [("query", "count(m)"), ("start", "1795338120"), ("end", "1795338120"), ("step", "1")];
    assert_eq!(ask(&app, "query_range", &pairs).await.1["data"]["result"][0]["values"][0][1], "1");
    let (_, series) = ask(&app, "series", &[("match[]", "{__name__=~'.+'}")]).await;
    assert_eq!(series["data"], json!([{"__name__": "m", "namespace": "a"}]));
    for (path, pairs, data) in [
        ("labels", vec![], json!(["__name__", "namespace"])),
        ("labels", vec![("match[]", "{__name__=~'.+'}")], json!(["__name__", "namespace"])),
        ("label/namespace/values", vec![], json!(["a"])),
        ("label/__name__/values", vec![("start", "0")], json!(["m"])),
    ] {
        assert_eq!(ask(&app, path, &pairs).await.1["data"], data, "{path} {pairs:?}");
    }
    assert_eq!(ask(&app, "status/tsdb", &[]).await.0, 403);
    app.caller = Some(Caller { read: false, ..Caller::local() });
    for path in [
        "query",
        "query_range",
        "query_exemplars",
        "series",
        "labels",
        "label/a/values",
        "metadata",
        "format_query",
        "parse_query",
        "rules",
        "alerts",
        "status/buildinfo",
        "status/tsdb",
    ] {
        assert_eq!(ask(&app, path, &[("query", "m"), ("match[]", "m")]).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn time_and_turns_are_bounded() {
    let app = app();
    // Many instants each with many samples: more than a moment's work.
    let long = "sum_over_time(sum_over_time(vector(1)[10m:1ms])[1h:100ms])";
    let (code, answer) = ask(&app, "query", &[("query", long), ("timeout", "50ms")]).await;
    assert_eq!((code, answer["errorType"].as_str()), (503, Some("timeout")), "{answer}");

    let settings = Settings {
        query: QuerySettings { timeout: Duration::from_millis(50), ..QuerySettings::default() },
        ..Settings::default()
    };
    let hanging = TestApp::with_settings(settings).routed(routes(&QuerySettings::default()));
    hanging.store.set_fault(Some(Fault::Hanging));
    let (code, answer) = ask(&hanging, "query", &[("query", "m")]).await;
    assert_eq!((code, answer["errorType"].as_str()), (503, Some("timeout")), "{answer}");
    hanging.store.set_fault(Some(Fault::Failing));
    let (code, answer) = ask(&hanging, "query", &[("query", "m")]).await;
    assert_eq!((code, answer["errorType"].as_str()), (503, Some("unavailable")), "{answer}");
}

#[tokio::test]
async fn a_large_answer_comes_in_pieces_and_whole() {
    let app = app();
    let pairs = [("query", "time()"), ("start", "0"), ("end", "49999"), ("step", "1")];
    let (_, answer) = ask(&app, "query_range", &pairs).await;
    let values = answer["data"]["result"][0]["values"].as_array().expect("values");
    assert_eq!((values.len(), &values[49_999]), (50_000, &json!([49_999, "49999"])));
}
