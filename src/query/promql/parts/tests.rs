//! The same queries with rollups and without: the same answers.

use crate::query::promql::{Options as Evaluation, Outcome, Query, Steps, Task, Value};
use crate::store::embedded::EmbeddedStore;
use crate::store::{Context, EachRequest, Scope, SeriesReader, Store, StoreError};
use lookback_storage::{
    Labels, Matcher, Options, OutOfOrder, RollupWindows, STALENESS_MARKER_BITS, Sample, Visit, WriteBatch,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const START_MS: i64 = 480_000 * HOUR_MS;

/// A store whose partitions are hours, with rollups of 5 and of 20 minutes.
struct Stored {
    store: EmbeddedStore,
    _dir: tempfile::TempDir,
}

/// Reads samples only.
struct SamplesOnly(Box<dyn SeriesReader>);

impl SeriesReader for SamplesOnly {
    fn each(
        &self,
        request: &EachRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.each(request, cancelled, visit)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Arc<Labels>>, StoreError> {
        self.0.series(matchers, start_ms, end_ms)
    }
}

impl Stored {
    fn new(retention_ms: Option<i64>) -> Self {
        let windows = [(5 * MINUTE_MS, None), (20 * MINUTE_MS, None)];
        let options = Options {
            retention_ms,
            rollups: RollupWindows::from(windows),
            partition_ms: HOUR_MS,
            out_of_order_window_ms: 10 * MINUTE_MS,
            seal_every_ms: 10 * MINUTE_MS,
            ..Options::default()
        };
        let dir = tempfile::tempdir().expect("a directory");
        Self { store: EmbeddedStore::open(dir.path(), options).expect("opens"), _dir: dir }
    }

    fn write(&self, metric: &str, samples: &[Sample], now_ms: i64) {
        let labels = Labels::new([("__name__", metric), ("pod", "a")]).expect("valid");
        let mut batch = WriteBatch::default();
        for sample in samples {
            batch.push(labels.clone(), Some(sample.timestamp_ms), sample.value);
        }
        let report = self.store.engine().append_wait(batch, now_ms, OutOfOrder::Lifted).expect("appended");
        assert_eq!(report.rejected, []);
    }

    fn roll_up(&self, now_ms: i64) {
        self.store.engine().seal().expect("sealed");
        self.store.engine().maintain(now_ms).expect("maintained");
    }

    fn ask(&self, text: &str, steps: Steps, with_rollups: bool) -> Outcome {
        let context = Context { scope: Scope::All, timeout: Duration::from_secs(60) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let reader = runtime.block_on(self.store.reader(&context)).expect("a reader");
        let reader = if with_rollups { reader } else { Box::new(SamplesOnly(reader)) };
        let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let task = Task { reader: reader.as_ref(), options: Evaluation::default(), steps, stop: &|| None };
        let outcome = if steps.count() == 1 { task.instant(&query) } else { task.range(&query) };
        outcome.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn infos(&self, text: &str, steps: Steps) -> Vec<String> {
        self.ask(text, steps, true).notes.infos.into_iter().collect()
    }

    #[track_caller]
    fn same_with_and_without_rollups(&self, text: &str, steps: Steps) {
        let (with, without) = (told(self.ask(text, steps, true)), told(self.ask(text, steps, false)));
        let keys =
            |all: &[(String, i64, f64)]| all.iter().map(|(l, t, _)| (l.clone(), *t)).collect::<Vec<_>>();
        assert_eq!(keys(&with), keys(&without), "{text}");
        for ((labels, at_ms, with), (.., without)) in with.iter().zip(&without) {
            let same = with == without || (with.is_nan() && without.is_nan());
            // The order of addition may differ, and nothing else.
            let adds_up = text.contains("avg") || text.contains("sum");
            let near = adds_up && (with - without).abs() <= 1e-9 * without.abs();
            assert!(same || near, "{text}: {labels} at {at_ms}: {with} for {without}");
        }
    }
}

fn told(outcome: Outcome) -> Vec<(String, i64, f64)> {
    match outcome.value {
        Value::Vector(vector) => {
            vector.iter().map(|(labels, s)| (labels.to_string(), s.timestamp_ms, s.value)).collect()
        }
        Value::Matrix(rows) => rows
            .iter()
            .flat_map(|row| row.samples().map(|s| (row.labels.to_string(), s.timestamp_ms, s.value)))
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// So many minutes after the start.
fn minutes(minutes: i64) -> i64 {
    START_MS + minutes * MINUTE_MS
}

fn steps(start: i64, end: i64, step: i64) -> Steps {
    Steps::range(minutes(start), minutes(end), step * MINUTE_MS).expect("steps")
}

fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    for function in ["avg", "min", "max", "sum", "count", "last", "present"] {
        for range in ["5m", "10m", "20m", "1h", "7m", "150m"] {
            queries.push(format!("{function}_over_time(level[{range}])"));
        }
        queries.push(format!("{function}_over_time(level[20m] offset 5m)"));
        queries.push(format!("{function}_over_time(level[20m] @ end())"));
        queries.push(format!("sum({function}_over_time(level{{pod=\"a\"}}[10m]))"));
        queries.push(format!("max_over_time({function}_over_time(level[5m])[30m:5m])"));
    }
    // The sums of these would cancel.
    queries.extend(["min", "max", "last"].map(|function| format!("{function}_over_time(change[20m])")));
    queries
}

/// Positive values, so that sums do not cancel; now and then one that is no number, a marker, a gap.
fn history() -> impl Strategy<Value = Vec<Sample>> {
    let step =
        prop_oneof![8 => Just(15_000i64), 4 => 1i64..40_000, 1 => 200_000i64..700_000, 1 => Just(300_000)];
    let value = prop_oneof![
        60 => (0u32..1_000).prop_map(|v| f64::from(v) / 8.0),
        60 => 0.001f64..1e6,
        1 => Just(f64::from_bits(STALENESS_MARKER_BITS)),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NAN),
    ];
    proptest::collection::vec((step, value), 20..400).prop_map(|steps| {
        let mut at_ms = START_MS - 1;
        let each = |(step, value)| {
            at_ms += step;
            Sample::new(at_ms, value)
        };
        let mut samples: Vec<Sample> = steps.into_iter().map(each).collect();
        samples.retain(|sample| sample.timestamp_ms < minutes(240));
        samples
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn queries_answer_the_same_with_rollups_and_without(
        samples in history(),
        late in (0i64..240 * MINUTE_MS, 0.5f64..2.0),
    ) {
        let stored = Stored::new(None);
        let now_ms = minutes(300);
        let change: Vec<Sample> =
            samples.iter().map(|s| Sample::new(s.timestamp_ms, s.value.sin() * 1e3)).collect();
        stored.write("level", &samples, now_ms);
        stored.write("change", &change, now_ms);
        stored.roll_up(now_ms);
        let all_steps = || {
            let ranges = [steps(0, 240, 5), steps(35, 230, 10), steps(60, 240, 20), steps(3, 200, 7)];
            ranges.into_iter().chain([minutes(240), minutes(200), minutes(200) + 1].map(Steps::instant))
        };
        for (text, steps) in queries().iter().flat_map(|text| all_steps().map(move |steps| (text, steps))) {
            stored.same_with_and_without_rollups(text, steps);
        }
        // In memory it counts at once.
        stored.write("level", &[Sample::new(START_MS + late.0, late.1)], now_ms);
        for text in queries() {
            stored.same_with_and_without_rollups(&text, steps(0, 240, 5));
        }
    }
}

fn regular(hours: i64) -> Vec<Sample> {
    (0..hours * 240).map(|i| Sample::new(START_MS + 1 + i * 15_000, (i % 60) as f64 + 0.1)).collect()
}

#[test]
fn windows_on_the_grid_are_answered_from_rollups_and_the_answer_says_so() {
    let stored = Stored::new(None);
    stored.write("level", &regular(4), minutes(300));
    stored.roll_up(minutes(300));
    let info = |windows: &str| vec![format!("PromQL info: answered from rollups of {windows}")];
    let both = format!("{}, and from samples where they do not stand for them", info("20m").concat());
    for (text, steps, expected) in [
        ("avg_over_time(level[5m])", steps(5, 240, 5), info("5m")),
        ("avg_over_time(level[1h])", steps(60, 240, 5), info("5m")),
        ("sum_over_time(level[20m])", steps(20, 240, 20), info("20m")),
        ("max_over_time(level[40m] offset 20m)", steps(60, 240, 20), info("20m")),
        ("count_over_time(level[20m])", Steps::instant(minutes(200)), info("20m")),
        ("max_over_time(avg_over_time(level[5m])[1h:5m])", Steps::instant(minutes(203)), info("5m")),
        ("sum(last_over_time(level[5m]))", steps(5, 240, 5), info("5m")),
        // Whole partitions between the ends.
        ("min_over_time(level[3h])", Steps::instant(minutes(203)), vec![both]),
        ("avg_over_time(level[5m])", steps(6, 240, 5), vec![]),
        ("avg_over_time(level[7m])", steps(5, 240, 5), vec![]),
        ("avg_over_time(level[5m])", steps(5, 240, 7), vec![]),
        ("quantile_over_time(0.9, level[5m])", steps(5, 240, 5), vec![]),
        ("stddev_over_time(level[5m])", steps(5, 240, 5), vec![]),
    ] {
        assert_eq!(stored.infos(text, steps), expected, "{text}");
        stored.same_with_and_without_rollups(text, steps);
    }
}

#[test]
fn a_sample_that_is_no_number_counts_though_rollups_leave_it_out() {
    let stored = Stored::new(None);
    let mut samples = regular(4);
    samples[300].value = f64::NAN;
    stored.write("level", &samples, minutes(300));
    stored.roll_up(minutes(300));
    let grid = steps(5, 240, 5);
    let nans = told(stored.ask("avg_over_time(level[5m])", grid, true));
    assert_eq!(nans.iter().filter(|(.., value)| value.is_nan()).count(), 1);
    stored.same_with_and_without_rollups("avg_over_time(level[5m])", grid);
    let infos = stored.infos("avg_over_time(level[5m])", grid).concat();
    assert!(infos.ends_with("rollups of 5m, and from samples where they do not stand for them"), "{infos}");
}

#[test]
fn what_rollups_outlive_is_answered_by_them() {
    let stored = Stored::new(Some(6 * HOUR_MS));
    let all = regular(12);
    for (hour, of_hour) in (1..).zip(all.chunks(240)) {
        stored.write("level", of_hour, minutes(60 * hour));
        stored.store.engine().maintain(minutes(60 * hour)).expect("maintained");
    }
    for minute in 0..3 {
        stored.roll_up(minutes(721 + minute));
    }
    let gone = steps(20, 240, 20);
    assert_eq!(told(stored.ask("count_over_time(level[20m])", gone, false)), []);
    let counts = told(stored.ask("count_over_time(level[20m])", gone, true));
    assert_eq!(counts.len(), 12);
    assert!(counts.iter().all(|(.., count)| *count == 80.0), "{counts:?}");
    assert_eq!(told(stored.ask("sum_over_time(level[7m])", gone, true)), []);
    let infos = stored.infos("sum_over_time(level[7m])", gone).concat();
    assert!(infos.contains("only rollups of 5m or 20m are kept"), "{infos}");
}
