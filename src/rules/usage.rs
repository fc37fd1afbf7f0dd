//! `resourceRules`: what pods and nodes use, by queries, for `metrics.k8s.io`.
//!
//! A container without cpu or without memory is not told of, and nor is its pod: a part of it would look like a pod that
//! uses little (prometheus-adapter puts 0 there). The pause container, for which cAdvisor mostly tells cpu and no memory,
//! is left out, and keeps no pod from being told of. Of which series the queries are is theirs to say, so the time
//! of a value is that of the question.

use super::association::Association;
use super::config::{ResourceRuleText, ResourceRulesText};
use super::matchers::{Arguments, Names};
use super::question::Unanswered;
use super::relist::Rules;
use super::source::{Point, SourceError, SourceNames};
use super::template::Template;
use crate::kubernetes::mapping::Resolver;
use crate::query::usage::{PAUSE_CONTAINER, PodUsage, Usage};
use crate::store::Scope;
use crate::time::whole_ms;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rules for cpu and memory that can be used.
#[derive(Debug)]
pub struct ResourceRules {
    cpu: Queries,
    memory: Queries,
    window: Duration,
    source: usize,
}

/// The queries for cpu, or for memory.
#[derive(Debug)]
struct Queries {
    name: &'static str,
    containers: Template,
    nodes: Template,
    association: Association,
    container_label: String,
}

impl ResourceRules {
    /// Of rules as they are written.
    ///
    /// # Errors
    /// Why they can't be used.
    pub fn of(text: &ResourceRulesText, sources: &SourceNames) -> Result<Self, String> {
        Ok(Self {
            cpu: Queries::of("cpu", &text.cpu)?,
            memory: Queries::of("memory", &text.memory)?,
            window: text.window,
            source: sources.find(text.server.as_deref())?,
        })
    }
}

impl Queries {
    fn of(name: &'static str, text: &ResourceRuleText) -> Result<Self, String> {
        let template = |text: &str, key: &str| {
            Template::parse(text).map_err(|problem| format!("resourceRules: {name}: {key}: {problem}"))
        };
        let queries = Self {
            name,
            containers: template(&text.container_query, "containerQuery")?,
            nodes: template(&text.node_query, "nodeQuery")?,
            association: Association::of(&text.resources)?,
            container_label: text.container_label.clone(),
        };
        // An example, so that what can't be rendered is told now.
        let arguments = Arguments::of("").within("namespace", "shop").about("pod", Names::All);
        for (template, key) in [(&queries.containers, "containerQuery"), (&queries.nodes, "nodeQuery")] {
            render(template, &arguments)
                .map_err(|problem| format!("resourceRules: {name}: {key}: {problem}"))?;
        }
        Ok(queries)
    }

    /// The label of a resource's objects.
    fn label(&self, resource: &str, resolver: &Resolver) -> String {
        let known = resolver.resolve(resource).ok();
        let label = known.and_then(|known| self.association.label_of(&known, resolver));
        label.unwrap_or_else(|| resource.trim_end_matches('s').to_owned())
    }
}

fn render(template: &Template, arguments: &Arguments) -> Result<String, String> {
    let value = arguments.to_value(template.uses_raw_values()).map_err(|error| error.to_string())?;
    template.render(&value)
}

/// What is asked about.
pub struct UsageAsked<'a> {
    /// Of which namespace; `None`: of all, or the objects lie in none.
    pub namespace: Option<&'a str>,
    /// Of which object; `None`: of all.
    pub name: Option<&'a str>,
    /// Whose question it is.
    pub scope: &'a Scope,
    /// Finds resources.
    pub resolver: &'a Resolver,
    /// When.
    pub now_ms: i64,
}

impl Rules {
    /// What pods use, by namespace and name; `None`: there are no rules for that.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn pods_usage(&self, asked: &UsageAsked<'_>) -> Result<Option<Vec<PodUsage>>, Unanswered> {
        let Some(rules) = self.resource_rules() else { return Ok(None) };
        let (cpu, memory) = tokio::try_join!(
            self.of_pods(&rules, &rules.cpu, asked),
            self.of_pods(&rules, &rules.memory, asked)
        )?;
        let mut pods: BTreeMap<(String, String), Option<BTreeMap<String, Usage>>> = BTreeMap::new();
        let containers = cpu.keys().chain(memory.keys()).cloned().collect::<std::collections::BTreeSet<_>>();
        for key in containers {
            let used = cpu.get(&key).zip(memory.get(&key)).and_then(|(cpu, memory)| rules.usage(cpu, memory));
            let (namespace, pod, container) = key;
            let all = pods.entry((namespace, pod)).or_insert_with(|| Some(BTreeMap::new()));
            match (all.as_mut(), used) {
                (Some(all), Some(used)) => drop(all.insert(container, used)),
                _ => *all = None,
            }
        }
        let told = |((namespace, name), containers): ((String, String), Option<BTreeMap<String, Usage>>)| {
            Some(PodUsage { namespace, name, containers: containers? })
        };
        Ok(Some(pods.into_iter().filter_map(told).collect()))
    }

    /// What nodes use, by name; `None`: there are no rules for that.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn nodes_usage(
        &self,
        asked: &UsageAsked<'_>,
    ) -> Result<Option<BTreeMap<String, Usage>>, Unanswered> {
        let Some(rules) = self.resource_rules() else { return Ok(None) };
        let (cpu, memory) = tokio::try_join!(
            self.of_nodes(&rules, &rules.cpu, asked),
            self.of_nodes(&rules, &rules.memory, asked)
        )?;
        let node = |(name, cpu): (String, Point)| {
            let used = rules.usage(&cpu, memory.get(&name)?)?;
            Some((name, used))
        };
        Ok(Some(cpu.into_iter().filter_map(node).collect()))
    }

    async fn of_pods(
        &self,
        rules: &ResourceRules,
        queries: &Queries,
        asked: &UsageAsked<'_>,
    ) -> Result<BTreeMap<(String, String, String), Point>, Unanswered> {
        let pod_label = queries.label("pods", asked.resolver);
        let namespace_label = queries.association.namespace_label(asked.resolver);
        let mut arguments = Arguments::of("");
        if let Some(namespace) = asked.namespace {
            arguments = arguments.within(&namespace_label, namespace);
        }
        let names = asked.name.map(|name| [name]);
        arguments =
            arguments.about(&pod_label, names.as_ref().map_or(Names::All, |names| Names::These(names)));
        arguments = arguments.also_by(&queries.container_label);
        if asked.namespace.is_none() {
            // Pods of several namespaces may have one name.
            arguments = arguments.also_by(&namespace_label);
        }
        let points = self.usage_points(rules, queries, &queries.containers, &arguments, asked).await?;
        let key = |point: Point| {
            let label = |name: &str| point.labels.get(name).filter(|value| !value.is_empty()).cloned();
            let namespace = asked.namespace.map(str::to_owned).or_else(|| label(&namespace_label))?;
            let container = label(&queries.container_label).filter(|name| name != PAUSE_CONTAINER)?;
            Some(((namespace, label(&pod_label)?, container), point))
        };
        Ok(points.into_iter().filter_map(key).collect())
    }

    async fn of_nodes(
        &self,
        rules: &ResourceRules,
        queries: &Queries,
        asked: &UsageAsked<'_>,
    ) -> Result<BTreeMap<String, Point>, Unanswered> {
        let label = queries.label("nodes", asked.resolver);
        let names = asked.name.map(|name| [name]);
        let names = names.as_ref().map_or(Names::All, |names| Names::These(names));
        let arguments = Arguments::of("").about(&label, names);
        let points = self.usage_points(rules, queries, &queries.nodes, &arguments, asked).await?;
        let named =
            |point: Point| Some((point.labels.get(&label).filter(|name| !name.is_empty())?.clone(), point));
        Ok(points.into_iter().filter_map(named).collect())
    }

    async fn usage_points(
        &self,
        rules: &ResourceRules,
        queries: &Queries,
        template: &Template,
        arguments: &Arguments,
        asked: &UsageAsked<'_>,
    ) -> Result<Vec<Point>, Unanswered> {
        let rule = format!("resourceRules ({})", queries.name);
        let (server, source) = self.sources().get(rules.source).ok_or_else(|| Unanswered::Unavailable {
            server: rule.clone(),
            reason: "it names a server that is no more".to_owned(),
        })?;
        let server = server.to_owned();
        let value = arguments.to_value(template.uses_raw_values())?;
        let query = match template.render(&value) {
            Ok(query) => query,
            Err(reason) => return Err(Unanswered::Refused { rule, server, reason, query: String::new() }),
        };
        if *asked.scope != Scope::All && !source.keeps_scopes() {
            return Err(Unanswered::OutOfScope { rule, server });
        }
        let points = source.instant(asked.scope, &query, asked.now_ms, self.settings().query_timeout).await;
        points.map_err(|error| match error {
            SourceError::Refused(reason) => Unanswered::Refused { rule, server, reason, query },
            SourceError::Unavailable(reason) => Unanswered::Unavailable { server, reason },
        })
    }
}

impl ResourceRules {
    /// What is asked about the pods of a namespace, as an example.
    #[must_use]
    pub fn example(&self) -> String {
        let arguments = Arguments::of("").within("namespace", "lookback-sample").about("pod", Names::All);
        let arguments = arguments.also_by(&self.cpu.container_label);
        render(&self.cpu.containers, &arguments).unwrap_or_default()
    }

    fn usage(&self, cpu: &Point, memory: &Point) -> Option<Usage> {
        Some(Usage {
            cpu_nanocores: whole(cpu.value * 1e9)?,
            memory_bytes: whole(memory.value)?,
            timestamp_ms: cpu.time_ms.min(memory.time_ms),
            window_ms: whole_ms(self.window),
        })
    }
}

/// `None`: it is no amount of anything.
fn whole(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked right here")]
    (value.is_finite() && (0.0..1.8e19).contains(&value)).then(|| value.round() as u64)
}
