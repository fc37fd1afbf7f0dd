//! The rules of `--config`, kept as their file and the series are.

use crate::app::{App, Settings};
use crate::config::{PrometheusArgs, PrometheusArgsError, RulesArgs};
use crate::http::reload;
use crate::kubernetes::catalog::Listing;
use crate::query::promql::Options;
use crate::rules::source::{OWN_STORE, PromQl, Sources};
use crate::rules::{OwnStore, PrometheusServer, Rules, RulesSettings, defaults};
use crate::store::Store;
use crate::time::whole_ms;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// From one relist to the next, where the own store is asked.
const OWN_RELIST_INTERVAL: Duration = Duration::from_secs(30);

/// The same, where servers are asked.
const RELIST_INTERVAL: Duration = Duration::from_secs(60);

/// What a series' age may be at the least, unless said: what PromQL looks back.
const MAX_AGE_MIN: Duration = Duration::from_secs(300);

/// After a failure it is tried again so soon at first.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Most of a question's time: autoscalers wait 30 s.
const QUERY_TIMEOUT_MAX: Duration = Duration::from_secs(25);

/// Why the rules can't be used.
#[derive(Debug, Error)]
pub enum RulesFileError {
    /// It can't be read.
    #[error("the rules {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// As a whole it is not what is documented.
    #[error("the rules {} are wrong: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A server can't be asked.
    #[error(transparent)]
    Servers(#[from] PrometheusArgsError),
    /// The rules that hold without a file are wrong: a defect.
    #[error("a defect of Lookback: the built-in rules are wrong: {0}")]
    BuiltIn(String),
}

/// The text of a file of rules.
///
/// # Errors
/// When it can't be read.
pub fn read(path: &Path) -> Result<String, RulesFileError> {
    let unreadable = |reason| RulesFileError::Unreadable { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than may be, which is then told.
    let bytes_max = crate::rules::config::FILE_BYTES_MAX as u64 + 1;
    file.take(bytes_max).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// The rules that flags ask for; `None`: none do.
///
/// # Errors
/// When a file can't be used as a whole, or a server can't be asked.
pub fn prepare(
    args: &RulesArgs,
    servers: &PrometheusArgs,
    store: Arc<dyn Store>,
    settings: &Settings,
) -> Result<Option<Arc<Rules>>, RulesFileError> {
    let clients = servers.clients()?;
    if args.config.is_none() && clients.is_empty() {
        return Ok(None);
    }
    let default_interval = if clients.is_empty() { OWN_RELIST_INTERVAL } else { RELIST_INTERVAL };
    let relist_interval = args.metrics_relist_interval.unwrap_or(default_interval);
    let choices = RulesSettings {
        relist_interval,
        max_age: args.metrics_max_age.unwrap_or(relist_interval.max(MAX_AGE_MIN)),
        query_timeout: settings.query.timeout.min(QUERY_TIMEOUT_MAX),
    };
    let mut sources: Vec<(String, Arc<dyn PromQl>)> = Vec::new();
    for (name, client) in clients {
        sources.push((name, Arc::new(PrometheusServer::new(client, servers.prometheus_verb))));
    }
    sources.push((OWN_STORE.to_owned(), Arc::new(own_store(store, settings))));
    let sources = Sources::new(sources);
    let Some(path) = &args.config else {
        let built_in =
            defaults::rules(servers.rate_interval, sources.names()).map_err(RulesFileError::BuiltIn)?;
        let rules = Rules::new(sources, choices);
        rules.put_rules(built_in);
        return Ok(Some(Arc::new(rules)));
    };
    let rules = Rules::new(sources, choices).of_file(path.clone());
    let wrong = |problem| RulesFileError::Wrong { path: path.clone(), problem };
    rules.put_text(&read(path)?).map_err(wrong)?;
    Ok(Some(Arc::new(rules)))
}

fn own_store(store: Arc<dyn Store>, settings: &Settings) -> OwnStore {
    let query = &settings.query;
    let options = Options {
        values_max: settings.samples_max,
        lookback_ms: whole_ms(query.lookback_delta),
        default_step_ms: whole_ms(query.evaluation_interval),
        delayed_name_removal: query.delayed_name_removal,
    };
    OwnStore::new(store, options)
}

/// Keeps the app's rules as their file is, and what they name as the series are, until `shutdown`.
pub async fn keep(app: App, shutdown: impl Future<Output = ()>) {
    let Some(rules) = app.rules().cloned() else { return };
    app.metrics.rules.hold(&rules.statuses());
    let following = async {
        match rules.file() {
            Some(path) => {
                let again = || put_again(&app, &rules, path);
                reload::on_change(vec![path.to_owned()], reload::INTERVAL, again).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = following => {}
        () = relist(&app, &rules) => {}
    }
}

/// A file that can't be used leaves the rules before in force.
fn put_again(app: &App, rules: &Rules, path: &Path) {
    let wrong = |problem| RulesFileError::Wrong { path: path.to_owned(), problem };
    match read(path).and_then(|text| rules.put_text(&text).map_err(wrong)) {
        Ok(()) => {
            app.metrics.rules.hold(&rules.statuses());
            tracing::info!(path = %path.display(), "new rules hold");
        }
        Err(error) => {
            app.metrics.rules.broken();
            tracing::error!(%error, "the rules before hold on");
        }
    }
}

async fn relist(app: &App, rules: &Rules) {
    let mut retry = RETRY_MIN;
    let mut failed = 0u32;
    loop {
        let failures = rules.relist(&app.resolver(), app.clock.now_ms()).await;
        tell(app, rules, failures.len());
        let interval = rules.settings().relist_interval;
        let wait = if failures.is_empty() {
            (retry, failed) = (RETRY_MIN, 0);
            interval
        } else {
            // Once is no failure: the store is being opened.
            failed = failed.saturating_add(1);
            if failed == 2 {
                tracing::warn!(failures = failures.join("; "), "metrics of rules stay as they were known");
            }
            retry = (retry * 2).min(interval).max(RETRY_MIN);
            retry
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = rules.changed() => {
                rules.name_known(&app.resolver()).await;
                tell(app, rules, 0);
            }
        }
    }
}

fn tell(app: &App, rules: &Rules, failures: usize) {
    let metrics = rules.metrics();
    app.metrics.rules.relisted(metrics.len(), failures);
    let (entries, external) = metrics.entries();
    app.catalog.list_also("rules", Listing { entries, external }, app.settings.discovery_max);
}
