//! Brings requests to the engine, one after another.
//!
//! While the engine is away or busy the same request is sent again, later and later; what it refuses for good is
//! cut down to the samples in question and set aside (`refused`). What the engine holds already can be told from
//! what it lacks (`held`).

mod held;
mod refused;

use super::dead_letters::DeadLetters;
use super::engine::Engine;
use super::{RemoteSettings, SendState};
use crate::clock::Clock;
use crate::prometheus_client::{ClientError, PrometheusClient, SettingsError, WriteError};
use bytes::Bytes;
use lookback_storage::{Labels, Sample};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What goes into one request, before compression, in bytes.
const REQUEST_RAW_BYTES: usize = 1 << 20;
/// How many samples go into one request, about. Cortex refuses more than its `ingestion_burst_size` of 50,000 in one,
/// and that with a 429: sent again and again, it would never be taken.
const REQUEST_SAMPLES: u64 = 20_000;

/// Whether a request holds as much as one should.
pub(crate) fn is_full(raw_bytes: usize, samples: u64) -> bool {
    raw_bytes >= REQUEST_RAW_BYTES || samples >= REQUEST_SAMPLES
}

/// The shortest and the longest time before another attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A series with samples.
pub(crate) type Series = (Labels, Vec<Sample>);

/// It ended before everything was there.
pub(crate) enum Stopped {
    /// It was told to.
    Told,
    /// The engine refuses more than may be set aside.
    RefusedTooMany {
        /// The HTTP status of the last refusal.
        status: u16,
        /// What the engine said then.
        reason: String,
    },
}

/// What became of a request.
pub(super) enum Outcome {
    Taken,
    Refused { status: u16, reason: String, for_size: bool },
}

/// Brings requests to an engine.
pub(crate) struct Delivery {
    pub(super) engine: Arc<Engine>,
    pub(super) state: Arc<SendState>,
    pub(super) client: PrometheusClient,
    /// Behind the client's URL.
    pub(super) path: &'static str,
    pub(super) timeout: Duration,
    pub(super) dead_letters: DeadLetters,
    pub(super) clock: Arc<dyn Clock>,
    /// From 0 to 1.
    pub(super) random: Box<dyn FnMut() -> f64 + Send>,
    pub(super) shutdown: CancellationToken,
    /// How many samples may be set aside in all, those of former times among them; `None`: any number.
    pub(super) refused_max: Option<u64>,
}

impl Delivery {
    /// To the engine of the settings, until `shutdown`. What is refused goes into the dead letters of the outbox in
    /// `dir`. `random` gives numbers from 0 to 1.
    ///
    /// # Errors
    /// When the files of TLS can't be used.
    pub(crate) fn new(
        settings: &RemoteSettings,
        dir: &Path,
        clock: Arc<dyn Clock>,
        random: Box<dyn FnMut() -> f64 + Send>,
        shutdown: CancellationToken,
    ) -> Result<Self, SettingsError> {
        let client = PrometheusClient::new(settings.write.clone())?;
        let engine = Engine::new(PrometheusClient::new(settings.query.clone())?, settings.timeout);
        let (state, dead_letters, mut letters) = (SendState::default(), DeadLetters::new(dir), 0);
        if let Err(error) = dead_letters.each(|letter| letters += letter.samples().len()) {
            tracing::error!(%error, "the dead letters can't be read");
        }
        state.set_aside(letters);
        Ok(Self {
            engine: Arc::new(engine),
            state: Arc::new(state),
            client,
            path: settings.write_path,
            timeout: settings.timeout,
            dead_letters,
            clock,
            random,
            shutdown,
            refused_max: None,
        })
    }

    /// Whether the engine answers questions at all.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn check(&self) -> Result<(), ClientError> {
        self.engine.method(self.timeout).await.map(|_| ())
    }

    /// Ends with [`Stopped::RefusedTooMany`] before more than `count` further samples are set aside.
    pub(crate) fn refuse_at_most(&mut self, count: u64) {
        self.refused_max = Some(self.set_aside_samples().saturating_add(count));
    }

    /// How many samples are set aside, those of former times among them.
    pub(crate) fn set_aside_samples(&self) -> u64 {
        self.state.set_aside.load(Ordering::Relaxed)
    }

    /// Sends a request until the engine has it, or it is set aside.
    pub(crate) async fn deliver(&mut self, raw: &[u8]) -> Result<(), Stopped> {
        match self.post(raw).await? {
            Outcome::Taken => Ok(()),
            Outcome::Refused { status, reason, for_size } => {
                if !for_size {
                    tracing::warn!(status, reason, "the engine refuses samples: they are looked for");
                }
                self.set_aside(raw).await
            }
        }
    }

    /// Sends until the engine takes it or refuses it for good.
    pub(super) async fn post(&mut self, raw: &[u8]) -> Result<Outcome, Stopped> {
        let compressed = match snap::raw::Encoder::new().compress_vec(raw) {
            Ok(compressed) => Bytes::from(compressed),
            Err(error) => {
                let reason = error.to_string();
                return Ok(Outcome::Refused { status: 413, reason, for_size: true });
            }
        };
        let mut attempt = 0_u32;
        loop {
            let posting = self.client.remote_write(self.path, compressed.clone(), self.timeout);
            let posted = tokio::select! {
                posted = posting => posted,
                () = self.shutdown.cancelled() => return Err(Stopped::Told),
            };
            let (error, after) = match posted {
                Ok(()) => {
                    self.state.succeeded();
                    return Ok(Outcome::Taken);
                }
                Err(WriteError::Permanent { status, reason, .. }) => {
                    self.state.succeeded();
                    return Ok(Outcome::Refused { status, reason, for_size: false });
                }
                Err(WriteError::TooLarge { reason, .. }) => {
                    return Ok(Outcome::Refused { status: 413, reason, for_size: true });
                }
                Err(WriteError::Retry { error, after }) => (error, after),
            };
            self.state.failed(&error.to_string());
            self.pause(attempt, after).await?;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Waits before another attempt: a random part of a time that doubles, and what the engine asks for.
    pub(super) async fn pause(&mut self, attempt: u32, after: Option<Duration>) -> Result<(), Stopped> {
        let longest = BACKOFF_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
        let random = (self.random)().clamp(0.0, 1.0);
        let wait = longest.mul_f64(0.5 + random / 2.0).max(after.unwrap_or_default().min(BACKOFF_MAX));
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.shutdown.cancelled() => Err(Stopped::Told),
        }
    }
}
