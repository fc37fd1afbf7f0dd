//! The assembled server, by real connections.

use super::*;
use crate::app::{Parts, Settings};
use crate::clock::ManualClock;
use crate::config::{Cli, Command};
use crate::http::routes::{self, Route};
use crate::store::opening::OpeningStore;
use crate::testing::{NOW_MS, TestApp};
use clap::Parser;
use prepare::{PrepareError, Prepared, prepare};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

async fn prepared(flags: &[&str]) -> Result<Prepared, PrepareError> {
    let cli = Cli::try_parse_from([&["lookback"], flags].concat()).expect("valid flags");
    let Command::Serve(args) = cli.into_command() else { panic!("not an import") };
    prepare(&args, Arc::new(ManualClock::new(NOW_MS))).await
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer
}

/// The paths that a router has, as it lists them itself.
fn paths_of(router: &Router) -> BTreeSet<String> {
    let text = format!("{router:?}");
    let after_id = text.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split('"').next());
    // Its fallback goes by two paths of its own.
    let is_route = |path: &&str| *path != "/" && !path.contains("__private__axum_fallback");
    after_id.filter(is_route).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_table_of_routes_has_every_route_of_both_ports() {
    let table = |parts: &[&[Route]]| -> BTreeSet<String> {
        parts.iter().copied().flatten().map(|route| route.path.to_owned()).collect()
    };
    for kubernetes_apis_on_plain_port in [true, false] {
        let TestApp { app, .. } =
            &TestApp::with_settings(Settings { kubernetes_apis_on_plain_port, ..Settings::default() });
        let kubernetes = if kubernetes_apis_on_plain_port { routes::KUBERNETES } else { &[] };
        let plain = plain_router(app, PlainAuth::new(None));
        assert_eq!(paths_of(&plain), table(&[routes::PROBES, routes::PLAIN, kubernetes]));
        let secure = secure_router(app, SecureAuth::new(None, None, app.clock.clone()));
        assert_eq!(paths_of(&secure), table(&[routes::PROBES, routes::KUBERNETES]));
    }
}

#[tokio::test]
async fn every_api_is_reached_and_a_shutdown_ends_it() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().to_str().expect("UTF-8");
    let flags = ["--listen=127.0.0.1:0", "--secure-port=0", "--data-dir", data];
    let Prepared { settings, plain, secure, .. } = prepared(&flags).await.expect("prepared");
    let address = plain.listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let TestApp { app, .. } = &TestApp::with_settings(settings);
    let serving = tokio::spawn(serve(app.clone(), plain, secure, Limits::default(), async {
        let _ = stopped.await;
    }));
    for (path, status) in [
        ("/health", "200"),
        ("/livez", "200"),
        ("/readyz", "200"),
        ("/metrics", "200"),
        ("/api/v1/metrics", "400"),
        ("/api/v1/write", "405"),
        ("/api/v1/nothing", "404"),
        ("/nothing", "404"),
        ("/apis", "200"),
        ("/version", "200"),
        ("/write-metrics", "405"),
    ] {
        let answer = get(address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("x-request-id: "), "{path}: {answer}");
    }
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains(r#"lookback_http_requests_total{api="range",code="400"} 1"#), "{metrics}");
    stop.send(()).expect("still serving");
    serving.await.expect("ends");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn while_the_store_is_opened_discovery_answers_and_the_rest_says_so() {
    let data = tempfile::tempdir().expect("a directory");
    let flags =
        ["--listen=127.0.0.1:0", "--secure-port=0", "--data-dir", data.path().to_str().expect("UTF-8")];
    let Prepared { settings, plain, secure, .. } = prepared(&flags).await.expect("prepared");
    let address = plain.listener.local_addr().expect("bound");
    let opening = Arc::new(OpeningStore::default());
    let app = App::new(Parts {
        store: opening.clone(),
        clock: Arc::new(ManualClock::new(NOW_MS)),
        settings,
        metrics: Arc::default(),
        catalog: Arc::default(),
        cluster: None,
        metadata: Arc::default(),
    });
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve(app, plain, secure, Limits::default(), async {
        let _ = stopped.await;
    }));
    let one = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/p1/rps";
    let range = "/api/v1/metrics?workload=w&namespace=n&metric=cpu&start=1&end=2";
    let discovery = ["/apis", "/apis/custom.metrics.k8s.io", "/apis/custom.metrics.k8s.io/v1beta2"];
    for path in discovery.into_iter().chain(["/livez", "/health"]) {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    for (path, said) in
        [(one, "\"reason\":\"ServiceUnavailable\""), (range, "being opened"), ("/readyz", "reads")]
    {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(said), "{path}: {answer}");
    }

    opening.opened(TestApp::new().app.store.clone());
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, one).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn what_can_not_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = format!("--listen={}", taken.local_addr().expect("bound"));
    for (flags, said) in [
        (&[taken.as_str(), "--secure-port=0"][..], "choose another with --listen"),
        (&["--listen=0.0.0.0:0", "--secure-port=0"], "--credentials-file"),
        (&["--listen=127.0.0.1:0", "--credentials-file=/nowhere"], "/nowhere"),
        (&["--listen=127.0.0.1:0", "--settings=/nowhere"], "/nowhere"),
        (&["--listen=127.0.0.1:0", "--requestheader-client-ca-file=/nowhere"], "/nowhere"),
    ] {
        let Err(error) = prepared(flags).await else { panic!("{flags:?} is refused") };
        let text = error.to_string();
        assert!(text.contains(said) && text.lines().count() == 1, "{text}");
    }
}
