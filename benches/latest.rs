//! What does the latest value cost, as the HPA asks for it: one pod, and all 500 pods of a namespace?
//! Alone, and while a writer is at work.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lookback_storage::{Matcher, OutOfOrder, Selection};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

fn latest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("latest");
    let series = common::series(500);
    let dir = tempfile::tempdir().expect("a directory");
    let db = common::open(dir.path());
    common::fill(&db, &series, 20);
    let pod = series[4].get("pod").expect("a pod").to_owned();
    let metric = Matcher::equal("__name__", "http_requests_per_second");
    let namespace = Matcher::equal("namespace", "prod");
    let one = [metric.clone(), namespace.clone(), Matcher::equal("pod", pod)];
    let all = [metric, namespace, Matcher::not_equal("pod", "")];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writing in [false, true] {
            if writing {
                let (db, stop, series) = (db.clone(), &stop, &series);
                scope.spawn(move || {
                    for at in (21..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        for batch in common::round(series, at, 2_000) {
                            let now_ms = common::START_MS + at * common::INTERVAL_MS;
                            db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
                        }
                    }
                });
            }
            let beside = if writing { "beside a writer" } else { "alone" };
            for (matchers, pods) in [(&one, 1), (&all, 500)] {
                group.throughput(Throughput::Elements(pods));
                group.bench_function(format!("{pods} pods, {beside}"), |bencher| {
                    bencher.iter(|| {
                        let latest = db.latest(Selection { matchers, visible: None });
                        assert_eq!(latest.len() as u64, pods);
                        black_box(latest)
                    });
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, latest);
criterion_main!(benches);
