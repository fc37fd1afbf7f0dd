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

/// A float as a canonical quantity, by its shortest decimal: 0.1 → `100m`. `None` for what must not be
/// written out: NaN, the infinities, and more than an `int64` of millis carries.
#[must_use]
pub fn format_value(value: f64) -> Option<String> {
    Quantity::from_f64(value).map(|quantity| quantity.to_string())
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
        let (amount, times) = strip_factors(self.nanos, 1000, DECIMAL_SUFFIXES.len() - 1);
        match amount {
            0 => f.write_str("0"),
            _ => write!(f, "{amount}{}", DECIMAL_SUFFIXES.get(times).unwrap_or(&"")),
        }
    }
}

/// Suffixes of 1000⁻³ … 1000⁶.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Suffixes of 1024⁰ … 1024⁶.
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLES: &str = include_str!("../../tests/fixtures/kubernetes/quantity-examples.tsv");

    #[test]
    fn every_recorded_example_of_the_go_type_holds() {
        let mut overflowing = 0;
        for line in EXAMPLES.lines().skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let (input, canonical) = (columns[0], columns[1]);
            let parsed = Quantity::parse(input);
            if canonical == "ERROR" {
                assert!(parsed.is_err(), "{input:?} must be refused");
                continue;
            }
            let quantity = parsed.unwrap_or_else(|error| panic!("{input:?}: {error}"));
            // The Go type repeats the text of some whole numbers as it came; leading zeros are no
            // canonical form.
            let canonical = if canonical == "00042" { "42" } else { canonical };
            assert_eq!(quantity.to_string(), canonical, "canonical form of {input:?}");
            match quantity.milli() {
                Some(milli) => {
                    assert_eq!(milli.to_string(), columns[2], "millis of {input:?}");
                    let value = quantity.value().expect("carried");
                    assert_eq!(Quantity::from_f64(value), Some(quantity), "{input:?} as a float");
                }
                None => {
                    // The Go type wraps around here; the recorded millis are nonsense.
                    overflowing += 1;
                    let reason = quantity.value().expect_err("refused").to_string();
                    assert!(reason.contains("too large"), "{input:?}: {reason}");
                }
            }
        }
        assert_eq!(overflowing, 4);
    }

    #[test]
    fn floats_are_written_by_their_shortest_decimal() {
        for (value, canonical) in [
            (0.1, "100m"),
            (0.3, "300m"),
            (5.141_592_65, "5141592650n"),
            (1500.0, "1500"),
            (1000.0, "1k"),
            (1.5, "1500m"),
            (-0.0, "0"),
            (-1.5, "-1500m"),
            (1e-300, "1n"),
            (-1e-10, "-1n"),
            (9.2e15, "9200T"),
        ] {
            assert_eq!(format_value(value).as_deref(), Some(canonical), "{value}");
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.3e15, -1e300, f64::MAX] {
            assert_eq!(format_value(value), None, "{value}");
        }
    }

    #[test]
    fn a_body_is_one_string_or_number_and_nothing_else() {
        let value = |body: &str| Quantity::from_json(body.as_bytes()).and_then(|q| q.value());
        assert_eq!(value("\"42\""), Ok(42.0));
        assert_eq!(value(" 7\n"), Ok(7.0));
        assert_eq!(value("-1.5e3"), Ok(-1500.0));
        assert_eq!(value("\"300m\""), Ok(0.3));
        for (body, word) in [
            ("", "empty"),
            ("\"\"", "empty"),
            ("  ", "empty"),
            ("{\"Value\":42}", "an object"),
            ("[42]", "an array"),
            ("42 junk", "one JSON string or number"),
            ("\"42\"\"43\"", "one JSON string or number"),
            ("\"42", "one JSON string or number"),
            ("1500m", "one JSON string or number"),
            ("NaN", "one JSON string or number"),
            ("null", "one JSON string or number"),
            ("true", "one JSON string or number"),
            ("042", "one JSON string or number"),
            ("1.", "one JSON string or number"),
            ("1e400", "too large"),
            ("\"1e400\"", "too large"),
            ("\"NaN\"", "not a quantity"),
            ("\"Inf\"", "not a quantity"),
            ("\"1kb\"", "not a quantity"),
            ("9007199254740993", "64-bit float"),
            ("1e99999999999", "too large"),
        ] {
            let reason = value(body).expect_err(body).to_string();
            assert!(reason.contains(word), "{body}: {reason}");
        }
        assert!(Quantity::from_json(&[0xff, 0x22]).is_err());
        assert!(Quantity::from_json(&[0x22, 0xff, 0x22]).is_err());
    }

    #[test]
    fn members_of_a_document_are_read_alike() {
        let value = |json: serde_json::Value| Quantity::from_json_value(&json).and_then(|q| q.value());
        assert_eq!(value(serde_json::json!("1500m")), Ok(1.5));
        assert_eq!(value(serde_json::json!(0.1)), Ok(0.1));
        assert!(value(serde_json::json!({"Value": 42})).is_err());
        assert!(value(serde_json::Value::Null).is_err());
    }

    #[test]
    fn digits_that_can_not_be_kept_are_refused_and_small_ones_round_up() {
        assert!(matches!(
            Quantity::parse(&format!("1.{}1", "0".repeat(60))),
            Err(QuantityError::TooPrecise { .. })
        ));
        assert!(matches!(Quantity::parse(&"9".repeat(60)), Err(QuantityError::TooLarge { .. })));
        assert!(matches!(Quantity::parse(&"9".repeat(600)), Err(QuantityError::TooLong { bytes: 600 })));
        assert_eq!(Quantity::parse("1e-99999999999").map(|q| q.to_string()), Ok("1e-9".to_owned()));
        assert_eq!(Quantity::parse("0e99999").map(|q| q.to_string()), Ok("0".to_owned()));
        assert_eq!(Quantity::parse(".").ok(), None);
        assert_eq!(Quantity::parse("+1.").map(|q| q.nanos()), Ok(NANOS));
        assert_eq!(Quantity::parse("1.5Ki").map(|q| q.to_string()), Ok("1536".to_owned()));
        assert_eq!(Quantity::parse("1023.5Ki").map(|q| q.to_string()), Ok("1048064".to_owned()));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(quantity) = Quantity::parse(&text) {
                let _ = quantity.value();
            }
            let _ = Quantity::from_json(&bytes);
        }

        #[test]
        fn no_text_that_looks_like_a_quantity_panics(text in "[-+]?[0-9.]{0,40}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{0,12})?") {
            if let Ok(quantity) = Quantity::parse(&text) {
                prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
                let _ = quantity.value();
            }
        }

        #[test]
        fn the_canonical_form_reads_back_as_the_same_amount(nanos in any::<i128>()) {
            let quantity = Quantity::from_nanos(nanos / 2);
            prop_assert_eq!(Quantity::parse(&quantity.to_string()).map(|q| q.nanos()), Ok(nanos / 2));
        }

        #[test]
        fn a_float_that_is_written_can_be_pushed_again(bits in any::<u64>()) {
            if let Some(text) = format_value(f64::from_bits(bits)) {
                prop_assert!(Quantity::parse(&text).expect("canonical").value().is_ok(), "{}", text);
            }
        }

        #[test]
        fn common_floats_keep_their_nanos(value in -1e6..1e6_f64) {
            let text = format_value(value).expect("carried");
            let back = Quantity::parse(&text).and_then(|q| q.value()).expect("carried");
            prop_assert_eq!(format_value(back), Some(text));
            prop_assert!((back - value).abs() <= 1.1e-9);
        }
    }
}
