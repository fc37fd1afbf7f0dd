//! Values of flags: how their texts are read.

use crate::time::parse_duration;
use std::num::NonZeroU32;
use std::time::Duration;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration_ms = parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(duration_ms).map(Duration::from_millis).map_err(|error| error.to_string())
}

/// How often something is done; `None`: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

pub(super) fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    duration(text).map(|every| Interval(Some(every))).map_err(|error| format!("{error}, or off"))
}

/// How many requests a second; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestsPerSecond(pub Option<NonZeroU32>);

pub(super) fn requests_per_second(text: &str) -> Result<RequestsPerSecond, String> {
    if text == "off" {
        return Ok(RequestsPerSecond(None));
    }
    let wrong = |_| "use a whole number from 1, or off".to_owned();
    text.parse().map(|count| RequestsPerSecond(Some(count))).map_err(wrong)
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "use a whole number from 1".to_owned())
}
