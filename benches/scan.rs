//! How fast are samples read back, on one core, from settled blocks whose bytes the kernel has in memory?
//! A day of 140 series at 15 s (806,400 samples), all of it, and one series of it.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lookback_storage::{Matcher, Pick, ReadLimits, Selection};
use std::ops::ControlFlow;

const DAY_MS: i64 = 86_400_000;

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    let series = common::series(20);
    let dir = tempfile::tempdir().expect("a directory");
    let db = common::open(dir.path());
    let steps = DAY_MS / common::INTERVAL_MS;
    common::fill(&db, &series, steps);
    for minutes in 0..3 {
        db.maintain(common::START_MS + 2 * DAY_MS + minutes * 60_000).expect("maintained");
    }
    let range = (common::START_MS, common::START_MS + DAY_MS);
    let limits = ReadLimits { samples_max: 10_000_000, cancelled: &|| false };
    let one = [Matcher::equal("__name__", "cpu"), Matcher::equal("container", "app")];
    for (name, matchers, expected) in [("140 series", &[][..], 140), ("20 series of one metric", &one, 20)] {
        group.throughput(Throughput::Elements(expected * steps as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (mut seen, mut sum) = (0, 0.0);
                let selection = Selection { matchers, visible: None };
                db.select_each(selection, range, Pick::All, limits, &mut |_, samples| {
                    seen += samples.len() as u64;
                    sum += samples.iter().map(|sample| sample.value).sum::<f64>();
                    ControlFlow::Continue(())
                })
                .expect("read");
                assert_eq!(seen, expected * steps as u64);
                std::hint::black_box(sum)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
