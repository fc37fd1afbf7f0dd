//! What does a durable append cost? Requests of one sample a series, as senders make them, from one
//! and from eight writers that share group commits; each is acknowledged after the sync.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lookback_storage::OutOfOrder;
use std::cell::Cell;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    let series = common::series(500);
    group.sample_size(20);
    for (writers, per_batch) in [(1, 1), (1, 2_000), (8, 500)] {
        let dir = tempfile::tempdir().expect("a directory");
        let db = common::open(dir.path());
        let step = Cell::new(0);
        let used = if per_batch == 1 { &series[..1] } else { &series[..] };
        group.throughput(Throughput::Elements(used.len() as u64));
        group.bench_function(format!("{writers} writers, {per_batch} samples a request"), |bencher| {
            bencher.iter_batched(
                || {
                    step.set(step.get() + 1);
                    common::round(used, step.get(), per_batch)
                },
                |batches| {
                    let now_ms = common::START_MS + step.get() * common::INTERVAL_MS;
                    std::thread::scope(|scope| {
                        for part in batches.chunks(batches.len().div_ceil(writers)) {
                            let (db, part) = (&db, part.to_vec());
                            scope.spawn(move || {
                                for batch in part {
                                    db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
                                }
                            });
                        }
                    });
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
