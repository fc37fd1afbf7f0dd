//! What grows when there are ten times the series, or ten times the days? Memory, disk, the time until a
//! store is open, and what questions cost, at a base size and at both. Each store is filled by four writers
//! in a process of its own, so that its memory is its own; `-- --one SERIES DAYS SAMPLES_PER_DAY` measures one size.

use lookback_storage::{Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const START_MS: i64 = 1_794_700_800_000;
const DAY_MS: i64 = 86_400_000;
/// Few, so that ten times of anything takes seconds.
const SAMPLES_PER_DAY: i64 = 48;
const SERIES_PER_POD: usize = 7;
const WRITERS: usize = 4;
const SAMPLES_PER_REQUEST: usize = 2_000;
const BASE: (usize, i64) = (20_000, 2);
/// How long a store is left alone before its memory counts as that of rest.
const SECONDS_OF_REST: usize = 4;
/// How often a question is asked; the middle one counts.
const ASKED: usize = 21;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: lookback_allocator::MiMalloc = lookback_allocator::MiMalloc;

fn main() {
    lookback_allocator::give_back_soon();
    let words: Vec<String> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--one") {
        let size = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
        let (Some(series), Some(days), Some(per_day)) = (size(at + 1), size(at + 2), size(at + 3)) else {
            panic!("--one takes series, days and samples of each series a day, as in: --one 20000 2 48");
        };
        measure(series, days as i64, per_day as i64)
            .iter()
            .for_each(|(what, figure)| println!("{what}\t{figure}"));
        return;
    }
    let (series, days) = BASE;
    let sizes = [(series, days), (10 * series, days), (series, 10 * days)];
    let measured = sizes.map(|(series, days)| measure_apart(series, days));
    println!("\n{:<32}{:>14}{:>22}{:>22}", "", "base", "10x the series", "10x the days");
    println!("{:<32}{:>14}{:>22}{:>22}", "series, days", show(sizes[0]), show(sizes[1]), show(sizes[2]));
    for (what, base) in &measured[0] {
        let beside = |others: &BTreeMap<String, f64>| {
            others.get(what).map_or("-".to_owned(), |f| format!("{f:.2} ({:.1}x)", f / base))
        };
        println!("{what:<32}{base:>14.2}{:>22}{:>22}", beside(&measured[1]), beside(&measured[2]));
    }
}

fn show((series, days): (usize, i64)) -> String {
    format!("{series}, {days}")
}

/// Measures one size in a process of its own.
fn measure_apart(series: usize, days: i64) -> BTreeMap<String, f64> {
    let own = std::env::current_exe().expect("it runs");
    let sizes = [series.to_string(), days.to_string(), SAMPLES_PER_DAY.to_string()];
    let done = Command::new(own).arg("--one").args(sizes).output().expect("it runs again");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let figures = String::from_utf8(done.stdout).expect("text");
    let figure = |line: &str| {
        let (what, figure) = line.split_once('\t')?;
        Some((what.to_owned(), figure.parse().ok()?))
    };
    figures.lines().filter_map(figure).collect()
}

fn measure(series: usize, days: i64, per_day: i64) -> Vec<(&'static str, f64)> {
    let dir = tempfile::tempdir().expect("a directory");
    let pods = series.div_ceil(SERIES_PER_POD);
    let count = (pods * SERIES_PER_POD) as f64;
    let end_ms = START_MS + days * DAY_MS;
    let db = open(dir.path());
    let (before_mb, began, cpu_s) = (rss_mb(), Instant::now(), cpu_s());
    fill(&db, pods, days * per_day, DAY_MS / per_day);
    let filled = (began.elapsed().as_secs_f64(), self::cpu_s() - cpu_s);
    let loaded_mb = rss_mb();
    while {
        let done = db.maintain(end_ms).expect("maintained");
        done.sealed || done.partitions_merged > 0
    } {}
    db.seal().expect("sealed");
    rest(&db, end_ms);
    let rest_mb = rss_mb();
    let stats = db.stats();
    let bytes_of = |mb: f64| (mb - before_mb) * 1_048_576.0 / count;
    let samples = count * (days * per_day) as f64;
    let disk_bytes = (stats.block_bytes + stats.index_bytes + stats.log_bytes) as f64;
    drop(db);
    let began = Instant::now();
    let db = open(dir.path());
    let ready_ms = began.elapsed().as_secs_f64() * 1e3;
    rest(&db, end_ms);
    let opened_mb = rss_mb();
    vec![
        ("append, CPU s/M samples", filled.1 * 1e6 / samples),
        ("append, M samples/s", samples / filled.0 / 1e6),
        ("memory loaded, B/series", bytes_of(loaded_mb)),
        ("memory at rest, B/series", bytes_of(rest_mb)),
        ("memory at rest, MB", rest_mb),
        ("memory opened again, B/series", bytes_of(opened_mb)),
        ("disk, MB", disk_bytes / 1e6),
        ("disk, B/sample", disk_bytes / samples),
        ("open, ms", ready_ms),
        ("latest of 7 series, us", asked_us(|| latest(&db))),
        ("range of 7 series, 1 day, us", asked_us(|| range(&db, end_ms - DAY_MS, end_ms))),
        ("range of 7 series, all days, us", asked_us(|| range(&db, START_MS, end_ms))),
    ]
}

/// Leaves the store alone, as a server does that nobody writes to: freed memory goes back a second later.
fn rest(db: &Db, now_ms: i64) {
    for _ in 0..SECONDS_OF_REST {
        std::thread::sleep(Duration::from_secs(1));
        db.maintain(now_ms).expect("maintained");
    }
}

fn open(dir: &Path) -> Db {
    let give_back: fn() = lookback_allocator::give_back_now;
    let options = Options { retention_ms: None, when_idle: Some(give_back), ..Options::default() };
    Db::open(dir, options, uuid::Uuid::from_u128(1)).expect("the store opens")
}

/// A sample of each series at each step, from several threads, with maintenance on the way.
fn fill(db: &Db, pods: usize, steps: i64, step_ms: i64) {
    for step in 0..steps {
        let now_ms = START_MS + step * step_ms;
        let pods_each = pods.div_ceil(WRITERS);
        std::thread::scope(|scope| {
            for first in (0..pods).step_by(pods_each) {
                scope.spawn(move || write(db, first..pods.min(first + pods_each), now_ms, step));
            }
        });
        db.maintain(now_ms).expect("maintained");
    }
}

fn write(db: &Db, pods: std::ops::Range<usize>, now_ms: i64, step: i64) {
    let mut batch = WriteBatch::default();
    for pod in pods {
        for (at, labels) in labels_of(pod).into_iter().enumerate() {
            let load = (pod as f64 * 0.7 + step as f64 / 9.0).sin() + 1.5;
            batch.push(labels, Some(now_ms), (load * 1e6).round() / 1e6 + at as f64);
        }
        if batch.samples.len() >= SAMPLES_PER_REQUEST {
            db.append_wait(std::mem::take(&mut batch), now_ms, OutOfOrder::Window).expect("appended");
        }
    }
    db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
}

fn labels_of(pod: usize) -> Vec<Labels> {
    let workload = format!("svc-{:04}", pod / 10);
    let name = format!("{workload}-7d4b9c6f5d-{pod:06}");
    let node = format!("node-{:03}", pod % 250);
    let of = |metric: &str, container: &str| {
        let labels = [
            ("__name__", metric),
            ("container", container),
            ("namespace", "prod"),
            ("node", &node),
            ("pod", &name),
            ("workload", &workload),
        ];
        Labels::new(labels).expect("valid")
    };
    let of_containers = ["app", "sidecar"].into_iter().flat_map(|c| [of("cpu", c), of("memory", c)]);
    let of_pod = ["requests_per_second", "queue_depth", "latency_p99_seconds"].map(|m| of(m, ""));
    of_containers.chain(of_pod).collect()
}

fn one_pod() -> [Matcher; 1] {
    [Matcher::equal("pod", "svc-0010-7d4b9c6f5d-000100")]
}

fn latest(db: &Db) -> usize {
    db.latest(Selection { matchers: &one_pod(), visible: None }).len()
}

fn range(db: &Db, start_ms: i64, end_ms: i64) -> usize {
    let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
    let selection = Selection { matchers: &one_pod(), visible: None };
    db.select(selection, start_ms, end_ms, limits).expect("read").len()
}

/// The middle time that a question takes.
fn asked_us(ask: impl Fn() -> usize) -> f64 {
    let mut took: Vec<f64> = (0..ASKED)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(ask(), SERIES_PER_POD);
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[ASKED / 2]
}

/// Memory that the process holds.
fn rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
}

/// CPU seconds that the process has used.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
