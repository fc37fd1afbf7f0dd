//! Who is asked PromQL: the store of this server, or a server that speaks Prometheus' HTTP API.

use crate::store::Scope;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// By which name a rule means the store of this server.
pub const OWN_STORE: &str = "store";

/// Most shapes of series that one answer may have; what is beyond is left out.
pub const SHAPES_MAX: usize = 50_000;

/// A series without the values of its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesShape {
    /// The metric's name.
    pub name: String,
    /// The names of its labels, sorted, without the metric's name.
    pub labels: Vec<String>,
}

/// A value at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its labels; none for a scalar.
    pub labels: BTreeMap<String, String>,
    /// When, Unix milliseconds.
    pub time_ms: i64,
    /// The value.
    pub value: f64,
}

/// Why a source gave no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SourceError {
    /// It can't evaluate the query.
    #[error("{0}")]
    Refused(String),
    /// It can't be asked at present.
    #[error("{0}")]
    Unavailable(String),
}

/// Answers PromQL.
#[async_trait]
pub trait PromQl: Send + Sync + 'static {
    /// Evaluates a query at an instant.
    async fn instant(
        &self,
        scope: &Scope,
        query: &str,
        time_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<Point>, SourceError>;

    /// The shapes of the series that a selector chooses and that have samples in `[start_ms, end_ms]`.
    async fn shapes(
        &self,
        selector: &str,
        start_ms: i64,
        end_ms: i64,
        timeout: Duration,
    ) -> Result<BTreeSet<SeriesShape>, SourceError>;

    /// Whether it shows a caller with a scope no more than that scope, whatever is asked.
    fn keeps_scopes(&self) -> bool;

    /// Whether names of up to so many bytes may go into one query.
    fn names_bytes_max(&self) -> usize;
}

/// The names by which rules choose a source, of which the first is meant where a rule says nothing.
#[derive(Clone, Debug)]
pub struct SourceNames(Vec<String>);

impl SourceNames {
    /// These.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The place of the source of a name; without a name the first.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(&self, name: Option<&str>) -> Result<usize, String> {
        let Some(name) = name else { return Ok(0) };
        self.0.iter().position(|known| known == name).ok_or_else(|| {
            format!("prometheus: there is no server {name:?}: there are {}", self.0.join(", "))
        })
    }

    /// Whether this place is the store of this server.
    #[must_use]
    pub fn is_own_store(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|name| name == OWN_STORE)
    }
}

/// The sources.
#[derive(Clone)]
pub struct Sources {
    names: SourceNames,
    sources: Vec<Arc<dyn PromQl>>,
}

impl Sources {
    /// These, by their names; at least one.
    #[must_use]
    pub fn new(named: Vec<(String, Arc<dyn PromQl>)>) -> Self {
        let (names, sources) = named.into_iter().unzip();
        Self { names: SourceNames(names), sources }
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> &SourceNames {
        &self.names
    }

    /// The name and the source at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<(&str, &Arc<dyn PromQl>)> {
        Some((self.names.0.get(place)?.as_str(), self.sources.get(place)?))
    }
}
