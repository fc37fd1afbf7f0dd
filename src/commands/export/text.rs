//! A sample as a line of OpenMetrics text.
//!
//! OpenMetrics knows one NaN. What else is one, such as a staleness marker, is written with its bits, as
//! `NaN(0x7ff0000000000002)`, which [`crate::ingest::openmetrics`] reads; or, where other readers are to
//! understand it, as `NaN`, and staleness markers not at all.

use lookback_storage::{Labels, METRIC_NAME_LABEL, Sample};
use std::fmt::Write;

/// The last line of every file.
pub(super) const END: &str = "# EOF\n";

/// The name and the labels of a series, as they stand before each of its samples.
pub(super) fn series(labels: &Labels) -> String {
    let name = labels.metric_name();
    let is_classic = is_classic(name, true);
    let mut text = if is_classic { name.to_owned() } else { String::new() };
    let mut parts = Vec::with_capacity(labels.len());
    if !is_classic {
        parts.push(quoted(name));
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME_LABEL) {
        let name = if is_classic_label(name) { name.to_owned() } else { quoted(name) };
        parts.push(format!("{name}={}", quoted(value)));
    }
    if !parts.is_empty() {
        text.push('{');
        text.push_str(&parts.join(","));
        text.push('}');
    }
    text
}

/// Appends the line of a sample of this series; nothing where `plain` text has no words for it.
pub(super) fn put_sample(text: &mut String, series: &str, sample: Sample, plain: bool) {
    if plain && sample.is_staleness_marker() {
        return;
    }
    text.push_str(series);
    text.push(' ');
    put_value(text, sample.value, plain);
    let ms = sample.timestamp_ms.unsigned_abs();
    let sign = if sample.timestamp_ms < 0 { "-" } else { "" };
    let (seconds, rest) = (ms / 1_000, ms % 1_000);
    // Writing into a text does not fail.
    let _ = if rest == 0 {
        writeln!(text, " {sign}{seconds}")
    } else {
        writeln!(text, " {sign}{seconds}.{rest:03}")
    };
}

fn put_value(text: &mut String, value: f64, plain: bool) {
    let bits = value.to_bits();
    if value.is_nan() {
        text.push_str("NaN");
        if !plain && bits != f64::NAN.to_bits() {
            let _ = write!(text, "(0x{bits:016x})");
        }
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let start = text.len();
        // The shortest digits that give back the bits.
        let _ = write!(text, "{value:?}");
        if text.ends_with(".0") {
            text.truncate(text.len() - 2);
        }
        debug_assert!(text.len() > start);
    }
}

fn is_classic(name: &str, colons: bool) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

fn is_classic_label(name: &str) -> bool {
    is_classic(name, false)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::openmetrics::{Line, parse_line};
    use proptest::prelude::*;

    fn line(labels: &Labels, sample: Sample, plain: bool) -> String {
        let mut text = String::new();
        put_sample(&mut text, &series(labels), sample, plain);
        text
    }

    #[test]
    fn lines_are_openmetrics() {
        let labels = Labels::new([("__name__", "m:x"), ("a", "q\"\\\n")]).expect("valid");
        assert_eq!(line(&labels, Sample::new(-1_500, 1.0), false), "m:x{a=\"q\\\"\\\\\\n\"} 1 -1.500\n");
        let labels = Labels::new([("__name__", "http.rps"), ("k8s.pod", "p")]).expect("valid");
        let infinite = Sample::new(2_000, f64::NEG_INFINITY);
        assert_eq!(line(&labels, infinite, true), "{\"http.rps\",\"k8s.pod\"=\"p\"} -Inf 2\n");
        let stale = Sample::new(0, f64::from_bits(lookback_storage::STALENESS_MARKER_BITS));
        assert_eq!(line(&labels, stale, true), "");
        assert!(line(&labels, stale, false).ends_with("} NaN(0x7ff0000000000002) 0\n"));
    }

    proptest! {
        #[test]
        fn every_sample_comes_back_bit_for_bit(
            name in "\\PC{1,20}", label in "\\PC{1,9}", value in ".{0,20}",
            at_ms in -10_000_000_000_000i64..10_000_000_000_000, bits in any::<u64>(), kind in 0u8..3,
        ) {
            let bits = match kind {
                0 => bits,
                1 => 0x7ff0_0000_0000_0001 | bits >> 12 | bits << 63,
                _ => ((bits % 1_000_000) as f64 / 1_000.0).to_bits(),
            };
            let labels = Labels::new([("__name__", name.as_str()), (label.as_str(), value.as_str())]);
            prop_assume!(labels.is_ok());
            let labels = labels.expect("checked");
            let text = line(&labels, Sample::new(at_ms, f64::from_bits(bits)), false);
            let whole = text.strip_suffix('\n').expect("a line");
            prop_assert!(!whole.contains('\n'));
            let Ok(Line::Sample { labels: read, timestamp_ms, value }) = parse_line(whole) else {
                return Err(TestCaseError::fail(whole.to_owned()));
            };
            let read = Labels::new(read.iter().map(|(n, v)| (n.as_ref(), v.as_ref())));
            prop_assert_eq!(read, Ok(labels));
            prop_assert_eq!((timestamp_ms, value.to_bits()), (at_ms, bits));
        }
    }
}
