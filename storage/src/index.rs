//! The index database: what the store is, its series, postings, blocks and deletes.
//!
//! Each value is a checksum, then bincode (postings: then a serialised bitmap). Keys are specified in
//! FORMAT.md and made here only.
//!
//! invariant: nothing depends on a key being gone, since sled may bring removed keys back: the blocks
//! of a partition are one value that is overwritten; a series or a delete that comes back is harmless.

use crate::block::BlockRecord;
use crate::bytes::{Reader, put_varint, sortable};
use crate::deletes::DeleteRecord;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::files;
use crate::keyvalue::{KeyValue, Tree};
use crate::labels::Labels;
use crate::postings::{PostingKey, Postings};
use crate::rollup::{UnitRecord, unit_key};
use crate::stored_labels::{LabelPool, StoredLabels};
use bincode::Options;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use uuid::Uuid;

const STORE_KEY: &[u8] = b"store";
const CHECKPOINT_KEY: &[u8] = b"checkpoint";

/// A quarter of it has room for a page of 256 keys, of which each may have the longest label value.
const SEGMENT_BYTES: usize = 8 << 20;

/// The index database of an open store.
pub(crate) struct Index {
    disk: Disk,
    path: PathBuf,
    store: StoreRecord,
    /// `None` after a failure. sled answers every call after a failed write (a full volume) with that
    /// failure, so the next call opens it anew; whoever met the failure takes back what it had put.
    trees: Mutex<Option<Trees>>,
    /// Whether a sync failed: what was put may never reach the disk, however often it is synced again.
    doubtful: AtomicBool,
    /// The last checkpoint that is durable.
    checkpoint: Mutex<Checkpoint>,
    /// About so many bytes of memory does the database hold: what was put or read since it was opened.
    moved_bytes: AtomicU64,
}

/// Of so many bytes on disk one comes into memory when the database is opened: where its pages lie.
const BYTES_PER_PLACE_BYTE: u64 = 8;

/// The open database.
struct Trees {
    database: KeyValue,
    meta: Tree,
    series: Tree,
    postings: Tree,
    blocks: Tree,
    deletes: Tree,
    rollups: Tree,
}

/// What the store is; written once, when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreRecord {
    /// The version of FORMAT.md.
    pub(crate) format: u32,
    /// The store's identity: no two stores share one.
    pub(crate) uuid: Uuid,
    /// The time that one partition spans.
    pub(crate) partition_ms: i64,
}

/// How far the log is in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The first log group that may not be in blocks.
    pub(crate) next_seq: u64,
    /// The number that the next new series gets.
    pub(crate) next_series: u32,
    /// The number that the next block gets.
    pub(crate) next_block: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { next_seq: 1, next_series: 1, next_block: 1 }
    }
}

/// All that the index knows when a store is opened.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) series: Vec<(u32, StoredLabels)>,
    /// The labels of all of them.
    pub(crate) labels: LabelPool,
    pub(crate) postings: Postings,
    pub(crate) blocks: Vec<BlockRecord>,
    pub(crate) deletes: Vec<DeleteRecord>,
    pub(crate) rollups: Vec<UnitRecord>,
}

impl Trees {
    fn open(disk: &Disk, path: &Path) -> Result<Self> {
        let database = KeyValue::open(disk, path, SEGMENT_BYTES)?;
        Ok(Self {
            meta: database.tree("meta")?,
            series: database.tree("series")?,
            postings: database.tree("postings")?,
            blocks: database.tree("blocks")?,
            deletes: database.tree("deletes")?,
            rollups: database.tree("rollups")?,
            database,
        })
    }

    fn close(self) -> Result<()> {
        let Self { database, meta, series, postings, blocks, deletes, rollups } = self;
        drop((meta, series, postings, blocks, deletes, rollups));
        database.close()
    }

    fn store(&self) -> Result<Option<StoreRecord>> {
        let bytes = self.meta.get(STORE_KEY)?;
        bytes.map(|bytes| decode(self.database.path(), &bytes, "the store's record")).transpose()
    }
}

/// All that an index is to say.
#[derive(Default)]
pub(crate) struct Whole<'a> {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) series: Vec<(u32, Cow<'a, Labels>)>,
    pub(crate) blocks: Vec<BlockRecord>,
    pub(crate) deletes: Vec<DeleteRecord>,
    pub(crate) rollups: Vec<UnitRecord>,
}

impl Index {
    /// Opens the index at `path`; a new one is that of the store `new_store`.
    pub(crate) fn open(disk: &Disk, path: &Path, new_store: StoreRecord) -> Result<(Self, StoreRecord)> {
        let trees = Trees::open(disk, path)?;
        let store = match trees.store()? {
            Some(store) => store,
            None => {
                trees.meta.put(STORE_KEY, &encode(&new_store))?;
                trees.database.sync()?;
                new_store
            }
        };
        if store.format > crate::FORMAT_VERSION {
            return Err(Error::NewerFormat {
                path: path.parent().unwrap_or(path).to_owned(),
                found: store.format,
                known: crate::FORMAT_VERSION,
            });
        }
        let moved_bytes = AtomicU64::new(files::bytes_below(path) / BYTES_PER_PLACE_BYTE);
        let this = Self {
            disk: disk.clone(),
            path: path.to_owned(),
            store,
            trees: Mutex::new(Some(trees)),
            doubtful: AtomicBool::new(false),
            checkpoint: Mutex::default(),
            moved_bytes,
        };
        Ok((this, store))
    }

    /// Closes it, and waits until its files are let go.
    pub(crate) fn close(self) -> Result<()> {
        self.trees.into_inner().map_or(Ok(()), Trees::close)
    }

    /// Whether it must be [renewed](Self::renew) before anything may depend on it: a sync of it failed.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    /// Closes the database, durably, if it holds more memory than that; the next call opens it again. What sled
    /// read or wrote stays in memory however small a cache it is given, and where each page lies does at all
    /// times.
    pub(crate) fn let_go_of_memory(&self, memory_max_bytes: u64) -> Result<()> {
        if self.moved_bytes.load(Ordering::Relaxed) <= memory_max_bytes || self.trees.lock().is_none() {
            return Ok(());
        }
        self.sync()?;
        self.moved_bytes.store(0, Ordering::Relaxed);
        self.trees.lock().take().map_or(Ok(()), Trees::close)
    }

    fn note_moved(&self, pair_bytes: usize) {
        self.moved_bytes.fetch_add(pair_bytes as u64, Ordering::Relaxed);
    }

    /// The last checkpoint that is durable.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        *self.checkpoint.lock()
    }

    /// Puts a new database, which says exactly this, in the place of the present one, in files that never
    /// saw a failed sync.
    pub(crate) fn renew(&self, whole: &Whole<'_>) -> Result<()> {
        let mut slot = self.trees.lock();
        if let Some(trees) = slot.take() {
            trees.close()?;
        }
        make_anew(&self.disk, &self.path, self.store, whole)?;
        *slot = Some(self.reopen()?);
        *self.checkpoint.lock() = whole.checkpoint;
        self.doubtful.store(false, Ordering::Release);
        Ok(())
    }

    /// Calls `call` on the open database, opening it anew after a failure.
    fn with<T>(&self, call: impl FnOnce(&Trees) -> Result<T>) -> Result<T> {
        let mut slot = self.trees.lock();
        let trees = match slot.take() {
            Some(trees) => trees,
            None => self.reopen()?,
        };
        let answer = call(&trees)?;
        *slot = Some(trees);
        Ok(answer)
    }

    fn reopen(&self) -> Result<Trees> {
        let trees = Trees::open(&self.disk, &self.path)?;
        self.moved_bytes.store(self.bytes() / BYTES_PER_PLACE_BYTE, Ordering::Relaxed);
        match trees.store()? {
            Some(store) if store == self.store => Ok(trees),
            _ => Err(self.damaged("it is not the store's any more")),
        }
    }

    /// Reads everything.
    pub(crate) fn load(&self) -> Result<Loaded> {
        self.with(|trees| self.load_from(trees))
    }

    fn load_from(&self, trees: &Trees) -> Result<Loaded> {
        let mut checkpoint: Checkpoint = match trees.meta.get(CHECKPOINT_KEY)? {
            Some(bytes) => self.decode(&bytes, "the checkpoint")?,
            None => Checkpoint::default(),
        };
        *self.checkpoint.lock() = checkpoint;
        let (mut series, mut pool) = (Vec::new(), LabelPool::default());
        let mut known = RoaringBitmap::new();
        trees.series.scan(|key, value| {
            let id = <[u8; 4]>::try_from(key).map_err(|_| self.damaged("a series' key"))?;
            let id = u32::from_be_bytes(id);
            let pairs: Vec<(String, String)> = self.decode(value, "a series' record")?;
            let labels =
                Labels::new(pairs).map_err(|error| self.damaged(&format!("series {id}: {error}")))?;
            known.insert(id);
            self.note_moved(key.len() + value.len());
            series.push((id, pool.store(&labels)));
            Ok(())
        })?;
        let mut postings = Postings::default();
        trees.postings.scan(|key, value| {
            let key = posting_key(key).ok_or_else(|| self.damaged("a posting's key"))?;
            let bytes = self.checked(value, "a posting list")?;
            let piece = RoaringBitmap::deserialize_from(bytes)
                .map_err(|error| self.damaged(&format!("a posting list: {error}")))?;
            postings.load(&key, &piece, &known);
            self.note_moved(value.len());
            Ok(())
        })?;
        let mut blocks = Vec::new();
        trees.blocks.scan(|_, value| {
            let of_partition: Vec<BlockRecord> = self.decode(value, "the blocks of a partition")?;
            blocks.extend(of_partition);
            Ok(())
        })?;
        // Merges number blocks without moving the checkpoint, and a seal may have been cut off before it
        // did: a number that is used again would put one block in the place of another.
        let mut rollups: Vec<UnitRecord> = Vec::new();
        trees.rollups.scan(|_, value| {
            rollups.push(self.decode(value, "the rollups of a partition")?);
            Ok(())
        })?;
        let rolled_up = rollups.iter().flat_map(|unit| unit.files.iter().map(|file| file.id));
        let in_use =
            blocks.iter().map(|block| block.id).chain(rolled_up).max().map(|id| id.saturating_add(1));
        checkpoint.next_block = checkpoint.next_block.max(in_use.unwrap_or_default());
        let mut deletes = Vec::new();
        trees.deletes.scan(|_, value| {
            deletes.push(self.decode(value, "a delete")?);
            Ok(())
        })?;
        Ok(Loaded { checkpoint, series, labels: pool, postings, blocks, deletes, rollups })
    }

    pub(crate) fn put_series<'a>(
        &self,
        id: u32,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let pairs: Vec<(&str, &str)> = labels.collect();
        let record = encode(&pairs);
        self.note_moved(record.len());
        self.with(|trees| trees.series.put(&id.to_be_bytes(), &record))
    }

    pub(crate) fn remove_series(&self, id: u32) -> Result<()> {
        self.with(|trees| trees.series.remove(&id.to_be_bytes()))
    }

    pub(crate) fn put_postings(&self, key: &PostingKey, piece: &RoaringBitmap) -> Result<()> {
        let mut key_bytes = Vec::with_capacity(key.name.len() + key.value.len() + 8);
        put_varint(&mut key_bytes, key.name.len() as u64);
        key_bytes.extend_from_slice(key.name.as_bytes());
        key_bytes.extend_from_slice(key.value.as_bytes());
        key_bytes.extend_from_slice(&key.upper.to_be_bytes());
        if piece.is_empty() {
            return self.with(|trees| trees.postings.remove(&key_bytes));
        }
        let mut bytes = Vec::with_capacity(piece.serialized_size());
        piece.serialize_into(&mut bytes).map_err(Error::io("serialise postings for", &self.path))?;
        self.note_moved(key_bytes.len() + bytes.len());
        self.with(|trees| trees.postings.put(&key_bytes, &with_checksum(&bytes)))
    }

    /// Says which blocks a partition has: all of them.
    pub(crate) fn put_blocks(
        &self,
        class: &str,
        partition_start_ms: i64,
        blocks: &[BlockRecord],
    ) -> Result<()> {
        let mut key = class.as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(&sortable(partition_start_ms));
        self.with(|trees| trees.blocks.put(&key, &encode(&blocks)))
    }

    /// Says what rollups a partition of time has: all of them.
    pub(crate) fn put_rollups(&self, unit: &UnitRecord) -> Result<()> {
        let key = unit_key(unit.partition_start_ms);
        self.with(|trees| trees.rollups.put(&key, &encode(unit)))
    }

    pub(crate) fn put_delete(&self, delete: &DeleteRecord) -> Result<()> {
        self.with(|trees| trees.deletes.put(&delete_key(delete), &encode(delete)))
    }

    pub(crate) fn remove_delete(&self, delete: &DeleteRecord) -> Result<()> {
        self.with(|trees| trees.deletes.remove(&delete_key(delete)))
    }

    fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        self.with(|trees| trees.meta.put(CHECKPOINT_KEY, &encode(&checkpoint)))
    }

    /// Makes what was put durable. Where that fails, nothing may depend on the index until it is renewed.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.with(|trees| trees.database.sync());
        if synced.is_err() {
            self.doubtful.store(true, Ordering::Release);
        }
        synced
    }

    /// Moves the checkpoint, durably; everything put before must be durable already.
    pub(crate) fn move_checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        self.put_checkpoint(checkpoint)?;
        self.sync()?;
        *self.checkpoint.lock() = checkpoint;
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        files::bytes_below(&self.path)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T> {
        decode(&self.path, bytes, what)
    }

    fn checked<'a>(&self, bytes: &'a [u8], what: &str) -> Result<&'a [u8]> {
        checked(&self.path, bytes, what)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::damaged(&self.path, what)
    }
}

/// Makes an index database at `path` that says exactly `whole`, durably. What was there is gone then.
pub(crate) fn make_anew(disk: &Disk, path: &Path, store: StoreRecord, whole: &Whole<'_>) -> Result<()> {
    let (new_path, old_path) = (path.with_extension("new"), path.with_extension("old"));
    disk.remove_dir_all(&new_path)?;
    let (index, _) = Index::open(disk, &new_path, store)?;
    let mut postings = Postings::default();
    for (id, labels) in &whole.series {
        index.put_series(*id, labels.iter())?;
        postings.add(*id, labels.iter());
    }
    for key in postings.take_changed().in_order() {
        index.put_postings(&key, &postings.changed_piece(&key))?;
    }
    let mut blocks: BTreeMap<(&str, i64), Vec<BlockRecord>> = BTreeMap::new();
    for record in &whole.blocks {
        let partition = blocks.entry((&record.class, record.partition_start_ms)).or_default();
        partition.push(record.clone());
    }
    blocks.iter().try_for_each(|((class, start_ms), blocks)| index.put_blocks(class, *start_ms, blocks))?;
    whole.deletes.iter().try_for_each(|delete| index.put_delete(delete))?;
    whole.rollups.iter().try_for_each(|unit| index.put_rollups(unit))?;
    index.move_checkpoint(whole.checkpoint)?;
    index.close()?;
    if path.exists() {
        disk.rename(path, &old_path)?;
    }
    disk.rename(&new_path, path)?;
    disk.sync_parent(path)?;
    disk.remove_dir_all(&old_path)
}

/// Brings a renewal that was cut off to an end, or takes it back.
pub(crate) fn finish_renewal(disk: &Disk, path: &Path) -> Result<()> {
    let (new_path, old_path) = (path.with_extension("new"), path.with_extension("old"));
    if !path.exists() && old_path.exists() {
        disk.rename(&old_path, path)?;
        disk.sync_parent(path)?;
    }
    disk.remove_dir_all(&old_path)?;
    disk.remove_dir_all(&new_path)
}

fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8], what: &str) -> Result<T> {
    let body = checked(path, bytes, what)?;
    options().deserialize(body).map_err(|error| Error::damaged(path, format!("{what}: {error}")))
}

/// What stands behind a checksum that fits.
fn checked<'a>(path: &Path, bytes: &'a [u8], what: &str) -> Result<&'a [u8]> {
    let (checksum, body) = bytes.split_first_chunk::<4>().ok_or_else(|| Error::damaged(path, what))?;
    let fits = crc32c::crc32c(body) == u32::from_le_bytes(*checksum);
    fits.then_some(body).ok_or_else(|| Error::damaged(path, what))
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(crate::keyvalue::VALUE_BYTES_MAX as u64)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    with_checksum(&options().serialize(value).expect("records of the index are bounded"))
}

fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut bytes = crc32c::crc32c(body).to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn delete_key(delete: &DeleteRecord) -> Vec<u8> {
    let mut key = delete.seq.to_be_bytes().to_vec();
    key.extend_from_slice(&delete.series.to_be_bytes());
    key
}

fn posting_key(bytes: &[u8]) -> Option<PostingKey> {
    let mut reader = Reader::new(bytes);
    let name_len = usize::try_from(reader.varint()?).ok()?;
    let name = std::str::from_utf8(reader.take(name_len)?).ok()?;
    let (value, upper) = reader.rest().split_last_chunk::<2>()?;
    let value = std::str::from_utf8(value).ok()?;
    Some(PostingKey { name: name.into(), value: value.into(), upper: u16::from_be_bytes(*upper) })
}
