//! `/api/v1/query`, `/api/v1/query_range`, `/api/v1/query_exemplars`, `/api/v1/format_query`,
//! `/api/v1/parse_query`.

use super::answer::{JsonAnswer, QueryAnswer};
use super::request::{Failure, Parameters};
use super::run::{Turns, run};
use crate::app::App;
use crate::http::auth::Caller;
use crate::query::promql::{Options, Query, Steps, Task, Times, ValueType};
use crate::time::{format_duration, whole_ms};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

/// PromQL at an instant.
pub(super) async fn instant(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let parameters = Parameters::read(request).await?;
    let text = parameters.need("query")?.to_owned();
    let time_ms = parameters.time_ms("time")?.unwrap_or_else(|| app.clock.now_ms());
    let (options, series_max) = (options(&app, &parameters)?, parameters.limit()?);
    let timeout = parameters.timeout(app.settings.query.timeout)?;
    run(&app, &turns, &caller.scope, timeout, move |bench| {
        let query = Query::parse(&text)?;
        let task = Task { reader: bench.reader, options, steps: Steps::instant(time_ms), stop: bench.stop };
        Ok(QueryAnswer { outcome: task.instant(&query)?, series_max })
    })
    .await
}

/// PromQL over a range.
pub(super) async fn range(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let parameters = Parameters::read(request).await?;
    let text = parameters.need("query")?.to_owned();
    let (steps, times) = steps(&parameters, app.settings.points_max)?;
    let (options, series_max) = (options(&app, &parameters)?, parameters.limit()?);
    let timeout = parameters.timeout(app.settings.query.timeout)?;
    run(&app, &turns, &caller.scope, timeout, move |bench| {
        let query = Query::parse_over(&text, times)?;
        if !matches!(query.value_type(), ValueType::Scalar | ValueType::Vector) {
            let kind = match query.value_type() {
                ValueType::Matrix => "range vector",
                _ => "string",
            };
            return Err(Failure::parameter(
                "query",
                format!("invalid expression type {kind:?} for range query, must be Scalar or instant Vector"),
            ));
        }
        let task = Task { reader: bench.reader, options, steps, stop: bench.stop };
        Ok(QueryAnswer { outcome: task.range(&query)?, series_max })
    })
    .await
}

/// A query, formatted.
pub(super) async fn format(
    state: State<App>,
    turns: Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    of_query(state, turns, caller, request, |query| json!(query.formatted())).await
}

/// A query's tree.
pub(super) async fn parse(
    state: State<App>,
    turns: Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    of_query(state, turns, caller, request, Query::tree).await
}

/// The exemplars of a query's series: none, since none are kept.
pub(super) async fn exemplars(
    state: State<App>,
    turns: Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    of_query(state, turns, caller, request, |_| json!([])).await
}

async fn of_query(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request,
    tell: fn(&Query) -> serde_json::Value,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let text = Parameters::read(request).await?.need("query")?.to_owned();
    let timeout = app.settings.query.timeout;
    run(&app, &turns, &caller.scope, timeout, move |_| Ok(JsonAnswer(tell(&Query::parse(&text)?)))).await
}

fn options(app: &App, parameters: &Parameters) -> Result<Options, Failure> {
    let settings = &app.settings.query;
    let lookback_ms = parameters.duration_ms("lookback_delta")?;
    Ok(Options {
        values_max: app.settings.samples_max,
        lookback_ms: lookback_ms.unwrap_or_else(|| whole_ms(settings.lookback_delta)),
        default_step_ms: whole_ms(settings.evaluation_interval),
        delayed_name_removal: settings.delayed_name_removal,
    })
}

fn steps(parameters: &Parameters, points_max: usize) -> Result<(Steps, Times), Failure> {
    parameters.need("start")?;
    parameters.need("end")?;
    parameters.need("step")?;
    let (start_ms, end_ms) = (parameters.time_ms("start")?, parameters.time_ms("end")?);
    let step_ms = parameters.duration_ms("step")?;
    let (Some(start_ms), Some(end_ms), Some(step_ms)) = (start_ms, end_ms, step_ms) else {
        return Err(Failure::bad_data("start, end and step are needed"));
    };
    if end_ms < start_ms {
        return Err(Failure::parameter("end", "end timestamp must not be before start time"));
    }
    let steps = Steps::range(start_ms, end_ms, step_ms);
    let steps = steps.ok_or_else(|| Failure::parameter("step", "it must be more than 0"))?;
    if steps.count() > points_max {
        let widest_ms = end_ms.saturating_sub(start_ms);
        let gaps = i64::try_from(points_max.saturating_sub(1)).unwrap_or(i64::MAX).max(1);
        let smallest_ms = widest_ms.saturating_add(gaps - 1).div_euclid(gaps).max(1);
        return Err(Failure::bad_data(format!(
            "exceeded maximum resolution of {points_max} points per timeseries. Try decreasing the query \
             resolution (?step=XX): from step={} on it fits",
            format_duration(smallest_ms)
        )));
    }
    Ok((steps, Times { step_ms, range_ms: end_ms.saturating_sub(start_ms) }))
}
