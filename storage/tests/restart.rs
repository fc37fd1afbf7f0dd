//! An orderly restart between any two background jobs loses nothing; nor does one after the largest writes there are.

use lookback_storage::labels::limits;
use lookback_storage::{Db, Labels, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
use std::path::Path;
use uuid::Uuid;

const NOW_MS: i64 = 1_000_000_000;

fn open(dir: &Path) -> Db {
    let options = Options { blocks_per_partition_max: 1, ..Options::default() };
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
}

fn write_and_seal(db: &Db, timestamp_ms: i64) {
    let mut batch = WriteBatch::default();
    batch.push(Labels::new([("__name__", "m")]).expect("valid"), Some(timestamp_ms), 1.0);
    assert_eq!(db.append_wait(batch, NOW_MS, OutOfOrder::Window).expect("appended").accepted, 1);
    db.seal().expect("sealed");
}

fn times(db: &Db) -> Vec<i64> {
    let limits = ReadLimits { samples_max: 1_000, cancelled: &|| false };
    let selection = Selection { matchers: &[], visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.into_iter().flat_map(|(_, samples)| samples).map(|s| s.timestamp_ms).collect()
}

#[test]
fn a_block_sealed_after_a_merge_and_a_restart_does_not_take_the_place_of_the_merged_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut written = Vec::new();
    for round in 0..4 {
        let db = open(dir.path());
        for part in 0..2 {
            let timestamp_ms = NOW_MS + 2 * round + part;
            write_and_seal(&db, timestamp_ms);
            written.push(timestamp_ms);
            assert_eq!(times(&db), written, "round {round}");
        }
        assert_eq!(db.maintain(NOW_MS).expect("maintained").partitions_merged, 1);
        assert_eq!(times(&db), written, "round {round}, merged");
    }
    assert_eq!(times(&open(dir.path())), written);
}

#[test]
fn a_log_of_many_generations_is_read_in_their_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let options = Options { seal_log_bytes: 4_000, ..Options::default() };
        Db::open(dir.path(), options, Uuid::from_u128(1)).expect("opens")
    };
    let generations = || std::fs::read_dir(dir.path().join("log")).expect("there is a log").count();
    let db = open();
    let mut written = Vec::new();
    while generations() < 6 {
        let timestamp_ms = NOW_MS + written.len() as i64;
        let mut batch = WriteBatch::default();
        batch.push(Labels::new([("__name__", "m")]).expect("valid"), Some(timestamp_ms), 1.0);
        db.append_wait(batch, NOW_MS, OutOfOrder::Window).expect("appended");
        written.push(timestamp_ms);
        assert!(written.len() < 1_000, "the log goes on in one generation");
    }
    drop(db);
    let db = open();
    assert_eq!(times(&db), written);
    db.seal().expect("sealed");
    assert_eq!(generations(), 1);
    assert_eq!(times(&db), written);
}

/// A label set as large as may be.
fn largest(number: usize) -> Labels {
    let each = limits::SET_BYTES_MAX / limits::LABELS_MAX;
    let pairs = (1..limits::LABELS_MAX).map(|at| {
        let name = format!("label_{at:03}");
        let value = format!("{number:05}{}", "x".repeat(each - name.len() - 5));
        (name, value)
    });
    let name = ("__name__".to_owned(), "m".repeat(each - 8));
    Labels::new(pairs.chain([name])).expect("within the limits")
}

#[test]
fn the_largest_label_sets_and_samples_of_the_most_bytes_survive_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let written = {
        let db = open(dir.path());
        let mut batch = WriteBatch::default();
        for number in 0..40 {
            batch.push(largest(number), Some(NOW_MS), number as f64);
        }
        // Each of another series and time than the one before, and without a short form.
        for at in 0..5_000i64 {
            let number = (at * 17 % 40) as usize;
            batch.push(largest(number), Some(NOW_MS - at * 700), (at as f64).sqrt());
        }
        let report = db.append_wait(batch, NOW_MS, OutOfOrder::Window).expect("appended");
        assert_eq!((report.series_created, report.rejected.len()), (40, 0));
        all(&db)
    };
    assert_eq!(written.len(), 40);
    assert!(written.iter().map(|(_, samples)| samples.len()).sum::<usize>() > 4_900);
    let db = open(dir.path());
    assert_eq!(all(&db), written);
    db.seal().expect("sealed");
    drop(db);
    assert_eq!(all(&open(dir.path())), written);
}

fn all(db: &Db) -> Vec<(std::sync::Arc<Labels>, Vec<lookback_storage::Sample>)> {
    let limits = ReadLimits { samples_max: 100_000, cancelled: &|| false };
    db.select(Selection { matchers: &[], visible: None }, i64::MIN, i64::MAX, limits).expect("read")
}
