//! `/api/v1/status/buildinfo`, `/api/v1/status/tsdb`, `/api/v1/rules`, `/api/v1/alerts`: who answers, and how
//! much it holds.

use super::answer::JsonAnswer;
use super::cardinality::Cardinality;
use super::request::{Failure, Parameters};
use super::run::{Turns, run};
use crate::app::App;
use crate::http::auth::Caller;
use crate::store::Scope;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use lookback_storage::Extent;
use serde_json::{Value, json};

/// The version of Prometheus whose language and API are spoken: clients choose what they ask by it.
const SPOKEN_VERSION: &str = "3.5.0";

/// Rows of each table of `/api/v1/status/tsdb`, unless `limit` says otherwise.
const ROWS_MAX: usize = 10;

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

/// The rules that are evaluated: none.
pub(super) async fn rules(caller: Caller) -> Result<Json<Value>, Failure> {
    caller.require_read()?;
    Ok(Json(json!({"status": "success", "data": {"groups": []}})))
}

/// The alerts that fire: none.
pub(super) async fn alerts(caller: Caller) -> Result<Json<Value>, Failure> {
    caller.require_read()?;
    Ok(Json(json!({"status": "success", "data": {"alerts": []}})))
}

/// How much the store holds; for callers who may see all of it. What Prometheus says of its head is said of
/// all series, chunks and times here, but for `numSamples`, which are those in memory.
pub(super) async fn store(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    if caller.scope != Scope::All {
        return Err(Failure::Query {
            code: StatusCode::FORBIDDEN,
            kind: "forbidden",
            message: format!("user {:?} may not see what namespaces hold together", caller.user),
        });
    }
    let rows_max = Parameters::read(request).await?.limit()?.unwrap_or(ROWS_MAX);
    let (stats, extent) = (app.store_stats().await?, app.store_extent().await?);
    run(&app, &turns, &caller.scope, app.settings.query.timeout, move |bench| {
        let all = bench.reader.series(&[], i64::MIN, i64::MAX)?;
        let cardinality = Cardinality::of(&all);
        let mut data = cardinality.tables(rows_max);
        data["headStats"] = json!({
            "numSeries": stats.series,
            "numSamples": stats.head_samples,
            "numLabelPairs": cardinality.pairs(),
        });
        // Where an engine elsewhere keeps the samples, that engine knows.
        if let Some(Extent { chunks, span_ms }) = extent {
            // An empty store's are as Prometheus tells them.
            let (min_ms, max_ms) = span_ms.unwrap_or((i64::MAX, i64::MIN));
            data["headStats"]["chunkCount"] = json!(chunks);
            data["headStats"]["minTime"] = json!(min_ms);
            data["headStats"]["maxTime"] = json!(max_ms);
        }
        data["storageStats"] = json!({
            "numSealedSamples": stats.sealed_samples,
            "numPartitions": stats.partitions,
            "blockBytes": stats.block_bytes,
            "logBytes": stats.log_bytes,
            "indexBytes": stats.index_bytes,
            "numDamagedBlocks": stats.damaged_blocks,
        });
        Ok(JsonAnswer(data))
    })
    .await
}
