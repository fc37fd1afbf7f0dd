//! The rules where `--prometheus-url` is given and no file: those that the first version of the adapter had built in,
//! as its README tells them.
//!
//! Series of containers (`container_…`, with a namespace and a pod, by the old and the new name of that label) are
//! metrics of pods only, without the pause container `POD`; all other series with a namespace are metrics of every
//! resource that a label names by its singular. `container_` goes from the name, and `_total` and
//! `_seconds_total` do: such series are counters, read as a rate.

use super::config::{FilterText, GroupResource, Place, ResourcesText, RuleText};
use super::rule::{Kind, Rule};
use super::source::SourceNames;
use crate::time::format_duration;
use std::collections::BTreeMap;
use std::time::Duration;

/// The rules, with counters as rates over this interval.
///
/// # Errors
/// Never, but for a defect.
pub fn rules(rate_interval: Duration, sources: &SourceNames) -> Result<Vec<Rule>, String> {
    let window = format_duration(crate::time::whole_ms(rate_interval));
    let mut rules = Vec::new();
    // Where two series come to one metric the later rule counts: a counter before a gauge of its name.
    for (pod, container, other) in [("pod_name", "container_name", Some("pod")), ("pod", "container", None)] {
        let without_other = other.map(|other| format!(",{other}=\"\"")).unwrap_or_default();
        let series = format!(
            "{{__name__=~\"container_.+\",{container}!=\"POD\",namespace!=\"\",{pod}!=\"\"{without_other}}}"
        );
        let named = |resource: &str| GroupResource { group: String::new(), resource: resource.to_owned() };
        let overrides =
            BTreeMap::from([("namespace".to_owned(), named("namespace")), (pod.to_owned(), named("pod"))]);
        let resources = ResourcesText { overrides, ..ResourcesText::default() };
        let matchers = format!("<<.LabelMatchers>>,{container}!=\"POD\"");
        for (matches, filter, is_counter) in SUFFIXES {
            let text = rule(
                &series,
                matches("container_"),
                filter,
                &resources,
                &matchers,
                is_counter.then_some(&window),
            );
            rules.push(usable(&text, rules.len(), sources)?.only(&["pods"]));
        }
    }
    let series = "{namespace!=\"\",__name__!~\"container_.*\"}";
    let resources = ResourcesText { template: Some("<<.Resource>>".to_owned()), ..ResourcesText::default() };
    for (matches, filter, is_counter) in SUFFIXES {
        let text = rule(
            series,
            matches(""),
            filter,
            &resources,
            "<<.LabelMatchers>>",
            is_counter.then_some(&window),
        );
        rules.push(usable(&text, rules.len(), sources)?);
    }
    Ok(rules)
}

type Suffix = (fn(&str) -> String, Option<&'static str>, bool);

/// Gauges, counters, counters of seconds: what of the name stays, what is another's, whether it is a counter.
const SUFFIXES: [Suffix; 3] = [
    (|prefix| format!("^{prefix}(.+)$"), Some("_total$"), false),
    (|prefix| format!("^{prefix}(.+)_total$"), Some("_seconds_total$"), true),
    (|prefix| format!("^{prefix}(.+)_seconds_total$"), None, true),
];

fn rule(
    series: &str,
    matches: String,
    is_not: Option<&str>,
    resources: &ResourcesText,
    matchers: &str,
    rate_window: Option<&String>,
) -> RuleText {
    let selector = format!("<<.Series>>{{{matchers}}}");
    let of_object = match rate_window {
        Some(window) => format!("rate({selector}[{window}])"),
        None => selector,
    };
    RuleText {
        series_query: series.to_owned(),
        filters: is_not.map(|text| FilterText::IsNot(text.to_owned())).into_iter().collect(),
        resources: resources.clone(),
        matches: Some(matches),
        named_as: None,
        metrics_query: format!("sum({of_object}) by (<<.GroupBy>>)"),
        server: None,
    }
}

fn usable(text: &RuleText, number: usize, sources: &SourceNames) -> Result<Rule, String> {
    Rule::of(&format!("default rules[{number}]"), Place::default(), text, Kind::Objects, sources)
}
