//! A sealed chunk: consecutive samples of one series, as a column of timestamps and a column of values.
//! Each column is followed by its checksum. The bytes are specified in FORMAT.md.
//!
//! Series that are scraped together have the same timestamps: a block keeps such a column once.

use crate::codec::{self, Effort};
use crate::each::Steps;
use crate::sample::Sample;
use thiserror::Error;

/// Most samples in one chunk.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 16_384;

/// Bytes that are not a chunk.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ChunkError {
    #[error("the checksum of the chunk's {0} does not fit their bytes")]
    Checksum(&'static str),
    #[error("the chunk's {0} end too early")]
    Truncated(&'static str),
    #[error("the chunk's {0} can't be decoded")]
    Undecodable(&'static str),
}

const TIMES: &str = "timestamps";
const VALUES: &str = "values";

/// The column of timestamps of a chunk.
pub(crate) fn encode_times(times: &[i64], effort: Effort) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    codec::encode_times(times, effort, &mut bytes);
    with_checksum(bytes)
}

/// The column of values of a chunk.
pub(crate) fn encode_values(values: &[f64], effort: Effort) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * 2 + 16);
    codec::encode_values(values, effort, &mut bytes);
    with_checksum(bytes)
}

/// The `count` samples of two columns, bit for bit.
#[cfg(test)]
pub(crate) fn decode(times: &[u8], values: &[u8], count: usize) -> Result<Vec<Sample>, ChunkError> {
    let mut samples = Vec::new();
    decode_into(times, values, count, (i64::MIN, i64::MAX), None, &mut samples)?;
    Ok(samples)
}

/// Appends those of the `count` samples of two columns that lie in `[start_ms, end_ms]`; with `steps` the newest at each
/// of them, and the last.
pub(crate) fn decode_into(
    times: &[u8],
    values: &[u8],
    count: usize,
    (start_ms, end_ms): (i64, i64),
    steps: Option<Steps>,
    samples: &mut Vec<Sample>,
) -> Result<(), ChunkError> {
    if count > CHUNK_SAMPLES_MAX {
        return Err(ChunkError::Undecodable("number of samples"));
    }
    let times = codec::decode_times(checked(times, TIMES)?, count).ok_or(ChunkError::Undecodable(TIMES))?;
    let values = checked(values, VALUES)?;
    let undecodable = || ChunkError::Undecodable(VALUES);
    let from = times.partition_point(|time_ms| *time_ms < start_ms);
    let to = times.partition_point(|time_ms| *time_ms <= end_ms).max(from);
    let within = times.get(from..to).unwrap_or_default();
    if let Some(steps) = steps {
        let places = steps.newest(within);
        let all: Vec<usize> = places.iter().map(|place| from + place).collect();
        let values = codec::decode_values_at(values, count, &all).ok_or_else(undecodable)?;
        let times = places.iter().filter_map(|place| within.get(*place));
        samples.extend(times.zip(values).map(|(time_ms, value)| Sample::new(*time_ms, value)));
        return Ok(());
    }
    let values = codec::decode_values(values, count).ok_or_else(undecodable)?;
    let within = within.iter().zip(values.get(from..to).unwrap_or_default());
    samples.extend(within.map(|(time_ms, value)| Sample::new(*time_ms, *value)));
    Ok(())
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn checked<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], ChunkError> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(ChunkError::Truncated(what))?;
    let fits = crc32c::crc32c(body) == u32::from_le_bytes(*checksum);
    fits.then_some(body).ok_or(ChunkError::Checksum(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(samples: &[Sample], effort: Effort) -> (Vec<u8>, Vec<u8>) {
        let times: Vec<i64> = samples.iter().map(|s| s.timestamp_ms).collect();
        let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
        (encode_times(&times, effort), encode_values(&values, effort))
    }

    fn regular(count: i64) -> Vec<Sample> {
        (0..count).map(|i| Sample::new(1_794_700_800_000 + i * 15_000, (i % 7) as f64 * 0.25)).collect()
    }

    #[test]
    fn a_regular_series_takes_little() {
        let (times, values) = columns(&regular(1_000), Effort::Quick);
        assert!(times.len() + values.len() < 600, "{} + {} bytes", times.len(), values.len());
        assert_eq!(decode(&times, &values, 1_000).expect("decodes"), regular(1_000));
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected() {
        for samples in [regular(50), vec![Sample::new(1, f64::NAN)]] {
            let (times, values) = columns(&samples, Effort::Thorough);
            let broken = |bytes: &[u8]| {
                let cuts = (0..bytes.len()).map(|at| bytes[..at].to_vec());
                let flips = (0..bytes.len() * 8).map(|bit| {
                    let mut flipped = bytes.to_vec();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    flipped
                });
                cuts.chain(flips).collect::<Vec<_>>()
            };
            for times in broken(&times) {
                assert!(decode(&times, &values, samples.len()).is_err());
            }
            for values in broken(&values) {
                assert!(decode(&times, &values, samples.len()).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bits_come_back(mut pairs in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..300)) {
            pairs.sort_unstable();
            let samples: Vec<Sample> = pairs.iter().map(|(t, b)| Sample::new(*t, f64::from_bits(*b))).collect();
            for effort in [Effort::Quick, Effort::Thorough] {
                let (times, values) = columns(&samples, effort);
                prop_assert_eq!(decode(&times, &values, samples.len()).expect("decodes"), samples.clone());
            }
        }
    }
}
