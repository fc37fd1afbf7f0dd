//! `/api/v1/admin/backup`: backs the store up while it serves.
//!
//! `POST` writes into the directory of `--backup-dir` (501 without it). A backup there already is brought up to
//! date: only new files are copied. The answer says what was done; an answer of 200 means that the backup is
//! durable.
//!
//! `GET` answers with a whole backup as a tar, which `lookback restore -` takes. Its last file is the
//! manifest: an answer that is cut off is none, and is recognised. One such answer at a time is given (503).
//!
//! The caller must be allowed to read and to write all namespaces.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::store::Scope;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use futures::stream;
use serde_json::json;

/// The route of backups.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/admin/backup", post(backup).get(download))
        .layer(axum::middleware::map_response(|response| async { Api("backup").answered(response) }))
}

async fn backup(State(app): State<App>, caller: Caller) -> Response {
    match take(&app, &caller).await {
        Ok(done) => done,
        Err(error) => error.into_prometheus(),
    }
}

async fn download(State(app): State<App>, caller: Caller) -> Response {
    match begin(&app, &caller).await {
        Ok(begun) => begun,
        Err(error) => error.into_prometheus(),
    }
}

/// Refuses a caller who may not have everything.
fn require_all(caller: &Caller) -> Result<(), ApiError> {
    caller.require_read()?;
    caller.require_write()?;
    if caller.scope == Scope::All {
        return Ok(());
    }
    let message = format!("user {:?} may not use all namespaces, and a backup has them all", caller.user);
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

async fn take(app: &App, caller: &Caller) -> Result<Response, ApiError> {
    require_all(caller)?;
    let Some(dir) = app.settings.backup_dir.clone() else {
        let message = "no --backup-dir says where backups go: GET gives one as a stream";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message));
    };
    let report = app.store.backup(dir).await?;
    for what in &report.left_out {
        tracing::warn!(what, "not in the backup");
    }
    let data = json!({
        "series": report.series,
        "blocks": report.blocks,
        "rollups": report.rollups,
        "bytes": report.bytes,
        "filesCopied": report.files_copied,
        "bytesCopied": report.bytes_copied,
        "leftOut": report.left_out,
    });
    Ok(Json(json!({ "status": "success", "data": data })).into_response())
}

async fn begin(app: &App, caller: &Caller) -> Result<Response, ApiError> {
    require_all(caller)?;
    let mut pieces = app.store.backup_stream().await?;
    // What fails before the first piece is still told by the status.
    let first = match pieces.recv().await {
        Some(first) => first?,
        None => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the backup broke off")),
    };
    let rest = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(rest));
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"lookback-backup.tar\""),
    ];
    Ok((headers, body).into_response())
}
