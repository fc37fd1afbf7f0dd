//! From a target as it is discovered to one that is scraped: Prometheus' labels of a target, relabelled.
//!
//! A target's address, scheme, path, parameters, interval and timeout are labels (`__address__`, `__scheme__`,
//! `__metrics_path__`, `__param_…`, `__scrape_interval__`, `__scrape_timeout__`) while it is relabelled; then
//! all labels that begin with `__` go.

use super::relabel::{LabelSet, Rule};
use super::settings::{Job, Target, Tls, address};
use crate::text::start_of;
use crate::time::{format_duration, parse_duration, whole_ms};
use lookback_storage::{Labels, METRIC_NAME_LABEL};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the targets of a job have in common before they are relabelled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Common {
    /// The job's name.
    pub(super) name: String,
    /// How its targets are asked over plain HTTP.
    pub(super) job: Arc<Job>,
    /// The same over TLS.
    pub(super) job_tls: Arc<Job>,
    /// Whether they are asked over TLS unless relabelled.
    pub(super) https: bool,
    pub(super) path: String,
    pub(super) params: BTreeMap<String, Vec<String>>,
    /// `relabel_configs`
    pub(super) rules: Vec<Rule>,
}

impl Common {
    /// The variants of a job.
    pub(super) fn variants(job: Job, tls: Tls) -> (Arc<Job>, Arc<Job>) {
        (Arc::new(Job { tls: None, ..job.clone() }), Arc::new(Job { tls: Some(tls), ..job }))
    }

    /// The target at an address, with labels of its own; `None`: a rule leaves it out.
    pub(super) fn target(
        &self,
        at: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<Target>, String> {
        let (interval, timeout) = (span_text(self.job.interval), span_text(self.job.timeout));
        let mut all: BTreeMap<String, String> = self
            .params
            .iter()
            .filter_map(|(name, values)| Some((format!("__param_{name}"), values.first()?.clone())))
            .collect();
        for (name, value) in [
            ("job", self.name.as_str()),
            ("__address__", at),
            ("__scheme__", if self.https { "https" } else { "http" }),
            ("__metrics_path__", &self.path),
            ("__scrape_interval__", &interval),
            ("__scrape_timeout__", &timeout),
        ] {
            all.insert(name.to_owned(), value.to_owned());
        }
        all.extend(labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.retain(|_, value| !value.is_empty());
        let mut set = LabelSet::of(all.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if !set.relabel(&self.rules) {
            return Ok(None);
        }
        self.relabelled(&set).map(Some)
    }

    fn relabelled(&self, set: &LabelSet<'_>) -> Result<Target, String> {
        let https = match set.get("__scheme__") {
            "https" => true,
            "http" | "" => false,
            other => return Err(format!("{:?} is no scheme: write http or https", start_of(other))),
        };
        let address = address(set.get("__address__"), https)?;
        let own = set.iter().filter(|(name, _)| !name.starts_with("__"));
        let mut labels: BTreeMap<String, String> =
            own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        labels.entry("instance".to_owned()).or_insert_with(|| address.clone());
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Labels::new(pairs.chain([(METRIC_NAME_LABEL, "up")])).map_err(|error| error.to_string())?;
        Ok(Target {
            address,
            path: self.path(set)?,
            labels: labels.into_iter().collect(),
            job: self.job(https, set)?,
        })
    }

    fn job(&self, https: bool, set: &LabelSet<'_>) -> Result<Arc<Job>, String> {
        let job = if https { &self.job_tls } else { &self.job };
        let (interval, timeout) =
            (span(set.get("__scrape_interval__"))?, span(set.get("__scrape_timeout__"))?);
        if (interval, timeout) == (job.interval, job.timeout) {
            return Ok(Arc::clone(job));
        }
        if timeout > interval {
            return Err("the scrape_timeout is longer than the scrape_interval".to_owned());
        }
        Ok(Arc::new(Job { interval, timeout, ..(**job).clone() }))
    }

    fn path(&self, set: &LabelSet<'_>) -> Result<String, String> {
        let path = set.get("__metrics_path__");
        let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut params = self.params.clone();
        for (name, value) in set.iter() {
            let Some(name) = name.strip_prefix("__param_") else { continue };
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => value.clone_into(first),
                None => values.push(value.to_owned()),
            }
        }
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        for (name, value) in
            params.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        {
            path.push(if path.contains('?') { '&' } else { '?' });
            path += &format!("{}={}", encoded(name), encoded(value));
        }
        path.parse::<axum::http::uri::PathAndQuery>().map_err(|_| format!("{path:?} is no path"))?;
        Ok(path)
    }
}

fn span_text(span: Duration) -> String {
    format_duration(whole_ms(span))
}

fn span(text: &str) -> Result<Duration, String> {
    let ms = parse_duration(text).map_err(|error| error.to_string())?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}
