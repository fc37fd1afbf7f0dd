//! What a workload used, in a few numbers: the percentiles that a right-sizer works with, and what it
//! would make of them.
//!
//! The numbers are those of the points that the range endpoint gives for the same question, so that one
//! small answer stands for all of them; by default those points lie 30 s apart, as OptiPod's do.
//!
//! CPU and memory are computed in OptiPod's arithmetic, which counts in whole millicores and bytes:
//!
//! - each point is cut to a whole number of units;
//! - a percentile `p` is the value at rank `p/100·(n − 1)` of the sorted points, between two points by
//!   linear interpolation, cut to a whole unit;
//! - a recommendation is a percentile times the safety factor, cut to a whole unit, then brought within
//!   `min` and `max`.
//!
//! Any other metric is computed in f64, by the same rules without the cutting.

use super::range::{Given, PARAMETERS, PodSeries, RangeAnswer, RangeError, RangeQuestion};
use crate::kubernetes::quantity::Quantity;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The parameters that a question takes beside those of a range.
pub const MORE_PARAMETERS: [&str; 5] = ["by", "percentile", "safetyFactor", "min", "max"];

/// The percentiles that every answer has.
pub const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.9];

/// From point to point where the question does not say, as OptiPod asks.
const STEP_DEFAULT: &str = "30s";

/// OptiPod's own defaults.
const PERCENTILE_DEFAULT: f64 = 90.0;
const SAFETY_FACTOR_DEFAULT: f64 = 1.2;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryQuestion {
    /// Of which points.
    pub range: RangeQuestion,
    /// Which of them belong together.
    pub by: By,
    /// How the recommendation is made.
    pub policy: Policy,
}

/// Which points are summarised together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Those of a container, of all pods that the workload had.
    Container,
    /// Those of a container of one pod.
    Pod,
}

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "container" => Ok(Self::Container),
            "pod" => Ok(Self::Pod),
            _ => Err("it is unknown: use container or pod"),
        }
    }
}

/// How a recommendation is made, in OptiPod's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which percentile, 0 to 100.
    pub percentile: f64,
    /// By what it is multiplied.
    pub safety_factor: f64,
    /// Not less than this.
    pub min: Option<Quantity>,
    /// Not more than this.
    pub max: Option<Quantity>,
}

impl SummaryQuestion {
    /// Reads a question of decoded names and values; see [`RangeQuestion::parse`].
    ///
    /// # Errors
    /// When a parameter is missing, unknown, given twice or wrong: the error names it.
    pub fn parse(
        pairs: impl IntoIterator<Item = (String, String)>,
        points_max: usize,
        now_ms: i64,
    ) -> Result<Self, RangeError> {
        let mut given = Given::collect_with(pairs, &MORE_PARAMETERS)?;
        given.default("step", STEP_DEFAULT);
        let question = Self {
            by: given.parsed("by")?.unwrap_or(By::Container),
            policy: Policy::of(&mut given)?,
            range: RangeQuestion::of(&mut given, now_ms)?,
        };
        question.range.check(points_max)?;
        if question.range.merge.is_some() {
            let problem = "a summary takes the points of all pods as they are: use by=container or by=pod";
            return Err(RangeError::parameter("merge", problem));
        }
        Ok(question)
    }
}

impl Policy {
    fn of(given: &mut Given) -> Result<Self, RangeError> {
        let policy = Self {
            percentile: match given.optional("percentile") {
                None => PERCENTILE_DEFAULT,
                Some(text) => percentile(&text).ok_or_else(|| {
                    RangeError::parameter("percentile", "it is none: use one such as P90 or p99.9")
                })?,
            },
            safety_factor: given.parsed("safetyFactor")?.unwrap_or(SAFETY_FACTOR_DEFAULT),
            min: quantity(given, "min")?,
            max: quantity(given, "max")?,
        };
        if !policy.safety_factor.is_finite() || policy.safety_factor <= 0.0 {
            return Err(RangeError::parameter("safetyFactor", "it must be more than 0: 1.2 adds a fifth"));
        }
        if let (Some(Ok(min)), Some(Ok(max))) =
            (policy.min.as_ref().map(Quantity::value), policy.max.as_ref().map(Quantity::value))
            && min > max
        {
            return Err(RangeError::parameter("min", "it is more than max"));
        }
        Ok(policy)
    }
}

fn percentile(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['p', 'P'])?;
    let percentile = digits.parse().ok().filter(|p| (0.0..=100.0).contains(p));
    percentile.filter(|_| digits.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn quantity(given: &mut Given, name: &str) -> Result<Option<Quantity>, RangeError> {
    let read = |text: String| Quantity::parse(&text);
    given.optional(name).map(read).transpose().map_err(|error| RangeError::parameter(name, error.to_string()))
}

/// In what a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// CPU, in whole thousandths of a core.
    Millicores,
    /// Memory, in whole bytes.
    Bytes,
    /// Anything else, as it is.
    Plain,
}

impl Unit {
    /// Of a metric of the range endpoint.
    #[must_use]
    pub fn of(metric: &str) -> Self {
        match metric {
            "cpu" => Self::Millicores,
            "memory" => Self::Bytes,
            _ => Self::Plain,
        }
    }

    /// A value in this unit, cut to a whole one.
    fn count(self, value: f64) -> f64 {
        match self {
            Self::Millicores => (value * 1_000.0).trunc(),
            Self::Bytes => value.trunc(),
            Self::Plain => value,
        }
    }

    /// A computed number of units, cut to a whole one.
    fn cut(self, units: f64) -> f64 {
        if self == Self::Plain { units } else { units.trunc() }
    }

    /// So many units, in cores, bytes, …
    fn value(self, units: f64) -> f64 {
        if self == Self::Millicores { units / 1_000.0 } else { units }
    }
}

/// What some points say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The pod; `None`: all pods together.
    pub pod: Option<String>,
    /// The container; empty: the pod as a whole.
    pub container: String,
    /// The kind of the workload, where workloads of several kinds are answered.
    pub kind: Option<String>,
    /// How many pods the points are of.
    pub pods: usize,
    /// How many points there are.
    pub samples: usize,
    /// What share of the range's points in time has a value, 0 to 1.
    pub coverage: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// [`PERCENTILES`], in this order.
    pub percentiles: Vec<f64>,
    /// What OptiPod would recommend.
    pub recommendation: Recommendation,
}

/// A preview of what a right-sizer would recommend.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// The percentile that it is made of.
    pub base: f64,
    /// The request, as Kubernetes writes it; `None`: it is more than a quantity carries.
    pub quantity: Option<String>,
    /// Which bound it was brought to.
    pub bounded_by: Option<&'static str>,
}

/// Summarises the points of a range's answer.
#[must_use]
pub fn summarise(question: &SummaryQuestion, answer: RangeAnswer) -> Vec<Summary> {
    let mut together: BTreeMap<(Option<String>, Option<String>, String), Vec<PodSeries>> = BTreeMap::new();
    for series in answer.series {
        let pod = series.pod.clone().filter(|_| question.by == By::Pod);
        let key = (series.kind.clone(), pod, series.container.clone());
        together.entry(key).or_default().push(series);
    }
    let of = |((kind, pod, container), series): ((_, _, String), Vec<PodSeries>)| {
        summary(question, kind, pod, container, &series)
    };
    together.into_iter().filter_map(of).collect()
}

fn summary(
    question: &SummaryQuestion,
    kind: Option<String>,
    pod: Option<String>,
    container: String,
    series: &[PodSeries],
) -> Option<Summary> {
    let unit = Unit::of(&question.range.metric);
    let points = || series.iter().flat_map(|series| &series.samples);
    let mut units: Vec<f64> = points().map(|sample| unit.count(sample.value)).collect();
    units.sort_unstable_by(f64::total_cmp);
    let (min, max) = (*units.first()?, *units.last()?);
    let mut times: Vec<i64> = points().map(|sample| sample.timestamp_ms).collect();
    times.sort_unstable();
    times.dedup();
    let asked = question.range.points().max(1);
    Some(Summary {
        pods: series.len(),
        samples: units.len(),
        coverage: times.len() as f64 / asked as f64,
        min: unit.value(min),
        max: unit.value(max),
        mean: unit.value(mean(&units)),
        percentiles: PERCENTILES.map(|p| unit.value(unit.cut(at_rank(&units, p)))).to_vec(),
        recommendation: recommend(unit, &units, &question.policy),
        pod,
        container,
        kind,
    })
}

fn mean(units: &[f64]) -> f64 {
    let count = units.len() as f64;
    let sum: f64 = units.iter().sum();
    if sum.is_finite() { sum / count } else { units.iter().map(|unit| unit / count).sum() }
}

/// The value at rank `p/100·(n − 1)` of sorted values; 0 of none.
fn at_rank(sorted: &[f64], percentile: f64) -> f64 {
    let rank = percentile / 100.0 * (sorted.len().saturating_sub(1)) as f64;
    let at = |place: f64| sorted.get(place as usize).copied();
    let Some(lower) = at(rank.floor()) else { return 0.0 };
    let Some(upper) = at(rank.floor() + 1.0) else { return lower };
    lower + rank.fract() * (upper - lower)
}

fn recommend(unit: Unit, sorted: &[f64], policy: &Policy) -> Recommendation {
    let base = unit.cut(at_rank(sorted, policy.percentile));
    let wanted = unit.value(unit.cut(base * policy.safety_factor));
    let bound =
        |quantity: &Option<Quantity>| quantity.as_ref().and_then(|q| Some((q.value().ok()?, q.to_string())));
    let (bounded_by, quantity) = match (bound(&policy.min), bound(&policy.max)) {
        (Some((min, text)), _) if wanted < min => (Some("min"), Some(text)),
        (_, Some((max, text))) if wanted > max => (Some("max"), Some(text)),
        _ => (None, Quantity::from_f64(wanted).map(|quantity| quantity.to_string())),
    };
    Recommendation { base: unit.value(base), quantity, bounded_by }
}

/// All parameters, for messages and documentation.
#[must_use]
pub fn parameters() -> Vec<&'static str> {
    [&PARAMETERS[..], &MORE_PARAMETERS].concat()
}

#[cfg(test)]
mod tests;
