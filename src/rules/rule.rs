//! A rule that can be used, made of one that is written.

use super::association::Association;
use super::config::{Place, RuleText};
use super::matchers::{Arguments, CantAsk, Names};
use super::naming::Naming;
use super::source::SourceNames;
use super::template::Template;
use crate::query::promql::{Query, ValueType};
use crate::series_selector;

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Metrics of objects.
    Objects,
    /// External metrics.
    External,
}

/// Stands for a namespace when a rule is tried out.
const SAMPLE_NAMESPACE: &str = "lookback-sample";

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What it is called in messages: `rules[0]`.
    pub name: String,
    /// Where in the file it is.
    pub place: Place,
    /// The place of the source that is asked.
    pub source: usize,
    /// Chooses its series.
    pub selector: String,
    /// Names metrics.
    pub naming: Naming,
    /// Says which labels name objects.
    pub association: Association,
    /// Resources of which it is, with their groups; `None`: all that its series name.
    pub only: Option<&'static [&'static str]>,
    /// Whether an external question is bound to its namespace.
    pub is_namespaced: bool,
    /// Whether the namespace that is asked about goes into its query.
    pub keeps_namespace: bool,
    /// What it asks about an object, as an example.
    pub example: String,
    query: Template,
}

/// Why a rule has no query for a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQuery {
    /// The question can't be put into one.
    #[error(transparent)]
    CantAsk(#[from] CantAsk),
    /// The template fails.
    #[error("metricsQuery: {0}")]
    Template(String),
}

impl Rule {
    /// Of a rule as it is written.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn of(
        name: &str,
        place: Place,
        text: &RuleText,
        kind: Kind,
        sources: &SourceNames,
    ) -> Result<Self, String> {
        let source = sources.find(text.server.as_deref())?;
        series_selector::parse(&text.series_query).map_err(|error| format!("seriesQuery: {error}"))?;
        let naming = Naming::of(text)?;
        let association = Association::of(&text.resources)?;
        if kind == Kind::Objects && association.is_empty() {
            return Err(
                "resources has neither a template nor overrides: no label would name an object; write \
                 template: \"<<.Resource>>\""
                    .to_owned(),
            );
        }
        let query =
            Template::parse(&text.metrics_query).map_err(|problem| format!("metricsQuery: {problem}"))?;
        let mut rule = Self {
            name: name.to_owned(),
            place,
            source,
            selector: text.series_query.clone(),
            naming,
            association,
            only: None,
            is_namespaced: text.resources.namespaced.unwrap_or(true),
            keeps_namespace: false,
            example: String::new(),
            query,
        };
        rule.example = rule.try_out(kind, sources)?;
        rule.keeps_namespace = rule.example.contains(SAMPLE_NAMESPACE);
        Ok(rule)
    }

    /// For these resources only.
    #[must_use]
    pub fn only(mut self, resources: &'static [&'static str]) -> Self {
        self.only = Some(resources);
        self
    }

    /// Renders an example, which must be a query that can be evaluated where this is to be.
    fn try_out(&self, kind: Kind, sources: &SourceNames) -> Result<String, String> {
        let mut arguments = Arguments::of("series");
        if kind == Kind::Objects || self.is_namespaced {
            arguments = arguments.within("namespace", SAMPLE_NAMESPACE);
        }
        if kind == Kind::Objects {
            arguments = arguments.about("pod", Names::These(&["pod1", "pod2"]));
        }
        let text = self.promql(&arguments).map_err(|error| error.to_string())?;
        match Query::parse(&text) {
            Err(error) if sources.is_own_store(self.source) => {
                Err(format!("metricsQuery: {text} can't be evaluated: {error}"))
            }
            // Another engine may understand more.
            Err(_) => Ok(text),
            Ok(query) => match (query.value_type(), kind) {
                (ValueType::Vector, _) | (ValueType::Scalar, Kind::External) => Ok(text),
                (ValueType::Scalar, Kind::Objects) => Err(format!(
                    "metricsQuery: {text} gives a scalar, which is of no object: leave scalar() out"
                )),
                (other, _) => {
                    Err(format!("metricsQuery: {text} gives a {other}, and an instant vector is wanted"))
                }
            },
        }
    }

    /// The query that answers a question.
    ///
    /// # Errors
    /// When there is none.
    pub fn promql(&self, arguments: &Arguments) -> Result<String, NoQuery> {
        let value = arguments.to_value(self.query.uses_raw_values())?;
        let text = self.query.render(&value).map_err(NoQuery::Template)?;
        if text.trim().is_empty() {
            return Err(NoQuery::Template("it renders to nothing".to_owned()));
        }
        Ok(text)
    }
}
