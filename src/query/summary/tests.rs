//! Summaries of known points.

use super::*;
use lookback_storage::Sample;
use proptest::prelude::*;

const GOOD: [(&str, &str); 4] =
    [("workload", "web"), ("namespace", "shop"), ("rollingWindow", "168h"), ("end", "1769299200")];

fn question(metric: &str, more: &[(&str, &str)]) -> Result<SummaryQuestion, RangeError> {
    let named = [("metric", metric)];
    let pairs = GOOD.iter().chain(&named).chain(more);
    SummaryQuestion::parse(pairs.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())), 50_000, 0)
}

fn series(pod: &str, values: &[f64]) -> PodSeries {
    let samples = values.iter().enumerate().map(|(i, v)| Sample::new(i as i64 * 30_000, *v)).collect();
    PodSeries { pod: Some(pod.to_owned()), container: "app".to_owned(), kind: None, samples }
}

fn summaries(metric: &str, more: &[(&str, &str)], series: Vec<PodSeries>) -> Vec<Summary> {
    summarise(&question(metric, more).expect("valid"), RangeAnswer { series, infos: Vec::new() })
}

#[test]
fn cpu_is_counted_in_whole_millicores_as_optipod_does() {
    // 100.9, 200.9, 300.9 and 400.9 millicores: cut to 100, 200, 300, 400.
    let of = summaries("cpu", &[], vec![series("p", &[0.4009, 0.1009, 0.2009, 0.3009])]);
    let [summary] = &of[..] else { panic!("{of:?}") };
    assert_eq!((summary.min, summary.max, summary.mean), (0.1, 0.4, 0.25));
    // Ranks 1.5, 2.25, 2.7, 2.85, 2.94, 2.97, 2.997 of four.
    assert_eq!(summary.percentiles, [0.25, 0.325, 0.37, 0.385, 0.394, 0.397, 0.399]);
    // 370m × 1.2 = 444m.
    let expected = Recommendation { base: 0.37, quantity: Some("444m".to_owned()), bounded_by: None };
    assert_eq!(summary.recommendation, expected);
    assert_eq!((summary.pods, summary.samples), (1, 4));
    assert!((summary.coverage - 4.0 / 20_161.0).abs() < 1e-15);
}

#[test]
fn memory_is_counted_in_whole_bytes_and_brought_within_the_bounds() {
    let recommended = |more: &[(&str, &str)]| {
        let all = summaries("memory", more, vec![series("p", &[536_870_912.7])]);
        let recommendation = all.into_iter().next().expect("a summary").recommendation;
        (recommendation.quantity.expect("a quantity"), recommendation.bounded_by)
    };
    assert_eq!(recommended(&[]), ("644245094".to_owned(), None));
    assert_eq!(recommended(&[("min", "1Gi"), ("max", "8Gi")]), ("1Gi".to_owned(), Some("min")));
    assert_eq!(recommended(&[("max", "512Mi")]), ("512Mi".to_owned(), Some("max")));
    assert_eq!(recommended(&[("safetyFactor", "2"), ("percentile", "P50")]), ("1073741824".to_owned(), None));
}

#[test]
fn pods_are_taken_together_or_apart() {
    let pods = || vec![series("p", &[1.0, 2.0]), series("q", &[3.0, 4.0, 5.0])];
    let together = summaries("queue", &[], pods());
    assert_eq!(together.len(), 1);
    assert_eq!((together[0].pods, together[0].samples, together[0].percentiles[0]), (2, 5, 3.0));
    // Five points, but three points in time.
    assert!((together[0].coverage - 3.0 / 20_161.0).abs() < 1e-15);
    let apart = summaries("queue", &[("by", "pod")], pods());
    assert_eq!(
        apart.iter().map(|s| (s.pod.as_deref(), s.max)).collect::<Vec<_>>(),
        [(Some("p"), 2.0), (Some("q"), 5.0)]
    );
    assert!(summaries("queue", &[], Vec::new()).is_empty());
}

#[test]
fn wrong_parameters_are_named() {
    for (more, expected) in [
        (&[("percentile", "90")][..], "parameter \"percentile\""),
        (&[("percentile", "p101")], "such as P90"),
        (&[("percentile", "pinf")], "such as P90"),
        (&[("safetyFactor", "0")], "more than 0"),
        (&[("safetyFactor", "NaN")], "more than 0"),
        (&[("safetyFactor", "much")], "parameter \"safetyFactor\""),
        (&[("min", "lots")], "parameter \"min\""),
        (&[("min", "2"), ("max", "1")], "more than max"),
        (&[("by", "node")], "container or pod"),
        (&[("merge", "max")], "parameter \"merge\""),
        (&[("cluster", "x")], "safetyFactor, min, max"),
    ] {
        let error = question("cpu", more).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_step_is_optipods_unless_it_is_given() {
    assert_eq!(question("cpu", &[]).expect("valid").range.step_ms, 30_000);
    assert_eq!(question("cpu", &[("step", "5m")]).expect("valid").range.step_ms, 300_000);
}

proptest! {
    #[test]
    fn percentiles_rise_and_lie_between_the_extremes(values in prop::collection::vec(0.0..1e6_f64, 1..200)) {
        for metric in ["cpu", "memory", "other"] {
            let all = summaries(metric, &[], vec![series("p", &values)]);
            let summary = all.first().expect("a summary");
            let mut before = summary.min;
            for percentile in &summary.percentiles {
                prop_assert!(*percentile >= before && *percentile <= summary.max);
                before = *percentile;
            }
            prop_assert!(summary.mean >= summary.min && summary.mean <= summary.max + 1e-9);
        }
    }
}
