//! One connection, from its handshake to its end.

use super::server::Limits;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::debug;

/// Who is at the other end of a connection; in each request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The client's certificate and what it sent along, leaf first, if it sent one. The client holds
    /// the leaf's key; nothing else about it has been verified.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// What a connection needs of its listener.
pub(crate) struct Connection {
    pub(crate) acceptor: Option<TlsAcceptor>,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    /// Changes when the server is to stop.
    pub(crate) stopping: watch::Receiver<()>,
}

/// Which HTTP the handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// Not said: told by the first bytes.
    Either,
}

/// Serves a connection to its end.
pub(crate) async fn serve(stream: TcpStream, mut connection: Connection) {
    let address = match stream.peer_addr() {
        Ok(address) => address,
        Err(error) => return debug!(%error, "a connection was gone at once"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, %address, "TCP_NODELAY");
    }
    let Some(acceptor) = connection.acceptor.take() else {
        let peer = Peer { address, certificates: None };
        return serve_http(stream, peer, Protocol::Either, connection).await;
    };
    // kube-apiserver drops surplus connections in mid-handshake: nothing to warn of.
    let handshake = timeout(connection.limits.handshake_timeout, acceptor.accept(stream));
    let stream = tokio::select! {
        _ = connection.stopping.changed() => return,
        outcome = handshake => match outcome {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, %address, "TLS handshake"),
            Err(_) => return debug!(%address, "TLS handshake took too long"),
        },
    };
    let session = stream.get_ref().1;
    let certificates = session.peer_certificates().filter(|chain| !chain.is_empty()).map(Arc::from);
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) => Protocol::Http1,
        None => Protocol::Either,
    };
    serve_http(stream, Peer { address, certificates }, protocol, connection).await;
}

async fn serve_http<I>(stream: I, peer: Peer, protocol: Protocol, connection: Connection)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection { router, limits, mut stopping, .. } = connection;
    let address = peer.address;
    let activity = Arc::new(Mutex::new(Activity::default()));
    let counter = activity.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let in_flight = InFlight::start(&counter);
        let mut router = router.clone();
        async move {
            let response = Service::<Request<Body>>::call(&mut router, request.map(Body::new)).await;
            drop(in_flight);
            response
        }
    });
    let builder = builder(protocol, &limits);
    let mut http = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let first_request_by = Instant::now() + limits.header_read_timeout;
    let mut look_at = Instant::now() + limits.header_read_timeout.min(limits.idle_timeout);
    let mut ending = false;
    loop {
        tokio::select! {
            outcome = &mut http => {
                if let Err(error) = outcome {
                    debug!(%error, %address, "connection");
                }
                return;
            }
            _ = stopping.changed(), if !ending => {
                if lock(&activity).last.is_none() {
                    // hyper would wait for a first request.
                    return;
                }
                ending = true;
                http.as_mut().graceful_shutdown();
                look_at = Instant::now() + limits.drain_timeout;
            }
            () = tokio::time::sleep_until(look_at) => {
                let now = Instant::now();
                let Activity { in_flight, last } = *lock(&activity);
                let due = last.map_or(first_request_by, |last| last + limits.idle_timeout);
                if in_flight > 0 {
                    look_at = now + limits.idle_timeout;
                } else if due > now && !ending {
                    look_at = due;
                } else if ending || last.is_none() {
                    return debug!(%address, ending, "connection closed: nothing came in time");
                } else {
                    // An answer may still be on its way out: the client has as long again to read it.
                    ending = true;
                    http.as_mut().graceful_shutdown();
                    look_at = now + limits.idle_timeout;
                }
            }
        }
    }
}

/// What the requests of a connection are doing.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    in_flight: usize,
    /// When a request last came or was answered; none has come yet: `None`.
    last: Option<Instant>,
}

/// Counts a request as in flight, until dropped.
struct InFlight(Arc<Mutex<Activity>>);

impl InFlight {
    fn start(activity: &Arc<Mutex<Activity>>) -> Self {
        let mut now = lock(activity);
        now.in_flight += 1;
        now.last = Some(Instant::now());
        Self(activity.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut now = lock(&self.0);
        now.in_flight = now.in_flight.saturating_sub(1);
        now.last = Some(Instant::now());
    }
}

// Held for a few instructions that can't panic, so a poisoned one is as good as any.
fn lock(activity: &Mutex<Activity>) -> MutexGuard<'_, Activity> {
    activity.lock().unwrap_or_else(PoisonError::into_inner)
}

fn builder(protocol: Protocol, limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper counts the idle time before a request's head as reading it.
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(
            usize::try_from(limits.head_bytes_max).unwrap_or(usize::MAX).max(HTTP1_BUFFER_BYTES_MIN),
        );
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.head_bytes_max);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
        Protocol::Either => builder,
    }
}

/// The smallest bound that hyper takes.
const HTTP1_BUFFER_BYTES_MIN: usize = 8_192;

/// How often an HTTP/2 peer is asked whether it still lives, and how long it has to say so.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
