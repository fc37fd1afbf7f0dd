//! OpenTelemetry metrics: an `ExportMetricsServiceRequest` of OTLP/HTTP, as protobuf or JSON.
//!
//! The messages are those of <https://github.com/open-telemetry/opentelemetry-proto> (1.x); what becomes
//! of them follows <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.
//!
//! ```text
//! protobuf ─┐                          resource attributes → labels   [`resource`]
//!           ├─▶ Metric, Point ─▶ [`translate`] ─▶ names, units        [`names`]
//! json ─────┘                      │
//!                                  └─ deltas ─▶ cumulative            [`delta`]
//!
//! gauge           <name>                       sum        <name>, monotonic <name>_total
//! histogram       <name>_bucket{le} _sum _count   summary    <name>{quantile} _sum _count
//! exponential histogram: refused by name, counted
//! ```
//!
//! Exemplars are ignored and counted. The names of scopes are not kept.

pub mod attributes;
pub mod delta;
pub mod json;
pub mod names;
pub mod protobuf;
pub mod resource;
pub mod translate;

use super::intake::IntakeError;
use crate::protobuf::ProtobufError;
use attributes::Attributes;
use thiserror::Error;

/// A request that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OtlpError {
    /// Not the protobuf message.
    #[error("the body is not an OTLP metrics request: {0}")]
    Protobuf(#[from] ProtobufError),
    /// Not the JSON message.
    #[error("the body is not an OTLP metrics request in JSON: {0}")]
    Json(String),
    /// Too much in it.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// What a metric is, besides its points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric<'a> {
    /// `http.server.request.duration`
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// In UCUM's words: `s`, `By`, `1`, `{requests}`.
    pub unit: &'a str,
    /// How its points are to be read.
    pub kind: Kind,
}

/// How points are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that rises and falls.
    Gauge,
    /// A sum.
    Sum {
        /// Whether it only rises.
        monotonic: bool,
        /// Since when it sums.
        temporality: Temporality,
    },
    /// A histogram with explicit bounds.
    Histogram {
        /// Since when it counts.
        temporality: Temporality,
    },
    /// A histogram without explicit bounds; refused.
    ExponentialHistogram,
    /// Quantiles.
    Summary,
}

/// Since when a point sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Not said; refused.
    Unspecified,
    /// Since the point before it.
    Delta,
    /// Since the start of the process.
    Cumulative,
}

impl Temporality {
    /// By its number in the messages.
    #[must_use]
    pub const fn of_number(number: u64) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// One point of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// What it is about.
    pub attributes: Attributes,
    /// When it was taken, Unix nanoseconds; `None`: not said.
    pub time_ns: Option<u64>,
    /// Whether it says that there is no value any more.
    pub no_recorded_value: bool,
    /// What it says.
    pub value: PointValue,
}

/// What a point says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PointValue {
    /// Nothing.
    #[default]
    None,
    /// Of a gauge or a sum.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// How many values.
        count: u64,
        /// Their sum, where it can be told.
        sum: Option<f64>,
        /// Upper bounds, but for the last.
        bounds: Vec<f64>,
        /// Values in each bucket: one more than bounds, or none at all.
        counts: Vec<u64>,
    },
    /// Of a summary.
    Summary {
        /// How many values.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Quantiles and their values.
        quantiles: Vec<(f64, f64)>,
    },
}
