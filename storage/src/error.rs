//! What can go wrong in the engine. Each message says what to do where something can be done.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call of the engine failed.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process has the data directory.
    #[error("the data directory {} is in use by {holder}: stop it, or choose another --data-dir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What is known of who holds it.
        holder: String,
    },
    /// Written by a later version.
    #[error("the data directory {} has format {found}, this version reads up to {known}: run the version that wrote it, or a later one", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is understood.
        known: u32,
    },
    /// A restore into the directory was cut off.
    #[error("a restore into {} was cut off: run it again, or choose another --data-dir", path.display())]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// A restore into a directory that has a store.
    #[error("{} is there already: restore into an empty --data-dir", path.display())]
    NotEmpty {
        /// What is there.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The volume is full, or nearly.
    #[error("{free_bytes} bytes are free on the volume of {}, less than the {needed_bytes} kept in reserve: free space or shorten --retention; writes are taken again as soon as there is room", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What is left.
        free_bytes: u64,
        /// What must be left.
        needed_bytes: u64,
    },
    /// Stored bytes are not what was written.
    #[error("damaged data in {}: {what}", path.display())]
    Damaged {
        /// The file or database.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The key-value store below refused.
    #[error("the key-value store {} failed: {what}", path.display())]
    KeyValue {
        /// Its directory.
        path: PathBuf,
        /// Its reason.
        what: String,
    },
    /// Rollups that do not fit the store.
    #[error(transparent)]
    Retention(#[from] crate::retention::RetentionError),
    /// More is waiting to be written than the queue holds.
    #[error("more writes are waiting than the queue holds: send again in a moment")]
    Overloaded,
    /// The engine has been closed.
    #[error("the engine is closed")]
    Closed,
    /// A read would give more samples than allowed.
    #[error("the answer needs more than {samples_max} samples: ask for fewer series or a shorter time")]
    TooManySamples {
        /// The limit.
        samples_max: usize,
    },
    /// A resampled answer would have more points than allowed.
    #[error(
        "the answer has more than {points_max} points: ask for fewer series, a longer step or a shorter time"
    )]
    TooManyPoints {
        /// The limit.
        points_max: usize,
    },
    /// The reader went away or its time was up.
    #[error("the read was cancelled")]
    Cancelled,
}

impl Error {
    /// An I/O error with what was being done, ready for `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// Whether stored bytes are damaged or gone, for all that can be known. Any other failure may pass,
    /// and must not look like a loss.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::KeyValue { .. } => !self.is_no_space(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the reason is a full volume or quota.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            // sled keeps only the text of the system's reason.
            Self::KeyValue { what, .. } => what.contains("No space left") || what.contains("StorageFull"),
            _ => false,
        }
    }
}
