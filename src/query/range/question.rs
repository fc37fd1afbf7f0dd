//! The question, read from untrusted text.

use super::RangeError;
use crate::text::start_of;
use crate::time::{UnixUnit, format_duration, parse_duration, parse_timestamp};
use lookback_storage::Aggregation;
use lookback_storage::labels::limits::VALUE_BYTES_MAX;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The parameters that a question takes.
pub const PARAMETERS: [&str; 11] = [
    "workload",
    "namespace",
    "kind",
    "container",
    "metric",
    "start",
    "end",
    "rollingWindow",
    "step",
    "aggregation",
    "merge",
];

/// From point to point where the question does not say.
const STEP_DEFAULT_MS: i64 = 5 * 60 * 1_000;

/// Longest step, in milliseconds: about 100 years, so that adding one never overflows.
const STEP_MS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1_000;

/// How a workload used something over time.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeQuestion {
    /// The workload's name, without its kind.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Only the workload of this kind (`Deployment`, …), where several have the name; `None`: each of them.
    pub kind: Option<String>,
    /// Only this container; `None`: all, but not the sandbox.
    pub container: Option<String>,
    /// `cpu` (cores), `memory` (bytes), or the name of a stored series.
    pub metric: String,
    /// The first point, Unix milliseconds.
    pub start_ms: i64,
    /// No point lies after this, Unix milliseconds.
    pub end_ms: i64,
    /// From point to point, milliseconds, more than 0.
    pub step_ms: i64,
    /// What a point says of the samples since the point before.
    pub aggregation: Aggregation,
    /// One series a container, of all pods together; `None`: one a pod and container.
    pub merge: Option<Merge>,
}

/// How the points that several pods have at one time become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Their sum.
    Sum,
    /// Their arithmetic mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl std::str::FromStr for Merge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            _ => return Err(format!("{:?} is unknown: use sum, avg, min or max", start_of(text))),
        })
    }
}

impl RangeQuestion {
    /// Reads a question of decoded names and values.
    ///
    /// `workload`, `namespace`, `metric`, `start` and `end` are needed, or `rollingWindow` in place of
    /// `start`, and then `end` is `now_ms` where it is not given; `step` is 5 minutes and `aggregation`
    /// `avg` where they are not given. An optional parameter without a value counts as not given.
    /// `points_max` bounds the points of one series.
    ///
    /// # Errors
    /// When a parameter is missing, unknown, given twice or wrong: the error names it.
    pub fn parse(
        pairs: impl IntoIterator<Item = (String, String)>,
        points_max: usize,
        now_ms: i64,
    ) -> Result<Self, RangeError> {
        let mut given = Given::collect(pairs)?;
        let question = Self::of(&mut given, now_ms)?;
        question.check(points_max)?;
        Ok(question)
    }

    /// Reads a question of what was given; what it does not know is left there.
    pub(in crate::query) fn of(given: &mut Given, now_ms: i64) -> Result<Self, RangeError> {
        let workload = given.needed("workload", "the name of a Deployment, StatefulSet, …")?;
        let namespace = given.needed("namespace", "the workload's namespace")?;
        let metric = given.needed("metric", "cpu, memory or the name of a metric")?;
        let (start_ms, end_ms) = given.span(now_ms)?;
        Ok(Self {
            workload,
            namespace,
            kind: given.optional("kind"),
            container: given.optional("container"),
            metric,
            start_ms,
            end_ms,
            step_ms: match given.optional("step") {
                Some(step) => {
                    parse_duration(&step).map_err(|error| RangeError::parameter("step", error.to_string()))?
                }
                None => STEP_DEFAULT_MS,
            },
            aggregation: given.parsed("aggregation")?.unwrap_or(Aggregation::Avg),
            merge: given.parsed("merge")?,
        })
    }

    /// How many points in time the range has.
    #[must_use]
    pub fn points(&self) -> u64 {
        (self.end_ms.abs_diff(self.start_ms) / self.step_ms.unsigned_abs().max(1)).saturating_add(1)
    }

    /// Refuses what can't be answered.
    pub(in crate::query) fn check(&self, points_max: usize) -> Result<(), RangeError> {
        if self.start_ms > self.end_ms {
            return Err(RangeError::parameter("start", "it is after end: start must not be later than end"));
        }
        if !(1..=STEP_MS_MAX).contains(&self.step_ms) {
            return Err(RangeError::parameter("step", "it must be more than 0 and at most 100y"));
        }
        let span_ms = self.end_ms.abs_diff(self.start_ms);
        let points_max = u64::try_from(points_max).unwrap_or(u64::MAX).max(1);
        let points = self.points();
        if points > points_max {
            return Err(RangeError::parameter(
                "step",
                format!(
                    "{points} points a series are more than {points_max}: the smallest step that fits is {}, \
                     or ask for a shorter range",
                    format_duration(smallest_step_ms(span_ms, points_max))
                ),
            ));
        }
        Ok(())
    }
}

/// The smallest step with which a range has no more than `points_max` points; in whole seconds where it
/// is longer than one.
fn smallest_step_ms(span_ms: u64, points_max: u64) -> i64 {
    let step_ms = span_ms / points_max + 1;
    let rounded_ms = if step_ms > 1_000 { step_ms.div_ceil(1_000).saturating_mul(1_000) } else { step_ms };
    i64::try_from(rounded_ms).unwrap_or(i64::MAX)
}

/// Parameters that were given, each once and known.
pub(in crate::query) struct Given(BTreeMap<String, String>);

impl Given {
    fn collect(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, RangeError> {
        Self::collect_with(pairs, &[])
    }

    /// Takes the parameters of a question, and `more`.
    pub(in crate::query) fn collect_with(
        pairs: impl IntoIterator<Item = (String, String)>,
        more: &[&str],
    ) -> Result<Self, RangeError> {
        let mut given = BTreeMap::new();
        for (name, value) in pairs {
            if !PARAMETERS.contains(&name.as_str()) && !more.contains(&name.as_str()) {
                let problem = format!("it is unknown: use {}", [&PARAMETERS, more].concat().join(", "));
                return Err(RangeError::parameter(start_of(&name), problem));
            }
            if value.len() > VALUE_BYTES_MAX {
                let problem = format!("it has {} bytes, more than {VALUE_BYTES_MAX}", value.len());
                return Err(RangeError::parameter(start_of(&name), problem));
            }
            if given.contains_key(&name) {
                return Err(RangeError::parameter(start_of(&name), "it is given more than once"));
            }
            given.insert(name, value);
        }
        Ok(Self(given))
    }

    /// A parameter that may be left out.
    pub(in crate::query) fn optional(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    fn needed(&mut self, name: &str, meaning: &str) -> Result<String, RangeError> {
        self.optional(name)
            .ok_or_else(|| RangeError::parameter(name, format!("it is missing: give {meaning}")))
    }

    /// Has this value where none is given.
    pub(in crate::query) fn default(&mut self, name: &str, value: &str) {
        let given = self.0.entry(name.to_owned()).or_default();
        if given.is_empty() {
            value.clone_into(given);
        }
    }

    /// A parameter that may be left out, read as a `T`.
    pub(in crate::query) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, RangeError> {
        let read = |text: String| {
            text.parse().map_err(|error: T::Err| RangeError::parameter(name, error.to_string()))
        };
        self.optional(name).map(read).transpose()
    }

    /// From `start` to `end`, or the `rollingWindow` before `end`.
    fn span(&mut self, now_ms: i64) -> Result<(i64, i64), RangeError> {
        let Some(window) = self.optional("rollingWindow") else {
            return Ok((self.time("start")?, self.time("end")?));
        };
        if self.optional("start").is_some() {
            let problem = "it is given together with start: use one of the two";
            return Err(RangeError::parameter("rollingWindow", problem));
        }
        let window_ms = parse_duration(&window)
            .map_err(|error| RangeError::parameter("rollingWindow", error.to_string()))?;
        let end_ms = if self.0.get("end").is_none_or(String::is_empty) { now_ms } else { self.time("end")? };
        Ok((end_ms.saturating_sub(window_ms), end_ms))
    }

    fn time(&mut self, name: &str) -> Result<i64, RangeError> {
        let text = self.needed(name, "a time in RFC 3339 or Unix seconds")?;
        parse_timestamp(&text, UnixUnit::Seconds).map_err(|error| {
            // A plus in a query string means a space: the most common way to break an offset.
            let hint = if text.contains(' ') { "; write the + of an offset as %2B" } else { "" };
            RangeError::parameter(name, format!("{error}{hint}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-25T00:00:00Z.
    const NOW_MS: i64 = 1_769_299_200_000;

    const GOOD: [(&str, &str); 5] = [
        ("workload", "web"),
        ("namespace", "default"),
        ("metric", "cpu"),
        ("start", "2026-01-24T00:00:00Z"),
        ("end", "2026-01-24T01:00:00Z"),
    ];

    fn pairs(changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let kept = GOOD.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        kept.chain(changes).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn parse(changes: &[(&str, &str)]) -> Result<RangeQuestion, RangeError> {
        RangeQuestion::parse(pairs(changes), 50_000, NOW_MS)
    }

    fn refused(changes: &[(&str, &str)]) -> String {
        parse(changes).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let question = parse(&[]).expect("valid");
        assert_eq!(question.start_ms, 1_769_212_800_000);
        assert_eq!(question.end_ms - question.start_ms, 3_600_000);
        assert_eq!((question.step_ms, question.aggregation), (300_000, Aggregation::Avg));
        assert_eq!(question.container, None);
        assert_eq!(parse(&[("container", ""), ("step", "")]).expect("valid"), question);
    }

    #[test]
    fn every_parameter_is_read() {
        let question = parse(&[
            ("container", "app"),
            ("start", "1706097600.5"),
            ("end", "2024-01-24T13:00:01.25+01:00"),
            ("step", "30"),
            ("aggregation", "p99.9"),
            ("kind", "StatefulSet"),
            ("merge", "max"),
        ])
        .expect("valid");
        assert_eq!(question.container.as_deref(), Some("app"));
        assert_eq!((question.start_ms, question.end_ms), (1_706_097_600_500, 1_706_097_601_250));
        assert_eq!((question.step_ms, question.aggregation), (30_000, Aggregation::Percentile(99.9)));
        assert_eq!((question.kind.as_deref(), question.merge), (Some("StatefulSet"), Some(Merge::Max)));
    }

    #[test]
    fn a_rolling_window_ends_now_or_at_end() {
        let day = parse(&[("rollingWindow", "1d"), ("start", ""), ("end", "")]).expect("valid");
        assert_eq!((day.start_ms, day.end_ms), (NOW_MS - 86_400_000, NOW_MS));
        let week =
            parse(&[("rollingWindow", "168h"), ("start", ""), ("end", "1769299200.5")]).expect("valid");
        assert_eq!((week.start_ms, week.end_ms), (NOW_MS + 500 - 604_800_000, NOW_MS + 500));
        assert!(refused(&[("rollingWindow", "1h")]).contains("together with start"));
        assert!(refused(&[("rollingWindow", "soon"), ("start", "")]).contains("parameter \"rollingWindow\""));
    }

    #[test]
    fn errors_name_the_parameter_and_what_is_accepted() {
        for (name, _) in GOOD {
            let error = refused(&[(name, "")]);
            assert!(error.starts_with(&format!("parameter {name:?}: it is missing")), "{error}");
        }
        for (changes, expected) in [
            (&[("step", "0")][..], "parameter \"step\""),
            (&[("step", "-5m")], "parameter \"step\""),
            (&[("step", "abc")], "parameter \"step\""),
            (&[("step", "200y")], "at most 100y"),
            (&[("aggregation", "mean")], "use avg, min, max"),
            (&[("start", "yesterday")], "parameter \"start\": \"yesterday\" is not a time: use RFC 3339"),
            (&[("end", "2026-01-24T01:00:00 02:00")], "%2B"),
            (&[("start", "2026-01-24T02:00:00Z")], "parameter \"start\": it is after end"),
            (&[("cluster", "x")], "parameter \"cluster\": it is unknown: use workload, namespace, kind"),
            (&[("step", "5m"), ("step", "5m")], "parameter \"step\": it is given more than once"),
        ] {
            let error = refused(changes);
            assert!(error.contains(expected), "{error}");
        }
        let long = "x".repeat(100_000);
        assert!(refused(&[("workload", &long)]).contains("100000 bytes"));
        assert!(refused(&[(&long, "")]).len() < 300);
    }

    #[test]
    fn a_range_of_too_many_points_says_which_step_fits() {
        let range = [("start", "0"), ("end", "1000000"), ("step", "1")];
        let error = refused(&range);
        assert!(error.contains("1000001 points") && error.contains("is 21s"), "{error}");
        assert!(parse(&[("start", "0"), ("end", "1000000"), ("step", "21s")]).is_ok());
        let week = parse(&[("start", "0"), ("end", "604800"), ("step", "30")]).expect("valid");
        assert_eq!((week.end_ms - week.start_ms) / week.step_ms + 1, 20_161);
    }

    proptest! {
        #[test]
        fn the_smallest_step_fits(span_ms in 0_u64..=1 << 50, points_max in 1_u64..100_000) {
            let step_ms = smallest_step_ms(span_ms, points_max).unsigned_abs();
            prop_assert!(span_ms / step_ms < points_max);
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec((0..PARAMETERS.len(), ".{0,30}"), 0..10)) {
            let pairs = text.into_iter().map(|(name, value)| (PARAMETERS[name].to_owned(), value));
            let _ = RangeQuestion::parse(pairs, 50_000, NOW_MS);
        }
    }
}
