//! The file of rules, as prometheus-adapter reads it.
//!
//! ```yaml
//! rules:                       # metrics of objects
//!   - seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
//!     seriesFilters: [{isNot: "^container_.*"}]          # or {is: REGEX}
//!     resources:
//!       template: "<<.Resource>>"                        # a resource's label; and <<.Group>>
//!       overrides: {kubernetes_node: {resource: node}}   # and group
//!     name: {matches: "^(.*)_total$", as: "${1}_per_second"}
//!     metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
//!     prometheus: name         # Lookback's own: which server of --prometheus-url; store: this one's own
//! externalRules:               # external metrics: the same
//!   - seriesQuery: '{__name__="queue_depth",topic!=""}'
//!     resources: {namespaced: false}
//!     metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (topic)'
//! resourceRules:               # cpu and memory of metrics.k8s.io
//!   cpu: {containerQuery: …, nodeQuery: …, resources: …, containerLabel: container}
//!   memory: {…}
//!   window: 5m
//! ```
//!
//! Every key that is none of these is refused. What is wrong within a rule is that rule's alone: the others hold.

use super::located::{Node, Value, parse as parse_yaml};
use crate::text::start_of;
use crate::time::parse_duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use super::located::Place;

/// Most bytes of a file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Most rules of one kind.
pub const RULES_MAX: usize = 1_000;

/// A file's rules.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Rules for metrics of objects.
    pub rules: Vec<Written<RuleText>>,
    /// Rules for external metrics.
    pub external: Vec<Written<RuleText>>,
    /// Rules for cpu and memory.
    pub resource: Option<Written<ResourceRulesText>>,
}

/// A rule at its place, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// What it is called in messages: `rules[0]`.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// The rule, or why it can't be read.
    pub rule: Result<T, String>,
}

/// A rule as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleText {
    /// Which series.
    pub series_query: String,
    /// Of those, these by their names.
    pub filters: Vec<FilterText>,
    /// Which labels name objects.
    pub resources: ResourcesText,
    /// Which names of series are meant, a regular expression.
    pub matches: Option<String>,
    /// The metric's name, with groups of `matches`.
    pub named_as: Option<String>,
    /// The query that answers, a template.
    pub metrics_query: String,
    /// Which server is asked.
    pub server: Option<String>,
}

/// A filter of series by their names, a regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterText {
    /// Those that it matches.
    Is(String),
    /// Those that it does not match.
    IsNot(String),
}

/// Which labels name objects of which resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcesText {
    /// A template that makes a label of a resource.
    pub template: Option<String>,
    /// Resources by label.
    pub overrides: BTreeMap<String, GroupResource>,
    /// Whether an external metric's question is bound to its namespace.
    pub namespaced: Option<bool>,
}

/// A resource and its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupResource {
    /// Empty: any.
    pub group: String,
    /// Singular or plural.
    pub resource: String,
}

/// Rules for cpu and memory, as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRulesText {
    /// For cpu.
    pub cpu: ResourceRuleText,
    /// For memory.
    pub memory: ResourceRuleText,
    /// The window that answers carry.
    pub window: Duration,
    /// Which server is asked.
    pub server: Option<String>,
}

/// A rule for cpu or memory, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRuleText {
    /// The query for containers, a template.
    pub container_query: String,
    /// The query for nodes, a template.
    pub node_query: String,
    /// Which labels name objects.
    pub resources: ResourcesText,
    /// The label that names a container.
    pub container_label: String,
}

/// Reads a file's text.
///
/// # Errors
/// When it is no YAML, or holds what no such file has. What is wrong within one rule is told in its place instead.
pub fn parse(text: &str) -> Result<File, String> {
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    let root = parse_yaml(text)?;
    let mut file = File::default();
    let Some(mut keys) = Keys::of(root, "the file")? else { return Ok(file) };
    file.rules = rules(keys.take("rules"), "rules")?;
    file.external = rules(keys.take("externalRules"), "externalRules")?;
    file.resource =
        keys.take("resourceRules").filter(|node| !matches!(node.value, Value::Null)).map(|node| {
            let (name, place) = ("resourceRules".to_owned(), node.place);
            Written { name, place, rule: resource_rules(node) }
        });
    keys.end("the file", "rules, externalRules, resourceRules")?;
    Ok(file)
}

fn rules(node: Option<Node>, list: &str) -> Result<Vec<Written<RuleText>>, String> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let rules = match node.value {
        Value::Null => Vec::new(),
        Value::List(rules) => rules,
        other => return Err(format!("{}: {list} is {}, and a list is wanted", node.place, other.kind())),
    };
    if rules.len() > RULES_MAX {
        return Err(format!("{}: {} {list} are more than {RULES_MAX}", node.place, rules.len()));
    }
    let written = |(number, node): (usize, Node)| {
        let (name, place) = (format!("{list}[{number}]"), node.place);
        Written { name, place, rule: rule(node) }
    };
    Ok(rules.into_iter().enumerate().map(written).collect())
}

fn rule(node: Node) -> Result<RuleText, String> {
    let place = node.place;
    let Some(mut keys) = Keys::of(node, "a rule")? else { return Err(format!("{place}: the rule is empty")) };
    let filters = keys.take("seriesFilters").map(filters).transpose()?.unwrap_or_default();
    let resources = keys.take("resources").map(resources).transpose()?.unwrap_or_default();
    let (matches, named_as) = keys.take("name").map(name).transpose()?.unwrap_or_default();
    let mut text = |key: &str| keys.take(key).map(|node| text_of(node, key)).transpose();
    let (series_query, metrics_query) = (text("seriesQuery")?, text("metricsQuery")?);
    let server = text("prometheus")?;
    keys.end("a rule", "seriesQuery, seriesFilters, resources, name, metricsQuery, prometheus")?;
    let needed = |text: Option<String>, key: &str| {
        text.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("{place}: the rule has no {key}"))
    };
    Ok(RuleText {
        series_query: needed(series_query, "seriesQuery")?,
        metrics_query: needed(metrics_query, "metricsQuery")?,
        filters,
        resources,
        matches,
        named_as,
        server,
    })
}

fn filters(node: Node) -> Result<Vec<FilterText>, String> {
    let list = match node.value {
        Value::Null => Vec::new(),
        Value::List(list) => list,
        other => {
            return Err(format!("{}: seriesFilters is {}, and a list is wanted", node.place, other.kind()));
        }
    };
    let filter = |node: Node| {
        let place = node.place;
        let wanted = || format!("{place}: a filter has one of is and isNot");
        let mut keys = Keys::of(node, "a filter")?.ok_or_else(wanted)?;
        let mut text = |key: &str| keys.take(key).map(|node| text_of(node, key)).transpose();
        let (is, is_not) = (text("is")?, text("isNot")?);
        keys.end("a filter", "is, isNot")?;
        match (is.filter(|text| !text.is_empty()), is_not.filter(|text| !text.is_empty())) {
            (Some(is), None) => Ok(FilterText::Is(is)),
            (None, Some(is_not)) => Ok(FilterText::IsNot(is_not)),
            _ => Err(wanted()),
        }
    };
    list.into_iter().map(filter).collect()
}

fn resources(node: Node) -> Result<ResourcesText, String> {
    let Some(mut keys) = Keys::of(node, "resources")? else { return Ok(ResourcesText::default()) };
    let template = keys.take("template").map(|node| text_of(node, "template")).transpose()?;
    let namespaced = match keys.take("namespaced") {
        None | Some(Node { value: Value::Null, .. }) => None,
        Some(Node { value: Value::Bool(is), .. }) => Some(is),
        Some(Node { place, value }) => {
            return Err(format!("{place}: namespaced is {}, and true or false is wanted", value.kind()));
        }
    };
    let mut overrides = BTreeMap::new();
    if let Some(mut labels) =
        keys.take("overrides").map(|node| Keys::of(node, "overrides")).transpose()?.flatten()
    {
        for (label, node) in std::mem::take(&mut labels.pairs) {
            let place = node.place;
            let wanted = || format!("{place}: the override of {label:?} wants {{resource: NAME}}");
            let mut keys = Keys::of(node, "an override")?.ok_or_else(wanted)?;
            let mut text = |key: &str| keys.take(key).map(|node| text_of(node, key)).transpose();
            let (group, resource) = (text("group")?.unwrap_or_default(), text("resource")?);
            keys.end("an override", "group, resource")?;
            let resource = resource.filter(|name| !name.is_empty()).ok_or_else(wanted)?;
            overrides.insert(label, GroupResource { group, resource });
        }
    }
    keys.end("resources", "template, overrides, namespaced")?;
    Ok(ResourcesText { template: template.filter(|text| !text.is_empty()), overrides, namespaced })
}

type Name = (Option<String>, Option<String>);

fn name(node: Node) -> Result<Name, String> {
    let Some(mut keys) = Keys::of(node, "name")? else { return Ok(Name::default()) };
    let mut text = |key: &str| -> Result<Option<String>, String> {
        let text = keys.take(key).map(|node| text_of(node, key)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    let name = (text("matches")?, text("as")?);
    keys.end("name", "matches, as")?;
    Ok(name)
}

fn resource_rules(node: Node) -> Result<ResourceRulesText, String> {
    let place = node.place;
    let mut keys =
        Keys::of(node, "resourceRules")?.ok_or_else(|| format!("{place}: resourceRules is empty"))?;
    let mut rule = |key: &str| {
        let node = keys.take(key).ok_or_else(|| format!("{place}: resourceRules has no {key}"))?;
        resource_rule(node, key)
    };
    let (cpu, memory) = (rule("cpu")?, rule("memory")?);
    let window = match keys.take("window") {
        None => Duration::from_secs(60),
        Some(node) => {
            let at = node.place;
            let text = text_of(node, "window")?;
            let ms = parse_duration(&text).map_err(|error| format!("{at}: window: {error}"))?;
            Duration::from_millis(ms.unsigned_abs())
        }
    };
    let server = keys.take("prometheus").map(|node| text_of(node, "prometheus")).transpose()?;
    keys.end("resourceRules", "cpu, memory, window, prometheus")?;
    Ok(ResourceRulesText { cpu, memory, window, server })
}

fn resource_rule(node: Node, name: &str) -> Result<ResourceRuleText, String> {
    let place = node.place;
    let mut keys = Keys::of(node, name)?.ok_or_else(|| format!("{place}: {name} is empty"))?;
    let resources = keys.take("resources").map(resources).transpose()?.unwrap_or_default();
    let mut needed = |key: &str| {
        let text = keys.take(key).map(|node| text_of(node, key)).transpose()?;
        text.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("{place}: {name} has no {key}"))
    };
    let (container_query, node_query) = (needed("containerQuery")?, needed("nodeQuery")?);
    let container_label = needed("containerLabel")?;
    keys.end(name, "containerQuery, nodeQuery, resources, containerLabel")?;
    Ok(ResourceRuleText { container_query, node_query, resources, container_label })
}

fn text_of(node: Node, key: &str) -> Result<String, String> {
    match node.value {
        Value::Text(text) => Ok(text),
        Value::Bool(is) => Ok(is.to_string()),
        Value::Null => Ok(String::new()),
        other => Err(format!("{}: {key} is {}, and a text is wanted", node.place, other.kind())),
    }
}

/// The pairs of a map that nobody has taken yet.
struct Keys {
    pairs: Vec<(String, Node)>,
}

impl Keys {
    /// `None`: nothing is written there.
    fn of(node: Node, what: &str) -> Result<Option<Self>, String> {
        let pairs = match node.value {
            Value::Null => return Ok(None),
            Value::Map(pairs) => pairs,
            other => return Err(format!("{}: {what} is {}, and a map is wanted", node.place, other.kind())),
        };
        let mut names = BTreeSet::new();
        if let Some((name, node)) = pairs.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(format!("{}: {:?} is given twice", node.place, start_of(name)));
        }
        Ok(Some(Self { pairs }))
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// Refuses what has not been taken.
    fn end(self, what: &str, known: &str) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, node)) => {
                Err(format!("{}: {:?} is no key of {what}: it has {known}", node.place, start_of(name)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
