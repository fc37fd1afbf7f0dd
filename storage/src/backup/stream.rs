//! A backup as a tar: the files, then the manifest.
//!
//! Unpacked, it is the directory of a backup; and a tar that was made of such a directory is one as well,
//! wherever in it the manifest stands. Tar itself sums up nothing but its headers: the manifest has a
//! checksum of each file, and its own parts have theirs.

use super::COPY_BYTES;
use super::manifest::{MANIFEST_FILE, Sum};
use super::snapshot::Source;
use crate::error::{Error, Result};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

/// Writes a backup.
pub(super) struct Writer<W: Write> {
    tar: tar::Builder<BufWriter<W>>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        let mut tar = tar::Builder::new(BufWriter::with_capacity(COPY_BYTES, to));
        tar.mode(tar::HeaderMode::Deterministic);
        Self { tar }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, source: &Source<'_>) -> Result<Sum> {
        let mut reader = source.reader();
        self.append(&source.path, source.bytes, &mut reader)?;
        Ok(reader.sum())
    }

    /// Adds the manifest, and ends the stream.
    pub(super) fn finish(mut self, manifest: &[u8]) -> Result<()> {
        let path = Path::new(MANIFEST_FILE);
        self.append(path, manifest.len() as u64, manifest)?;
        let ended = self.tar.into_inner().and_then(|mut to| to.flush());
        ended.map_err(Error::io("write the stream after", path))
    }

    fn append(&mut self, path: &Path, bytes: u64, content: impl Read) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes);
        let appended = self.tar.append_data(&mut header, path, content);
        appended.map_err(Error::io("write into the stream", path))
    }
}
