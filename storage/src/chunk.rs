//! A sealed chunk: consecutive samples of one series, compressed. The bytes are specified in FORMAT.md.

use crate::bytes::{Reader, put_varint};
use crate::sample::Sample;
use pco::ChunkConfig;
use pco::data_types::Number;
use thiserror::Error;

/// Most samples in one chunk.
pub(crate) const CHUNK_SAMPLES_MAX: usize = 16_384;

/// How a column of numbers is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Codec {
    /// Eight bytes each, little-endian.
    Raw = 0,
    /// Quantile compression by the crate `pco`.
    Pco = 1,
}

/// Bytes that are not a chunk.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ChunkError {
    #[error("the chunk's checksum does not fit its bytes")]
    Checksum,
    #[error("the chunk ends too early")]
    Truncated,
    #[error("the chunk's {0} can't be decoded")]
    Undecodable(&'static str),
}

/// Encodes samples, which must be in time order, one a timestamp, and at most [`CHUNK_SAMPLES_MAX`].
pub(crate) fn encode(samples: &[Sample]) -> Vec<u8> {
    assert!(samples.len() <= CHUNK_SAMPLES_MAX, "{} samples in one chunk", samples.len());
    let timestamps: Vec<i64> = samples.iter().map(|s| s.timestamp_ms).collect();
    let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
    let (time_codec, time_bytes) = encode_column(&timestamps, i64::to_le_bytes);
    let (value_codec, value_bytes) = encode_column(&values, f64::to_le_bytes);
    let mut bytes = Vec::with_capacity(time_bytes.len() + value_bytes.len() + 16);
    bytes.push(time_codec as u8);
    bytes.push(value_codec as u8);
    put_varint(&mut bytes, samples.len() as u64);
    put_varint(&mut bytes, time_bytes.len() as u64);
    bytes.extend_from_slice(&time_bytes);
    bytes.extend_from_slice(&value_bytes);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Decodes what [`encode`] wrote, bit for bit.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Sample>, ChunkError> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(ChunkError::Truncated)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(ChunkError::Checksum);
    }
    let mut reader = Reader::new(body);
    let codecs = reader.take(2).ok_or(ChunkError::Truncated)?;
    let count = reader.varint().ok_or(ChunkError::Truncated)?;
    let count = usize::try_from(count).ok().filter(|c| *c <= CHUNK_SAMPLES_MAX);
    let count = count.ok_or(ChunkError::Undecodable("number of samples"))?;
    let time_len = reader.varint().ok_or(ChunkError::Truncated)?;
    let time_len = usize::try_from(time_len).map_err(|_| ChunkError::Truncated)?;
    let time_bytes = reader.take(time_len).ok_or(ChunkError::Truncated)?;
    let (time_codec, value_codec) = (codecs.first().copied(), codecs.get(1).copied());
    let timestamps = decode_column(time_codec, time_bytes, count, i64::from_le_bytes)
        .ok_or(ChunkError::Undecodable("timestamps"))?;
    let values = decode_column(value_codec, reader.rest(), count, f64::from_le_bytes)
        .ok_or(ChunkError::Undecodable("values"))?;
    Ok(timestamps.into_iter().zip(values).map(|(t, v)| Sample::new(t, v)).collect())
}

fn encode_column<T: Number>(numbers: &[T], to_bytes: fn(T) -> [u8; 8]) -> (Codec, Vec<u8>) {
    let raw_len = numbers.len() * 8;
    match pco::standalone::simple_compress(numbers, &ChunkConfig::default()) {
        Ok(bytes) if bytes.len() < raw_len => (Codec::Pco, bytes),
        _ => (Codec::Raw, numbers.iter().flat_map(|n| to_bytes(*n)).collect()),
    }
}

fn decode_column<T: Number>(
    codec: Option<u8>,
    bytes: &[u8],
    count: usize,
    from_bytes: fn([u8; 8]) -> T,
) -> Option<Vec<T>> {
    let numbers: Vec<T> = if codec == Some(Codec::Raw as u8) {
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        words.iter().map(|word| from_bytes(*word)).collect()
    } else if codec == Some(Codec::Pco as u8) {
        let mut numbers = vec![T::default(); count];
        let progress = pco::standalone::simple_decompress_into(bytes, &mut numbers).ok()?;
        if progress.n_processed != count || !progress.finished {
            return None;
        }
        numbers
    } else {
        return None;
    };
    (numbers.len() == count).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regular(count: i64) -> Vec<Sample> {
        (0..count).map(|i| Sample::new(1_794_700_800_000 + i * 15_000, (i % 7) as f64 * 0.25)).collect()
    }

    #[test]
    fn a_regular_series_takes_little() {
        let bytes = encode(&regular(1_000));
        assert!(bytes.len() < 1_000, "{} bytes", bytes.len());
        assert_eq!(decode(&bytes).expect("decodes"), regular(1_000));
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected() {
        for samples in [regular(50), vec![Sample::new(1, f64::NAN)]] {
            let bytes = encode(&samples);
            for at in 0..bytes.len() {
                assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    assert!(decode(&flipped).is_err(), "bit {bit} of byte {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bits_come_back(mut pairs in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..300)) {
            pairs.sort_unstable();
            let samples: Vec<Sample> = pairs.iter().map(|(t, b)| Sample::new(*t, f64::from_bits(*b))).collect();
            prop_assert_eq!(decode(&encode(&samples)).expect("decodes"), samples);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = body;
            let _ = decode(&bytes);
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            let _ = decode(&bytes);
        }
    }
}
