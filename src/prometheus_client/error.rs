//! Why a server gave no answer: each names the server and says what to do where that is known.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    /// There is no connection, or it broke off.
    #[error("{server} can't be reached: {reason}")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{server} did not answer within {after:?}")]
    Timeout {
        /// The server.
        server: String,
        /// The time it had.
        after: Duration,
    },
    /// It answers that it won't.
    #[error("{server} answers {status}: {reason}")]
    Refused {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// Prometheus' `errorType`, where there is one: `bad_data`, `execution`, `timeout`, …
        kind: Option<String>,
        /// What it says.
        reason: String,
        /// After how long it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than the limit.
    #[error("the answer of {server} has more than {bytes_max} bytes: ask for less")]
    TooLarge {
        /// The server.
        server: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The answer is not what the API says.
    #[error("the answer of {server} is not as Prometheus' API has it: {reason}; is its URL right?")]
    Malformed {
        /// The server.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that is needed can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl ClientError {
    /// Whether the server is away, or too busy: the same question may be answered later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::TooLarge { .. } | Self::Malformed { .. } | Self::Settings(_) => false,
        }
    }
}

/// Why a server can't be spoken to as it was said.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// No URL of a server.
    #[error("{url:?} is not the URL of a server: {reason}; write http://HOST:PORT/PREFIX or https://…")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file can't be read or used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No header.
    #[error("{header:?} is not a header: write Name: value")]
    Header {
        /// Its beginning.
        header: String,
    },
    /// TLS can't be spoken so.
    #[error("TLS can't be spoken with these files: {0}")]
    Tls(String),
}
