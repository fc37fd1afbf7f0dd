//! The write-ahead log: numbered groups of changes, durable before they are acknowledged.
//!
//! The log lies in generations, one key-value store each. A seal begins a new generation, and once
//! everything in the older ones is in blocks, they are removed whole.
//!
//! invariant: groups carry contiguous sequence numbers. Where a generation ended in a failed write,
//! the next one begins at the number that failed, and replay takes each number from the latest
//! generation that can hold it; so a group that was refused is not resurrected, unless the process ends
//! before anything is written again: then nobody can tell whether it was.

mod durable;
mod record;
mod samples;

pub(crate) use record::{Delete, Group, SeriesDefinition};

use crate::error::{Error, Result};
use crate::files;
use crate::keyvalue::{KeyValue, Tree};
use durable::Durable;
use std::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The directory of all generations below the data directory.
pub(crate) const LOG_DIR: &str = "log";

const GROUPS_TREE: &str = "groups";
const HEAD_TREE: &str = "head";
const FIRST_SEQ_KEY: &[u8] = b"first_seq";
/// Made once a generation is ready. sled takes a database whose bytes are lost for an empty one; with
/// this file it is seen that it was not.
const BEGUN_FILE: &str = "begun";

/// The log of one store, open at its newest generation.
pub(crate) struct Log {
    dir: PathBuf,
    writer: Uuid,
    generation: u64,
    store: KeyValue,
    groups: Tree,
    /// The number of the first group that this generation may hold.
    first_seq: u64,
    durable: Durable,
    next_seq: u64,
    /// Bytes of the groups that were replayed.
    replayed_bytes: u64,
}

impl Log {
    /// Opens the log in `dir`, hands every group from `from_seq` on to `replay`, in order,
    /// with its number.
    pub(crate) fn open(
        dir: &Path,
        writer: Uuid,
        from_seq: u64,
        mut replay: impl FnMut(u64, Group) -> Result<()>,
    ) -> Result<Self> {
        files::create_dir_all(dir)?;
        let generations = generations(dir)?;
        let mut opened = Vec::with_capacity(generations.len());
        for generation in &generations {
            let path = generation_path(dir, *generation);
            // A generation that was still being made when the process ended is empty.
            if path.join(BEGUN_FILE).exists() {
                let store = KeyValue::open(&path)?;
                let first_seq = read_first_seq(&store)?;
                opened.push((*generation, store, first_seq));
            }
        }
        let (mut next_seq, mut replayed_bytes) = (from_seq, 0);
        for at in 0..opened.len() {
            let end_seq = opened.get(at + 1).map_or(u64::MAX, |(_, _, first_seq)| *first_seq);
            let (_, store, first_seq) = &opened[at];
            if *first_seq > next_seq {
                return Err(missing(store.path(), next_seq));
            }
            replayed_bytes += replay_generation(store, writer, &mut next_seq, end_seq, &mut replay)?;
            Durable::open(store.path())?.check(next_seq)?;
        }
        if opened.is_empty() && from_seq > 1 {
            return Err(missing(dir, from_seq));
        }
        match opened.pop() {
            Some((generation, store, first_seq)) => {
                let groups = store.tree(GROUPS_TREE)?;
                let durable = Durable::open(store.path())?;
                Ok(Self {
                    dir: dir.to_owned(),
                    writer,
                    generation,
                    store,
                    groups,
                    first_seq,
                    next_seq,
                    replayed_bytes,
                    durable,
                })
            }
            None => Self::begin(dir, writer, generations.last().map_or(1, |last| last + 1), next_seq),
        }
    }

    fn begin(dir: &Path, writer: Uuid, generation: u64, first_seq: u64) -> Result<Self> {
        let path = generation_path(dir, generation);
        // Left behind by a process that ended while making it.
        files::remove_dir_all(&path)?;
        let store = KeyValue::open(&path)?;
        let groups = store.tree(GROUPS_TREE)?;
        store.tree(HEAD_TREE)?.put(FIRST_SEQ_KEY, &first_seq.to_be_bytes())?;
        store.sync()?;
        let durable = Durable::open(&path)?;
        files::write_durably(&path.join(BEGUN_FILE), b"")?;
        Ok(Self {
            dir: dir.to_owned(),
            writer,
            generation,
            store,
            groups,
            first_seq,
            durable,
            next_seq: first_seq,
            replayed_bytes: 0,
        })
    }

    /// The number of the next group.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether the generation that is being written has no group yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.next_seq == self.first_seq
    }

    /// Bytes of the groups that were replayed when the log was opened.
    pub(crate) fn replayed_bytes(&self) -> u64 {
        self.replayed_bytes
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
        Ok(bytes_written)
    }

    /// Goes on in a new generation; the older ones stay until [`drop_older`](Self::drop_older).
    pub(crate) fn rotate(&mut self) -> Result<()> {
        *self = Self::begin(&self.dir, self.writer, self.generation + 1, self.next_seq)?;
        Ok(())
    }

    /// The generation that is being written.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Removes all generations before `generation`: everything in them is in blocks.
pub(crate) fn drop_older(dir: &Path, generation: u64) -> Result<()> {
    for older in generations(dir)?.into_iter().filter(|g| *g < generation) {
        files::remove_dir_all(&generation_path(dir, older))?;
    }
    Ok(())
}

/// Acknowledged groups from `from_seq` on are neither in the log nor, by its checkpoint, in blocks.
fn missing(path: &Path, from_seq: u64) -> Error {
    let what = format!(
        "the log does not go on at group {from_seq}: files of it are missing, or the index is older than \
         the log; restore the data directory from a backup"
    );
    Error::damaged(path, what)
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

fn read_first_seq(store: &KeyValue) -> Result<u64> {
    let bytes = store.tree(HEAD_TREE)?.get(FIRST_SEQ_KEY)?;
    let seq = bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok()).map(u64::from_be_bytes);
    seq.ok_or_else(|| Error::damaged(store.path(), "its first number is lost, and with it its groups"))
}

/// Replays the groups of `[next_seq, end_seq)` that a generation holds; answers how many bytes they take.
fn replay_generation(
    store: &KeyValue,
    writer: Uuid,
    next_seq: &mut u64,
    end_seq: u64,
    replay: &mut impl FnMut(u64, Group) -> Result<()>,
) -> Result<u64> {
    let mut bytes = 0;
    store.tree(GROUPS_TREE)?.scan(|key, value| {
        let key = <[u8; 8]>::try_from(key).map_err(|_| Error::damaged(store.path(), "a key is no number"))?;
        let seq = u64::from_be_bytes(key);
        if seq < *next_seq || seq >= end_seq {
            return Ok(());
        }
        if seq != *next_seq {
            let what = format!("group {} is missing; the next one is {seq}", *next_seq);
            return Err(Error::damaged(store.path(), what));
        }
        let group = record::decode_group(writer, seq, value)
            .map_err(|error| Error::damaged(store.path(), format!("group {seq}: {error}")))?;
        replay(seq, group)?;
        bytes += value.len() as u64;
        *next_seq += 1;
        Ok(())
    })?;
    Ok(bytes)
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
        let log = Log::open(dir, writer, from_seq, |_, group| {
            groups.push(group);
            Ok(())
        })?;
        Ok((log, groups))
    }

    #[test]
    fn groups_are_replayed_in_order_across_generations_from_the_checkpoint_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = Uuid::from_u128(7);
        let (mut log, groups) = replayed(dir.path(), writer, 1).expect("opens");
        assert!(groups.is_empty());
        log.append(&[group(1), group(2)]).expect("appended");
        log.rotate().expect("rotated");
        log.append(&[group(3)]).expect("appended");
        drop(log);
        let (log, groups) = replayed(dir.path(), writer, 2).expect("opens");
        assert_eq!(groups, [group(2), group(3)]);
        assert_eq!((log.next_seq(), log.generation()), (4, 2));
        drop(log);
        drop_older(dir.path(), 2).expect("dropped");
        let (_, groups) = replayed(dir.path(), writer, 3).expect("opens");
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
        let dir = tempfile::tempdir().expect("a directory");
        let error = replayed(dir.path(), writer, 5).map(drop).expect_err("refused");
        assert!(error.to_string().contains("does not go on at group 5"), "{error}");

        let (mut log, _) = replayed(dir.path(), writer, 1).expect("opens");
        log.append(&[group(1), group(2)]).expect("appended");
        log.rotate().expect("rotated");
        log.append(&[group(3)]).expect("appended");
        drop(log);
        drop_older(dir.path(), 2).expect("dropped");
        let error = replayed(dir.path(), writer, 2).map(drop).expect_err("refused");
        assert!(error.to_string().contains("does not go on at group 2"), "{error}");
    }

    #[test]
    fn the_log_of_another_store_and_a_missing_group_are_errors() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut log, _) = replayed(dir.path(), Uuid::from_u128(7), 1).expect("opens");
        log.append(&[group(1), group(2), group(3)]).expect("appended");
        log.groups.remove(&2u64.to_be_bytes()).expect("removed");
        log.store.sync().expect("synced");
        drop(log);
        let error = replayed(dir.path(), Uuid::from_u128(8), 1).map(drop).expect_err("refused");
        assert!(error.to_string().contains("another store"), "{error}");
        let error = replayed(dir.path(), Uuid::from_u128(7), 1).map(drop).expect_err("refused");
        assert!(error.to_string().contains("group 2 is missing"), "{error}");
    }
}
