//! Whether Lookback lives, whether it is ready, and what it tells about itself.
//!
//! - `/health`, `/livez` and `/healthz` say that the process answers: always 200. They never ask the
//!   store: a full disk is not healed by a restart, and restarting a pod for it would lose the reads too.
//! - `/readyz` is answered once the store is open for writes and reads, and is 200 while it gives
//!   answers. A disk that is full in the meantime leaves it 200 and is told with `?verbose`, by the
//!   refused writes and by `lookback_store_writable`: an unready pod leaves its Service, and the reads
//!   that the HPA lives on, and the cluster's discovery, would go with it.
//! - `/metrics` is OpenMetrics text; the figures of the store are taken at each scrape.
//!
//! The probes with `?verbose` list their checks as those of Kubernetes do. They tell no one's data and
//! are answered to anyone; `/metrics` needs credentials that may read.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::store::StoreError;
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
        .layer(axum::middleware::map_response(|response| named("health", response)))
}

/// Lookback's metrics about itself, for callers who may read.
pub fn metrics_routes() -> Router<App> {
    Router::new()
        .route("/metrics", get(metrics))
        .layer(axum::middleware::map_response(|response| named("metrics", response)))
}

async fn named(api: &'static str, mut response: Response) -> Response {
    response.extensions_mut().insert(Api(api));
    response
}

async fn health() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"status":"healthy"}"#).into_response()
}

async fn live(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    report(path, is_verbose(&uri), &[("ping", None)], None)
}

async fn ready(State(app): State<App>, uri: Uri) -> Response {
    let stats = ask_stats(&app).await;
    let write_failure = match &stats {
        Ok(stats) => stats.write_failure.clone(),
        Err(_) => Some("the store does not answer".to_owned()),
    };
    let read_failure = stats.err().map(|error| error.to_string());
    let writes = write_failure.map(|reason| format!("[!]writes refused, reads served: {reason}\n"));
    let checks = [("ping", None), ("reads", read_failure)];
    let checks = checks.into_iter().chain(writes.is_none().then_some(("writes", None)));
    report("readyz", is_verbose(&uri), &checks.collect::<Vec<_>>(), writes.as_deref())
}

async fn metrics(State(app): State<App>, caller: Caller) -> Response {
    if !caller.read {
        return ApiError::new(StatusCode::FORBIDDEN, format!("user {:?} may not read", caller.user))
            .into_prometheus();
    }
    app.metrics.store.set(ask_stats(&app).await.ok().as_ref());
    let mut body = String::new();
    match text::encode(&mut body, &app.metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(error) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics can't be written: {error}"))
                .into_prometheus()
        }
    }
}

async fn ask_stats(app: &App) -> Result<crate::store::StoreStats, StoreError> {
    let timeout = app.settings.store_timeout;
    let answer = tokio::time::timeout(timeout, app.store.stats()).await;
    answer.unwrap_or(Err(StoreError::DeadlineExceeded(timeout)))
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
    use crate::app::{Parts, Settings};
    use crate::clock::ManualClock;
    use crate::query::range::double::MemoryStore;
    use crate::store::StoreStats;
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use std::sync::Arc;
    use tower::ServiceExt;

    async fn get_from(stats: StoreStats, path: &str, caller: Option<Caller>) -> (u16, String) {
        let store = MemoryStore::default();
        store.set_stats(stats);
        let app = App::new(Parts {
            store: Arc::new(store),
            clock: Arc::new(ManualClock::default()),
            settings: Settings::default(),
            metrics: Arc::default(),
            catalog: Arc::default(),
        });
        let mut request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let router = routes().merge(metrics_routes()).with_state(app);
        let response = router.oneshot(request).await.expect("infallible");
        assert!(response.extensions().get::<Api>().is_some());
        let code = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (code, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    fn full() -> StoreStats {
        StoreStats { write_failure: Some("no space left on /data".into()), ..StoreStats::default() }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_but_takes_nothing_out_of_service() {
        for path in ["/health", "/livez", "/healthz", "/readyz"] {
            assert_eq!(get_from(full(), path, None).await.0, 200, "{path}");
        }
        let (code, body) = get_from(full(), "/readyz?verbose", None).await;
        assert_eq!(code, 200);
        assert_eq!(
            body,
            "[+]ping ok\n[+]reads ok\n[!]writes refused, reads served: no space left on /data\n\
             readyz check passed\n"
        );
    }

    #[tokio::test]
    async fn probes_are_answered_as_documented() {
        let get = |path| get_from(StoreStats::default(), path, None);
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
        let stats = StoreStats { series: 7, sealed_samples: 5, log_bytes: 1024, ..full() };
        let (code, body) = get_from(stats.clone(), "/metrics", Some(Caller::local())).await;
        assert_eq!(code, 200);
        for line in [
            "lookback_store_series 7",
            "lookback_store_samples{kind=\"sealed\"} 5",
            "lookback_store_disk_bytes{kind=\"log\"} 1024",
            "lookback_store_writable 0",
            "lookback_store_readable 1",
            concat!("lookback_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
        assert_eq!(get_from(stats.clone(), "/metrics", None).await.0, 401);
        let writer = Caller { read: false, ..Caller::local() };
        assert_eq!(get_from(stats, "/metrics", Some(writer)).await.0, 403);
    }
}
