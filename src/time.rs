//! Times and durations as people and clients write them, in milliseconds.
//!
//! Numbers are read as decimals, never through a float, so that `1795337086.3` is exactly
//! `1795337086300` ms. Parts of a millisecond are rounded, halves away from zero.

use crate::text::start_of;
use std::time::Duration;
use thiserror::Error;

/// What a bare number means where a time is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixUnit {
    /// Seconds, with a fraction or without one: the range APIs and OpenMetrics.
    Seconds,
    /// Whole milliseconds: `/write-metrics`.
    Milliseconds,
}

/// Text that is no time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TimestampError {
    /// Neither RFC 3339 nor a number of seconds.
    #[error(
        "{text:?} is not a time: use RFC 3339 (2026-11-22T09:02:00Z, an offset and fractions are allowed) or Unix seconds (1795338120, 1795338120.5)"
    )]
    NotSeconds {
        /// Its beginning.
        text: String,
    },
    /// Neither RFC 3339 nor a whole number of milliseconds.
    #[error(
        "{text:?} is not a time: use RFC 3339 (2026-11-22T09:02:00Z, an offset and fractions are allowed) or whole Unix milliseconds (1795338120000)"
    )]
    NotMilliseconds {
        /// Its beginning.
        text: String,
    },
    /// Outside of the years -9999 to 9999.
    #[error("the time {text:?} is outside of the years -9999 to 9999: is its unit right?")]
    OutOfRange {
        /// Its beginning.
        text: String,
    },
}

/// Text that is no duration, or one that is not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not in the syntax of a duration.
    #[error(
        "{text:?} is not a duration: use numbers with the units ms, s, m, h, d, w, y (5m, 1h30m, 1.5h, 7d) or a number of seconds (300)"
    )]
    Syntax {
        /// Its beginning.
        text: String,
    },
    /// Less than a millisecond.
    #[error("the duration {text:?} is zero: it must be at least 1ms")]
    Zero {
        /// Its beginning.
        text: String,
    },
    /// With a minus.
    #[error("the duration {text:?} is negative")]
    Negative {
        /// Its beginning.
        text: String,
    },
    /// More milliseconds than can be counted.
    #[error("the duration {text:?} is longer than {DURATION_YEARS_MAX} years")]
    TooLong {
        /// Its beginning.
        text: String,
    },
}

/// Longest duration, in years of 365 days: two of them still add up without an overflow.
const DURATION_YEARS_MAX: i64 = 20_000;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const WEEK_MS: i64 = 7 * DAY_MS;
const YEAR_MS: i64 = 365 * DAY_MS;

/// The units of a duration and their lengths in milliseconds, the longest first. A year has 365 days,
/// as in Prometheus.
const UNITS: [(&str, i64); 7] = [
    ("y", YEAR_MS),
    ("w", WEEK_MS),
    ("d", DAY_MS),
    ("h", HOUR_MS),
    ("m", MINUTE_MS),
    ("s", SECOND_MS),
    ("ms", 1),
];

/// Whole milliseconds of a duration.
#[must_use]
pub fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A time in Unix milliseconds, of RFC 3339 or a number in `unit`.
///
/// # Errors
/// When it is neither, or lies outside of the years that RFC 3339 libraries can write.
pub fn parse_timestamp(text: &str, unit: UnixUnit) -> Result<i64, TimestampError> {
    let number = match unit {
        UnixUnit::Seconds => parse_unix_seconds(text),
        UnixUnit::Milliseconds => parse_unix_milliseconds(text),
    };
    match number {
        Err(TimestampError::NotSeconds { .. } | TimestampError::NotMilliseconds { .. }) => {
            parse_rfc3339(text).ok_or_else(|| match unit {
                UnixUnit::Seconds => TimestampError::NotSeconds { text: start_of(text) },
                UnixUnit::Milliseconds => TimestampError::NotMilliseconds { text: start_of(text) },
            })
        }
        number => number,
    }
}

/// A time in Unix milliseconds, of a number of seconds: digits with an optional sign, fraction and
/// exponent.
///
/// # Errors
/// When it is none, or out of range.
pub fn parse_unix_seconds(text: &str) -> Result<i64, TimestampError> {
    let decimal = Decimal::parse(text).ok_or_else(|| TimestampError::NotSeconds { text: start_of(text) })?;
    in_range(decimal.times(SECOND_MS), text)
}

/// A time in Unix milliseconds, of a whole number of them.
///
/// # Errors
/// When it is none, or out of range.
pub fn parse_unix_milliseconds(text: &str) -> Result<i64, TimestampError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TimestampError::NotMilliseconds { text: start_of(text) });
    }
    in_range(text.parse().ok(), text)
}

/// A time in Unix milliseconds, of RFC 3339 with `Z` or an offset; `None`: it is no such text.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    // jiff also reads forms that RFC 3339 does not know, such as a time without minutes or a time
    // zone in brackets: they are more often mistakes than meant.
    let plain = |b: u8| b.is_ascii_digit() || b"-+:.TtZz ".contains(&b);
    if text.len() < "2026-11-22T09:02:00Z".len() || !text.bytes().all(plain) {
        return None;
    }
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    round_div(timestamp.as_nanosecond(), 1_000_000).and_then(|ms| i64::try_from(ms).ok())
}

fn in_range(ms: Option<i64>, text: &str) -> Result<i64, TimestampError> {
    let years = jiff::Timestamp::MIN.as_millisecond()..=jiff::Timestamp::MAX.as_millisecond();
    ms.filter(|ms| years.contains(ms)).ok_or_else(|| TimestampError::OutOfRange { text: start_of(text) })
}

/// A duration in milliseconds, at least 1: terms such as `1h30m`, `1.5h`, `7d`, `250ms`, as Prometheus
/// and Go write them, or a number of seconds.
///
/// # Errors
/// When it is none, or zero, negative or too long.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    match parse_duration_or_zero(text)? {
        0 => Err(DurationError::Zero { text: start_of(text) }),
        ms => Ok(ms),
    }
}

/// As [`parse_duration`], and zero is allowed.
///
/// # Errors
/// When it is no duration, or negative or too long.
pub fn parse_duration_or_zero(text: &str) -> Result<i64, DurationError> {
    let syntax = || DurationError::Syntax { text: start_of(text) };
    let too_long = || DurationError::TooLong { text: start_of(text) };
    let bounded = |ms: Option<i64>| ms.filter(|ms| *ms <= DURATION_YEARS_MAX * YEAR_MS).ok_or_else(too_long);
    if let Some(rest) = text.strip_prefix('-') {
        return Err(match parse_duration_or_zero(rest) {
            Ok(_) | Err(DurationError::TooLong { .. }) => DurationError::Negative { text: start_of(text) },
            Err(_) => syntax(),
        });
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text;
    let mut total_ms = 0_i64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let decimal = Decimal::parse(number).ok_or_else(syntax)?;
        if after.is_empty() && number.len() == text.len() {
            return bounded(decimal.times(SECOND_MS));
        }
        let (name, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, unit_ms) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(syntax)?;
        let term_ms = decimal.times(*unit_ms).ok_or_else(too_long)?;
        total_ms = bounded(total_ms.checked_add(term_ms))?;
        rest = after;
    }
    if text.is_empty() { Err(syntax()) } else { Ok(total_ms) }
}

/// A duration in milliseconds as [`parse_duration`] reads it: `1h30m`, `15d`, `250ms`, `0s`.
#[must_use]
pub fn format_duration(duration_ms: i64) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    if duration_ms < 0 {
        text.push('-');
    }
    let mut rest = duration_ms.unsigned_abs();
    for (name, unit_ms) in UNITS {
        let unit_ms = unit_ms.unsigned_abs();
        // Weeks and years are said only where nothing is left over: 15d is clearer than 2w1d.
        if unit_ms > DAY_MS.unsigned_abs() && !rest.is_multiple_of(unit_ms) {
            continue;
        }
        if rest >= unit_ms {
            let _ = write!(text, "{}{name}", rest / unit_ms);
            rest %= unit_ms;
        }
    }
    if duration_ms == 0 {
        text.push_str("0s");
    }
    text
}

/// A decimal number as written: `mantissa · 10^exponent`.
#[derive(Clone, Copy)]
struct Decimal {
    mantissa: i128,
    exponent: i32,
}

impl Decimal {
    /// Digits with an optional sign, fraction and exponent. Digits past the 20th after the first are
    /// dropped when they stand behind the point; before it, they are out of any range anyway.
    fn parse(text: &str) -> Option<Self> {
        const MANTISSA_MAX: i128 = 10_i128.pow(20);
        let (number, mut exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?.clamp(-10_000, 10_000)),
            None => (text, 0),
        };
        let (negative, digits) = match number.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let mut mantissa = 0_i128;
        for digit in whole.bytes() {
            if mantissa < MANTISSA_MAX {
                mantissa = mantissa * 10 + i128::from(digit - b'0');
            } else {
                exponent = exponent.saturating_add(1);
            }
        }
        for digit in fraction.bytes() {
            if mantissa < MANTISSA_MAX {
                mantissa = mantissa * 10 + i128::from(digit - b'0');
                exponent = exponent.saturating_sub(1);
            }
        }
        Some(Self { mantissa: if negative { -mantissa } else { mantissa }, exponent })
    }

    /// This number times `factor`, rounded to a whole one; `None`: too large.
    fn times(self, factor: i64) -> Option<i64> {
        let product = self.mantissa.checked_mul(i128::from(factor))?;
        let power = 10_i128.checked_pow(self.exponent.unsigned_abs());
        let rounded = match (product, self.exponent >= 0, power) {
            (0, _, _) | (_, false, None) => 0,
            (_, true, power) => product.checked_mul(power?)?,
            (_, false, Some(power)) => round_div(product, power)?,
        };
        i64::try_from(rounded).ok()
    }
}

/// Division to the nearest whole number, halves away from zero. `by` is positive.
fn round_div(number: i128, by: i128) -> Option<i128> {
    let half = by.checked_div(2)?;
    let shifted = if number < 0 { number.checked_sub(half)? } else { number.checked_add(half)? };
    shifted.checked_div(by)
}

/// Unix milliseconds as RFC 3339 has them; outside of its years as a number.
#[must_use]
pub fn rfc3339(timestamp_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(timestamp_ms);
    time.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Result<i64, TimestampError> {
        parse_timestamp(text, UnixUnit::Seconds)
    }

    #[test]
    fn times_are_read_in_every_accepted_form() {
        for (text, ms) in [
            ("1795338120", 1_795_338_120_000),
            ("1795338120.5", 1_795_338_120_500),
            ("1795337086.3", 1_795_337_086_300),
            ("1795337086.2999", 1_795_337_086_300),
            ("1.795337086e9", 1_795_337_086_000),
            ("-1.5", -1_500),
            ("0", 0),
            (".0005", 1),
            ("2026-11-22T09:02:00Z", 1_795_338_120_000),
            ("2026-11-22T10:02:00.25+01:00", 1_795_338_120_250),
            ("2026-11-22t09:02:00z", 1_795_338_120_000),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(seconds(text), Ok(ms), "{text}");
        }
        assert_eq!(parse_timestamp("1795338120500", UnixUnit::Milliseconds), Ok(1_795_338_120_500));
        assert_eq!(parse_timestamp("2026-11-22T09:02:00Z", UnixUnit::Milliseconds), Ok(1_795_338_120_000));
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is_accepted() {
        for text in
            ["", "now", "-", ".", "1e", "1.2.3", "12:00", "2026-11-22", "2026-11-22T09:02:00", "NaN", "inf"]
        {
            let error = seconds(text).expect_err(text);
            assert!(matches!(error, TimestampError::NotSeconds { .. }), "{text}: {error}");
            assert!(error.to_string().contains("RFC 3339"), "{error}");
        }
        for text in ["1795338120.5", "1e3", "+1", ""] {
            let error = parse_timestamp(text, UnixUnit::Milliseconds).expect_err(text);
            assert!(matches!(error, TimestampError::NotMilliseconds { .. }), "{text}: {error}");
        }
        for text in ["1e300", "99999999999999999999999999", "1795338120000000", "-1e40"] {
            assert!(matches!(seconds(text), Err(TimestampError::OutOfRange { .. })), "{text}");
        }
        let huge = "9".repeat(100_000);
        assert!(seconds(&huge).expect_err("refused").to_string().len() < 200);
    }

    #[test]
    fn durations_are_read_in_every_accepted_form() {
        for (text, ms) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 7 * DAY_MS),
            ("1w", WEEK_MS),
            ("1y", YEAR_MS),
            ("300", 300_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0.5", 500),
            ("1m0s", 60_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        assert_eq!(parse_duration_or_zero("0"), Ok(0));
        assert_eq!(parse_duration_or_zero("0s"), Ok(0));
    }

    #[test]
    fn bad_durations_are_refused_by_kind() {
        for text in ["", "m", "5x", "5m3", "m5", "1e3", "5 m", "--5m", "1..5h", "-x"] {
            let result = parse_duration(text);
            assert!(matches!(result, Err(DurationError::Syntax { .. })), "{text}: {result:?}");
        }
        assert!(matches!(parse_duration("0"), Err(DurationError::Zero { .. })));
        assert!(matches!(parse_duration("0.1ms"), Err(DurationError::Zero { .. })));
        assert!(matches!(parse_duration("-5m"), Err(DurationError::Negative { .. })));
        for text in ["30000y", "99999999999999999999999999999d", "1000000000000000000ms1000y"] {
            assert!(matches!(parse_duration(text), Err(DurationError::TooLong { .. })), "{text}");
        }
    }

    #[test]
    fn durations_are_written_plainly() {
        for (ms, text) in [
            (300_000, "5m"),
            (15 * DAY_MS, "15d"),
            (14 * DAY_MS, "2w"),
            (YEAR_MS, "1y"),
            (5_400_250, "1h30m250ms"),
            (0, "0s"),
            (-1_000, "-1s"),
        ] {
            assert_eq!(format_duration(ms), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_timestamp(&text, UnixUnit::Seconds);
            let _ = parse_timestamp(&text, UnixUnit::Milliseconds);
            let _ = parse_duration(&text);
        }

        #[test]
        fn no_number_panics(text in "[-+]?[0-9.eE+-]{0,60}[a-z]{0,2}") {
            let _ = parse_timestamp(&text, UnixUnit::Seconds);
            let _ = parse_duration(&text);
        }

        #[test]
        fn a_written_duration_is_read_back(ms in 1_i64..=DURATION_YEARS_MAX * YEAR_MS) {
            prop_assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
        }

        #[test]
        fn a_written_time_is_read_back(ms in -60_000_000_000_000_i64..=200_000_000_000_000) {
            let sign = if ms < 0 { "-" } else { "" };
            let size = ms.unsigned_abs();
            let text = format!("{sign}{}.{:03}", size / 1_000, size % 1_000);
            prop_assert_eq!(seconds(&text), Ok(ms));
            prop_assert_eq!(parse_timestamp(&ms.to_string(), UnixUnit::Milliseconds), Ok(ms));
            if ms >= 0 {
                let written = jiff::Timestamp::from_millisecond(ms).expect("in range").to_string();
                prop_assert_eq!(seconds(&written), Ok(ms));
            }
        }
    }
}
