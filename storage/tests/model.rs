//! The engine against a plain model: random appends in any order, duplicates, deletes, seals, merges,
//! rollups, changed retention rules and reopening give what a sorted map gives, for samples and for ranges.

use lookback_storage::resample::resample;
use lookback_storage::{
    Aggregation, Db, Grid, Labels, MatchOp, Matcher, Options, OutOfOrder, ReadLimits, RetentionRule,
    RollupWindows, Sample, Selection, WriteBatch,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

const NOW_MS: i64 = 1_000_000;
const PARTITION_MS: i64 = 2_500;

/// 32 random histories; as many as `LOOKBACK_MODEL_CASES` says in the long run.
fn cases() -> u32 {
    std::env::var("LOOKBACK_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32)
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, i64, u64)>),
    Delete {
        series: u8,
        start_ms: i64,
        span_ms: i64,
    },
    Seal,
    Maintain,
    /// Other rules: each keeps all, so that only classes and rollups change.
    Rules(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        3 => (0u64..4).prop_map(|v| (v as f64).to_bits()),
        1 => any::<u64>(),
        1 => Just(lookback_storage::STALENESS_MARKER_BITS),
    ];
    let sample = (0u8..4, 995_000i64..NOW_MS, value);
    prop_oneof![
        6 => proptest::collection::vec(sample, 1..40).prop_map(Step::Append),
        1 => (0u8..4, 994_000i64..NOW_MS, 0i64..2_000)
            .prop_map(|(series, start_ms, span_ms)| Step::Delete { series, start_ms, span_ms }),
        3 => Just(Step::Seal),
        2 => Just(Step::Maintain),
        1 => (0u8..4).prop_map(Step::Rules),
        2 => Just(Step::Reopen),
    ]
}

fn labels(series: u8) -> Labels {
    Labels::new([("__name__", "m".to_owned()), ("pod", format!("p{series}"))]).expect("valid")
}

fn open(dir: &Path) -> Db {
    let options = Options {
        partition_ms: PARTITION_MS,
        retention_ms: None,
        blocks_per_partition_max: 2,
        rollups: RollupWindows::from([(250, None), (1_250, None)]),
        out_of_order_window_ms: 0,
        index_memory_max: 0,
        ..Options::default()
    };
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
}

/// Rules that put some of the series into classes of their own, or none.
fn rules(which: u8) -> Vec<RetentionRule> {
    let rule = |class: &str, pod: &str, window_ms: i64| RetentionRule {
        class: class.to_owned(),
        matchers: vec![Matcher::new("pod", MatchOp::Regex, pod).expect("compiles")],
        keep_ms: None,
        rollups: RollupWindows::from([(window_ms, None)]),
    };
    let all = [rule("odd", "p1|p3", 250), rule("first", "p0", 500)];
    all.into_iter().take(usize::from(which % 3)).collect()
}

type Model = BTreeMap<u8, BTreeMap<i64, f64>>;

fn apply(model: &mut Model, db: &Db, samples: &[(u8, i64, u64)]) {
    let mut batch = WriteBatch::default();
    for (series, timestamp_ms, bits) in samples {
        let value = f64::from_bits(*bits);
        batch.push(labels(*series), Some(*timestamp_ms), value);
        let held = model.entry(*series).or_default().entry(*timestamp_ms).or_insert(value);
        if value.total_cmp(held).is_gt() {
            *held = value;
        }
    }
    let report = db.append_wait(batch, NOW_MS, OutOfOrder::Lifted).expect("appended");
    assert_eq!(report.accepted + report.duplicates, samples.len());
}

fn check(model: &Model, db: &Db) {
    let stats = db.stats();
    let held: usize = model.values().map(BTreeMap::len).sum();
    assert!(stats.head_samples + stats.sealed_samples >= held as u64, "{stats:?} of {held}");
    for series in 0..4u8 {
        let matchers = [Matcher::equal("pod", format!("p{series}"))];
        let selection = Selection { matchers: &matchers, visible: None };
        let limits = ReadLimits { samples_max: 100_000, cancelled: &|| false };
        let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
        let found: Vec<Sample> = read.into_iter().flat_map(|(_, samples)| samples).collect();
        let expected: Vec<Sample> =
            model.get(&series).into_iter().flatten().map(|(t, v)| Sample::new(*t, *v)).collect();
        assert_eq!(found, expected, "series {series}");
        check_ranges(db, selection, limits, &expected);
        let latest: Vec<Sample> = db.latest(selection).into_iter().map(|(_, sample)| sample).collect();
        assert_eq!(latest.first(), expected.last(), "latest of series {series}");
    }
}

/// Ranges, through whatever rollups there are, are those of the samples; sums but for the order of addition.
fn check_ranges(db: &Db, selection: Selection<'_>, limits: ReadLimits<'_>, samples: &[Sample]) {
    for (start_ms, step_ms) in [(995_000, 1_250), (995_250, 500), (994_999, 777)] {
        let grid = Grid { start_ms, end_ms: NOW_MS, step_ms };
        for aggregation in [Aggregation::Min, Aggregation::Last, Aggregation::Count] {
            let read = db.range(selection, grid, aggregation, false, limits).expect("read");
            let found: Vec<Sample> = read.series.into_iter().flat_map(|(_, points)| points).collect();
            let expected = resample(samples, grid, aggregation);
            // Of 0 and −0 either may be the smaller.
            let plain = |points: &[Sample]| {
                points.iter().map(|p| (p.timestamp_ms, p.value + 0.0)).collect::<Vec<_>>()
            };
            assert_eq!(plain(&found), plain(&expected), "{aggregation:?} {grid:?} {:?}", read.used);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_holds_what_a_sorted_map_holds(steps in proptest::collection::vec(step(), 1..50)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut db = open(dir.path());
        let mut model = Model::new();
        let (mut which, mut now_ms) = (0, NOW_MS);
        for step in steps {
            match step {
                Step::Append(samples) => apply(&mut model, &db, &samples),
                Step::Delete { series, start_ms, span_ms } => {
                    let matchers = [Matcher::equal("pod", format!("p{series}"))];
                    let selection = Selection { matchers: &matchers, visible: None };
                    db.delete(selection, start_ms, start_ms + span_ms).expect("deleted");
                    if let Some(samples) = model.get_mut(&series) {
                        samples.retain(|t, _| *t < start_ms || *t > start_ms + span_ms);
                    }
                }
                Step::Seal => db.seal().expect("sealed"),
                Step::Maintain => {
                    // Late enough for what waits until nothing more comes.
                    now_ms += 120_000;
                    db.maintain(now_ms).expect("maintained");
                }
                Step::Rules(other) => {
                    which = other;
                    db.set_retention_rules(rules(which)).expect("legal");
                }
                Step::Reopen => {
                    drop(db);
                    db = open(dir.path());
                    db.set_retention_rules(rules(which)).expect("legal");
                }
            }
            check(&model, &db);
        }
    }
}
