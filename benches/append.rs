//! What does a durable append cost? Requests of one sample a series, as senders make them, from one
//! and from eight writers that share group commits; each is acknowledged after the sync. Prints, beside the
//! time, what the whole process takes of the CPU, sled's threads and all: making the requests is left out.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lookback_storage::{Db, OutOfOrder, WriteBatch};
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: lookback_allocator::MiMalloc = lookback_allocator::MiMalloc;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    let series = common::series(500);
    group.sample_size(20);
    for (writers, per_batch) in [(1, 1), (1, 2_000), (8, 500)] {
        let dir = tempfile::tempdir().expect("a directory");
        let db = common::open(dir.path());
        let used = if per_batch == 1 { &series[..1] } else { &series[..] };
        let (mut step, mut samples, mut used_cpu) = (0, 0, Duration::ZERO);
        group.throughput(Throughput::Elements(used.len() as u64));
        group.bench_function(format!("{writers} writers, {per_batch} samples a request"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    step += 1;
                    let requests = shared_out(common::round(used, step, per_batch), writers);
                    let now_ms = common::START_MS + step * common::INTERVAL_MS;
                    let (began, cpu) = (Instant::now(), cpu());
                    write(&db, requests, now_ms);
                    took += began.elapsed();
                    used_cpu += self::cpu() - cpu;
                    samples += used.len();
                }
                db.maintain(common::START_MS + step * common::INTERVAL_MS).expect("maintained");
                took
            });
        });
        if samples == 0 {
            // Another one was asked for.
            continue;
        }
        let cpu_s = used_cpu.as_secs_f64() * 1e6 / samples as f64;
        println!("{writers} writers, {per_batch} samples a request: {cpu_s:.3} CPU s a million samples");
    }
    group.finish();
}

/// The requests of each writer.
fn shared_out(mut requests: Vec<WriteBatch>, writers: usize) -> Vec<Vec<WriteBatch>> {
    let each = requests.len().div_ceil(writers);
    let mut shared = Vec::new();
    while !requests.is_empty() {
        shared.push(requests.drain(..each.min(requests.len())).collect());
    }
    shared
}

/// Each writer's requests one after the other, all writers at once.
fn write(db: &Db, requests: Vec<Vec<WriteBatch>>, now_ms: i64) {
    std::thread::scope(|scope| {
        for of_writer in requests {
            scope.spawn(move || {
                for batch in of_writer {
                    db.append_wait(batch, now_ms, OutOfOrder::Window).expect("appended");
                }
            });
        }
    });
}

/// What the process has used of the CPU.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}

criterion_group!(benches, append);
criterion_main!(benches);
