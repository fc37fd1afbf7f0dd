//! What does it cost to ask an engine through Lookback's store, beside asking it directly? Debian's VictoriaMetrics and
//! Prometheus, with the latest values of 500 pods and 7 days of a workload of 20 series every 15 s: the store that
//! `--store prometheus` puts before it, and the client that it uses, asked in turns in one run. Directly the engine
//! computes the same range itself (`avg_over_time`), and gives latest values as an instant query does.
//!
//! Not a criterion bench: whole processes. CPU seconds are those of the engine and of whoever asks, together; times of
//! single questions are told beside them. `--seconds N` asks for so long a block.

mod common;
#[path = "peers/http.rs"]
#[expect(dead_code, reason = "the peers' loader uses all of it")]
mod http;
#[path = "peers/server.rs"]
#[expect(dead_code, reason = "the peers' bench uses all of it")]
mod server;

use common::{INTERVAL_MS, series, value};
use lookback::clock::{Clock, ManualClock, SystemClock};
use lookback::prometheus_client::{PrometheusClient, ServerSettings, Value, selector, write_request};
use lookback::store::prometheus::{PrometheusStore, RemoteSettings};
use lookback::store::{Context, RangeRequest, Scope, Store};
use lookback_storage::{Aggregation, Labels, Matcher, Sample};
use server::{Peer, Server};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PODS: usize = 500;
const DAYS: i64 = 7;
const DAY_MS: i64 = 86_400_000;
const STEP_MS: i64 = 300_000;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Blocks of each way of asking, in turns.
const BLOCKS: usize = 4;

/// CPU seconds that this process has used.
fn own_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("read");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// What one way of asking has cost.
#[derive(Default)]
struct Cost {
    engine_cpu_s: f64,
    own_cpu_s: f64,
    took_ms: Vec<f64>,
}

impl Cost {
    fn cpu_ms(&self) -> f64 {
        (self.engine_cpu_s + self.own_cpu_s) * 1e3 / self.took_ms.len() as f64
    }

    fn p50_ms(&self) -> f64 {
        let mut sorted = self.took_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// Asks again and again for a block, and adds what it cost.
async fn block<F: Future<Output = usize>>(
    engine: &Server,
    time: Duration,
    expected: usize,
    cost: &mut Cost,
    ask: impl Fn() -> F,
) {
    let (began, engine_cpu_s, cpu_s) = (Instant::now(), engine.cpu_s(), own_cpu_s());
    while began.elapsed() < time {
        let asked = Instant::now();
        assert_eq!(ask().await, expected, "it answers everything");
        cost.took_ms.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    cost.engine_cpu_s += engine.cpu_s() - engine_cpu_s;
    cost.own_cpu_s += own_cpu_s() - cpu_s;
}

/// Puts the history in: a workload's for all days, an hour of what 500 pods tell.
async fn load(client: &PrometheusClient, end_ms: i64) {
    let all = series(PODS);
    let is_range =
        |labels: &Labels| labels.metric_name() == "cpu" && labels.get("workload") == Some("svc-00");
    let is_latest = |labels: &Labels| labels.metric_name() == "http_requests_per_second";
    let steps = DAYS * DAY_MS / INTERVAL_MS;
    for from in (0..steps).step_by(240) {
        let is_last_hour = from + 240 >= steps;
        let mut messages = Vec::new();
        for (at, labels) in all.iter().enumerate() {
            if !(is_range(labels) || (is_last_hour && is_latest(labels))) {
                continue;
            }
            let samples: Vec<Sample> = (from..steps.min(from + 240))
                .map(|step| Sample::new(end_ms - (steps - 1 - step) * INTERVAL_MS, value(at, step)))
                .collect();
            messages.push((labels, samples));
        }
        for some in messages.chunks(100) {
            let request = write_request(some.iter().map(|(labels, samples)| (*labels, &samples[..])));
            let compressed = snap::raw::Encoder::new().compress_vec(&request).expect("compressed");
            client.remote_write("/api/v1/write", compressed.into(), TIMEOUT).await.expect("taken");
        }
    }
}

/// How many points or values an answer has.
fn points(value: &Value) -> usize {
    match value {
        Value::Matrix(series) => series.iter().map(|one| one.values.len()).sum(),
        Value::Vector(values) => values.len(),
        Value::Scalar(_) | Value::String(_) => 0,
    }
}

async fn compare(peer: Peer, seconds: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let more: &[&str] = match peer {
        Peer::VictoriaMetrics => &["-dedup.minScrapeInterval=1ms"],
        _ => &[],
    };
    let Some(engine) = Server::start(peer, &dir.path().join("engine"), more) else {
        println!("{}: not on this machine", peer.name());
        return;
    };
    let at = ServerSettings::new(format!("http://{}", engine.address).parse().expect("a URL"));
    let client = PrometheusClient::new(at.clone()).expect("a client");
    let settings = RemoteSettings {
        write: at.clone(),
        write_path: "/api/v1/write",
        query: at,
        timeout: TIMEOUT,
        replay_after: None,
        outbox_size_max_bytes: 64 << 20,
    };
    let stop = CancellationToken::new();
    let (outbox, random) = (dir.path().join("outbox"), Box::new(|| 0.5));
    let end_ms = SystemClock.now_ms() / STEP_MS * STEP_MS;
    let clock = Arc::new(ManualClock::new(end_ms));
    let opened = PrometheusStore::open(&outbox, settings, clock.clone(), random, stop.clone());
    let (store, sender) = opened.expect("the store opens");
    let sending = tokio::spawn(sender.run());

    load(&client, end_ms).await;
    engine.wait_for_rest(Duration::from_secs(4), Duration::from_secs(60));
    let context = Context { scope: Scope::All, timeout: TIMEOUT };
    let of_range = [
        Matcher::equal("__name__", "cpu"),
        Matcher::equal("namespace", "prod"),
        Matcher::equal("workload", "svc-00"),
    ];
    let of_latest =
        [Matcher::equal("__name__", "http_requests_per_second"), Matcher::equal("namespace", "prod")];
    let (start_ms, block_time) = (end_ms - DAYS * DAY_MS + STEP_MS, Duration::from_secs(seconds));
    let direct_range = format!("avg_over_time({}[{}ms])", selector(&of_range), STEP_MS);
    let direct_latest = selector(&of_latest);
    let uncached = [("nocache", "1".to_owned()), ("latency_offset", "1ms".to_owned())];
    let range_points = 20 * usize::try_from((end_ms - start_ms) / STEP_MS + 1).expect("few");

    let (mut direct, mut through) = (Cost::default(), Cost::default());
    for _ in 0..BLOCKS {
        block(&engine, block_time, range_points, &mut direct, || async {
            let span = (start_ms, end_ms);
            let answer = client.query_range(&direct_range, span, STEP_MS, &uncached, TIMEOUT).await;
            points(&answer.expect("an answer").data)
        })
        .await;
        block(&engine, block_time, range_points, &mut through, || async {
            let request = RangeRequest {
                matchers: of_range.to_vec(),
                start_ms,
                end_ms,
                step_ms: STEP_MS,
                aggregation: Aggregation::Avg,
                counter: false,
                samples_max: 50_000_000,
                points_max: usize::MAX,
            };
            let read = store.range(&context, request).await.expect("an answer");
            read.series.iter().map(|series| series.samples.len()).sum()
        })
        .await;
    }
    tell(peer, "20 series × 7 days at 5 min", &direct, &through);

    let (mut direct, mut through) = (Cost::default(), Cost::default());
    let asked = Cell::new(0i64);
    for _ in 0..BLOCKS {
        block(&engine, block_time, PODS, &mut direct, || async {
            let answer = client.query_with(&direct_latest, Some(end_ms), &uncached, TIMEOUT).await;
            points(&answer.expect("an answer").data)
        })
        .await;
        block(&engine, block_time, PODS, &mut through, || {
            // Every fourth question is for the whole time, as when an autoscaler asks every 15 seconds. The samples stay
            // where they are, so the clock is put back for it, a little further each time: then nothing is known.
            let number = asked.get();
            asked.set(number + 1);
            clock.set_ms(end_ms - number / 4 + number % 4 * 9_000);
            async { store.latest(&context, &of_latest, end_ms - 300_000).await.expect("an answer").len() }
        })
        .await;
    }
    tell(peer, "latest of 500 pods", &direct, &through);
    stop.cancel();
    sending.await.expect("it ended");
}

fn tell(peer: Peer, what: &str, direct: &Cost, through: &Cost) {
    let one = |cost: &Cost| {
        let asked = cost.took_ms.len() as f64;
        format!(
            "{:.2} ms CPU (engine {:.2}, asking {:.2}), p50 {:.2} ms",
            cost.cpu_ms(),
            cost.engine_cpu_s * 1e3 / asked,
            cost.own_cpu_s * 1e3 / asked,
            cost.p50_ms()
        )
    };
    println!("{}, {what}", peer.name());
    println!("  directly            {}", one(direct));
    println!("  through the store   {}", one(through));
    println!(
        "  ratio               {:.2} of CPU, {:.2} of p50",
        through.cpu_ms() / direct.cpu_ms(),
        through.p50_ms() / direct.p50_ms()
    );
}

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--seconds").skip(1);
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    for peer in [Peer::VictoriaMetrics, Peer::Prometheus] {
        runtime.block_on(compare(peer, seconds));
    }
}
