//! `POST /api/v1/admin/backup`: backs the store up while it serves, into the directory of `--backup-dir`.
//!
//! A backup there already is brought up to date: only new blocks are copied. The answer says what was
//! done; an answer of 200 means that the backup is durable. The caller must be allowed to read and to
//! write all namespaces. Without `--backup-dir` it is 501.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::store::Scope;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

/// The route of backups.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/admin/backup", post(backup))
        .layer(axum::middleware::map_response(|response| async { Api("backup").answered(response) }))
}

async fn backup(State(app): State<App>, caller: Caller) -> Response {
    match take(&app, &caller).await {
        Ok(done) => done,
        Err(error) => error.into_prometheus(),
    }
}

async fn take(app: &App, caller: &Caller) -> Result<Response, ApiError> {
    caller.require_read()?;
    caller.require_write()?;
    if caller.scope != Scope::All {
        let message = format!("user {:?} may not use all namespaces, and a backup has them all", caller.user);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let Some(dir) = app.settings.backup_dir.clone() else {
        let message = "no --backup-dir says where backups go";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message));
    };
    let report = app.store.backup(dir).await?;
    for what in &report.left_out {
        tracing::warn!(what, "not in the backup");
    }
    let data = json!({
        "series": report.series,
        "blocks": report.blocks,
        "bytes": report.bytes,
        "blocksCopied": report.blocks_copied,
        "bytesCopied": report.bytes_copied,
        "leftOut": report.left_out,
    });
    Ok(Json(json!({ "status": "success", "data": data })).into_response())
}
