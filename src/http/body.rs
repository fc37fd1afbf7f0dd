//! Request bodies, read whole within a bound, and decoded where that holds no other request up.

use super::aside;
use super::error::ApiError;
use crate::budget::Share;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::time::Duration;

/// How much of a body that is too large is still read, in bytes, and thrown away. A client over
/// HTTP/1.1 that is still sending when the connection closes often never sees the answer.
const DRAIN_BYTES_MAX: usize = 256 << 20;

/// How long it is read.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a body may take to come in: a client that stalls must not hold what it has sent for ever.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

/// Bodies up to this size are decoded where they are.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// How much room is made at once for a body that states its length.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Reads a body of at most `bytes_max` bytes, within a minute, growing the request's share of the
/// budget by it.
///
/// # Errors
/// 413 when it is larger, 400 when the client stops within it, 408 when it takes too long, 503 when the
/// budget is spent.
pub async fn read(request: Request<Body>, bytes_max: usize, share: &mut Share) -> Result<Bytes, ApiError> {
    read_within(READ_TIME_MAX, request, bytes_max, Some(share)).await
}

/// Reads a body that is bounded too low to need a share of the budget.
///
/// # Errors
/// As [`read`].
pub async fn read_small(request: Request<Body>, bytes_max: usize) -> Result<Bytes, ApiError> {
    read_within(READ_TIME_MAX, request, bytes_max, None).await
}

async fn read_within(
    time_max: Duration,
    request: Request<Body>,
    bytes_max: usize,
    share: Option<&mut Share>,
) -> Result<Bytes, ApiError> {
    let late = |_| {
        let message = format!("the body did not come in within {time_max:?}: send it in parts");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    };
    tokio::time::timeout(time_max, read_all(request, bytes_max, share)).await.map_err(late)?
}

async fn read_all(
    request: Request<Body>,
    bytes_max: usize,
    mut share: Option<&mut Share>,
) -> Result<Bytes, ApiError> {
    let (parts, mut body) = request.into_parts();
    let stated = content_length(&parts.headers);
    if stated.is_some_and(|bytes| bytes > bytes_max as u64) {
        // A client that waits for `100 Continue`, or speaks HTTP/2, is stopped by the answer.
        let waits = parts.headers.contains_key(header::EXPECT) || parts.version == Version::HTTP_2;
        if !waits {
            drain(body).await;
        }
        return Err(too_large(bytes_max));
    }
    let stated = stated.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(stated.min(RESERVE_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            drop(bytes);
            if parts.version != Version::HTTP_2 {
                drain(body).await;
            }
            return Err(too_large(bytes_max));
        }
        if let Some(share) = &mut share {
            share.grow(data.len())?;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Decodes a body, off the threads that serve other requests where it is large.
///
/// # Errors
/// 500 when the work panics.
pub async fn decode<T: Send + 'static>(
    body: Bytes,
    work: impl FnOnce(&Bytes) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let slow = body.len() > INLINE_BYTES_MAX;
    aside(slow, move || work(&body)).await
}

/// What a message says of its body's length.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body is larger than the {bytes_max} bytes allowed: send it in parts");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

async fn drain(mut body: Body) {
    let all = async {
        let mut drained = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            drained = drained.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if drained > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // Past the time, the connection is simply closed.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    /// A server that answers with the length of the body, of at most a thousand bytes.
    async fn serve() -> SocketAddr {
        let handler = |request: Request<Body>| async {
            read_small(request, 1_000).await.map(|body| body.len().to_string()).map_err(ApiError::into_status)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// What comes back for these bytes.
    async fn exchange(address: SocketAddr, head: &'static str, body: Vec<u8>) -> String {
        let talk = move || {
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(&body).expect("a server that reads on until it has answered");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer, not a reset");
            answer
        };
        tokio::task::spawn_blocking(talk).await.expect("talked")
    }

    #[tokio::test]
    async fn a_client_that_sends_64_mb_gets_its_answer() {
        let address = serve().await;
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 67108864\r\n\r\n";
        let answer = exchange(address, head, vec![b'1'; 64 << 20]).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("larger than the 1000 bytes"), "{answer}");
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut chunks = format!("{:x}\r\n", 64 << 20).into_bytes();
        chunks.resize(chunks.len() + (64 << 20), b'1');
        chunks.extend(b"\r\n0\r\n\r\n");
        let answer = exchange(address, head, chunks).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_stalls_is_not_waited_for() {
        let stalled = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(Body::from_stream(stalled));
        let error = read_within(Duration::from_millis(10), request, 1_000, None).await.expect_err("refused");
        assert_eq!((error.code.as_u16(), error.kubernetes_reason()), (408, "Timeout"));
    }

    #[tokio::test]
    async fn a_client_that_asks_first_is_stopped_before_it_sends() {
        let address = serve().await;
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 67108864\r\n\r\n";
        let answer = exchange(address, head, Vec::new()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
        let answer = exchange(address, head, b"abc".to_vec()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n3"), "{answer}");
    }
}
