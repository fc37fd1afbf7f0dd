//! What a request says of how its body is compressed.

use super::error::ApiError;
use crate::budget::Share;
use crate::ingest::inflate::{InflateError, gunzip};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
}

impl Encoding {
    /// As `Content-Encoding` says.
    ///
    /// # Errors
    /// 415 for any other than gzip.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Self::Plain) };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" => Ok(Self::Gzip),
            other => {
                let message = format!("the Content-Encoding {other:?} is not taken here: send gzip or none");
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
        }
    }

    /// The body as it was before it was compressed.
    ///
    /// # Errors
    /// 400 when it is not what it says, 413 when it is too large, 503 when the budget is spent.
    pub fn decode(self, body: &Bytes, bytes_max: usize, share: &mut Share) -> Result<Bytes, ApiError> {
        match self {
            Self::Plain => Ok(body.clone()),
            Self::Gzip => Ok(gunzip(body, bytes_max, share)?.into()),
        }
    }
}

impl From<InflateError> for ApiError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::NotGzip(_) => Self::bad_request(error.to_string()),
            InflateError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            InflateError::Budget(spent) => spent.into(),
        }
    }
}
