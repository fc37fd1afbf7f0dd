//! An answer as the matrix of Prometheus' HTTP API.
//!
//! Timestamps are Unix seconds as numbers, with a fraction only where they have one. Values are strings:
//! the shortest decimal that is read back as the same f64, never with an exponent.

use crate::http::decimal::{self, Fraction};
use crate::query::range::{PodSeries, RangeAnswer};
use lookback_storage::Sample;
use std::fmt::Write;

/// How much of an answer is written before it is handed on, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Room for the longest point, in bytes: a value without an exponent has up to 340 characters.
const POINT_BYTES_MAX: usize = 400;

/// An answer as it is written, piece by piece: each is made when it is asked for, and what has been
/// written of the answer is let go.
pub(super) struct Matrix {
    workload: String,
    namespace: String,
    series: std::vec::IntoIter<PodSeries>,
    infos: Vec<String>,
    /// The samples of the series that was begun, and whether one of them was written.
    open: Option<(std::vec::IntoIter<Sample>, bool)>,
    state: State,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// A series; whether it is the first.
    Series(bool),
    End,
}

impl Matrix {
    /// What is to be written of an answer about a workload.
    pub(super) fn new(workload: &str, namespace: &str, answer: RangeAnswer) -> Self {
        Self {
            workload: workload.to_owned(),
            namespace: namespace.to_owned(),
            series: answer.series.into_iter(),
            infos: answer.infos,
            open: None,
            state: State::Head,
        }
    }

    fn write_head(&mut self, json: &mut String) {
        json.push_str(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        self.state = State::Series(true);
    }

    fn write_tail(&mut self, json: &mut String) {
        json.push_str(r#"]},"infos":["#);
        for (place, info) in self.infos.iter().enumerate() {
            json.push_str(if place > 0 { "," } else { "" });
            write_string(info, json);
        }
        json.push_str("]}");
        self.state = State::End;
    }

    fn begin_series(&mut self, series: PodSeries, first: bool, json: &mut String) {
        let PodSeries { pod, container, kind, samples } = series;
        json.push_str(if first { "" } else { "," });
        json.push_str(r#"{"metric":{"container":"#);
        write_string(&container, json);
        if let Some(pod) = &pod {
            json.push_str(r#","pod":"#);
            write_string(pod, json);
        }
        json.push_str(r#","namespace":"#);
        write_string(&self.namespace, json);
        if pod.is_none() || kind.is_some() {
            json.push_str(r#","workload":"#);
            write_string(&self.workload, json);
        }
        if let Some(kind) = &kind {
            json.push_str(r#","kind":"#);
            write_string(kind, json);
        }
        json.push_str(r#"},"values":["#);
        self.open = Some((samples.into_iter(), false));
        self.state = State::Series(false);
    }

    /// Writes points of the series that was begun, until the piece is full or it has no more.
    fn write_points(&mut self, json: &mut String) {
        let Some((samples, begun)) = &mut self.open else { return };
        while json.len() + POINT_BYTES_MAX < PIECE_BYTES {
            let Some(sample) = samples.next() else {
                json.push_str("]}");
                self.open = None;
                return;
            };
            json.push_str(if *begun { ",[" } else { "[" });
            *begun = true;
            // A string takes everything.
            let _ = decimal::write_seconds(sample.timestamp_ms, json, Fraction::Shortest);
            json.push_str(",\"");
            let _ = decimal::write_f64(sample.value, json);
            json.push_str("\"]");
        }
    }
}

impl Iterator for Matrix {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.state == State::End {
            return None;
        }
        let mut json = String::with_capacity(PIECE_BYTES);
        while self.state != State::End && json.len() + POINT_BYTES_MAX < PIECE_BYTES {
            match self.state {
                State::Head => self.write_head(&mut json),
                State::Series(_) if self.open.is_some() => self.write_points(&mut json),
                State::Series(first) => match self.series.next() {
                    Some(series) => self.begin_series(series, first, &mut json),
                    None => self.write_tail(&mut json),
                },
                State::End => {}
            }
        }
        Some(json)
    }
}

fn write_string(text: &str, json: &mut String) {
    let _ = write!(json, "{}", serde_json::Value::from(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(namespace: &str, answer: RangeAnswer) -> String {
        Matrix::new("my-app", namespace, answer).collect()
    }

    fn answer(pod: &str, samples: &[(i64, f64)]) -> RangeAnswer {
        let samples = samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect();
        let series = PodSeries { pod: Some(pod.into()), container: "my-app".into(), kind: None, samples };
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
            write("default", answer("my-app-xxx", &samples)),
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
            write("default", nothing),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]},"infos":[]}"#
        );
    }

    #[test]
    fn merged_pods_have_the_workload_in_place_of_a_pod_and_collisions_tell_the_kind() {
        let series = |pod: Option<&str>, kind: Option<&str>| PodSeries {
            pod: pod.map(str::to_owned),
            container: "c".into(),
            kind: kind.map(str::to_owned),
            samples: vec![Sample::new(1_000, 1.0)],
        };
        let all = vec![series(None, None), series(Some("p"), Some("Job"))];
        let text = write("ns", RangeAnswer { series: all, infos: Vec::new() });
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let metric = |place: usize| json["data"]["result"][place]["metric"].to_string();
        assert_eq!(metric(0), r#"{"container":"c","namespace":"ns","workload":"my-app"}"#);
        assert_eq!(
            metric(1),
            r#"{"container":"c","kind":"Job","namespace":"ns","pod":"p","workload":"my-app"}"#
        );
    }

    #[test]
    fn a_large_answer_comes_in_bounded_pieces() {
        let samples: Vec<_> = (0..20_161_i64).map(|i| (i * 30_000, f64::MIN_POSITIVE * i as f64)).collect();
        let pieces: Vec<String> = Matrix::new("w", "ns", answer("pod", &samples)).collect();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let json: serde_json::Value = serde_json::from_str(&pieces.concat()).expect("JSON");
        assert_eq!(json["data"]["result"][0]["values"].as_array().expect("a list").len(), 20_161);
    }

    proptest! {
        #[test]
        fn every_answer_is_json_and_every_value_is_read_back_bit_for_bit(
            pod in ".*",
            namespace in ".*",
            timestamp_ms in -1_i64 << 50..1_i64 << 50,
            value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        ) {
            let text = write(&namespace, answer(&pod, &[(timestamp_ms, value)]));
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
