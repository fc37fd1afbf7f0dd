//! Real engines behind the seam. What is written by one replica is read by another, that has seen nothing of
//! it: so it is the engine that answers, not what the writer remembers.

use super::common::named_engine::{Flush, Kind, NamedEngine};
use super::common::prometheus::{self, Prometheus};
use super::common::victoria::{self, VictoriaMetrics};
use super::conformance::NOW_MS;
use async_trait::async_trait;
use lookback::clock::ManualClock;
use lookback::prometheus_client::ServerSettings;
use lookback::store::prometheus::{PrometheusStore, RemoteSettings};
use lookback::store::{
    Context, LabelsRequest, Latest, RangeRead, RangeRequest, SeriesReader, SeriesSamples, Store, StoreError,
    StoreStats,
};
use lookback_storage::{Matcher, OutOfOrder, WriteBatch, WriteReport};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Engines that run at once: each takes memory.
static ENGINES: Semaphore = Semaphore::const_new(3);

/// An engine with two stores over it.
pub(crate) struct Engine {
    replicas: Arc<Replicas>,
    /// The time of both stores.
    pub(crate) clock: Arc<ManualClock>,
    senders: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    _process: Option<Box<dyn Send>>,
    _dirs: Vec<TempDir>,
    _permit: SemaphorePermit<'static>,
}

/// Debian's Prometheus; `None`: it is not there.
pub(crate) async fn prometheus() -> Option<Engine> {
    if !prometheus::is_there("prometheus") {
        return None;
    }
    let permit = ENGINES.acquire().await.expect("never closed");
    let dir = tempfile::tempdir().expect("a directory");
    let config = |_| "storage: {tsdb: {out_of_order_time_window: 1h}}\n".to_owned();
    let args = [
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
    ];
    let process = Prometheus::start(dir.path(), config, &args);
    let server = at(process.address);
    Some(Engine::over(
        settings(server.clone(), "/api/v1/write", server),
        None,
        Some(Box::new(process)),
        dir,
        permit,
    ))
}

/// Debian's VictoriaMetrics; `None`: it is not there.
pub(crate) async fn victoria_metrics() -> Option<Engine> {
    if !victoria::is_there() {
        return None;
    }
    let permit = ENGINES.acquire().await.expect("never closed");
    let dir = tempfile::tempdir().expect("a directory");
    let process = VictoriaMetrics::start(dir.path());
    let (server, flush) = (at(process.address), Flush::at(&[format!("http://{}", process.address)]));
    let settings = settings(server.clone(), "/api/v1/write", server);
    Some(Engine::over(settings, Some(flush), Some(Box::new(process)), dir, permit))
}

/// The engine that runs already and is named by variables, a tenant of its own; `None`: none is.
pub(crate) async fn named() -> Option<(Engine, Kind)> {
    let engine = NamedEngine::from_variables()?;
    let permit = ENGINES.acquire().await.expect("never closed");
    let dir = tempfile::tempdir().expect("a directory");
    let (write, query) = (engine.server(&engine.write_url), engine.server(&engine.query_url));
    let settings = settings(write, "", query);
    Some((Engine::over(settings, Some(engine.flush()), None, dir, permit), engine.kind))
}

fn at(address: std::net::SocketAddr) -> ServerSettings {
    ServerSettings::new(format!("http://{address}").parse().expect("a URL"))
}

fn settings(write: ServerSettings, write_path: &'static str, query: ServerSettings) -> RemoteSettings {
    RemoteSettings {
        write,
        write_path,
        query,
        timeout: Duration::from_secs(30),
        replay_after: None,
        outbox_size_max_bytes: 64 << 20,
    }
}

impl Engine {
    fn over(
        settings: RemoteSettings,
        flush: Option<Flush>,
        process: Option<Box<dyn Send>>,
        dir: TempDir,
        permit: SemaphorePermit<'static>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (mut dirs, mut senders) = (vec![dir], Vec::new());
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let mut store = || {
            let dir = tempfile::tempdir().expect("a directory");
            let clock = Arc::clone(&clock);
            let random = Box::new(|| 0.5);
            let opened = PrometheusStore::open(dir.path(), settings.clone(), clock, random, stop.clone());
            let (store, sender) = opened.expect("opens");
            senders.push(tokio::spawn(sender.run()));
            dirs.push(dir);
            store
        };
        let replicas = Replicas { writer: store(), reader: store(), flush, wrote: AtomicBool::new(false) };
        let replicas = Arc::new(replicas);
        Self { replicas, clock, senders, stop, _process: process, _dirs: dirs, _permit: permit }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.replicas.clone()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        for sender in self.senders {
            sender.await.expect("it sent");
        }
    }
}

/// Writes go through one store, reads through the other once the engine has and shows everything.
struct Replicas {
    writer: PrometheusStore,
    reader: PrometheusStore,
    /// By which VictoriaMetrics is made to show what it has taken.
    flush: Option<Flush>,
    /// Whether something came since it was last made to.
    wrote: AtomicBool,
}

impl Replicas {
    async fn read(&self) -> &PrometheusStore {
        self.writer.sent().await;
        if let Some(flush) = &self.flush
            && self.wrote.swap(false, Ordering::Relaxed)
        {
            flush.flush().await;
        }
        &self.reader
    }
}

#[async_trait]
impl Store for Replicas {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        let appended = self.writer.append(context, batch, now_ms, out_of_order).await;
        self.wrote.store(true, Ordering::Relaxed);
        appended
    }

    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError> {
        self.read().await.latest(context, matchers, not_before_ms).await
    }

    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        self.read().await.select(context, matchers, start_ms, end_ms, samples_max).await
    }

    async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeRead, StoreError> {
        self.read().await.range(context, request).await
    }

    async fn reader(&self, context: &Context) -> Result<Box<dyn SeriesReader>, StoreError> {
        self.read().await.reader(context).await
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        self.read().await.labels(context, request).await
    }

    async fn delete(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, StoreError> {
        self.read().await;
        self.writer.delete(context, matchers, start_ms, end_ms).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.writer.stats().await
    }
}
