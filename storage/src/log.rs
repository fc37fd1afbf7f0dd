//! The write-ahead log: numbered groups of changes, durable before they are acknowledged.
//!
//! The log lies in generations, one key-value store each. A seal begins a new generation, and so does opening a
//! store, and an append to one that has grown enough. Once everything in the older ones is in blocks, they are removed
//! whole. None of them is ever opened as a database again, since sled cuts off whatever lies behind a damaged place:
//! those of an earlier process are read as bytes.
//!
//! invariant: groups carry contiguous sequence numbers. Where a generation ended in a failed write,
//! the next one begins at the number that failed, and replay takes each number from the latest
//! generation that can hold it; so a group that was refused is not resurrected, unless the process ends
//! before anything is written again: then nobody can tell whether it was.

mod begun;
mod durable;
mod generation;
mod open;
mod record;
mod samples;

pub(crate) use open::{LogOpening, OpenedLog};
#[cfg(feature = "fuzzing")]
pub(crate) use record::fuzz as fuzz_record;
pub(crate) use record::{Delete, Group, SeriesDefinition};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::keyvalue::{self, KeyValue, Tree, value_bytes_max};
use crate::quarantine;
use durable::Durable;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a group takes as a record.
#[cfg(test)]
pub(crate) fn group_bytes(group: &Group) -> usize {
    record::encode_group(Uuid::nil(), 1, group).len()
}

/// The directory of all generations below the data directory.
pub(crate) const LOG_DIR: &str = "log";

const SEGMENT_BYTES: usize = 2 << 20;

/// The longest group that may be appended, as a record: its head and its body.
pub(crate) const GROUP_BYTES_MAX: usize = value_bytes_max(SEGMENT_BYTES);

const GROUPS_TREE: &str = "groups";
const HEAD_TREE: &str = "head";
const MARKER_KEY: &[u8] = b"marker";

/// The log of one store, open at its newest generation.
pub(crate) struct Log {
    disk: Disk,
    dir: PathBuf,
    writer: Uuid,
    generation: u64,
    store: KeyValue,
    groups: Tree,
    /// The number of the first group that this generation may hold.
    first_seq: u64,
    durable: Durable,
    next_seq: u64,
    bytes: u64,
}

impl Log {
    /// Makes a generation that begins at group `first_seq`, durably, and opens it.
    pub(crate) fn begin(
        disk: &Disk,
        dir: &Path,
        writer: Uuid,
        generation: u64,
        first_seq: u64,
    ) -> Result<Self> {
        let path = generation_path(dir, generation);
        // Left behind by a process that ended while making it.
        disk.remove_dir_all(&path)?;
        let store = KeyValue::open(disk, &path, SEGMENT_BYTES)?;
        let groups = store.tree(GROUPS_TREE)?;
        store.tree(HEAD_TREE)?.put(MARKER_KEY, &record::encode_marker(writer))?;
        store.sync()?;
        let durable = Durable::open(disk, &path)?;
        begun::write(disk, &path, first_seq)?;
        Ok(Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            writer,
            generation,
            store,
            groups,
            first_seq,
            durable,
            next_seq: first_seq,
            bytes: 0,
        })
    }

    /// The number of the next group.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// What the groups of the generation that is being written take. Of a database that is open, sled keeps that in
    /// memory, however small a cache it is given.
    pub(crate) fn generation_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the generation that is being written has no group yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.next_seq == self.first_seq
    }

    /// Appends groups, durably: when this returns `Ok`, they survive a power cut. After an error none
    /// of them is in the log, and nothing more may be appended before [`rotate`](Self::rotate).
    /// Answers how many bytes they take.
    pub(crate) fn append(&mut self, groups: &[Group]) -> Result<u64> {
        let mut seq = self.next_seq;
        let mut bytes_written = 0;
        for group in groups {
            let bytes = record::encode_group(self.writer, seq, group);
            self.groups.put(&seq.to_be_bytes(), &bytes)?;
            bytes_written += bytes.len() as u64;
            seq += 1;
        }
        self.store.sync()?;
        self.durable.note(seq)?;
        self.next_seq = seq;
        self.bytes += bytes_written;
        Ok(bytes_written)
    }

    /// Goes on in a new generation; the older ones stay until [`drop_older`](Self::drop_older).
    pub(crate) fn rotate(&mut self) -> Result<()> {
        let next = Self::begin(&self.disk, &self.dir, self.writer, self.generation + 1, self.next_seq)?;
        let older = std::mem::replace(self, next);
        keyvalue::let_go(&generation_path(&older.dir, older.generation), older);
        Ok(())
    }

    /// Closes it, and waits until its files are let go.
    pub(crate) fn close(self) -> Result<()> {
        drop(self.groups);
        self.store.close()
    }

    /// The generation that is being written.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Looks through the log in `dir` without opening it: how many groups there are, and what is wrong. Hands
/// each group to `visit`.
pub(crate) fn verify(
    dir: &Path,
    writer: Uuid,
    mut visit: impl FnMut(&Group),
) -> Result<(usize, Vec<String>)> {
    let (mut groups, mut damage) = (0, Vec::new());
    if !dir.is_dir() {
        return Ok((0, vec![Error::damaged(dir, "there is no log").to_string()]));
    }
    for number in generations(dir)? {
        let path = generation_path(dir, number);
        let Some(generation) = generation::Generation::find(&path, number, writer)? else { continue };
        let (found, wrong) = generation.verify(writer, &mut visit);
        groups += found;
        // A server that runs may have sealed it in the meantime.
        damage.extend(wrong.into_iter().filter(|_| path.exists()));
    }
    Ok((groups, damage))
}

/// Removes all generations before `generation`: everything in them is in blocks. Damaged ones are set
/// aside instead.
pub(crate) fn drop_older(
    disk: &Disk,
    data_dir: &Path,
    generation: u64,
    damaged: &BTreeSet<u64>,
) -> Result<()> {
    let dir = data_dir.join(LOG_DIR);
    for older in generations(&dir)?.into_iter().filter(|g| *g < generation) {
        let path = generation_path(&dir, older);
        if damaged.contains(&older) {
            let to = quarantine::set_aside(disk, data_dir, &path)?;
            tracing::warn!(path = %to.display(), "a damaged log generation was set aside: what it held is sealed");
        } else {
            disk.remove_dir_all(&path)?;
        }
    }
    Ok(())
}

fn generation_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:016x}"))
}

/// The generations on disk, oldest first.
fn generations(dir: &Path) -> Result<Vec<u64>> {
    let mut generations = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let name = entry.file_name();
        let number = name.to_str().filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok());
        generations.extend(number);
    }
    generations.sort_unstable();
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn group(series: u32) -> Group {
        Group { samples: vec![(series, Sample::new(i64::from(series), 1.5))], ..Group::default() }
    }

    fn replayed(dir: &Path, writer: Uuid, from_seq: u64) -> Result<(Log, Vec<Group>)> {
        let mut groups = Vec::new();
        let opening = LogOpening {
            disk: Disk::default(),
            writer,
            replay_from_seq: from_seq,
            needed_from_seq: from_seq,
            strict: true,
        };
        let opened = opening.open(dir, |_, group| {
            groups.push(group);
            Ok(())
        })?;
        Ok((opened.log, groups))
    }

    #[test]
    fn groups_are_replayed_in_order_across_generations_from_the_checkpoint_on() {
        let data = tempfile::tempdir().expect("a directory");
        let dir = data.path().join(LOG_DIR);
        let writer = Uuid::from_u128(7);
        let (mut log, groups) = replayed(&dir, writer, 1).expect("opens");
        assert!(groups.is_empty());
        log.append(&[group(1), group(2)]).expect("appended");
        log.rotate().expect("rotated");
        log.append(&[group(3)]).expect("appended");
        drop(log);
        let (log, groups) = replayed(&dir, writer, 2).expect("opens");
        assert_eq!(groups, [group(2), group(3)]);
        assert_eq!((log.next_seq(), log.generation()), (4, 3));
        drop(log);
        drop_older(&Disk::default(), data.path(), 2, &BTreeSet::new()).expect("dropped");
        let (_, groups) = replayed(&dir, writer, 3).expect("opens");
        assert_eq!(groups, [group(3)]);
    }

    #[test]
    fn a_generation_that_begins_again_at_a_failed_number_replaces_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = Uuid::from_u128(7);
        let (mut log, _) = replayed(dir.path(), writer, 1).expect("opens");
        log.append(&[group(1), group(2)]).expect("appended");
        // As if the write of group 2 had been refused after it reached the disk.
        log.next_seq = 2;
        log.durable.note(2).expect("noted");
        log.rotate().expect("rotated");
        log.append(&[group(9)]).expect("appended");
        drop(log);
        let (_, groups) = replayed(dir.path(), writer, 1).expect("opens");
        assert_eq!(groups, [group(1), group(9)]);
    }

    #[test]
    fn a_log_that_does_not_go_on_where_the_index_ends_is_an_error() {
        let writer = Uuid::from_u128(7);
        let data = tempfile::tempdir().expect("a directory");
        let dir = data.path().join(LOG_DIR);
        let error = replayed(&dir, writer, 5).map(drop).expect_err("refused");
        assert!(error.to_string().contains("there is no log"), "{error}");

        let (mut log, _) = replayed(&dir, writer, 1).expect("opens");
        log.append(&[group(1), group(2)]).expect("appended");
        log.rotate().expect("rotated");
        log.append(&[group(3)]).expect("appended");
        drop(log);
        drop_older(&Disk::default(), data.path(), 2, &BTreeSet::new()).expect("dropped");
        let error = replayed(&dir, writer, 2).map(drop).expect_err("refused");
        assert!(error.to_string().contains("groups 2 to 2 were acknowledged"), "{error}");
    }

    #[test]
    fn the_log_of_another_store_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut log, _) = replayed(dir.path(), Uuid::from_u128(7), 1).expect("opens");
        log.append(&[group(1), group(2), group(3)]).expect("appended");
        drop(log);
        let error = replayed(dir.path(), Uuid::from_u128(8), 1).map(drop).expect_err("refused");
        assert!(error.to_string().contains("of another store"), "{error}");
    }

    #[test]
    fn a_store_that_is_opened_again_and_again_leaves_no_empty_generations() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = Uuid::from_u128(7);
        for _ in 0..3 {
            replayed(dir.path(), writer, 1).expect("opens");
        }
        assert_eq!(generations(dir.path()).expect("read"), [3]);
    }
}
