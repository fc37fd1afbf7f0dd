//! XOR of neighbours: for columns that are too short, or too random, for anything else.
//!
//! The idea is that of Gorilla (Pelkonen and others, VLDB 2015); the layout is our own, and put down in
//! FORMAT.md.

use super::bits::{BitReader, BitWriter};

/// The values as bytes.
pub(super) fn encode(values: &[f64]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    let mut previous = 0u64;
    let (mut shift, mut width) = (0, 0);
    for (place, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let difference = bits ^ previous;
        previous = bits;
        if place == 0 {
            writer.put(bits, 64);
        } else if difference == 0 {
            writer.put(0, 1);
        } else {
            let (low, high) = (difference.trailing_zeros(), difference.leading_zeros());
            let fits = width > 0 && low >= shift && 64 - high <= shift + width;
            // A frame much wider than the difference is worth replacing.
            if fits && width < 64 - high - low + 13 {
                writer.put(0b01, 2);
            } else {
                (shift, width) = (low, 64 - high - low);
                writer.put(0b11, 2);
                writer.put(u64::from(shift), 6);
                writer.put(u64::from(width - 1), 6);
            }
            writer.put(difference >> shift, width);
        }
    }
    writer.finish()
}

/// `count` values.
pub(super) fn decode(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let mut reader = BitReader::new(bytes);
    let mut values = Vec::with_capacity(count);
    let mut bits = 0u64;
    let (mut shift, mut width) = (0, 0);
    for place in 0..count {
        if place == 0 {
            bits = reader.get(64)?;
        } else if reader.get(1)? == 1 {
            if reader.get(1)? == 1 {
                shift = reader.get(6)? as u32;
                width = reader.get(6)? as u32 + 1;
            }
            bits ^= reader.get(width)?.checked_shl(shift)?;
        }
        values.push(f64::from_bits(bits));
    }
    Some(values)
}
