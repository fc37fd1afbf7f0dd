//! One error for all APIs, rendered in the dialect of the caller.

use crate::budget::BudgetSpent;
use crate::ingest::refusals::Refusals;
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// In how many seconds it is worth while to bring new series again where a bound on them is met.
const SERIES_RETRY_AFTER: &str = "60";

/// Why a request was not answered, and what to do about it.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status code.
    pub code: StatusCode,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// For `WWW-Authenticate`, `Retry-After` or `Allow`.
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with this status code.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), headers: Vec::new() }
    }

    /// 400: the request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 429: nothing is wrong with it, but a bound on series is met; there may be room later.
    pub fn too_many_series(message: impl Into<String>) -> Self {
        let retry_after = (header::RETRY_AFTER, HeaderValue::from_static(SERIES_RETRY_AFTER));
        Self { headers: vec![retry_after], ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// What an answer to a sender is of whom `stored` samples are stored and others were refused.
    #[must_use]
    pub fn refused(stored: usize, refusals: &Refusals) -> Self {
        let message = format!("{stored} samples are stored, {refusals}");
        if refusals.are_limits() { Self::too_many_series(message) } else { Self::bad_request(message) }
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 405: only the `allowed` methods are, as in `Allow`.
    pub fn method_not_allowed(message: impl Into<String>, allowed: &'static str) -> Self {
        let allow = (header::ALLOW, HeaderValue::from_static(allowed));
        Self { headers: vec![allow], ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// Kubernetes' word for this status code.
    #[must_use]
    pub fn kubernetes_reason(&self) -> &'static str {
        match self.code {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
            StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::NOT_IMPLEMENTED => "NotImplemented",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "Timeout",
            StatusCode::INSUFFICIENT_STORAGE => "InsufficientStorage",
            _ => "InternalError",
        }
    }

    /// Prometheus' word for this status code.
    #[must_use]
    pub fn prometheus_error_type(&self) -> &'static str {
        match self.code {
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE => "bad_data",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::UNPROCESSABLE_ENTITY => "execution",
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "timeout",
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::INSUFFICIENT_STORAGE
            | StatusCode::TOO_MANY_REQUESTS => "unavailable",
            _ => "internal",
        }
    }

    /// As a metav1 `Status`.
    #[must_use]
    pub fn into_status(self) -> Response {
        let body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.kubernetes_reason(),
            "code": self.code.as_u16(),
        });
        self.respond(&body)
    }

    /// As Prometheus' HTTP API writes errors.
    #[must_use]
    pub fn into_prometheus(self) -> Response {
        let body = json!({
            "status": "error",
            "errorType": self.prometheus_error_type(),
            "error": self.message,
        });
        self.respond(&body)
    }

    fn respond(self, body: &serde_json::Value) -> Response {
        let mut response =
            (self.code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::OutOfScope { .. } => StatusCode::FORBIDDEN,
            StoreError::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::TooLarge(_) | StoreError::BeyondEngine(_) | StoreError::TooManyPoints { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            StoreError::DeadlineExceeded(_) => StatusCode::GATEWAY_TIMEOUT,
            StoreError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut api_error = Self::new(code, error.to_string());
        if matches!(code, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            api_error.headers.push((header::RETRY_AFTER, HeaderValue::from_static("5")));
        }
        api_error
    }
}

impl From<BudgetSpent> for ApiError {
    fn from(error: BudgetSpent) -> Self {
        let mut api_error = Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        api_error.headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        api_error
    }
}

/// An [`ApiError`] to a Kubernetes client: a metav1 `Status`.
pub struct KubernetesError(pub ApiError);

impl<E: Into<ApiError>> From<E> for KubernetesError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for KubernetesError {
    fn into_response(self) -> Response {
        self.0.into_status()
    }
}

/// An [`ApiError`] to a Prometheus or OptiPod client: Prometheus JSON.
pub struct PrometheusError(pub ApiError);

impl<E: Into<ApiError>> From<E> for PrometheusError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PrometheusError {
    fn into_response(self) -> Response {
        self.0.into_prometheus()
    }
}
