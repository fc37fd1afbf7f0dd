//! A generation of an earlier process, as its bytes are.
//!
//! Each group carries a head and a checksum of its own, and sled writes a value in one piece. So groups
//! are found by looking for the store's identity, whatever has become of the database around them: a
//! flipped bit costs the group that it hits, not those behind it.

use super::begun;
use super::durable;
use super::record::{self, Group, HEAD_BYTES, MARKER_SEQ, WRITER_OFFSET};
use crate::error::{Error, Result};
use crate::keyvalue::{KeyValue, VALUE_BYTES_MAX};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How much of a file is looked at in one piece.
const WINDOW_BYTES: usize = 8 << 20;
/// The longest record.
const RECORD_BYTES_MAX: usize = HEAD_BYTES + VALUE_BYTES_MAX;

/// Where a group lies.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    bytes: usize,
}

/// What is found of one generation.
pub(super) struct Generation {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    /// The number of its first group, if that can be told.
    pub(super) first_seq: Option<u64>,
    /// The number below which all groups were durable.
    pub(super) durable_seq: Option<u64>,
    /// What is wrong with it as a whole.
    pub(super) damage: Option<&'static str>,
    files: Vec<File>,
    places: BTreeMap<u64, Place>,
}

impl Generation {
    /// Looks through the generation in `path`; `None` where it was still being made when its process ended.
    pub(super) fn find(path: &Path, number: u64, writer: Uuid) -> Result<Option<Self>> {
        if !begun::exists(path) {
            return Ok(None);
        }
        // Before the groups are looked for: one who writes meanwhile only adds to them.
        let durable_seq = durable::read(path);
        let (mut files, mut places) = (Vec::new(), BTreeMap::new());
        for file_path in KeyValue::data_files(path) {
            let file = File::open(&file_path).map_err(Error::io("open", &file_path))?;
            let looked = look_through(&file, writer, |seq, offset, bytes| {
                places.insert(seq, Place { file: files.len(), offset, bytes });
            });
            looked.map_err(Error::io("read", &file_path))?;
            files.push(file);
        }
        let marked = places.remove(&MARKER_SEQ).is_some();
        let begun_seq = begun::read(path);
        let damage = match (marked, begun_seq) {
            (false, _) => Some("its database is lost or of another store"),
            (true, None) => Some("the file that says where it begins is damaged"),
            (true, Some(_)) => None,
        };
        Ok(Some(Self {
            path: path.to_owned(),
            number,
            first_seq: begun_seq.or_else(|| places.first_key_value().map(|(seq, _)| *seq)),
            durable_seq,
            damage,
            files,
            places,
        }))
    }

    /// Whether it has no group, and nothing is wrong with it.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.damage.is_none()
    }

    /// The numbers of the groups in `[from_seq, end_seq)` that are there.
    pub(super) fn numbers(&self, from_seq: u64, end_seq: u64) -> Vec<u64> {
        if from_seq >= end_seq {
            return Vec::new();
        }
        self.places.range(from_seq..end_seq).map(|(seq, _)| *seq).collect()
    }

    /// Decodes every group; answers how many there are, and what is wrong.
    pub(super) fn verify(&self, writer: Uuid, visit: &mut impl FnMut(&Group)) -> (usize, Vec<String>) {
        let mut damage: Vec<String> =
            self.damage.iter().map(|what| Error::damaged(&self.path, *what).to_string()).collect();
        if durable::is_damaged(&self.path) {
            let what = "the file that says what is durable does not fit its checksum";
            damage.push(Error::damaged(&self.path, what).to_string());
        }
        let numbers = self.numbers(0, u64::MAX);
        for seq in &numbers {
            match self.read(writer, *seq) {
                Ok((group, _)) => visit(&group),
                Err(error) => damage.push(error.to_string()),
            }
        }
        if let (Some(first_seq), Some(durable_seq)) = (self.first_seq, self.durable_seq) {
            let missing = (first_seq..durable_seq).filter(|seq| !self.places.contains_key(seq)).count();
            if missing > 0 {
                let what = format!("{missing} groups of {first_seq} to {} can't be read", durable_seq - 1);
                damage.push(Error::damaged(&self.path, what).to_string());
            }
        }
        (numbers.len(), damage)
    }

    /// Reads a group, and how many bytes it takes.
    pub(super) fn read(&self, writer: Uuid, seq: u64) -> Result<(Group, usize)> {
        let damaged = |what: String| Error::damaged(&self.path, format!("group {seq}: {what}"));
        let place = self.places.get(&seq).ok_or_else(|| damaged("it is not there".to_owned()))?;
        let mut bytes = vec![0; place.bytes];
        let file = self.files.get(place.file).ok_or_else(|| damaged("its file is not there".to_owned()))?;
        file.read_exact_at(&mut bytes, place.offset).map_err(Error::io("read", &self.path))?;
        let group = record::decode_group(writer, seq, &bytes).map_err(|error| damaged(error.to_string()))?;
        Ok((group, place.bytes))
    }
}

/// Finds every whole record of this store in a file: its number, where it lies, how long it is.
fn look_through(file: &File, writer: Uuid, mut found: impl FnMut(u64, u64, usize)) -> std::io::Result<()> {
    let finder = memchr::memmem::Finder::new(writer.as_bytes());
    let file_bytes = file.metadata()?.len();
    let mut window = vec![0; WINDOW_BYTES + RECORD_BYTES_MAX];
    let mut offset = 0;
    while offset < file_bytes {
        // A record that begins in a window may end behind it.
        let bytes = usize::try_from(file_bytes - offset).map_or(window.len(), |left| left.min(window.len()));
        let Some(window) = window.get_mut(..bytes) else { break };
        file.read_exact_at(window, offset)?;
        for at in finder.find_iter(window) {
            let Some(start) = at.checked_sub(WRITER_OFFSET) else { continue };
            let record = window.get(start..).and_then(|bytes| record::record_at(writer, bytes));
            if let Some((seq, bytes)) = record {
                found(seq, offset + start as u64, bytes);
            }
        }
        offset += WINDOW_BYTES as u64;
    }
    Ok(())
}
