//! Rolling windows: partitions expire whole, and their space and their series go with them.

use lookback_storage::{Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
use std::path::Path;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 480_000 * HOUR_MS;

fn open(dir: &Path) -> Db {
    let options = Options {
        retention_ms: Some(10 * HOUR_MS),
        partition_ms: HOUR_MS,
        seal_every_ms: HOUR_MS / 2,
        blocks_per_partition_max: 2,
        ..Options::default()
    };
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
}

fn write(db: &Db, pod: &str, now_ms: i64) {
    let mut batch = WriteBatch::default();
    let labels = Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
    batch.push(labels, Some(now_ms), now_ms as f64);
    assert_eq!(db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended").accepted, 1);
}

fn times(db: &Db) -> Vec<i64> {
    let limits = ReadLimits { samples_max: 100_000, cancelled: &|| false };
    let selection = Selection { matchers: &[], visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.into_iter().flat_map(|(_, samples)| samples).map(|s| s.timestamp_ms).collect()
}

#[test]
fn a_window_rolls_on_disk_in_memory_and_in_the_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut db = open(dir.path());
    write(&db, "short-lived", START_MS);
    let mut largest = 0;
    for minute in 1..=(40 * 60) {
        let now_ms = START_MS + minute * 60_000;
        write(&db, "long-lived", now_ms);
        if minute % 10 == 0 {
            db.maintain(now_ms).expect("maintained");
        }
        if minute % 977 == 0 {
            drop(db);
            db = open(dir.path());
        }
        largest = largest.max(db.stats().partitions);
    }
    let now_ms = START_MS + 40 * HOUR_MS;
    let kept = times(&db);
    assert!(kept.iter().all(|t| *t > now_ms - 12 * HOUR_MS), "{:?}", kept.first());
    let promised = (0..600).filter(|m| kept.binary_search(&(now_ms - m * 60_000)).is_ok()).count();
    assert_eq!(promised, 600, "retention is a lower bound");
    assert!(largest <= 13, "{largest} partitions");
    let stats = db.stats();
    assert!(stats.blocks <= 13 * 3, "{stats:?}");
    let on_disk = std::fs::read_dir(dir.path().join("blocks/default")).expect("read").count() as u64;
    assert_eq!(on_disk, stats.partitions);
    assert_eq!(stats.series, 1, "the series that expired is forgotten");
    let pods = db.labels(Some("pod"), Selection { matchers: &[], visible: None });
    assert_eq!(pods, ["long-lived"]);
    drop(db);
    let db = open(dir.path());
    assert_eq!(times(&db), kept);
    assert_eq!(db.labels(Some("pod"), Selection { matchers: &[], visible: None }), ["long-lived"]);
    let matchers = [Matcher::equal("pod", "short-lived")];
    assert!(db.latest(Selection { matchers: &matchers, visible: None }).is_empty());
    write(&db, "short-lived", now_ms + 1);
    assert_eq!(db.latest(Selection { matchers: &matchers, visible: None }).len(), 1);
}

#[test]
fn what_is_over_and_quiet_is_sealed_before_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let db =
        Db::open(dir.path(), Options { partition_ms: HOUR_MS, ..Options::default() }, Uuid::from_u128(1));
    let db = db.expect("opens");
    let sealed = |now_ms| db.maintain(now_ms).expect("maintained").sealed;
    // The partition ends after an hour, and another hour later nothing late is let in.
    write(&db, "a", START_MS);
    for minutes in [0, 30, 119] {
        assert!(!sealed(START_MS + minutes * 60_000), "{minutes}");
    }
    let over_ms = START_MS + 2 * HOUR_MS;
    let mut batch = WriteBatch::default();
    let labels = Labels::new([("__name__", "m"), ("pod", "b")]).expect("valid");
    batch.push(labels, Some(START_MS), 1.0);
    db.append_wait(batch, over_ms - 1, OutOfOrder::Window).expect("appended");
    // Something has just come.
    assert!(!db.maintain(over_ms - 1).expect("maintained").sealed);
    assert!(!sealed(over_ms - 1));
    assert!(sealed(over_ms + 30_000));
    assert_eq!((db.stats().blocks, db.stats().head_samples), (1, 0));
    assert!(!sealed(over_ms + 60_000), "nothing is left");
}

#[test]
fn an_eighth_of_what_makes_a_seal_due_is_sealed_once_nothing_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { seal_head_samples: 80, ..Options::default() };
    let db = Db::open(dir.path(), options, Uuid::from_u128(1)).expect("opens");
    let sealed = |now_ms| db.maintain(now_ms).expect("maintained").sealed;
    let second = |seconds: i64| START_MS + seconds * 1_000;
    for at in 0..9 {
        write(&db, "a", second(at));
    }
    assert!(!sealed(second(10)) && !sealed(second(100)), "it is not much");
    write(&db, "a", second(100));
    assert!(!sealed(second(101)) && !sealed(second(130)), "something came");
    assert!(sealed(second(131)));
    assert!(!sealed(second(200)), "nothing is left");
    assert_eq!(times(&db).len(), 10);
}
