//! Times and durations never panic, and a duration is written as one of the same length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::time::{UnixUnit, format_duration, parse_duration_or_zero, parse_timestamp};

fuzz_target!(|text: &str| {
    let _ = parse_timestamp(text, UnixUnit::Seconds);
    let _ = parse_timestamp(text, UnixUnit::Milliseconds);
    if let Ok(duration_ms) = parse_duration_or_zero(text) {
        assert_eq!(parse_duration_or_zero(&format_duration(duration_ms)), Ok(duration_ms));
    }
});
