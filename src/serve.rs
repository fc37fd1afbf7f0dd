//! The server put together: routes, authentication, observation, listeners, shutdown.
//!
//! [`prepare`] makes everything of the command line that can be wrong before the store is opened;
//! [`serve`] takes what is open already (store, listeners, clock, shutdown) from outside, so that a test
//! can run it in its own process on a port of its own.
//!
//! ```text
//! observed ── authentication ── tell_caller ── routes ── handlers ── dyn Store
//!  log line     Caller, or        Caller to
//!  metrics      401/403           the log
//! ```

mod autoscaling;
pub mod banner;
pub mod certificate;
mod delegation;
pub mod prepare;
pub mod remote_store;
pub mod retention;
pub mod rules;

use crate::app::App;
use crate::http::auth::{PlainAuth, SecureAuth, plain_auth, secure_auth};
use crate::http::error::ApiError;
use crate::http::rate_limit::{RateLimit, rate_limited};
use crate::http::server::{Limits, run};
use crate::http::tls::TlsSettings;
use crate::http::{
    backup, delete_series, explain, exposition, health, kubernetes_apis, observe, otlp, promql, pushgateway,
    range, remote_write, summary, write_metrics,
};
use crate::kubernetes::catalog::spawn_refresher;
use crate::sources::ownership;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The plain port: an open listener and who may call there.
pub struct Plain {
    /// Bound.
    pub listener: TcpListener,
    /// Who may call.
    pub auth: PlainAuth,
}

/// The secure port: an open listener, its certificate and who may call there.
pub struct Secure {
    /// Bound.
    pub listener: TcpListener,
    /// The certificate to serve with.
    pub tls: TlsSettings,
    /// Who may call.
    pub auth: SecureAuth,
}

/// Serves until `shutdown` completes and the requests in flight are answered, or cut off at the drain
/// time of `limits`. What has been acknowledged is durable then; closing the store is the caller's.
pub async fn serve(
    app: App,
    plain: Plain,
    secure: Option<Secure>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let stopping = |mut stopped: watch::Receiver<bool>| async move {
        // An error says that the sender is gone, which means the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let refresher = spawn_refresher(app.clone(), stopping(stopped.clone()));
    let router = observe::observed(plain_router(&app, plain.auth), app.clone());
    let (live, served) = (app.live().cloned(), app.settings.served.clone());
    let live_stopped = stopping(stopped.clone());
    let keeping = async move {
        if let Some(live) = live {
            live.keep_fresh(&served, live_stopped).await;
        }
    };
    let remembering = autoscaling::remember(app.clone(), stopping(stopped.clone()));
    let delegates = delegation::keep_listed(app.clone(), stopping(stopped.clone()));
    let ruling = rules::keep(app.clone(), stopping(stopped.clone()));
    let owners = ownership::record(app.clone(), stopping(stopped.clone()));
    let plain = run(plain.listener, None, router, limits, stopping(stopped.clone()));
    let secure = async {
        let Some(Secure { listener, tls, auth }) = secure else { return };
        let router = observe::observed(secure_router(&app, auth), app.clone());
        run(listener, Some(tls), router, limits, stopping(stopped)).await;
    };
    let stop_at_shutdown = async {
        shutdown.await;
        tracing::info!("stopping: no new connections, requests in flight are finished");
        stop.send_replace(true);
    };
    tokio::join!(plain, secure, keeping, remembering, delegates, ruling, owners, stop_at_shutdown);
    // It holds the store, which is to be closed after this.
    if let Err(error) = refresher.await {
        tracing::error!(%error, "the refresher of discovery ended badly");
    }
}

/// Every route of the plain port.
fn plain_router(app: &App, auth: PlainAuth) -> Router {
    let mut routes = Router::new()
        .merge(health::routes())
        .merge(health::metrics_routes())
        .merge(otlp::routes())
        .merge(explain::routes())
        .merge(exposition::routes())
        .merge(pushgateway::routes())
        .merge(history_routes(app))
        .merge(delete_series::routes())
        .merge(remote_write::routes())
        .merge(backup::routes())
        .merge(write_metrics::routes());
    if app.settings.kubernetes_apis_on_plain_port {
        routes = routes.merge(kubernetes_apis::routes());
    }
    let routes = routes.fallback(no_such_path).with_state(app.clone());
    routes.layer(from_fn(observe::tell_caller)).layer(from_fn_with_state(auth, plain_auth))
}

/// The questions about history: each client may ask so many.
fn history_routes(app: &App) -> Router<App> {
    let limit = RateLimit::new(app.settings.client_requests_per_second);
    let routes = Router::new().merge(promql::routes(&app.settings.query)).merge(range::routes());
    let routes = routes.merge(summary::routes());
    routes.layer(from_fn_with_state(limit, rate_limited))
}

/// Every route of the secure port.
fn secure_router(app: &App, auth: SecureAuth) -> Router {
    let routes = Router::new().merge(health::routes()).merge(kubernetes_apis::routes());
    let routes = routes.fallback(no_such_path).with_state(app.clone());
    routes.layer(from_fn(observe::tell_caller)).layer(from_fn_with_state(auth, secure_auth))
}

async fn no_such_path(request: Request) -> Response {
    let path = request.uri().path();
    let error = ApiError::not_found("the server could not find the requested resource");
    if path.starts_with("/api/v1/") { error.into_prometheus() } else { error.into_status() }
}

#[cfg(test)]
mod tests;
