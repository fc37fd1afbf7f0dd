//! Numbers as text in answers of many points, where the machinery of `std::fmt` would take most of the time.

use std::fmt::{Result, Write};

/// The shortest decimal that is read back as the same finite value, never with an exponent, as `Display`
/// of `f64` writes.
pub(super) fn write_f64(value: f64, text: &mut (impl Write + ?Sized)) -> Result {
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value);
    // Of numbers as they mostly are it is known that they have no exponent.
    let is_plain = (1e-4..1e15).contains(&value.abs());
    if !is_plain && (!value.is_finite() || shortest.contains('e')) {
        return write!(text, "{value}");
    }
    text.write_str(shortest.strip_suffix(".0").unwrap_or(shortest))
}

/// An instant in Unix milliseconds as seconds, with a fraction only where it has one; `fraction` says how
/// that is written.
pub(super) fn write_seconds(time_ms: i64, text: &mut (impl Write + ?Sized), fraction: Fraction) -> Result {
    if time_ms < 0 {
        text.write_char('-')?;
    }
    let (seconds, ms) = (time_ms.unsigned_abs() / 1_000, time_ms.unsigned_abs() % 1_000);
    text.write_str(itoa::Buffer::new().format(seconds))?;
    if ms == 0 {
        return Ok(());
    }
    match fraction {
        Fraction::ThreeDigits => write!(text, ".{ms:03}"),
        Fraction::Shortest => {
            let digits = format!("{ms:03}");
            write!(text, ".{}", digits.trim_end_matches('0'))
        }
    }
}

/// How a fraction of a second is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fraction {
    /// As Prometheus does.
    ThreeDigits,
    /// Without zeros at the end.
    Shortest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_read_back_and_as_short_as_display_writes_it(bits in any::<u64>(), decimal in -1_000_000_000i64..1_000_000_000, digits in 0i32..12) {
            let edges = [1e-4, 1e15, 1e-4f64.next_down(), 1e15f64.next_down()];
            for value in [f64::from_bits(bits), decimal as f64 / 10f64.powi(digits), decimal as f64, 0.0, -0.0].into_iter().chain(edges) {
                let mut text = String::new();
                write_f64(value, &mut text).expect("written");
                let display = value.to_string();
                // Between two shortest ones that are as near (…44.2 and …44.3 for …44.25) the two may choose differently.
                prop_assert_eq!(text.len(), display.len(), "{} {}", text, display);
                let read: f64 = text.parse().expect("a number");
                prop_assert!(read.to_bits() == value.to_bits() || value.is_nan() && text == display, "{} {}", text, display);
            }
        }

        #[test]
        fn every_instant_is_read_back(time_ms in -1_i64 << 50..1_i64 << 50) {
            for fraction in [Fraction::ThreeDigits, Fraction::Shortest] {
                let mut text = String::new();
                write_seconds(time_ms, &mut text, fraction).expect("written");
                prop_assert_eq!((text.parse::<f64>().expect("a number") * 1e3).round() as i64, time_ms);
            }
        }
    }
}
