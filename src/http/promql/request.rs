//! What a request asks for.

use crate::http::error::{ApiError, PrometheusError};
use crate::http::parameters;
use crate::query::promql::{EvalError, ParseError};
use crate::text::start_of;
use crate::time::{UnixUnit, parse_duration, parse_timestamp};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

/// Largest form, in bytes: the longest query, percent-encoded.
const FORM_BYTES_MAX: usize = 1 << 20;

/// Most selectors in one request.
const SELECTORS_MAX: usize = 50;

/// The parameters of a request.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) async fn read(request: Request) -> Result<Self, Failure> {
        Ok(Self(parameters::read(request, FORM_BYTES_MAX).await?))
    }

    /// The first of this name that says anything.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let of_name = self.0.iter().find(|(n, value)| n == name && !value.is_empty());
        of_name.map(|(_, value)| value.as_str())
    }

    pub(super) fn need(&self, name: &'static str) -> Result<&str, Failure> {
        self.get(name).ok_or_else(|| Failure::parameter(name, "it is missing: give it a value"))
    }

    /// A time, Unix milliseconds.
    pub(super) fn time_ms(&self, name: &'static str) -> Result<Option<i64>, Failure> {
        let parse =
            |text| parse_timestamp(text, UnixUnit::Seconds).map_err(|error| Failure::parameter(name, error));
        self.get(name).map(parse).transpose()
    }

    /// A positive duration, in milliseconds.
    pub(super) fn duration_ms(&self, name: &'static str) -> Result<Option<i64>, Failure> {
        let parse = |text| parse_duration(text).map_err(|error| Failure::parameter(name, error));
        self.get(name).map(parse).transpose()
    }

    /// How long the answer may take: as the caller says, `most` at the most.
    pub(super) fn timeout(&self, most: Duration) -> Result<Duration, Failure> {
        let asked = self.duration_ms("timeout")?.and_then(|ms| u64::try_from(ms).ok());
        Ok(asked.map_or(most, |ms| Duration::from_millis(ms).min(most)))
    }

    /// How many series, or entries, the caller wants; `None`: all.
    pub(super) fn limit(&self) -> Result<Option<usize>, Failure> {
        let Some(text) = self.get("limit") else { return Ok(None) };
        let wrong = |_| {
            let message =
                format!("{:?} is not a number of entries: use a whole number from 0", start_of(text));
            Failure::parameter("limit", message)
        };
        let limit: usize = text.parse().map_err(wrong)?;
        Ok(Some(limit).filter(|limit| *limit > 0))
    }

    /// The selectors, as they are written.
    pub(super) fn selectors(&self) -> Result<Vec<String>, Failure> {
        let all: Vec<String> =
            self.0.iter().filter(|(name, _)| name == "match[]").map(|(_, value)| value.clone()).collect();
        if all.len() > SELECTORS_MAX {
            return Err(Failure::parameter("match[]", format!("more than {SELECTORS_MAX} selectors")));
        }
        Ok(all)
    }
}

/// Why a request is not answered, as Prometheus says it.
#[derive(Debug)]
pub(super) enum Failure {
    /// As all APIs say it.
    Api(ApiError),
    /// With Prometheus' own status and word.
    Query { code: StatusCode, kind: &'static str, message: String },
}

impl Failure {
    pub(super) fn parameter(name: &str, error: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {error}"))
    }

    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self::Query { code: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.into() }
    }

    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self::Query { code: StatusCode::SERVICE_UNAVAILABLE, kind: "timeout", message: message.into() }
    }
}

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Api(error.into())
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::parameter("query", error)
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        let message = error.to_string();
        match error {
            EvalError::Execution(_) | EvalError::TooLarge { .. } => {
                Self::Query { code: StatusCode::UNPROCESSABLE_ENTITY, kind: "execution", message }
            }
            EvalError::Timeout => Self::timeout(message),
            // nginx' number for a client that has gone: nobody reads it.
            EvalError::Canceled => Self::Query {
                code: StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                kind: "canceled",
                message,
            },
            EvalError::Store(error) => Self::Api(error.into()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Api(error) => PrometheusError(error).into_response(),
            Self::Query { code, kind, message } => {
                let body = json!({"status": "error", "errorType": kind, "error": message}).to_string();
                (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
        }
    }
}
