//! Request bodies, read whole within a bound, and decoded where that holds no other request up.

use super::error::ApiError;
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

/// Bodies up to this size are decoded where they are; larger ones on a thread for slow work.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// How much room is made at once for a body that states its length.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// Reads a body of at most `bytes_max` bytes.
///
/// # Errors
/// 413 when it is larger, 400 when the client stops within it.
pub async fn read(request: Request<Body>, bytes_max: usize) -> Result<Bytes, ApiError> {
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
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(work(&body));
    }
    tokio::task::spawn_blocking(move || work(&body))
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
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
