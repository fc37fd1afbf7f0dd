//! One file of the catalogue, or a backup's manifest, as bytes. Specified in FORMAT.md.

use crate::block::BlockRecord;
use crate::bytes::Reader;
use crate::deletes::DeleteRecord;
use crate::index::{Checkpoint, StoreRecord};
use crate::log::SeriesDefinition;
use crate::rollup::UnitRecord;
use bincode::Options;
use serde::{Deserialize, Serialize};
use std::io::Write;
use uuid::Uuid;

const HEADER_MAGIC: [u8; 8] = *b"LBCATLG1";
const FOOTER_MAGIC: [u8; 8] = *b"LBCATEND";
const HEADER_BYTES: usize = 40;
const FOOTER_BYTES: usize = 16;
/// The largest part: one label set of the largest size fits in beside what a part already has.
const PART_BYTES_MAX: usize = 1 << 20;

/// What a file says, part by part; each part has a checksum of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Part {
    /// Label sets by number.
    Series(Vec<SeriesDefinition>),
    /// Deletes that may still apply to a block.
    Deletes(Vec<DeleteRecord>),
    /// Files of a backup.
    Files(Vec<FileEntry>),
    /// How far the log is in the files of a backup.
    Checkpoint(Checkpoint),
    /// Rollups of a backup.
    Rollups(Vec<UnitEntry>),
}

/// The rollups of one partition of time in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitEntry {
    pub(crate) record: UnitRecord,
    /// Of each of its files, in their order: bytes, and the checksum of the whole file.
    pub(crate) files: Vec<(u64, u32)>,
}

/// One block of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) record: BlockRecord,
    pub(crate) bytes: u64,
    /// Of the whole file.
    pub(crate) crc32c: u32,
}

/// What could be read of a file.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Whose it is; `None`: it can't be told, and then nothing else is there either.
    pub(crate) store: Option<StoreRecord>,
    pub(crate) parts: Vec<Part>,
    /// What could not be read.
    pub(crate) damaged: Vec<String>,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(PART_BYTES_MAX as u64)
}

/// The bytes of a file.
///
/// # Panics
/// When a part is larger than it may be: whoever makes them bounds them.
pub(crate) fn encode(store: &StoreRecord, parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(store, parts.iter().cloned(), &mut bytes).expect("a vector takes everything");
    bytes
}

/// Writes a file part by part, so that no more than one of them is in memory.
///
/// # Panics
/// As [`encode`].
pub(crate) fn write(
    store: &StoreRecord,
    parts: impl Iterator<Item = Part>,
    file: &mut impl Write,
) -> std::io::Result<()> {
    let mut bytes = HEADER_MAGIC.to_vec();
    bytes.extend_from_slice(&store.format.to_le_bytes());
    bytes.extend_from_slice(store.uuid.as_bytes());
    bytes.extend_from_slice(&store.partition_ms.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    file.write_all(&bytes)?;
    let mut count = 0u32;
    for part in parts {
        let body = options().serialize(&part).expect("parts are bounded");
        let length = u32::try_from(body.len()).expect("parts are bounded").to_le_bytes();
        file.write_all(&length)?;
        file.write_all(&crc32c::crc32c_append(crc32c::crc32c(&length), &body).to_le_bytes())?;
        file.write_all(&body)?;
        count += 1;
    }
    let mut footer = FOOTER_MAGIC.to_vec();
    footer.extend_from_slice(&count.to_le_bytes());
    footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
    file.write_all(&footer)
}

/// What can be read of a file; a damaged part is left out, the others stand.
pub(crate) fn decode(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let Some((store, body)) = split_header(bytes) else {
        read.damaged.push("its header is broken".to_owned());
        return read;
    };
    if store.format > crate::FORMAT_VERSION {
        read.damaged.push("it was written by a later version".to_owned());
        return read;
    }
    read.store = Some(store);
    let (body, count) = match split_footer(body) {
        Some((body, count)) => (body, Some(count)),
        None => {
            read.damaged.push("its footer is broken, or its end is missing".to_owned());
            (body, None)
        }
    };
    let mut reader = Reader::new(body);
    let mut number = 0;
    while !reader.rest().is_empty() && Some(number) != count {
        let Some((fits, part)) = next_part(&mut reader) else {
            // The length can't be believed: where the next part begins is not known.
            read.damaged.push(format!("it can't be read from part {number} on"));
            return read;
        };
        match fits.then(|| options().deserialize(part).ok()).flatten() {
            Some(part) => read.parts.push(part),
            None => read.damaged.push(format!("part {number} does not fit its checksum")),
        }
        number += 1;
    }
    if count.is_some_and(|count| count != number) || !reader.rest().is_empty() {
        read.damaged.push(format!("it has {number} parts, and says otherwise"));
    }
    read
}

/// The next part, and whether it fits its checksum.
fn next_part<'a>(reader: &mut Reader<'a>) -> Option<(bool, &'a [u8])> {
    let length = reader.u32()?;
    let checksum = reader.u32()?;
    let part = reader.take(usize::try_from(length).ok().filter(|length| *length <= PART_BYTES_MAX)?)?;
    let fits = crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), part) == checksum;
    Some((fits, part))
}

fn split_header(bytes: &[u8]) -> Option<(StoreRecord, &[u8])> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (said, checksum) = header.split_last_chunk::<4>()?;
    let mut reader = Reader::new(said);
    let magic: [u8; 8] = reader.array()?;
    let store = StoreRecord {
        format: reader.u32()?,
        uuid: Uuid::from_bytes(reader.array()?),
        partition_ms: reader.i64()?,
    };
    let whole = magic == HEADER_MAGIC && crc32c::crc32c(said) == u32::from_le_bytes(*checksum);
    whole.then_some((store, body))
}

fn split_footer(body: &[u8]) -> Option<(&[u8], u32)> {
    let (body, footer) = body.split_last_chunk::<FOOTER_BYTES>()?;
    let (said, checksum) = footer.split_last_chunk::<4>()?;
    let mut reader = Reader::new(said);
    let magic: [u8; 8] = reader.array()?;
    let count = reader.u32()?;
    let whole = magic == FOOTER_MAGIC && crc32c::crc32c(said) == u32::from_le_bytes(*checksum);
    whole.then_some((body, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::FileRecord;
    use proptest::prelude::*;

    const STORE: StoreRecord = StoreRecord { format: 1, uuid: Uuid::from_u128(7), partition_ms: 1_000 };

    fn parts() -> Vec<Part> {
        let definition = |id| SeriesDefinition { id, labels: vec![("__name__".into(), format!("m{id}"))] };
        let unit = UnitRecord {
            partition_start_ms: -5,
            sealed_seq: 9,
            delete_seq: 0,
            rules: 1,
            samples_dropped: true,
            files: vec![FileRecord { id: 4, class: "default".into(), window_ms: 10 }],
        };
        let record = BlockRecord { id: 3, class: "default".into(), partition_start_ms: -5, sealed_seq: 9 };
        vec![
            Part::Series(vec![definition(1), definition(2)]),
            Part::Series(vec![definition(3)]),
            Part::Deletes(vec![DeleteRecord { seq: 4, series: 1, start_ms: 0, end_ms: 9 }]),
            Part::Files(vec![FileEntry { record, bytes: 77, crc32c: 5 }]),
            Part::Checkpoint(Checkpoint { next_seq: 5, next_series: 6, next_block: 7 }),
            Part::Rollups(vec![UnitEntry { record: unit, files: vec![(7, 8)] }]),
        ]
    }

    #[test]
    fn every_flip_and_truncation_is_detected_and_the_other_parts_stand() {
        let bytes = encode(&STORE, &parts());
        let read = decode(&bytes);
        assert_eq!((read.store, read.parts, read.damaged.len()), (Some(STORE), parts(), 0));
        for at in 0..bytes.len() {
            let cut = decode(&bytes[..at]);
            assert!(!cut.damaged.is_empty(), "cut at {at}");
            assert!(cut.parts.iter().all(|part| parts().contains(part)));
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let read = decode(&flipped);
                assert!(!read.damaged.is_empty(), "bit {bit} of byte {at}");
                assert!(read.parts.iter().all(|part| parts().contains(part)), "never anything wrong");
                assert!(read.store.is_none_or(|store| store == STORE));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&body);
            let mut bytes = encode(&STORE, &[]);
            bytes.splice(HEADER_BYTES..HEADER_BYTES, body);
            let _ = decode(&bytes);
        }
    }
}
