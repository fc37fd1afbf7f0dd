//! Backups with their rollups, as a directory and as a stream: what is restored answers as the store did,
//! and what was cut off or damaged is not restored, not even in part.

use lookback_storage::{
    Aggregation, Db, Grid, Labels, Options, OutOfOrder, ReadLimits, RollupWindows, Selection, SeriesSamples,
    WriteBatch, restore, restore_stream,
};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const START_MS: i64 = 480_000 * HOUR_MS;
const HOURS: i64 = 12;
const NOW_MS: i64 = START_MS + HOURS * HOUR_MS + 2 * MINUTE_MS;

fn open(dir: &Path) -> Db {
    let options = Options {
        retention_ms: Some(6 * HOUR_MS),
        rollups: RollupWindows::from([(5 * MINUTE_MS, Some(90 * HOUR_MS)), (20 * MINUTE_MS, None)]),
        partition_ms: HOUR_MS,
        ..Options::default()
    };
    let db = Db::open(dir, options, Uuid::from_u128(1)).expect("opens");
    db.tell_time(NOW_MS);
    db
}

/// A store whose older half has rollups only; the newest samples are in memory, some are deleted.
fn fill(dir: &Path) -> Db {
    let db = open(dir);
    for minute in 0..HOURS * 60 {
        let now_ms = START_MS + minute * MINUTE_MS;
        let mut batch = WriteBatch::default();
        for pod in 0..3 {
            let labels =
                Labels::new([("__name__", "m".to_owned()), ("pod", format!("p{pod}"))]).expect("valid");
            batch.push(labels, Some(now_ms), (minute * (pod + 3) % 17) as f64 / 8.0);
        }
        assert_eq!(db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended").accepted, 3);
        if minute % 60 == 59 {
            db.seal().expect("sealed");
            db.maintain(now_ms).expect("maintained");
        }
    }
    db.maintain(NOW_MS).expect("maintained");
    let pod = [lookback_storage::Matcher::equal("pod", "p1")];
    let selection = Selection { matchers: &pod, visible: None };
    db.delete(selection, START_MS + 9 * HOUR_MS, START_MS + 10 * HOUR_MS).expect("deleted");
    db
}

/// Everything that a store answers: samples, and what rollups say of the time before.
fn all(db: &Db) -> (Vec<SeriesSamples>, Vec<SeriesSamples>) {
    let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
    let every = Selection { matchers: &[], visible: None };
    let samples = db.select(every, i64::MIN, i64::MAX, limits).expect("read");
    let grid = Grid { start_ms: START_MS, end_ms: START_MS + HOURS * HOUR_MS, step_ms: 20 * MINUTE_MS };
    let range = db.range(every, grid, Aggregation::Max, false, limits).expect("read");
    (samples, range.series)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn stream_of(db: &Db) -> Vec<u8> {
    let mut bytes = Vec::new();
    let report = db.backup_stream(&mut bytes, |_, _| {}).expect("streamed");
    assert!(report.rollups > 0 && report.blocks > 0 && report.left_out.is_empty(), "{report:?}");
    bytes
}

#[test]
fn rollups_that_have_outlived_their_samples_come_back_from_a_directory_and_from_a_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let db = fill(&at("data"));
    let expected = all(&db);
    let points = |read: &[SeriesSamples]| read.first().map_or(0, |(_, points)| points.len());
    assert_eq!(points(&expected.1) as i64, HOURS * 3 + 1, "the time before is answered from rollups");
    assert!((expected.0[0].1.len() as i64) < 7 * 60, "whose samples are gone");

    let report = db.backup(&at("backup"), |_, _| {}).expect("backed up");
    assert!(report.rollups > 0 && report.left_out.is_empty(), "{report:?}");
    assert_eq!(report.files_copied, report.blocks + report.rollups);
    let again = db.backup(&at("backup"), |_, _| {}).expect("backed up");
    assert_eq!((again.files_copied, again.bytes), (0, report.bytes), "nothing is new");
    let restored = restore(&at("backup"), &at("restored"), Uuid::from_u128(2), |_, _| {}).expect("restored");
    assert_eq!((restored.blocks, restored.rollups), (report.blocks, report.rollups));
    assert!(all(&open(&at("restored"))) == expected, "another answer");

    let stream = stream_of(&db);
    let mut seen = 0;
    let restored = restore_stream(&stream[..], &at("streamed"), Uuid::from_u128(3), |bytes| seen = bytes);
    assert_eq!(restored.expect("restored").bytes, seen);
    let streamed = open(&at("streamed"));
    assert!(all(&streamed) == expected, "another answer");
    // Maintenance takes what it finds for what it is: nothing is rolled up anew or lost.
    streamed.maintain(NOW_MS).expect("maintained");
    assert!(all(&streamed) == expected, "another answer");
    drop((db, streamed));

    // A backup of a restored store is one, too.
    let stream = stream_of(&open(&at("restored")));
    restore_stream(&stream[..], &at("third"), Uuid::from_u128(4), |_| {}).expect("restored");
    assert!(all(&open(&at("third"))) == expected, "another answer");

    // A damaged file of rollups is found before anything is begun.
    let rollup = files(&at("backup/rollups")).pop().expect("one");
    let mut bytes = std::fs::read(&rollup).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&rollup, bytes).expect("written");
    let error = restore(&at("backup"), &at("other"), Uuid::from_u128(5), |_, _| {}).expect_err("refused");
    assert!(error.to_string().contains(rollup.to_str().expect("text")), "{error}");
    assert!(!at("other").exists());
}

#[test]
fn a_stream_that_is_cut_off_or_damaged_is_not_restored_in_part() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let db = fill(&at("data"));
    let (expected, stream) = (all(&db), stream_of(&db));
    drop(db);
    let step = (stream.len() / 20).max(1);
    // Where it is cut within what ends a tar, all of the backup is there.
    let end = stream.iter().rposition(|byte| *byte != 0).expect("not empty");
    let target = at("target");
    let (mut refused, mut harmless) = (0, 0);
    let mut check = |bytes: &[u8], what: &str, may_be_whole: bool| {
        match restore_stream(bytes, &target, Uuid::from_u128(9), |_| {}) {
            Ok(_) => {
                assert!(may_be_whole, "{what} went unnoticed");
                assert!(all(&open(&target)) == expected, "{what}");
                harmless += 1;
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("stream"), "{what}: {error}");
                let left: Vec<PathBuf> = files(&target);
                assert!(left.iter().all(|path| path.ends_with("LOCK")), "{what}: {left:?}");
            }
        }
        let _ = std::fs::remove_dir_all(&target);
    };
    for cut in (0..end).step_by(step).chain([512, 1_024, end]) {
        check(&stream[..cut], &format!("cut at {cut}"), false);
    }
    for at in (0..end).step_by(step) {
        let mut flipped = stream.clone();
        flipped[at] ^= 1 << (at % 8);
        // Bytes that fill a file up to a whole block of the tar say nothing.
        check(&flipped, &format!("flip at {at}"), true);
    }
    assert!(refused > 20, "{refused} refused, {harmless} harmless");
}
