//! One group of the log as bytes: a head, then bincode. Specified in FORMAT.md.
//!
//! By its head a group is recognised wherever it stands, and told from all that is not one.
//!
//! bincode is used here and for the records of the index only, behind length limits and checksums.

use super::samples;
use crate::bytes::Reader;
use crate::keyvalue::VALUE_BYTES_MAX;
use crate::sample::Sample;
use bincode::Options;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

const RECORD_VERSION: u8 = 1;
/// Checksum, version, length of the body, the store's identity, number.
pub(super) const HEAD_BYTES: usize = 33;
/// Where in a head the store's identity stands.
pub(super) const WRITER_OFFSET: usize = 9;
/// Where in a head the number stands.
const SEQ_OFFSET: usize = 25;
/// What the body of a record takes beside its samples, mostly.
const RECORD_BYTES_FEW: usize = 16;
/// The number of the marker.
pub(super) const MARKER_SEQ: u64 = u64::MAX;

/// A change of the store that is made durable as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    /// Series met for the first time.
    pub(crate) series: Vec<SeriesDefinition>,
    /// Samples, in the order in which they apply.
    pub(crate) samples: Vec<(u32, Sample)>,
    /// Samples deleted, after the above.
    pub(crate) deletes: Vec<Delete>,
}

/// The number that stands for a label set in this store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeriesDefinition {
    pub(crate) id: u32,
    pub(crate) labels: Vec<(String, String)>,
}

/// A deletion of a series' samples in `[start_ms, end_ms]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delete {
    pub(crate) series: u32,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

/// Bytes that are not a group of this store's log.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum GroupError {
    #[error("its checksum does not fit its bytes")]
    Checksum,
    #[error("it is too short")]
    Truncated,
    #[error("it has version {0}, this program reads {RECORD_VERSION}")]
    Version(u8),
    #[error("it can't be decoded: {0}")]
    Undecodable(String),
    #[error("it belongs to another store ({0})")]
    OtherWriter(Uuid),
    #[error("it says of itself that it is group {0}")]
    OtherNumber(u64),
}

/// The group as written.
#[derive(Serialize, Deserialize)]
struct Record {
    series: Vec<SeriesDefinition>,
    deletes: Vec<Delete>,
    samples: SampleBytes,
}

/// The same, to be written.
#[derive(Serialize)]
struct RecordRef<'a> {
    series: &'a [SeriesDefinition],
    deletes: &'a [Delete],
    samples: SampleBytes,
}

/// Bytes that are written as such, not number by number.
struct SampleBytes(Vec<u8>);

impl Serialize for SampleBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SampleBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self(bytes.to_vec()))
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(VALUE_BYTES_MAX as u64)
}

/// The bytes of a group.
///
/// # Panics
/// When the group is larger than a record may be: the committer bounds it.
pub(crate) fn encode_group(writer: Uuid, seq: u64, group: &Group) -> Vec<u8> {
    let record = RecordRef {
        series: &group.series,
        deletes: &group.deletes,
        samples: SampleBytes(samples::encode(&group.samples)),
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + RECORD_BYTES_FEW + record.samples.0.len());
    bytes.resize(HEAD_BYTES, 0);
    options().serialize_into(&mut bytes, &record).expect("the committer bounds a group");
    put_head(writer, seq, &mut bytes);
    bytes
}

/// A record that says nothing, under a number that no group has: where it is found, a generation's
/// database has been.
pub(super) fn encode_marker(writer: Uuid) -> Vec<u8> {
    with_head(writer, MARKER_SEQ, &[])
}

fn with_head(writer: Uuid, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; HEAD_BYTES], body].concat();
    put_head(writer, seq, &mut bytes);
    bytes
}

/// Fills the head of a record, for which room is left before its body.
fn put_head(writer: Uuid, seq: u64, record: &mut [u8]) {
    let body_bytes = u32::try_from(record.len() - HEAD_BYTES).expect("the committer bounds a group");
    record[4] = RECORD_VERSION;
    record[5..WRITER_OFFSET].copy_from_slice(&body_bytes.to_le_bytes());
    record[WRITER_OFFSET..SEQ_OFFSET].copy_from_slice(writer.as_bytes());
    record[SEQ_OFFSET..HEAD_BYTES].copy_from_slice(&seq.to_le_bytes());
    let checksum = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The number and the length of the record that `bytes` begin with, if they begin with a whole one of
/// this store.
pub(super) fn record_at(writer: Uuid, bytes: &[u8]) -> Option<(u64, usize)> {
    let (head, _) = split_head(bytes).ok().filter(|(head, _)| head.writer == writer)?;
    Some((head.seq, HEAD_BYTES + head.body_bytes))
}

/// The group in `bytes`, which must be number `seq` of the store `writer`.
pub(crate) fn decode_group(writer: Uuid, seq: u64, bytes: &[u8]) -> Result<Group, GroupError> {
    let (head, body) = split_head(bytes)?;
    if HEAD_BYTES + head.body_bytes != bytes.len() {
        return Err(GroupError::Truncated);
    }
    if head.writer != writer {
        return Err(GroupError::OtherWriter(head.writer));
    }
    if head.seq != seq {
        return Err(GroupError::OtherNumber(head.seq));
    }
    let record: Record =
        options().deserialize(body).map_err(|error| GroupError::Undecodable(error.to_string()))?;
    let samples = samples::decode(&record.samples.0);
    let samples = samples.ok_or_else(|| GroupError::Undecodable("its samples".to_owned()))?;
    Ok(Group { samples, series: record.series, deletes: record.deletes })
}

/// Decodes bytes as they are, and as the body of a record whose checksum fits.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let writer = Uuid::from_u128(1);
    let _ = (record_at(writer, bytes), decode_group(writer, 1, bytes));
    let whole = with_head(writer, 1, bytes);
    let _ = (record_at(writer, &whole), decode_group(writer, 1, &whole));
}

/// What stands before the body of a record.
struct Head {
    writer: Uuid,
    seq: u64,
    body_bytes: usize,
}

/// The head and the body of the record that `bytes` begin with, whose checksum fits.
fn split_head(bytes: &[u8]) -> Result<(Head, &[u8]), GroupError> {
    let mut reader = Reader::new(bytes);
    let checksum = reader.u32().ok_or(GroupError::Truncated)?;
    let [version] = reader.array().ok_or(GroupError::Truncated)?;
    let length = reader.u32().ok_or(GroupError::Truncated)?;
    let writer = Uuid::from_bytes(reader.array().ok_or(GroupError::Truncated)?);
    let seq = reader.u64().ok_or(GroupError::Truncated)?;
    let body_bytes = usize::try_from(length).ok().filter(|length| *length <= VALUE_BYTES_MAX);
    let body_bytes = body_bytes.ok_or(GroupError::Truncated)?;
    let body = reader.take(body_bytes).ok_or(GroupError::Truncated)?;
    let covered = bytes.get(4..HEAD_BYTES + body_bytes).ok_or(GroupError::Truncated)?;
    if crc32c::crc32c(covered) != checksum {
        return Err(GroupError::Checksum);
    }
    if version != RECORD_VERSION {
        return Err(GroupError::Version(version));
    }
    Ok((Head { writer, seq, body_bytes }, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITER: Uuid = Uuid::from_u128(1);

    #[test]
    fn every_flip_and_truncation_is_detected() {
        let group = Group {
            series: vec![SeriesDefinition { id: 1, labels: vec![("__name__".into(), "m".into())] }],
            samples: vec![(1, Sample::new(1, 2.0)), (3, Sample::new(2, -1.5))],
            deletes: vec![Delete { series: 1, start_ms: 0, end_ms: 9 }],
        };
        let bytes = encode_group(WRITER, 5, &group);
        assert_eq!(decode_group(WRITER, 5, &bytes), Ok(group));
        assert_eq!(decode_group(WRITER, 6, &bytes), Err(GroupError::OtherNumber(5)));
        for at in 0..bytes.len() {
            assert!(decode_group(WRITER, 5, &bytes[..at]).is_err());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode_group(WRITER, 5, &flipped).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_samples_come_back(rows in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..200)) {
            let samples = rows.iter().map(|(s, t, b)| (*s, Sample::new(*t, f64::from_bits(*b)))).collect();
            let group = Group { samples, ..Group::default() };
            prop_assert_eq!(decode_group(WRITER, 1, &encode_group(WRITER, 1, &group)), Ok(group));
        }

        #[test]
        fn arbitrary_bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = with_head(WRITER, 1, &body);
            let _ = decode_group(WRITER, 1, &bytes);
            let _ = record_at(WRITER, &body);
        }
    }
}
