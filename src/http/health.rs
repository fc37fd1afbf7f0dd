//! Whether Lookback lives, whether it is ready, and what it tells about itself.
//!
//! - `/health`, `/livez` and `/healthz` say that the process answers: always 200. They never ask the
//!   store: a full disk is not healed by a restart, and restarting a pod for it would lose the reads too.
//! - `/readyz` is answered once the store is open for writes and reads, and is 200 while it gives
//!   answers. A disk that is full in the meantime leaves it 200 and is told with `?verbose`, by the
//!   refused writes and by `lookback_store_writable`: an unready pod leaves its Service, and the reads
//!   that the HPA lives on, and the cluster's discovery, would go with it.
//! - `/-/healthy` and `/-/ready` say the same to who knows Prometheus.
//! - `/metrics` is OpenMetrics text; the figures of the store are taken at each scrape.
//!
//! The probes with `?verbose` list their checks as those of Kubernetes do. They tell no one's data and
//! are answered to anyone; `/metrics` needs credentials that may read.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;

/// The content type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The probes, for anyone.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/-/healthy", get(live))
        .route("/-/ready", get(ready))
        .layer(axum::middleware::map_response(|response| named("health", response)))
}

/// Lookback's metrics about itself, for callers who may read.
pub fn metrics_routes() -> Router<App> {
    Router::new()
        .route("/metrics", get(metrics))
        .layer(axum::middleware::map_response(|response| named("metrics", response)))
}

async fn named(api: &'static str, response: Response) -> Response {
    Api(api).answered(response)
}

async fn health() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"status":"healthy"}"#).into_response()
}

async fn live(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches("/-").trim_start_matches('/');
    report(path, is_verbose(&uri), &[("ping", None)], None)
}

async fn ready(State(app): State<App>, uri: Uri) -> Response {
    let stats = app.store_stats().await;
    let write_failure = match &stats {
        Ok(stats) => stats.write_failure.clone(),
        Err(_) => Some("the store does not answer".to_owned()),
    };
    let undurable = match stats.as_ref().map_or(0, |stats| stats.latest_undurable) {
        0 => String::new(),
        series => format!("; latest values of {series} series are served from memory, not durable"),
    };
    let writes =
        write_failure.map(|reason| format!("[!]writes refused, reads served: {reason}{undurable}\n"));
    let damage = stats.as_ref().map(|stats| stats.damage.clone()).unwrap_or_default();
    let damage: String = damage.iter().map(|what| format!("[!]damage set aside: {what}\n")).collect();
    let waiting = stats.as_ref().ok().and_then(|stats| stats.outbox.as_ref());
    let waiting = waiting.and_then(|outbox| Some((outbox.waiting_samples, outbox.engine_failure.as_ref()?)));
    let waiting = waiting.map_or_else(String::new, |(samples, failure)| {
        format!("[!]{samples} samples wait for the engine: {failure}\n")
    });
    let read_failure = stats.err().map(|error| error.to_string());
    let checks = [("ping", None), ("reads", read_failure)];
    let checks = checks.into_iter().chain(writes.is_none().then_some(("writes", None)));
    let warning = writes.unwrap_or_default() + &waiting + &damage;
    report("readyz", is_verbose(&uri), &checks.collect::<Vec<_>>(), Some(&warning))
}

async fn metrics(State(app): State<App>, caller: Caller) -> Response {
    if let Err(error) = caller.require_read() {
        return error.into_prometheus();
    }
    app.metrics.store.set(app.store_stats().await.ok().as_ref());
    if let Some(live) = app.live() {
        app.metrics.show_watched(live.objects.sizes());
    }
    let mut body = String::new();
    match text::encode(&mut body, &app.metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(error) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics can't be written: {error}"))
                .into_prometheus()
        }
    }
}

/// Whether the query has `verbose`, with any value, as Kubernetes' probes take it.
fn is_verbose(uri: &Uri) -> bool {
    let mut names = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split('=').next());
    names.any(|name| name == "verbose")
}

/// A probe's answer: `ok`, or each check on a line where one failed or it was asked for, and after
/// them a warning that fails nothing.
fn report(probe: &str, verbose: bool, checks: &[(&str, Option<String>)], warning: Option<&str>) -> Response {
    let failed = checks.iter().any(|(_, failure)| failure.is_some());
    if !failed && !verbose {
        return "ok".into_response();
    }
    let mut text = String::new();
    for (check, failure) in checks {
        text.push_str(&match failure {
            None => format!("[+]{check} ok\n"),
            Some(reason) => format!("[-]{check} failed: {reason}\n"),
        });
    }
    text.push_str(warning.unwrap_or_default());
    if failed {
        text.push_str(&format!("{probe} check failed\n"));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    text.push_str(&format!("{probe} check passed\n"));
    text.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::testing::{Fault, NOW_MS, TestApp};
    use lookback_storage::{Labels, OutOfOrder, WriteBatch};

    fn all_routes() -> Router<App> {
        routes().merge(metrics_routes())
    }

    async fn get_from(server: &TestApp, path: &str) -> (u16, String) {
        let answer = server.get(path).await;
        assert!(answer.api.is_some());
        (answer.code.as_u16(), answer.body)
    }

    /// A store on a full volume that has just refused a write for it.
    async fn full() -> TestApp {
        let server = TestApp::full(all_routes());
        let mut batch = WriteBatch::default();
        batch.push(Labels::new([("__name__", "m")]).expect("valid"), None, 1.0);
        let refused = server.app.store.append(&server.context(), batch, NOW_MS, OutOfOrder::Window).await;
        assert!(matches!(refused, Err(StoreError::NoSpace(_))));
        server
    }

    #[tokio::test]
    async fn a_full_disk_is_told_but_takes_nothing_out_of_service() {
        let server = full().await;
        for path in ["/health", "/livez", "/healthz", "/readyz", "/-/healthy", "/-/ready"] {
            assert_eq!(get_from(&server, path).await.0, 200, "{path}");
        }
        let (code, body) = get_from(&server, "/readyz?verbose").await;
        assert_eq!(code, 200);
        let [ping, reads, writes, end] = body.lines().collect::<Vec<_>>()[..] else { panic!("{body}") };
        assert_eq!([ping, reads, end], ["[+]ping ok", "[+]reads ok", "readyz check passed"]);
        assert!(writes.starts_with("[!]writes refused, reads served: "), "{writes}");
        assert!(writes.contains("bytes are free on the volume"), "{writes}");
    }

    #[tokio::test]
    async fn a_store_that_gives_no_answer_makes_unready_but_not_dead() {
        let server = TestApp::serving(all_routes());
        server.store.set_fault(Some(Fault::Failing));
        assert_eq!(get_from(&server, "/livez").await.0, 200);
        let (code, body) = get_from(&server, "/readyz").await;
        assert_eq!(code, 503);
        assert!(body.contains("[-]reads failed: the store is not available"), "{body}");
        let (code, body) = get_from(&server, "/metrics").await;
        assert_eq!(code, 200);
        assert!(body.contains("lookback_store_readable 0"), "{body}");
    }

    #[tokio::test]
    async fn probes_are_answered_as_documented() {
        let mut server = TestApp::serving(all_routes());
        server.caller = None;
        let get = |path| get_from(&server, path);
        assert_eq!(get("/health").await, (200, r#"{"status":"healthy"}"#.into()));
        for path in ["/livez", "/healthz", "/readyz", "/readyz?exclude=ping"] {
            assert_eq!(get(path).await, (200, "ok".into()), "{path}");
        }
        assert_eq!(get("/livez?verbose").await, (200, "[+]ping ok\nlivez check passed\n".into()));
        let verbose = "[+]ping ok\n[+]reads ok\n[+]writes ok\nreadyz check passed\n";
        assert_eq!(get("/readyz?verbose=1").await, (200, verbose.into()));
    }

    #[tokio::test]
    async fn metrics_show_the_store_to_who_may_read() {
        let mut server = TestApp::serving(all_routes());
        for pod in ["p1", "p2"] {
            server.put_all(&[("__name__", "m"), ("pod", pod)], &[(NOW_MS, 1.0), (NOW_MS + 1, 2.0)]);
        }
        let (code, body) = get_from(&server, "/metrics").await;
        assert_eq!(code, 200);
        for line in [
            "lookback_store_series 2",
            "lookback_store_samples{kind=\"head\"} 4",
            "lookback_store_writable 1",
            "lookback_store_readable 1",
            concat!("lookback_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
        let (_, of_full) = get_from(&full().await, "/metrics").await;
        assert!(of_full.lines().any(|line| line == "lookback_store_writable 0"), "{of_full}");
        server.caller = None;
        assert_eq!(get_from(&server, "/metrics").await.0, 401);
        server.caller = Some(Caller { read: false, ..Caller::local() });
        assert_eq!(get_from(&server, "/metrics").await.0, 403);
    }
}
