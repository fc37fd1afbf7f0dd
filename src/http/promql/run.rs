//! Work that blocks, on a thread of its own ([`QueryThreads`]), and its answer while it is written.

use super::request::Failure;
use crate::app::App;
use crate::http::error::ApiError;
use crate::query::promql::{QueryThreads, Stop};
use crate::store::{Context, Scope, SeriesReader};
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// How much of an answer is sent at once, in bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// How many chunks wait for a slow reader before the writer waits for it.
const CHUNKS_WAITING_MAX: usize = 4;

/// How much longer than its time a thread gets to notice that it is over.
const GRACE: Duration = Duration::from_secs(2);

/// Turns of evaluation, by which there is a bound to how many threads are at work.
#[derive(Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    threads: QueryThreads,
}

impl Turns {
    pub(super) fn new(concurrency: usize) -> Self {
        let free = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Self { free, threads: QueryThreads::default() }
    }

    async fn next(&self, timeout: Duration) -> Result<OwnedSemaphorePermit, Failure> {
        let turn = tokio::time::timeout(timeout, Arc::clone(&self.free).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            Failure::timeout(
                "query timed out in query queue: too many are evaluated at once, ask again later",
            )
        })
    }
}

/// What work is done with.
pub(super) struct Bench<'a> {
    /// The series that the caller may see.
    pub(super) reader: &'a dyn SeriesReader,
    /// Whether to stop.
    pub(super) stop: &'a (dyn Fn() -> Option<Stop> + Sync),
}

/// What work comes to.
pub(super) trait Answer {
    /// Writes it as JSON. Fails when nobody reads it any more.
    fn write(self, writer: &mut Writer) -> fmt::Result;
}

/// Sends an answer while it is written.
pub(super) struct Writer {
    text: String,
    /// For the beginning of the answer, until that is sent.
    first: Option<oneshot::Sender<Result<String, Failure>>>,
    chunks: mpsc::Sender<String>,
}

impl Writer {
    fn send(&mut self) -> fmt::Result {
        let text = std::mem::take(&mut self.text);
        let sent = match self.first.take() {
            Some(first) => first.send(Ok(text)).is_ok(),
            None => text.is_empty() || self.chunks.blocking_send(text).is_ok(),
        };
        if sent { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() < CHUNK_BYTES { Ok(()) } else { self.send() }
    }
}

/// Tells the thread, however the request ends.
struct GoneOnDrop(Arc<AtomicBool>);

impl Drop for GoneOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` and answers with what comes of it.
pub(super) async fn run<A: Answer>(
    app: &App,
    turns: &Turns,
    scope: &Scope,
    timeout: Duration,
    work: impl FnOnce(&Bench<'_>) -> Result<A, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let deadline = Instant::now() + timeout;
    let turn = turns.next(timeout).await?;
    let context = Context { scope: scope.clone(), timeout };
    let reader = tokio::time::timeout(timeout, app.store.reader(&context)).await;
    let reader = reader.map_err(|_| Failure::timeout("query timed out while the store was asked"))??;

    let gone = Arc::new(AtomicBool::new(false));
    let _gone_on_drop = GoneOnDrop(Arc::clone(&gone));
    let (first, answered) = oneshot::channel();
    let (chunks, more) = mpsc::channel(CHUNKS_WAITING_MAX);
    let doing = move || {
        let stop = || {
            if gone.load(Ordering::Relaxed) {
                Some(Stop::Canceled)
            } else {
                (Instant::now() >= deadline).then_some(Stop::Timeout)
            }
        };
        match work(&Bench { reader: reader.as_ref(), stop: &stop }) {
            // Where sending fails nobody waits for it any more.
            Err(failure) => drop(first.send(Err(failure))),
            Ok(answer) => {
                let mut writer = Writer { text: String::new(), first: Some(first), chunks };
                let _ = answer.write(&mut writer).and_then(|()| writer.send());
            }
        }
        drop(turn);
    };
    turns.threads.run(doing).map_err(|error| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("no thread for the query: {error}"))
    })?;
    match tokio::time::timeout(timeout + GRACE, answered).await {
        Ok(Ok(Ok(text))) => Ok(respond(text, more)),
        Ok(Ok(Err(failure))) => Err(failure),
        Ok(Err(_)) => {
            let message = "a defect of Lookback: the thread of the query broke off, see the log";
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message).into())
        }
        Err(_) => Err(Failure::timeout("query timed out in expression evaluation")),
    }
}

/// The beginning of an answer, and the rest as it comes; an answer that fits its beginning goes whole.
fn respond(first: String, mut more: mpsc::Receiver<String>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    if first.len() < CHUNK_BYTES {
        return (json, first).into_response();
    }
    let rest = futures::stream::poll_fn(move |context| more.poll_recv(context));
    let all = futures::StreamExt::chain(futures::stream::iter([first]), rest);
    let all = futures::StreamExt::map(all, |text| Ok::<_, Infallible>(Bytes::from(text)));
    (json, Body::from_stream(all)).into_response()
}
