//! The thread that appends to the outbox: group commit.

use super::record::{self, HEADER_BYTES, MAGIC};
use super::{Job, OutboxError, Part, Position, SEGMENT_BYTES_MAX, Shared, io_error, segment_path};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Small parts become one record of up to so many bytes.
const RECORD_RAW_BYTES: usize = 256 << 10;
/// What is written and synced together.
const GROUP_RAW_BYTES: usize = 4 << 20;

pub(super) struct Writer {
    dir: PathBuf,
    segment: u64,
    file: File,
    bytes: u64,
    /// Something may stand behind `bytes` that was not acknowledged: the segment takes nothing more.
    is_spoilt: bool,
}

impl Writer {
    /// Begins a segment.
    pub(super) fn create(dir: &Path, segment: u64) -> Result<Self, OutboxError> {
        let path = segment_path(dir, segment);
        let create = || -> io::Result<File> {
            let mut file = File::options().create_new(true).write(true).open(&path)?;
            file.write_all(MAGIC)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|error| {
            // A file without its beginning would stand in the way of the next attempt.
            let _ = std::fs::remove_file(&path);
            io_error(&path, &error)
        })?;
        Ok(Self { dir: dir.to_owned(), segment, file, bytes: HEADER_BYTES, is_spoilt: false })
    }

    /// Appends until nobody can ask for it any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, shared: &Arc<Shared>) {
        while let Ok(first) = jobs.recv() {
            let mut raw_bytes = size(&first);
            let mut group = vec![first];
            while raw_bytes < GROUP_RAW_BYTES
                && let Ok(job) = jobs.try_recv()
            {
                raw_bytes += size(&job);
                group.push(job);
            }
            let written = self.write(&group, shared);
            shared.state().failure = written.as_ref().err().map(ToString::to_string);
            if let Ok(position) = &written {
                shared.durable.send_replace(*position);
            }
            for job in group {
                // Whoever asked may be gone: what is written stays written.
                let _ = job.done.send(written.clone());
            }
        }
    }

    fn write(&mut self, group: &[Job], shared: &Shared) -> Result<Position, OutboxError> {
        let records = records(group)?;
        let taken: u64 = shared.state().segments.values().sum();
        let (size_max, more) = (shared.size_max_bytes, records.len() as u64);
        if taken + more > size_max {
            return Err(OutboxError::NoSpace(format!(
                "the outbox holds {taken} bytes that the engine has not taken, of at most {size_max} \
                 (--store-outbox-size): see why the engine takes nothing"
            )));
        }
        if self.is_spoilt || self.bytes >= SEGMENT_BYTES_MAX.min(size_max / 4) {
            let end = Position { segment: self.segment, offset: self.bytes };
            if shared.state().released >= end {
                // On a full volume the next one may need its room.
                self.file.set_len(HEADER_BYTES).map_err(|error| io_error(&self.dir, &error))?;
                shared.state().segments.insert(self.segment, HEADER_BYTES);
            }
            *self = Self::create(&self.dir, self.segment + 1)?;
            shared.state().segments.insert(self.segment, HEADER_BYTES);
        }
        if let Err(error) = self.file.write_all(&records).and_then(|()| self.file.sync_data()) {
            // Of what failed nothing may be sent: it goes, or the segment ends before it.
            self.is_spoilt = true;
            let cut = self.file.set_len(self.bytes).and_then(|()| self.file.sync_data());
            let path = segment_path(&self.dir, self.segment);
            if let Err(cut) = cut {
                tracing::error!(path = %path.display(), %cut, "a failed write stays in the outbox");
            }
            return Err(io_error(&path, &error));
        }
        self.bytes += more;
        let samples: u64 = group.iter().flat_map(|job| &job.parts).map(|part| u64::from(part.samples)).sum();
        let mut state = shared.state();
        state.segments.insert(self.segment, self.bytes);
        state.waiting_samples += samples;
        Ok(Position { segment: self.segment, offset: self.bytes })
    }
}

fn size(job: &Job) -> usize {
    job.parts.iter().map(|part| part.raw.len()).sum()
}

/// The parts of all jobs, small ones put together.
fn records(group: &[Job]) -> Result<Vec<u8>, OutboxError> {
    let mut records = Vec::new();
    let mut open = Part { raw: Vec::new(), samples: 0 };
    let mut close = |part: &mut Part| {
        let fits = part.raw.is_empty() || record::encode(&part.raw, part.samples, &mut records);
        part.raw.clear();
        part.samples = 0;
        fits.then_some(()).ok_or_else(|| {
            OutboxError::NoSpace("a write is too large for the outbox: send it in parts".to_owned())
        })
    };
    for part in group.iter().flat_map(|job| &job.parts) {
        if open.raw.len() + part.raw.len() > RECORD_RAW_BYTES {
            close(&mut open)?;
        }
        open.raw.extend_from_slice(&part.raw);
        open.samples += part.samples;
    }
    close(&mut open)?;
    Ok(records)
}
