//! The accept loop: connections in, requests to the router, and an orderly end.
//!
//! # Assembly
//!
//! Authentication is a layer of the router, so that a listener can't be served without having said
//! who may call:
//!
//! ```no_run
//! use axum::{Router, middleware::from_fn_with_state};
//! use lookback::clock::SystemClock;
//! use lookback::http::auth::{PlainAuth, SecureAuth, plain_auth, secure_auth};
//! use lookback::http::credentials::check_bind;
//! use lookback::http::server::{Limits, run};
//! use lookback::http::tls::TlsSettings;
//! use lookback::kubernetes::certificates::ServingCertificate;
//! use std::{path::Path, sync::Arc};
//! use tokio::net::TcpListener;
//!
//! # async fn assemble(plain_routes: Router, secure_routes: Router, now_ms: i64) -> anyhow::Result<()> {
//! // `layer` runs its layers from the last to the first: add request logging and panic catching
//! // after authentication, so that they also see what it refuses.
//! let plain = "127.0.0.1:8080".parse()?;
//! check_bind(plain, false)?;
//! let router = plain_routes.layer(from_fn_with_state(PlainAuth::new(None), plain_auth));
//! let (stop, stopped) = tokio::sync::watch::channel(());
//! let mut signal = stopped.clone();
//! let shutdown = async move { drop(signal.changed().await) };
//! let serving = run(TcpListener::bind(plain).await?, None, router, Limits::default(), shutdown);
//!
//! let certificate = ServingCertificate::self_made(Path::new("lookback-data"), &[], now_ms)?;
//! let tls = TlsSettings::new(certificate)?;
//! let auth = SecureAuth::new(None, None, Arc::new(SystemClock));
//! let router = secure_routes.layer(from_fn_with_state(auth, secure_auth));
//! # drop((tls, router, serving, stop)); Ok(())
//! # }
//! ```

use super::connection::{Connection, serve};
use super::tls::TlsSettings;
use axum::Router;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// What one listener allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most open connections. At the bound no more are accepted: they wait in the kernel's backlog
    /// until one closes, and the time limits below see to it that idle ones do.
    pub connections_max: usize,
    /// How long a TLS handshake may take; past that the connection is closed.
    pub handshake_timeout: Duration,
    /// How long the head of a connection's first request may take; past that it is closed.
    pub header_read_timeout: Duration,
    /// How long a connection may do nothing between requests, and the head of a later HTTP/1.1
    /// request may take; it is closed after once to twice that. Longer than the 90 s after which Go's clients
    /// close idle connections themselves, so that kube-apiserver does not run into ours.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish after the shutdown; past that they are cut off.
    pub drain_timeout: Duration,
    /// Most concurrent requests on one HTTP/2 connection; more are refused, to be tried again.
    pub streams_max: u32,
    /// Most header lines in a request (each of a user's groups is one); past that it is 431.
    pub headers_max: usize,
    /// Most bytes in a request's head; past that it is 431. HTTP/1.1's are counted a read buffer at
    /// a time, so some heads of up to twice that still pass.
    pub head_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(10),
            streams_max: 250,
            headers_max: 1_000,
            head_bytes_max: 256 << 10,
        }
    }
}

/// Serves until `shutdown` completes; then stops accepting, lets requests in flight finish within
/// the drain time, and returns. Each request's extensions hold a [`super::connection::Peer`].
pub async fn run(
    listener: TcpListener,
    tls: Option<TlsSettings>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(());
    let acceptor = tls.as_ref().map(TlsSettings::acceptor);
    let mut room = Room::new(limits.connections_max);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &mut room) => accepted,
            // Finished tasks are taken out as they finish, so the set is as bounded as the connections.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a connection's task ended badly");
                }
                continue;
            }
        };
        let connection = Connection {
            acceptor: acceptor.clone(),
            router: router.clone(),
            limits,
            stopping: stopping.clone(),
        };
        connections.spawn(async move {
            serve(stream, connection).await;
            drop(permit);
        });
    }
    // The port is free for a successor from here on.
    drop(listener);
    drop(stopping);
    stop.send_replace(());
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_timeout, drained).await.is_err() {
        warn!(
            connections = connections.len(),
            drain_seconds = limits.drain_timeout.as_secs(),
            "requests still in flight after the drain time are cut off"
        );
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for it. Safe to cancel: a connection is either still in
/// the backlog or returned.
async fn accept(listener: &TcpListener, room: &mut Room) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = room.enter().await;
    let mut backoff = BACKOFF_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) if concerns_one_connection(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                // Out of file descriptors or memory: at once again would only spin.
                warn!(%error, retry_ms = backoff.as_millis(), "can't accept connections");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Room for so many connections.
struct Room {
    permits: Arc<Semaphore>,
    connections_max: usize,
    /// Whether it was said that there is none; said again only after a tenth was free.
    said_full: bool,
}

impl Room {
    fn new(connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(connections_max)), connections_max, said_full: false }
    }

    /// Waits for room. Safe to cancel.
    async fn enter(&mut self) -> OwnedSemaphorePermit {
        let free = self.permits.available_permits();
        if free == 0 && !self.said_full {
            self.said_full = true;
            warn!(connections_max = self.connections_max, "no room: new connections wait until one closes");
        } else if free > self.connections_max / 10 {
            self.said_full = false;
        }
        match self.permits.clone().acquire_owned().await {
            Ok(permit) => permit,
            // Only a closed semaphore gives none, and nothing closes this one.
            Err(_) => std::future::pending().await,
        }
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
