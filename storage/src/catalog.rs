//! The catalogue: series and deletes a second time, in small files of our own beside the index, so that
//! an index that is damaged can be made anew from them, the blocks and the log.
//!
//! A seal adds a file with what is new, durable before the index is told; now and then all of it is
//! rewritten as one. Files only add: what an older file says and a newer one does not is still true, or
//! says nothing about any sample.

mod file;

pub(crate) use file::{FileEntry, Part, UnitEntry, decode, encode};

use crate::deletes::{DeleteRecord, Deletes};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::{Checkpoint, StoreRecord};
use crate::labels::Labels;
use crate::log::SeriesDefinition;
use crate::quarantine;
use crate::series::Series;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of all files below the data directory.
pub(crate) const CATALOG_DIR: &str = "catalog";
const EXTENSION: &str = "catalog";
/// More files than this are rewritten as one, and so are those that are twice as large as the first.
const FILES_MAX: usize = 64;
/// Below this it is not worth rewriting for size.
const REWRITE_BYTES_MIN: u64 = 4 << 20;

/// The catalogue of an open store.
pub(crate) struct Catalog {
    disk: Disk,
    dir: PathBuf,
    store: StoreRecord,
    /// Numbers of the files, rising.
    numbers: Vec<u64>,
    /// Bytes of the first file, and of the others.
    first_bytes: u64,
    later_bytes: u64,
    /// The deletes that the files are known to have.
    deletes: HashSet<(u64, u32)>,
}

/// What all files together say.
#[derive(Default)]
pub(crate) struct Contents {
    /// Whose they are, if any of them could tell.
    pub(crate) store: Option<StoreRecord>,
    /// Label sets by series number.
    pub(crate) series: BTreeMap<u32, Labels>,
    /// Deletes by group and series.
    pub(crate) deletes: BTreeMap<(u64, u32), DeleteRecord>,
    /// The latest checkpoint that was noted, if there is one.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// What could not be read, and why; the rest holds.
    pub(crate) damaged: Vec<Error>,
}

impl Catalog {
    /// Opens the catalogue in `dir`; reads nothing but names.
    pub(crate) fn open(disk: &Disk, dir: &Path, store: StoreRecord) -> Result<Self> {
        disk.create_dir_all(dir)?;
        let numbers = numbers(dir)?;
        let bytes = |number: &u64| fs::metadata(path(dir, *number)).map_or(0, |metadata| metadata.len());
        let first_bytes = numbers.first().map_or(0, bytes);
        let later_bytes = numbers.iter().skip(1).map(bytes).sum();
        let dir = dir.to_owned();
        Ok(Self {
            disk: disk.clone(),
            dir,
            store,
            numbers,
            first_bytes,
            later_bytes,
            deletes: HashSet::new(),
        })
    }

    /// Whether there is no file yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Adds these series, and the deletes that are new, durably.
    pub(crate) fn add(&mut self, series: &[Arc<Series>], deletes: &Deletes) -> Result<()> {
        let new: Vec<DeleteRecord> =
            deletes.iter().filter(|d| !self.deletes.contains(&(d.seq, d.series))).copied().collect();
        if series.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.write(parts(series, &new))?;
        self.deletes.extend(new.iter().map(|delete| (delete.seq, delete.series)));
        Ok(())
    }

    /// Says how far the log is in blocks, durably: what an index that is lost would have known.
    pub(crate) fn note_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.write(vec![Part::Checkpoint(checkpoint)])
    }

    /// Whether it should be rewritten as one file.
    pub(crate) fn is_sprawling(&self) -> bool {
        self.numbers.len() > FILES_MAX || self.later_bytes > self.first_bytes.max(REWRITE_BYTES_MIN)
    }

    /// Puts one file of these series and deletes, which must be all, and a checkpoint, in the place of the
    /// others.
    pub(crate) fn rewrite(&mut self, parts: impl IntoIterator<Item = Part>) -> Result<()> {
        let disk = self.disk.clone();
        self.replace(parts, |path| disk.remove_file(path))
    }

    /// The same, and sets the others aside, since some of them are damaged.
    pub(crate) fn rewrite_damaged(
        &mut self,
        data_dir: &Path,
        parts: impl IntoIterator<Item = Part>,
    ) -> Result<()> {
        let disk = self.disk.clone();
        self.replace(parts, |path| quarantine::set_aside(&disk, data_dir, path).map(drop))
    }

    fn replace(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        mut put_away: impl FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let older = self.numbers.clone();
        self.write(parts)?;
        for number in older {
            put_away(&path(&self.dir, number))?;
            self.numbers.retain(|known| *known != number);
        }
        let written = self.numbers.first().map(|number| path(&self.dir, *number));
        self.first_bytes =
            written.and_then(|path| fs::metadata(path).ok()).map_or(0, |metadata| metadata.len());
        self.later_bytes = 0;
        Ok(())
    }

    fn write(&mut self, parts: impl IntoIterator<Item = Part>) -> Result<()> {
        let number = self.numbers.last().map_or(1, |last| last + 1);
        let path = path(&self.dir, number);
        self.disk.write_durably_with(&path, |file| file::write(&self.store, parts.into_iter(), file))?;
        let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        let written = if self.numbers.is_empty() { &mut self.first_bytes } else { &mut self.later_bytes };
        *written += bytes;
        self.numbers.push(number);
        Ok(())
    }
}

/// Reads all files in `dir`.
pub(crate) fn read(dir: &Path) -> Result<Contents> {
    let mut contents = Contents::default();
    if !dir.is_dir() {
        return Ok(contents);
    }
    for number in numbers(dir)? {
        let path = path(dir, number);
        match fs::read(&path) {
            Ok(bytes) => contents.take(&path, &bytes),
            Err(error) => contents.damaged.push(Error::io("read", &path)(error)),
        }
    }
    Ok(contents)
}

impl Contents {
    fn take(&mut self, path: &Path, bytes: &[u8]) {
        let read = decode(bytes);
        self.damaged.extend(read.damaged.into_iter().map(|what| Error::damaged(path, what)));
        let Some(store) = read.store else { return };
        if *self.store.get_or_insert(store) != store {
            self.damaged.push(Error::damaged(path, "it belongs to another store than the file before it"));
            return;
        }
        for part in read.parts {
            match part {
                Part::Series(definitions) => {
                    for SeriesDefinition { id, labels } in definitions {
                        match Labels::new(labels) {
                            Ok(labels) => drop(self.series.insert(id, labels)),
                            Err(error) => {
                                self.damaged.push(Error::damaged(path, format!("series {id}: {error}")));
                            }
                        }
                    }
                }
                Part::Deletes(deletes) => {
                    self.deletes.extend(deletes.into_iter().map(|d| ((d.seq, d.series), d)));
                }
                Part::Checkpoint(checkpoint) => {
                    let later = self.checkpoint.is_none_or(|known| known.next_seq < checkpoint.next_seq);
                    self.checkpoint = if later { Some(checkpoint) } else { self.checkpoint };
                }
                // Parts of a backup's manifest.
                Part::Files(_) | Part::Rollups(_) => {}
            }
        }
    }
}

/// These series and deletes, in parts of a bounded size, each made when it is its turn.
pub(crate) fn parts(series: &[Arc<Series>], deletes: &[DeleteRecord]) -> impl Iterator<Item = Part> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let define = move |series: &Arc<Series>| SeriesDefinition {
        id: series.id,
        labels: series.labels.iter().map(owned).collect(),
    };
    parts_of_definitions(series.iter().map(define), deletes)
}

/// The same, of label sets by series number.
pub(crate) fn parts_of<'s>(
    series: impl Iterator<Item = (u32, &'s Labels)>,
    deletes: &[DeleteRecord],
) -> impl Iterator<Item = Part> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let define = move |(id, labels): (u32, &Labels)| SeriesDefinition {
        id,
        labels: labels.iter().map(owned).collect(),
    };
    parts_of_definitions(series.map(define), deletes)
}

fn parts_of_definitions(
    mut series: impl Iterator<Item = SeriesDefinition>,
    deletes: &[DeleteRecord],
) -> impl Iterator<Item = Part> {
    const SERIES_TEXT_BYTES_MAX: usize = 64 << 10;
    const DELETES_MAX: usize = 2_000;
    let of_series = std::iter::from_fn(move || {
        let (mut of_part, mut text_bytes) = (Vec::new(), 0);
        while text_bytes <= SERIES_TEXT_BYTES_MAX
            && let Some(definition) = series.next()
        {
            text_bytes +=
                definition.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            of_part.push(definition);
        }
        (!of_part.is_empty()).then_some(Part::Series(of_part))
    });
    of_series.chain(deletes.chunks(DELETES_MAX).map(|deletes| Part::Deletes(deletes.to_vec())))
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.{EXTENSION}"))
}

fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 16);
        let is_ours = path.extension().is_some_and(|extension| extension == EXTENSION);
        numbers.extend(stem.filter(|_| is_ours).and_then(|stem| u64::from_str_radix(stem, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_labels::LabelPool;
    use uuid::Uuid;

    const STORE: StoreRecord = StoreRecord { format: 1, uuid: Uuid::from_u128(7), partition_ms: 1_000 };

    fn series(id: u32) -> Arc<Series> {
        let labels = Labels::new([("__name__", "m".to_owned()), ("n", id.to_string())]).expect("valid");
        Arc::new(Series::new(id, LabelPool::default().store(&labels), true))
    }

    fn deletes(seqs: &[u64]) -> Deletes {
        let mut deletes = Deletes::default();
        for seq in seqs {
            deletes.add(DeleteRecord { seq: *seq, series: 1, start_ms: 0, end_ms: 9 });
        }
        deletes
    }

    #[test]
    fn files_add_up_and_are_rewritten_as_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut catalog = Catalog::open(&Disk::default(), dir.path(), STORE).expect("opens");
        catalog.add(&[series(1), series(2)], &deletes(&[5])).expect("added");
        catalog.add(&[], &deletes(&[5])).expect("nothing is new");
        assert_eq!(catalog.numbers, [1]);
        catalog.add(&[series(3)], &deletes(&[5, 6])).expect("added");
        let read_all = || read(dir.path()).expect("read");
        let contents = read_all();
        assert_eq!(contents.store, Some(STORE));
        assert_eq!(contents.series.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(series(2).labels.are(&contents.series[&2]));
        assert_eq!(contents.deletes.len(), 2);
        assert!(contents.damaged.is_empty());

        let mut catalog = Catalog::open(&Disk::default(), dir.path(), STORE).expect("opens");
        catalog.rewrite(parts(&[series(3)], &[])).expect("rewritten");
        assert_eq!(read_all().series.keys().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(catalog.numbers, [3]);
    }
}
