//! The samples of a group as bytes, a few for each. Specified in FORMAT.md.
//!
//! Each sample is said by how it differs from the one before: senders go through their series in the
//! order in which they first did, at one time, and most values have few decimal digits.

use crate::bytes::{Reader, put_varint};
use crate::codec::{scaled_by, unscaled_by, unzigzag, zigzag};
use crate::sample::Sample;

/// Of a sample's first byte, the lower half: the power of ten by which the value is a whole number…
const EXPONENT_MAX: u8 = 12;
/// … or the value's eight bytes follow.
const RAW: u8 = 15;
/// Its series is not the next after that of the sample before: the difference follows.
const SERIES_FOLLOWS: u8 = 1 << 4;
/// Its time is another than that of the sample before: the difference follows.
const TIME_FOLLOWS: u8 = 1 << 5;
const KNOWN_BITS: u8 = SERIES_FOLLOWS | TIME_FOLLOWS | 0x0f;

/// Most bytes that one sample takes: the first, a series, a time, a value.
#[cfg(test)]
const SAMPLE_BYTES_MAX: usize = 1 + 5 + 10 + 8;

/// Guesses the exponent of a series' values: the one that its last value had. Series share guesses by
/// their number; a wrong guess costs time, never a value.
struct Guesses([u8; 256]);

impl Guesses {
    /// The exponent by which a value is a whole number small enough to be worth it, and the number.
    fn scale(&mut self, series: u32, value: f64) -> Option<(u8, i64)> {
        let guess = &mut self.0[(series & 0xff) as usize];
        if let Some(whole) = scaled_by(value, *guess) {
            return Some((*guess, whole));
        }
        let found = (0..=EXPONENT_MAX).find_map(|exponent| Some((exponent, scaled_by(value, exponent)?)));
        *guess = found.map_or(RAW, |(exponent, _)| exponent);
        found
    }
}

/// The samples as bytes.
pub(super) fn encode(samples: &[(u32, Sample)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * 8);
    let mut guesses = Guesses([0; 256]);
    let (mut expected, mut time) = (0u32, 0i64);
    for (series, sample) in samples {
        let first_at = bytes.len();
        bytes.push(0);
        let mut first = RAW;
        if *series != expected {
            first |= SERIES_FOLLOWS;
            put_varint(&mut bytes, zigzag(i64::from(series.wrapping_sub(expected).cast_signed())));
        }
        if sample.timestamp_ms != time {
            first |= TIME_FOLLOWS;
            put_varint(&mut bytes, zigzag(sample.timestamp_ms.wrapping_sub(time)));
        }
        // From 49 bits on a varint saves nothing.
        match guesses.scale(*series, sample.value).filter(|(_, whole)| zigzag(*whole) < 1 << 49) {
            Some((exponent, whole)) => {
                first = first & !0x0f | exponent;
                put_varint(&mut bytes, zigzag(whole));
            }
            None => bytes.extend_from_slice(&sample.value.to_le_bytes()),
        }
        bytes[first_at] = first;
        (expected, time) = (series.wrapping_add(1), sample.timestamp_ms);
    }
    bytes
}

/// Takes [`encode`] back; `None` if the bytes are not of its making.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<(u32, Sample)>> {
    let mut reader = Reader::new(bytes);
    let mut samples = Vec::with_capacity(bytes.len() / 8);
    let (mut series, mut time) = (0u32, 0i64);
    while !reader.rest().is_empty() {
        let [first] = reader.array()?;
        if first & !KNOWN_BITS != 0 {
            return None;
        }
        if first & SERIES_FOLLOWS != 0 {
            let difference = i32::try_from(unzigzag(reader.varint()?)).ok()?;
            series = series.wrapping_add_signed(difference);
        }
        if first & TIME_FOLLOWS != 0 {
            time = time.wrapping_add(unzigzag(reader.varint()?));
        }
        let value = match first & 0x0f {
            RAW => f64::from_bits(reader.u64()?),
            exponent => unscaled_by(unzigzag(reader.varint()?), exponent)?,
        };
        samples.push((series, Sample::new(time, value)));
        series = series.wrapping_add(1);
    }
    Some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_round_of_a_scrape_takes_few_bytes_a_sample() {
        let value = |i: u32| f64::from(i * 7_919 % 100_000) / [1.0, 1e3, 1e6][(i % 3) as usize];
        let time = |i: u32| 1_794_700_800_000 + i64::from(i / 7 * 311 % 15_000);
        let samples: Vec<_> = (100..1_600).map(|i| (i, Sample::new(time(i), value(i)))).collect();
        let bytes = encode(&samples);
        assert!(bytes.len() < samples.len() * 6, "{} bytes", bytes.len());
        assert_eq!(decode(&bytes), Some(samples));
    }

    proptest! {
        #[test]
        fn any_samples_come_back(rows in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>(), any::<bool>()), 0..200)) {
            let value = |bits: u64, decimal: bool| if decimal { (bits >> 40) as f64 / 1e3 } else { f64::from_bits(bits) };
            let samples: Vec<_> = rows.iter().map(|(s, t, b, d)| (*s, Sample::new(*t, value(*b, *d)))).collect();
            let bytes = encode(&samples);
            prop_assert!(bytes.len() <= samples.len() * SAMPLE_BYTES_MAX);
            prop_assert_eq!(decode(&bytes), Some(samples));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
