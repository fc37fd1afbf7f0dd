//! `kill -9` at random points of writing, sealing, merging, expiry and deleting: what was acknowledged
//! is there afterwards.
//!
//! The test starts itself again as a child that works on a store and says on its standard output what
//! has been acknowledged; the parent kills it, opens the store and compares. 50 kills; as many as
//! `LOOKBACK_KILLS` says in the long run.

use lookback_storage::{Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Sample, Selection, WriteBatch};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

const CHILD_VARIABLE: &str = "LOOKBACK_KILL_CHILD";
const SERIES: i64 = 50;
/// Milliseconds from one round of samples to the next, and rounds to a partition.
const STEP_MS: i64 = 1_000;

fn open(dir: &Path) -> Db {
    let options = Options {
        retention_ms: Some(200 * STEP_MS),
        partition_ms: 40 * STEP_MS,
        seal_log_bytes: 8 << 10,
        blocks_per_partition_max: 2,
        ..Options::default()
    };
    Db::open(dir, options, Uuid::new_v4()).expect("the store always opens")
}

fn value(series: i64, round: i64) -> f64 {
    (series * 1_000_003 + round) as f64 / 7.0
}

/// Rounds of one sample for every series, each acknowledged with a line; maintenance beside it, and a
/// delete of series 0 now and then.
fn child(dir: &Path) {
    let db = open(dir);
    let background = db.clone();
    let newest = db.latest(Selection { matchers: &[], visible: None });
    let newest = newest.iter().map(|(_, sample)| sample.timestamp_ms).max();
    let mut round = newest.map_or(1_000_000, |ms| ms / STEP_MS + 1);
    let clock = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(round * STEP_MS));
    let now = std::sync::Arc::clone(&clock);
    std::thread::spawn(move || {
        loop {
            background.maintain(now.load(std::sync::atomic::Ordering::Relaxed)).expect("maintained");
        }
    });
    let mut out = std::io::stdout().lock();
    loop {
        let now_ms = round * STEP_MS;
        clock.store(now_ms, std::sync::atomic::Ordering::Relaxed);
        let mut batch = WriteBatch::default();
        for series in 0..SERIES {
            let labels =
                Labels::new([("__name__", "m".to_owned()), ("n", series.to_string())]).expect("valid");
            batch.push(labels, Some(now_ms), value(series, round));
        }
        let report = db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
        assert!(report.rejected.is_empty(), "{report:?}");
        writeln!(out, "acknowledged {round}").expect("the parent reads");
        if round % 25 == 0 {
            let matchers = [Matcher::equal("n", "0")];
            let selection = Selection { matchers: &matchers, visible: None };
            writeln!(out, "deleting {round}").expect("the parent reads");
            db.delete(selection, i64::MIN, now_ms - 10 * STEP_MS).expect("deleted");
            writeln!(out, "deleted {round}").expect("the parent reads");
        }
        out.flush().expect("the parent reads");
        round += 1;
    }
}

/// What the child has said, over all its lives.
#[derive(Default)]
struct Told {
    acknowledged: Vec<i64>,
    /// Of series 0, what may be gone: a delete that was begun can be durable before it is acknowledged.
    deleting_to: i64,
    /// Of series 0, what is gone.
    deleted_to: i64,
}

fn check(dir: &Path, told: &Told) {
    let db = open(dir);
    let limits = ReadLimits { samples_max: 10_000_000, cancelled: &|| false };
    let read =
        db.select(Selection { matchers: &[], visible: None }, i64::MIN, i64::MAX, limits).expect("read");
    let by_series: BTreeMap<i64, Vec<Sample>> = read
        .into_iter()
        .map(|(labels, samples)| (labels.get("n").and_then(|n| n.parse().ok()).expect("a number"), samples))
        .collect();
    let newest = told.acknowledged.last().copied().expect("acknowledged");
    for series in 0..SERIES {
        let samples = by_series.get(&series).expect("every series is there");
        for sample in samples {
            assert_eq!(
                *sample,
                Sample::new(sample.timestamp_ms, value(series, sample.timestamp_ms / STEP_MS))
            );
        }
        let has = |round: &i64| samples.binary_search_by_key(&(round * STEP_MS), |s| s.timestamp_ms).is_ok();
        let kept = told.acknowledged.iter().filter(|round| **round > newest - 190);
        let lost: Vec<&i64> =
            kept.filter(|round| series != 0 || **round > told.deleting_to).filter(|r| !has(r)).collect();
        assert!(lost.is_empty(), "series {series} lost {lost:?}");
        if series == 0 {
            let back: Vec<_> =
                samples.iter().filter(|s| s.timestamp_ms / STEP_MS <= told.deleted_to).collect();
            assert!(back.is_empty(), "deleted samples came back: {back:?}");
        }
    }
    assert_eq!((db.stats().damaged_blocks, db.stats().damaged_chunks), (0, 0));
}

#[test]
fn what_was_acknowledged_survives_kills_during_every_background_job() {
    if let Some(dir) = std::env::var_os(CHILD_VARIABLE) {
        return child(Path::new(&dir));
    }
    let kills: u64 = std::env::var("LOOKBACK_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let dir = tempfile::tempdir().expect("a directory");
    let mut told = Told::default();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut blocks_seen = 0;
    for kill in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_micros(20_000 + (random >> 33) % 230_000);
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--nocapture",
                "--exact",
                "what_was_acknowledged_survives_kills_during_every_background_job",
            ])
            .env(CHILD_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut note = |line: String| {
            let mut words = line.split_whitespace();
            let round = |word: Option<&str>| word.and_then(|w| w.parse::<i64>().ok()).expect("a round");
            match words.next() {
                Some("acknowledged") => told.acknowledged.push(round(words.next())),
                Some("deleting") => told.deleting_to = round(words.next()) - 10,
                Some("deleted") => told.deleted_to = round(words.next()) - 10,
                _ => {}
            }
        };
        // The life is counted from the first acknowledgement: opening takes as long as it takes.
        for line in lines.by_ref() {
            let line = line.expect("text");
            let began = line.starts_with("acknowledged");
            note(line);
            if began {
                break;
            }
        }
        std::thread::sleep(life);
        process.kill().expect("killed");
        // A line may have been cut off by the kill: then nobody was told.
        lines
            .map_while(Result::ok)
            .filter(|line| line.ends_with(|c: char| c.is_ascii_digit()))
            .for_each(note);
        process.wait().expect("ended");
        if kill % 5 == 4 || kill + 1 == kills {
            check(dir.path(), &told);
            blocks_seen += std::fs::read_dir(dir.path().join("blocks/default")).map_or(0, Iterator::count);
        }
    }
    assert!(blocks_seen > 0, "nothing was sealed: the kills met no background job");
    eprintln!(
        "{kills} kills, {} rounds of {SERIES} samples acknowledged, none lost",
        told.acknowledged.len()
    );
}
