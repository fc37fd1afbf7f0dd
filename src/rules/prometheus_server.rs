//! PromQL asked of a server that speaks Prometheus' HTTP API.

use super::source::{Point, PromQl, SHAPES_MAX, SeriesShape, SourceError};
use crate::prometheus_client::{ClientError, LabelMap, PrometheusClient, Value, Verb};
use crate::store::Scope;
use async_trait::async_trait;
use lookback_storage::METRIC_NAME_LABEL;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes of names in one query that goes into a form: some 800 pods.
const POSTED_NAMES_BYTES_MAX: usize = 32 << 10;

/// Bytes of names in one query that goes into a URL: proxies cut long ones off.
const URL_NAMES_BYTES_MAX: usize = 1 << 10;

/// A server.
pub struct PrometheusServer {
    client: PrometheusClient,
    verb: Verb,
}

impl PrometheusServer {
    /// Asked by this client, which asks by this verb.
    #[must_use]
    pub fn new(client: PrometheusClient, verb: Verb) -> Self {
        Self { client, verb }
    }
}

/// What a server says of a query that it was sent is of the query; all else is of the server.
fn source_error(error: ClientError) -> SourceError {
    match &error {
        ClientError::Refused { status: 400 | 422, .. } => SourceError::Refused(error.to_string()),
        _ => SourceError::Unavailable(error.to_string()),
    }
}

fn shape(mut labels: LabelMap) -> Option<SeriesShape> {
    let name = labels.remove(METRIC_NAME_LABEL)?;
    Some(SeriesShape { name, labels: labels.into_keys().collect() })
}

#[async_trait]
impl PromQl for PrometheusServer {
    async fn instant(
        &self,
        _: &Scope,
        query: &str,
        time_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<Point>, SourceError> {
        let answer = self.client.query(query, Some(time_ms), timeout).await.map_err(source_error)?;
        for warning in &answer.warnings {
            tracing::debug!(server = self.client.server(), warning, "a server warns");
        }
        match answer.data {
            Value::Scalar(sample) => {
                Ok(vec![Point { labels: LabelMap::new(), time_ms: sample.timestamp_ms, value: sample.value }])
            }
            Value::Vector(vector) => {
                let point = |one: crate::prometheus_client::VectorSample| {
                    let sample = one.value?;
                    Some(Point { labels: one.metric, time_ms: sample.timestamp_ms, value: sample.value })
                };
                Ok(vector.into_iter().filter_map(point).collect())
            }
            other => Err(SourceError::Refused(format!(
                "the query gives a {}, and an instant vector is wanted",
                other.kind()
            ))),
        }
    }

    async fn shapes(
        &self,
        selector: &str,
        start_ms: i64,
        end_ms: i64,
        timeout: Duration,
    ) -> Result<BTreeSet<SeriesShape>, SourceError> {
        let answer = self.client.series(&[selector.to_owned()], Some((start_ms, end_ms)), timeout).await;
        let series = answer.map_err(source_error)?.data;
        let mut shapes = BTreeSet::new();
        for shape in series.into_iter().filter_map(shape) {
            if shapes.len() >= SHAPES_MAX {
                break;
            }
            shapes.insert(shape);
        }
        Ok(shapes)
    }

    fn keeps_scopes(&self) -> bool {
        false
    }

    fn names_bytes_max(&self) -> usize {
        match self.verb {
            Verb::Get => URL_NAMES_BYTES_MAX,
            Verb::Post => POSTED_NAMES_BYTES_MAX,
        }
    }
}
