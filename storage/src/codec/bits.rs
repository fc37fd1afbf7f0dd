//! Numbers of any width in bits, one behind the other, lowest bit first.

/// Appends numbers to bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `width` bits of `number`; at most 64.
    pub(super) fn put(&mut self, number: u64, width: u32) {
        if width == 0 {
            return;
        }
        let number = number & (u64::MAX >> (64 - width));
        self.pending |= number << self.pending_bits;
        let filled = self.pending_bits + width;
        if filled < 64 {
            self.pending_bits = filled;
            return;
        }
        self.bytes.extend_from_slice(&self.pending.to_le_bytes());
        self.pending = number.checked_shr(64 - self.pending_bits).unwrap_or_default();
        self.pending_bits = filled - 64;
    }

    /// The bytes, the last of them filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let left = self.pending_bits.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..left]);
        self.bytes
    }
}

/// Takes numbers off the front of bytes.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at_bit: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at_bit: 0 }
    }

    /// The next `width` bits, at most 64, if there are as many.
    pub(super) fn get(&mut self, width: u32) -> Option<u64> {
        if width == 0 {
            return Some(0);
        }
        let rest = self.bytes.get(self.at_bit / 8..)?;
        let word = match rest.first_chunk::<16>() {
            Some(word) => u128::from_le_bytes(*word),
            None => {
                let mut word = [0; 16];
                word.get_mut(..rest.len())?.copy_from_slice(rest);
                u128::from_le_bytes(word)
            }
        };
        let from = (self.at_bit % 8) as u32;
        self.at_bit += width as usize;
        if self.at_bit > self.bytes.len() * 8 {
            return None;
        }
        Some((word >> from) as u64 & (u64::MAX >> (64 - width)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_any_width_come_back(numbers in proptest::collection::vec((any::<u64>(), 0u32..=64), 0..60)) {
            let mut writer = BitWriter::default();
            for (number, width) in &numbers {
                writer.put(*number, *width);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for (number, width) in numbers {
                let kept = if width == 0 { 0 } else { number & (u64::MAX >> (64 - width)) };
                prop_assert_eq!(reader.get(width), Some(kept));
            }
            prop_assert_eq!(reader.get(8), None);
        }
    }
}
