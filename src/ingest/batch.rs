//! Many pushed values in one body: JSON lines, or one JSON array.
//!
//! Each entry is `{"namespace","resource","name","metric","value","timestamp"?,"labels"?}`: the value a
//! quantity, the timestamp whole Unix milliseconds or RFC 3339, the labels an object of texts. The
//! namespace is left out (or null, or empty) for objects of the whole cluster; a namespace itself is
//! `"resource":"namespaces"` with its name. Unknown fields are refused.
//!
//! A bad entry does not hold its neighbours back. An array whose brackets and commas are wrong is
//! refused as a whole: nobody can say where its entries end.

use super::json::{JsonError, array_elements, object_members};
use crate::kubernetes::described::{DescribeError, DescribedObject, describe};
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::quantity::{Quantity, QuantityError};
use crate::kubernetes::resources::{Resource, ResourceError};
use crate::store::Scope;
use crate::text::start_of;
use crate::time::{TimestampError, UnixUnit, parse_timestamp, parse_unix_milliseconds};
use lookback_storage::{Labels, Reject, WriteBatch};
use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// Most entries in one body.
pub const ENTRIES_MAX: usize = 500_000;

/// Most refused entries that an answer lists; the others are only counted.
pub const LISTED_MAX: usize = 1_000;

/// Most members of one entry, or of its labels, that are looked at.
const MEMBERS_MAX: usize = 1_000;

/// A body that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// Nothing in it.
    #[error("the body is empty: send a JSON object a line, or a JSON array of them")]
    Empty,
    /// More entries than [`ENTRIES_MAX`].
    #[error("the body has more than {ENTRIES_MAX} entries: send it in parts")]
    TooMany,
    /// An array that can't be cut into its entries.
    #[error("the body is not a JSON array ({0}), so nothing of it was stored")]
    Array(JsonError),
}

/// Why an entry was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// Not one JSON object.
    #[error("{0}: each entry is one JSON object")]
    Json(#[from] JsonError),
    /// A field that does not exist.
    #[error(
        "unknown field {name:?}: the fields are namespace, resource, name, metric, value, timestamp, labels"
    )]
    UnknownField {
        /// The beginning of its name.
        name: String,
    },
    /// A field given twice.
    #[error("the field {name} is given more than once")]
    RepeatedField {
        /// Its name.
        name: &'static str,
    },
    /// A field left out.
    #[error("the field {name} is missing")]
    MissingField {
        /// Its name.
        name: &'static str,
    },
    /// A field that is not a text.
    #[error("the field {name} must be a JSON string")]
    NotText {
        /// Its name.
        name: &'static str,
    },
    /// Labels that are no object of texts.
    #[error("labels: {message}")]
    Labels {
        /// What is wrong.
        message: String,
    },
    /// The object or its labels can't be used.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The value can't be used.
    #[error("value: {0}")]
    Quantity(#[from] QuantityError),
    /// The time can't be used.
    #[error("timestamp: {0}")]
    Timestamp(#[from] TimestampError),
    /// Outside of what the caller may write.
    #[error("namespace {namespace:?} is outside of what these credentials may use")]
    OutOfScope {
        /// The namespace; empty: none.
        namespace: String,
    },
}

impl EntryError {
    const fn is_not_in_cluster(&self) -> bool {
        matches!(self, Self::Describe(DescribeError::Resource(ResourceError::NotInCluster { .. })))
    }

    /// A short name for counters and answers.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "bad_json",
            Self::UnknownField { .. } => "unknown_field",
            Self::RepeatedField { .. } | Self::MissingField { .. } | Self::NotText { .. } => "bad_field",
            Self::Labels { .. }
            | Self::Describe(DescribeError::Labels(_) | DescribeError::ReservedLabel { .. }) => "bad_labels",
            Self::Describe(_) => "bad_object",
            Self::Quantity(_) => "bad_quantity",
            Self::Timestamp(_) => "bad_timestamp",
            Self::OutOfScope { .. } => "out_of_scope",
        }
    }
}

/// An entry that can be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The object it describes.
    pub object: DescribedObject,
    /// The series it goes to.
    pub labels: Labels,
    /// Its time in Unix milliseconds; `None`: the time of arrival.
    pub timestamp_ms: Option<i64>,
    /// Its value.
    pub value: f64,
}

/// Reads one entry.
///
/// # Errors
/// When it is no entry, or a part of it can't be used.
pub fn parse_entry(resolver: &Resolver, text: &[u8]) -> Result<Entry, EntryError> {
    const FIELDS: [&str; 7] = ["namespace", "resource", "name", "metric", "value", "timestamp", "labels"];
    let mut given: [Option<&[u8]>; FIELDS.len()] = [None; FIELDS.len()];
    for (name, value) in object_members(text, MEMBERS_MAX)? {
        let known = FIELDS.iter().zip(&mut given).find(|(field, _)| **field == name);
        let (field, slot) = known.ok_or_else(|| EntryError::UnknownField { name: start_of(&name) })?;
        if slot.replace(value).is_some() {
            return Err(EntryError::RepeatedField { name: field });
        }
    }
    let [namespace, resource, name, metric, value, timestamp, labels] =
        given.map(|value| value.filter(|value| *value != b"null"));
    let namespace = namespace.map(|value| text_of("namespace", value)).transpose()?;
    let resource = required("resource", resource)?;
    let name = required("name", name)?;
    let metric = required("metric", metric)?;
    let value = value.ok_or(EntryError::MissingField { name: "value" })?;
    let object = describe(resolver, namespace.as_deref().filter(|n| !n.is_empty()), &resource, &name)?;
    let extra = labels.map(parse_labels).transpose()?.unwrap_or_default();
    Ok(Entry {
        labels: object.labels(&metric, &extra)?,
        object,
        timestamp_ms: timestamp.map(parse_time).transpose()?,
        value: Quantity::from_json(value)?.value()?,
    })
}

fn required(name: &'static str, value: Option<&[u8]>) -> Result<String, EntryError> {
    text_of(name, value.ok_or(EntryError::MissingField { name })?)
}

fn text_of(name: &'static str, value: &[u8]) -> Result<String, EntryError> {
    serde_json::from_slice(value).map_err(|_| EntryError::NotText { name })
}

fn parse_time(value: &[u8]) -> Result<i64, EntryError> {
    if value.starts_with(b"\"") {
        return Ok(parse_timestamp(&text_of("timestamp", value)?, UnixUnit::Milliseconds)?);
    }
    Ok(parse_unix_milliseconds(&String::from_utf8_lossy(value))?)
}

fn parse_labels(value: &[u8]) -> Result<Vec<(String, String)>, EntryError> {
    let members = object_members(value, MEMBERS_MAX)
        .map_err(|error| EntryError::Labels { message: error.to_string() })?;
    let text = |(name, value): (std::borrow::Cow<'_, str>, &[u8])| match serde_json::from_slice(value) {
        Ok(value) => Ok((name.into_owned(), value)),
        Err(_) => Err(EntryError::Labels { message: format!("{:?} must be a JSON string", start_of(&name)) }),
    };
    members.into_iter().map(text).collect()
}

/// A refused entry, as the answer tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its line, counted from 1; in an array its place, counted from 1.
    pub line: usize,
    /// A short name of the reason.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchAnswer {
    /// Entries that are now durable.
    pub accepted: usize,
    /// Entries that the store already held.
    pub duplicates: usize,
    /// The first refused entries, by line: at most [`LISTED_MAX`].
    pub rejected: Vec<Refused>,
    /// All refused entries.
    pub rejected_count: usize,
    /// Says that the list is cut short, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A body cut into what can be appended and what can't.
#[derive(Debug, Default)]
pub struct ParsedBatch {
    /// The good entries.
    pub batch: WriteBatch,
    /// The line of each sample of the batch.
    lines: Vec<usize>,
    /// The bad entries, as many as are listed.
    refused: Vec<Refused>,
    /// How many were refused for each reason.
    refused_by_reason: BTreeMap<&'static str, usize>,
    /// Whether an entry names a resource that the cluster does not have, as far as is known.
    pub names_unknown_resources: bool,
    /// The custom resources that good entries describe, and whether their objects lie in namespaces.
    pub custom_resources: BTreeMap<(String, bool), Resource>,
}

impl ParsedBatch {
    /// Cuts a body up, leaving out entries that are bad or outside of `scope`.
    ///
    /// # Errors
    /// When the body is refused as a whole.
    pub fn parse(resolver: &Resolver, body: &[u8], scope: &Scope) -> Result<Self, BatchError> {
        let resolvers = [resolver.clone(), resolver.clone().terse()];
        let mut parsed = Self::default();
        match body.trim_ascii_start().first() {
            None => return Err(BatchError::Empty),
            Some(b'[') => {
                let elements = array_elements(body, ENTRIES_MAX).map_err(|error| match error {
                    JsonError::TooMany { .. } => BatchError::TooMany,
                    JsonError::Expected { .. } => BatchError::Array(error),
                })?;
                for (place, element) in elements.into_iter().enumerate() {
                    parsed.add(&resolvers, place + 1, element, scope);
                }
            }
            Some(_) => {
                let lines = body.split(|byte| *byte == b'\n').enumerate();
                let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
                for (count, (place, line)) in filled.enumerate() {
                    if count == ENTRIES_MAX {
                        return Err(BatchError::TooMany);
                    }
                    parsed.add(&resolvers, place + 1, line, scope);
                }
            }
        }
        Ok(parsed)
    }

    fn add(&mut self, [full, terse]: &[Resolver; 2], line: usize, text: &[u8], scope: &Scope) {
        let in_scope = |entry: Entry| match entry.object.scope_namespace() {
            namespace if scope.allows(namespace) => Ok(entry),
            namespace => Err(EntryError::OutOfScope { namespace: namespace.unwrap_or_default().to_owned() }),
        };
        // What is only counted needs no explanation.
        let resolver = if self.refused.len() < LISTED_MAX { full } else { terse };
        match parse_entry(resolver, text).and_then(in_scope) {
            Ok(entry) => {
                let resource = &entry.object.resource;
                if resource.is_custom() {
                    let key = (resource.group_resource(), entry.object.is_namespaced());
                    self.custom_resources.entry(key).or_insert_with(|| resource.clone());
                }
                self.batch.push(entry.labels, entry.timestamp_ms, entry.value);
                self.lines.push(line);
            }
            Err(error) => {
                self.names_unknown_resources |= error.is_not_in_cluster();
                *self.refused_by_reason.entry(error.reason()).or_default() += 1;
                if self.refused.len() < LISTED_MAX {
                    self.refused.push(Refused { line, reason: error.reason(), message: error.to_string() });
                }
            }
        }
    }

    /// How many entries were refused for each reason, before the store is asked.
    pub fn refused_by_reason(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        self.refused_by_reason.iter().map(|(reason, entries)| (*reason, *entries))
    }

    /// The answer, with what the store says of [`Self::batch`].
    #[must_use]
    pub fn answer(self, accepted: usize, duplicates: usize, rejects: &[(usize, Reject)]) -> BatchAnswer {
        let rejected_count = self.refused_by_reason.values().sum::<usize>() + rejects.len();
        let mut rejected = self.refused;
        rejected.extend(rejects.iter().take(LISTED_MAX).map(|(place, reject)| Refused {
            line: self.lines.get(*place).copied().unwrap_or_default(),
            reason: reject.reason(),
            message: reject.to_string(),
        }));
        rejected.sort_by_key(|refused| refused.line);
        rejected.truncate(LISTED_MAX);
        let note = (rejected_count > rejected.len())
            .then(|| format!("only the first {LISTED_MAX} of {rejected_count} refused entries are listed"));
        BatchAnswer { accepted, duplicates, rejected, rejected_count, note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"namespace":"default","resource":"pods","name":"p1","metric":"rps","value":"300m","timestamp":1795338120000,"labels":{"verb":"GET"}}"#;

    fn parse(body: &str) -> ParsedBatch {
        ParsedBatch::parse(&Resolver::default(), body.as_bytes(), &Scope::All).expect("a batch")
    }

    fn reasons(parsed: ParsedBatch) -> Vec<(usize, &'static str)> {
        parsed.answer(0, 0, &[]).rejected.into_iter().map(|r| (r.line, r.reason)).collect()
    }

    #[test]
    fn entries_are_read() {
        let entry = parse_entry(&Resolver::default(), GOOD.as_bytes()).expect("read");
        assert_eq!(entry.labels.to_string(), r#"rps{namespace="default",pod="p1",verb="GET"}"#);
        assert_eq!((entry.timestamp_ms, entry.value), (Some(1_795_338_120_000), 0.3));
        for (text, labels) in [
            (r#"{"resource":"nodes","name":"n1","metric":"m","value":7}"#, r#"m{node="n1"}"#),
            (
                r#"{"resource":"namespaces","name":"x","metric":"m","value":"1","namespace":null,"labels":null}"#,
                r#"m{namespace="x"}"#,
            ),
            (
                r#"{"namespace":"","resource":"nodes","name":"\u00e4 \"","metric":"m","value":1,"timestamp":"2026-11-22T09:02:00Z"}"#,
                "m{node=\"ä \\\"\"}",
            ),
        ] {
            let entry = parse_entry(&Resolver::default(), text.as_bytes())
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(entry.labels.to_string(), labels);
        }
    }

    #[test]
    fn bad_entries_are_refused_by_reason() {
        let edit = |from: &str, to: &str| GOOD.replace(from, to);
        let many: Vec<String> = (0..10_000).map(|i| format!("\"l{i}\":\"v\"")).collect();
        for (text, reason) in [
            ("{".to_owned(), "bad_json"),
            ("42".to_owned(), "bad_json"),
            (format!("{GOOD} x"), "bad_json"),
            (edit("\"value\"", "\"Value\""), "unknown_field"),
            (edit("\"value\":\"300m\",", ""), "bad_field"),
            (edit("\"value\":\"300m\"", "\"value\":1,\"value\":2"), "bad_field"),
            (edit("\"p1\"", "1"), "bad_field"),
            (edit("\"300m\"", "\"\""), "bad_quantity"),
            (edit("\"300m\"", "{\"Value\":42}"), "bad_quantity"),
            (edit("\"300m\"", "NaN"), "bad_quantity"),
            (edit("\"300m\"", "\"NaN\""), "bad_quantity"),
            (edit("\"300m\"", "1e400"), "bad_quantity"),
            (edit("\"300m\"", "true"), "bad_quantity"),
            (edit("1795338120000", "1.5"), "bad_timestamp"),
            (edit("1795338120000", "\"soon\""), "bad_timestamp"),
            (edit("1795338120000", "[]"), "bad_timestamp"),
            (edit("\"GET\"", "1"), "bad_labels"),
            (edit("{\"verb\":\"GET\"}", "[]"), "bad_labels"),
            (edit("verb", "pod"), "bad_labels"),
            (edit("\"verb\":\"GET\"", "\"a\":\"1\",\"a\":\"2\""), "bad_labels"),
            (edit("\"verb\":\"GET\"", &many.join(",")), "bad_labels"),
            (edit("pods", "podz"), "bad_object"),
            (edit("p1", "*"), "bad_object"),
            (edit("rps", ""), "bad_object"),
        ] {
            let error = parse_entry(&Resolver::default(), text.as_bytes()).expect_err(&text);
            assert_eq!(error.reason(), reason, "{text}: {error}");
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn lines_and_arrays_are_cut_and_bad_entries_named_by_place() {
        let parsed = parse(&format!("\n{GOOD}\r\nnonsense\n\n{GOOD}\n{{}}"));
        assert_eq!((parsed.batch.samples.len(), parsed.lines.clone()), (2, vec![2, 5]));
        assert_eq!(reasons(parsed), [(3, "bad_json"), (6, "bad_field")]);
        let parsed = parse(&format!(" [{GOOD}, 1e400,\n{GOOD}, {{\"x\":1}}] "));
        assert_eq!((parsed.batch.samples.len(), parsed.lines.clone()), (2, vec![1, 3]));
        assert_eq!(reasons(parsed), [(2, "bad_json"), (4, "unknown_field")]);
        assert_eq!(parse("[]").batch.samples.len(), 0);
    }

    #[test]
    fn some_bodies_are_refused_as_a_whole() {
        let error = |body: &str| {
            ParsedBatch::parse(&Resolver::default(), body.as_bytes(), &Scope::All).expect_err("refused")
        };
        assert_eq!(error(" \n "), BatchError::Empty);
        assert!(matches!(error(&format!("[{GOOD}")), BatchError::Array(_)));
        assert!(matches!(error(&format!("[{GOOD}] junk")), BatchError::Array(_)));
        assert_eq!(error(&"1\n".repeat(ENTRIES_MAX + 1)), BatchError::TooMany);
        assert_eq!(error(&format!("[1{}]", ",1".repeat(ENTRIES_MAX))), BatchError::TooMany);
    }

    #[test]
    fn a_long_list_of_refused_entries_is_cut_and_says_so() {
        let mut parsed = parse(&format!("{GOOD}\n{}", "x\n".repeat(LISTED_MAX + 5)));
        parsed.lines = vec![1];
        let reject = Reject::OutOfOrder { timestamp_ms: 1, newest_ms: 2, window_ms: 3 };
        let answer = parsed.answer(0, 0, &[(0, reject)]);
        assert_eq!((answer.rejected.len(), answer.rejected_count), (LISTED_MAX, LISTED_MAX + 6));
        assert_eq!((answer.rejected[0].line, answer.rejected[0].reason), (1, "out_of_order"));
        assert!(answer.note.expect("a note").contains("1006"));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ParsedBatch::parse(&Resolver::default(), &body, &Scope::All);
        }

        #[test]
        fn what_is_written_is_read(
            namespace in "[a-z]{1,9}", name in "[^/%*.\\p{Cc}]{1,9}", metric in "[^/%*.\\p{Cc}]{1,9}",
            value in -1_000_000_i64..1_000_000, timestamp_ms in 0_i64..2_000_000_000_000,
            label in "[^\\x00]{1,9}",
        ) {
            prop_assume!(metric != "lookback_resource_info");
            let text = serde_json::json!({
                "namespace": namespace, "resource": "pods", "name": name, "metric": metric,
                "value": value, "timestamp": timestamp_ms, "labels": {"l": label},
            });
            let entry = parse_entry(&Resolver::default(), text.to_string().as_bytes()).expect("read");
            prop_assert_eq!(entry.value, value as f64);
            prop_assert_eq!(entry.timestamp_ms, Some(timestamp_ms));
            prop_assert_eq!(entry.labels.get("l"), Some(label.as_str()));
            prop_assert_eq!(entry.labels.get("pod"), Some(name.as_str()));
            prop_assert_eq!(entry.labels.metric_name(), metric);
        }
    }
}
