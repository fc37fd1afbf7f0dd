//! `/api/v1/summary`: a window of history in a few numbers, for right-sizers; see [`crate::query::summary`].
//!
//! `GET` with a query string, or `POST` with a form. It takes the parameters of the range endpoint, and
//! `by` (`container`, the default, or `pod`), `percentile` (`P90`), `safetyFactor` (1.2), `min` and `max`
//! (quantities). Errors are those of the range endpoint. Numbers are strings in plain decimals, as there:
//!
//! ```json
//! {"status":"success","data":{"resultType":"summary","result":[{
//!   "metric":{"container":"app","namespace":"default","workload":"web"},
//!   "pods":3,"samples":"60483","coverage":"1","min":"0.1","max":"0.9","mean":"0.35",
//!   "percentiles":{"p50":"0.3","p75":"0.41","p90":"0.5","p95":"0.56","p98":"0.61","p99":"0.7","p99.9":"0.84"},
//!   "recommendation":{"percentile":"p90","base":"0.5","safetyFactor":"1.2","request":"600m"}}]},"infos":[]}
//! ```
//!
//! Where a bound applied, the recommendation also has `"boundedBy":"min"` or `"max"`.

use super::auth::Caller;
use super::error::PrometheusError;
use super::range::{FORM_BYTES_MAX, ask, method_not_allowed};
use super::{Api, aside, parameters};
use crate::app::App;
use crate::query::summary::{PERCENTILES, Summary, SummaryQuestion, summarise};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// An answer of up to this many points, a millisecond's work, is digested where it is.
const INLINE_POINTS_MAX: usize = 20_000;

/// The route of summaries.
pub fn routes() -> Router<App> {
    let methods = get(summary).post(summary).fallback(method_not_allowed);
    Router::new().route("/api/v1/summary", methods).layer(axum::middleware::map_response(named))
}

async fn named(response: Response) -> Response {
    Api("summary").answered(response)
}

async fn summary(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Json<Value>, PrometheusError> {
    caller.require_read()?;
    let pairs = parameters::read(request, FORM_BYTES_MAX).await?;
    let question = SummaryQuestion::parse(pairs, app.settings.points_max, app.clock.now_ms())?;
    let mut answer = ask(&app, &caller, &question.range).await?;
    let infos = std::mem::take(&mut answer.infos);
    let points: usize = answer.series.iter().map(|series| series.samples.len()).sum();
    let work = move || {
        let summaries = summarise(&question, answer);
        summaries.iter().map(|summary| told(&question, summary)).collect::<Vec<_>>()
    };
    let result = aside(points > INLINE_POINTS_MAX, work).await?;
    let data = json!({"resultType": "summary", "result": result});
    Ok(Json(json!({"status": "success", "data": data, "infos": infos})))
}

fn told(question: &SummaryQuestion, summary: &Summary) -> Value {
    let number = |value: f64| Value::from(value.to_string());
    let mut metric = json!({
        "container": summary.container,
        "namespace": question.range.namespace,
        "workload": question.range.workload,
    });
    if let Some(pod) = &summary.pod {
        metric["pod"] = pod.as_str().into();
    }
    if let Some(kind) = &summary.kind {
        metric["kind"] = kind.as_str().into();
    }
    let percentiles: Map<String, Value> = PERCENTILES
        .iter()
        .zip(&summary.percentiles)
        .map(|(p, value)| (format!("p{p}"), number(*value)))
        .collect();
    let mut recommendation = json!({
        "percentile": format!("p{}", question.policy.percentile),
        "base": number(summary.recommendation.base),
        "safetyFactor": number(question.policy.safety_factor),
        "request": summary.recommendation.quantity,
    });
    if let Some(bound) = summary.recommendation.bounded_by {
        recommendation["boundedBy"] = bound.into();
    }
    json!({
        "metric": metric,
        "pods": summary.pods,
        "samples": summary.samples.to_string(),
        "coverage": number(summary.coverage),
        "min": number(summary.min),
        "max": number(summary.max),
        "mean": number(summary.mean),
        "percentiles": percentiles,
        "recommendation": recommendation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestApp;

    /// 2024-01-24T12:00:00Z.
    const START_MS: i64 = 1_706_097_600_000;

    fn server() -> TestApp {
        let server = TestApp::serving(routes());
        for (pod, scale) in [("web-7d4b9c6f5-x2k9p", 1.0), ("web-66b6c48dd5-vmz8q", 2.0)] {
            let labels = [("__name__", "cpu"), ("namespace", "default"), ("pod", pod), ("container", "app")];
            let samples: Vec<_> =
                (0..=10).map(|i| (START_MS + i * 30_000, scale * i as f64 / 10.0)).collect();
            server.put_all(&labels, &samples);
        }
        server
    }

    const QUESTION: &str =
        "workload=web&namespace=default&metric=cpu&start=2024-01-24T12:00:00Z&end=2024-01-24T12:05:00Z";

    #[tokio::test]
    async fn all_pods_of_a_container_are_one_summary() {
        let answer = server().get(&format!("/api/v1/summary?{QUESTION}&max=1500m")).await;
        assert_eq!((answer.code.as_u16(), answer.api), (200, Some("summary")), "{}", answer.body);
        let json = answer.json();
        let told = &json["data"]["result"][0];
        assert_eq!(told["metric"], json!({"container": "app", "namespace": "default", "workload": "web"}));
        assert_eq!(
            (&told["pods"], &told["samples"], &told["coverage"]),
            (&json!(2), &json!("22"), &json!("1"))
        );
        assert_eq!((&told["min"], &told["max"], &told["mean"]), (&json!("0"), &json!("2"), &json!("0.75")));
        assert_eq!(told["percentiles"]["p50"], "0.65");
        // Rank 18.9 of 0 to 2: 1.4 + 0.9 × 0.2 = 1.58 cores, times 1.2.
        let expected = json!({
            "percentile": "p90", "base": "1.58", "safetyFactor": "1.2", "request": "1500m", "boundedBy": "max",
        });
        assert_eq!(told["recommendation"], expected);
    }

    #[tokio::test]
    async fn a_form_does_as_well_and_errors_are_prometheus_json() {
        let server = server();
        let answer = server.post("/api/v1/summary", format!("{QUESTION}&by=pod")).await.json();
        let pods: Vec<_> = (0..2).map(|i| answer["data"]["result"][i]["metric"]["pod"].clone()).collect();
        assert_eq!(pods, ["web-66b6c48dd5-vmz8q", "web-7d4b9c6f5-x2k9p"]);
        let error = server.get("/api/v1/summary?workload=web").await;
        assert_eq!((error.code.as_u16(), error.json()["errorType"].as_str()), (400, Some("bad_data")));
        let nothing =
            server.get(&format!("/api/v1/summary?{}", QUESTION.replace("=web", "=db"))).await.json();
        assert_eq!(nothing["data"]["result"], json!([]));
        assert!(nothing["infos"][0].as_str().is_some_and(|info| info.contains("no series matched")));
    }
}
