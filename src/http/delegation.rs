//! Passes a question on to the adapter that answers for metrics that Lookback does not know.
//!
//! The answer's items are the adapter's own, byte for byte; one that serves only the other version of the API is
//! asked in that, and its answer translated. Lookback has authorised the caller before; the
//! adapter sees Lookback's own ServiceAccount (see [`crate::kubernetes::adapter`]). Whatever ails the adapter,
//! the question ends within its time, and no metric of Lookback's own waits for it.

use super::Source;
use super::error::ApiError;
use crate::app::App;
use crate::kubernetes::adapter::{Adapter, AdapterError, AdapterValues, DELEGATED};
use crate::kubernetes::autoscalers::Answer;
use crate::kubernetes::quantity::saturating_milli;
use crate::telemetry::OutcomeLabels;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// The adapter to ask, for one request.
#[derive(Clone, Copy)]
pub(super) struct Delegate<'a> {
    app: &'a App,
    adapter: &'a Adapter,
}

/// What an adapter says that does not know the metric either.
pub(super) struct Unknown(String);

impl Unknown {
    /// Lookback's own error, with what the adapter says.
    pub(super) fn added_to(self, error: ApiError) -> ApiError {
        if error.code != StatusCode::NOT_FOUND {
            return error;
        }
        ApiError { message: format!("{}; {}", error.message, self.0), ..error }
    }
}

impl<'a> Delegate<'a> {
    /// Of metrics of objects; `None`: there is none, or this question comes from another Lookback already.
    pub(super) fn for_custom(app: &'a App, headers: &HeaderMap) -> Option<Self> {
        Self::of(app, headers, app.delegates().custom.as_deref())
    }

    /// Of external metrics, likewise.
    pub(super) fn for_external(app: &'a App, headers: &HeaderMap) -> Option<Self> {
        Self::of(app, headers, app.delegates().external.as_deref())
    }

    fn of(app: &'a App, headers: &HeaderMap, adapter: Option<&'a Adapter>) -> Option<Self> {
        let adapter = adapter.filter(|_| !headers.contains_key(DELEGATED))?;
        Some(Self { app, adapter })
    }

    /// Its answer. `question` is what is remembered of it for autoscalers.
    pub(super) async fn answer(
        self,
        uri: &Uri,
        question: Option<Answer>,
    ) -> Result<Result<Response, Unknown>, ApiError> {
        let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
        let answered = self.adapter.values_in_any_version(path).await;
        let outcome = answered.as_ref().map_or_else(AdapterError::reason, |_| "ok");
        self.app.metrics.delegate_requests.get_or_create(&OutcomeLabels { outcome }).inc();
        let name = self.adapter.name();
        match answered {
            Ok(AdapterValues { body, items }) => {
                let each = items.iter().map(|item| saturating_milli(item.value));
                self.leave(question.map(|question| Answer {
                    sum_milli: each.fold(0, i64::saturating_add),
                    items: items.len(),
                    oldest_ms: items.iter().filter_map(|item| item.timestamp_ms).min(),
                    why: items.is_empty().then(|| format!("{name} answers with none")),
                    ..question
                }));
                let json = [(header::CONTENT_TYPE, "application/json")];
                Ok(Ok(Source("delegate").gave((json, body).into_response())))
            }
            Err(AdapterError::Status { code: 404, message }) => {
                Ok(Err(Unknown(format!("{name} does not have it either: {message}"))))
            }
            Err(error) => {
                tracing::warn!(adapter = name, %error, path = uri.path(), "a delegated question was not answered");
                let error = self.refusal(&error);
                self.leave(question.map(|question| Answer { why: Some(error.message.clone()), ..question }));
                Err(error)
            }
        }
    }

    fn leave(self, answer: Option<Answer>) {
        if let (Some(live), Some(answer)) = (self.app.live(), answer)
            && live.answers.is_due(&answer, self.app.clock.now_ms())
        {
            live.answers.leave(answer);
        }
    }

    fn refusal(self, error: &AdapterError) -> ApiError {
        let name = self.adapter.name();
        // What is wrong with the question is wrong wherever it is asked.
        if let AdapterError::Status { code: code @ (400 | 422), message } = error
            && let Ok(code) = StatusCode::from_u16(*code)
        {
            return ApiError::new(code, format!("{message} (says {name})"));
        }
        let advice = match error {
            AdapterError::Status { code: 401 | 403, .. } => {
                ": let Lookback's ServiceAccount get and list these metrics, and check the token that it shows"
            }
            _ => "",
        };
        let message = format!("Lookback does not know this metric, and {name}, which may, {error}{advice}");
        let retry_after = (header::RETRY_AFTER, HeaderValue::from_static("5"));
        ApiError { headers: vec![retry_after], ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }
}
