//! Engines that answer far too much when latest values are read, in each of the ways in which they answer: a clear
//! refusal, bounded memory, and the next question is answered as if nothing had been.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use common::engine::{latest, push};
use common::process::Server;
use common::remote_write::Label;
use common::store::now_ms;
use futures::stream;
use prost::Message as _;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an engine answers without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Remote read: series after series, of a sample each.
    Series,
    /// Remote read: one series' chunks, of as many samples as can be.
    Chunks,
    /// VictoriaMetrics' blocks.
    Blocks,
    /// A line of VictoriaMetrics' export that does not end.
    Line,
    /// Such lines, of a sample each.
    Lines,
    /// A query's JSON.
    Json,
    /// Nothing: it refuses every question as Cortex does one that is beyond a tenant's limit.
    Refusal,
}

/// What Cortex says then.
const BEYOND_LIMIT: &str = "the query time range exceeds the limit (query length: 168h5m0s, limit: 12h0m0s)";

/// A real HTTP server that answers so, and how many bytes it has sent.
struct Engine {
    answer: Answer,
    sent: AtomicU64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkedReadResponse {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ChunkedSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    chunks: Vec<Chunk>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Chunk {
    #[prost(int32, tag = "3")]
    encoding: i32,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
}

fn put_unsigned(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_signed(number: i64, into: &mut Vec<u8>) {
    put_unsigned(((number << 1) ^ (number >> 63)).cast_unsigned(), into);
}

/// The labels of a series that is asked for, as long as they may be.
fn labels(number: u64) -> Vec<(String, String)> {
    let long = |with: &str| with.repeat(3_900 / with.len());
    let mut labels =
        vec![("__name__".to_owned(), "load".to_owned()), ("namespace".to_owned(), "default".to_owned())];
    labels.push(("pod".to_owned(), format!("pod-{number:012}")));
    labels.extend([("x", "a"), ("y", "b"), ("z", "c")].map(|(name, with)| (name.to_owned(), long(with))));
    labels
}

/// The same sample, again and again: two bits each.
fn chunk(samples: u16) -> Vec<u8> {
    let mut chunk = samples.to_be_bytes().to_vec();
    put_signed(now_ms(), &mut chunk);
    chunk.extend(7.0_f64.to_be_bytes());
    chunk.push(0);
    chunk.resize(chunk.len() + usize::from(samples) / 4 + 1, 0);
    chunk
}

/// A frame of a streamed remote read.
fn frame(number: u64, chunks: &[Vec<u8>]) -> Vec<u8> {
    let labels = labels(number).into_iter().map(|(name, value)| Label { name, value }).collect();
    let chunks = chunks.iter().map(|data| Chunk { encoding: 1, data: data.clone() }).collect();
    let message = ChunkedReadResponse { series: vec![ChunkedSeries { labels, chunks }] }.encode_to_vec();
    let mut frame = Vec::new();
    put_unsigned(message.len() as u64, &mut frame);
    frame.extend(crc32c::crc32c(&message).to_be_bytes());
    frame.extend(message);
    frame
}

/// A series and a block of it that says as much as a block can.
fn block(number: u64) -> Vec<u8> {
    let (mut series, mut block) = (b"load\x01".to_vec(), Vec::new());
    for (name, value) in &labels(number)[1..] {
        series.extend([name.as_bytes(), b"\x01", value.as_bytes(), b"\x01"].concat());
    }
    let now_ms = now_ms();
    put_signed(now_ms - 8_191, &mut block);
    put_signed(now_ms, &mut block);
    put_signed(7, &mut block);
    put_unsigned(8_192, &mut block);
    put_signed(0, &mut block);
    // One step for all times, one value.
    block.extend([2, 3, 64, 1, 2, 0]);
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    [sized(&series), sized(&block)].concat()
}

/// A series as JSON has its labels.
fn metric(number: u64) -> String {
    let pairs: Vec<String> =
        labels(number).iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// An answer that begins so and goes on with pieces without an end.
fn endless(
    engine: &Arc<Engine>,
    kind: &'static str,
    begin: Vec<u8>,
    piece: impl Fn(u64) -> Vec<u8> + Send + 'static,
) -> Response {
    let engine = Arc::clone(engine);
    let pieces = std::iter::once(begin).chain((1..).map(piece));
    let counted = pieces.filter(|piece| !piece.is_empty()).map(move |piece| {
        engine.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, Infallible>(Bytes::from(piece))
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream::iter(counted))).into_response()
}

/// Whether this is the question by which it is found out how samples are read.
fn is_probe(question: &[u8]) -> bool {
    question.windows(6).any(|part| part == b"_probe") || question.windows(8).any(|part| part == b"%5Fprobe")
}

async fn remote_read(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    let question = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    match engine.answer {
        Answer::Series | Answer::Chunks | Answer::Refusal if is_probe(&question) => {
            let nothing = snap::raw::Encoder::new().compress_vec(b"").unwrap();
            ([(header::CONTENT_TYPE, "application/x-protobuf")], nothing).into_response()
        }
        // Whoever takes no stream (field 2, its kind 1) gets one message.
        Answer::Series | Answer::Chunks if !question.ends_with(&[0x10, 1, 0x10, 0]) => {
            endless(&engine, "application/x-protobuf", Vec::new(), |_| vec![0; 65_536])
        }
        Answer::Series => {
            let one = chunk(1);
            endless(&engine, STREAMED, Vec::new(), move |number| frame(number, std::slice::from_ref(&one)))
        }
        Answer::Chunks => {
            let whole = frame(0, &vec![chunk(u16::MAX); 50]);
            endless(&engine, STREAMED, Vec::new(), move |_| whole.clone())
        }
        Answer::Refusal => (StatusCode::BAD_REQUEST, BEYOND_LIMIT).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn flags(State(engine): State<Arc<Engine>>) -> Response {
    match engine.answer {
        Answer::Blocks => "-storageDataPath=\"/data\"\n".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn blocks(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    match engine.answer {
        Answer::Blocks if is_probe(&body) => vec![0; 16].into_response(),
        Answer::Blocks => {
            endless(&engine, "VictoriaMetrics/native", vec![0; 16], |number| block(number % 1_000))
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn export(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    const LINES: &str = "application/stream+json";
    match engine.answer {
        Answer::Line | Answer::Lines if is_probe(&body) => ().into_response(),
        Answer::Line => {
            let begin = format!("{{\"metric\":{},\"values\":[1", metric(0)).into_bytes();
            endless(&engine, LINES, begin, |_| ",1".repeat(32_768).into_bytes())
        }
        Answer::Lines => endless(&engine, LINES, Vec::new(), |number| {
            let metric = metric(number);
            format!("{{\"metric\":{metric},\"values\":[7],\"timestamps\":[{}]}}\n", now_ms()).into_bytes()
        }),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn query(State(engine): State<Arc<Engine>>) -> Response {
    if engine.answer != Answer::Json {
        return StatusCode::NOT_FOUND.into_response();
    }
    let begin = b"{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{}".to_vec();
    endless(&engine, "application/json", begin, |number| {
        let seconds = now_ms() / 1_000;
        format!(",{{\"metric\":{},\"values\":[[{seconds},\"7\"]]}}", metric(number)).into_bytes()
    })
}

/// Runs an engine on a thread of its own, as long as the test does.
fn start(answer: Answer) -> (Arc<Engine>, SocketAddr) {
    let engine = Arc::new(Engine { answer, sent: AtomicU64::new(0) });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/api/v1/read", post(remote_read))
        .route("/flags", get(flags))
        .route("/api/v1/export/native", post(blocks))
        .route("/api/v1/export", post(export))
        .route("/api/v1/query", post(query))
        .with_state(Arc::clone(&engine));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    (engine, address)
}

#[test]
fn far_too_many_latest_values_are_refused_and_take_bounded_memory() {
    /// What is held at most: the bound of 256 MiB, as often as it is copied on its way, and all else.
    const PEAK_BYTES_MAX: u64 = 800 << 20;
    for (answer, said) in [
        (Answer::Series, "more than 256 MiB"),
        (Answer::Chunks, "10000000 samples"),
        (Answer::Blocks, "268435456 bytes"),
        (Answer::Line, "268435456 bytes"),
        (Answer::Lines, "more than 256 MiB"),
        (Answer::Json, "67108864 bytes"),
    ] {
        let (engine, address) = start(answer);
        let data = tempfile::tempdir().unwrap();
        let url = format!("http://{address}");
        let server =
            Server::start(data.path(), &["--store=prometheus", "--store-url", &url, "--log-level=error"]);
        server.process.forget_peak();
        let asked = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/load";
        let reply = server.get(asked);
        let (text, peak) = (reply.text(), server.process.peak_bytes());
        eprintln!(
            "{answer:?}: {} MiB at most, {} MiB sent: {text}",
            peak >> 20,
            engine.sent.load(Ordering::Relaxed) >> 20
        );
        assert_eq!(reply.status, 422, "{answer:?}: {text}");
        assert!(text.contains(said) && text.contains("ask for"), "{answer:?}: {text}");
        assert!(peak < PEAK_BYTES_MAX, "{answer:?}: {peak} bytes");
        // It is not sent on for nobody.
        let sent = engine.sent.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let after = engine.sent.load(Ordering::Relaxed);
        assert!(after - sent < 16 << 20, "{answer:?}: {} bytes more", after - sent);
        // What came in here is answered all the same, and what is taken goes back.
        assert_eq!(push(&server, "web-0", 7), 200);
        assert_eq!(latest(&server, "web-0"), "7");
    }
}

#[test]
fn a_limit_of_the_engine_is_told_in_its_own_words() {
    let (_, address) = start(Answer::Refusal);
    let data = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let server =
        Server::start(data.path(), &["--store=prometheus", "--store-url", &url, "--log-level=error"]);
    let (end_s, start_s) = (now_ms() / 1_000, now_ms() / 1_000 - 604_800);
    let range = format!("workload=web&namespace=default&metric=cpu&step=1h&start={start_s}&end={end_s}");
    for asked in [
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/load".to_owned(),
        "/api/v1/query?query=avg_over_time(load%5B7d%5D)".to_owned(),
        format!("/api/v1/query_range?query=load&start={start_s}&end={end_s}&step=3600"),
        format!("/api/v1/metrics?{range}"),
    ] {
        let reply = server.get(&asked);
        assert_eq!(reply.status, 422, "{asked}: {}", reply.text());
        assert!(reply.text().contains(BEYOND_LIMIT), "{asked}: {}", reply.text());
    }
}
