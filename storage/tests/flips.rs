//! A flipped bit, and a cut, anywhere in any file of a store: what it hurts is detected and named, what it
//! does not is harmless, all else is read, and nothing is ever wrong or panics. What was deleted comes back only
//! where the group of the log that deleted it is lost, and told.
//!
//! A few places of each of our own files; with `LOOKBACK_FLIPS=all` every byte of them, and 2,000 places of
//! each file of sled's.

use lookback_storage::resample::resample;
use lookback_storage::{
    Aggregation, Db, Error, Grid, Labels, Matcher, OnDamage, Options, OutOfOrder, ReadLimits, RollupWindows,
    Sample, Selection, Verification, WriteBatch, verify,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use uuid::Uuid;

const PARTITION_MS: i64 = 10_000;
const NOW_MS: i64 = 1_000_000;
const PODS: i64 = 3;
const SAMPLES: i64 = 24;
const SLED_PLACES: usize = 2_000;

fn open(dir: &Path) -> Result<Db, Error> {
    let options = Options {
        on_damage: OnDamage::SetAside,
        retention_ms: None,
        partition_ms: PARTITION_MS,
        rollups: RollupWindows::from([(2_500, None)]),
        out_of_order_window_ms: 0,
        ..Options::default()
    };
    Db::open(dir, options, Uuid::new_v4())
}

fn value(pod: i64, i: i64) -> f64 {
    (pod * 1_000_003 + i * 7) as f64 / 8.0
}

fn at_ms(i: i64) -> i64 {
    NOW_MS - 30_000 + i * 1_000
}

fn selected<T>(pod: i64, read: impl FnOnce(Selection<'_>, ReadLimits<'_>) -> T) -> T {
    let matchers = [Matcher::equal("pod", pod.to_string())];
    read(
        Selection { matchers: &matchers, visible: None },
        ReadLimits { samples_max: 100_000, cancelled: &|| false },
    )
}

/// Deleted: of pod 1, while it is in blocks.
fn is_deleted(pod: i64, i: i64) -> bool {
    pod == 1 && (3..5).contains(&i)
}

/// Two thirds in blocks of several partitions, rolled up; a delete that no merge has seen; the rest in memory.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path()).expect("opens");
    for i in 0..SAMPLES {
        let mut batch = WriteBatch::default();
        for pod in 0..PODS {
            let labels =
                Labels::new([("__name__", "m".to_owned()), ("pod", pod.to_string())]).expect("valid");
            batch.push(labels, Some(at_ms(i)), value(pod, i));
        }
        db.append_wait(batch, NOW_MS, OutOfOrder::Lifted).expect("appended");
        if i == SAMPLES * 2 / 3 {
            db.seal().expect("sealed");
            db.maintain(NOW_MS - 20_000).expect("maintained");
        }
    }
    selected(1, |selection, _| db.delete(selection, at_ms(3), at_ms(4))).expect("deleted");
    dir
}

fn written(pod: i64) -> Vec<Sample> {
    (0..SAMPLES).map(|i| Sample::new(at_ms(i), value(pod, i))).collect()
}

fn expected(pod: i64) -> Vec<Sample> {
    (0..SAMPLES).filter(|i| !is_deleted(pod, *i)).map(|i| Sample::new(at_ms(i), value(pod, i))).collect()
}

/// How many samples can be read; each must be the right one.
fn read(db: &Db, what: &str, may_come_back: bool) -> usize {
    let mut found = BTreeMap::new();
    for pod in 0..PODS {
        let read = selected(pod, |selection, limits| db.select(selection, i64::MIN, i64::MAX, limits));
        let samples: Vec<Sample> = read.expect("read").into_iter().flat_map(|(_, samples)| samples).collect();
        let (right, written) = (expected(pod), written(pod));
        for sample in &samples {
            let allowed = if may_come_back { &written } else { &right };
            assert!(allowed.contains(sample), "{what}: {sample:?} of pod {pod} is wrong or was deleted");
        }
        let lost = right.iter().filter(|sample| !samples.contains(sample)).count();
        if samples == right {
            let grid = Grid { start_ms: at_ms(0) / 2_500 * 2_500, end_ms: NOW_MS, step_ms: 2_500 };
            for aggregation in [Aggregation::Max, Aggregation::Count, Aggregation::Last] {
                let range = selected(pod, |s, limits| db.range(s, grid, aggregation, false, limits));
                let points: Vec<Sample> =
                    range.expect("read").series.into_iter().flat_map(|(_, points)| points).collect();
                assert_eq!(
                    points,
                    resample(&right, grid, aggregation),
                    "{what}: {aggregation:?} of pod {pod}"
                );
            }
        }
        found.insert(pod, right.len() - lost);
    }
    found.into_values().sum()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let path = entry.expect("read").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(drop).expect("copied") }
    }
}

fn all() -> usize {
    (0..PODS).map(|pod| expected(pod).len()).sum()
}

/// What one place did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    lost_samples: usize,
    named_by_verify: bool,
    told: bool,
}

/// Damages a copy of the store, verifies it, opens it, reads all of it.
fn damage(whole: &Path, name: &Path, bytes: &[u8], what: &str) -> Done {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    copy(whole, &data);
    let path = data.join(name);
    std::fs::write(&path, bytes).expect("written");
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).expect("made");
    let how = Verification { scratch_dir: &scratch, others: &[] };
    let verified = verify(&data, how, |_, _| {}).expect("verified");
    // The database or generation that it belongs to is name enough for what lies in one.
    let known_as: PathBuf = match name.iter().next().and_then(|first| first.to_str()) {
        Some("index") => data.join("index"),
        Some("log") => data.join(name.iter().take(2).collect::<PathBuf>()),
        _ => path.clone(),
    };
    let known_as = known_as.display().to_string();
    let named_by_verify = verified.damage.iter().any(|what| what.contains(&known_as));
    let db = match open(&data) {
        Ok(db) => db,
        // Nothing says whose directory it is, or what it says is not to be believed: nothing is touched.
        Err(error) => panic!("{what}: {error}"),
    };
    let may_come_back = db.stats().lost_log_groups > 0;
    let found = read(&db, what, may_come_back);
    // Chunks are looked at when they are read.
    let stats = db.stats();
    let told = !stats.damage.is_empty()
        || stats.damaged_blocks + stats.damaged_chunks + stats.damaged_rollups + stats.lost_log_groups > 0;
    assert!(found == all() || told, "{what}: {} samples are gone in silence", all() - found);
    // It goes on from there.
    let mut batch = WriteBatch::default();
    batch.push(Labels::new([("__name__", "after")]).expect("valid"), Some(NOW_MS), 1.0);
    db.append_wait(batch, NOW_MS, OutOfOrder::Lifted).expect("appended");
    drop(db);
    let db = open(&data).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert!(read(&db, what, may_come_back) >= found, "{what}: the next opening has lost something");
    Done { lost_samples: all() - found, named_by_verify, told }
}

/// The places of a file that are tried.
fn places(bytes: usize, is_sleds: bool, every: bool) -> Vec<usize> {
    let wanted = match (every, is_sleds) {
        (true, false) => bytes,
        (true, true) => SLED_PLACES,
        (false, false) => 2,
        (false, true) => 1,
    };
    let mut places: Vec<usize> = (0..wanted).map(|n| (bytes * (2 * n + 1)) / (2 * wanted)).collect();
    places.dedup();
    places
}

/// What `one` makes of each of `all`, in no order.
fn on_all_cores<T: Copy + Sync, D: Send>(all: &[T], one: impl Fn(T) -> D + Sync) -> Vec<D> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some(this) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(one(*this));
        }
        done
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let working: Vec<_> = (0..cores).map(|_| scope.spawn(take)).collect();
        let join = |worker: ScopedJoinHandle<'_, Vec<D>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        working.into_iter().flat_map(join).collect()
    })
}

#[test]
fn a_flip_or_a_cut_anywhere_is_detected_or_harmless_and_named() {
    let every = std::env::var("LOOKBACK_FLIPS").is_ok_and(|flips| flips == "all");
    let whole = store();
    let mut names: Vec<PathBuf> = files(whole.path())
        .iter()
        .map(|path| path.strip_prefix(whole.path()).expect("below").to_owned())
        .collect();
    names.sort();
    for name in names.iter().filter(|name| !name.ends_with("LOCK")) {
        let bytes = std::fs::read(whole.path().join(name)).expect("read");
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        let text = name.display().to_string();
        let is_sleds = (text.starts_with("index/") || text.starts_with("log/"))
            && !(text.ends_with("begun") || text.ends_with("durable"));
        // `durable` that is cut off says nothing, and nothing of sled's own need be read.
        let may_be_unnamed = is_sleds || text.ends_with("durable");
        let mut tries: Vec<(usize, bool)> = Vec::new();
        for at in places(last + 1, is_sleds, every) {
            tries.push((at, false));
            // The size of sled's files says nothing; a cut is where something is lost.
            if !is_sleds || at % 20 == 0 {
                tries.push((at, true));
            }
        }
        let one = |(at, cut): (usize, bool)| {
            let (what, bytes) = if cut {
                (format!("{text}: cut at {at}"), bytes[..at].to_vec())
            } else {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                (format!("{text}: flip at {at}"), flipped)
            };
            let done = damage(whole.path(), name, &bytes, &what);
            assert!(done.named_by_verify || may_be_unnamed, "{what}: verify does not name it");
            assert!(done.named_by_verify || done.lost_samples == 0, "{what}: lost, and not named");
            done
        };
        let done = on_all_cores(&tries, one);
        let tried = done.len();
        let hurt = done.iter().filter(|done| done.told).count();
        let unnamed = done.iter().filter(|done| !done.named_by_verify).count();
        let lost = done.iter().map(|done| done.lost_samples).max().unwrap_or_default();
        eprintln!("{text}: {tried} tried, {hurt} hurt, {unnamed} harmless, at most {lost} samples lost");
    }
}
