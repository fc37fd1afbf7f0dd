//! `POST /v1/metrics` and `/api/v1/otlp/v1/metrics`: OpenTelemetry metrics over OTLP/HTTP.
//!
//! The protocol is <https://opentelemetry.io/docs/specs/otlp/#otlphttp>: 200 with an
//! `ExportMetricsServiceResponse` once everything that was taken is durable, which says how many points
//! were refused and why; errors are a `google.rpc.Status`; both in the request's own encoding. 429, 502,
//! 503 and 504 are what a client sends again after.

use super::append::append_taken;
use super::auth::Caller;
use super::error::ApiError;
use super::inflate::Encoding;
use super::{Api, body};
use crate::app::App;
use crate::budget::Share;
use crate::ingest::intake::{Intake, Taken};
use crate::ingest::otlp::delta::Deltas;
use crate::ingest::otlp::translate::{Told, Translator};
use crate::ingest::otlp::{OtlpError, json, protobuf};
use crate::ingest::refusals::Refusals;
use crate::store::Scope;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

const API: &str = "otlp";

/// This file's routes.
pub fn routes() -> Router<App> {
    let methods: MethodRouter<App> = post(export).fallback(method_not_allowed);
    Router::new()
        .route("/v1/metrics", methods.clone())
        .route("/api/v1/otlp/v1/metrics", methods)
        .layer(Extension(Arc::new(Deltas::default())))
}

async fn method_not_allowed(request: Request<Body>) -> Response {
    let error = ApiError::method_not_allowed("OpenTelemetry metrics are a POST", "POST");
    Api(API).answered(Format::of(request.headers()).unwrap_or(Format::Json).error(error))
}

async fn export(
    State(app): State<App>,
    Extension(deltas): Extension<Arc<Deltas>>,
    caller: Caller,
    request: Request<Body>,
) -> Response {
    let response = match Format::of(request.headers()) {
        Ok(format) => match respond(app, deltas, caller, format, request).await {
            Ok(refused) => format.success(&refused),
            Err(error) => format.error(error),
        },
        Err(error) => Format::Json.error(error),
    };
    Api(API).answered(response)
}

/// What was refused of a request that was otherwise taken.
#[derive(Default)]
struct Refused {
    points: usize,
    why: Refusals,
}

async fn respond(
    app: App,
    deltas: Arc<Deltas>,
    caller: Caller,
    format: Format,
    request: Request<Body>,
) -> Result<Refused, ApiError> {
    caller.require_write()?;
    let encoding = Encoding::of(request.headers())?;
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    let decoded_bytes_max = app.settings.decoded_bytes_max;
    let decoded = decode(body, encoding, format, decoded_bytes_max, caller.scope.clone(), share).await?;
    if decoded.told.deltas.is_empty() {
        return store(&app, &caller, decoded).await;
    }
    // A client that goes away must not leave another to add up while this is being stored.
    let adding = tokio::spawn(async move { add_up_and_store(&app, &deltas, &caller, decoded).await });
    let broke =
        |error: tokio::task::JoinError| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    adding.await.map_err(broke)?
}

/// A request's samples; its share of the budget is held as long as they are.
struct Decoded {
    taken: Taken,
    told: Told,
    _share: Share,
}

async fn decode(
    body: Bytes,
    encoding: Encoding,
    format: Format,
    decoded_bytes_max: usize,
    scope: Scope,
    mut share: Share,
) -> Result<Decoded, ApiError> {
    let decoded = body::decode(body, move |body| {
        let message = encoding.decode(body, decoded_bytes_max, &mut share)?;
        let mut intake = Intake::new(&scope, &mut share);
        let mut translator = Translator::new(&mut intake);
        match format {
            Format::Protobuf => protobuf::decode(&message, &mut translator)?,
            Format::Json => json::decode(&message, &mut translator)?,
        }
        let told = translator.finish();
        let taken = intake.taken;
        Ok::<_, ApiError>(Decoded { taken, told, _share: share })
    });
    decoded.await?
}

async fn store(app: &App, caller: &Caller, decoded: Decoded) -> Result<Refused, ApiError> {
    let Decoded { taken, told, _share } = decoded;
    let outcome = append_taken(app, caller, API, taken).await?;
    let points =
        outcome.rejected.iter().filter_map(|place| told.point_of_sample.get(*place).copied().flatten());
    let points = points.collect::<HashSet<_>>().len();
    Ok(Refused { points: told.points_refused + points, why: outcome.refusals })
}

async fn add_up_and_store(
    app: &App,
    deltas: &Deltas,
    caller: &Caller,
    mut decoded: Decoded,
) -> Result<Refused, ApiError> {
    let mut turn = deltas.turn().await;
    let (context, now_ms) = (app.context(&caller.scope), app.clock.now_ms());
    let (taken, told) = (&mut decoded.taken, &mut decoded.told);
    let store_ = app.store.as_ref();
    let repeated = turn.add_up(store_, &context, &mut taken.batch, &told.deltas, now_ms).await?;
    leave_out(taken, told, &repeated);
    let refused = store(app, caller, decoded).await?;
    turn.stored(refused.why.is_empty());
    Ok(refused)
}

/// Takes samples out again that were counted before.
fn leave_out(taken: &mut Taken, told: &mut Told, places: &[usize]) {
    if places.is_empty() {
        return;
    }
    let places: HashSet<usize> = places.iter().copied().collect();
    let points = places.iter().filter_map(|place| told.point_of_sample.get(*place).copied().flatten());
    told.points_refused += points.collect::<HashSet<_>>().len();
    taken.refusals.add("repeated_delta", places.len(), || {
        "a delta is not newer than what its series has: it was counted before, or came too late".to_owned()
    });
    let mut place = 0..;
    taken.batch.samples.retain(|_| place.next().is_none_or(|place| !places.contains(&place)));
    let mut place = 0..;
    told.point_of_sample.retain(|_| place.next().is_none_or(|place| !places.contains(&place)));
}

impl From<OtlpError> for ApiError {
    fn from(error: OtlpError) -> Self {
        match error {
            OtlpError::Protobuf(_) | OtlpError::Json(_) => Self::bad_request(error.to_string()),
            OtlpError::Intake(error) => error.into(),
        }
    }
}

/// How request and answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/x-protobuf") {
            Ok(Self::Protobuf)
        } else if media.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else {
            let message = format!(
                "OTLP/HTTP has the Content-Type application/x-protobuf or application/json, not {content_type:?}"
            );
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }

    fn success(self, refused: &Refused) -> Response {
        let message = if refused.why.is_empty() { String::new() } else { refused.why.to_string() };
        let body = match self {
            Self::Json if message.is_empty() => b"{}".to_vec(),
            Self::Json => {
                let partial =
                    json!({"rejectedDataPoints": refused.points.to_string(), "errorMessage": message});
                json!({ "partialSuccess": partial }).to_string().into_bytes()
            }
            Self::Protobuf if message.is_empty() => Vec::new(),
            Self::Protobuf => {
                let mut partial = Vec::new();
                put_varint_field(&mut partial, 1, refused.points as u64);
                put_bytes_field(&mut partial, 2, message.as_bytes());
                let mut body = Vec::new();
                put_bytes_field(&mut body, 1, &partial);
                body
            }
        };
        self.answer(StatusCode::OK, body)
    }

    fn error(self, mut error: ApiError) -> Response {
        // A full disk is made room on: of the codes that OTLP has for "send again", the nearest.
        if error.code == StatusCode::INSUFFICIENT_STORAGE {
            error.code = StatusCode::SERVICE_UNAVAILABLE;
        }
        let code = grpc_code(error.code);
        let body = match self {
            Self::Json => json!({"code": code, "message": error.message}).to_string().into_bytes(),
            Self::Protobuf => {
                let mut body = Vec::new();
                put_varint_field(&mut body, 1, code);
                put_bytes_field(&mut body, 2, error.message.as_bytes());
                body
            }
        };
        let mut response = self.answer(error.code, body);
        for (name, value) in error.headers {
            response.headers_mut().append(name, value);
        }
        response
    }

    fn answer(self, code: StatusCode, body: Vec<u8>) -> Response {
        let content_type = match self {
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Protobuf => HeaderValue::from_static("application/x-protobuf"),
        };
        (code, [(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

/// The number in `google.rpc.Code` that fits an HTTP status code.
fn grpc_code(code: StatusCode) -> u64 {
    match code.as_u16() {
        400 | 413 | 415 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        405 | 501 => 12,
        408 | 504 => 4,
        429 => 8,
        503 => 14,
        _ => 13,
    }
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f | 0x80) as u8);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_varint_field(to: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(to, field << 3);
    put_varint(to, number);
}

fn put_bytes_field(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(to, field << 3 | 2);
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
