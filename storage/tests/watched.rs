//! What a watched disk shows: an index whose sync failed is made anew, expiry does not hold writers or
//! readers up, and a delete gives its bytes back with the next merge.

use lookback_storage::{
    Change, Db, Disk, Labels, Matcher, Options, OutOfOrder, ReadLimits, Sample, Selection, Watcher,
    WriteBatch,
};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 20_000 * DAY_MS;
/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(60);

fn open(dir: &Path, disk: Disk) -> Db {
    let options = Options { retention_ms: Some(2 * DAY_MS), disk, ..Options::default() };
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
}

fn append(db: &Db, series: &str, first_ms: i64, count: i64) {
    let labels = Labels::new([("__name__", "m"), ("pod", series)]).expect("valid");
    let mut batch = WriteBatch::default();
    // Values without a pattern, so that bytes follow the number of samples.
    let value = |i: i64| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) as f64;
    (0..count).for_each(|i| batch.push(labels.clone(), Some(first_ms + i * 1_000), value(i + first_ms)));
    let report = db.append_wait(batch, first_ms + count * 1_000, OutOfOrder::Lifted).expect("appended");
    assert_eq!(report.accepted as i64, count);
}

fn samples(db: &Db, series: &str) -> Vec<Sample> {
    let matchers = [Matcher::equal("pod", series)];
    let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
    let selection = Selection { matchers: &matchers, visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.into_iter().flat_map(|(_, samples)| samples).collect()
}

fn is_of(path: &Path, part: &str) -> bool {
    path.components().any(|component| component.as_os_str() == part)
}

/// Fails one sync of the index, and sees whether another database takes its place.
#[derive(Default)]
struct FailingIndex {
    fails: AtomicBool,
    renewed: AtomicBool,
}

impl Watcher for FailingIndex {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        match change {
            Change::Sync(path)
                if is_of(path, "index")
                    && path.ends_with("db")
                    && self.fails.swap(false, Ordering::SeqCst) =>
            {
                return Err(io::Error::other("the disk has had enough"));
            }
            Change::Rename { to, .. } if to.ends_with("index") => self.renewed.store(true, Ordering::SeqCst),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn an_index_whose_sync_failed_is_made_anew_before_anything_depends_on_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let watcher = Arc::new(FailingIndex::default());
    let db = open(dir.path(), Disk::watched(watcher.clone()));
    append(&db, "a", NOW_MS - 100_000, 50);
    db.seal().expect("sealed");
    append(&db, "b", NOW_MS - 100_000, 50);
    watcher.fails.store(true, Ordering::SeqCst);
    let error = db.seal().expect_err("the sync failed").to_string();
    assert!(error.contains("had enough") && error.contains("index"), "{error}");
    assert!(!watcher.renewed.load(Ordering::SeqCst));
    // Writes and reads go on, and the log keeps what could not be sealed.
    append(&db, "c", NOW_MS - 100_000, 50);
    for series in ["a", "b", "c"] {
        assert_eq!(samples(&db, series).len(), 50, "{series}");
    }
    db.seal().expect("sealed");
    assert!(watcher.renewed.load(Ordering::SeqCst), "another database is in the index's place");
    let sealed = db.stats();
    assert_eq!((sealed.head_samples, sealed.sealed_samples), (0, 150));
    drop(db);
    let db = open(dir.path(), Disk::default());
    for series in ["a", "b", "c"] {
        assert_eq!(samples(&db, series).len(), 50, "{series}");
    }
    assert_eq!((db.stats().damaged_blocks, db.stats().damage), (0, Vec::new()));
}

/// Holds the removal of a partition up until it is let go.
struct HeldRemoval {
    reached: Sender<()>,
    let_go: Mutex<Receiver<()>>,
}

impl Watcher for HeldRemoval {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        if matches!(change, Change::RemoveDir(path) if is_of(path, "blocks")) {
            // The test may have ended.
            let _ = self.reached.send(());
            let _ = self.let_go.lock().expect("not poisoned").recv_timeout(SOON);
        }
        Ok(())
    }
}

#[test]
fn expiry_holds_neither_writers_nor_readers_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (reached, is_reached) = channel();
    let (let_go, may_go) = channel();
    let db = open(dir.path(), Disk::watched(Arc::new(HeldRemoval { reached, let_go: Mutex::new(may_go) })));
    append(&db, "old", NOW_MS - 5 * DAY_MS, 100);
    db.seal().expect("sealed");
    let bytes = db.stats().block_bytes;
    assert!(bytes > 0);
    let expiring = db.clone();
    let expired = std::thread::spawn(move || expiring.maintain(NOW_MS).expect("maintained"));
    is_reached.recv_timeout(SOON).expect("the partition is being removed");
    // While it is: writers are acknowledged, readers are answered.
    append(&db, "new", NOW_MS - 100_000, 50);
    assert_eq!(samples(&db, "new").len(), 50);
    assert!(samples(&db, "old").is_empty(), "and what expires is not read");
    assert!(!expired.is_finished(), "all this while the removal was held");
    let_go.send(()).expect("held");
    assert_eq!(expired.join().expect("ended").partitions_expired, 1);
    assert_eq!(db.stats().block_bytes, 0);
    assert!(std::fs::read_dir(dir.path().join("blocks/default")).expect("read").next().is_none());
}

#[test]
fn a_delete_gives_its_bytes_back_with_the_next_merge() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), Disk::default());
    // A day that is over, in two blocks.
    let day_ms = NOW_MS - DAY_MS;
    for part in 0..2 {
        for series in ["stays", "goes"] {
            append(&db, series, day_ms + part * 20_000_000, 10_000);
        }
        db.seal().expect("sealed");
    }
    let mut now_ms = NOW_MS + 7_200_000;
    let mut settle = || {
        for _ in 0..2 {
            now_ms += 700_000;
            db.maintain(now_ms).expect("maintained");
        }
        let files = |dir: &Path| std::fs::read_dir(dir).expect("read").flatten();
        let partitions = files(&dir.path().join("blocks/default")).map(|entry| entry.path());
        let on_disk: u64 = partitions
            .flat_map(|path| files(&path).collect::<Vec<_>>())
            .map(|entry| entry.metadata().expect("read").len())
            .sum();
        assert_eq!(on_disk, db.stats().block_bytes);
        on_disk
    };
    let before = settle();
    let matchers = [Matcher::equal("pod", "goes")];
    let selection = Selection { matchers: &matchers, visible: None };
    db.delete(selection, i64::MIN, day_ms + 15_000_000).expect("deleted");
    assert_eq!(db.stats().block_bytes, before, "not at once");
    let half_gone = settle();
    db.delete(selection, i64::MIN, i64::MAX).expect("deleted");
    let gone = settle();
    eprintln!("{before} B, {half_gone} B without half of one series, {gone} B without it");
    let near = |part: u64, of_before: f64| (part as f64 / before as f64 - of_before).abs() < 0.03;
    assert!(near(half_gone, 0.75) && near(gone, 0.5), "{before} {half_gone} {gone}");
    assert_eq!((samples(&db, "stays").len(), samples(&db, "goes").len()), (20_000, 0));
}
