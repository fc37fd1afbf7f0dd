//! What a writer hands in, and what it is told.

use crate::labels::Labels;
use crate::retention::DEFAULT_CLASS;
use thiserror::Error;

/// Samples to append in one call. They are acknowledged together, once they are durable; a sample
/// that is refused does not hold the others back.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// The series that samples refer to by their place here.
    pub series: Vec<Labels>,
    /// The samples, in the order in which they apply.
    pub samples: Vec<NewSample>,
}

/// One sample of a [`WriteBatch`].
#[derive(Clone, Copy, Debug)]
pub struct NewSample {
    /// The place of its series in [`WriteBatch::series`].
    pub series: usize,
    /// Unix time in milliseconds. `None`: stamped with the time of arrival, or one millisecond after
    /// the series' newest sample where that is later, so that such samples strictly increase.
    pub timestamp_ms: Option<i64>,
    /// The value; any bit pattern.
    pub value: f64,
}

impl WriteBatch {
    /// Adds one sample of a series of its own.
    pub fn push(&mut self, labels: Labels, timestamp_ms: Option<i64>, value: f64) {
        self.series.push(labels);
        self.samples.push(NewSample { series: self.series.len() - 1, timestamp_ms, value });
    }
}

/// Which samples older than a series' newest are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfOrder {
    /// Those within the engine's out-of-order window.
    Window,
    /// All that retention keeps: for imports.
    Lifted,
}

/// What became of a batch. Every sample is counted once: accepted, a duplicate, or rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Samples that are now durable and readable.
    pub accepted: usize,
    /// Samples that the store already held, bit for bit; dropped.
    pub duplicates: usize,
    /// Series that did not exist before.
    pub series_created: usize,
    /// Samples refused: the place in [`WriteBatch::samples`] and why.
    pub rejected: Vec<(usize, Reject)>,
}

/// Why one sample was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reject {
    /// Later than the clock allows.
    #[error(
        "the timestamp {timestamp_ms} ms is more than {ahead_max_ms} ms ahead of the server's clock ({now_ms} ms): correct the sender's clock or the timestamp's unit"
    )]
    TooFarAhead {
        /// The sample's time.
        timestamp_ms: i64,
        /// The clock's time.
        now_ms: i64,
        /// The limit.
        ahead_max_ms: i64,
    },
    /// Older than everything that retention keeps.
    #[error(
        "the timestamp {timestamp_ms} ms is older than the retention of class {class:?} keeps (it begins at {oldest_ms} ms): raise {} to take it",
        if class == DEFAULT_CLASS { "--retention" } else { "what its rule keeps" }
    )]
    BeyondRetention {
        /// The sample's time.
        timestamp_ms: i64,
        /// The oldest time that is kept.
        oldest_ms: i64,
        /// The retention class of its series.
        class: String,
    },
    /// Older than the series' newest sample by more than the out-of-order window.
    #[error(
        "out of order: the timestamp {timestamp_ms} ms is more than {window_ms} ms older than the series' newest sample ({newest_ms} ms)"
    )]
    OutOfOrder {
        /// The sample's time.
        timestamp_ms: i64,
        /// The series' newest sample.
        newest_ms: i64,
        /// The window.
        window_ms: i64,
    },
    /// Its series would be one too many.
    #[error(
        "a new series, and {} the {series_max} that {}: send fewer different label sets, or raise the bound; \
         series that there are go on",
        match namespace { Some(namespace) => format!("namespace {namespace:?} has"), None => "there are".to_owned() },
        if namespace.is_some() { "--series-per-namespace-max allows" } else { "--series-max allows" }
    )]
    SeriesLimit {
        /// The bound.
        series_max: u64,
        /// Whose bound it is; `None`: that on all series.
        namespace: Option<String>,
    },
    /// Its series would be a new one while memory is short.
    #[error(
        "a new series, and the server's memory is nearly used up: send fewer different label sets, or raise \
         --memory-max or the container's limit; series that there are go on"
    )]
    MemoryLimit,
}

impl Reject {
    /// Whether a bound on series was met: nothing is wrong with the sample, and later there may be room.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::SeriesLimit { .. } | Self::MemoryLimit)
    }

    /// A short name for counters: `too_far_ahead`, `beyond_retention`, `out_of_order`, `series_limit`,
    /// `memory_limit`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooFarAhead { .. } => "too_far_ahead",
            Self::BeyondRetention { .. } => "beyond_retention",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::SeriesLimit { .. } => "series_limit",
            Self::MemoryLimit => "memory_limit",
        }
    }
}
