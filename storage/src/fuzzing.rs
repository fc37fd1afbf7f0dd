//! The decoders of what is on disk, opened to the fuzz targets. No part of the interface.
//!
//! Where a checksum stands before a decoder, it is made to fit: else nothing would come past it.

use crate::backup::{Manifest, restore_stream};
use crate::block::{Block, BlockRecord, fuzz_index};
use crate::catalog;
use crate::codec::{decode_times, decode_values, decode_values_at};
use crate::disk::Disk;
use crate::index::StoreRecord;
use crate::log;
use crate::rollup;
use std::path::Path;
use uuid::Uuid;

/// A record of the log.
pub fn log_record(bytes: &[u8]) {
    log::fuzz_record(bytes);
}

/// Columns of timestamps and of values.
pub fn codec(bytes: &[u8]) {
    let Some((count, column)) = bytes.split_first_chunk::<2>() else { return };
    let count = usize::from(u16::from_le_bytes(*count)) % (crate::chunk::CHUNK_SAMPLES_MAX + 1);
    if let Some(times) = decode_times(column, count) {
        assert_eq!(times.len(), count);
    }
    let values = decode_values(column, count);
    assert!(values.as_ref().is_none_or(|values| values.len() == count));
    let places: Vec<usize> = (0..count).step_by(3).collect();
    let some = decode_values_at(column, count, &places);
    assert_eq!(some.map(|some| some.len()), values.map(|_| places.len()));
}

/// A block: its index, and, in the directory `dir`, a whole file.
pub fn block(bytes: &[u8], dir: &Path) {
    fuzz_index(bytes);
    let record = BlockRecord { id: 7, class: "default".to_owned(), partition_start_ms: 0, sealed_seq: 9 };
    let path = record.path(dir);
    let _ = Disk::default().create_dir_all(&record.partition_dir(dir));
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let _ = BlockRecord::of_file(dir, &path);
    if let Ok(block) = Block::open(dir, record) {
        block.entries().for_each(|entry| drop(block.read(&entry)));
    }
}

/// A file of the catalogue, or a backup's manifest.
pub fn catalog(bytes: &[u8]) {
    let _ = catalog::decode(bytes);
    let store = StoreRecord { format: crate::FORMAT_VERSION, uuid: Uuid::from_u128(7), partition_ms: 1_000 };
    // One part of these bytes, whose checksum fits, between a head and a foot that do.
    let mut whole = catalog::encode(&store, &[]);
    let head = whole.len() - 16;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), bytes).to_le_bytes();
    let mut footer = b"LBCATEND\x01\0\0\0".to_vec();
    footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
    whole.truncate(head);
    [&length[..], &checksum[..], bytes, &footer[..]].iter().for_each(|part| whole.extend_from_slice(part));
    let _ = catalog::decode(&whole);
    let _ = Manifest::decode(&whole, Path::new("manifest"));
}

/// Rollups: of a series, and, in the directory `dir`, a whole file.
pub fn rollup(bytes: &[u8], dir: &Path) {
    rollup::fuzz(bytes, dir);
}

/// A stream of a backup, restored below the directory `dir`.
pub fn backup_stream(bytes: &[u8], dir: &Path) {
    let to = dir.join("restored");
    let _ = restore_stream(bytes, &to, Uuid::from_u128(1), |_| {});
    let _ = Disk::default().remove_dir_all(&to);
}
