//! Which samples are taken: out of order, ahead, beyond retention, without a time, twice.

use lookback_storage::{
    Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Reject, Sample, Selection, WriteBatch, WriteReport,
};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 1_000 * HOUR_MS;

fn open(dir: &tempfile::TempDir) -> Db {
    let options = Options { retention_ms: Some(24 * HOUR_MS), ..Options::default() };
    Db::open(dir.path(), options, Uuid::from_u128(1)).expect("opens")
}

fn labels() -> Labels {
    Labels::new([("__name__", "m")]).expect("valid")
}

fn append(db: &Db, samples: &[(Option<i64>, f64)], out_of_order: OutOfOrder) -> WriteReport {
    let mut batch = WriteBatch::default();
    for (timestamp_ms, value) in samples {
        batch.push(labels(), *timestamp_ms, *value);
    }
    db.append_wait(batch, NOW_MS, out_of_order).expect("appended")
}

fn read(db: &Db) -> Vec<Sample> {
    let matchers = [Matcher::equal("__name__", "m")];
    let limits = ReadLimits { samples_max: 1_000, cancelled: &|| false };
    let selection = Selection { matchers: &matchers, visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.into_iter().flat_map(|(_, samples)| samples).collect()
}

#[test]
fn refused_samples_do_not_hold_back_their_neighbours() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    let at = |ms| Some(NOW_MS + ms);
    let samples = [
        (at(0), 1.0),
        (at(-HOUR_MS), 2.0),
        (at(-HOUR_MS - 1), 3.0),
        (at(600_000), 4.0),
        (at(600_001), 5.0),
        (at(-24 * HOUR_MS - 1), 6.0),
    ];
    let report = append(&db, &samples, OutOfOrder::Window);
    assert_eq!((report.accepted, report.duplicates, report.series_created), (3, 0, 1));
    let reasons: Vec<(usize, &str)> = report.rejected.iter().map(|(at, r)| (*at, r.reason())).collect();
    assert_eq!(reasons, [(2, "out_of_order"), (4, "too_far_ahead"), (5, "beyond_retention")]);
    assert_eq!(read(&db).len(), 3);

    let lifted = append(&db, &[(at(-23 * HOUR_MS), 7.0), (at(-25 * HOUR_MS), 8.0)], OutOfOrder::Lifted);
    assert_eq!(lifted.accepted, 1);
    assert!(matches!(lifted.rejected[..], [(1, Reject::BeyondRetention { .. })]));
}

#[test]
fn samples_without_a_time_strictly_increase_within_and_across_batches() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    append(&db, &[(None, 1.0), (None, 2.0)], OutOfOrder::Window);
    append(&db, &[(None, 3.0)], OutOfOrder::Window);
    drop(db);
    let db = open(&dir);
    append(&db, &[(None, 3.0)], OutOfOrder::Window);
    let expected: Vec<Sample> =
        [(0, 1.0), (1, 2.0), (2, 3.0), (3, 3.0)].map(|(ms, v)| Sample::new(NOW_MS + ms, v)).to_vec();
    assert_eq!(read(&db), expected);
}

#[test]
fn an_exact_duplicate_is_dropped_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir);
    let sample = (Some(NOW_MS), f64::NAN);
    let within = append(&db, &[sample, sample], OutOfOrder::Window);
    assert_eq!((within.accepted, within.duplicates), (1, 1));
    let across = append(&db, &[sample], OutOfOrder::Window);
    assert_eq!((across.accepted, across.duplicates), (0, 1));
    assert_eq!(read(&db), [Sample::new(NOW_MS, f64::NAN)]);
}
