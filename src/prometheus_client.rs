//! A client of a server that speaks Prometheus' HTTP API: Prometheus, VictoriaMetrics, Mimir, Thanos, Cortex.
//!
//! The API is specified at <https://prometheus.io/docs/prometheus/latest/querying/api/>, remote write at
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>.
//!
//! | file | what |
//! |---|---|
//! | `settings` | which server, and how it is spoken to |
//! | `trust` | TLS: whom it is believed to be, as whom Lookback goes there |
//! | `transport` | one request and its answer, bounded in time and bytes |
//! | `answer` | the JSON of answers |
//! | `selector` | matchers as text |
//! | `write` | remote write 1.0, and what its answers mean |
//! | `raw` | raw samples: by remote read (`remote_read`, `xor`), by export (`native`, `export`), by a query |
//! | `error` | why there is no answer |
//!
//! Nothing is tried again here: that is for the caller to say.

mod answer;
mod error;
mod export;
mod native;
mod raw;
mod remote_read;
mod selector;
mod settings;
mod transport;
mod trust;
mod write;
mod xor;

pub use answer::{Answer, LabelMap, MatrixSeries, Value, VectorSample};
pub use error::{ClientError, SettingsError};
pub use raw::{LeftOut, RawMethod, RawPart};
pub use remote_read::RemoteReadError;
pub use selector::selector;
pub use settings::{At, Credentials, ServerSettings, ServerUrl, TlsFiles, Verb, parse_header};
pub use transport::{Call, Streaming};
pub use write::{WriteError, decode_write_request, write_request};

use crate::text::first_chars;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::time::Duration;
use transport::Transport;

/// Speaks to one server. A cheap clone; clones share their connections.
#[derive(Clone)]
pub struct PrometheusClient {
    transport: std::sync::Arc<Transport>,
}

/// A name and a value of a request's form.
type Field<'a> = (&'a str, String);

impl PrometheusClient {
    /// A client of the server that the settings name. Reads the TLS files; speaks to nobody yet.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn new(settings: ServerSettings) -> Result<Self, SettingsError> {
        Ok(Self { transport: std::sync::Arc::new(Transport::new(settings)?) })
    }

    /// The server's URL, as messages show it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.transport.server()
    }

    /// Asks in PromQL for one instant; `None`: now, by the server's clock.
    ///
    /// # Errors
    /// When there is no answer, or it says that the query fails.
    pub async fn query(
        &self,
        query: &str,
        at_ms: Option<i64>,
        timeout: Duration,
    ) -> Result<Answer<Value>, ClientError> {
        self.query_with(query, at_ms, &[], timeout).await
    }

    /// [`query`](Self::query) with more fields in the form.
    ///
    /// # Errors
    /// Likewise.
    pub async fn query_with(
        &self,
        query: &str,
        at_ms: Option<i64>,
        more: &[Field<'_>],
        timeout: Duration,
    ) -> Result<Answer<Value>, ClientError> {
        let mut fields = vec![("query", query.to_owned())];
        fields.extend(at_ms.map(|at_ms| ("time", seconds(at_ms))));
        fields.extend_from_slice(more);
        self.ask("/api/v1/query", &fields, timeout).await
    }

    /// Asks in PromQL for a range.
    ///
    /// # Errors
    /// When there is no answer, or it says that the query fails.
    pub async fn query_range(
        &self,
        query: &str,
        (start_ms, end_ms): (i64, i64),
        step_ms: i64,
        more: &[Field<'_>],
        timeout: Duration,
    ) -> Result<Answer<Value>, ClientError> {
        let mut fields = vec![
            ("query", query.to_owned()),
            ("start", seconds(start_ms)),
            ("end", seconds(end_ms)),
            ("step", seconds(step_ms)),
        ];
        fields.extend_from_slice(more);
        self.ask("/api/v1/query_range", &fields, timeout).await
    }

    /// The label sets of the series that fit any of the selectors and have samples within the time;
    /// without one: within what the server takes for it.
    ///
    /// # Errors
    /// When there is no answer, or it says that the question is wrong.
    pub async fn series(
        &self,
        selectors: &[String],
        within_ms: Option<(i64, i64)>,
        timeout: Duration,
    ) -> Result<Answer<Vec<LabelMap>>, ClientError> {
        self.ask("/api/v1/series", &matching(selectors, within_ms), timeout).await
    }

    /// The names of labels, of all series or of those that fit any of the selectors.
    ///
    /// # Errors
    /// When there is no answer, or it says that the question is wrong.
    pub async fn label_names(
        &self,
        selectors: &[String],
        within_ms: Option<(i64, i64)>,
        timeout: Duration,
    ) -> Result<Answer<Vec<String>>, ClientError> {
        self.ask("/api/v1/labels", &matching(selectors, within_ms), timeout).await
    }

    /// The values of a label, of all series or of those that fit any of the selectors. The API has no
    /// POST for it.
    ///
    /// # Errors
    /// When there is no answer, or it says that the question is wrong.
    pub async fn label_values(
        &self,
        name: &str,
        selectors: &[String],
        within_ms: Option<(i64, i64)>,
        timeout: Duration,
    ) -> Result<Answer<Vec<String>>, ClientError> {
        let path = format!("/api/v1/label/{}/values", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let query = form(&matching(selectors, within_ms));
        let call = Call { query: Some(query), ..Call::get(&path) };
        self.transport.json(call, timeout).await
    }

    /// Sends a remote write request: an encoded [`write_request`], compressed by snappy's block format.
    /// `path` comes after the server's URL.
    ///
    /// # Errors
    /// When it is not taken: whether it is worth while to send it again.
    pub async fn remote_write(
        &self,
        path: &str,
        compressed: Bytes,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        write::post(&self.transport, path, compressed, timeout).await
    }

    /// Any other call, its answer as a stream of bytes. The time is for the answer to begin.
    ///
    /// # Errors
    /// When there is no answer, or one of another status than 2xx.
    pub async fn stream(&self, call: Call<'_>, timeout: Duration) -> Result<Streaming, ClientError> {
        self.transport.stream(call, timeout).await
    }

    /// Asks with a form, by the verb that the settings say.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        fields: &[Field<'_>],
        timeout: Duration,
    ) -> Result<Answer<T>, ClientError> {
        let form = form(fields);
        let call = match self.transport.settings().verb {
            Verb::Get => Call { query: Some(form), ..Call::get(path) },
            Verb::Post => Call::post(path, "application/x-www-form-urlencoded", form.into()),
        };
        self.transport.json(call, timeout).await
    }
}

fn matching(selectors: &[String], within_ms: Option<(i64, i64)>) -> Vec<Field<'_>> {
    let mut fields: Vec<Field<'_>> = selectors.iter().map(|selector| ("match[]", selector.clone())).collect();
    if let Some((start_ms, end_ms)) = within_ms {
        fields.extend([("start", seconds(start_ms)), ("end", seconds(end_ms))]);
    }
    fields
}

/// Fields as a form carries them.
#[must_use]
pub fn form(fields: &[(&str, String)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Milliseconds as seconds with three decimals, exactly.
#[must_use]
pub fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1_000, ms.unsigned_abs() % 1_000)
}

/// How much is kept of what a server says of why, in characters: what matters often stands behind a long beginning.
const REASON_CHARS_MAX: usize = 500;

/// What a server says of why, short enough for a message.
fn told(body: &[u8]) -> String {
    reason(&String::from_utf8_lossy(body))
}

fn reason(text: &str) -> String {
    first_chars(text.trim(), REASON_CHARS_MAX)
}

/// The parsers of answers over any bytes, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = serde_json::from_slice::<answer::Envelope<Value>>(bytes);
    let _ = decode_write_request(bytes);
    remote_read::fuzz(bytes);
    export::fuzz(bytes);
    native::fuzz(bytes);
}

#[cfg(test)]
mod tests;
