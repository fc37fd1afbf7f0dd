//! A store at work in a child process that is to be cut off, and the check of what it left.
//!
//! A test starts itself again as the child, which says on its standard output what has been
//! acknowledged; the parent cuts it off, opens the store and compares.

use lookback_storage::resample::resample;
use lookback_storage::{
    Aggregation, Db, Grid, Labels, Matcher, Options, OutOfOrder, ReadLimits, RollupWindows, Sample,
    Selection, WriteBatch,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

const CHILD_VARIABLE: &str = "LOOKBACK_KILL_CHILD";
const SERIES: i64 = 50;
/// Milliseconds from one round of samples to the next.
const STEP_MS: i64 = 1_000;
/// Windows of the rollups.
const WINDOW_MS: i64 = 4 * STEP_MS;
/// Rounds from one delete of series 0 to the next, and how many newest rounds it leaves.
const DELETE_EVERY: i64 = 25;
const DELETE_KEEPS: i64 = 10;

pub(crate) fn open(dir: &Path) -> Db {
    let options = Options {
        retention_ms: Some(200 * STEP_MS),
        partition_ms: 40 * STEP_MS,
        rollups: RollupWindows::from([(WINDOW_MS, Some(1_000 * STEP_MS))]),
        seal_log_bytes: 8 << 10,
        blocks_per_partition_max: 2,
        index_memory_max: 0,
        ..Options::default()
    };
    Db::open(dir, options, Uuid::new_v4()).expect("the store always opens")
}

fn value(series: i64, round: i64) -> f64 {
    (series * 1_000_003 + round) as f64 / 7.0
}

/// Rounds of one sample for every series, each acknowledged with a line; maintenance beside it, and a
/// delete of series 0 now and then.
fn work(dir: &Path) -> ! {
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
        if round % DELETE_EVERY == 0 {
            let matchers = [Matcher::equal("n", "0")];
            let selection = Selection { matchers: &matchers, visible: None };
            db.delete(selection, i64::MIN, now_ms - DELETE_KEEPS * STEP_MS).expect("deleted");
            writeln!(out, "deleted {round}").expect("the parent reads");
        }
        out.flush().expect("the parent reads");
        round += 1;
    }
}

/// What the child has said, over all its lives.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: Vec<i64>,
    deleted_to: i64,
    /// A delete up to here may have been cut off before it was told, done or not.
    deleting_to: i64,
}

/// Opens the store and compares it with what was told.
pub(crate) fn check(dir: &Path, told: &Told) {
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
        let n = series.to_string();
        let matchers = [Matcher::equal("n", &n)];
        let start_ms = (newest - 160) * STEP_MS / WINDOW_MS * WINDOW_MS;
        let grid = Grid { start_ms, end_ms: newest * STEP_MS, step_ms: WINDOW_MS };
        let selection = Selection { matchers: &matchers, visible: None };
        let range = db.range(selection, grid, Aggregation::Last, false, limits).expect("read");
        let points: Vec<Sample> = range.series.into_iter().flat_map(|(_, points)| points).collect();
        assert_eq!(points, resample(samples, grid, Aggregation::Last), "series {series}: {:?}", range.used);
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
    let stats = db.stats();
    assert_eq!((stats.damaged_blocks, stats.damaged_chunks, stats.damaged_rollups), (0, 0, 0));
}

/// Where a child is to work, if this process is one.
pub(crate) fn work_if_child() {
    if let Some(dir) = std::env::var_os(CHILD_VARIABLE) {
        work(Path::new(&dir));
    }
}

/// A random number below `end`, and the next state.
pub(crate) fn random(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

/// How often a variable says to do something, or `default`.
pub(crate) fn times(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

impl Told {
    fn note(&mut self, line: &str) {
        let round = |number: &str| number.parse::<i64>().expect("a round");
        match line.split_once(' ') {
            Some(("acknowledged", number)) => {
                let number = round(number);
                self.acknowledged.push(number);
                if number % DELETE_EVERY == 0 {
                    self.deleting_to = number - DELETE_KEEPS;
                }
            }
            Some(("deleted", number)) => self.deleted_to = round(number) - DELETE_KEEPS,
            _ => {}
        }
    }
}

/// Lets the test named `test` work as a child on `dir`, for `life` from its first acknowledgement on,
/// then calls `cut`, kills it and notes what it said.
pub(crate) fn live(test: &str, dir: PathBuf, life: Duration, told: &mut Told, cut: impl FnOnce()) {
    let mut process: Child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--nocapture", "--exact", test])
        .env(CHILD_VARIABLE, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    // The life is counted from the first acknowledgement: opening takes as long as it takes.
    for line in lines.by_ref() {
        let line = line.expect("text");
        told.note(&line);
        if line.starts_with("acknowledged") {
            break;
        }
    }
    std::thread::sleep(life);
    cut();
    process.kill().expect("killed");
    // A line may have been cut off by the kill: then nobody was told.
    let whole = |line: &String| line.ends_with(|c: char| c.is_ascii_digit());
    lines.map_while(Result::ok).filter(whole).for_each(|line| told.note(&line));
    process.wait().expect("ended");
}
