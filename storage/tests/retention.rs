//! Retention by rules and by size: classes expire on their own, changes hold at once, room comes back.

use lookback_storage::{
    Db, Labels, MatchOp, Matcher, Options, OutOfOrder, ReadLimits, Reject, RetentionRule, RollupWindows,
    Selection, SizeMax, WriteBatch,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 480_000 * HOUR_MS;

fn options() -> Options {
    Options {
        retention_ms: Some(10 * HOUR_MS),
        partition_ms: HOUR_MS,
        seal_every_ms: HOUR_MS / 2,
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> Db {
    Db::open(dir, options, Uuid::from_u128(1)).expect("opens")
}

fn rule(class: &str, metric: &str, hours: i64) -> RetentionRule {
    RetentionRule {
        class: class.to_owned(),
        matchers: vec![Matcher::new("__name__", MatchOp::Regex, metric).expect("compiles")],
        keep_ms: Some(hours * HOUR_MS),
        rollups: RollupWindows::new(),
    }
}

fn batch(metrics: &[&str], times_ms: &[i64]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for metric in metrics {
        for time_ms in times_ms {
            let labels = Labels::new([("__name__", *metric), ("pod", "p")]).expect("valid");
            batch.push(labels, Some(*time_ms), *time_ms as f64);
        }
    }
    batch
}

fn times(db: &Db, metric: &str) -> Vec<i64> {
    let matchers = [Matcher::equal("__name__", metric)];
    let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
    let selection = Selection { matchers: &matchers, visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.into_iter().flat_map(|(_, samples)| samples).map(|s| s.timestamp_ms).collect()
}

/// A value that no codec makes small (the finaliser of SplitMix64, by Steele, Lea and Flood).
fn noise(seed: i64) -> f64 {
    let mut bits = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from_bits((bits ^ (bits >> 31)) & !(1 << 62))
}

fn partitions(dir: &Path, class: &str) -> usize {
    std::fs::read_dir(dir.join("blocks").join(class)).map_or(0, Iterator::count)
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("read").map(|entry| entry.expect("read"));
    let bytes = entries.map(|entry| match entry.metadata().expect("read") {
        metadata if metadata.is_dir() => bytes_below(&entry.path()),
        metadata => metadata.len(),
    });
    bytes.sum()
}

/// Writes a sample a minute of each metric for some hours, maintaining as a server does.
fn live(db: &Db, metrics: &[&str], from_ms: i64, hours: i64) -> i64 {
    let mut now_ms = from_ms;
    for _ in 0..hours * 6 {
        let minutes: Vec<i64> = (1..=10).map(|minute| now_ms + minute * 60_000).collect();
        now_ms += 600_000;
        db.append_wait(batch(metrics, &minutes), now_ms, OutOfOrder::Window).expect("appended");
        db.maintain(now_ms).expect("maintained");
    }
    now_ms
}

#[test]
fn each_class_rolls_in_a_window_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), options());
    let rules = || vec![rule("debug", "debug_.*", 2), rule("cpu", "cpu", 20)];
    db.set_retention_rules(rules()).expect("legal");
    let now_ms = live(&db, &["cpu", "debug_cpu", "memory"], START_MS, 30);
    db.maintain(now_ms).expect("maintained");
    for (metric, class, hours) in [("cpu", "cpu", 20), ("debug_cpu", "debug", 2), ("memory", "default", 10)] {
        assert_eq!(times(&db, metric).first(), Some(&(now_ms - hours * HOUR_MS)), "{metric}");
        let on_disk = partitions(dir.path(), class) as i64;
        assert!((hours..=hours + 2).contains(&on_disk), "{on_disk} partitions of {class}");
    }
    let refused = |metric: &str, hours: i64| {
        let old = batch(&[metric], &[now_ms - hours * HOUR_MS - 1, now_ms]);
        let report = db.append_wait(old, now_ms, OutOfOrder::Lifted).expect("appended");
        assert_eq!(report.accepted + report.duplicates, 1, "the other sample is taken");
        report.rejected.into_iter().map(|(_, reject)| reject).collect::<Vec<_>>()
    };
    let [Reject::BeyondRetention { class, .. }] = &refused("debug_cpu", 2)[..] else { panic!("not refused") };
    assert_eq!(class, "debug");
    let told = refused("memory", 10)[0].to_string();
    assert!(told.contains("\"default\"") && told.contains("--retention"), "{told}");
    assert_eq!(refused("cpu", 20).len(), 1);

    drop(db);
    let db = open(dir.path(), options());
    db.set_retention_rules(rules()).expect("legal");
    db.tell_time(now_ms);
    assert_eq!(times(&db, "debug_cpu").len(), 121, "classes are as they were after a restart");
}

#[test]
fn a_changed_rule_holds_for_reads_at_once_and_for_the_disk_by_class() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), options());
    db.set_retention_rules(vec![rule("debug", "debug_.*", 8)]).expect("legal");
    let now_ms = live(&db, &["debug_cpu", "memory"], START_MS, 8);
    db.seal().expect("sealed");
    db.tell_time(now_ms);
    assert_eq!(times(&db, "debug_cpu").len(), 480);
    db.set_retention_rules(vec![rule("debug", "debug_.*", 1)]).expect("legal");
    assert_eq!(times(&db, "debug_cpu").len(), 61, "before any maintenance");
    assert_eq!(times(&db, "memory").len(), 480);
    assert!(partitions(dir.path(), "debug") >= 8);

    // The class goes: what is sealed in it is read by the default, and kept as long as the longest.
    db.set_retention_rules(vec![rule("other", "other", 9)]).expect("legal");
    assert_eq!(times(&db, "debug_cpu").len(), 480);
    db.maintain(now_ms).expect("maintained");
    assert!(partitions(dir.path(), "debug") >= 8);
    db.maintain(now_ms + 12 * HOUR_MS).expect("maintained");
    assert_eq!(partitions(dir.path(), "debug"), 0);
    // A class that has a rule expires by that, whatever its series match.
    let db_rules = vec![rule("default2", "memory", 1)];
    db.set_retention_rules(db_rules).expect("legal");
    assert_eq!(times(&db, "memory").len(), 0);
}

#[test]
fn an_expiry_gives_its_bytes_back_while_writers_and_readers_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), options());
    db.set_retention_rules(vec![rule("bulk", "bulk", 2)]).expect("legal");
    let mut bulk = WriteBatch::default();
    let labels = Labels::new([("__name__", "bulk")]).expect("valid");
    for i in 0..100_000 {
        bulk.push(labels.clone(), Some(START_MS + i * 36), noise(i));
    }
    db.append_wait(bulk, START_MS + HOUR_MS, OutOfOrder::Window).expect("appended");
    db.seal().expect("sealed");
    let before = bytes_below(&dir.path().join("blocks"));
    assert!(before > 400_000, "{before} bytes of noise");
    let later_ms = START_MS + 4 * HOUR_MS;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) || written == 0 {
                written += 1;
                let one = batch(&["memory"], &[later_ms + written]);
                let report = db.append_wait(one, later_ms, OutOfOrder::Window).expect("appended");
                assert_eq!(report.accepted, 1);
            }
        });
        let expired = db.maintain(later_ms).expect("maintained").partitions_expired;
        assert_eq!(expired, 1);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer was never refused");
    });
    let after = bytes_below(&dir.path().join("blocks"));
    assert!(after < before / 20, "{after} of {before} bytes are left");
    assert_eq!(times(&db, "bulk"), Vec::<i64>::new());
}

#[test]
fn the_oldest_partitions_make_room_before_the_limit_is_crossed() {
    let dir = tempfile::tempdir().expect("a directory");
    let limit_bytes = 5 << 19;
    let limited = || Options {
        retention_ms: None,
        partition_ms: HOUR_MS,
        seal_log_bytes: 64 << 10,
        size_max: Some(SizeMax::Bytes(limit_bytes)),
        ..Options::default()
    };
    let db = open(dir.path(), limited());
    db.set_retention_rules(vec![rule("a", "a", 1_000_000)]).expect("legal");
    let mut largest = 0;
    for hour in 0..12i64 {
        for part in 0..6i64 {
            let mut batch = WriteBatch::default();
            for metric in ["a", "b"] {
                let labels = Labels::new([("__name__", metric)]).expect("valid");
                for i in 0..4_000 {
                    let time_ms = START_MS + hour * HOUR_MS + part * 600_000 + i * 150;
                    batch.push(labels.clone(), Some(time_ms), noise(time_ms));
                }
            }
            let now_ms = START_MS + hour * HOUR_MS + (part + 1) * 600_000;
            db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
            db.maintain(now_ms).expect("maintained");
            largest = largest.max(bytes_below(dir.path()));
        }
    }
    let stats = db.stats();
    assert!(stats.partitions_dropped > 6, "{stats:?}");
    assert!(largest <= limit_bytes, "{largest} bytes at some time");
    assert_eq!(stats.size_max_bytes, Some(limit_bytes));
    assert!(stats.full_in_ms.is_some_and(|ms| ms < 24 * HOUR_MS), "{:?}", stats.full_in_ms);
    let newest_ms = START_MS + 12 * HOUR_MS - 150;
    for metric in ["a", "b"] {
        let kept = times(&db, metric);
        assert_eq!(kept.last(), Some(&newest_ms));
        assert!(kept.first().is_some_and(|first| *first > START_MS + 3 * HOUR_MS), "the oldest went");
    }

    // The newest partition stays, whatever the limit.
    drop(db);
    let db = open(dir.path(), Options { size_max: Some(SizeMax::Bytes(1)), ..limited() });
    db.maintain(START_MS + 12 * HOUR_MS).expect("maintained");
    assert_eq!(times(&db, "a").len(), 24_000);
}
