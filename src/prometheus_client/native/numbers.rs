//! Numbers of variable length, and rows of them that are steps from one to the next.

use super::NativeError;

/// Longest number, in bytes.
pub(super) const NUMBER_BYTES_MAX: usize = 10;

pub(super) fn ended(rest: &[u8]) -> Result<(), NativeError> {
    if rest.is_empty() { Ok(()) } else { Err(NativeError::Block("it has more numbers than it says")) }
}

/// Appends so many numbers, each a step from the one before.
pub(super) fn plain_steps(mut rest: &[u8], count: usize, into: &mut Vec<i64>) -> Result<(), NativeError> {
    let mut number = into.last().copied().unwrap_or_default();
    for _ in 0..count {
        number = number.wrapping_add(signed(&mut rest)?);
        into.push(number);
    }
    ended(rest)
}

/// Appends so many numbers whose steps change by what stands there.
pub(super) fn steps_of_steps(mut rest: &[u8], count: usize, into: &mut Vec<i64>) -> Result<(), NativeError> {
    let (mut number, mut step) = (into.last().copied().unwrap_or_default(), 0_i64);
    for _ in 0..count {
        step = step.wrapping_add(signed(&mut rest)?);
        number = number.wrapping_add(step);
        into.push(number);
    }
    ended(rest)
}

pub(super) fn unsigned(rest: &mut &[u8]) -> Result<u64, NativeError> {
    // Most steps are short.
    if let [byte @ 0..0x80, after @ ..] = *rest {
        *rest = after;
        return Ok(u64::from(*byte));
    }
    let mut number = 0;
    for at in 0..NUMBER_BYTES_MAX {
        let byte = *rest.get(at).ok_or(NativeError::CutOff)?;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = rest.get(at + 1..).unwrap_or_default();
            return Ok(number);
        }
    }
    Err(NativeError::Block("a number that does not end"))
}

pub(super) fn signed(rest: &mut &[u8]) -> Result<i64, NativeError> {
    let number = unsigned(rest)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}
