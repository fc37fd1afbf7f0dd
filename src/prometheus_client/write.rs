//! Remote write 1.0: the message, and what its answers mean.

use super::error::ClientError;
use super::remote_read::{Part, RemoteReadError, time_series};
use super::transport::{Call, Transport};
use crate::protobuf::Fields;
use axum::http::StatusCode;
use bytes::Bytes;
use lookback_storage::{Labels, Sample};
use std::ops::ControlFlow;
use std::time::Duration;
use thiserror::Error;

/// The headers that the specification asks for.
const HEADERS: [(&str, &str); 2] =
    [("content-encoding", "snappy"), ("x-prometheus-remote-write-version", "0.1.0")];

/// What Prometheus says with status 500 of samples that it won't take, ever (`tsdb/head_append.go`).
const PERMANENT_REASONS: [&str; 3] = ["too old sample", "invalid sample", "out of bounds"];

/// Why a request was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// Something in it is such that it never will be.
    #[error("{server} refuses samples ({status}): {reason}")]
    Permanent {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// It is too large for the server.
    #[error("{server} refuses a request for its size: {reason}")]
    TooLarge {
        /// The server.
        server: String,
        /// What it says.
        reason: String,
    },
    /// The server is away, busy or wrongly set up: the same request may be taken later.
    #[error("{error}")]
    Retry {
        /// Why.
        error: ClientError,
        /// After how long it wants to be asked again.
        after: Option<Duration>,
    },
}

/// An encoded `WriteRequest`. Two of them, one behind the other, are one of both.
#[must_use]
pub fn write_request<'a>(series: impl IntoIterator<Item = (&'a Labels, &'a [Sample])>) -> Vec<u8> {
    let mut request = Vec::new();
    let (mut message, mut part) = (Vec::new(), Vec::new());
    for (labels, samples) in series {
        message.clear();
        for (name, value) in labels.iter() {
            part.clear();
            bytes_field(1, name.as_bytes(), &mut part);
            bytes_field(2, value.as_bytes(), &mut part);
            bytes_field(1, &part, &mut message);
        }
        for sample in samples {
            part.clear();
            part.push(1 << 3 | 1);
            part.extend_from_slice(&sample.value.to_le_bytes());
            varint_field(2, sample.timestamp_ms.cast_unsigned(), &mut part);
            bytes_field(2, &part, &mut message);
        }
        bytes_field(1, &message, &mut request);
    }
    request
}

/// The series of an encoded `WriteRequest`.
///
/// # Errors
/// When it is none.
pub fn decode_write_request(request: &[u8]) -> Result<Vec<(Labels, Vec<Sample>)>, RemoteReadError> {
    let (mut fields, mut series) = (Fields::new(request), Vec::new());
    let mut keep = |part: Part| {
        series.extend(part.labels.map(|labels| (labels, part.samples)));
        ControlFlow::Continue(())
    };
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            // It never breaks off.
            let _ = time_series(field.bytes()?, &mut keep)?;
        }
    }
    Ok(series)
}

/// A field of bytes, a text or a message.
pub(crate) fn bytes_field(number: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(number << 3 | 2);
    varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// A field with a number.
pub(crate) fn varint_field(number: u8, value: u64, into: &mut Vec<u8>) {
    into.push(number << 3);
    varint(value, into);
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

pub(super) async fn post(
    transport: &Transport,
    path: &str,
    compressed: Bytes,
    timeout: Duration,
) -> Result<(), WriteError> {
    let call = Call { headers: &HEADERS, ..Call::post(path, "application/x-protobuf", compressed) };
    let sent = transport.status(&call, timeout).await;
    let (status, reason, after) = sent.map_err(|error| WriteError::Retry { error, after: None })?;
    meaning(transport.server(), status, reason, after)
}

fn meaning(
    server: &str,
    status: StatusCode,
    reason: String,
    after: Option<Duration>,
) -> Result<(), WriteError> {
    let server = server.to_owned();
    let is_permanent = match status.as_u16() {
        200..=299 => return Ok(()),
        413 => return Err(WriteError::TooLarge { server, reason }),
        // Who asks, where, and how often can be mended without the samples.
        401 | 403..=405 | 407 | 408 | 425 | 429 => false,
        400..=499 => true,
        _ => PERMANENT_REASONS.iter().any(|permanent| reason.contains(permanent)),
    };
    let status = status.as_u16();
    if is_permanent {
        return Err(WriteError::Permanent { server, status, reason });
    }
    let error = ClientError::Refused { server, status, kind: None, reason, retry_after: after };
    Err(WriteError::Retry { error, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_for_good_or_for_now() {
        let of = |status, reason: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            meaning("http://x", status, reason.to_owned(), Some(Duration::from_secs(7)))
        };
        assert_eq!(of(204, ""), Ok(()));
        for (status, reason) in [(400, "out of order sample"), (500, "too old sample"), (422, "limit")] {
            assert!(matches!(of(status, reason), Err(WriteError::Permanent { .. })), "{status}");
        }
        for (status, reason) in
            [(500, "disk"), (503, ""), (429, "slow down"), (401, ""), (404, ""), (302, "")]
        {
            let Err(WriteError::Retry { after, .. }) = of(status, reason) else { panic!("{status}") };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        assert!(matches!(of(413, ""), Err(WriteError::TooLarge { .. })));
    }

    #[test]
    fn two_messages_behind_one_another_are_one() {
        let labels = |pod| Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
        let (one, two) = (labels("a"), labels("b"));
        let samples = [Sample::new(-1, 1.0), Sample::new(i64::MAX, f64::NAN)];
        let mut message = write_request([(&one, &samples[..])]);
        message.extend(write_request([(&two, &samples[..1])]));
        assert_eq!(message, write_request([(&one, &samples[..]), (&two, &samples[..1])]));
        let (mut fields, mut series) = (Fields::new(&message), 0);
        while let Some(field) = fields.next_field().expect("a message") {
            assert_eq!(field.number, 1);
            series += 1;
        }
        assert_eq!(series, 2);
        let decoded = decode_write_request(&message).expect("a message");
        assert_eq!(decoded, [(one, samples.to_vec()), (two, samples[..1].to_vec())]);
    }
}
