//! Rollups: a range through them is the range of the samples, before and after anything changes, and
//! what is left of it when the samples are gone.

use lookback_storage::resample::{COUNTER_GAP_MAX_MS, counter_rates, resample};
use lookback_storage::{
    Aggregation, Db, Grid, Labels, Matcher, Options, OutOfOrder, RangeRead, ReadLimits, RollupWindows,
    Sample, Selection, WriteBatch,
};
use proptest::prelude::*;
use std::path::Path;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const START_MS: i64 = 480_000 * HOUR_MS;
const AGGREGATIONS: [&str; 6] = ["avg", "min", "max", "last", "sum", "count"];

fn options() -> Options {
    Options {
        retention_ms: Some(6 * HOUR_MS),
        rollups: RollupWindows::from([
            (5 * MINUTE_MS, Some(90 * HOUR_MS)),
            (20 * MINUTE_MS, Some(400 * HOUR_MS)),
        ]),
        partition_ms: HOUR_MS,
        out_of_order_window_ms: 10 * MINUTE_MS,
        seal_every_ms: 10 * MINUTE_MS,
        ..Options::default()
    }
}

fn open(dir: &Path) -> Db {
    Db::open(dir, options(), Uuid::from_u128(1)).expect("opens")
}

fn write(db: &Db, metric: &str, samples: &[Sample], now_ms: i64) {
    let labels = Labels::new([("__name__", metric)]).expect("valid");
    let mut batch = WriteBatch::default();
    for sample in samples {
        batch.push(labels.clone(), Some(sample.timestamp_ms), sample.value);
    }
    let report = db.append_wait(batch, now_ms, OutOfOrder::Lifted).expect("appended");
    assert_eq!(report.rejected, []);
}

fn selected<T>(metric: &str, read: impl FnOnce(Selection<'_>, ReadLimits<'_>) -> T) -> T {
    let matchers = [Matcher::equal("__name__", metric)];
    let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
    read(Selection { matchers: &matchers, visible: None }, limits)
}

fn range(db: &Db, metric: &str, grid: Grid, aggregation: &str) -> RangeRead {
    let aggregation: Aggregation = aggregation.parse().expect("known");
    let counter = metric.ends_with("_total");
    selected(metric, |s, limits| db.range(s, grid, aggregation, counter, limits)).expect("answered")
}

fn points(read: &RangeRead) -> Vec<Sample> {
    read.series.iter().flat_map(|(_, points)| points.iter().copied()).collect()
}

/// What the samples say, without the engine.
fn expected(samples: &[Sample], grid: Grid, aggregation: &str, counter: bool) -> Vec<Sample> {
    let aggregation = aggregation.parse().expect("known");
    if counter {
        let rates = counter_rates(samples, COUNTER_GAP_MAX_MS.max(grid.step_ms));
        return resample(&rates, grid, aggregation);
    }
    resample(samples, grid, aggregation)
}

#[track_caller]
fn same(found: &[Sample], expected: &[Sample], aggregation: &str) {
    let times = |points: &[Sample]| points.iter().map(|p| p.timestamp_ms).collect::<Vec<_>>();
    assert_eq!(times(found), times(expected), "{aggregation}");
    for (found, expected) in found.iter().zip(expected) {
        // The order of addition may differ, and nothing else.
        let near = ["avg", "sum"].contains(&aggregation)
            && (found.value - expected.value).abs() <= 1e-12 * expected.value.abs();
        assert!(near || found == expected, "{aggregation}: {found:?} for {expected:?}");
    }
}

/// Positive values, so that sums do not cancel; markers and gaps between them.
fn history() -> impl Strategy<Value = Vec<Sample>> {
    let step =
        prop_oneof![8 => Just(15_000i64), 4 => 1i64..40_000, 1 => 200_000i64..700_000, 1 => Just(300_000)];
    let value = prop_oneof![
        10 => (0u32..1_000).prop_map(|v| f64::from(v) / 8.0),
        6 => 0.001f64..1e6,
        1 => Just(f64::from_bits(lookback_storage::STALENESS_MARKER_BITS)),
        1 => Just(f64::INFINITY),
    ];
    proptest::collection::vec((step, value), 20..400).prop_map(|steps| {
        let mut at_ms = START_MS - 1;
        let mut samples: Vec<Sample> = Vec::new();
        for (step, value) in steps {
            at_ms += step;
            samples.push(Sample::new(at_ms, value));
        }
        samples.retain(|sample| sample.timestamp_ms < START_MS + 5 * HOUR_MS);
        samples
    })
}

fn grids() -> Vec<Grid> {
    let grid = |start: i64, end: i64, step: i64| Grid {
        start_ms: START_MS + start * MINUTE_MS,
        end_ms: START_MS + end * MINUTE_MS,
        step_ms: step * MINUTE_MS,
    };
    vec![grid(0, 300, 5), grid(35, 200, 10), grid(-20, 290, 20), grid(60, 180, 60), grid(3, 200, 7)]
}

fn check(db: &Db, metric: &str, samples: &[Sample]) {
    for grid in grids() {
        for aggregation in AGGREGATIONS.iter().chain(&["p90"]) {
            let found = points(&range(db, metric, grid, aggregation));
            same(&found, &expected(samples, grid, aggregation, metric.ends_with("_total")), aggregation);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]
    #[test]
    fn a_range_through_rollups_is_the_range_of_the_samples(
        samples in history(),
        late in (0i64..4 * HOUR_MS, 0.5f64..2.0),
        deleted in (0i64..4 * HOUR_MS, 0i64..HOUR_MS),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path());
        let now_ms = START_MS + 5 * HOUR_MS + 30 * MINUTE_MS;
        let mut samples = samples;
        let metrics = ["gauge", "jobs_total"];
        for metric in metrics {
            write(&db, metric, &samples, now_ms);
        }
        check(&db, metrics[0], &samples);
        db.seal().expect("sealed");
        let rolled_up = db.maintain(now_ms).expect("maintained").partitions_rolled_up;
        prop_assert!(rolled_up > 0);
        for metric in metrics {
            check(&db, metric, &samples);
        }
        let used = range(&db, "gauge", grids()[0], "max").used;
        prop_assert!(used.windows_ms.contains(&(5 * MINUTE_MS)) || samples.iter().all(|s| !s.value.is_finite()));
        prop_assert!(!used.samples, "{used:?}");
        prop_assert!(range(&db, "gauge", grids()[4], "max").used.windows_ms.is_empty(), "off the grid");

        // Something late: in memory, then in a block, then rolled up.
        let late = Sample::new(START_MS + late.0, late.1);
        if let Err(place) = samples.binary_search_by_key(&late.timestamp_ms, |s| s.timestamp_ms) {
            samples.insert(place, late);
            for metric in metrics {
                write(&db, metric, &[late], now_ms);
            }
        }
        metrics.iter().for_each(|metric| check(&db, metric, &samples));
        db.seal().expect("sealed");
        metrics.iter().for_each(|metric| check(&db, metric, &samples));
        let (start_ms, end_ms) = (START_MS + deleted.0, START_MS + deleted.0 + deleted.1);
        for metric in metrics {
            selected(metric, |s, _| db.delete(s, start_ms, end_ms)).expect("deleted");
        }
        samples.retain(|s| !(start_ms..=end_ms).contains(&s.timestamp_ms));
        metrics.iter().for_each(|metric| check(&db, metric, &samples));
        for minutes in [2, 4, 30] {
            db.maintain(now_ms + minutes * MINUTE_MS).expect("maintained");
            metrics.iter().for_each(|metric| check(&db, metric, &samples));
        }
        drop(db);
        let db = open(dir.path());
        metrics.iter().for_each(|metric| check(&db, metric, &samples));
        prop_assert_eq!(db.stats().damaged_rollups, 0);
    }
}

/// A sample each 15 s over `hours`, from `from_hour` on; a quarter hour of counting, then a reset.
fn regular(from_hour: i64, hours: i64) -> Vec<Sample> {
    let each =
        |i: i64| Sample::new(START_MS + from_hour * HOUR_MS + i * 15_000, (i % 60) as f64 * 1.25 + 1.0);
    (0..hours * 240).map(each).collect()
}

/// Twelve hours of history, of which six are there as samples and all as rollups.
fn outlived(dir: &Path) -> (Db, Vec<Sample>, i64) {
    let db = open(dir);
    let mut all = Vec::new();
    for hour in 0..12 {
        let samples = regular(hour, 1);
        let now_ms = START_MS + (hour + 1) * HOUR_MS;
        for metric in ["gauge", "jobs_total"] {
            write(&db, metric, &samples, now_ms);
        }
        all.extend(samples);
        db.maintain(now_ms).expect("maintained");
    }
    let now_ms = START_MS + 12 * HOUR_MS;
    for minutes in [11, 13, 25] {
        db.maintain(now_ms + minutes * MINUTE_MS).expect("maintained");
    }
    (db, all, now_ms)
}

#[test]
fn rollups_outlive_their_samples_and_say_what_they_can_not_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db, all, now_ms) = outlived(dir.path());
    let grid = Grid { start_ms: START_MS, end_ms: now_ms, step_ms: 20 * MINUTE_MS };
    let check = |db: &Db| {
        assert!(
            selected("gauge", |s, l| db.select(s, START_MS, now_ms, l)).expect("read")[0].1.len() < 7 * 240
        );
        for metric in ["gauge", "jobs_total"] {
            for aggregation in AGGREGATIONS {
                let read = range(db, metric, grid, aggregation);
                same(&points(&read), &expected(&all, grid, aggregation, metric == "jobs_total"), aggregation);
                assert!(read.used.windows_ms.contains(&(20 * MINUTE_MS)) && read.used.left_out_ms.is_empty());
            }
        }
        for (grid, aggregation) in [
            (grid, "p90"),
            (Grid { start_ms: grid.start_ms + 1, ..grid }, "max"),
            (Grid { step_ms: 7 * MINUTE_MS, ..grid }, "max"),
        ] {
            let read = range(db, "gauge", grid, aggregation);
            assert_eq!(read.used.left_out_ms.len(), 2, "{aggregation}: {:?}", read.used);
            assert!(read.used.samples && !points(&read).is_empty());
        }
    };
    check(&db);
    drop(db);
    let db = open(dir.path());
    db.tell_time(now_ms + 25 * MINUTE_MS);
    check(&db);

    // Only their windows of a delete go, and stay gone.
    let (start_ms, end_ms) = (START_MS + 65 * MINUTE_MS, START_MS + 70 * MINUTE_MS);
    selected("gauge", |s, _| db.delete(s, start_ms, end_ms)).expect("deleted");
    let left = |db: &Db| {
        points(&range(db, "gauge", Grid { step_ms: 5 * MINUTE_MS, ..grid }, "max"))
            .iter()
            .map(|point| (point.timestamp_ms - START_MS) / MINUTE_MS)
            .filter(|minute| (60..=80).contains(minute))
            .collect::<Vec<_>>()
    };
    assert_eq!(left(&db), [60, 75, 80]);
    db.maintain(now_ms + 30 * MINUTE_MS).expect("maintained");
    assert_eq!(left(&db), [60, 75, 80]);
    drop(db);
    let db = open(dir.path());
    db.tell_time(now_ms + 30 * MINUTE_MS);
    assert_eq!(left(&db), [60, 75, 80]);

    // Each window length expires on its own, and the series with the last of them.
    let files = || std::fs::read_dir(dir.path().join("rollups")).expect("read").count();
    assert_eq!(files(), 12);
    db.maintain(now_ms + 100 * HOUR_MS).expect("maintained");
    assert_eq!(points(&range(&db, "gauge", Grid { step_ms: 5 * MINUTE_MS, ..grid }, "max")), []);
    assert!(!points(&range(&db, "gauge", grid, "max")).is_empty());
    db.maintain(now_ms + 500 * HOUR_MS).expect("maintained");
    assert_eq!((files(), db.stats().series, db.stats().rollup_bytes), (0, 0, 0));
}

#[test]
fn a_damaged_rollup_is_left_out_counted_and_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path());
    let samples = regular(0, 3);
    let now_ms = START_MS + 3 * HOUR_MS + 20 * MINUTE_MS;
    write(&db, "gauge", &samples, now_ms);
    db.seal().expect("sealed");
    db.maintain(now_ms).expect("maintained");
    let grid = Grid { start_ms: START_MS, end_ms: START_MS + 3 * HOUR_MS, step_ms: 5 * MINUTE_MS };
    let truth = expected(&samples, grid, "sum", false);
    drop(db);
    let files = || -> Vec<std::path::PathBuf> {
        let dirs = std::fs::read_dir(dir.path().join("rollups")).expect("read");
        let dirs = dirs.map(|dir| std::fs::read_dir(dir.expect("read").path()).expect("read"));
        dirs.flatten().map(|file| file.expect("read").path()).collect()
    };
    let before = files();
    assert_eq!(before.len(), 6);
    for (at, path) in before.iter().enumerate() {
        let mut bytes = std::fs::read(path).expect("read");
        // The header, or what it holds of a series.
        let place = if at % 2 == 0 { 9 } else { 60 };
        bytes[place] ^= 1;
        std::fs::write(path, bytes).expect("written");
    }
    let db = open(dir.path());
    same(&points(&range(&db, "gauge", grid, "sum")), &truth, "sum");
    assert!(db.stats().damaged_rollups >= 6, "{:?}", db.stats());
    assert!(db.maintain(now_ms + 5 * MINUTE_MS).expect("maintained").partitions_rolled_up >= 3);
    let read = range(&db, "gauge", grid, "sum");
    same(&points(&read), &truth, "sum");
    assert!(read.used.windows_ms.contains(&(5 * MINUTE_MS)), "{:?}", read.used);
    assert!(before.iter().all(|path| !path.exists()), "the damaged files are replaced");
}

#[test]
fn ninety_days_cost_little() {
    let dir = tempfile::tempdir().expect("a directory");
    let (hour_ms, day_ms) = (HOUR_MS, 24 * HOUR_MS);
    let rollups = RollupWindows::from([(300_000, None), (hour_ms, None)]);
    let day = Options { retention_ms: None, rollups, partition_ms: day_ms, ..Options::default() };
    let db = Db::open(dir.path(), day, Uuid::from_u128(1)).expect("opens");
    let load = |i: i64| ((i as f64 / 240.0).sin() * 0.4 + 0.5 + ((i * 7_919) % 101) as f64 / 1_000.0).abs();
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let samples: Vec<Sample> =
        (0..2 * 5_760).map(|i| Sample::new(START_MS + i * 15_000, rounded(load(i)))).collect();
    let now_ms = START_MS + 2 * day_ms + 2 * hour_ms;
    for metric in ["cpu", "jobs_total"] {
        write(&db, metric, &samples, now_ms);
    }
    db.seal().expect("sealed");
    for minutes in [0, 1, 2] {
        db.maintain(now_ms + minutes * MINUTE_MS).expect("maintained");
    }
    let bytes_of = |window_ms: i64, metric: &str| {
        let grid = Grid { start_ms: START_MS, end_ms: now_ms, step_ms: window_ms };
        assert!(range(&db, metric, grid, "avg").used.windows_ms.contains(&window_ms));
        db.stats().rollup_bytes
    };
    let bytes = bytes_of(hour_ms, "cpu").max(bytes_of(300_000, "jobs_total"));
    let series_days = 2 * 2;
    println!("rollups of 5 min and 1 h: {} B a series and day, half of them counters", bytes / series_days);
    assert!(bytes / series_days < 20_000, "{bytes} bytes for {series_days} series-days");
}
