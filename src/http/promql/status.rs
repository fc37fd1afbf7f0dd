//! `/api/v1/status/buildinfo`, `/api/v1/status/tsdb`: who answers, and how much it holds.

use super::request::Failure;
use crate::app::App;
use crate::http::auth::Caller;
use crate::store::Scope;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The version of Prometheus whose language and API are spoken: clients choose what they ask by it.
const SPOKEN_VERSION: &str = "3.5.0";

/// Who answers.
pub(super) async fn build(caller: Caller) -> Result<Json<Value>, Failure> {
    caller.require_read()?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(Json(json!({"status": "success", "data": {
        "application": "lookback",
        "applicationVersion": version,
        "version": SPOKEN_VERSION,
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }})))
}

/// How much the store holds; for callers who may see all of it.
pub(super) async fn store(State(app): State<App>, caller: Caller) -> Result<Json<Value>, Failure> {
    caller.require_read()?;
    if caller.scope != Scope::All {
        return Err(Failure::Query {
            code: StatusCode::FORBIDDEN,
            kind: "forbidden",
            message: format!("user {:?} may not see what namespaces hold together", caller.user),
        });
    }
    let stats = app.store_stats().await?;
    Ok(Json(json!({"status": "success", "data": {
        "headStats": {
            "numSeries": stats.series,
            "numSamples": stats.head_samples,
        },
        "storageStats": {
            "numSealedSamples": stats.sealed_samples,
            "numPartitions": stats.partitions,
            "blockBytes": stats.block_bytes,
            "logBytes": stats.log_bytes,
            "indexBytes": stats.index_bytes,
            "numDamagedBlocks": stats.damaged_blocks,
        },
        "seriesCountByMetricName": [],
        "labelValueCountByLabelName": [],
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": [],
    }})))
}
