//! What do queries cost in the engine and the evaluator, without HTTP: a week of a workload as dashboards ask
//! for it, the latest values of many series, and what right-sizers ask of a whole namespace?

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use lookback::query::promql::{Options as Evaluation, Query, Steps, Task, Value};
use lookback::store::embedded::EmbeddedStore;
use lookback::store::{Context, Scope, SeriesReader, Store};
use lookback_storage::Options;
use std::hint::black_box;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;
const DAYS: i64 = 7;

/// A store of this many pods' series over so many hours, settled.
struct Filled {
    _dir: tempfile::TempDir,
    reader: Box<dyn SeriesReader>,
    end_ms: i64,
}

impl Filled {
    fn new(pods: usize, hours: i64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { retention_ms: None, ..Options::default() };
        let store = EmbeddedStore::open(dir.path(), options).expect("the store opens");
        common::fill(store.engine(), &common::series(pods), hours * HOUR_MS / common::INTERVAL_MS);
        let context = Context { scope: Scope::All, timeout: Duration::from_secs(60) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reader = runtime.block_on(store.reader(&context)).expect("a reader");
        Self { _dir: dir, reader, end_ms: common::START_MS + hours * HOUR_MS }
    }

    /// The series of an answer.
    fn ask(&self, query: &Query, steps: Steps) -> usize {
        let task =
            Task { reader: self.reader.as_ref(), options: Evaluation::default(), steps, stop: &|| None };
        let outcome = if steps.count() == 1 { task.instant(query) } else { task.range(query) };
        match black_box(outcome.expect("answered")).value {
            Value::Vector(vector) => vector.len(),
            Value::Matrix(rows) => rows.len(),
            Value::Scalar(_) | Value::Text(..) => 0,
        }
    }
}

fn promql(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("promql");
    group.sample_size(10);
    let week = Filled::new(10, DAYS * 24);
    let start_ms = week.end_ms - DAYS * 24 * HOUR_MS;
    let every = |step_ms: i64| Steps::range(start_ms, week.end_ms, step_ms).expect("steps");
    for (name, text, steps, series) in [
        ("20 series, 7 days at 5 minutes", r#"cpu{workload="svc-00"}"#, every(300_000), 20),
        ("the same, avg_over_time[5m]", r#"avg_over_time(cpu{workload="svc-00"}[5m])"#, every(300_000), 20),
        ("the same, summed up", r#"sum(cpu{workload="svc-00"})"#, every(300_000), 1),
        ("the same, rate[5m]", r#"rate(cpu{workload="svc-00"}[5m])"#, every(300_000), 20),
        (
            "70 series, 7 days at 1 hour, last_over_time[1h]",
            r#"last_over_time({namespace="prod"}[1h])"#,
            every(HOUR_MS),
            70,
        ),
        (
            "a quantile of a maximum, 7 days at 75 seconds",
            r#"quantile_over_time(0.95, max(cpu{workload="svc-00"}) by (pod)[7d:75s])"#,
            Steps::instant(week.end_ms),
            10,
        ),
    ] {
        let query = Query::parse(text).expect(text);
        group.bench_function(name, |bencher| bencher.iter(|| assert_eq!(week.ask(&query, steps), series)));
    }
    drop(week);
    let wide = Filled::new(500, 1);
    let query = Query::parse(r#"queue_depth{namespace="prod"}"#).expect("a query");
    let steps = Steps::instant(wide.end_ms);
    group.bench_function("latest of 500 series", |bencher| {
        bencher.iter(|| assert_eq!(wide.ask(&query, steps), 500))
    });
    group.finish();
}

criterion_group!(benches, promql);
criterion_main!(benches);
