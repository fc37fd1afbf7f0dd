//! An answer as the matrix of Prometheus' HTTP API.
//!
//! Timestamps are Unix seconds as numbers, with a fraction only where they have one. Values are strings:
//! the shortest decimal that is read back as the same f64, never with an exponent.

use crate::query::range::{PodSeries, RangeAnswer};
use std::fmt::Write;

/// A typical `[1706097600,"0.25"],`, for the first allocation.
const POINT_BYTES: usize = 24;

/// Writes the answer without building it as a tree first.
pub(super) fn write(namespace: &str, answer: &RangeAnswer) -> String {
    let points: usize = answer.series.iter().map(|series| series.samples.len()).sum();
    let mut json = String::with_capacity(256 + answer.series.len() * 128 + points * POINT_BYTES);
    json.push_str(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
    for (place, series) in answer.series.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        write_series(namespace, series, &mut json);
    }
    json.push_str(r#"]},"infos":["#);
    for (place, info) in answer.infos.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        write_string(info, &mut json);
    }
    json.push_str("]}");
    json
}

fn write_series(namespace: &str, series: &PodSeries, json: &mut String) {
    json.push_str(r#"{"metric":{"container":"#);
    write_string(&series.container, json);
    json.push_str(r#","pod":"#);
    write_string(&series.pod, json);
    json.push_str(r#","namespace":"#);
    write_string(namespace, json);
    json.push_str(r#"},"values":["#);
    for (place, sample) in series.samples.iter().enumerate() {
        json.push_str(if place > 0 { ",[" } else { "[" });
        write_seconds(sample.timestamp_ms, json);
        // Display of f64 is the shortest text that round-trips, and has no exponent.
        let _ = write!(json, r#","{}"]"#, sample.value);
    }
    json.push_str("]}");
}

fn write_seconds(timestamp_ms: i64, json: &mut String) {
    let sign = if timestamp_ms < 0 { "-" } else { "" };
    let (seconds, ms) = (timestamp_ms.unsigned_abs() / 1_000, timestamp_ms.unsigned_abs() % 1_000);
    let _ = write!(json, "{sign}{seconds}");
    if ms > 0 {
        let fraction = format!("{ms:03}");
        let _ = write!(json, ".{}", fraction.trim_end_matches('0'));
    }
}

fn write_string(text: &str, json: &mut String) {
    let _ = write!(json, "{}", serde_json::Value::from(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::Sample;
    use proptest::prelude::*;

    fn answer(pod: &str, samples: &[(i64, f64)]) -> RangeAnswer {
        let samples = samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect();
        let series = PodSeries { pod: pod.into(), container: "my-app".into(), samples };
        RangeAnswer { series: vec![series], infos: vec!["a \"b\"".into()] }
    }

    #[test]
    fn the_answer_is_as_the_guide_prints_it() {
        let samples = [
            (1_706_097_600_000, 0.25),
            (1_706_097_900_500, 536_870_912.0),
            (1_706_098_200_050, 1e-9),
            (-500, 1e21),
        ];
        assert_eq!(
            write("default", &answer("my-app-xxx", &samples)),
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"container":"my-app","#,
                r#""pod":"my-app-xxx","namespace":"default"},"values":[[1706097600,"0.25"],"#,
                r#"[1706097900.5,"536870912"],[1706098200.05,"0.000000001"],[-0.5,"1000000000000000000000"]]}]},"#,
                r#""infos":["a \"b\""]}"#
            )
        );
    }

    #[test]
    fn nothing_found_is_an_empty_list() {
        let nothing = RangeAnswer { series: Vec::new(), infos: Vec::new() };
        assert_eq!(
            write("default", &nothing),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]},"infos":[]}"#
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_json_and_every_value_is_read_back_bit_for_bit(
            pod in ".*",
            namespace in ".*",
            timestamp_ms in -1_i64 << 50..1_i64 << 50,
            value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        ) {
            let text = write(&namespace, &answer(&pod, &[(timestamp_ms, value)]));
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let series = &json["data"]["result"][0];
            prop_assert_eq!(series["metric"]["pod"].as_str(), Some(pod.as_str()));
            prop_assert_eq!(series["metric"]["namespace"].as_str(), Some(namespace.as_str()));
            let written = series["values"][0][1].as_str().expect("a string");
            prop_assert!(!written.contains(['e', 'E']));
            prop_assert_eq!(written.parse::<f64>().expect("a number").to_bits(), value.to_bits());
            let seconds = series["values"][0][0].as_f64().expect("a number");
            prop_assert_eq!((seconds * 1_000.0).round() as i64, timestamp_ms);
        }
    }
}
