//! Why a query is not answered.

use crate::store::StoreError;
use thiserror::Error;

/// A text that is no query that can be evaluated here.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ParseError(pub(super) String);

impl ParseError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// An evaluation that came to no end.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The query can't be evaluated over this data.
    #[error("{0}")]
    Execution(String),
    /// It holds more than it may.
    #[error(
        "the query would hold more than {values_max} samples and points in memory: ask for fewer series, a \
         shorter range or a longer step"
    )]
    TooLarge {
        /// How many it may.
        values_max: usize,
    },
    /// It took too long.
    #[error("query timed out in expression evaluation: ask for less, or with a longer timeout")]
    Timeout,
    /// Nobody waits for it any more.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EvalError {
    pub(super) fn execution(message: impl Into<String>) -> Self {
        Self::Execution(message.into())
    }

    /// What Prometheus says where two series of a vector would be one.
    pub(super) fn same_labels() -> Self {
        Self::execution("vector cannot contain metrics with the same labelset")
    }
}

pub(super) type Result<T> = std::result::Result<T, EvalError>;
