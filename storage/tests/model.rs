//! The engine against a plain model: random appends in any order, duplicates, deletes, seals, merges,
//! expiry and reopening give what a sorted map gives.

use lookback_storage::{Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Sample, Selection, WriteBatch};
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
    Delete { series: u8, start_ms: i64, span_ms: i64 },
    Seal,
    Maintain,
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
        ..Options::default()
    };
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
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
        let latest: Vec<Sample> = db.latest(selection).into_iter().map(|(_, sample)| sample).collect();
        assert_eq!(latest.first(), expected.last(), "latest of series {series}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_holds_what_a_sorted_map_holds(steps in proptest::collection::vec(step(), 1..50)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut db = open(dir.path());
        let mut model = Model::new();
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
                Step::Maintain => drop(db.maintain(NOW_MS).expect("maintained")),
                Step::Reopen => {
                    drop(db);
                    db = open(dir.path());
                }
            }
            check(&model, &db);
        }
    }
}
