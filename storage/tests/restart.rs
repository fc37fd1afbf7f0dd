//! An orderly restart between any two background jobs loses nothing.

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
