//! OptiPod's custom provider guide, row by row, over the real engine.

use super::*;
use crate::testing::TestApp;
use serde_json::{Value, json};

/// 2024-01-24T12:00:00Z, as in the guide.
const START_S: i64 = 1_706_097_600;
const POD: &str = "my-app-7d4b9c6f5-x2k9p";

/// A series of the guide's namespace, with samples as `(seconds after the start, value)`.
fn put(server: &TestApp, metric: &str, pod: &str, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
    let named = [("__name__", metric), ("namespace", "default"), ("pod", pod)];
    let samples: Vec<_> = samples.iter().map(|(s, value)| ((START_S + s) * 1_000, *value)).collect();
    server.put_all(&[&named, labels].concat(), &samples);
}

/// The answer to the guide's question about a metric, over ten minutes at five.
async fn ask(server: &TestApp, metric: &str, more: &str) -> Value {
    let answer = server
        .get(&format!(
            "/api/v1/metrics?workload=my-app&namespace=default&metric={metric}\
             &start=2024-01-24T12:00:00Z&end=2024-01-24T12:10:00Z&step=5m{more}"
        ))
        .await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    answer.json()
}

/// `pod/container` and the values of each series.
async fn values(server: &TestApp, metric: &str, more: &str) -> Vec<(String, Value)> {
    let answer = ask(server, metric, more).await;
    let text = |series: &Value, label: &str| series["metric"][label].as_str().expect("a label").to_owned();
    let told = |series: &Value| {
        let name = format!("{}/{}", text(series, "pod"), text(series, "container"));
        (name, series["values"].clone())
    };
    answer["data"]["result"].as_array().expect("a list").iter().map(told).collect()
}

fn app(values: Value) -> Vec<(String, Value)> {
    vec![(format!("{POD}/app"), values)]
}

const APP: [(&str, &str); 1] = [("container", "app")];

#[tokio::test]
async fn the_shape_is_the_published_one_and_nothing_found_is_an_empty_list() {
    let server = TestApp::serving(routes());
    let empty = ask(&server, "cpu", "").await;
    assert_eq!(empty["status"], "success");
    assert_eq!(empty["data"], json!({"resultType": "matrix", "result": []}));
    put(&server, "cpu", POD, &APP, &[(0, 0.25)]);
    assert_eq!(
        ask(&server, "cpu", "").await["data"],
        json!({
            "resultType": "matrix",
            "result": [{
                "metric": {"container": "app", "pod": POD, "namespace": "default"},
                "values": [[START_S, "0.25"]],
            }],
        })
    );
}

#[tokio::test]
async fn pushed_cpu_is_in_cores_and_a_point_is_the_mean_since_the_one_before() {
    let server = TestApp::serving(routes());
    put(&server, "cpu", POD, &APP, &[(0, 0.25), (100, 0.2), (300, 0.4), (600, 2.0)]);
    let expected = json!([[START_S, "0.25"], [START_S + 300, "0.30000000000000004"], [START_S + 600, "2"]]);
    assert_eq!(values(&server, "cpu", "").await, app(expected));
}

#[tokio::test]
async fn scraped_cpu_is_the_rate_of_its_counter_across_a_restart() {
    let server = TestApp::serving(routes());
    // Half a core; after 300 s the container starts anew and uses a quarter of one.
    let counter = |s: i64| if s <= 300 { 1_000.0 + 0.5 * s as f64 } else { 0.25 * (s - 300) as f64 };
    let samples: Vec<_> = (-20..=40).map(|i| (i * 15, counter(i * 15))).collect();
    put(&server, "container_cpu_usage_seconds_total", POD, &APP, &samples);
    let expected = json!([[START_S, "0.5"], [START_S + 300, "0.5"], [START_S + 600, "0.25"]]);
    assert_eq!(values(&server, "cpu", "").await, app(expected));
}

#[tokio::test]
async fn memory_is_in_bytes_pushed_before_scraped() {
    let server = TestApp::serving(routes());
    put(&server, "container_memory_working_set_bytes", POD, &APP, &[(0, 536_870_912.0)]);
    assert_eq!(values(&server, "memory", "").await, app(json!([[START_S, "536870912"]])));
    put(&server, "memory", POD, &APP, &[(0, 1_099_511_627_776.0)]);
    assert_eq!(values(&server, "memory", "").await, app(json!([[START_S, "1099511627776"]])));
}

#[tokio::test]
async fn every_value_is_a_string_and_none_is_nan_or_infinite() {
    let server = TestApp::serving(routes());
    let stale = f64::from_bits(lookback_storage::STALENESS_MARKER_BITS);
    let samples = [(-1, f64::NAN), (0, stale), (1, f64::INFINITY), (300, 1e-9), (301, -0.5), (600, 1e21)];
    put(&server, "cpu", POD, &APP, &samples);
    let answer = values(&server, "cpu", "&aggregation=last").await;
    let expected = json!([[START_S + 300, "0.000000001"], [START_S + 600, "1000000000000000000000"]]);
    assert_eq!(answer, app(expected));
}

#[tokio::test]
async fn timestamps_are_whole_seconds_written_as_integers() {
    let server = TestApp::serving(routes());
    // Samples between the seconds: points lie where the question puts them.
    let labels = [("__name__", "cpu"), ("namespace", "default"), ("pod", "my-app-0"), ("container", "app")];
    server.put_all(&labels, &[(START_S * 1_000 - 1, 1.0), (START_S * 1_000 + 299_999, 2.0)]);
    let body = server
        .get(&format!(
            "/api/v1/metrics?workload=my-app&namespace=default&metric=cpu&start={START_S}&end={}&step=300",
            START_S + 600
        ))
        .await
        .body;
    assert!(body.contains(r#""values":[[1706097600,"1"],[1706097900,"2"]]"#), "{body}");
}

#[tokio::test]
async fn a_container_can_be_asked_for_and_all_are_answered_otherwise() {
    let server = TestApp::serving(routes());
    put(&server, "cpu", POD, &APP, &[(0, 1.0)]);
    put(&server, "cpu", POD, &[("container", "proxy")], &[(0, 2.0)]);
    put(&server, "cpu", POD, &[("container", "POD")], &[(0, 4.0)]);
    let names =
        async |more| values(&server, "cpu", more).await.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(names("").await, [format!("{POD}/app"), format!("{POD}/proxy")]);
    assert_eq!(names("&container=").await.len(), 2);
    assert_eq!(values(&server, "cpu", "&container=app").await, app(json!([[START_S, "1"]])));
    assert_eq!(values(&server, "cpu", "&container=none").await, []);
}

#[tokio::test]
async fn several_series_of_one_container_are_one_summed_series() {
    let server = TestApp::serving(routes());
    for (core, value) in [("cpu0", 0.5), ("cpu1", 0.25)] {
        put(&server, "cpu", POD, &[("container", "app"), ("cpu", core)], &[(0, value), (300, value)]);
    }
    put(&server, "cpu", POD, &[("container", "app"), ("cpu", "cpu2")], &[(300, 1.0)]);
    let expected = json!([[START_S, "0.75"], [START_S + 300, "1.75"]]);
    assert_eq!(values(&server, "cpu", "").await, app(expected));
}

#[tokio::test]
async fn the_history_follows_the_workload_across_a_rollout() {
    let server = TestApp::serving(routes());
    put(&server, "cpu", "my-app-66b6c48dd5-vmz8q", &APP, &[(0, 1.0)]);
    put(&server, "cpu", POD, &APP, &[(600, 2.0)]);
    put(&server, "cpu", "my-app-2-7d4b9c6f5-x2k9p", &APP, &[(600, 9.0)]);
    assert_eq!(
        values(&server, "cpu", "").await,
        [
            ("my-app-66b6c48dd5-vmz8q/app".to_owned(), json!([[START_S, "1"]])),
            (format!("{POD}/app"), json!([[START_S + 600, "2"]])),
        ]
    );
}

#[tokio::test]
async fn a_week_at_thirty_seconds_is_answered() {
    let server = TestApp::serving(routes());
    let samples: Vec<_> = (0..=20_160).map(|i| (i * 30, (i % 7) as f64)).collect();
    put(&server, "cpu", POD, &APP, &samples);
    let end = START_S + 168 * 3_600;
    let answer = server
        .get(&format!(
            "/api/v1/metrics?workload=my-app&namespace=default&metric=cpu&start={START_S}&end={end}&step=30s"
        ))
        .await
        .json();
    let values = answer["data"]["result"][0]["values"].as_array().expect("a list").clone();
    assert_eq!((values.len(), &values[20_160]), (20_161, &json!([end, "0"])));
}
