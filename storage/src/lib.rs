//! The embedded time-series engine of Lookback.

pub mod append;
pub mod labels;
pub mod matcher;
pub mod resample;
pub mod sample;

pub use append::{NewSample, OutOfOrder, Reject, WriteBatch, WriteReport};
pub use labels::{LabelError, Labels, METRIC_NAME_LABEL};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use resample::Aggregation;
pub use sample::{Sample, sort_and_deduplicate};
