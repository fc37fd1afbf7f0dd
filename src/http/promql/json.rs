//! Pieces of JSON as Prometheus writes them.

use crate::http::decimal::{self, Fraction};
use crate::http::json::push_string;
use crate::query::promql::SeriesLabels;
use lookback_storage::Sample;
use std::fmt::{self, Write};

/// Texts from so large or so small a value on are written with an exponent.
const PLAIN_MAX: f64 = 1e21;
const PLAIN_MIN: f64 = 1e-6;

/// Room for the labels of most series.
const LABELS_BYTES: usize = 512;

pub(super) fn write_string(text: &str, json: &mut impl Write) -> fmt::Result {
    let mut string = String::with_capacity(text.len() + 2);
    push_string(text, &mut string);
    json.write_str(&string)
}

/// A list of what `write` makes of each.
pub(super) fn write_list<T, W: Write>(
    all: impl IntoIterator<Item = T>,
    json: &mut W,
    mut write: impl FnMut(T, &mut W) -> fmt::Result,
) -> fmt::Result {
    json.write_char('[')?;
    for (place, one) in all.into_iter().enumerate() {
        if place > 0 {
            json.write_char(',')?;
        }
        write(one, json)?;
    }
    json.write_char(']')
}

pub(super) fn write_labels<'l>(
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    json: &mut impl Write,
) -> fmt::Result {
    // In one piece, and from within the iterator: an answer of hundreds of series has thousands of labels.
    let mut text = String::with_capacity(LABELS_BYTES);
    text.push('{');
    labels.for_each(|(name, value)| {
        if text.len() > 1 {
            text.push(',');
        }
        push_string(name, &mut text);
        text.push(':');
        push_string(value, &mut text);
    });
    text.push('}');
    json.write_str(&text)
}

pub(super) fn write_metric(labels: &SeriesLabels, json: &mut impl Write) -> fmt::Result {
    json.write_str("\"metric\":")?;
    write_labels(labels.iter(), json)
}

/// `[1795338120.5,"0.25"]`
pub(super) fn write_sample(sample: Sample, json: &mut impl Write) -> fmt::Result {
    json.write_char('[')?;
    write_seconds(sample.timestamp_ms, json)?;
    json.write_str(",\"")?;
    write_value(sample.value, json)?;
    json.write_str("\"]")
}

/// Unix seconds, with milliseconds where there are any.
pub(super) fn write_seconds(time_ms: i64, json: &mut impl Write) -> fmt::Result {
    decimal::write_seconds(time_ms, json, Fraction::ThreeDigits)
}

/// The shortest decimal that is read back as the same value.
pub(super) fn write_value(value: f64, json: &mut impl Write) -> fmt::Result {
    if value.is_nan() {
        return json.write_str("NaN");
    }
    if value.is_infinite() {
        return json.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    if value == 0.0 || (PLAIN_MIN..PLAIN_MAX).contains(&value.abs()) {
        return decimal::write_f64(value, json);
    }
    // Go's exponents have a sign and two digits at least.
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    write!(json, "{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_and_times_look_as_in_prometheus() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e-7, "1e-07"),
            (1.5e300, "1.5e+300"),
            (1e21, "1e+21"),
            (123_456_789.5, "123456789.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut written = String::new();
            write_value(value, &mut written).expect("written");
            assert_eq!(written, text);
        }
        for (time_ms, text) in [(1_500, "1.500"), (-1_005, "-1.005"), (2_000, "2")] {
            let mut written = String::new();
            write_seconds(time_ms, &mut written).expect("written");
            assert_eq!(written, text);
        }
    }

    proptest! {
        #[test]
        fn every_value_is_read_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let mut written = String::new();
            write_value(value, &mut written).expect("written");
            prop_assert_eq!(written.replace("Inf", "inf").parse::<f64>().expect("a number").to_bits(), bits);
        }
    }
}
