//! A store filled as a cluster fills it.

use lookback_storage::{Db, Labels, Options, OutOfOrder, WriteBatch};
use std::path::Path;

/// When the history begins, Unix milliseconds.
pub(crate) const START_MS: i64 = 1_794_700_800_000;
/// From sample to sample.
pub(crate) const INTERVAL_MS: i64 = 15_000;

#[allow(dead_code, reason = "not every bench opens a store itself")]
pub(crate) fn open(dir: &Path) -> Db {
    let options = Options { retention_ms: None, ..Options::default() };
    Db::open(dir, options, uuid::Uuid::new_v4()).expect("the store opens")
}

/// The label sets of `pods` pods: cpu and memory of two containers each, and three of the pod itself.
pub(crate) fn series(pods: usize) -> Vec<Labels> {
    let mut all = Vec::new();
    for pod in 0..pods {
        let workload = format!("svc-{:02}", pod / 10);
        let name = format!("{workload}-7d4b9c6f5d-{pod:05}");
        let node = format!("node-{:02}", pod % 25);
        let mut push = |metric: &str, container: &str| {
            let labels = [
                ("__name__", metric),
                ("container", container),
                ("namespace", "prod"),
                ("node", &node),
                ("pod", &name),
                ("workload", &workload),
            ];
            all.push(Labels::new(labels).expect("valid"));
        };
        for container in ["app", "sidecar"] {
            push("cpu", container);
            push("memory", container);
        }
        for metric in ["http_requests_per_second", "queue_depth", "request_latency_p99_seconds"] {
            push(metric, "");
        }
    }
    all
}

/// A value that drifts as a load does, different for each series and time.
pub(crate) fn value(series: usize, at: i64) -> f64 {
    let phase = series as f64 * 0.7 + at as f64 / 240.0;
    ((phase.sin() + 1.5) * 1e6 + ((series as i64 * 7_919 + at * 104_729) % 1_000) as f64).round() / 1e6
}

#[allow(dead_code, reason = "not every bench appends itself")]
/// One sample of each series at step `at`, in requests of at most `per_batch` samples.
pub(crate) fn round(series: &[Labels], at: i64, per_batch: usize) -> Vec<WriteBatch> {
    let time_ms = START_MS + at * INTERVAL_MS;
    let batch = |(part, labels): (usize, &[Labels])| {
        let mut batch = WriteBatch::default();
        for (place, labels) in labels.iter().enumerate() {
            batch.push(labels.clone(), Some(time_ms), value(part * per_batch + place, at));
        }
        batch
    };
    series.chunks(per_batch).enumerate().map(batch).collect()
}

/// Appends `steps` rounds, sealing each day.
#[allow(dead_code, reason = "not every bench reads history")]
pub(crate) fn fill(db: &Db, series: &[Labels], steps: i64) {
    for at in 0..steps {
        for batch in round(series, at, 100_000) {
            db.append_wait(batch, START_MS + steps * INTERVAL_MS, OutOfOrder::Window).expect("appended");
        }
        if at % (86_400_000 / INTERVAL_MS) == 0 {
            db.seal().expect("sealed");
        }
    }
    db.seal().expect("sealed");
}
