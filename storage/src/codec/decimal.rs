//! Decimal scaling: values with few digits behind the point as whole numbers.
//!
//! Metrics are mostly written with a few decimal digits, or count things in units. As binary fractions
//! they look random; times a power of ten, and divided by what they have in common, they are small.

use super::{unzigzag, zigzag};
use crate::bytes::{Reader, put_varint};

const POWERS: [f64; 13] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
/// Whole numbers up to here are exact as f64.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Places of values that are not such numbers (NaN, infinite, −0), with their bits.
type Exceptions = Vec<(usize, u64)>;

/// Values as whole numbers: `(base + number × divisor) / 10^exponent`.
#[derive(Debug)]
pub(super) struct Scaled {
    exponent: u8,
    base: i64,
    divisor: u64,
    exceptions: Exceptions,
    pub(super) numbers: Vec<u64>,
}

/// Scales values; `None` if no power of ten gives back the bits of every value, exceptions aside.
pub(super) fn scale(values: &[f64]) -> Option<Scaled> {
    let exponent = find_exponent(values)?;
    let (exponent, wholes, exceptions) =
        (exponent..POWERS.len()).find_map(|e| scale_by(values, e).map(|(w, x)| (e, w, x)))?;
    let base = wholes.iter().copied().min()?;
    let mut divisor = 0;
    for whole in &wholes {
        divisor = greatest_common_divisor(divisor, whole.abs_diff(base));
        if divisor == 1 {
            break;
        }
    }
    let divisor = divisor.max(1);
    let numbers = if divisor == 1 {
        wholes.iter().map(|whole| whole.abs_diff(base)).collect()
    } else {
        wholes.iter().map(|whole| whole.abs_diff(base) / divisor).collect()
    };
    Some(Scaled { exponent: exponent as u8, base, divisor, exceptions, numbers })
}

fn is_exception(value: f64) -> bool {
    !value.is_finite() || (value == 0.0 && value.is_sign_negative())
}

/// The smallest exponent that the values seem to need.
fn find_exponent(values: &[f64]) -> Option<usize> {
    let mut exponent = 0;
    let mut exceptions = 0;
    for value in values {
        if is_exception(*value) {
            exceptions += 1;
            continue;
        }
        while scaled(*value, *POWERS.get(exponent)?).is_none() {
            exponent += 1;
        }
    }
    // A column of mostly NaN is none of ours.
    (exceptions * 8 <= values.len()).then_some(exponent)
}

fn scale_by(values: &[f64], exponent: usize) -> Option<(Vec<i64>, Exceptions)> {
    let power = *POWERS.get(exponent)?;
    let mut wholes = Vec::with_capacity(values.len());
    let mut exceptions = Vec::new();
    // An exception repeats its neighbour, which costs nothing.
    let mut previous = values.iter().find(|v| !is_exception(**v)).and_then(|v| scaled(*v, power))?;
    for (place, value) in values.iter().enumerate() {
        if is_exception(*value) {
            exceptions.push((place, value.to_bits()));
        } else {
            previous = scaled(*value, power)?;
        }
        wholes.push(previous);
    }
    Some((wholes, exceptions))
}

/// `value × power` as a whole number, if it gives back the value, bit for bit.
#[inline]
fn scaled(value: f64, power: f64) -> Option<i64> {
    let whole = (value * power).round_ties_even();
    (whole.abs() <= WHOLE_MAX && (whole / power).to_bits() == value.to_bits()).then_some(whole as i64)
}

/// `value × 10^exponent` as a whole number, if that gives back the value, bit for bit.
pub(crate) fn scaled_by(value: f64, exponent: u8) -> Option<i64> {
    // −0 is no whole number.
    scaled(value, *POWERS.get(usize::from(exponent))?).filter(|whole| *whole != 0 || value.to_bits() == 0)
}

/// Takes [`scaled_by`] back.
pub(crate) fn unscaled_by(whole: i64, exponent: u8) -> Option<f64> {
    Some(whole as f64 / *POWERS.get(usize::from(exponent))?)
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Scaled {
    /// Appends all but the numbers.
    pub(super) fn put_header(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.exponent);
        put_varint(bytes, zigzag(self.base));
        put_varint(bytes, self.divisor);
        put_varint(bytes, self.exceptions.len() as u64);
        let mut next = 0;
        for (place, value_bits) in &self.exceptions {
            put_varint(bytes, (place - next) as u64);
            bytes.extend_from_slice(&value_bits.to_le_bytes());
            next = place + 1;
        }
    }

    /// Takes what [`put_header`](Self::put_header) wrote off the front; the numbers are still to come.
    pub(super) fn read_header(reader: &mut Reader<'_>, count: usize) -> Option<Self> {
        let [exponent] = reader.array()?;
        let base = unzigzag(reader.varint()?);
        let divisor = reader.varint()?;
        let exceptions_count = usize::try_from(reader.varint()?).ok().filter(|n| *n <= count)?;
        let mut exceptions = Vec::with_capacity(exceptions_count);
        let mut next = 0usize;
        for _ in 0..exceptions_count {
            let place = next.checked_add(usize::try_from(reader.varint()?).ok()?)?;
            exceptions.push((place, reader.u64()?));
            next = place.checked_add(1)?;
        }
        Some(Self { exponent, base, divisor, exceptions, numbers: Vec::new() })
    }

    /// The values that the numbers at these places, which rise, stand for.
    pub(super) fn values_at(&self, numbers: &[u64], places: &[usize]) -> Option<Vec<f64>> {
        let power = *POWERS.get(usize::from(self.exponent))?;
        // Damage, wherever it is asked.
        if self.exceptions.last().is_some_and(|(place, _)| *place >= numbers.len()) {
            return None;
        }
        let mut exceptions = self.exceptions.iter().peekable();
        let value = |place: &usize| {
            while exceptions.next_if(|(exception, _)| exception < place).is_some() {}
            match exceptions.next_if(|(exception, _)| exception == place) {
                Some((_, value_bits)) => Some(f64::from_bits(*value_bits)),
                None => Some(self.whole(*numbers.get(*place)?) as f64 / power),
            }
        };
        places.iter().map(value).collect()
    }

    #[inline]
    fn whole(&self, number: u64) -> i64 {
        self.base.wrapping_add((number as i64).wrapping_mul(self.divisor as i64))
    }

    /// The values that these numbers stand for.
    pub(super) fn values(&self, numbers: Vec<u64>) -> Option<Vec<f64>> {
        let power = *POWERS.get(usize::from(self.exponent))?;
        // In place, as numbers of one size are.
        let mut values: Vec<f64> =
            numbers.into_iter().map(|number| self.whole(number) as f64 / power).collect();
        for (place, value_bits) in &self.exceptions {
            *values.get_mut(*place)? = f64::from_bits(*value_bits);
        }
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_values_become_small_numbers() {
        let scaled = scale(&[
            0.25,
            0.5,
            1.0,
            f64::NAN,
            0.75,
            -0.0,
            0.5,
            0.5,
            0.25,
            0.25,
            1.0,
            1.0,
            1.0,
            1.0,
            1.0,
            1.0,
        ])
        .expect("scales");
        assert_eq!((scaled.exponent, scaled.divisor, scaled.exceptions.len()), (2, 25, 2));
        assert_eq!(scaled.numbers[..4], [0, 1, 3, 3]);
        assert!(scale(&[std::f64::consts::PI, 1.0]).is_none());
        assert!(scale(&[1e300, 1.0]).is_none());
    }
}
