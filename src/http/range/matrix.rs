//! An answer as the matrix of Prometheus' HTTP API.
//!
//! Timestamps are Unix seconds as numbers, with a fraction only where they have one. Values are strings:
//! the shortest decimal that is read back as the same f64, never with an exponent.

use crate::http::decimal::{self, Fraction};
use crate::http::json::push_string;
use crate::http::stamps::Stamps;
use crate::query::range::{PodSeries, RangeQuestion};
use lookback_storage::Sample;

/// How much of an answer is written before it is handed on, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Room for the longest point, in bytes: a value without an exponent has up to 340 characters.
const POINT_BYTES_MAX: usize = 400;

/// An answer as it is written, piece by piece: each is made when it is asked for, and what has been
/// written of the answer is let go. There are no more pieces where all series that were added are written, until
/// more are added or it is finished.
pub(super) struct Matrix {
    workload: String,
    namespace: String,
    series: std::vec::IntoIter<PodSeries>,
    /// What is told at the end; `None`: more series may come.
    infos: Option<Vec<String>>,
    /// The samples of the series that was begun, and whether one of them was written.
    open: Option<(std::vec::IntoIter<Sample>, bool)>,
    stamps: Stamps,
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
    /// The answer to a question, whose points lie on the question's grid.
    pub(super) fn new(question: &RangeQuestion) -> Self {
        Self {
            workload: question.workload.clone(),
            namespace: question.namespace.clone(),
            series: Vec::new().into_iter(),
            infos: None,
            open: None,
            stamps: Stamps::new(question.start_ms, question.step_ms, question.points(), Fraction::Shortest),
            state: State::Head,
        }
    }

    /// These series come next; to be called where all that were added are written.
    pub(super) fn add(&mut self, series: Vec<PodSeries>) {
        assert!(self.series.len() == 0, "series that were added are not written yet");
        self.series = series.into_iter();
    }

    /// No more series come.
    pub(super) fn finish(&mut self, infos: Vec<String>) {
        self.infos = Some(infos);
    }

    fn write_head(&mut self, json: &mut String) {
        json.push_str(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        self.state = State::Series(true);
    }

    fn write_tail(&mut self, infos: &[String], json: &mut String) {
        json.push_str(r#"]},"infos":["#);
        for (place, info) in infos.iter().enumerate() {
            json.push_str(if place > 0 { "," } else { "" });
            push_string(info, json);
        }
        json.push_str("]}");
        self.state = State::End;
    }

    fn begin_series(&mut self, series: PodSeries, first: bool, json: &mut String) {
        let PodSeries { pod, container, kind, samples } = series;
        json.push_str(if first { "" } else { "," });
        json.push_str(r#"{"metric":{"container":"#);
        push_string(&container, json);
        if let Some(pod) = &pod {
            json.push_str(r#","pod":"#);
            push_string(pod, json);
        }
        json.push_str(r#","namespace":"#);
        push_string(&self.namespace, json);
        if pod.is_none() || kind.is_some() {
            json.push_str(r#","workload":"#);
            push_string(&self.workload, json);
        }
        if let Some(kind) = &kind {
            json.push_str(r#","kind":"#);
            push_string(kind, json);
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
                json.push_str(if *begun { "\"]]}" } else { "]}" });
                self.open = None;
                return;
            };
            // A string takes everything.
            let _ = self.stamps.write(sample.timestamp_ms, !*begun, json);
            *begun = true;
            let _ = decimal::write_f64(sample.value, json);
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
                State::Series(first) => match (self.series.next(), self.infos.take()) {
                    (Some(series), infos) => {
                        self.infos = infos;
                        self.begin_series(series, first, &mut json);
                    }
                    (None, Some(infos)) => self.write_tail(&infos, &mut json),
                    (None, None) => break,
                },
                State::End => {}
            }
        }
        (!json.is_empty()).then_some(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::range::RangeAnswer;
    use proptest::prelude::*;

    /// All of an answer, piece by piece.
    fn pieces(question: &RangeQuestion, answer: RangeAnswer) -> Vec<String> {
        let mut matrix = Matrix::new(question);
        matrix.add(answer.series);
        matrix.finish(answer.infos);
        matrix.collect()
    }

    /// A question whose grid begins here and has some of the points.
    fn question(namespace: &str, start_ms: i64) -> RangeQuestion {
        let given = ["workload", "namespace", "metric"].map(|name| (name, "my-app"));
        let given = given.into_iter().chain([("start", "0"), ("end", "0")]);
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let question = RangeQuestion::parse(given, 1, 0).expect("valid");
        let end_ms = start_ms + 20_000 * 30_000;
        RangeQuestion { namespace: namespace.to_owned(), start_ms, end_ms, step_ms: 30_000, ..question }
    }

    fn write(namespace: &str, answer: RangeAnswer) -> String {
        pieces(&question(namespace, 1_706_097_600_000), answer).concat()
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
        let pieces = pieces(&question("ns", 0), answer("pod", &samples));
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let json: serde_json::Value = serde_json::from_str(&pieces.concat()).expect("JSON");
        assert_eq!(json["data"]["result"][0]["values"].as_array().expect("a list").len(), 20_161);
    }

    #[test]
    fn points_are_stamped_with_their_times_whichever_of_them_a_series_has() {
        let start_ms = 999_999_970_000;
        for times in [vec![0, 1, 2, 3], vec![2, 3, 19_999, 20_000], vec![20_000], vec![1, 20_001, 20_002]] {
            let samples: Vec<_> = times.iter().map(|place| (start_ms + place * 30_000, 1.0)).collect();
            let mut both = answer("a", &samples);
            both.series.extend(answer("b", &samples[1..]).series);
            both.series.extend(answer("c", &[(start_ms + 500, 1.0), samples[0]]).series);
            let text = pieces(&question("ns", start_ms), both).concat();
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let told = |place: usize| -> Vec<i64> {
                let values = json["data"]["result"][place]["values"].as_array().expect("a list").iter();
                values.map(|point| (point[0].as_f64().expect("seconds") * 1e3).round() as i64).collect()
            };
            let expected: Vec<i64> = samples.iter().map(|(time_ms, _)| *time_ms).collect();
            assert_eq!((told(0), told(1)), (expected.clone(), expected[1..].to_vec()));
            assert_eq!(told(2), [start_ms + 500, expected[0]]);
        }
    }

    #[test]
    fn series_that_come_later_are_written_as_if_they_had_come_at_once() {
        let all = || ["a", "b", "c"].map(|pod| answer(pod, &[(0, 1.0), (30_000, 2.0)]).series).concat();
        let expected =
            pieces(&question("ns", 0), RangeAnswer { series: all(), infos: vec!["i".into()] }).concat();
        let mut matrix = Matrix::new(&question("ns", 0));
        let mut text = String::new();
        for one in all() {
            text.extend(matrix.by_ref());
            assert_eq!(matrix.next(), None);
            matrix.add(vec![one]);
        }
        text.extend(matrix.by_ref());
        matrix.finish(vec!["i".into()]);
        text.extend(matrix.by_ref());
        assert_eq!((text, matrix.next()), (expected, None));
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
