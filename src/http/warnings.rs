//! What is said beside an answer that is whole: `Warning` headers, which kubectl shows.

use crate::app::App;
use axum::http::{HeaderValue, header};
use axum::response::Response;

/// Adds them, one header each.
pub(super) fn warn(response: &mut Response, warnings: impl IntoIterator<Item = String>) {
    for text in warnings {
        response.headers_mut().append(header::WARNING, header_of(&text));
    }
}

/// As RFC 7234 writes it: what can't be in a header is `?`.
fn header_of(text: &str) -> HeaderValue {
    let quotable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let text: String = text.chars().map(quotable).collect();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    let header = HeaderValue::try_from(format!("299 lookback \"{text}\""));
    header.unwrap_or(HeaderValue::from_static("299 lookback \"\""))
}

/// Says, counts and logs that so many values are served although they are not fresh, as a metric rule allows.
pub(super) fn held(app: &App, metric: &str, count: usize) -> Option<String> {
    if count == 0 {
        return None;
    }
    app.metrics.values_held.inc_by(count as u64);
    tracing::info!(metric, held = count, "served values that are not fresh, as a metric rule allows");
    Some(format!("{count} values of {metric} are not fresh: held as a metric rule allows"))
}
