//! The seam between the APIs and whatever keeps the samples.
//!
//! Everything above this file (handlers, queries, adapters) sees only [`Store`]; behind it stands the
//! embedded engine ([`embedded`]; while it is being opened: [`opening`]) or a Prometheus-compatible one
//! ([`prometheus`]).
//!
//! invariant: a caller sees and changes only what its [`Scope`] allows. Each implementation enforces
//! that itself, so that no handler can forget to.

pub mod embedded;
pub mod front;
pub mod memory;
pub mod opening;
pub mod prometheus;

mod reader;

pub use reader::{EachRequest, PartsRequest, SeriesReader};

use async_trait::async_trait;
use embedded::BackupPieces;
use lookback_storage::{
    Aggregation, BackupReport, Extent, Labels, Matcher, OutOfOrder, RangeUse, Sample, WriteBatch, WriteReport,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Whose data a call may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Series whose `namespace` label is one of these; series without one are not included.
    Namespaces(Arc<BTreeSet<String>>),
}

impl Scope {
    /// Whether a series of this namespace (`None`: it has no `namespace` label) lies within.
    #[must_use]
    pub fn allows(&self, namespace: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(set) => namespace.is_some_and(|n| set.contains(n)),
        }
    }

    /// Whether the series of these labels lies within. Looks for no label where all do.
    #[must_use]
    pub fn allows_series(&self, labels: &Labels) -> bool {
        matches!(self, Self::All) || self.allows(labels.get("namespace"))
    }

    /// Whether all series of a batch lie within.
    ///
    /// # Errors
    /// [`StoreError::OutOfScope`] where one does not, which names its namespace.
    pub fn admits(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        match batch.series.iter().find(|labels| !self.allows_series(labels)) {
            None => Ok(()),
            Some(outside) => {
                let namespace = outside.get("namespace").unwrap_or_default().to_owned();
                Err(StoreError::OutOfScope { namespace })
            }
        }
    }
}

/// Goes with every call: what it may touch and how long it may take.
#[derive(Clone, Debug)]
pub struct Context {
    /// What it may touch.
    pub scope: Scope,
    /// How long it may take; past that it is [`StoreError::DeadlineExceeded`].
    pub timeout: Duration,
}

/// The samples of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSamples {
    /// The series.
    pub labels: Arc<Labels>,
    /// Its samples in time order, one a timestamp.
    pub samples: Vec<Sample>,
}

/// The newest sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// The series.
    pub labels: Arc<Labels>,
    /// Its newest sample.
    pub sample: Sample,
    /// Whether it is on disk. One that could not be written is served all the same, while it is fresh.
    pub durable: bool,
}

/// A question for resampled history; see [`lookback_storage::resample`] for what a point is.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// The first point, Unix milliseconds.
    pub start_ms: i64,
    /// No point lies after this, Unix milliseconds.
    pub end_ms: i64,
    /// From point to point, and how far back each point looks; more than 0.
    pub step_ms: i64,
    /// What a point says of its samples.
    pub aggregation: Aggregation,
    /// Read the samples as a counter: aggregate its rate a second.
    pub counter: bool,
    /// Most samples that may be read; more is [`StoreError::TooLarge`].
    pub samples_max: usize,
    /// Most points that the answer may have, all series together; more is [`StoreError::TooManyPoints`], as
    /// soon as that is known.
    pub points_max: usize,
}

/// Resampled history, and what it was made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeRead {
    /// The series that have points, in label order.
    pub series: Vec<SeriesSamples>,
    /// Whether from samples or from rollups.
    pub used: RangeUse,
}

/// Which label names or values are asked for.
#[derive(Clone, Debug)]
pub struct LabelsRequest {
    /// The values of this label; `None`: the names of all labels.
    pub name: Option<String>,
    /// Of which series; none: all.
    pub matchers: Vec<Matcher>,
}

/// What the store holds, for `/metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Series in the index.
    pub series: u64,
    /// Samples in memory, not yet sealed.
    pub head_samples: u64,
    /// Samples in sealed blocks.
    pub sealed_samples: u64,
    /// Bytes of the write-ahead log on disk.
    pub log_bytes: u64,
    /// Bytes of sealed blocks on disk.
    pub block_bytes: u64,
    /// Bytes of rollups on disk.
    pub rollup_bytes: u64,
    /// Rollups that failed a checksum and are left out.
    pub damaged_rollups: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Time partitions on disk.
    pub partitions: u64,
    /// Blocks that failed a checksum and are left out.
    pub damaged_blocks: u64,
    /// Chunks that failed a checksum and were left out of answers, as often as they were read.
    pub damaged_chunks: u64,
    /// Files and directories that were set aside because they are damaged.
    pub set_aside: u64,
    /// Groups of the write-ahead log that were acknowledged and are lost, since the start.
    pub lost_log_groups: u64,
    /// What was found to be damaged at the start, and set aside.
    pub damage: Vec<String>,
    /// Series whose latest value could not be written, and is served from memory.
    pub latest_undurable: u64,
    /// Partitions that went before their time to make room.
    pub partitions_dropped: u64,
    /// Bytes that the store may take, if that is limited.
    pub size_max_bytes: Option<u64>,
    /// In how many milliseconds there is no room left, if the store goes on growing as it does.
    pub full_in_ms: Option<i64>,
    /// Why writes are refused now, if they are.
    pub write_failure: Option<String>,
    /// Changes whenever the set of series does.
    pub series_generation: u64,
    /// What waits for an engine elsewhere; `None`: the engine is this one.
    pub outbox: Option<OutboxFigures>,
}

/// What waits for an engine elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxFigures {
    /// Samples that it has not taken yet.
    pub waiting_samples: u64,
    /// Bytes on disk, with what is kept until it is surely there.
    pub bytes: u64,
    /// Samples that it refused for good, and that are set aside.
    pub dead_letter_samples: u64,
    /// Why it takes nothing now, if it does not.
    pub engine_failure: Option<String>,
}

/// Why a call failed. Each says what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A sample outside the caller's scope, in an `append` or a `delete`.
    #[error("namespace {namespace:?} is outside of what these credentials may use")]
    OutOfScope {
        /// The namespace; empty: none.
        namespace: String,
    },
    /// The disk is full, or nearly.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// The store can't take or give anything at present.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The answer would be larger than the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The engine elsewhere refuses the question for a limit of its own, or answers more than can be read of it at once.
    #[error("{0}")]
    BeyondEngine(String),
    /// A resampled answer would have more points than were asked for.
    #[error(
        "the answer has more than {points_max} points: ask for fewer series, a longer step or a shorter time"
    )]
    TooManyPoints {
        /// The bound.
        points_max: usize,
    },
    /// It took too long.
    #[error("the store did not answer within {0:?}: ask for less, or again later")]
    DeadlineExceeded(Duration),
    /// Something that should not be.
    #[error("internal error of the store: {0}")]
    Internal(String),
}

impl StoreError {
    /// The failure of a write of which nothing was stored, with what is done about it meanwhile.
    #[must_use]
    fn of_write(self) -> Self {
        let meanwhile = |reason| {
            format!("{reason}; nothing of this was stored; latest values are served from memory meanwhile")
        };
        match self {
            Self::NoSpace(reason) => Self::NoSpace(meanwhile(reason)),
            Self::Unavailable(reason) => Self::Unavailable(meanwhile(reason)),
            other => other,
        }
    }
}

/// Keeps samples and gives them back.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Appends; answers once everything accepted is durable on disk. `now_ms` stamps samples that
    /// carry no time and bounds those that do.
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError>;

    /// The newest sample of each matching series, where it is not older than `not_before_ms` and is
    /// not a staleness marker; also one that could not be written, marked as not durable.
    async fn latest(
        &self,
        context: &Context,
        matchers: &[Matcher],
        not_before_ms: i64,
    ) -> Result<Vec<Latest>, StoreError>;

    /// All samples of the matching series in `[start_ms, end_ms]`, bit for bit, series in label
    /// order. More than `samples_max` in all is [`StoreError::TooLarge`].
    async fn select(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        samples_max: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError>;

    /// Resampled history of the matching series, in label order; series without a point are left out.
    async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeRead, StoreError>;

    /// Reads series by series, for work that runs on a blocking thread. What it gives is within the
    /// context's scope; how long it may take is for its caller to say.
    async fn reader(&self, context: &Context) -> Result<Box<dyn SeriesReader>, StoreError>;

    /// Label names or values, sorted.
    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError>;

    /// Deletes the samples of the matching series in `[start_ms, end_ms]`, durably; answers how many
    /// series matched. No matchers delete nothing.
    async fn delete(
        &self,
        context: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, StoreError>;

    /// Backs everything up into a directory, while reads and writes go on.
    async fn backup(&self, to: PathBuf) -> Result<BackupReport, StoreError> {
        let _ = to;
        Err(StoreError::Unavailable("it makes no backups of its own".to_owned()))
    }

    /// Backs everything up as a stream, piece by piece, while reads and writes go on.
    async fn backup_stream(&self) -> Result<BackupPieces, StoreError> {
        Err(StoreError::Unavailable("it makes no backups of its own".to_owned()))
    }

    /// What the store holds. Never waits for a writer.
    async fn stats(&self) -> Result<StoreStats, StoreError>;

    /// How far the samples reach, counted over all series and blocks; `None`: it is not known here.
    async fn extent(&self) -> Result<Option<Extent>, StoreError> {
        Ok(None)
    }
}
