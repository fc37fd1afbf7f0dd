//! The file in the data directory in which metadata outlives the process: JSON, one metric a line.
//!
//! It is replaced as a whole, by a rename. What can't be read is left out with a warning: senders will
//! say it again.

use super::{Described, METRICS_MAX, Metadata, Notes};
use crate::store::Scope;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Its name in the data directory.
pub const FILE_NAME: &str = "metadata.jsonl";

/// How long after a change it is written.
const INTERVAL: Duration = Duration::from_secs(30);

/// Largest file that is read, in bytes; more than all bounds together allow.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    metric: String,
    #[serde(flatten)]
    described: Described,
}

/// Reads the file into `metadata`, if there is one; answers how many lines could not be read.
///
/// # Errors
/// The system's.
pub fn load(metadata: &Metadata, data_dir: &Path) -> io::Result<usize> {
    let file = match File::open(data_dir.join(FILE_NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut notes, mut bad) = (Notes::default(), 0);
    for line in BufReader::new(file.take(FILE_BYTES_MAX)).split(b'\n').take(2 * METRICS_MAX) {
        match serde_json::from_slice::<Line>(&line?) {
            Ok(Line { metric, described }) => notes.add(&metric, || described),
            Err(_) => bad += 1,
        }
    }
    // As someone who can only add: what has been said meanwhile is newer.
    metadata.note(&Scope::Namespaces(Arc::default()), notes);
    Ok(bad)
}

/// Writes the file anew.
///
/// # Errors
/// The system's; the file is then what it was.
pub fn save(metadata: &Metadata, data_dir: &Path) -> io::Result<()> {
    let temporary = data_dir.join(format!("{FILE_NAME}.new"));
    let mut file = BufWriter::new(File::create(&temporary)?);
    for (metric, described) in metadata.all() {
        serde_json::to_writer(&mut file, &Line { metric, described })?;
        file.write_all(b"\n")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, data_dir.join(FILE_NAME))
}

/// Reads what was kept, then writes what has changed, now and then and when `shutdown` comes.
pub async fn keep(metadata: Arc<Metadata>, data_dir: PathBuf, shutdown: CancellationToken) {
    let (kept, dir) = (Arc::clone(&metadata), data_dir.clone());
    match tokio::task::spawn_blocking(move || load(&kept, &dir)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(lines)) => tracing::warn!(lines, "lines of {FILE_NAME} can't be read and are left out"),
        Ok(Err(error)) => tracing::warn!(%error, "{FILE_NAME} can't be read; senders will say it again"),
        Err(error) => tracing::error!(%error, "the reader of {FILE_NAME} broke off"),
    }
    let mut saved = None;
    loop {
        let stop = tokio::select! {
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let changes = Some(metadata.changes());
        if changes != saved {
            let (kept, dir) = (Arc::clone(&metadata), data_dir.clone());
            match tokio::task::spawn_blocking(move || save(&kept, &dir)).await {
                Ok(Ok(())) => saved = changes,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "{FILE_NAME} can't be written; it will be tried again")
                }
                Err(error) => tracing::error!(%error, "the writer of {FILE_NAME} broke off"),
            }
        }
        if stop {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::MetricType;

    #[tokio::test]
    async fn what_is_known_outlives_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let metadata = Arc::new(Metadata::default());
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keep(metadata.clone(), dir.path().to_owned(), stop.clone()));
        let mut notes = Notes::default();
        notes.edit("up", |said| said.kind = MetricType::Gauge);
        notes.edit("up", |said| said.help = "a \"help\"\nof two lines".to_owned());
        metadata.note(&Scope::All, notes);
        stop.cancel();
        keeper.await.expect("ended");
        let again = Metadata::default();
        assert_eq!(load(&again, dir.path()).expect("read"), 0);
        assert_eq!(again.all(), metadata.all());
    }

    #[test]
    fn lines_that_cannot_be_read_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let metadata = Metadata::default();
        assert_eq!(load(&metadata, dir.path()).expect("no file is fine"), 0);
        let text = b"{\"metric\":\"a\",\"type\":\"gauge\"}\n\xff\n{}\n{\"metric\":\"b\",\"help\":\"h\"}";
        std::fs::write(dir.path().join(FILE_NAME), text).expect("written");
        assert_eq!(load(&metadata, dir.path()).expect("read"), 2);
        assert_eq!(metadata.all().len(), 2);
        assert!(save(&metadata, &dir.path().join("missing")).is_err());
    }
}
