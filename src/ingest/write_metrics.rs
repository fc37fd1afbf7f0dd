//! One pushed value: its address, its parameters and its quantity.

use super::params::{ParamsError, WriteParams};
use super::path::{self, PathError};
use crate::kubernetes::described::{DescribeError, DescribedObject};
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::quantity::{Quantity, QuantityError};
use crate::kubernetes::resources::ResourceError;
use lookback_storage::{Labels, WriteBatch};
use thiserror::Error;

/// A push that can be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The object it describes.
    pub object: DescribedObject,
    /// The series it goes to.
    pub labels: Labels,
    /// Its time in Unix milliseconds; `None`: the time of arrival.
    pub timestamp_ms: Option<i64>,
    /// Its value.
    pub value: f64,
}

/// Why a push can't be appended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PushError {
    /// Its path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its query.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Its labels.
    #[error(transparent)]
    Labels(#[from] DescribeError),
    /// Its value.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

impl PushError {
    /// A short name for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Path(_) => "bad_object",
            Self::Params(ParamsError::Timestamp(_)) => "bad_timestamp",
            Self::Params(ParamsError::Unknown { .. } | ParamsError::Repeated { .. }) => "bad_parameter",
            Self::Params(_) | Self::Labels(_) => "bad_labels",
            Self::Quantity(_) => "bad_quantity",
        }
    }

    /// Whether the cluster does not have the resource, as far as is known.
    #[must_use]
    pub const fn is_not_in_cluster(&self) -> bool {
        matches!(
            self,
            Self::Path(PathError::Describe(DescribeError::Resource(ResourceError::NotInCluster { .. })))
        )
    }

    /// Whether there is nothing at this path, rather than something wrong with the push.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Path(PathError::Describe(DescribeError::Path | DescribeError::Resource(_))))
    }
}

impl Push {
    /// Reads a push: its path and query as they stand in the request, and its body.
    ///
    /// # Errors
    /// When a part of it can't be used.
    pub fn parse(resolver: &Resolver, path: &str, query: &str, body: &[u8]) -> Result<Self, PushError> {
        let (object, metric) = path::parse(resolver, path)?;
        let WriteParams { labels, timestamp_ms } = WriteParams::parse(query)?;
        let labels = object.labels(&metric, &labels)?;
        let value = Quantity::from_json(body)?.value()?;
        Ok(Self { object, labels, timestamp_ms, value })
    }

    /// As a batch of one sample.
    #[must_use]
    pub fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        batch.push(self.labels, self.timestamp_ms, self.value);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_part_is_refused_by_its_own_reason() {
        let path = "/write-metrics/nodes/n1/load";
        for (path, query, body, reason) in [
            ("/write-metrics/nodes/n1", "", "1", "bad_object"),
            (path, "x=1", "1", "bad_parameter"),
            (path, "timestamp=x", "1", "bad_timestamp"),
            (path, "labels=x", "1", "bad_labels"),
            (path, "labels=node=x", "1", "bad_labels"),
            (path, "", "{\"Value\":42}", "bad_quantity"),
        ] {
            let error = Push::parse(&Resolver::default(), path, query, body.as_bytes()).expect_err(body);
            assert_eq!(error.reason(), reason);
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Push::parse(&Resolver::default(), "/write-metrics/nodes/n1/load", "", &body);
        }
    }
}
