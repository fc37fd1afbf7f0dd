//! The certificate of the secure port replaced under traffic, and which TLS is spoken.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::routing::get;
use common::tls::{Client, Http, SERVICE_NAME, ServerUnderTest, Tls};
use lookback::clock::{Clock, SystemClock};
use lookback::http::server::{Limits, run};
use lookback::http::tls::{MinVersion, TlsOptions, TlsSettings};
use lookback::kubernetes::certificates::ServingCertificate;
use std::io::Write;
use std::net::TcpStream;
use tempfile::TempDir;
use tokio::net::TcpListener;

fn made(dir: &TempDir) -> ServingCertificate {
    ServingCertificate::self_made(dir.path(), &[SERVICE_NAME.to_owned()], SystemClock.now_ms()).unwrap()
}

/// Serves with this TLS; the client trusts the CA of this certificate.
async fn serve(tls: TlsSettings, certificate: &ServingCertificate) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client {
        address: listener.local_addr().unwrap(),
        server_certificate: certificate.ca().unwrap().clone(),
        server_name: SERVICE_NAME.to_owned(),
        identity: None,
        tls: Tls::V1_3,
        http: Http::V1,
    };
    let router = Router::new().route("/", get(async || "ok"));
    tokio::spawn(run(listener, Some(tls), router, Limits::default(), std::future::pending()));
    client
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_fails_no_open_one() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = made(&one);
    let tls = TlsSettings::new(made(&one)).unwrap();
    let client = serve(tls.clone(), &first).await;
    let mut open = client.open().await.unwrap();
    assert_eq!(open.send("GET", "/", &[]).await.unwrap().status, 200);
    let second = made(&two);
    assert!(tls.replace(made(&two)).unwrap() && !tls.replace(made(&two)).unwrap());
    assert_eq!(open.send("GET", "/", &[]).await.unwrap().status, 200);
    assert!(client.try_send("GET", "/", &[]).await.is_err(), "the old CA did not sign it");
    let trusting = Client { server_certificate: second.ca().unwrap().clone(), ..client };
    assert_eq!(trusting.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn only_the_versions_and_suites_that_are_wanted_are_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let suite = |name: &str| Some(vec![name.parse().unwrap()]);
    for (options, tls12) in [
        (TlsOptions::default(), true),
        (TlsOptions { min_version: MinVersion::Tls13, cipher_suites: None }, false),
        (TlsOptions { cipher_suites: suite("TLS_AES_128_GCM_SHA256"), ..TlsOptions::default() }, false),
        (
            TlsOptions {
                cipher_suites: suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
                ..TlsOptions::default()
            },
            true,
        ),
        // The key is an elliptic one, so this suite fits no client of TLS 1.2.
        (
            TlsOptions {
                cipher_suites: suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
                ..TlsOptions::default()
            },
            false,
        ),
    ] {
        let certificate = made(&dir);
        let client = serve(TlsSettings::with_options(made(&dir), &options).unwrap(), &certificate).await;
        assert_eq!(client.get("/", &[]).await.status, 200, "{options:?}");
        let old = client.tls(Tls::V1_2).try_send("GET", "/", &[]).await;
        assert_eq!(old.is_ok(), tls12, "{options:?}");
    }
}

// Several threads: this one connects without yielding, and the backlog is to be emptied meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_dropped_half_way_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let router = Router::new().route("/", get(async || "ok"));
    let server = ServerUnderTest::start(router, dir.path(), Limits::default()).await;
    let mut open = server.client.open().await.unwrap();
    for index in 0..200 {
        let mut stream = TcpStream::connect(server.client.address).unwrap();
        // The beginning of a handshake record, of different lengths.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..index % 12]).unwrap();
    }
    assert_eq!(open.send("GET", "/", &[]).await.unwrap().status, 200);
    assert_eq!(server.client.get("/", &[]).await.status, 200);
}
