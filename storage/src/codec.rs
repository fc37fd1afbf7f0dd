//! Columns of numbers as few bytes as may be. Which codec a column gets is found by trying; the bytes
//! of each are specified in FORMAT.md.
//!
//! invariant: every codec gives back the bits that it was given, whatever they mean, or is not used.

mod bits;
mod decimal;
mod packed;
mod quantile;
mod times;
mod values;
mod xor;

pub(crate) use decimal::{scaled_by, unscaled_by};
pub(crate) use times::{decode_times, encode_times, time_codec_name};
pub(crate) use values::{decode_values, decode_values_at, encode_values, value_codec_name};

/// How much is spent on a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// As little as may be: for samples that are packed in memory as they come.
    Least,
    /// Some ten nanoseconds a number: for samples that are about to be merged.
    Quick,
    /// Several hundred nanoseconds a number: for blocks that stay.
    Thorough,
}

/// A signed number as an unsigned one that is small when it is near zero.
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Takes [`zigzag`] back.
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
