//! The query parameters of a pushed value: its metric labels and its time.

use crate::text::{decode_form, start_of};
use crate::time::{TimestampError, UnixUnit, parse_timestamp};
use thiserror::Error;

/// What a push says besides its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteParams {
    /// Metric labels, as given.
    pub labels: Vec<(String, String)>,
    /// The sample's time in Unix milliseconds; `None`: the time of arrival.
    pub timestamp_ms: Option<i64>,
}

/// A query that can't be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParamsError {
    /// A parameter that does not exist.
    #[error("unknown query parameter {name:?}: a push takes labels and timestamp")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A parameter given twice.
    #[error("the query parameter {name} is given more than once")]
    Repeated {
        /// Its name.
        name: &'static str,
    },
    /// A parameter that is not UTF-8 when its percent signs are resolved.
    #[error("the query is not UTF-8 where it says {part:?}")]
    NotUtf8 {
        /// The part, as sent.
        part: String,
    },
    /// A label that is no `name=value`.
    #[error(
        "the label {part:?} can't be read: write labels=name=value,name2=value2, percent-encoded; values with commas or equals signs go in a batch"
    )]
    Label {
        /// The label's text.
        part: String,
    },
    /// A time that is none.
    #[error("timestamp: {0}")]
    Timestamp(#[from] TimestampError),
}

impl WriteParams {
    /// Reads a query string as it stands in the request (without `?`).
    ///
    /// # Errors
    /// When a parameter is unknown, given twice, or can't be read.
    pub fn parse(query: &str) -> Result<Self, ParamsError> {
        let (mut labels, mut timestamp_ms) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            match name.as_str() {
                "labels" if labels.is_none() => labels = Some(parse_labels(&value)?),
                "labels" => return Err(ParamsError::Repeated { name: "labels" }),
                "timestamp" if timestamp_ms.is_none() => {
                    timestamp_ms = Some(parse_timestamp(&value, UnixUnit::Milliseconds)?);
                }
                "timestamp" => return Err(ParamsError::Repeated { name: "timestamp" }),
                _ => return Err(ParamsError::Unknown { name: start_of(&name) }),
            }
        }
        Ok(Self { labels: labels.unwrap_or_default(), timestamp_ms })
    }
}

/// Reads labels in the syntax of an equality selector: `name=value,name2=value2`, `==` allowed, spaces
/// around the parts dropped.
///
/// # Errors
/// When a part has no equals sign, no name, or more equals signs than one.
pub fn parse_labels(text: &str) -> Result<Vec<(String, String)>, ParamsError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let label = |part: &str| {
        let (name, value) = part.split_once("==").or_else(|| part.split_once('='))?;
        let (name, value) = (name.trim(), value.trim());
        let readable = !name.is_empty() && !name.contains(['=', '!']) && !value.contains('=');
        readable.then(|| (name.to_owned(), value.to_owned()))
    };
    text.split(',')
        .map(|part| label(part).ok_or_else(|| ParamsError::Label { part: start_of(part) }))
        .collect()
}

fn decode(part: &str) -> Result<String, ParamsError> {
    decode_form(part).ok_or_else(|| ParamsError::NotUtf8 { part: start_of(part) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn labels_and_a_time_are_read() {
        let params =
            WriteParams::parse("labels=verb%3DGET%2Ccode%3D200&timestamp=1795338120000").expect("read");
        assert_eq!(params.labels, own(&[("verb", "GET"), ("code", "200")]));
        assert_eq!(params.timestamp_ms, Some(1_795_338_120_000));
        let params =
            WriteParams::parse("timestamp=2026-11-22T09:02:00Z&labels=a=b+c,%C3%A4==%22x%22").expect("read");
        assert_eq!(params.labels, own(&[("a", "b c"), ("ä", "\"x\"")]));
        assert_eq!(params.timestamp_ms, Some(1_795_338_120_000));
        assert_eq!(WriteParams::parse(""), Ok(WriteParams::default()));
        assert_eq!(WriteParams::parse("labels="), Ok(WriteParams::default()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |query: &str| WriteParams::parse(query).expect_err(query).to_string();
        assert!(error("label=a%3Db").contains("\"label\""));
        assert!(error("labels=a%3Db&labels=c%3Dd").contains("more than once"));
        assert!(error("labels=a%3Db%2Cc").contains("\"c\""));
        assert!(error("labels=a!%3Db").contains("\"a!=b\""));
        assert!(error("labels=a%3Db%3Dc").contains("\"a=b=c\""));
        assert!(error("labels=%3Db").contains("\"=b\""));
        assert!(error("labels=a%3D%FF").contains("UTF-8"));
        assert!(error("timestamp=soon").contains("\"soon\""));
        assert!(error("timestamp=").contains("timestamp"));
    }

    proptest! {
        #[test]
        fn no_query_panics(query in ".{0,60}") {
            let _ = WriteParams::parse(&query);
        }

        #[test]
        fn labels_come_through(labels in proptest::collection::vec(("[^,=!\\s]{1,9}", "[^,=\\s]{0,9}"), 0..9)) {
            let text: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let query = format!("labels={}", utf8_percent_encode(&text.join(","), NON_ALPHANUMERIC));
            prop_assert_eq!(WriteParams::parse(&query).map(|p| p.labels), Ok(labels));
        }
    }
}
