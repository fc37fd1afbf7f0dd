//! OpenMetrics text with timestamps (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Only what carries samples is read: metadata, comments and exemplars are stepped over. A sample needs
//! a timestamp, in seconds. Names outside of the classic alphabet may be quoted within the braces, as
//! Prometheus 3 writes them.

use super::file::{BadLines, FileError, SampleFile, parse_value, read_line};
use super::refusals::Refusals;
use crate::text::start_of;
use crate::time::parse_unix_seconds;
use lookback_storage::{Labels, METRIC_NAME_LABEL, NewSample, WriteBatch};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;
use thiserror::Error;

/// Most labels of a line that are looked at.
const LABELS_READ_MAX: usize = 1_000;

/// Why a line was not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// Something else stands where `expected` should.
    #[error("expected {expected}, found {found:?}")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// The beginning of what is.
        found: String,
    },
    /// A value that is no number, or overflows.
    #[error("{text:?} is not a number")]
    Value {
        /// Its beginning.
        text: String,
    },
    /// A sample without a time.
    #[error("the sample has no timestamp: an import needs one on each")]
    NoTimestamp,
    /// A time that is none.
    #[error("timestamp: {0}")]
    Timestamp(String),
    /// More labels than anyone has.
    #[error("there are more than {LABELS_READ_MAX} labels")]
    TooManyLabels,
}

/// A label as it is written, or with its escapes resolved.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// Nothing that matters here.
    Nothing,
    /// The end of the file.
    Eof,
    /// A sample.
    Sample {
        /// The labels, the metric's name among them.
        labels: Vec<Pair<'a>>,
        /// Unix milliseconds.
        timestamp_ms: i64,
        /// The value.
        value: f64,
    },
}

/// Reads one line, without its end.
///
/// # Errors
/// When it is not OpenMetrics, or a sample without a timestamp.
pub fn parse_line(line: &str) -> Result<Line<'_>, LineError> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line == "# EOF" {
        return Ok(Line::Eof);
    }
    if line.starts_with('#') || line.trim().is_empty() {
        return Ok(Line::Nothing);
    }
    let mut cursor = Cursor(line);
    let mut labels = Vec::new();
    let name = cursor.classic_name();
    if !name.is_empty() {
        labels.push((Cow::Borrowed(METRIC_NAME_LABEL), Cow::Borrowed(name)));
    }
    if cursor.take('{') {
        cursor.labels(&mut labels)?;
    } else if name.is_empty() {
        return Err(cursor.expected("a metric's name"));
    }
    if !cursor.0.starts_with([' ', '\t']) {
        return Err(cursor.expected("a space and a value"));
    }
    let text = cursor.word();
    let value = parse_value(text).ok_or_else(|| LineError::Value { text: start_of(text) })?;
    let time = cursor.word();
    if time.is_empty() || time.starts_with('#') {
        return Err(LineError::NoTimestamp);
    }
    let timestamp_ms = parse_unix_seconds(time)
        .map_err(|_| LineError::Timestamp(format!("{:?} is not a number of Unix seconds", start_of(time))))?;
    let rest = cursor.0.trim_start();
    if !rest.is_empty() && !rest.starts_with("# ") {
        return Err(cursor.expected("the end of the line or an exemplar"));
    }
    Ok(Line::Sample { labels, timestamp_ms, value })
}

/// What is left of a line.
pub(super) struct Cursor<'a>(pub(super) &'a str);

impl<'a> Cursor<'a> {
    pub(super) fn expected(&self, expected: &'static str) -> LineError {
        LineError::Expected { expected, found: start_of(self.0) }
    }

    pub(super) fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    pub(super) fn take(&mut self, character: char) -> bool {
        let rest = self.0.strip_prefix(character);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn split_before(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let (before, rest) = self.0.split_at(self.0.find(stop).unwrap_or(self.0.len()));
        self.0 = rest;
        before
    }

    /// The next word, after spaces; empty at the end.
    pub(super) fn word(&mut self) -> &'a str {
        self.skip_spaces();
        self.split_before(|c| c == ' ' || c == '\t')
    }

    pub(super) fn classic_name(&mut self) -> &'a str {
        if self.0.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.split_before(|c| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
    }

    /// Labels up to and with the closing brace.
    pub(super) fn labels(&mut self, labels: &mut Vec<Pair<'a>>) -> Result<(), LineError> {
        loop {
            self.skip_spaces();
            if self.take('}') {
                return Ok(());
            }
            let quoted = self.0.starts_with('"');
            let name = if quoted { self.quoted()? } else { Cow::Borrowed(self.classic_name()) };
            if name.is_empty() {
                return Err(self.expected("a label's name or the closing brace"));
            }
            self.skip_spaces();
            if self.take('=') {
                self.skip_spaces();
                labels.push((name, self.quoted()?));
            } else if quoted {
                labels.push((Cow::Borrowed(METRIC_NAME_LABEL), name));
            } else {
                return Err(self.expected("an equals sign"));
            }
            if labels.len() > LABELS_READ_MAX {
                return Err(LineError::TooManyLabels);
            }
            self.skip_spaces();
            if !self.take(',') && !self.0.starts_with('}') {
                return Err(self.expected("a comma or the closing brace"));
            }
        }
    }

    /// A text in quotes, with `\\`, `\"` and `\n` resolved; another backslash stands for itself.
    pub(super) fn quoted(&mut self) -> Result<Cow<'a, str>, LineError> {
        if !self.take('"') {
            return Err(self.expected("a text in double quotes"));
        }
        let plain = self.split_before(|c| c == '"' || c == '\\');
        if self.take('"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            if self.take('"') {
                return Ok(Cow::Owned(text));
            }
            if self.take('\\') {
                match self.0.chars().next() {
                    Some('n') => text.push('\n'),
                    Some(c @ ('"' | '\\')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => return Err(self.expected("the end of a text in quotes")),
                }
                let mut rest = self.0.chars();
                rest.next();
                self.0 = rest.as_str();
            }
            text.push_str(self.split_before(|c| c == '"' || c == '\\'));
            if self.0.is_empty() {
                return Err(self.expected("the end of a text in quotes"));
            }
        }
    }
}

/// An OpenMetrics file being read.
pub struct OpenMetricsFile<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    ended: bool,
    labels: Vec<(String, String)>,
    bad_lines: BadLines,
    skipped: Refusals,
}

impl<R: BufRead> OpenMetricsFile<R> {
    /// A file whose series each get `labels` as well.
    pub fn new(input: R, labels: Vec<(String, String)>, bad_lines: BadLines) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            line: 0,
            ended: false,
            labels,
            bad_lines,
            skipped: Refusals::default(),
        }
    }

    fn add_line(
        &mut self,
        batch: &mut WriteBatch,
        places: &mut HashMap<Labels, usize>,
    ) -> Result<(), FileError> {
        let bad = match std::str::from_utf8(&self.buffer).map(parse_line) {
            Err(_) => ("bad_line", "it is not UTF-8".to_owned()),
            Ok(Err(error)) => ("bad_line", error.to_string()),
            Ok(Ok(Line::Nothing)) => return Ok(()),
            Ok(Ok(_)) if self.ended => ("bad_line", "something stands behind # EOF".to_owned()),
            Ok(Ok(Line::Eof)) => {
                self.ended = true;
                return Ok(());
            }
            Ok(Ok(Line::Sample { labels, timestamp_ms, value })) => {
                let extra = self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                let own = labels.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
                match Labels::new(own.chain(extra)) {
                    Ok(labels) => {
                        let series = *places.entry(labels).or_insert_with_key(|labels| {
                            batch.series.push(labels.clone());
                            batch.series.len() - 1
                        });
                        batch.samples.push(NewSample { series, timestamp_ms: Some(timestamp_ms), value });
                        return Ok(());
                    }
                    Err(error) => ("bad_labels", error.to_string()),
                }
            }
        };
        let (reason, message) = bad;
        self.bad_lines.handle(&mut self.skipped, reason, self.line, message)
    }
}

impl<R: BufRead + Send> SampleFile for OpenMetricsFile<R> {
    fn fill(&mut self, batch: &mut WriteBatch, samples_max: usize) -> Result<bool, FileError> {
        let mut places = HashMap::new();
        while batch.samples.len() < samples_max {
            if !read_line(&mut self.input, &mut self.buffer)? {
                if !self.ended {
                    let message = "the file ends without \"# EOF\": it may be cut short".to_owned();
                    self.bad_lines.handle(&mut self.skipped, "no_eof", self.line, message)?;
                }
                return Ok(false);
            }
            self.line += 1;
            self.add_line(batch, &mut places)?;
        }
        Ok(true)
    }

    fn skipped(&self) -> &Refusals {
        &self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(line: &str) -> (String, i64, f64) {
        match parse_line(line) {
            Ok(Line::Sample { labels, timestamp_ms, value }) => {
                (Labels::new(labels).expect("labels").to_string(), timestamp_ms, value)
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn samples_are_read() {
        for (line, labels, ms, value) in [
            ("up 1 1795338120", "up{}", 1_795_338_120_000, 1.0),
            ("up{} 1 1795338120.25", "up{}", 1_795_338_120_250, 1.0),
            (
                r#"a:b_total{c="d",e="f,}\"\\\n\x"} 1e3 1.79533812e9"#,
                r#"a:b_total{c="d",e="f,}\"\\\n\\x"}"#,
                1_795_338_120_000,
                1e3,
            ),
            (r#"h_bucket{le="+Inf"} 5 1 # {trace="x"} 0.5 1"#, r#"h_bucket{le="+Inf"}"#, 1_000, 5.0),
            (
                r#"{"my.metric","k é"="v",} -Inf -1.5"#,
                r#"{"my.metric","k é"="v"}"#,
                -1_500,
                f64::NEG_INFINITY,
            ),
            (r#"m{a = "b" , c="d" }  2   3"#, r#"m{a="b",c="d"}"#, 3_000, 2.0),
        ] {
            assert_eq!(sample(line), (labels.to_owned(), ms, value), "{line}");
        }
        assert!(sample("m NaN 1").2.is_nan());
    }

    #[test]
    fn what_is_no_sample_is_refused_by_kind() {
        for line in ["# HELP a b", "# TYPE a counter", "", "  ", "#"] {
            assert_eq!(parse_line(line), Ok(Line::Nothing), "{line}");
        }
        assert_eq!(parse_line("# EOF"), Ok(Line::Eof));
        for line in ["up 1", "up{} 1 ", "up 1 # {a=\"b\"} 1"] {
            assert_eq!(parse_line(line), Err(LineError::NoTimestamp), "{line}");
        }
        for line in ["m x 1", "m 1e400 1", "m 0x1 1", "m  "] {
            assert!(matches!(parse_line(line), Err(LineError::Value { .. })), "{line}");
        }
        for line in ["m 1 x", "m 1 1e40", "m 1 2026-11-22T09:02:00Z"] {
            assert!(matches!(parse_line(line), Err(LineError::Timestamp(_))), "{line}");
        }
        for line in [
            "1m 1 1",
            "m",
            "m{",
            "m{a",
            "m{a=",
            "m{a=\"",
            "m{a=\"\\",
            "m{a=\"b\"",
            "m{a=\"b\" c=\"d\"} 1 1",
            "m{a=b} 1 1",
            "m{=\"b\"} 1 1",
            "m{}1 1",
            "m 1 1 1",
            "é 1 1",
            "{a} 1 1",
        ] {
            assert!(matches!(parse_line(line), Err(LineError::Expected { .. })), "{line}");
        }
        let many: Vec<String> = (0..10_000).map(|i| format!("l{i}=\"v\"")).collect();
        assert_eq!(parse_line(&format!("m{{{}}} 1 1", many.join(","))), Err(LineError::TooManyLabels));
    }

    fn read(text: &str, bad_lines: BadLines) -> Result<(usize, usize, Refusals), FileError> {
        let labels = vec![("host".to_owned(), "h".to_owned())];
        let mut file = OpenMetricsFile::new(text.as_bytes(), labels, bad_lines);
        let mut batch = WriteBatch::default();
        while file.fill(&mut batch, 1_000)? {}
        Ok((batch.series.len(), batch.samples.len(), file.skipped().clone()))
    }

    #[test]
    fn a_file_is_read_to_its_end_and_bad_lines_named_or_skipped() {
        let good = "# TYPE up gauge\nup 1 1\nup 2 2\nm{a=\"b\"} 3 3\n# EOF\n";
        let (series, samples, skipped) = read(good, BadLines::Stop).expect("read");
        assert_eq!((series, samples, skipped.is_empty()), (2, 3, true));
        for (text, part) in [
            ("up 1 1\nup 2\n# EOF", "line 2: the sample has no timestamp"),
            ("up{host=\"x\"} 1 1\n# EOF", "line 1: label \"host\" is given more than once"),
            ("{a=\"b\"} 1 1\n# EOF", "line 1: the metric has no name"),
            ("up 1 1\n", "without \"# EOF\""),
            ("# EOF\nup 1 1\n", "line 2: something stands behind # EOF"),
        ] {
            let error = read(text, BadLines::Stop).expect_err(text).to_string();
            assert!(error.contains(part), "{part}: {error}");
            let (_, _, skipped) = read(text, BadLines::Skip).expect("read");
            assert_eq!(skipped.total(), 1, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(line in ".{0,60}") {
            let _ = parse_line(&line);
        }

        #[test]
        fn no_near_sample_panics(line in r#"[a-z]{0,2}\{?[a-z"\\=,} 0-9é#.]{0,40}"#) {
            let _ = parse_line(&line);
        }

        #[test]
        fn what_is_written_is_read(
            name in "[a-zA-Z_][a-z0-9_]{0,8}", value in any::<f64>(), ms in 0_i64..2_000_000_000_000,
            labels in proptest::collection::btree_map("[a-z]{1,5}", "[^\\x00]{1,9}", 0..5),
        ) {
            let escape = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let written: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
            let line = format!("{name}{{{}}} {value:?} {}.{:03}", written.join(","), ms / 1000, ms % 1000);
            let Ok(Line::Sample { labels: read, timestamp_ms, value: read_value }) = parse_line(&line) else {
                return Err(TestCaseError::fail(line));
            };
            prop_assert_eq!(timestamp_ms, ms);
            prop_assert!(read_value.to_bits() == value.to_bits() || (value.is_nan() && read_value.is_nan()));
            let read: Vec<(String, String)> =
                read.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(&read[0].1, &name);
            prop_assert_eq!(&read[1..], &labels.into_iter().collect::<Vec<_>>()[..]);
        }
    }
}
