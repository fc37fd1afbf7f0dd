//! What does a week of a workload cost, as OptiPod asks for it: 10 pods of 2 containers each, 7 days at
//! 15 s (806,400 samples), resampled to 5 minutes?

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lookback_storage::{Aggregation, Db, Grid, Matcher, Options, ReadLimits, RollupWindows, Selection};
use std::hint::black_box;

const DAYS: i64 = 7;
const DAY_MS: i64 = 86_400_000;

fn range(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range");
    let series: Vec<_> =
        common::series(10).into_iter().filter(|labels| labels.metric_name() == "cpu").collect();
    let stores = [RollupWindows::new(), RollupWindows::from([(300_000, None)])].map(|rollups| {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { retention_ms: None, rollups, ..Options::default() };
        let db = Db::open(dir.path(), options, uuid::Uuid::new_v4()).expect("the store opens");
        common::fill(&db, &series, DAYS * DAY_MS / common::INTERVAL_MS);
        // Settled, and rolled up where that is asked for.
        for minutes in 0..3 {
            db.maintain(common::START_MS + (DAYS + 1) * DAY_MS + minutes * 60_000).expect("maintained");
        }
        (dir, db)
    });
    let matchers = [Matcher::equal("__name__", "cpu"), Matcher::equal("workload", "svc-00")];
    let limits = ReadLimits { samples_max: 10_000_000, cancelled: &|| false };
    let end_ms = common::START_MS + DAYS * DAY_MS;
    let grid = Grid { start_ms: common::START_MS, end_ms, step_ms: 300_000 };
    group.sample_size(20);
    group
        .throughput(Throughput::Elements(series.len() as u64 * (DAYS * DAY_MS / common::INTERVAL_MS) as u64));
    for (name, rolled_up) in [("avg", false), ("p95", false), ("avg", true), ("max", true)] {
        let aggregation: Aggregation = name.parse().expect("known");
        let db = &stores[usize::from(rolled_up)].1;
        let of = if rolled_up { " of rollups" } else { "" };
        group.bench_function(format!("20 series, 7 days at 5 minutes, {name}{of}"), |bencher| {
            bencher.iter(|| {
                let selection = Selection { matchers: &matchers, visible: None };
                let answer = db.range(selection, grid, aggregation, false, limits).expect("answered");
                assert_eq!((answer.series.len(), answer.used.samples), (20, !rolled_up));
                black_box(answer)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, range);
criterion_main!(benches);
