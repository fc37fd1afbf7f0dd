//! Questions, asked by several connections at once for a while, of one server after another and again.

use super::http::Connection;
use super::server::{Peer, Server};
use super::workload::{DAY_MS, PODS_PER_WORKLOAD, workload};
use std::time::{Duration, Instant};

pub(crate) const CONNECTIONS: usize = 8;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `query_range` of the 20 series of a workload's metric, at 5 minutes.
    Range,
    /// The same of `avg_over_time` over 5 minutes.
    Average,
    /// `query` of one metric of all 500 pods.
    Instant,
    /// Lookback's own endpoint of a workload's history, at 5 minutes.
    Workload,
}

impl Question {
    pub(crate) const ALL: [Self; 4] = [Self::Range, Self::Average, Self::Instant, Self::Workload];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Range => "query_range of 20 series at 5 min",
            Self::Average => "query_range of avg_over_time[5m] of 20 series at 5 min",
            Self::Instant => "query of 500 series at an instant",
            Self::Workload => "/api/v1/metrics of a workload (20 series) at 5 min",
        }
    }

    /// Whether a server can be asked this.
    pub(crate) fn is_for(self, peer: Peer) -> bool {
        self != Self::Workload || peer == Peer::Lookback
    }

    fn series(self) -> usize {
        if self == Self::Instant { 500 } else { 2 * PODS_PER_WORKLOAD }
    }

    /// The paths, of which each request takes the next.
    fn paths(self, peer: Peer, start_ms: i64, end_ms: i64) -> Vec<String> {
        let (start, end, more) = (start_ms / 1_000, end_ms / 1_000, peer.uncached());
        if self == Self::Instant {
            let metrics = ["http_requests_per_second", "queue_depth", "request_latency_p99_seconds"];
            let path = |metric| {
                let query = encoded(&format!("{metric}{{namespace=\"prod\"}}"));
                format!("/api/v1/query?query={query}&time={}{more}", end - 10)
            };
            return metrics.map(path).into();
        }
        let mut paths = Vec::new();
        for workload in (0..50).map(workload) {
            for (metric, name) in
                [("cpu", "container_cpu_usage_cores"), ("memory", "container_memory_working_set_bytes")]
            {
                if self == Self::Workload {
                    paths.push(format!(
                        "/api/v1/metrics?workload={workload}&namespace=prod&metric={metric}&start={start}\
                         &end={end}&step=5m&aggregation=avg"
                    ));
                    continue;
                }
                let mut query = format!("{name}{{namespace=\"prod\",workload=\"{workload}\"}}");
                if self == Self::Average {
                    query = format!("avg_over_time({query}[5m])");
                }
                let query = encoded(&query);
                paths.push(format!(
                    "/api/v1/query_range?query={query}&start={start}&end={end}&step=300{more}"
                ));
            }
        }
        paths
    }
}

pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// What answering cost.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) answer_bytes: usize,
}

/// Asks for a while. `end_ms` is the end of what was loaded; at most seven days before it are asked for.
pub(crate) fn ask(server: &Server, question: Question, days: f64, end_ms: i64, time: Duration) -> Asked {
    let start_ms = end_ms - (days.min(7.0) * DAY_MS as f64) as i64;
    // The first point lies a step after what was loaded first.
    let paths = question.paths(server.peer, start_ms + 300_000, end_ms);
    let answer_bytes = check(server, question, &paths[0]);
    let (began, cpu_s) = (Instant::now(), server.cpu_s());
    let mut took: Vec<f64> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CONNECTIONS)
            .map(|own| {
                let paths = &paths;
                scope.spawn(move || {
                    let mut connection = Connection::open(&server.address).expect("connected");
                    let mut took = Vec::new();
                    for path in paths.iter().cycle().skip(own * 17) {
                        let asked = Instant::now();
                        assert_eq!(connection.get(path).expect("answered"), 200, "{path}");
                        took.push(asked.elapsed().as_secs_f64() * 1e3);
                        if began.elapsed() > time {
                            break;
                        }
                    }
                    took
                })
            })
            .collect();
        asking.into_iter().flat_map(|took| took.join().expect("asked")).collect()
    });
    let (seconds, cpu_s) = (began.elapsed().as_secs_f64(), server.cpu_s() - cpu_s);
    took.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    Asked {
        per_s: took.len() as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_ms: cpu_s * 1e3 / took.len() as f64,
        answer_bytes,
    }
}

/// Sees to it that the answer has what was asked for.
fn check(server: &Server, question: Question, path: &str) -> usize {
    let mut connection = Connection::open(&server.address).expect("connected");
    let status = connection.get(path).expect("answered");
    let text = String::from_utf8_lossy(&connection.body);
    let series = text.matches("\"metric\":").count();
    let start: String = text.chars().take(300).collect();
    assert_eq!((status, series), (200, question.series()), "{} to {path}: {start}", server.peer.name());
    text.len()
}
