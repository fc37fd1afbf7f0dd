//! Flipped bits and lost files in the index, the log, the catalogue and the file `meta`: the store opens
//! with all that can be read, names what can't, and never gives a wrong value.
//!
//! 24 positions of each file of sled's; as many as `LOOKBACK_FLIPS` says in the long run.

use lookback_storage::{Db, Error, Labels, OnDamage, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const NOW_MS: i64 = 1_000_000_000;
/// Samples of one append: one group of the log.
const PER_GROUP: usize = 4;
const GROUPS: usize = 60;
const SEALED_GROUPS: usize = 25;

fn open(dir: &Path) -> Result<Db, Error> {
    let options = Options { on_damage: OnDamage::SetAside, retention_ms: None, ..Options::default() };
    Db::open(dir, options, Uuid::new_v4())
}

fn value(pod: usize, i: usize) -> f64 {
    (pod * 1_000_003 + i) as f64 / 7.0
}

/// Two groups a pod, so that one lost group does not lose its series.
fn append(db: &Db, pod: usize) {
    for half in 0..2 {
        let mut batch = WriteBatch::default();
        for i in (0..PER_GROUP).map(|i| half * PER_GROUP + i) {
            let labels =
                Labels::new([("__name__", "m".to_owned()), ("pod", pod.to_string())]).expect("valid");
            batch.push(labels, Some(NOW_MS - 1_000 + i as i64), value(pod, i));
        }
        assert_eq!(db.append_wait(batch, NOW_MS, OutOfOrder::Window).expect("appended").accepted, PER_GROUP);
    }
}

/// A store with sealed and unsealed samples, and what it holds.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path()).expect("opens");
    for pod in 0..GROUPS / 2 {
        append(&db, pod);
        if pod == SEALED_GROUPS / 2 {
            db.seal().expect("sealed");
        }
    }
    dir
}

/// How many samples can be read; each must be the right one.
fn read(db: &Db) -> usize {
    let limits = ReadLimits { samples_max: 10_000_000, cancelled: &|| false };
    let selection = Selection { matchers: &[], visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    let by_pod: BTreeMap<usize, _> = read
        .into_iter()
        .map(|(labels, samples)| (labels.get("pod").and_then(|p| p.parse().ok()).expect("a pod"), samples))
        .collect();
    for (pod, samples) in &by_pod {
        for sample in samples {
            let i = usize::try_from(sample.timestamp_ms - NOW_MS + 1_000).expect("one of ours");
            assert_eq!(sample.value.to_bits(), value(*pod, i).to_bits(), "a wrong value");
        }
    }
    by_pod.values().map(Vec::len).sum()
}

const ALL: usize = GROUPS * PER_GROUP;

/// Opens a damaged store; what is missing must be told, and the next opening finds nothing wrong.
#[track_caller]
fn check(dir: &Path, what: &str) -> usize {
    let db = open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (stats, found) = (db.stats(), read(&db));
    if found < ALL {
        assert!(!stats.damage.is_empty(), "{what}: {} samples are gone in silence", ALL - found);
    }
    if stats.lost_log_groups == 0 {
        assert_eq!(found, ALL, "{what}: {:?}", stats.damage);
    }
    assert!(found + stats.lost_log_groups as usize * PER_GROUP * 2 >= ALL, "{what}: {:?}", stats.damage);
    append(&db, 9_999);
    assert!(db.maintain(NOW_MS).expect("maintained").sealed || stats.damage.is_empty());
    drop(db);
    let db = open(dir).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert!(db.stats().damage.is_empty(), "{what}, again: {:?}", db.stats().damage);
    assert_eq!(read(&db), found + 2 * PER_GROUP, "{what}: something was lost by the next opening");
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let path = entry.expect("read").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(drop).expect("copied") }
    }
}

fn damaged(whole: &Path, damage: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    copy(whole, dir.path());
    damage(dir.path());
    dir
}

fn flip(path: &Path, at: usize, bit: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).expect("written");
}

fn log_db(dir: &Path) -> PathBuf {
    let generation = std::fs::read_dir(dir.join("log")).expect("read").next().expect("one").expect("read");
    generation.path().join("db").strip_prefix(dir).expect("below").to_owned()
}

#[test]
fn a_flipped_bit_anywhere_in_the_index_or_the_log_loses_at_most_what_it_hits() {
    let flips = std::env::var("LOOKBACK_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let whole = store();
    for part in [log_db(whole.path()), PathBuf::from("index/db")] {
        let bytes = std::fs::read(whole.path().join(&part)).expect("read");
        let written = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
        let (mut lossy, mut lost) = (0, 0);
        for number in 0..flips {
            let at = written * number / (flips - 1).max(1);
            let dir = damaged(whole.path(), |dir| flip(&dir.join(&part), at, number % 8));
            let found = check(dir.path(), &format!("{}, byte {at}", part.display()));
            lossy += usize::from(found < ALL);
            lost += ALL - found;
        }
        eprintln!("{}: {flips} flips, {lossy} lost something, {lost} samples in all", part.display());
        // One bit can hit one group only, and a group's first half defines its pod's series.
        assert!(lost <= lossy * PER_GROUP * 2, "{}: {lost} samples by {lossy} flips", part.display());
        assert!(!part.starts_with("index") || lost == 0, "the index is made anew without a loss");
    }
}

#[test]
fn each_part_may_be_lost_and_nothing_is_but_what_it_alone_held() {
    let whole = store();
    let remove = |path: &'static str| {
        damaged(whole.path(), |dir| {
            let path = dir.join(path);
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .expect("removed");
        })
    };
    for part in ["index", "meta", "catalog", "index/db"] {
        assert_eq!(check(remove(part).path(), part), ALL, "{part}");
    }
    let no_index_and_meta = remove("index");
    std::fs::remove_file(no_index_and_meta.path().join("meta")).expect("removed");
    assert_eq!(check(no_index_and_meta.path(), "index and meta"), ALL);
    // The log alone held what was not sealed, and nobody can tell how much that was.
    let dir = remove("log");
    let db = open(dir.path()).expect("opens");
    assert!(db.stats().damage.iter().any(|what| what.contains("there is no log")), "{:?}", db.stats().damage);
    let found = read(&db);
    assert!(found < ALL && found > 0);
    append(&db, 9_999);
    drop(db);
    assert_eq!(read(&open(dir.path()).expect("opens")), found + 2 * PER_GROUP);
}

#[test]
fn a_damaged_catalog_costs_nothing_while_the_index_is_whole_and_only_names_when_it_is_not() {
    let whole = store();
    let file = whole.path().join("catalog");
    let names: Vec<PathBuf> =
        std::fs::read_dir(file).expect("read").map(|entry| entry.expect("read").path()).collect();
    let bytes = |path: &PathBuf| std::fs::metadata(path).expect("known").len() as usize;
    let largest = names.iter().max_by_key(|path| bytes(path)).expect("one");
    let bytes = bytes(largest);
    for at in (0..bytes).step_by(1 + bytes / 12) {
        let below = largest.strip_prefix(whole.path()).expect("below");
        let dir = damaged(whole.path(), |dir| flip(&dir.join(below), at, 3));
        assert_eq!(check(dir.path(), "catalog"), ALL);
        let dir = damaged(whole.path(), |dir| {
            flip(&dir.join(below), at, 3);
            std::fs::remove_dir_all(dir.join("index")).expect("removed");
        });
        match open(dir.path()) {
            Ok(db) => {
                let found = read(&db);
                assert!(found < ALL && !db.stats().damage.is_empty(), "{:?}", db.stats().damage);
            }
            // Nothing says whose directory it is.
            Err(error) => assert!(at < 40 && error.is_loss(), "byte {at}: {error}"),
        }
    }
}

#[test]
fn without_leave_nothing_is_touched() {
    let whole = store();
    let dir = damaged(whole.path(), |dir| std::fs::remove_dir_all(dir.join("index")).expect("removed"));
    let refuse = Options { retention_ms: None, ..Options::default() };
    let error = Db::open(dir.path(), refuse, Uuid::new_v4()).map(drop).expect_err("refused");
    assert!(error.to_string().contains("index"), "{error}");
    assert!(!dir.path().join("quarantine").exists());
    assert_eq!(check(dir.path(), "then with leave"), ALL);
}
