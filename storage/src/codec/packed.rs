//! Frame of reference: blocks of 64 numbers, each as its distance from the smallest, all of one width.

use super::bits::{BitReader, BitWriter};
use crate::bytes::{Reader, put_varint};

const BLOCK: usize = 64;

/// Appends the numbers.
pub(super) fn encode(numbers: &[u64], bytes: &mut Vec<u8>) {
    for block in numbers.chunks(BLOCK) {
        let (min, width) = frame(block);
        bytes.push(width as u8);
        put_varint(bytes, min);
        let mut writer = BitWriter::default();
        block.iter().for_each(|number| writer.put(number - min, width));
        bytes.extend_from_slice(&writer.finish());
    }
}

/// How many bytes [`encode`] would append, give or take the varints.
pub(super) fn size(numbers: &[u64]) -> usize {
    numbers.chunks(BLOCK).map(|block| 3 + block.len() * frame(block).1 as usize / 8).sum()
}

fn frame(block: &[u64]) -> (u64, u32) {
    let (min, max) = block.iter().fold((u64::MAX, 0), |(min, max), n| (min.min(*n), max.max(*n)));
    (min, u64::BITS - max.saturating_sub(min).leading_zeros())
}

/// Takes `count` numbers off the front.
pub(super) fn decode(reader: &mut Reader<'_>, count: usize) -> Option<Vec<u64>> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let of_block = BLOCK.min(count - numbers.len());
        let [width] = reader.array()?;
        let width = u32::from(width);
        if width > u64::BITS {
            return None;
        }
        let min = reader.varint()?;
        let packed = reader.take((of_block * width as usize).div_ceil(8))?;
        match width {
            0 => numbers.resize(numbers.len() + of_block, min),
            1..=NARROW_MAX => unpack_narrow(packed, of_block, width, min, &mut numbers)?,
            _ => {
                let mut bits = BitReader::new(packed);
                for _ in 0..of_block {
                    numbers.push(min.wrapping_add(bits.get(width)?));
                }
            }
        }
    }
    Some(numbers)
}

/// Numbers of up to so many bits lie within eight bytes, wherever the first of them begins.
const NARROW_MAX: u32 = 57;

/// Unpacks a block of narrow numbers, eight bytes at a time.
fn unpack_narrow(packed: &[u8], count: usize, width: u32, min: u64, numbers: &mut Vec<u64>) -> Option<()> {
    // Eight bytes more than a block can have, so that the last number is read like the others.
    let mut bytes = [0u8; BLOCK * 8 + 8];
    bytes.get_mut(..packed.len())?.copy_from_slice(packed);
    let mask = u64::MAX >> (u64::BITS - width);
    for place in 0..count {
        let at_bit = place * width as usize;
        let word = u64::from_le_bytes(*bytes.get(at_bit / 8..)?.first_chunk()?);
        numbers.push(min.wrapping_add(word >> (at_bit % 8) & mask));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_numbers_come_back(numbers in proptest::collection::vec(any::<u64>(), 0..200), shift in 0u32..64) {
            let numbers: Vec<u64> = numbers.iter().map(|n| n >> shift).collect();
            let mut bytes = Vec::new();
            encode(&numbers, &mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(decode(&mut reader, numbers.len()), Some(numbers));
            prop_assert!(reader.rest().is_empty());
        }
    }
}
