//! What applications expose: the Prometheus text format 0.0.4 and OpenMetrics text 1.0, pushed or scraped.
//!
//! The formats are <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. They differ in what a timestamp is
//! (milliseconds, seconds) and in the `# EOF` that ends OpenMetrics. A sample without a timestamp is of
//! the time of arrival. Types, helps and units are remembered; exemplars are counted and ignored.

use super::file::parse_value;
use super::intake::{Intake, IntakeError};
use super::openmetrics::{Cursor, LineError, Pair};
use crate::metadata::MetricType;
use crate::text::start_of;
use crate::time::parse_unix_seconds;
use lookback_storage::METRIC_NAME_LABEL;
use std::borrow::Cow;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// Prometheus text 0.0.4.
    #[default]
    Text,
    /// OpenMetrics text 1.0.
    OpenMetrics,
}

impl Syntax {
    /// As a `Content-Type` says; anything but OpenMetrics is taken for text.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// Nothing.
    Nothing,
    /// That it is the last.
    Eof,
    /// Something about a metric.
    About(Cow<'a, str>, About<'a>),
    /// A sample.
    Sample {
        /// The labels, the metric's name among them.
        labels: Vec<Pair<'a>>,
        /// Unix milliseconds, where the line says them.
        timestamp_ms: Option<i64>,
        /// The value.
        value: f64,
        /// Whether an exemplar stands behind it.
        exemplar: bool,
    },
}

/// What is said of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// Its type.
    Type(MetricType),
    /// Its help, with its escapes.
    Help(&'a str),
    /// Its unit.
    Unit(&'a str),
}

/// Reads one line, without its end.
///
/// # Errors
/// When it is not of this format.
pub fn parse_line(line: &str, syntax: Syntax) -> Result<Line<'_>, LineError> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let line = if syntax == Syntax::Text { line.trim_start_matches([' ', '\t']) } else { line };
    if line == "# EOF" && syntax == Syntax::OpenMetrics {
        return Ok(Line::Eof);
    }
    if let Some(comment) = line.strip_prefix('#') {
        return parse_comment(comment);
    }
    if line.trim().is_empty() {
        return Ok(Line::Nothing);
    }
    parse_sample(line, syntax)
}

fn parse_comment(comment: &str) -> Result<Line<'_>, LineError> {
    let mut cursor = Cursor(comment);
    let what = cursor.word();
    if !matches!(what, "HELP" | "TYPE" | "UNIT") {
        return Ok(Line::Nothing);
    }
    cursor.skip_spaces();
    let metric = if cursor.0.starts_with('"') { cursor.quoted()? } else { Cow::Borrowed(cursor.word()) };
    if metric.is_empty() {
        return Err(cursor.expected("a metric's name"));
    }
    let rest = cursor.0.trim_start_matches([' ', '\t']);
    Ok(Line::About(
        metric,
        match what {
            "HELP" => About::Help(rest),
            "UNIT" => About::Unit(rest),
            _ => match MetricType::of_word(rest.trim_end()) {
                Some(kind) => About::Type(kind),
                None => return Err(Cursor(rest).expected("a metric's type")),
            },
        },
    ))
}

fn parse_sample(line: &str, syntax: Syntax) -> Result<Line<'_>, LineError> {
    let mut cursor = Cursor(line);
    let mut labels = Vec::new();
    let name = cursor.classic_name();
    if !name.is_empty() {
        labels.push((Cow::Borrowed(METRIC_NAME_LABEL), Cow::Borrowed(name)));
    }
    let behind_name = cursor.0;
    if syntax == Syntax::Text {
        cursor.skip_spaces();
    }
    let braces = cursor.take('{');
    if braces {
        cursor.labels(&mut labels)?;
    } else if name.is_empty() {
        return Err(cursor.expected("a metric's name"));
    } else {
        cursor.0 = behind_name;
    }
    let may_touch = braces && syntax == Syntax::Text;
    if !may_touch && !cursor.0.starts_with([' ', '\t']) {
        return Err(cursor.expected("a space and a value"));
    }
    let text = cursor.word();
    let value = parse_value(text).ok_or_else(|| LineError::Value { text: start_of(text) })?;
    cursor.skip_spaces();
    let has_time = !cursor.0.is_empty() && !cursor.0.starts_with('#');
    let timestamp_ms = has_time.then(|| parse_time(cursor.word(), syntax)).transpose()?;
    let rest = cursor.0.trim_start();
    let exemplar = syntax == Syntax::OpenMetrics && rest.starts_with("# ");
    if !rest.is_empty() && !exemplar {
        return Err(Cursor(rest).expected("the end of the line"));
    }
    Ok(Line::Sample { labels, timestamp_ms, value, exemplar })
}

fn parse_time(text: &str, syntax: Syntax) -> Result<i64, LineError> {
    let start = || start_of(text);
    match syntax {
        Syntax::Text => text.parse().map_err(|_| {
            LineError::Timestamp(format!("{:?} is not a whole number of Unix milliseconds", start()))
        }),
        Syntax::OpenMetrics => parse_unix_seconds(text)
            .map_err(|_| LineError::Timestamp(format!("{:?} is not a number of Unix seconds", start()))),
    }
}

/// What becomes of the labels of samples where others are given from outside.
#[derive(Clone, Copy, Debug)]
pub enum Outer<'o> {
    /// They replace the samples' own.
    Wins(&'o [(String, String)]),
    /// They are added where the samples have none of that name.
    Yields(&'o [(String, String)]),
    /// They replace the samples' own, which are kept as `exported_<name>`.
    Renames(&'o [(String, String)]),
}

impl<'o> Outer<'o> {
    /// The labels of a sample and those from outside.
    #[must_use]
    pub fn join<'a>(self, mut own: Vec<Pair<'a>>) -> Vec<Pair<'a>>
    where
        'o: 'a,
    {
        let (Self::Wins(outer) | Self::Yields(outer) | Self::Renames(outer)) = self;
        for (name, value) in outer {
            let place = own.iter().position(|(n, _)| n == name);
            match (self, place) {
                (Self::Yields(_), Some(_)) => continue,
                (Self::Wins(_), Some(place)) => drop(own.swap_remove(place)),
                (Self::Renames(_), Some(place)) => {
                    let mut exported = format!("exported_{name}");
                    while own.iter().chain(&[]).any(|(n, _)| *n == exported) {
                        exported.insert_str(0, "exported_");
                    }
                    if let Some((n, _)) = own.get_mut(place) {
                        *n = exported.into();
                    }
                }
                (_, None) => {}
            }
            own.push((name.as_str().into(), value.as_str().into()));
        }
        own
    }
}

/// What was read besides samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Samples that were there, taken or not.
    pub samples: usize,
    /// The first line that could not be read, and why.
    pub first_bad: Option<String>,
}

/// Reads a body into `intake`. Lines that can't be read are refusals of `bad_line`; whether the others
/// count is the caller's choice.
///
/// # Errors
/// When too much has been taken.
pub fn read(
    body: &[u8],
    syntax: Syntax,
    outer: Outer<'_>,
    intake: &mut Intake<'_>,
) -> Result<Reading, IntakeError> {
    let (mut reading, mut ended) = (Reading::default(), false);
    let bad = |intake: &mut Intake<'_>, reading: &mut Reading, line: usize, why: String| {
        let message = format!("line {}: {why}", line + 1);
        reading.first_bad.get_or_insert_with(|| message.clone());
        intake.refuse("bad_line", 1, || message);
    };
    let mut lines = 0;
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        lines = number;
        let line = match std::str::from_utf8(line) {
            Ok(line) => parse_line(line, syntax),
            Err(_) => {
                bad(intake, &mut reading, number, "it is not UTF-8".to_owned());
                continue;
            }
        };
        match line {
            Err(error) => bad(intake, &mut reading, number, error.to_string()),
            Ok(Line::Nothing) => {}
            Ok(_) if ended => bad(intake, &mut reading, number, "something stands behind # EOF".to_owned()),
            Ok(Line::Eof) => ended = true,
            Ok(Line::About(metric, about)) => note(intake, &metric, &about),
            Ok(Line::Sample { labels, timestamp_ms, value, exemplar }) => {
                reading.samples += 1;
                intake.taken.exemplars += usize::from(exemplar);
                intake.single(&outer.join(labels), timestamp_ms, value)?;
            }
        }
    }
    if syntax == Syntax::OpenMetrics && !ended {
        bad(intake, &mut reading, lines, "the text ends without \"# EOF\": it may be cut short".to_owned());
    }
    Ok(reading)
}

fn note(intake: &mut Intake<'_>, metric: &str, about: &About<'_>) {
    intake.taken.notes.edit(metric, |described| match about {
        About::Type(kind) => described.kind = *kind,
        About::Help(help) => described.help = help.replace("\\n", "\n").replace("\\\\", "\\"),
        About::Unit(unit) => described.unit = (*unit).to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::Taken;
    use crate::store::Scope;
    use proptest::prelude::*;

    fn take(body: &str, syntax: Syntax, outer: Outer<'_>) -> (Taken, Reading) {
        let mut share = ByteBudget::new(1 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        let reading = read(body.as_bytes(), syntax, outer, &mut intake).expect("room");
        (intake.taken, reading)
    }

    fn flat(taken: &Taken) -> Vec<String> {
        let samples = taken.batch.samples.iter();
        samples
            .map(|s| format!("{} {:?} {}", taken.batch.series[s.series], s.timestamp_ms, s.value))
            .collect()
    }

    #[test]
    fn text_is_read_with_its_metadata() {
        let body = "# HELP http_requests_total All \\\\ of\\nthem.\n# TYPE http_requests_total counter\n\
            http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
            \thttp_requests_total {method=\"a\\\"b\\n\\\\\",}3\n\n# just a comment\n#TYPE\n\
            minimal 12.47\r\ninf +Inf -3982045\n";
        let (taken, reading) = take(body, Syntax::Text, Outer::Wins(&[]));
        assert_eq!(
            reading,
            Reading { samples: 4, first_bad: Some("line 7: expected a metric's name, found \"\"".into()) }
        );
        assert_eq!(
            flat(&taken),
            [
                r#"http_requests_total{code="200",method="post"} Some(1395066363000) 1027"#,
                r#"http_requests_total{method="a\"b\n\\"} None 3"#,
                "minimal{} None 12.47",
                "inf{} Some(-3982045) inf",
            ]
        );
        let metadata = crate::metadata::Metadata::default();
        metadata.note(&Scope::All, taken.notes);
        let said = metadata.get("http_requests_total").expect("said");
        assert_eq!((said.kind, said.help.as_str()), (MetricType::Counter, "All \\ of\nthem."));
    }

    #[test]
    fn open_metrics_are_read_to_their_end() {
        let body = "# TYPE foo histogram\n# UNIT foo seconds\nfoo_bucket{le=\"1\"} 1 1.5 # {trace=\"x\"} 0.5\n\
            {\"with.dots\",a=\"b\"} 2\n# EOF\n";
        let (taken, reading) = take(body, Syntax::OpenMetrics, Outer::Wins(&[]));
        assert_eq!(reading, Reading { samples: 2, first_bad: None });
        assert_eq!(flat(&taken), ["foo_bucket{le=\"1\"} Some(1500) 1", "{\"with.dots\",a=\"b\"} None 2"]);
        assert_eq!(taken.exemplars, 1);
        for (body, why) in [("a 1\n", "without \"# EOF\""), ("# EOF\na 1\n", "behind # EOF")] {
            let (_, reading) = take(body, Syntax::OpenMetrics, Outer::Wins(&[]));
            assert!(reading.first_bad.as_ref().is_some_and(|bad| bad.contains(why)), "{reading:?}");
        }
    }

    #[test]
    fn bad_lines_are_told_by_their_number() {
        for (line, why) in [
            ("a", "a space and a value"),
            ("a b", "\"b\" is not a number"),
            ("a{b=1} 2", "double quotes"),
            ("a 1 1.5", "whole number of Unix milliseconds"),
            ("a 1 2 3", "the end of the line"),
            ("{a=\"b\"", "comma or the closing brace"),
            ("# TYPE a queue", "a metric's type"),
            ("a 1 # {x=\"y\"} 1", "the end of the line"),
        ] {
            let (taken, reading) = take(&format!("good 1\n{line}\ngood2 1"), Syntax::Text, Outer::Wins(&[]));
            let bad = reading.first_bad.expect(line);
            assert!(bad.starts_with("line 2: ") && bad.contains(why), "{line}: {bad}");
            assert_eq!(taken.batch.samples.len(), 2);
        }
    }

    #[test]
    fn labels_from_outside_win_yield_or_rename() {
        let outer = [("job".to_owned(), "outer".to_owned()), ("pod".to_owned(), "p".to_owned())];
        let body = "m{job=\"own\",exported_job=\"x\"} 1";
        let series = |outer| flat(&take(body, Syntax::Text, outer).0).remove(0);
        assert_eq!(series(Outer::Wins(&outer)), r#"m{exported_job="x",job="outer",pod="p"} None 1"#);
        assert_eq!(series(Outer::Yields(&outer)), r#"m{exported_job="x",job="own",pod="p"} None 1"#);
        assert_eq!(
            series(Outer::Renames(&outer)),
            r#"m{exported_exported_job="own",exported_job="x",job="outer",pod="p"} None 1"#
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(body in r#"[a-c {}="\\#0-9.\nETYPHLUNIF,]{0,80}"#, open in any::<bool>()) {
            let syntax = if open { Syntax::OpenMetrics } else { Syntax::Text };
            let _ = take(&body, syntax, Outer::Renames(&[("a".to_owned(), "b".to_owned())]));
        }

        #[test]
        fn what_is_written_is_read(value in any::<f64>(), label in "[^\"\\\\\n]{1,9}", at in any::<i64>()) {
            let body = format!("m{{l=\"{label}\"}} {value:?} {at}\n");
            let (taken, reading) = take(&body, Syntax::Text, Outer::Wins(&[]));
            prop_assert_eq!(reading.first_bad, None);
            let sample = taken.batch.samples[0];
            prop_assert!(sample.value == value || value.is_nan());
            prop_assert_eq!(sample.timestamp_ms, Some(at));
            prop_assert_eq!(taken.batch.series[0].get("l"), Some(label.as_str()));
        }
    }
}
