//! `POST /api/v1/admin/tsdb/delete_series`: deletes series, or a span of them, as Prometheus does it.
//!
//! `match[]` (a series selector, once or more), `start` and `end` (Unix seconds or RFC 3339, all of time
//! where they are not given) come in the query string or as a form. It takes credentials that may write,
//! and touches no series outside of their namespaces. 204 says that the delete is durable; the space
//! comes back when what it touched is merged, in minutes.

use super::auth::Caller;
use super::error::{ApiError, PrometheusError};
use super::{Api, parameters};
use crate::app::App;
use crate::series_selector;
use crate::time::{UnixUnit, parse_timestamp};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use lookback_storage::Matcher;

/// Largest form, in bytes.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Most selectors in one request.
const SELECTORS_MAX: usize = 50;

/// The route.
pub fn routes() -> Router<App> {
    let methods = post(delete).put(delete).fallback(method_not_allowed);
    Router::new()
        .route("/api/v1/admin/tsdb/delete_series", methods)
        .layer(axum::middleware::map_response(|response| async { Api("delete_series").answered(response) }))
}

async fn method_not_allowed() -> Response {
    ApiError::method_not_allowed("deleting takes POST or PUT", "POST, PUT").into_prometheus()
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<StatusCode, PrometheusError> {
    caller.require_write()?;
    let asked = Asked::parse(parameters::read(request, FORM_BYTES_MAX).await?)?;
    let context = app.context(&caller.scope);
    let mut series = 0;
    for matchers in &asked.selectors {
        series += app.store.delete(&context, matchers, asked.start_ms, asked.end_ms).await?;
    }
    tracing::info!(user = %caller.user, series, start_ms = asked.start_ms, end_ms = asked.end_ms, "deleted samples");
    Ok(StatusCode::NO_CONTENT)
}

/// What is to be deleted.
struct Asked {
    selectors: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
}

impl Asked {
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut selectors = Vec::new();
        let (mut start_ms, mut end_ms) = (None, None);
        for (name, value) in pairs {
            let wrong = |problem: String| ApiError::bad_request(format!("parameter {name:?}: {problem}"));
            let time = |value: &str| {
                parse_timestamp(value, UnixUnit::Seconds).map_err(|error| wrong(error.to_string()))
            };
            match name.as_str() {
                "match[]" if selectors.len() == SELECTORS_MAX => {
                    return Err(wrong(format!("more than {SELECTORS_MAX} selectors: send several requests")));
                }
                "match[]" => {
                    let matchers = series_selector::parse(&value);
                    selectors.push(matchers.map_err(|error| wrong(error.to_string()))?);
                }
                "start" if start_ms.is_none() => start_ms = Some(time(&value)?),
                "end" if end_ms.is_none() => end_ms = Some(time(&value)?),
                "start" | "end" => return Err(wrong("it is given twice".to_owned())),
                _ => return Err(wrong("there is no such parameter: give match[], start and end".to_owned())),
            }
        }
        if selectors.is_empty() {
            let message = "no match[] parameter: say which series, as in match[]=cpu{namespace=\"shop\"}";
            return Err(ApiError::bad_request(message));
        }
        let (start_ms, end_ms) = (start_ms.unwrap_or(i64::MIN), end_ms.unwrap_or(i64::MAX));
        if start_ms > end_ms {
            return Err(ApiError::bad_request("parameter \"end\": it is before start"));
        }
        Ok(Self { selectors, start_ms, end_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Scope;
    use crate::testing::{NOW_MS, TestApp};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const PATH: &str = "/api/v1/admin/tsdb/delete_series";

    fn server() -> TestApp {
        let server = TestApp::serving(routes());
        for namespace in ["shop", "lab"] {
            for metric in ["cpu", "memory"] {
                let labels = [("__name__", metric), ("namespace", namespace)];
                server.put_all(&labels, &[(NOW_MS - 2_000, 1.0), (NOW_MS - 1_000, 2.0), (NOW_MS, 3.0)]);
            }
        }
        server
    }

    fn left(server: &TestApp) -> Vec<String> {
        server.everything().into_iter().map(|(series, ..)| series).collect()
    }

    #[tokio::test]
    async fn what_matches_in_the_span_is_gone_and_nothing_else() {
        let server = server();
        let end = (NOW_MS - 1_000) / 1_000;
        let answer =
            server.post(&format!("{PATH}?match[]=cpu%7Bnamespace%3D%22shop%22%7D&end={end}"), "").await;
        assert_eq!(
            (answer.code.as_u16(), answer.body.as_str(), answer.api),
            (204, "", Some("delete_series"))
        );
        assert_eq!(left(&server).len(), 10);
        assert_eq!(left(&server).iter().filter(|s| s.contains("shop") && s.contains("cpu")).count(), 1);
        // By form, two at once, all of time.
        let form = "match[]=cpu&match[]=%7B__name__%3D~%22mem.*%22%2Cnamespace%3D%22lab%22%7D";
        assert_eq!(server.post(PATH, form).await.code, 204);
        assert!(left(&server).iter().all(|s| s.contains("memory") && s.contains("shop")));
        assert_eq!(left(&server).len(), 3);
    }

    #[tokio::test]
    async fn credentials_bound_what_is_deleted() {
        let mut server = server();
        let shop = Scope::Namespaces(Arc::new(BTreeSet::from(["shop".to_owned()])));
        server.caller = Some(Caller { scope: shop, ..Caller::local() });
        assert_eq!(server.post(&format!("{PATH}?match[]=cpu"), "").await.code, 204);
        assert_eq!(
            left(&server).iter().filter(|s| s.contains("cpu")).count(),
            3,
            "the other namespace's stay"
        );
        server.caller = Some(Caller { write: false, ..Caller::local() });
        let answer = server.post(&format!("{PATH}?match[]=cpu"), "").await;
        assert_eq!((answer.code.as_u16(), answer.json()["errorType"].as_str()), (403, Some("forbidden")));
        assert_eq!(left(&server).len(), 9);
    }

    #[tokio::test]
    async fn what_is_not_said_clearly_deletes_nothing() {
        let server = server();
        for query in [
            "",
            "match[]=%7B%7D",
            "match[]=cpu%5B5m%5D",
            "match=cpu",
            "match[]=cpu&start=soon",
            "match[]=cpu&start=2&end=1",
            "match[]=cpu&start=1&start=2",
        ] {
            let answer = server.post(&format!("{PATH}?{query}"), "").await;
            assert_eq!(answer.code, 400, "{query}");
            assert_eq!(answer.json()["errorType"], "bad_data");
        }
        assert_eq!(server.get(&format!("{PATH}?match[]=cpu")).await.code, 405);
        assert_eq!(left(&server).len(), 12);
    }
}
