//! The XOR chunks of Prometheus' engine, as remote read sends them.
//!
//! The layout is specified in `tsdb/docs/format/chunks.md` of Prometheus: a count of samples (two bytes, big-endian),
//! then a stream of bits: the first sample plain, of the second the time since the first, of the others the
//! change of that time (prefixes 0, 10, 110, 1110, 1111 for 0, 14, 17, 20, 64 bits); values by XOR with the one
//! before, as in Gorilla (Pelkonen et al., VLDB 2015).

use lookback_storage::Sample;
use thiserror::Error;

/// A chunk that ends too early, or is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a chunk ends within a sample, or is none")]
pub struct XorError;

/// Hands out the samples of a chunk.
pub(super) fn decode(chunk: &[u8], mut each: impl FnMut(Sample)) -> Result<(), XorError> {
    let (count, stream) = chunk.split_first_chunk::<2>().ok_or(XorError)?;
    let mut bits = Bits { bytes: stream, buffer: 0, valid: 0 };
    let mut values = Values::default();
    let (mut time_ms, mut delta_ms) = (0_i64, 0_i64);
    for at in 0..u16::from_be_bytes(*count) {
        match at {
            0 => {
                time_ms = zigzag(bits.uvarint()?);
                values.bits = bits.take(64)?;
            }
            1 => {
                delta_ms = bits.uvarint()?.cast_signed();
                time_ms = time_ms.wrapping_add(delta_ms);
                values.read(&mut bits)?;
            }
            _ => {
                delta_ms = delta_ms.wrapping_add(change(&mut bits)?);
                time_ms = time_ms.wrapping_add(delta_ms);
                values.read(&mut bits)?;
            }
        }
        each(Sample::new(time_ms, f64::from_bits(values.bits)));
    }
    Ok(())
}

fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// By how much the time between two samples changed.
fn change(bits: &mut Bits<'_>) -> Result<i64, XorError> {
    let width = match bits.ones(4)? {
        0 => return Ok(0),
        1 => 14,
        2 => 17,
        3 => 20,
        _ => return Ok(bits.take(64)?.cast_signed()),
    };
    let raw = bits.take(width)?.cast_signed();
    // The upper half stands for what is negative.
    Ok(if raw > 1 << (width - 1) { raw - (1 << width) } else { raw })
}

#[derive(Default)]
struct Values {
    bits: u64,
    /// How many of the bits that differ are in the window, and how many zeros are behind it.
    significant: u32,
    trailing: u32,
}

impl Values {
    fn read(&mut self, bits: &mut Bits<'_>) -> Result<(), XorError> {
        match bits.ones(2)? {
            0 => return Ok(()),
            1 => {}
            _ => {
                let (leading, significant) = (bits.take(5)? as u32, bits.take(6)? as u32);
                // 64 does not fit six bits, and none would be no difference.
                self.significant = if significant == 0 { 64 } else { significant };
                self.trailing = 64_u32.checked_sub(leading + self.significant).ok_or(XorError)?;
            }
        }
        if self.significant > 0 {
            self.bits ^= bits.take(self.significant)? << self.trailing;
        }
        Ok(())
    }
}

/// Bits, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    buffer: u64,
    valid: u32,
}

impl Bits<'_> {
    /// The next `count` bits, 1 to 64.
    #[inline]
    fn take(&mut self, count: u32) -> Result<u64, XorError> {
        if count > 56 {
            let high = self.take(count - 32)?;
            return Ok(high << 32 | self.take(32)?);
        }
        while self.valid < count {
            let (byte, rest) = self.bytes.split_first().ok_or(XorError)?;
            self.buffer = self.buffer << 8 | u64::from(*byte);
            self.valid += 8;
            self.bytes = rest;
        }
        self.valid -= count;
        Ok(self.buffer >> self.valid & ((1 << count) - 1))
    }

    /// How many ones come before the next zero, which is taken too; at most `max`.
    #[inline]
    fn ones(&mut self, max: u32) -> Result<u32, XorError> {
        for ones in 0..max {
            if self.take(1)? == 0 {
                return Ok(ones);
            }
        }
        Ok(max)
    }

    fn uvarint(&mut self) -> Result<u64, XorError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(8)?;
            number |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(XorError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes bits, for the encoder that stands against the decoder.
    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        used: u32,
    }

    impl Writer {
        fn put(&mut self, value: u64, count: u32) {
            for at in (0..count).rev() {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                let last = self.bytes.last_mut().expect("pushed");
                *last |= ((value >> at & 1) as u8) << (7 - self.used % 8);
                self.used += 1;
            }
        }

        fn uvarint(&mut self, mut value: u64) {
            while value >= 0x80 {
                self.put(value & 0x7f | 0x80, 8);
                value >>= 7;
            }
            self.put(value, 8);
        }
    }

    /// As `tsdb/docs/format/chunks.md` has it, always with a window of its own.
    fn encode(samples: &[Sample]) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut delta = 0_i64;
        for (at, sample) in samples.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| samples[before]);
            let since = before.map(|before| sample.timestamp_ms.wrapping_sub(before.timestamp_ms));
            match at {
                0 => {
                    let zigzag = (sample.timestamp_ms << 1) ^ (sample.timestamp_ms >> 63);
                    writer.uvarint(zigzag.cast_unsigned());
                    writer.put(sample.value.to_bits(), 64);
                    continue;
                }
                1 => writer.uvarint(since.expect("one before").cast_unsigned()),
                _ => {
                    let change = since.expect("one before").wrapping_sub(delta);
                    let (prefix, length, width) = match change {
                        0 => (0, 1, 0),
                        -8_191..=8_192 => (0b10, 2, 14),
                        -65_535..=65_536 => (0b110, 3, 17),
                        -524_287..=524_288 => (0b1110, 4, 20),
                        _ => (0b1111, 4, 64),
                    };
                    writer.put(prefix, length);
                    if width > 0 {
                        writer.put(change.cast_unsigned(), width);
                    }
                }
            }
            delta = since.expect("one before");
            let differs = before.expect("one before").value.to_bits() ^ sample.value.to_bits();
            if differs == 0 {
                writer.put(0, 1);
            } else {
                let (leading, trailing) = (differs.leading_zeros().min(31), differs.trailing_zeros());
                let significant = 64 - leading - trailing;
                writer.put(0b11, 2);
                writer.put(u64::from(leading), 5);
                writer.put(u64::from(significant % 64), 6);
                writer.put(differs >> trailing, significant);
            }
        }
        let count = u16::try_from(samples.len()).expect("few");
        [&count.to_be_bytes()[..], &writer.bytes].concat()
    }

    fn decoded(chunk: &[u8]) -> Result<Vec<Sample>, XorError> {
        let mut samples = Vec::new();
        decode(chunk, |sample| samples.push(sample)).map(|()| samples)
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back_bit_for_bit(
            start in -1_i64 << 40..1 << 50,
            steps in proptest::collection::vec((prop_oneof![0..20_i64, 14_990..15_010_i64, 0..1_000_000_i64], any::<u64>(), any::<bool>()), 1..150),
        ) {
            let (mut at, mut bits, mut samples) = (start, 0, Vec::new());
            for (step, next, changes) in steps {
                at += step;
                bits = if changes { next } else { bits };
                samples.push(Sample::new(at, f64::from_bits(bits)));
            }
            prop_assert_eq!(decoded(&encode(&samples)), Ok(samples));
        }

        #[test]
        fn what_is_cut_short_is_refused(cut in 0..24_usize) {
            let samples: Vec<_> = (0..3).map(|i| Sample::new(i * i * 1_000, i as f64 * 0.1)).collect();
            let chunk = encode(&samples);
            prop_assert_eq!(decoded(&chunk[..cut.min(chunk.len() - 2)]), Err(XorError));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decoded(&bytes);
        }
    }
}
