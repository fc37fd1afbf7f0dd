//! The behaviours, each a function over any store that is empty, and over what its engine promises.

use lookback::store::{Context, EachRequest, LabelsRequest, RangeRequest, Scope, Store, StoreError};
use lookback_storage::resample::{counter_rates, resample};
use lookback_storage::{
    Aggregation, Grid, Labels, MatchOp, Matcher, OutOfOrder, Pick, STALENESS_MARKER_BITS, Sample, WriteBatch,
    WriteReport,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NOW_MS: i64 = 1_794_700_800_000;

/// In what engines are allowed to differ.
#[derive(Clone, Copy)]
pub(crate) struct Promises {
    /// What of values comes back.
    values: Values,
    /// What is refused is refused at once; else by the engine, later: it is set aside.
    refuses_at_once: bool,
    /// Samples that are older than their series' newest by more than an hour are refused, sooner or later.
    refuses_late: bool,
    /// A sample that was written before is told to be a duplicate, not only the newest one of a series.
    tells_duplicates: bool,
    /// Of two values at one time the larger one is kept; else the first.
    larger_wins: bool,
    /// What of a series can be deleted.
    deletes: Deletes,
    /// What is deleted can be written again at the same times.
    rewrites_deleted: bool,
    /// Statistics tell of samples that are held for good.
    tells_samples: bool,
    /// Names of labels that the engine lists beside those that were written.
    label_names_beside: &'static [&'static str],
}

/// What of values comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    /// Any bit pattern.
    Exact,
    /// Any but that of a negative zero.
    UnsignedZero,
    /// Any number and one NaN, but no staleness markers: a series that has ended is not known to have.
    Text,
    /// Numbers that are near, and no NaN but staleness markers.
    Near,
}

/// What of a series can be deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletes {
    Spans,
    WholeSeries,
    Nothing,
}

pub(crate) const EMBEDDED: Promises = Promises {
    values: Values::Exact,
    refuses_at_once: true,
    refuses_late: true,
    tells_duplicates: true,
    larger_wins: true,
    deletes: Deletes::Spans,
    rewrites_deleted: true,
    tells_samples: true,
    label_names_beside: &[],
};

/// Version 2.42, with an out_of_order_time_window of an hour.
pub(crate) const PROMETHEUS: Promises = Promises {
    refuses_at_once: false,
    tells_duplicates: false,
    larger_wins: false,
    rewrites_deleted: false,
    tells_samples: false,
    ..EMBEDDED
};

/// Version 1.21, with an out_of_order_time_window of an hour and UTF-8 names.
pub(crate) const CORTEX: Promises =
    Promises { values: Values::UnsignedZero, deletes: Deletes::Nothing, ..PROMETHEUS };

/// Version 0.42, a Receive with an out-of-order window of an hour and a Query, read by queries.
pub(crate) const THANOS: Promises = Promises {
    values: Values::Text,
    deletes: Deletes::Nothing,
    label_names_beside: &["receive", "tenant_id"],
    ..PROMETHEUS
};

/// Version 1.79, without deduplication; the cluster, version 1.150, with it.
pub(crate) const VICTORIA_METRICS: Promises = Promises {
    values: Values::Near,
    refuses_at_once: false,
    refuses_late: false,
    tells_duplicates: false,
    deletes: Deletes::WholeSeries,
    tells_samples: false,
    ..EMBEDDED
};

/// The same samples, as far as the engine promises it.
#[track_caller]
fn assert_same(promises: Promises, got: &[Sample], expected: &[Sample], what: &str) {
    let is_negative_zero = |sample: &Sample| sample.value.to_bits() == (-0.0_f64).to_bits();
    let as_told = |sample: &Sample| {
        let value = match promises.values {
            Values::UnsignedZero if is_negative_zero(sample) => 0.0,
            Values::Text if sample.is_staleness_marker() => return None,
            Values::Text if sample.value.is_nan() => f64::NAN,
            _ => sample.value,
        };
        Some(Sample::new(sample.timestamp_ms, value))
    };
    if promises.values != Values::Near {
        assert_eq!(got, expected.iter().filter_map(as_told).collect::<Vec<_>>(), "{what}");
        return;
    }
    // NaN other than staleness markers are not kept, and a block of values has one exponent.
    let kept = |sample: &&Sample| !sample.value.is_nan() || sample.is_staleness_marker();
    let expected: Vec<Sample> = expected.iter().filter(kept).copied().collect();
    let largest = expected.iter().map(|sample| sample.value.abs()).fold(1e-290, f64::max);
    let is_near = |(got, expected): (&Sample, &Sample)| {
        let (a, b) = (got.value, expected.value);
        let near = (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-10 * largest;
        got.timestamp_ms == expected.timestamp_ms && near
    };
    let same = got.len() == expected.len() && got.iter().zip(&expected).all(is_near);
    assert!(same, "{what}: {got:?} is not near {expected:?}");
}

type ByPod = BTreeMap<String, f64>;

fn context(scope: Scope) -> Context {
    Context { scope, timeout: Duration::from_secs(30) }
}

pub(crate) fn all() -> Context {
    context(Scope::All)
}

fn only(namespace: &str) -> Context {
    context(Scope::Namespaces(Arc::new(BTreeSet::from([namespace.to_owned()]))))
}

/// A question for all of these series over a grid.
fn ask(matchers: &[Matcher], grid: Grid, aggregation: Aggregation) -> RangeRequest {
    RangeRequest {
        matchers: matchers.to_vec(),
        start_ms: grid.start_ms,
        end_ms: grid.end_ms,
        step_ms: grid.step_ms,
        aggregation,
        counter: false,
        samples_max: 1_000_000,
        points_max: usize::MAX,
    }
}

pub(crate) fn series(namespace: &str, pod: &str) -> Labels {
    Labels::new([("__name__", "rps"), ("namespace", namespace), ("pod", pod)]).expect("valid")
}

pub(crate) async fn append(store: &dyn Store, labels: &Labels, samples: &[Sample]) -> WriteReport {
    let mut batch = WriteBatch::default();
    for sample in samples {
        batch.push(labels.clone(), Some(sample.timestamp_ms), sample.value);
    }
    store.append(&all(), batch, NOW_MS, OutOfOrder::Window).await.expect("appended")
}

async fn select(store: &dyn Store, matchers: &[Matcher]) -> Vec<(Labels, Vec<Sample>)> {
    let selected = store.select(&all(), matchers, i64::MIN, i64::MAX, 1_000_000).await.expect("selected");
    selected.into_iter().map(|series| ((*series.labels).clone(), series.samples)).collect()
}

/// Samples with irregular times and values, the newest at `NOW_MS`.
fn irregular(count: i64) -> Vec<Sample> {
    let sample = |i: i64| Sample::new(NOW_MS - (count - 1 - i) * 7_000 - (i * i) % 3_000, (i as f64).sin());
    (0..count).map(sample).collect()
}

pub(crate) async fn what_is_appended_is_selected_bit_for_bit(store: Arc<dyn Store>, promises: Promises) {
    let labels = Labels::new([("__name__", "a metric/\"ü\""), ("l", "x\ny"), ("z", "ß")]).expect("valid");
    let bits =
        [0, 1, (-0.0f64).to_bits(), f64::NAN.to_bits(), STALENESS_MARKER_BITS, u64::MAX, 1.5f64.to_bits()];
    let samples: Vec<Sample> =
        bits.iter().zip(NOW_MS - 10..).map(|(bits, t)| Sample::new(t, f64::from_bits(*bits))).collect();
    let report = append(&*store, &labels, &samples).await;
    assert_eq!((report.accepted, report.duplicates, report.series_created), (7, 0, 1));
    let selected = select(&*store, &[]).await;
    assert_eq!((selected.len(), &selected[0].0), (1, &labels));
    assert_same(promises, &selected[0].1, &samples, "all");
    let again = append(&*store, &labels, &samples).await;
    assert_eq!((again.accepted + again.duplicates, again.series_created), (7, 0));
    assert!(again.duplicates == 7 || !promises.tells_duplicates);
    assert_same(promises, &select(&*store, &[]).await[0].1, &samples, "all, written twice");

    let part = store.select(&all(), &[], NOW_MS - 9, NOW_MS - 8, 10).await.expect("selected");
    assert_same(promises, &part[0].samples, &samples[1..=2], "a part");
}

pub(crate) async fn a_refused_sample_does_not_hold_back_its_neighbours(
    store: Arc<dyn Store>,
    promises: Promises,
) {
    let (hour_ms, labels) = (3_600_000, series("a", "p"));
    let times = [NOW_MS, NOW_MS - 2 * hour_ms, NOW_MS + hour_ms, NOW_MS - 1_000 * hour_ms, NOW_MS - 1];
    let samples: Vec<Sample> = times.map(|t| Sample::new(t, 1.0)).to_vec();
    let report = append(&*store, &labels, &samples).await;
    let reasons: Vec<_> = report.rejected.iter().map(|(at, reject)| (*at, reject.reason())).collect();
    if promises.refuses_at_once {
        assert_eq!(reasons, [(1, "out_of_order"), (2, "too_far_ahead"), (3, "beyond_retention")]);
        assert_eq!(report.accepted, 2);
    } else {
        assert_eq!((&reasons[..], report.accepted), (&[(2, "too_far_ahead")][..], 4));
    }
    let kept = select(&*store, &[]).await[0].1.len();
    assert_eq!(kept, if promises.refuses_late { 2 } else { 4 });
    let set_aside = store.stats().await.expect("told").outbox.map(|outbox| outbox.dead_letter_samples);
    let refused_later = promises.refuses_late && !promises.refuses_at_once;
    assert_eq!(set_aside.unwrap_or_default(), if refused_later { 2 } else { 0 });
}

pub(crate) async fn the_larger_value_wins_at_equal_timestamps(store: Arc<dyn Store>, promises: Promises) {
    let labels = series("a", "p");
    append(&*store, &labels, &[Sample::new(NOW_MS, 2.0)]).await;
    append(&*store, &labels, &[Sample::new(NOW_MS, 3.0)]).await;
    append(&*store, &labels, &[Sample::new(NOW_MS, 1.0)]).await;
    let kept = Sample::new(NOW_MS, if promises.larger_wins { 3.0 } else { 2.0 });
    assert_eq!(select(&*store, &[]).await[0].1, [kept]);
    let latest = store.latest(&all(), &[], 0).await.expect("read");
    assert_eq!(latest[0].sample, kept);
}

pub(crate) async fn the_latest_value_is_fresh_and_ends_at_a_staleness_marker(
    store: Arc<dyn Store>,
    promises: Promises,
) {
    append(&*store, &series("a", "fresh"), &[Sample::new(NOW_MS, 1.0), Sample::new(NOW_MS - 5, 9.0)]).await;
    append(&*store, &series("a", "old"), &[Sample::new(NOW_MS - 10_000, 2.0)]).await;
    let marker = Sample::new(NOW_MS, f64::from_bits(STALENESS_MARKER_BITS));
    append(&*store, &series("a", "ended"), &[Sample::new(NOW_MS - 1, 3.0), marker]).await;
    let pods = async |not_before_ms| {
        let latest = store.latest(&all(), &[Matcher::equal("__name__", "rps")], not_before_ms).await;
        let latest = latest.expect("read").into_iter();
        latest.map(|l| (l.labels.get("pod").expect("a pod").to_owned(), l.sample.value)).collect::<ByPod>()
    };
    let ended = (promises.values == Values::Text).then(|| ("ended".to_owned(), 3.0));
    let with = |fresh: &[(&str, f64)]| {
        let fresh = fresh.iter().map(|(pod, value)| ((*pod).to_owned(), *value));
        fresh.chain(ended.clone()).collect::<ByPod>()
    };
    assert_eq!(pods(NOW_MS - 9_999).await, with(&[("fresh", 1.0)]));
    assert_eq!(pods(NOW_MS - 10_000).await, with(&[("fresh", 1.0), ("old", 2.0)]));
}

pub(crate) async fn a_range_is_what_the_one_definition_says(store: Arc<dyn Store>, promises: Promises) {
    let samples = {
        let mut samples = irregular(400);
        samples.sort_by_key(|s| s.timestamp_ms);
        samples.dedup_by_key(|s| s.timestamp_ms);
        samples
    };
    append(&*store, &series("a", "p"), &samples).await;
    for name in ["avg", "min", "max", "last", "sum", "count", "p50", "p99.9"] {
        for (start_ms, step_ms) in
            [(NOW_MS - 2_000_000, 60_000), (NOW_MS - 1_234_567, 7_001), (NOW_MS + 1, 1)]
        {
            let aggregation: Aggregation = name.parse().expect("known");
            let grid = Grid { start_ms, end_ms: NOW_MS + 100, step_ms };
            let request = ask(&[Matcher::equal("pod", "p")], grid, aggregation);
            let answer = store.range(&all(), request).await.expect("answered");
            let points = answer.series.into_iter().flat_map(|series| series.samples).collect::<Vec<_>>();
            let what = format!("{name} every {step_ms}");
            assert_same(promises, &points, &resample(&samples, grid, aggregation), &what);
        }
    }
}

pub(crate) async fn a_counter_is_read_as_its_rate(store: Arc<dyn Store>, promises: Promises) {
    let samples: Vec<Sample> =
        (0..100).map(|i| Sample::new(NOW_MS - (99 - i) * 15_000, ((i % 40) * 3) as f64)).collect();
    append(&*store, &series("a", "p"), &samples).await;
    let grid = Grid { start_ms: NOW_MS - 900_000, end_ms: NOW_MS, step_ms: 60_000 };
    let request =
        RangeRequest { counter: true, ..ask(&[Matcher::equal("pod", "p")], grid, Aggregation::Avg) };
    let answer = store.range(&all(), request).await.expect("answered").series;
    let expected = resample(&counter_rates(&samples, 300_000), grid, Aggregation::Avg);
    assert_same(promises, &answer[0].samples, &expected, "rates");
    assert_eq!(answer[0].samples.len(), 16);
}

pub(crate) async fn label_names_and_values_follow_the_selection(store: Arc<dyn Store>, promises: Promises) {
    append(&*store, &series("a", "p1"), &[Sample::new(NOW_MS, 1.0)]).await;
    append(&*store, &series("b", "p2"), &[Sample::new(NOW_MS, 1.0)]).await;
    let node = Labels::new([("__name__", "load"), ("node", "n1")]).expect("valid");
    append(&*store, &node, &[Sample::new(NOW_MS, 1.0)]).await;
    let labels = async |context: &Context, name: Option<&str>, matchers: &[Matcher]| {
        let request = LabelsRequest { name: name.map(str::to_owned), matchers: matchers.to_vec() };
        let mut labels = store.labels(context, request).await.expect("read");
        labels.retain(|label| !promises.label_names_beside.contains(&label.as_str()));
        labels
    };
    assert_eq!(labels(&all(), None, &[]).await, ["__name__", "namespace", "node", "pod"]);
    assert_eq!(labels(&all(), Some("__name__"), &[Matcher::not_equal("pod", "")]).await, ["rps"]);
    assert_eq!(labels(&all(), Some("__name__"), &[Matcher::equal("pod", "")]).await, ["load"]);
    let regex = Matcher::new("pod", MatchOp::Regex, "p[23]").expect("compiles");
    assert_eq!(labels(&all(), Some("pod"), &[regex]).await, ["p2"]);
    assert_eq!(labels(&only("a"), Some("pod"), &[]).await, ["p1"]);
    assert_eq!(labels(&only("a"), None, &[]).await, ["__name__", "namespace", "pod"]);
    assert!(labels(&all(), Some("absent"), &[]).await.is_empty());
}

pub(crate) async fn a_scope_bounds_every_call(store: Arc<dyn Store>, promises: Promises) {
    let node = Labels::new([("__name__", "rps"), ("node", "n1")]).expect("valid");
    for labels in [&series("a", "p"), &series("b", "p"), &node] {
        append(&*store, labels, &[Sample::new(NOW_MS, 1.0)]).await;
    }
    let mut mixed = WriteBatch::default();
    mixed.push(series("a", "new"), Some(NOW_MS), 1.0);
    mixed.push(series("b", "new"), Some(NOW_MS), 1.0);
    let refused = store.append(&only("a"), mixed, NOW_MS, OutOfOrder::Window).await;
    assert!(matches!(refused, Err(StoreError::OutOfScope { namespace }) if namespace == "b"));
    let mut no_namespace = WriteBatch::default();
    no_namespace.push(node, Some(NOW_MS), 2.0);
    let refused = store.append(&only("a"), no_namespace, NOW_MS, OutOfOrder::Window).await;
    assert!(matches!(refused, Err(StoreError::OutOfScope { .. })));
    assert_eq!(select(&*store, &[]).await.len(), 3, "nothing of a refused batch is written");

    let rps = [Matcher::equal("__name__", "rps")];
    let selected = store.select(&only("a"), &rps, 0, i64::MAX, 100).await.expect("read");
    assert_eq!(selected.iter().map(|s| (*s.labels).clone()).collect::<Vec<_>>(), [series("a", "p")]);
    assert_eq!(store.latest(&only("b"), &rps, 0).await.expect("read").len(), 1);
    assert!(store.latest(&only("c"), &rps, 0).await.expect("read").is_empty());
    let grid = Grid { start_ms: NOW_MS, end_ms: NOW_MS, step_ms: 1_000 };
    let request = ask(&rps, grid, Aggregation::Avg);
    assert_eq!(store.range(&only("a"), request).await.expect("read").series.len(), 1);
    let deleted = store.delete(&only("a"), &rps, i64::MIN, i64::MAX).await;
    if promises.deletes == Deletes::Nothing {
        assert!(deleted.expect_err("refused").to_string().contains("no API"));
        return;
    }
    assert_eq!(deleted.expect("deleted"), 1);
    assert_eq!(select(&*store, &rps).await.len(), 2);
}

pub(crate) async fn a_delete_removes_a_span_of_what_was_written_before(
    store: Arc<dyn Store>,
    promises: Promises,
) {
    let labels = series("a", "p");
    let samples: Vec<Sample> = (0..10).map(|i| Sample::new(NOW_MS - 9 + i, i as f64)).collect();
    append(&*store, &labels, &samples).await;
    let pod = [Matcher::equal("pod", "p")];
    assert_eq!(store.delete(&all(), &[], i64::MIN, i64::MAX).await.expect("no-op"), 0);
    let deleted = store.delete(&all(), &pod, NOW_MS - 5, i64::MAX).await;
    if promises.deletes != Deletes::Spans {
        let refused = deleted.expect_err("refused").to_string();
        if promises.deletes == Deletes::Nothing {
            assert!(refused.contains("no API"), "{refused}");
            return;
        }
        assert!(refused.contains("whole series"), "{refused}");
        assert_eq!(store.delete(&all(), &pod, i64::MIN, i64::MAX).await.expect("deleted"), 1);
        assert!(select(&*store, &pod).await.is_empty());
        return;
    }
    assert_eq!(deleted.expect("deleted"), 1);
    assert_eq!(select(&*store, &pod).await[0].1, samples[..4]);
    let latest = store.latest(&all(), &pod, 0).await.expect("read");
    assert_eq!(latest[0].sample, samples[3]);
    append(&*store, &labels, &samples[8..]).await;
    let kept = select(&*store, &pod).await[0].1.len();
    assert!(kept == 6 || !promises.rewrites_deleted, "what is written afterwards stays");
}

pub(crate) async fn a_selection_larger_than_the_limit_is_refused(store: Arc<dyn Store>, _: Promises) {
    append(&*store, &series("a", "p"), &irregular(100)).await;
    let error = store.select(&all(), &[], i64::MIN, i64::MAX, 99).await.expect_err("refused");
    assert!(matches!(error, StoreError::TooLarge(_)), "{error}");
}

pub(crate) async fn a_range_that_would_read_more_than_the_limit_is_refused(
    store: Arc<dyn Store>,
    _: Promises,
) {
    for pod in ["p1", "p2"] {
        append(&*store, &series("a", pod), &irregular(50)).await;
    }
    // One point: it is the samples read that count, in all series together.
    let grid = Grid { start_ms: NOW_MS, end_ms: NOW_MS, step_ms: 3_600_000 };
    let all_of = async |samples_max, matchers: &[Matcher]| {
        store.range(&all(), RangeRequest { samples_max, ..ask(matchers, grid, Aggregation::Avg) }).await
    };
    let error = all_of(99, &[]).await.expect_err("refused");
    assert!(matches!(&error, StoreError::TooLarge(told) if told.contains("ask for")), "{error}");
    assert_eq!(all_of(100, &[]).await.expect("answered").series.len(), 2);
    assert_eq!(all_of(50, &[Matcher::equal("pod", "p1")]).await.expect("answered").series.len(), 1);
}

pub(crate) async fn a_range_of_more_points_than_are_asked_for_is_refused(store: Arc<dyn Store>, _: Promises) {
    for pod in ["p1", "p2"] {
        append(&*store, &series("a", pod), &irregular(50)).await;
    }
    let grid = Grid { start_ms: NOW_MS - 3_600_000, end_ms: NOW_MS, step_ms: 60_000 };
    let ask_for = async |points_max| {
        store.range(&all(), RangeRequest { points_max, ..ask(&[], grid, Aggregation::Avg) }).await
    };
    let answer = ask_for(usize::MAX).await.expect("answered");
    let points: usize = answer.series.iter().map(|series| series.samples.len()).sum();
    assert!(points > 2, "{points}");
    let error = ask_for(points - 1).await.expect_err("refused");
    assert!(matches!(error, StoreError::TooManyPoints { points_max } if points_max == points - 1), "{error}");
    assert_eq!(ask_for(points).await.expect("answered"), answer);
}

pub(crate) async fn a_reader_hands_out_series_in_label_order(store: Arc<dyn Store>, promises: Promises) {
    let samples: Vec<Sample> =
        (0..300).map(|at| Sample::new(NOW_MS - (300 - at) * 1_000, at as f64)).collect();
    for (namespace, pod) in [("b", "p2"), ("a", "p2"), ("a", "p10"), ("b", "p1")] {
        append(&*store, &series(namespace, pod), &samples).await;
    }
    let read = async |context: &Context, pick| {
        let reader = store.reader(context).await.expect("a reader");
        let reading = move || {
            let mut found = Vec::new();
            let matchers = [Matcher::not_equal("pod", "p1")];
            let request = EachRequest {
                matchers: &matchers,
                start_ms: NOW_MS - 100_000,
                end_ms: NOW_MS,
                pick,
                samples_max: 1_000,
            };
            let mut visit = |labels: &Arc<Labels>, samples: Vec<Sample>| {
                let of = |name| labels.get(name).expect("a label").to_owned();
                found.push((of("namespace"), of("pod"), samples));
                ControlFlow::Continue(())
            };
            reader.each(&request, &|| false, &mut visit).expect("read");
            let series = reader.series(&matchers, NOW_MS - 100_000, NOW_MS).expect("told");
            assert_eq!(series.len(), found.len());
            found
        };
        tokio::task::spawn_blocking(reading).await.expect("read")
    };
    let names = |found: &[(String, String, Vec<Sample>)]| {
        found.iter().map(|(namespace, pod, _)| format!("{namespace}/{pod}")).collect::<Vec<_>>()
    };
    let found = read(&all(), Pick::All).await;
    assert_eq!(names(&found), ["a/p10", "a/p2", "b/p2"]);
    found.iter().for_each(|(_, pod, got)| assert_same(promises, got, &samples[200..], pod));
    let newest = read(&only("a"), Pick::Newest).await;
    assert_eq!(names(&newest), ["a/p10", "a/p2"]);
    newest.iter().for_each(|(_, pod, got)| assert_same(promises, got, &samples[299..], pod));
}

pub(crate) async fn concurrent_writers_lose_nothing(store: Arc<dyn Store>, _: Promises) {
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..50 {
                    let sample = Sample::new(NOW_MS - 1_000 + round, round as f64);
                    let labels = series("a", &format!("p{}", (writer + round) % 4));
                    let report = append(&*store, &labels, &[sample]).await;
                    assert_eq!(report.accepted + report.duplicates, 1);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("wrote");
    }
    let held: usize = select(&*store, &[]).await.iter().map(|(_, samples)| samples.len()).sum();
    // Eight writers over four series in step: each round writes each series twice, the same sample.
    assert_eq!(held, 200);
}

pub(crate) async fn statistics_tell_what_is_held(store: Arc<dyn Store>, promises: Promises) {
    let before = store.stats().await.expect("told");
    append(&*store, &series("a", "p1"), &irregular(10)).await;
    append(&*store, &series("a", "p2"), &irregular(10)).await;
    let after = store.stats().await.expect("told");
    assert_eq!(after.series, 2);
    assert!(after.head_samples + after.sealed_samples >= 20 || !promises.tells_samples);
    assert!(after.log_bytes > 0 && after.write_failure.is_none());
    assert_ne!(after.series_generation, before.series_generation);
}
