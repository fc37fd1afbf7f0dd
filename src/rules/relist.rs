//! The rules in force, and the metrics that they name: listed anew every so often.
//!
//! A source that does not answer leaves what was known of it, and is asked again sooner. A series that is gone stays
//! for one more relist and `max_age`: a gap in scraping does not take a metric away from its autoscaler.
//! New rules name their metrics at once, of the series that are known already.

use super::config::{File, Place, RuleText, Written, parse};
use super::listing::Metrics;
use super::rule::{Kind, Rule};
use super::source::{SHAPES_MAX, SeriesShape, SourceError, SourceNames, Sources};
use super::usage::ResourceRules;
use crate::kubernetes::mapping::Resolver;
use arc_swap::ArcSwap;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// Selectors that are asked for at once.
const AT_ONCE: usize = 4;

/// How long a list of series may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Choices about rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesSettings {
    /// From one relist to the next.
    pub relist_interval: Duration,
    /// How far back a series' samples may lie for it to be there.
    pub max_age: Duration,
    /// How long a question may take.
    pub query_timeout: Duration,
}

/// How a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is called: `rules[0]`.
    pub name: String,
    /// Where it is in the file.
    pub place: Place,
    /// What it asks, as an example; or why it is disabled.
    pub outcome: Result<String, String>,
}

/// How each rule of a file's text stands.
///
/// # Errors
/// When the file as a whole can't be used.
pub fn check(text: &str, sources: &SourceNames) -> Result<Vec<Status>, String> {
    Ok(InForce::of(parse(text)?, sources).statuses)
}

/// Rules that hold together.
#[derive(Default)]
struct InForce {
    objects: Vec<Arc<Rule>>,
    external: Vec<Arc<Rule>>,
    resource: Option<Arc<ResourceRules>>,
    statuses: Vec<Status>,
}

/// The place of a source, and a selector.
type Asked = (usize, String);

/// When a shape was last seen, Unix milliseconds.
type Seen = BTreeMap<SeriesShape, i64>;

/// The rules and what they find.
pub struct Rules {
    sources: Sources,
    settings: RulesSettings,
    file: Option<PathBuf>,
    in_force: ArcSwap<InForce>,
    metrics: ArcSwap<Metrics>,
    seen: Mutex<BTreeMap<Asked, Seen>>,
    /// Overrides without a resource that have been told.
    told: std::sync::Mutex<BTreeSet<String>>,
    /// Woken when there are new rules.
    changed: Notify,
}

impl Rules {
    /// No rules yet, over these sources.
    #[must_use]
    pub fn new(sources: Sources, settings: RulesSettings) -> Self {
        Self {
            sources,
            settings,
            file: None,
            in_force: ArcSwap::default(),
            metrics: ArcSwap::default(),
            seen: Mutex::default(),
            told: std::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The same, with the file that the rules are of.
    #[must_use]
    pub fn of_file(mut self, path: PathBuf) -> Self {
        self.file = Some(path);
        self
    }

    /// The file that the rules are of; `None`: they are built in.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Puts the rules of a file's text in force. What is wrong with single rules is told by
    /// [`statuses`](Self::statuses).
    ///
    /// # Errors
    /// When the file as a whole can't be used; then the rules before hold on.
    pub fn put_text(&self, text: &str) -> Result<(), String> {
        let file = parse(text)?;
        let in_force = InForce::of(file, self.sources.names());
        for Status { name, place, outcome } in &in_force.statuses {
            if let Err(reason) = outcome {
                tracing::error!(rule = name, %place, reason, "a rule is disabled; the others hold");
            }
        }
        self.put(in_force);
        Ok(())
    }

    /// Puts rules for metrics of objects in force.
    pub fn put_rules(&self, rules: Vec<Rule>) {
        let status = |rule: &Rule| Status {
            name: rule.name.clone(),
            place: rule.place,
            outcome: Ok(rule.example.clone()),
        };
        let statuses = rules.iter().map(status).collect();
        let objects = rules.into_iter().map(Arc::new).collect();
        self.put(InForce { objects, statuses, ..InForce::default() });
    }

    fn put(&self, in_force: InForce) {
        self.in_force.store(Arc::new(in_force));
        self.changed.notify_one();
    }

    /// How each rule stands.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.in_force.load().statuses.clone()
    }

    /// The rules for cpu and memory, where the file has any that can be used.
    #[must_use]
    pub fn resource_rules(&self) -> Option<Arc<ResourceRules>> {
        self.in_force.load().resource.clone()
    }

    /// The metrics there are. Never waits.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.load_full()
    }

    /// Who is asked.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Choices.
    #[must_use]
    pub fn settings(&self) -> &RulesSettings {
        &self.settings
    }

    /// Until there are new rules.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Names the metrics of the series that are known already: to be called when there are new rules.
    pub async fn name_known(&self, resolver: &Resolver) {
        let seen = self.seen.lock().await;
        self.name(&seen, resolver);
    }

    /// Lists the series anew and names their metrics. Answers why any of it failed; what was known of that
    /// stays.
    pub async fn relist(&self, resolver: &Resolver, now_ms: i64) -> Vec<String> {
        let in_force = self.in_force.load_full();
        let all = in_force.objects.iter().chain(&in_force.external);
        let asked: BTreeSet<Asked> = all.map(|rule| (rule.source, rule.selector.clone())).collect();
        let max_age_ms = crate::time::whole_ms(self.settings.max_age);
        let start_ms = now_ms.saturating_sub(max_age_ms);
        let list = |(place, selector): Asked| async move {
            let listed = match self.sources.get(place) {
                Some((_, source)) => source.shapes(&selector, start_ms, now_ms, LIST_TIMEOUT).await,
                None => Err(SourceError::Unavailable("there is no such server any more".to_owned())),
            };
            ((place, selector), listed)
        };
        let listed: Vec<_> = futures::stream::iter(asked.clone()).map(list).buffered(AT_ONCE).collect().await;

        let mut seen = self.seen.lock().await;
        let mut failures = Vec::new();
        seen.retain(|key, _| asked.contains(key));
        let grace_ms = max_age_ms.saturating_add(crate::time::whole_ms(self.settings.relist_interval));
        for (key, listed) in listed {
            match listed {
                Ok(shapes) => {
                    let known = seen.entry(key).or_default();
                    known.extend(shapes.into_iter().map(|shape| (shape, now_ms)));
                    known.retain(|_, seen_ms| now_ms.saturating_sub(*seen_ms) <= grace_ms);
                    bound(known);
                }
                Err(error) => {
                    let server = self.sources.get(key.0).map_or("", |(name, _)| name);
                    failures.push(format!("{server} does not list {}: {error}", key.1));
                }
            }
        }
        self.name(&seen, resolver);
        failures
    }

    fn name(&self, seen: &BTreeMap<Asked, Seen>, resolver: &Resolver) {
        let in_force = self.in_force.load_full();
        let shapes: BTreeMap<&Asked, BTreeSet<SeriesShape>> =
            seen.iter().map(|(key, known)| (key, known.keys().cloned().collect())).collect();
        let none = BTreeSet::new();
        let of = |rule: &Arc<Rule>| shapes.get(&(rule.source, rule.selector.clone())).unwrap_or(&none);
        let objects: Vec<_> = in_force.objects.iter().map(|rule| (rule, of(rule))).collect();
        let external: Vec<_> = in_force.external.iter().map(|rule| (rule, of(rule))).collect();
        let metrics = Metrics::of(objects.into_iter(), external.into_iter(), resolver);
        if metrics.left_out > 0 {
            tracing::warn!(left_out = metrics.left_out, "the rules name more metrics than are kept");
        }
        self.metrics.store(Arc::new(metrics));
        self.tell_unknown(&in_force, resolver);
    }

    /// Says once of each override that it names no resource: its label is no object's then.
    fn tell_unknown(&self, in_force: &InForce, resolver: &Resolver) {
        let mut unknown = BTreeSet::new();
        for rule in in_force.objects.iter().chain(&in_force.external) {
            for (label, named) in rule.association.unknown(resolver) {
                let group = if named.group.is_empty() { String::new() } else { format!(".{}", named.group) };
                unknown.insert(format!("{}: {label} is to be {}{group}", rule.name, named.resource));
            }
        }
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for what in unknown.difference(&told) {
            tracing::warn!(
                what,
                "an override names a resource that is not known here, and counts for nothing"
            );
        }
        *told = unknown;
    }
}

/// The oldest go where there are too many.
fn bound(known: &mut Seen) {
    if known.len() <= 2 * SHAPES_MAX {
        return;
    }
    let mut times: Vec<i64> = known.values().copied().collect();
    times.sort_unstable();
    let oldest_kept = times.get(times.len() - SHAPES_MAX).copied().unwrap_or(i64::MIN);
    known.retain(|_, seen_ms| *seen_ms >= oldest_kept);
    while known.len() > 2 * SHAPES_MAX {
        known.pop_last();
    }
}

impl InForce {
    fn of(file: File, sources: &SourceNames) -> Self {
        let mut in_force = Self::default();
        let mut usable = |written: Vec<Written<RuleText>>, kind: Kind| -> Vec<Arc<Rule>> {
            let mut rules = Vec::new();
            for Written { name, place, rule } in written {
                let rule = rule.and_then(|text| Rule::of(&name, place, &text, kind, sources));
                let outcome = match rule {
                    Ok(rule) => {
                        let example = rule.example.clone();
                        rules.push(Arc::new(rule));
                        Ok(example)
                    }
                    Err(reason) => Err(reason),
                };
                in_force.statuses.push(Status { name, place, outcome });
            }
            rules
        };
        let (objects, external) = (usable(file.rules, Kind::Objects), usable(file.external, Kind::External));
        (in_force.objects, in_force.external) = (objects, external);
        if let Some(Written { name, place, rule }) = file.resource {
            let outcome = match rule.and_then(|text| ResourceRules::of(&text, sources)) {
                Ok(rule) => {
                    let example = rule.example();
                    in_force.resource = Some(Arc::new(rule));
                    Ok(example)
                }
                Err(reason) => Err(reason),
            };
            in_force.statuses.push(Status { name, place, outcome });
        }
        in_force
    }
}

#[cfg(test)]
mod tests;
