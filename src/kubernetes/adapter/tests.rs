use super::*;
use proptest::prelude::*;

#[test]
fn an_address_is_a_service_or_a_url_that_keeps_a_token_safe() {
    for (text, url) in [
        ("monitoring/prometheus-adapter", "https://prometheus-adapter.monitoring.svc:443"),
        ("keda/keda-metrics:6443", "https://keda-metrics.keda.svc:6443"),
        ("https://adapter.example.com:8443/", "https://adapter.example.com:8443"),
        ("http://127.0.0.1:1234", "http://127.0.0.1:1234"),
        ("http://[::1]:1234", "http://[::1]:1234"),
    ] {
        assert_eq!(text.parse::<AdapterAddress>().map(|address| address.url), Ok(url.to_owned()));
    }
    for text in ["", "adapter", "a/b/c", "A/b", "a/", "a/b:x", "http://example.com", "ftp://x", "https://x/y"]
    {
        assert!(text.parse::<AdapterAddress>().is_err(), "{text}");
    }
}

#[test]
fn the_values_of_both_versions_are_read() {
    let body =
        br#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","metadata":{},"items":[
        {"describedObject":{"kind":"Pod","name":"p1","apiVersion":"/v1"},"metricName":"rps",
         "timestamp":"2026-11-22T09:02:00Z","value":"1500m","selector":null},
        {"describedObject":{"name":"p2"},"metric":{"name":"rps"},"timestamp":null,"value":3}]}"#;
    let items = parse_values(body).expect("values");
    let item =
        |object: &str, value, timestamp_ms| Item { object: Some(object.to_owned()), value, timestamp_ms };
    assert_eq!(items, [item("p1", 1.5, Some(1_795_338_120_000)), item("p2", 3.0, None)]);
    for body in [
        &b"<html>"[..],
        b"{}",
        br#"{"kind":"Status","items":[]}"#,
        br#"{"kind":"MetricValueList","items":[{"value":"much"}]}"#,
        br#"{"kind":"MetricValueList","items":[{"value":[]}]}"#,
    ] {
        assert!(parse_values(body).is_err(), "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(parse_values(br#"{"kind":"ExternalMetricValueList","items":null}"#), Ok(Vec::new()));
}

#[test]
fn the_words_of_an_error_are_its_own_and_short() {
    assert_eq!(message_of(br#"{"kind":"Status","message":"no such metric"}"#), "no such metric");
    assert!(message_of(&[b'x'; 100_000]).len() < 1_000);
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), value in ".{0,30}") {
        let _ = (parse_values(&body), parse_listed(&body), message_of(&body));
        let list = serde_json::json!({"kind": "MetricValueList", "items": [{"value": value, "timestamp": value}]});
        let _ = parse_values(list.to_string().as_bytes());
    }
}
