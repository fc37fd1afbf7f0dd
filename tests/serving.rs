//! What connections do to the server, and what its end does to them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use common::tls::{Http, ServerUnderTest, TestCa, Tls};
use hyper::StatusCode;
use lookback::http::server::Limits;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Long enough for anything that does not hang.
const SOON: Duration = Duration::from_secs(5);

fn router() -> Router {
    let slow = async |Path(ms): Path<u64>| {
        sleep(Duration::from_millis(ms)).await;
        "slow"
    };
    Router::new().route("/ok", get(async || "ok")).route("/slow/{ms}", get(slow))
}

async fn secure(limits: Limits) -> (ServerUnderTest, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (ServerUnderTest::start(router(), dir.path(), limits).await, dir)
}

async fn is_closed_soon(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    // Closed or reset: gone either way.
    timeout(SOON, stream.read_to_end(&mut bytes)).await.is_ok()
}

#[tokio::test]
async fn dropped_and_broken_handshakes_do_no_harm() {
    let (server, _dir) = secure(Limits::default()).await;
    let address = server.client.address;
    for bytes in [
        &b""[..],
        b"\x16\x03\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            drop(stream);
        }
    }
    for http in [Http::V1, Http::V2] {
        assert_eq!(server.client.http(http).get("/ok", &[]).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn connections_dropped_after_the_handshake_do_no_harm() {
    let (server, _dir) = secure(Limits::default()).await;
    for http in [Http::V1, Http::V2] {
        let client = server.client.http(http);
        for _ in 0..10 {
            drop(client.handshake(TcpStream::connect(client.address).await.unwrap()).await.unwrap());
        }
        assert_eq!(client.get("/ok", &[]).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_closed() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let (server, _dir) = secure(limits).await;
    let mut silent = TcpStream::connect(server.client.address).await.unwrap();
    assert!(is_closed_soon(&mut silent).await);
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_closed() {
    let limits = Limits { header_read_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = ServerUnderTest::start_plain(router(), limits).await;
    for bytes in [
        &b""[..],
        b"G",
        b"GET /ok HTTP/1.1\r\nHost: x\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.client.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert!(is_closed_soon(&mut stream).await, "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let (server, _dir) = secure(limits).await;
    for http in [Http::V1, Http::V2] {
        let mut connection = server.client.http(http).open().await.unwrap();
        let answer = connection.send("GET", "/slow/900", &[]).await.unwrap();
        assert_eq!(answer.body, "slow", "{http:?}");
        sleep(Duration::from_millis(900)).await;
        assert!(connection.send("GET", "/ok", &[]).await.is_err(), "{http:?}");
    }
}

#[tokio::test]
async fn a_full_house_makes_newcomers_wait() {
    let limits =
        Limits { connections_max: 2, header_read_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = ServerUnderTest::start_plain(router(), limits).await;
    let address = server.client.address;
    let _guests = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    sleep(Duration::from_millis(50)).await;
    let mut newcomer = TcpStream::connect(address).await.unwrap();
    newcomer.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let early = timeout(Duration::from_millis(100), newcomer.read_to_string(&mut answer)).await;
    assert!(early.is_err(), "answered: {answer}");
    timeout(SOON, newcomer.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (server, _dir) = secure(Limits::default()).await;
    let long = "x".repeat(1 << 20);
    for http in [Http::V1, Http::V2] {
        let client = server.client.http(http);
        // Without an answer when the connection closes while the client still writes.
        if let Ok(answer) = client.try_send("GET", "/ok", &[("X-Long", &long)]).await {
            assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{http:?}");
        }
        assert_eq!(client.get("/ok", &[]).await.status, StatusCode::OK, "{http:?}");
    }
}

#[tokio::test]
async fn a_shutdown_finishes_requests_in_flight() {
    for http in [Http::V1, Http::V2] {
        let (mut server, _dir) = secure(Limits::default()).await;
        let client = server.client.http(http);
        let mut idle = client.open().await.unwrap();
        assert_eq!(idle.send("GET", "/ok", &[]).await.unwrap().status, StatusCode::OK);
        // Half a handshake, and a connection that never said anything.
        let mut half = TcpStream::connect(client.address).await.unwrap();
        half.write_all(b"\x16\x03\x01").await.unwrap();
        let silent = client.handshake(TcpStream::connect(client.address).await.unwrap()).await.unwrap();
        let in_flight = tokio::spawn({
            let client = client.clone();
            async move { client.get("/slow/700", &[]).await }
        });
        sleep(Duration::from_millis(250)).await;
        let asked = Instant::now();
        server.shut_down();
        let answer = in_flight.await.unwrap();
        assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, &b"slow"[..]), "{http:?}");
        timeout(SOON, &mut server.ended).await.expect("ended").unwrap();
        assert!(asked.elapsed() < Duration::from_secs(3), "{http:?}: {:?}", asked.elapsed());
        assert!(TcpStream::connect(client.address).await.is_err(), "still accepts");
        assert!(idle.send("GET", "/ok", &[]).await.is_err());
        drop((half, silent));
    }
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_outlasts_the_drain_time() {
    let limits = Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() };
    let (mut server, _dir) = secure(limits).await;
    let client = server.client.clone();
    let in_flight = tokio::spawn(async move { client.try_send("GET", "/slow/60000", &[]).await.is_err() });
    sleep(Duration::from_millis(250)).await;
    server.shut_down();
    timeout(SOON, &mut server.ended).await.expect("ended").unwrap();
    assert!(in_flight.await.unwrap());
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_its_connection_only() {
    let panics = async || -> &'static str { panic!("on purpose") };
    let router = router().route("/panic", get(panics));
    let server = ServerUnderTest::start_plain(router, Limits::default()).await;
    let mut stream = TcpStream::connect(server.client.address).await.unwrap();
    stream.write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(is_closed_soon(&mut stream).await);
    let mut stream = TcpStream::connect(server.client.address).await.unwrap();
    stream.write_all(b"GET /ok HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_and_not_required() {
    let (server, _dir) = secure(Limits::default()).await;
    let whose = TestCa::new("unknown").client("whoever");
    for tls in [Tls::V1_2, Tls::V1_3] {
        assert_eq!(server.client.tls(tls).get("/ok", &[]).await.status, StatusCode::OK);
        assert_eq!(server.client.identity(&whose).tls(tls).get("/ok", &[]).await.status, StatusCode::OK);
    }
}
