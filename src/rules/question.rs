//! A question for a metric, answered by the query of its rule.
//!
//! One query asks for the values and for the times of the samples behind them, told apart by a label: an
//! autoscaler's question costs one round trip. Where many objects are named, their names go into several queries
//! of bounded length.
//!
//! The time of a value is the oldest of the newest samples of its object's series; of a value whose query goes by
//! other series than those of the rule, the time of the question.

use super::listing::Found;
use super::matchers::{Arguments, CantAsk, Names};
use super::relist::Rules;
use super::rule::NoQuery;
use super::source::{Point, PromQl, SourceError};
use crate::query::promql::{Query, ValueType};
use crate::store::Scope;
use futures::{StreamExt, TryStreamExt};
use kube::core::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tells values and times apart.
const PART_LABEL: &str = "__lookback_part__";

/// Queries of one question that are under way at once.
const AT_ONCE: usize = 4;

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unanswered {
    /// The question can't be asked.
    #[error(transparent)]
    CantAsk(#[from] CantAsk),
    /// The caller is bound to namespaces, and the rule's query is not.
    #[error(
        "the query of {rule} is not bound to a namespace, and {server} does not know what you may see: ask as somebody \
         who may see all namespaces"
    )]
    OutOfScope {
        /// Which rule.
        rule: String,
        /// Who would be asked.
        server: String,
    },
    /// The rule's query is refused.
    #[error("{rule} can't be answered by {server}: {reason}: look at its metricsQuery: {query}")]
    Refused {
        /// Which rule.
        rule: String,
        /// Who was asked.
        server: String,
        /// Why.
        reason: String,
        /// What was asked.
        query: String,
    },
    /// Nobody answers at present.
    #[error("{server} does not answer: {reason}")]
    Unavailable {
        /// Who was asked.
        server: String,
        /// Why.
        reason: String,
    },
}

/// A question about objects.
pub struct AboutObjects<'a> {
    /// What answers.
    pub found: &'a Found,
    /// The namespace of the objects, where they lie in one.
    pub namespace: Option<&'a str>,
    /// Which objects.
    pub names: Names<'a>,
    /// Selects series by their labels.
    pub of_series: &'a Selector,
    /// Whose question it is.
    pub scope: &'a Scope,
}

/// The value of one object, or of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Valued<K> {
    /// Whose: an object's name, or a series' labels.
    pub of: K,
    /// The value. Never NaN or infinite: such values are missing ones.
    pub value: f64,
    /// Its time, Unix milliseconds.
    pub time_ms: i64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered<K> {
    /// The values, in the order of what they are of.
    pub values: Vec<Valued<K>>,
    /// The window over which they are rates, if the query has one and no other.
    pub window: Option<Duration>,
    /// What is wrong with the query, though it has an answer.
    pub warning: Option<String>,
}

impl Rules {
    /// Values of objects.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn objects(
        &self,
        about: &AboutObjects<'_>,
        now_ms: i64,
    ) -> Result<Answered<String>, Unanswered> {
        let Found { rule, series, label, namespace_label } = about.found;
        let asking = self.asking(about.found, about.scope, now_ms)?;
        let mut base = Arguments::of(series).selecting(about.of_series)?;
        if let Some(namespace) = about.namespace {
            base = base.within(namespace_label, namespace);
        }
        let batches = match about.names {
            Names::All => vec![base.about(label, Names::All)],
            Names::These([]) => Vec::new(),
            Names::These(names) => {
                let batches = batches(names, asking.source.names_bytes_max());
                batches.into_iter().map(|names| base.clone().about(label, Names::These(names))).collect()
            }
        };
        let times = |arguments: &Arguments| format!("min by ({label}) (timestamp({}))", arguments.selector());
        let ask = |arguments: Arguments| {
            let (asking, times) = (&asking, times(&arguments));
            async move { asking.ask(&arguments, &times).await }
        };
        let parts: Vec<Parts> =
            futures::stream::iter(batches).map(ask).buffered(AT_ONCE).try_collect().await?;
        let window = parts.first().and_then(|parts| parts.window);
        let mut values: BTreeMap<String, Valued<String>> = BTreeMap::new();
        let (mut several, mut nameless) = (0, 0);
        for Parts { points, times, .. } in parts {
            let time = |point: &Point| {
                (point.labels.get(label).cloned().unwrap_or_default(), sample_ms(point.value))
            };
            let times: BTreeMap<String, i64> = times.iter().map(time).collect();
            for point in points {
                let Some(name) = point.labels.get(label).filter(|name| !name.is_empty()) else {
                    nameless += 1;
                    continue;
                };
                if !point.value.is_finite() {
                    continue;
                }
                let time_ms = times.get(name).copied().unwrap_or(point.time_ms).min(now_ms);
                let valued = Valued { of: name.clone(), value: point.value, time_ms };
                match values.entry(name.clone()) {
                    std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(valued)),
                    std::collections::btree_map::Entry::Occupied(_) => several += 1,
                }
            }
        }
        let warning = match (several, nameless) {
            (0, 0) => None,
            (0, _) => Some(format!(
                "the query of {} gives values without the label {label}: group by <<.GroupBy>>",
                rule.name
            )),
            (..) => Some(format!(
                "the query of {} gives several values of an object, and the first is served: group by <<.GroupBy>>",
                rule.name
            )),
        };
        Ok(Answered { values: values.into_values().collect(), window, warning })
    }

    /// Values of an external metric, each with its labels.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn external(
        &self,
        found: &Found,
        namespace: &str,
        selector: &Selector,
        scope: &Scope,
        now_ms: i64,
    ) -> Result<Answered<BTreeMap<String, String>>, Unanswered> {
        let asking = self.asking(found, scope, now_ms)?;
        let mut arguments = Arguments::of(&found.series).selecting(selector)?;
        if found.rule.is_namespaced {
            arguments = arguments.within(&found.namespace_label, namespace);
        }
        let times = format!("min(timestamp({}))", arguments.selector());
        let Parts { points, times, window } = asking.ask(&arguments, &times).await?;
        let oldest_ms = times.iter().map(|point| sample_ms(point.value)).min();
        let mut values = BTreeMap::new();
        for point in points.into_iter().filter(|point| point.value.is_finite()) {
            let time_ms = oldest_ms.unwrap_or(point.time_ms).min(now_ms);
            values.insert(point.labels.clone(), Valued { of: point.labels, value: point.value, time_ms });
        }
        Ok(Answered { values: values.into_values().collect(), window, warning: None })
    }

    fn asking<'a>(
        &'a self,
        found: &'a Found,
        scope: &'a Scope,
        now_ms: i64,
    ) -> Result<Asking<'a>, Unanswered> {
        let rule = &found.rule;
        let (server, source) = self.sources().get(rule.source).ok_or_else(|| Unanswered::Unavailable {
            server: rule.name.clone(),
            reason: "it names a server that is no more".to_owned(),
        })?;
        let is_bound = rule.keeps_namespace && rule.is_namespaced;
        if *scope != Scope::All && !source.keeps_scopes() && !is_bound {
            return Err(Unanswered::OutOfScope { rule: rule.name.clone(), server: server.to_owned() });
        }
        Ok(Asking { found, server, source, scope, now_ms, timeout: self.settings().query_timeout })
    }
}

/// Names in batches of at most so many bytes, each of at least one name.
fn batches<'n, 'm>(names: &'m [&'n str], bytes_max: usize) -> Vec<&'m [&'n str]> {
    let mut batches = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, name) in names.iter().enumerate() {
        // And what separates it from the next.
        let length = name.len() + 1;
        if bytes + length > bytes_max && at > begin {
            batches.extend(names.get(begin..at));
            (begin, bytes) = (at, 0);
        }
        bytes += length;
    }
    batches.extend(names.get(begin..).filter(|rest| !rest.is_empty()));
    batches
}

/// The outcome of `timestamp()` in milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and is only shown")]
fn sample_ms(seconds: f64) -> i64 {
    (seconds * 1_000.0).round() as i64
}

/// What one query gives.
struct Parts {
    points: Vec<Point>,
    /// Points whose values are times.
    times: Vec<Point>,
    window: Option<Duration>,
}

struct Asking<'a> {
    found: &'a Found,
    server: &'a str,
    source: &'a Arc<dyn PromQl>,
    scope: &'a Scope,
    now_ms: i64,
    timeout: Duration,
}

impl Asking<'_> {
    async fn ask(&self, arguments: &Arguments, times: &str) -> Result<Parts, Unanswered> {
        let rule = &self.found.rule;
        let query = rule.promql(arguments).map_err(|error| match error {
            NoQuery::CantAsk(cant_ask) => Unanswered::CantAsk(cant_ask),
            NoQuery::Template(reason) => self.refused(reason, String::new()),
        })?;
        let parsed = Query::parse(&query).ok();
        let window = parsed.as_ref().and_then(Query::only_range_ms);
        let window = window.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let is_scalar = parsed.is_some_and(|parsed| parsed.value_type() == ValueType::Scalar);
        tracing::debug!(rule = rule.name, query, "a rule asks");
        if !is_scalar {
            match self.instant(&with_times(&query, times)).await {
                Ok(points) => {
                    let (mut values, mut sampled) = (Vec::new(), Vec::new());
                    for mut point in points {
                        match point.labels.remove(PART_LABEL).as_deref() {
                            Some("time") => sampled.push(point),
                            _ => values.push(point),
                        }
                    }
                    return Ok(Parts { points: values, times: sampled, window });
                }
                Err(error @ SourceError::Unavailable(_)) => return Err(self.failed(error, query)),
                // It may be the part about times: then the values alone can be had.
                Err(SourceError::Refused(reason)) => {
                    tracing::debug!(rule = rule.name, reason, "asked again without the times of samples");
                }
            }
        }
        let points = self.instant(&query).await.map_err(|error| self.failed(error, query))?;
        Ok(Parts { points, times: Vec::new(), window })
    }

    async fn instant(&self, query: &str) -> Result<Vec<Point>, SourceError> {
        self.source.instant(self.scope, query, self.now_ms, self.timeout).await
    }

    fn failed(&self, error: SourceError, query: String) -> Unanswered {
        match error {
            SourceError::Refused(reason) => self.refused(reason, query),
            SourceError::Unavailable(reason) => {
                Unanswered::Unavailable { server: self.server.to_owned(), reason }
            }
        }
    }

    fn refused(&self, reason: String, query: String) -> Unanswered {
        let rule = &self.found.rule;
        let rule = format!("{} ({})", rule.name, rule.place);
        Unanswered::Refused { rule, server: self.server.to_owned(), reason, query }
    }
}

/// A query for the values of another and for times. A comment at the end of the query ends with its line.
fn with_times(query: &str, times: &str) -> String {
    format!(
        "label_replace((\n{query}\n), \"{PART_LABEL}\", \"value\", \"\", \"\") or label_replace({times}, \
         \"{PART_LABEL}\", \"time\", \"\", \"\")"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_and_times_are_one_query_that_can_be_read() {
        for query in ["sum(rate(x{pod=~\"a|b\"}[2m])) by (pod)", "a / b # why", "topk(3, x) > 0"] {
            let text = with_times(query, "min by (pod) (timestamp(x{pod=~\"a|b\"}))");
            Query::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    proptest! {
        #[test]
        fn batches_hold_every_name_once_within_the_bound(
            names in proptest::collection::vec("[a-z]{1,12}", 0..40),
            bytes_max in 1usize..60,
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let all = batches(&names, bytes_max);
            prop_assert_eq!(&all.concat(), &names);
            for batch in all {
                let bytes: usize = batch.iter().map(|name| name.len() + 1).sum();
                prop_assert!(batch.len() == 1 || bytes <= bytes_max);
            }
        }
    }
}
