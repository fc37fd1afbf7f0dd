//! The outbox: what was acknowledged and is not yet, or not yet surely, at the engine.
//!
//! ```text
//! outbox/
//!   lock                      held by the process that uses it
//!   0000000000000007.segment  records of remote write requests, in the order in which they were acknowledged
//!   cursor                    how far they were sent, and how far they can go
//!   dead-letter.jsonl         what the engine refused for good (see dead_letters)
//! ```
//!
//! One thread appends: it takes what waits, writes it, syncs, and acknowledges all of it. Segments are read
//! by whoever sends, and deleted once the cursor is past them. Its calls block, but for [`Outbox::append`].
//!
//! invariant: what is acknowledged is in a synced segment until the cursor file that says otherwise is synced.

mod cursor;
mod record;
mod writer;

pub use cursor::{Cursor, Position};

use super::delivery::is_full;
use record::{HEADER_BYTES, Next};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

/// Appends that wait for the thread.
const QUEUE_MAX: usize = 4_096;
/// Largest segment: what is sent goes with its segment.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// The smallest bound of the outbox that leaves room to work in, in bytes.
pub const SIZE_MIN_BYTES: u64 = 1 << 20;

/// Why something can't be put into the outbox, or not be read from it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OutboxError {
    /// It is as large as it may become, or its volume is full.
    #[error("{0}")]
    NoSpace(String),
    /// More wait to be written than may.
    #[error("the outbox has too many writes waiting: send again in a moment")]
    Busy,
    /// A file can't be written or read.
    #[error("the outbox {path}: {reason}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Another process uses it.
    #[error("the outbox {0} is used by another process: stop that one first, or choose another --data-dir")]
    Locked(String),
}

fn io_error(path: &Path, error: &io::Error) -> OutboxError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return OutboxError::NoSpace(format!(
            "the volume of the outbox {} is full: free some space",
            path.display()
        ));
    }
    OutboxError::Io { path: path.display().to_string(), reason: error.to_string() }
}

/// Some series with samples, encoded as a remote write request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The request, not compressed.
    pub raw: Vec<u8>,
    /// How many samples are in it.
    pub samples: u32,
}

/// What is read of it: requests of several records, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The requests; together they are one.
    pub raw: Vec<u8>,
    /// How many samples are in it.
    pub samples: u64,
    /// What comes next.
    pub next: Position,
    /// Records that failed their checksum and are left out.
    pub damaged: u64,
}

impl Taken {
    fn is_full(&self) -> bool {
        is_full(self.raw.len(), self.samples)
    }
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// Samples that are not sent yet.
    pub waiting_samples: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Why appends are refused now, if they are.
    pub failure: Option<String>,
    /// Records that failed their checksum when it was opened, and are left out.
    pub damaged_records: u64,
}

/// The outbox of one process.
pub struct Outbox {
    dir: PathBuf,
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    _lock: File,
}

struct Job {
    parts: Vec<Part>,
    done: oneshot::Sender<Result<Position, OutboxError>>,
}

struct Shared {
    state: Mutex<State>,
    /// Everything before this is synced.
    durable: watch::Sender<Position>,
    /// Everything before this is at the engine.
    sent: watch::Sender<Position>,
    size_max_bytes: u64,
}

#[derive(Default)]
struct State {
    /// The segments and their sizes.
    segments: BTreeMap<u64, u64>,
    waiting_samples: u64,
    damaged_records: u64,
    /// Everything before this can go.
    released: Position,
    failure: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// Opens the outbox in `dir`, or makes one, and hands `waiting` what is not sent yet.
    ///
    /// # Errors
    /// When it is in use, or its files can't be read or made.
    pub fn open(
        dir: &Path,
        size_max_bytes: u64,
        mut waiting: impl FnMut(&Taken),
    ) -> Result<(Self, Cursor), OutboxError> {
        create_dir(dir).map_err(|error| io_error(dir, &error))?;
        let lock = lock(dir)?;
        let mut state = State::default();
        for entry in fs::read_dir(dir).map_err(|error| io_error(dir, &error))? {
            let entry = entry.map_err(|error| io_error(dir, &error))?;
            if let Some(segment) = segment_number(&entry.file_name().to_string_lossy()) {
                let bytes = entry.metadata().map_err(|error| io_error(&entry.path(), &error))?.len();
                state.segments.insert(segment, bytes);
            }
        }
        let first = state.segments.keys().next().copied();
        let active = state.segments.keys().next_back().map_or(1, |last| last + 1);
        let mut cursor = cursor::read(dir).map_err(|error| io_error(dir, &error))?.unwrap_or_default();
        // What is gone was sent; and nothing can be sent that was never there.
        let start = Position { segment: first.unwrap_or(active), offset: HEADER_BYTES };
        let end = Position { segment: active, offset: HEADER_BYTES };
        cursor.released = cursor.released.clamp(start, end);
        cursor.sent = cursor.sent.clamp(cursor.released, end);
        let writer = writer::Writer::create(dir, active)?;
        state.segments.insert(active, HEADER_BYTES);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            durable: watch::Sender::new(end),
            sent: watch::Sender::new(cursor.sent),
            size_max_bytes: size_max_bytes.max(SIZE_MIN_BYTES),
        });
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let mut outbox = Self { dir: dir.to_owned(), shared, jobs: Some(jobs), thread: None, _lock: lock };
        let mut at = cursor.sent;
        while at < end {
            let taken = outbox.read(at)?;
            let mut state = outbox.shared.state();
            state.waiting_samples += taken.samples;
            state.damaged_records += taken.damaged;
            drop(state);
            waiting(&taken);
            at = taken.next;
        }
        let shared = Arc::clone(&outbox.shared);
        let thread = std::thread::Builder::new().name("outbox".to_owned());
        let thread =
            thread.spawn(move || writer.run(&queue, &shared)).map_err(|error| io_error(dir, &error))?;
        outbox.thread = Some(thread);
        Ok((outbox, cursor))
    }

    /// Appends; answers where it ends once it is durable.
    ///
    /// # Errors
    /// When there is no room, or it can't be written. Nothing of it will be sent then.
    pub async fn append(&self, parts: Vec<Part>) -> Result<Position, OutboxError> {
        let ended = || OutboxError::Io {
            path: self.dir.display().to_string(),
            reason: "its thread has ended".to_owned(),
        };
        let (done, durable) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        match jobs.try_send(Job { parts, done }) {
            Ok(()) => durable.await.unwrap_or_else(|_| Err(ended())),
            Err(TrySendError::Full(_)) => Err(OutboxError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(ended()),
        }
    }

    /// Tells of everything before it that it is durable.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Position> {
        self.shared.durable.subscribe()
    }

    /// Tells of everything before it that it is at the engine.
    #[must_use]
    pub fn sent(&self) -> watch::Receiver<Position> {
        self.shared.sent.subscribe()
    }

    /// Reads durable records from `from` on, until they fill a request. Blocks.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn read(&self, from: Position) -> Result<Taken, OutboxError> {
        self.read_to(from, *self.shared.durable.borrow())
    }

    /// The same of what lies before `end`. Blocks.
    ///
    /// # Errors
    /// Likewise.
    pub fn read_to(&self, from: Position, end: Position) -> Result<Taken, OutboxError> {
        let mut taken = Taken { next: from, ..Taken::default() };
        while taken.next < end && !taken.is_full() {
            let Position { segment, offset } = taken.next;
            let path = segment_path(&self.dir, segment);
            let limit = if segment == end.segment { end.offset } else { u64::MAX };
            match File::open(&path) {
                Ok(file) => self.read_segment(&file, (offset, limit), &mut taken),
                // It was sent as a whole.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(error) => Err(error),
            }
            .map_err(|error| io_error(&path, &error))
            .map(|ended| {
                if ended && segment < end.segment {
                    let next =
                        self.shared.state().segments.range(segment + 1..).next().map(|(next, _)| *next);
                    let next = next.unwrap_or(end.segment).min(end.segment);
                    taken.next = Position { segment: next, offset: HEADER_BYTES };
                }
            })?;
        }
        Ok(taken)
    }

    /// Whether the segment ended.
    fn read_segment(
        &self,
        file: &File,
        (mut offset, limit): (u64, u64),
        taken: &mut Taken,
    ) -> io::Result<bool> {
        let mut damaged = 0;
        let ended = loop {
            if offset >= limit {
                break true;
            }
            match record::read(file, offset)? {
                Next::Record { raw, samples, next_offset } => {
                    taken.raw.extend_from_slice(&raw);
                    taken.samples += u64::from(samples);
                    offset = next_offset;
                }
                Next::Damaged { next_offset } => {
                    damaged += 1;
                    offset = next_offset;
                }
                Next::End => break true,
            }
            if taken.is_full() {
                break false;
            }
        };
        taken.damaged += damaged;
        taken.next.offset = offset;
        Ok(ended)
    }

    /// Everything before `sent` is at the engine, `samples` more than so far.
    pub fn mark_sent(&self, sent: Position, samples: u64) {
        let mut state = self.shared.state();
        state.waiting_samples = state.waiting_samples.saturating_sub(samples);
        drop(state);
        self.shared.sent.send_replace(sent);
    }

    /// Keeps the cursor, durably, and deletes the segments that are before it. Blocks.
    ///
    /// # Errors
    /// When the cursor can't be written.
    pub fn keep_cursor(&self, cursor: Cursor) -> Result<(), OutboxError> {
        // What is before it is at the engine whether the file says so or not: it can make room for the file.
        self.shared.state().released = cursor.released;
        match cursor::write(&self.dir, cursor).map_err(|error| io_error(&self.dir, &error)) {
            Err(OutboxError::NoSpace(_)) => {
                self.delete_released(cursor)?;
                cursor::write(&self.dir, cursor).map_err(|error| io_error(&self.dir, &error))
            }
            Err(error) => Err(error),
            Ok(()) => self.delete_released(cursor),
        }
    }

    fn delete_released(&self, cursor: Cursor) -> Result<(), OutboxError> {
        let done: Vec<u64> = {
            let state = self.shared.state();
            let last = state.segments.keys().next_back().copied().unwrap_or_default();
            state.segments.keys().copied().filter(|s| *s < cursor.released.segment && *s < last).collect()
        };
        for segment in done {
            let path = segment_path(&self.dir, segment);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&path, &error)),
                _ => self.shared.state().segments.remove(&segment),
            };
        }
        Ok(())
    }

    /// How it is.
    #[must_use]
    pub fn stats(&self) -> OutboxStats {
        let state = self.shared.state();
        OutboxStats {
            waiting_samples: state.waiting_samples,
            bytes: state.segments.values().sum(),
            failure: state.failure.clone(),
            damaged_records: state.damaged_records,
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // Without senders the thread writes what waits, and ends.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has told whoever waits.
            let _ = thread.join();
        }
    }
}

/// Makes a directory and those above it, where they are missing, durably.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        fs::create_dir(dir)?;
        return File::open(".")?.sync_all();
    };
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn lock(dir: &Path) -> Result<File, OutboxError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| io_error(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OutboxError::Locked(dir.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(io_error(&path, &error)),
    }
}

fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016}.segment"))
}

fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(".segment")?.parse().ok()
}

#[cfg(test)]
mod tests;
