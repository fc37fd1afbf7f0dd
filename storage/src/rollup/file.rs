//! A file of rollups: one window, one class, one partition, many series. Specified in FORMAT.md.
//!
//! In memory there is of its index only the first series of each page: a store keeps hundreds of such
//! files, and most are seldom read.

use super::chunk::{self, Column, Figures};
use super::window::{Edges, Rolled};
use super::{FileRecord, unit_dir};
use crate::bytes::Reader;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::retention::DEFAULT_CLASS;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER_MAGIC: [u8; 8] = *b"LBROLL01";
const FOOTER_MAGIC: [u8; 8] = *b"LBRLLEND";
const HEADER_BYTES: usize = 40;
const FOOTER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 16;
/// Entries in a page of the index.
const PAGE_ENTRIES: usize = 64;
const PAGE_BYTES: usize = PAGE_ENTRIES * ENTRY_BYTES + 4;

/// Where the rollup of a series lies.
#[derive(Clone, Copy)]
struct Entry {
    series: u32,
    offset: u64,
    bytes: u32,
}

/// An open file of rollups.
#[derive(Debug)]
pub(crate) struct RollupFile {
    pub(crate) record: FileRecord,
    path: PathBuf,
    file: File,
    file_bytes: u64,
    index_offset: u64,
    entries: usize,
    /// The first series of each page.
    first_series: Vec<u32>,
}

impl RollupFile {
    /// Opens a file and checks its header, its index and its footer.
    pub(crate) fn open(data_dir: &Path, partition_start_ms: i64, record: FileRecord) -> Result<Self> {
        let path = record.path(data_dir, partition_start_ms);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", &path))?.len();
        let damaged = |what: &str| Error::damaged(&path, what);
        let read = |offset: u64, bytes: &mut [u8]| {
            file.read_exact_at(bytes, offset).map_err(|_| damaged("the file is shorter than it says"))
        };
        let mut header_bytes = [0; HEADER_BYTES];
        read(0, &mut header_bytes)?;
        if header_bytes != header(&record, partition_start_ms) {
            return Err(damaged("its header is broken, or that of another file"));
        }
        let mut footer = [0; FOOTER_BYTES];
        let footer_offset =
            file_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        read(footer_offset, &mut footer)?;
        let (index_offset, entries) = parse_footer(&footer).ok_or_else(|| damaged("its footer is broken"))?;
        let pages = entries.div_ceil(PAGE_ENTRIES);
        let index_bytes = (entries * ENTRY_BYTES + pages * 4) as u64;
        if index_offset.checked_add(index_bytes) != Some(footer_offset) {
            return Err(damaged("its index does not end at its footer"));
        }
        let mut first_series = Vec::with_capacity(pages);
        let mut this =
            Self { record, path, file, file_bytes, index_offset, entries, first_series: Vec::new() };
        for page in 0..pages {
            first_series.extend(this.page(page)?.first().map(|entry| entry.series));
        }
        this.first_series = first_series;
        Ok(this)
    }

    /// Opens a file by what its name and its header say, and answers where its partition begins. Its class is
    /// not known then.
    pub(crate) fn open_by_name(data_dir: &Path, path: &Path) -> Result<(i64, Self)> {
        let (partition_start_ms, record) = record_of(path)
            .filter(|(start_ms, record)| record.path(data_dir, *start_ms) == path)
            .ok_or_else(|| Error::damaged(path, "its name or its header is none of a rollup"))?;
        Ok((partition_start_ms, Self::open(data_dir, partition_start_ms, record)?))
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The numbers of its series, rising.
    pub(crate) fn series(&self) -> Result<Vec<u32>> {
        let mut series = Vec::with_capacity(self.entries);
        for page in 0..self.first_series.len() {
            series.extend(self.page(page)?.iter().map(|entry| entry.series));
        }
        Ok(series)
    }

    /// Whether it has a rollup of this series.
    pub(crate) fn has(&self, series: u32) -> Result<bool> {
        Ok(self.entry(series)?.is_some())
    }

    /// The whole rollup of a series, if there is one.
    pub(crate) fn read(&self, series: u32) -> Result<Option<Rolled>> {
        let Some(bytes) = self.bytes_of(series)? else { return Ok(None) };
        chunk::decode(&bytes, self.record.window_ms).map(Some).ok_or_else(|| self.lost(series))
    }

    /// One column of the rollup of a series, or of its rates; `None`: there is none.
    pub(crate) fn figures(
        &self,
        series: u32,
        column: Column,
        of_rates: bool,
    ) -> Result<Option<(Figures, Option<Edges>)>> {
        let Some(bytes) = self.bytes_of(series)? else { return Ok(None) };
        let figures = chunk::decode_figures(&bytes, self.record.window_ms, column, of_rates);
        figures.ok_or_else(|| self.lost(series))
    }

    fn lost(&self, series: u32) -> Error {
        Error::damaged(&self.path, format!("the rollup of series {series} is lost"))
    }

    fn bytes_of(&self, series: u32) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entry(series)? else { return Ok(None) };
        if entry.offset.checked_add(u64::from(entry.bytes)).is_none_or(|end| end > self.index_offset) {
            return Err(self.lost(series));
        }
        let mut bytes = vec![0; entry.bytes as usize];
        self.file.read_exact_at(&mut bytes, entry.offset).map_err(|_| self.lost(series))?;
        Ok(Some(bytes))
    }

    fn entry(&self, series: u32) -> Result<Option<Entry>> {
        let Some(page) = self.first_series.partition_point(|first| *first <= series).checked_sub(1) else {
            return Ok(None);
        };
        Ok(self.page(page)?.into_iter().find(|entry| entry.series == series))
    }

    fn page(&self, page: usize) -> Result<Vec<Entry>> {
        let damaged = || Error::damaged(&self.path, format!("page {page} of its index is broken"));
        let count = self.entries.saturating_sub(page * PAGE_ENTRIES).min(PAGE_ENTRIES);
        let mut bytes = vec![0; count * ENTRY_BYTES + 4];
        let offset = self.index_offset + (page * PAGE_BYTES) as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(|_| damaged())?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(damaged());
        }
        let mut reader = Reader::new(body);
        let mut entry = || Some(Entry { series: reader.u32()?, offset: reader.u64()?, bytes: reader.u32()? });
        (0..count).map(|_| entry()).collect::<Option<Vec<_>>>().ok_or_else(damaged)
    }
}

fn header(record: &FileRecord, partition_start_ms: i64) -> [u8; HEADER_BYTES] {
    let mut bytes = HEADER_MAGIC.to_vec();
    bytes.extend_from_slice(&crate::FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&record.id.to_le_bytes());
    bytes.extend_from_slice(&record.window_ms.to_le_bytes());
    bytes.extend_from_slice(&partition_start_ms.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.try_into().expect("as long as its parts")
}

/// What a file's header says it is, and of which partition. Its class is not known then.
pub(super) fn record_of(path: &Path) -> Option<(i64, FileRecord)> {
    let mut bytes = [0; HEADER_BYTES];
    File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    let mut reader = Reader::new(&bytes);
    reader.take(HEADER_MAGIC.len() + 4)?;
    let (id, window_ms, partition_start_ms) = (reader.u64()?, reader.i64()?, reader.i64()?);
    let record = FileRecord { id, class: DEFAULT_CLASS.to_owned(), window_ms };
    let named = path.file_name()?.to_str()? == format!("{id:016x}.rollup");
    (named && window_ms > 0 && bytes == header(&record, partition_start_ms))
        .then_some((partition_start_ms, record))
}

/// The index's offset and its number of entries.
fn parse_footer(footer: &[u8; FOOTER_BYTES]) -> Option<(u64, usize)> {
    let (body, checksum) = footer.split_last_chunk::<4>()?;
    let mut reader = Reader::new(body);
    let (index_offset, count) = (reader.u64()?, reader.u32()?);
    let magic: [u8; 8] = reader.array()?;
    let whole = magic == FOOTER_MAGIC && crc32c::crc32c(body) == u32::from_le_bytes(*checksum);
    whole.then_some((index_offset, usize::try_from(count).ok()?))
}

/// Writes a file under a temporary name; [`finish`](Self::finish) makes it durable under its own.
pub(super) struct RollupWriter {
    disk: Disk,
    data_dir: PathBuf,
    partition_start_ms: i64,
    record: FileRecord,
    temporary_path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    entries: Vec<Entry>,
}

impl RollupWriter {
    pub(super) fn create(
        disk: &Disk,
        data_dir: &Path,
        partition_start_ms: i64,
        record: FileRecord,
    ) -> Result<Self> {
        disk.create_dir_all(&unit_dir(data_dir, partition_start_ms))?;
        let temporary_path = record.path(data_dir, partition_start_ms).with_extension("tmp");
        let file = disk.create(&temporary_path)?;
        let header = header(&record, partition_start_ms);
        let mut this = Self {
            disk: disk.clone(),
            data_dir: data_dir.to_owned(),
            partition_start_ms,
            record,
            temporary_path,
            file: BufWriter::new(file),
            offset: 0,
            entries: Vec::new(),
        };
        this.put(&header)?;
        Ok(this)
    }

    /// Adds the rollup of a series; series come in rising order.
    pub(super) fn add(&mut self, series: u32, rolled: &Rolled) -> Result<()> {
        assert!(self.entries.last().is_none_or(|last| last.series < series), "series out of order");
        let bytes = chunk::encode(rolled, self.record.window_ms);
        let length = u32::try_from(bytes.len()).expect("a rollup is bounded by its windows");
        self.entries.push(Entry { series, offset: self.offset, bytes: length });
        self.put(&bytes)
    }

    /// Writes the index, syncs the file and its name, and opens it.
    pub(super) fn finish(mut self) -> Result<RollupFile> {
        let index_offset = self.offset;
        for page in std::mem::take(&mut self.entries).chunks(PAGE_ENTRIES) {
            let mut bytes = Vec::with_capacity(PAGE_BYTES);
            for entry in page {
                bytes.extend_from_slice(&entry.series.to_le_bytes());
                bytes.extend_from_slice(&entry.offset.to_le_bytes());
                bytes.extend_from_slice(&entry.bytes.to_le_bytes());
            }
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            self.put(&bytes)?;
            self.entries.extend_from_slice(page);
        }
        let count = u32::try_from(self.entries.len()).expect("series are numbered in 32 bits");
        let mut footer = index_offset.to_le_bytes().to_vec();
        footer.extend_from_slice(&count.to_le_bytes());
        footer.extend_from_slice(&FOOTER_MAGIC);
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.put(&footer)?;
        self.file.flush().map_err(Error::io("write", &self.temporary_path))?;
        self.disk.sync(self.file.get_ref(), &self.temporary_path)?;
        let path = self.record.path(&self.data_dir, self.partition_start_ms);
        self.disk.rename(&self.temporary_path, &path)?;
        self.disk.sync_parent(&path)?;
        RollupFile::open(&self.data_dir, self.partition_start_ms, self.record.clone())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary_path))
    }
}

/// A file that was not finished leaves nothing behind.
impl Drop for RollupWriter {
    fn drop(&mut self) {
        // After `finish` there is no such file; else the next start removes what could not be removed.
        if self.temporary_path.exists() {
            let _ = self.disk.remove_file(&self.temporary_path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn rolled(series: u32) -> Rolled {
        let samples: Vec<Sample> = (0..9).map(|i| Sample::new(i * 7, f64::from(series) + i as f64)).collect();
        Rolled::of(&samples, 10, series.is_multiple_of(2)).expect("rolled")
    }

    fn record() -> FileRecord {
        FileRecord { id: 3, class: "default".into(), window_ms: 10 }
    }

    #[test]
    fn every_series_is_found_and_every_flip_and_truncation_is_detected() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut writer = RollupWriter::create(&Disk::default(), dir.path(), 0, record()).expect("created");
        let numbers: Vec<u32> = (0..130).map(|i| i * 3 + 1).collect();
        for series in &numbers {
            writer.add(*series, &rolled(*series)).expect("added");
        }
        let file = writer.finish().expect("finished");
        assert_eq!(file.series().expect("read"), numbers);
        for series in 0..400 {
            let expected = numbers.contains(&series).then(|| rolled(series));
            assert_eq!(file.read(series).expect("read"), expected);
        }
        let path = file.path().to_owned();
        let bytes = std::fs::read(&path).expect("read");
        let read_all = || -> Result<()> {
            let file = RollupFile::open(dir.path(), 0, record())?;
            numbers.iter().try_for_each(|series| file.read(*series).map(drop))
        };
        assert!(read_all().is_ok());
        for at in (0..bytes.len()).step_by(131).chain(0..HEADER_BYTES).chain(bytes.len() - 60..bytes.len()) {
            std::fs::write(&path, &bytes[..at]).expect("written");
            assert!(read_all().is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).expect("written");
            let error = read_all().expect_err("detected").to_string();
            assert!(error.contains("0000000000000003.rollup"), "{error}");
        }
    }
}
