//! Kubernetes quantities: `42`, `1500m`, `1.5Gi`, `1e3`.
//!
//! Parsed and summed as exact decimals in whole nanos; a float is made of one only at the end, and one
//! of a float only by its shortest decimal. What is finer than a nano is rounded away from zero, as
//! the Go type `resource.Quantity` does.
//!
//! invariant: a quantity that [`Quantity::value`] gives away reads back, through [`format_value`], as
//! the same count of millis. Millis are what the autoscaler sees: it reads an `int64` of them, rounded
//! away from zero, and overflows in silence past 9.22e15. So whatever can't be carried that far is
//! refused here, with the reason.

use std::fmt;
use thiserror::Error;

/// Longest quantity that is looked at, in bytes.
pub const QUANTITY_BYTES_MAX: usize = 128;

/// Nanos in one.
const NANOS: i128 = 1_000_000_000;
/// Nanos in one milli.
const NANOS_A_MILLI: i128 = 1_000_000;
/// The last power of ten with a suffix: `E`.
const EXA: i32 = 18;

/// Why a quantity was refused. Each says what to send.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Nothing was sent.
    #[error("the value is empty: send a quantity such as \"42\", \"1500m\" or 7")]
    Empty,
    /// Longer than [`QUANTITY_BYTES_MAX`].
    #[error("a quantity of {bytes} bytes is longer than {QUANTITY_BYTES_MAX}: send fewer digits")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a number with a suffix.
    #[error(
        "{text:?} is not a quantity: send a number such as 42, 0.5 or 1e3, or one with a suffix: {SUFFIX_HELP}"
    )]
    Malformed {
        /// What was sent.
        text: String,
    },
    /// More digits than can be computed with exactly.
    #[error("{text:?} has more digits than can be kept: send at most nine after the point")]
    TooPrecise {
        /// What was sent.
        text: String,
    },
    /// Too large to be computed with, or for the autoscaler.
    #[error("{text:?} is too large: the autoscaler can't read more than 9223372036854775.807 either way")]
    TooLarge {
        /// What was sent.
        text: String,
    },
    /// No float is near enough.
    #[error("{text:?} can't be kept exactly in a 64-bit float (the nearest is {nearest}): send fewer digits")]
    Inexact {
        /// The quantity.
        text: String,
        /// What would be stored.
        nearest: String,
    },
    /// Not one JSON string or number.
    #[error("the body must be one JSON string or number, such as \"42\", \"1500m\" or 7, but it is {found}")]
    NotScalar {
        /// What was sent instead.
        found: String,
    },
}

/// The suffixes, for messages.
const SUFFIX_HELP: &str = "n u m k M G T P E or Ki Mi Gi Ti Pi Ei";

/// How a quantity was written, which decides how its canonical form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `1500m`, `1k`
    DecimalSuffix,
    /// `1536Mi`
    BinarySuffix,
    /// `1e3`
    Exponent,
}

/// An exact decimal in whole nanos. Shows itself in Kubernetes' canonical form.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Two quantities are equal when their amounts are, however written.
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    /// When `text` is not one, or more than can be computed with.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        if text.len() > QUANTITY_BYTES_MAX {
            return Err(QuantityError::TooLong { bytes: text.len() });
        }
        let malformed = || QuantityError::Malformed { text: text.to_owned() };
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let number_bytes = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = unsigned.split_at_checked(number_bytes).ok_or_else(malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(malformed());
        }
        let scale = Scale::of_suffix(suffix).ok_or_else(malformed)?;
        let magnitude = magnitude_nanos(whole, fraction, &scale).map_err(|too| too.of(text))?;
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format: scale.format })
    }

    /// Reads a body that is exactly one JSON string or number.
    ///
    /// # Errors
    /// When it is anything else, or not a quantity.
    pub fn from_json(body: &[u8]) -> Result<Self, QuantityError> {
        let body = body.trim_ascii();
        match body.first() {
            None => Err(QuantityError::Empty),
            Some(b'"') => match serde_json::from_slice::<String>(body) {
                Ok(text) => Self::parse(&text),
                Err(_) => Err(not_scalar(body)),
            },
            Some(_) => match std::str::from_utf8(body) {
                Ok(text) if is_json_number(text) => Self::parse(text),
                _ => Err(not_scalar(body)),
            },
        }
    }

    /// Reads a string or number of a larger JSON document.
    ///
    /// # Errors
    /// When it is anything else, or not a quantity.
    pub fn from_json_value(value: &serde_json::Value) -> Result<Self, QuantityError> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            other => Err(not_scalar(other.to_string().as_bytes())),
        }
    }

    /// The quantity of a float, by its shortest decimal; `None` for NaN, the infinities and what is
    /// more than an `int64` of millis carries.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        if let Some(nanos) = whole_nanos(value) {
            return Some(Self::from_nanos(nanos.into()));
        }
        Self::of_shortest_decimal(value)
    }

    fn of_shortest_decimal(value: f64) -> Option<Self> {
        let quantity = Self::parse(&format!("{value:e}")).ok()?;
        quantity.milli()?;
        Some(Self::from_nanos(quantity.nanos))
    }

    /// A quantity of this many nanos.
    #[must_use]
    pub const fn from_nanos(nanos: i128) -> Self {
        Self { nanos, format: Format::DecimalSuffix }
    }

    /// The exact amount in nanos.
    #[must_use]
    pub const fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Millis, rounded away from zero, as the autoscaler reads them; `None` where an `int64` can't
    /// carry them.
    #[must_use]
    pub fn milli(&self) -> Option<i64> {
        let (quotient, remainder) = (self.nanos / NANOS_A_MILLI, self.nanos % NANOS_A_MILLI);
        let milli = i64::try_from(quotient + remainder.signum()).ok()?;
        (milli != i64::MIN).then_some(milli)
    }

    /// Appends this many nanos in the canonical form, as [`Self::from_nanos`] shows itself.
    pub fn write_nanos(nanos: i128, out: &mut Vec<u8>) {
        let (amount, suffix) = decimal_parts(nanos);
        out.extend_from_slice(itoa::Buffer::new().format(amount).as_bytes());
        out.extend_from_slice(suffix.as_bytes());
    }

    /// The nearest float.
    ///
    /// # Errors
    /// When the autoscaler could not read it, or would read other millis of the float.
    pub fn value(&self) -> Result<f64, QuantityError> {
        let milli = self.milli().ok_or_else(|| QuantityError::TooLarge { text: self.to_string() })?;
        let magnitude = self.nanos.unsigned_abs();
        let (whole, fraction) = (magnitude / NANOS.unsigned_abs(), magnitude % NANOS.unsigned_abs());
        let decimal = format!("{}{whole}.{fraction:09}", if self.nanos < 0 { "-" } else { "" });
        let inexact =
            || QuantityError::Inexact { text: self.to_string(), nearest: "out of reach".to_owned() };
        let value: f64 = decimal.parse().map_err(|_| inexact())?;
        match Self::from_f64(value) {
            Some(back) if back.milli() == Some(milli) => Ok(value),
            _ => Err(QuantityError::Inexact { text: self.to_string(), nearest: value.to_string() }),
        }
    }
}

/// Below this a unit in a float's last place is less than half a nano.
const FINE_BELOW: f64 = 4_194_304.0;

/// The nanos of a float whose shortest decimal has at most nine digits after the point, without writing that
/// decimal; `None` where it has more, or is not below [`FINE_BELOW`] either way.
///
/// A decimal that reads as `value` lies within a unit in the last place around it, so at most one of whole
/// nanos does, and no decimal of as few digits besides. Quotients are rounded correctly, so `nanos / 1e9` tells
/// whether this one does.
fn whole_nanos(value: f64) -> Option<i64> {
    if value.abs() >= FINE_BELOW {
        return None;
    }
    // NaN equals nothing.
    let nanos = (value * 1e9).round();
    #[expect(clippy::cast_possible_truncation, reason = "below 2^22 times 10^9, and whole")]
    (nanos / 1e9 == value).then_some(nanos as i64)
}

/// A float as a canonical quantity, by its shortest decimal: 0.1 → `100m`. `None` for what must not be
/// written out: NaN, the infinities, and more than an `int64` of millis carries.
#[must_use]
pub fn format_value(value: f64) -> Option<String> {
    Quantity::from_f64(value).map(|quantity| quantity.to_string())
}

/// A float in millis, by its shortest decimal, as the autoscaler reads it; it saturates, and NaN is none.
#[must_use]
pub fn saturating_milli(value: f64) -> i64 {
    let beyond = || if value > 0.0 { i64::MAX } else { -i64::MAX };
    let milli = Quantity::from_f64(value).and_then(|quantity| quantity.milli());
    milli.unwrap_or_else(|| if value.is_nan() { 0 } else { beyond() })
}

/// The largest suffix that leaves no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos / NANOS;
        // Small or broken binary amounts are written as decimals, so that nothing is rounded.
        let binary =
            self.format == Format::BinarySuffix && self.nanos % NANOS == 0 && whole.unsigned_abs() >= 1024;
        if binary {
            let (amount, times) = strip_factors(whole, 1024, 6);
            return write!(f, "{amount}{}", BINARY_SUFFIXES.get(times).unwrap_or(&""));
        }
        if self.format == Format::Exponent {
            let (amount, times) = strip_factors(self.nanos, 1000, usize::MAX);
            let exponent = i32::try_from(times).unwrap_or(0) * 3 - 9;
            return match exponent {
                0 => write!(f, "{amount}"),
                _ if amount == 0 => f.write_str("0"),
                _ => write!(f, "{amount}e{exponent}"),
            };
        }
        let (amount, suffix) = decimal_parts(self.nanos);
        write!(f, "{amount}{suffix}")
    }
}

/// Suffixes of 1000⁻³ … 1000⁶.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Suffixes of 1024⁰ … 1024⁶.
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A decimal amount and its suffix.
fn decimal_parts(nanos: i128) -> (i128, &'static str) {
    let times_max = DECIMAL_SUFFIXES.len() - 1;
    let (amount, times) = match i64::try_from(nanos) {
        // Divided in one instruction each.
        Ok(mut amount) => {
            let mut times = 0;
            while amount != 0 && times < times_max && amount % 1000 == 0 {
                amount /= 1000;
                times += 1;
            }
            (amount.into(), times)
        }
        Err(_) => strip_factors(nanos, 1000, times_max),
    };
    match amount {
        0 => (0, ""),
        _ => (amount, DECIMAL_SUFFIXES.get(times).unwrap_or(&"")),
    }
}

/// Divides by `factor` while nothing remains, at most `times_max` times.
fn strip_factors(mut amount: i128, factor: i128, times_max: usize) -> (i128, usize) {
    let mut times = 0;
    while amount != 0 && times < times_max && amount % factor == 0 {
        amount /= factor;
        times += 1;
    }
    (amount, times)
}

/// What a suffix multiplies by: 2^`twos` · 10^`tens`.
struct Scale {
    twos: u32,
    tens: i32,
    format: Format,
}

impl Scale {
    fn of_suffix(suffix: &str) -> Option<Self> {
        if let Some(at) = DECIMAL_SUFFIXES.iter().position(|s| *s == suffix) {
            let tens = i32::try_from(at).ok()? * 3 - 9;
            debug_assert!(tens <= EXA, "the table ends with E");
            return Some(Self { twos: 0, tens, format: Format::DecimalSuffix });
        }
        if let Some(at) = BINARY_SUFFIXES.iter().position(|s| *s == suffix) {
            let twos = u32::try_from(at).ok()? * 10;
            return Some(Self { twos, tens: 0, format: Format::BinarySuffix });
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // Past i32 the exponent is merely huge: the amount is refused or rounded all the same.
        let huge = if exponent.starts_with('-') { i32::MIN } else { i32::MAX };
        Some(Self { twos: 0, tens: exponent.parse().unwrap_or(huge), format: Format::Exponent })
    }
}

/// Which bound an amount broke.
enum Beyond {
    Digits,
    Size,
}

impl Beyond {
    fn of(self, text: &str) -> QuantityError {
        match self {
            Self::Digits => QuantityError::TooPrecise { text: text.to_owned() },
            Self::Size => QuantityError::TooLarge { text: text.to_owned() },
        }
    }
}

/// `whole.fraction` times the scale, in nanos rounded up.
fn magnitude_nanos(whole: &str, fraction: &str, scale: &Scale) -> Result<i128, Beyond> {
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = u128::from(digit.wrapping_sub(b'0'));
        mantissa = mantissa
            .checked_mul(10)
            .and_then(|m| m.checked_add(digit))
            .ok_or(if fraction.is_empty() { Beyond::Size } else { Beyond::Digits })?;
    }
    if mantissa == 0 {
        return Ok(0);
    }
    let scaled = mantissa.checked_mul(1_u128 << scale.twos).ok_or(Beyond::Digits)?;
    let fraction_digits = i64::try_from(fraction.len()).map_err(|_| Beyond::Digits)?;
    let tens = i64::from(scale.tens) + 9 - fraction_digits;
    let power = u32::try_from(tens.unsigned_abs()).ok().and_then(|tens| 10_u128.checked_pow(tens));
    let nanos = match (tens >= 0, power) {
        (true, Some(power)) => scaled.checked_mul(power).ok_or(Beyond::Size)?,
        (true, None) => return Err(Beyond::Size),
        (false, Some(power)) => scaled.div_ceil(power),
        // Less than one nano, whatever the digits: u128 holds fewer of them than such a power.
        (false, None) => 1,
    };
    i128::try_from(nanos).map_err(|_| Beyond::Size)
}

/// Whether `text` is a number as JSON writes it, and nothing else.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

fn not_scalar(body: &[u8]) -> QuantityError {
    let start: String = String::from_utf8_lossy(body).chars().take(40).collect();
    let found = match body.first() {
        Some(b'{') => format!("an object: {start}"),
        Some(b'[') => format!("an array: {start}"),
        _ => format!("{start:?}"),
    };
    QuantityError::NotScalar { found }
}

#[cfg(test)]
mod tests;
