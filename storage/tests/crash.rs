//! The engine against a plain model, with its power cut at points that a seed chooses: while it appends,
//! deletes, seals, merges, rolls up, expires, and while it opens what the cut before has left. What was
//! acknowledged is there, what was not is there whole or not at all, and the same seed does the same again.
//!
//! 8 histories of three cuts each; as many as `LOOKBACK_CRASHES` says in the long run. `LOOKBACK_SEED` runs
//! the history of one seed.

mod power;

use lookback_storage::resample::resample;
use lookback_storage::{
    Aggregation, Db, Disk, Error, Grid, Labels, Matcher, OnDamage, Options, OutOfOrder, ReadLimits,
    RollupWindows, Sample, Selection, WriteBatch,
};
use power::{Power, Random};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

const START_MS: i64 = 1_000_000;
const PARTITION_MS: i64 = 2_500;
const RETENTION_MS: i64 = 30_000;
const SERIES: u64 = 4;
const CUTS: usize = 3;

type Model = BTreeMap<u64, BTreeMap<i64, f64>>;

fn options(power: Arc<Power>) -> Options {
    Options {
        partition_ms: PARTITION_MS,
        retention_ms: Some(RETENTION_MS),
        blocks_per_partition_max: 2,
        rollups: RollupWindows::from([(250, None), (1_250, None)]),
        out_of_order_window_ms: 0,
        index_memory_max: 0,
        // sled may not read an index of which any sectors are old: it is made anew then, and loses nothing.
        on_damage: OnDamage::SetAside,
        disk: Disk::watched(power),
        ..Options::default()
    }
}

fn labels(series: u64) -> Labels {
    Labels::new([("__name__", "m".to_owned()), ("pod", format!("p{series}"))]).expect("valid")
}

/// One history: a store, what it must hold, and how it went.
struct History {
    random: Random,
    dir: TempDir,
    lives: u64,
    now_ms: i64,
    model: Model,
    told: Vec<String>,
}

impl History {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("0")).expect("made");
        Self { random: Random(seed), dir, lives: 0, now_ms: START_MS, model: Model::new(), told: Vec::new() }
    }

    /// Opens the store as the last life has left it; in this one the power goes after `left` changes.
    fn open(&mut self, left: u64) -> (Result<Db, Error>, Arc<Power>) {
        let (root, image) = (self.path(self.lives), self.path(self.lives + 1));
        let power = Arc::new(Power::new(&root, &image, left, self.random.0));
        let db = Db::open(&root, options(Arc::clone(&power)), Uuid::from_u128(1));
        if let Ok(db) = &db {
            db.tell_time(self.now_ms);
        }
        (db, power)
    }

    fn path(&self, life: u64) -> std::path::PathBuf {
        self.dir.path().join(life.to_string())
    }

    /// Goes on from the image of a cut.
    fn next_life(&mut self, power: &Power) {
        self.told.extend(power.changes());
        std::fs::remove_dir_all(self.path(self.lives)).expect("removed");
        self.lives += 1;
    }

    /// Lives until the power goes; answers what the store holds if the last step was done.
    fn live_until_cut(&mut self) -> Model {
        let left = self.random.below(160);
        let (db, power) = self.open(left);
        let mut db = match db {
            Ok(db) => db,
            Err(_) if power.is_cut() => {
                self.next_life(&power);
                return self.model.clone();
            }
            Err(error) => panic!("it does not open: {error}"),
        };
        let mut power = power;
        loop {
            let mut after = self.model.clone();
            let step = self.random.below(14);
            let done = self.step(step, &db, &mut after);
            if power.is_cut() {
                drop(db);
                self.next_life(&power);
                return after;
            }
            done.unwrap_or_else(|error| panic!("step {step}: {error}"));
            self.model = after;
            if step == 13 {
                // A restart in peace.
                drop(db);
                self.told.extend(power.changes());
                let left = self.random.below(160);
                let (opened, of_this_life) = self.open(left);
                power = of_this_life;
                match opened {
                    Ok(opened) => db = opened,
                    Err(_) if power.is_cut() => {
                        self.next_life(&power);
                        return self.model.clone();
                    }
                    Err(error) => panic!("it does not open again: {error}"),
                }
            }
        }
    }

    fn step(&mut self, step: u64, db: &Db, after: &mut Model) -> Result<(), Error> {
        match step {
            0..6 => {
                let mut batch = WriteBatch::default();
                for _ in 0..=self.random.below(30) {
                    let series = self.random.below(SERIES);
                    let at_ms = self.now_ms - self.random.below(12_000) as i64;
                    let value = self.random.below(9) as f64 / 4.0;
                    batch.push(labels(series), Some(at_ms), value);
                    let held = after.entry(series).or_default().entry(at_ms).or_insert(value);
                    *held = if value.total_cmp(held).is_gt() { value } else { *held };
                }
                db.append_wait(batch, self.now_ms, OutOfOrder::Lifted).map(|report| {
                    assert!(report.rejected.is_empty(), "{report:?}");
                })
            }
            6 | 7 => {
                let series = self.random.below(SERIES);
                let start_ms = self.now_ms - self.random.below(14_000) as i64;
                let end_ms = start_ms + self.random.below(3_000) as i64;
                if let Some(samples) = after.get_mut(&series) {
                    samples.retain(|at_ms, _| !(start_ms..=end_ms).contains(at_ms));
                }
                let matchers = [Matcher::equal("pod", format!("p{series}"))];
                db.delete(Selection { matchers: &matchers, visible: None }, start_ms, end_ms).map(drop)
            }
            8 | 9 => db.seal(),
            10..13 => {
                // Late enough for what waits until nothing more comes; now and then so late that things expire.
                self.now_ms += if step == 12 { 700_000 } else { 6_000 };
                db.maintain(self.now_ms).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What readers are to see of a model.
    fn visible(&self, model: &Model, series: u64) -> Vec<Sample> {
        let oldest_ms = self.now_ms - RETENTION_MS;
        let samples = model.get(&series).into_iter().flatten();
        samples
            .filter(|(at_ms, _)| **at_ms >= oldest_ms)
            .map(|(at_ms, value)| Sample::new(*at_ms, *value))
            .collect()
    }

    /// The store opens and holds what was acknowledged, and the last step whole or not at all.
    fn check(&mut self, after: Model) {
        let (db, _) = self.open(u64::MAX);
        let db = db.unwrap_or_else(|error| panic!("it does not open after the cut: {error}"));
        let limits = ReadLimits { samples_max: 1_000_000, cancelled: &|| false };
        let mut found = Vec::new();
        for series in 0..SERIES {
            let matchers = [Matcher::equal("pod", format!("p{series}"))];
            let selection = Selection { matchers: &matchers, visible: None };
            let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
            let samples: Vec<Sample> = read.into_iter().flat_map(|(_, samples)| samples).collect();
            self.check_ranges(&db, selection, limits, &samples);
            let latest = db.latest(selection).first().map(|(_, sample)| *sample);
            assert_eq!(latest, samples.last().copied(), "latest of series {series}");
            found.push(samples);
        }
        let all = |model: &Model| (0..SERIES).map(|series| self.visible(model, series)).collect::<Vec<_>>();
        let (before, done) = (all(&self.model), all(&after));
        self.told.push(format!("{} samples", found.iter().map(Vec::len).sum::<usize>()));
        if found == done {
            self.model = after;
        } else {
            assert!(
                found == before,
                "neither without the last step nor with it:\n{found:?}\n{before:?}\n{done:?}"
            );
        }
        let stats = db.stats();
        assert_eq!((stats.damaged_blocks, stats.damaged_chunks, stats.damaged_rollups), (0, 0, 0));
        let index = self.path(self.lives).join("index").display().to_string();
        let others: Vec<_> = stats.damage.iter().filter(|what| !what.contains(&index)).collect();
        assert!(others.is_empty() && stats.lost_log_groups == 0, "{others:?}");
        if !stats.damage.is_empty() {
            self.told.push("index made anew".to_owned());
        }
    }

    /// Ranges, through whatever rollups there are, are those of the samples.
    fn check_ranges(&self, db: &Db, selection: Selection<'_>, limits: ReadLimits<'_>, samples: &[Sample]) {
        for step_ms in [1_250, 500] {
            // From where all samples are still there.
            let start_ms = (self.now_ms - RETENTION_MS + 2 * PARTITION_MS) / 1_250 * 1_250;
            let grid = Grid { start_ms, end_ms: self.now_ms, step_ms };
            for aggregation in [Aggregation::Max, Aggregation::Last, Aggregation::Count] {
                let read = db.range(selection, grid, aggregation, false, limits).expect("read");
                let points: Vec<Sample> = read.series.into_iter().flat_map(|(_, points)| points).collect();
                assert_eq!(points, resample(samples, grid, aggregation), "{aggregation:?} {:?}", read.used);
            }
        }
    }

    fn run(seed: u64) -> Vec<String> {
        let mut history = Self::new(seed);
        for _ in 0..CUTS {
            let after = history.live_until_cut();
            history.check(after);
        }
        history.told
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// The directories of the histories are in memory where that can be: a cut drops what was not synced all the same.
fn run(seed: u64) -> Vec<String> {
    std::panic::catch_unwind(|| History::run(seed)).unwrap_or_else(|panic| {
        eprintln!("LOOKBACK_SEED={seed} does it again");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    if let Some(seed) = number("LOOKBACK_SEED") {
        run(seed).iter().for_each(|told| eprintln!("{told}"));
        return;
    }
    let histories = number("LOOKBACK_CRASHES").unwrap_or(8);
    let mut made_anew = 0;
    let mut cut_before: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..histories {
        for told in run(seed) {
            if told == "index made anew" {
                made_anew += 1;
            }
            if let Some(kind) = told.strip_prefix("cut before ") {
                let kind = kind.split(['(', ' ']).next().unwrap_or_default();
                *cut_before.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }
    eprintln!("{histories} histories, cut before {cut_before:?}, {made_anew} times the index made anew");
    assert!(histories < 30 || cut_before.len() >= 4, "cuts of every kind: {cut_before:?}");
}

#[test]
fn the_same_seed_does_the_same_again() {
    let (first, second) = (run(1_000_001), run(1_000_001));
    assert!(first.iter().any(|told| told.starts_with("cut before")));
    assert_eq!(first, second);
}
