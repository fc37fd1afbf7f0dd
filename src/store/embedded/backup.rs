//! A backup as a stream of pieces, for an answer over HTTP.

use super::into_store_error;
use crate::store::StoreError;
use bytes::Bytes;
use lookback_storage::Db;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// How many pieces, of at most a mebibyte, wait for who takes them.
const PIECES_AHEAD_MAX: usize = 2;
/// Who takes nothing for so long is cut off: what is backed up is held on disk meanwhile.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Pieces of a backup; an error is the last one.
pub type BackupPieces = mpsc::Receiver<Result<Bytes, StoreError>>;

/// Begins a backup on a thread of its own. One at a time, by `permits`.
pub(super) fn begin(db: Db, permits: &Arc<Semaphore>) -> Result<BackupPieces, StoreError> {
    let busy = |_| StoreError::Unavailable("another backup is being streamed: wait for its end".to_owned());
    let permit = Arc::clone(permits).try_acquire_owned().map_err(busy)?;
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD_MAX);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut writer = PieceWriter { sender, runtime };
        match db.backup_stream(&mut writer, |_, _| {}) {
            Ok(report) => {
                report.left_out.iter().for_each(|what| tracing::warn!(what, "not in the backup"));
                tracing::info!(bytes = report.bytes, "a backup was streamed");
            }
            Err(error) => {
                tracing::warn!(%error, "a backup was not streamed to its end");
                // Who took it may have gone.
                let _ = writer.send(Err(into_store_error(error, TAKEN_WITHIN)));
            }
        }
    });
    Ok(pieces)
}

/// Hands bytes on, as fast as they are taken.
struct PieceWriter {
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
    runtime: Handle,
}

impl PieceWriter {
    fn send(&self, piece: Result<Bytes, StoreError>) -> io::Result<()> {
        let sent = self.runtime.block_on(tokio::time::timeout(TAKEN_WITHIN, self.sender.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "who took it has gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody took it for a minute")),
        }
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Ok(Bytes::copy_from_slice(bytes))).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
