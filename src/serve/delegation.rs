//! Lists in discovery what the adapters answer to which Lookback delegates.
//!
//! Read in the background; what an adapter listed before stays while it can't be read, so that discovery
//! neither waits for another server nor shrinks with it.

use crate::app::{App, Delegates};
use crate::kubernetes::adapter::{Adapter, AdapterError, Listed};
use crate::kubernetes::catalog::{Entry, Listing};
use crate::kubernetes::served::GroupVersion;
use std::time::Duration;
use tracing::{info, warn};

/// From one reading to the next, at the most, where an adapter could not be read.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// By whom the listing goes in the catalog.
const WHOSE: &str = "delegate";

/// Keeps them listed until `shutdown`.
pub(super) async fn keep_listed(app: App, shutdown: impl Future<Output = ()>) {
    let Delegates { discovery_interval, custom, external } = app.delegates().clone();
    if custom.is_none() && external.is_none() {
        return;
    }
    let keeping = async {
        let (mut listing, mut is_failing) = (Listing::default(), false);
        loop {
            let read = read_all(&mut listing, custom.as_deref(), external.as_deref()).await;
            app.catalog.list_also(WHOSE, listing.clone(), app.settings.discovery_max);
            match &read {
                Ok(()) if is_failing => info!("discovery lists what the adapters behind Lookback have again"),
                Err((adapter, error)) if !is_failing => {
                    warn!(adapter, %error, "discovery lists what this adapter had before: it can't be read");
                }
                _ => {}
            }
            is_failing = read.is_err();
            let retry_interval = discovery_interval.min(RETRY_INTERVAL_MAX);
            tokio::time::sleep(if is_failing { retry_interval } else { discovery_interval }).await;
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = keeping => {}
    }
}

/// Reads what can be read; the last failure.
async fn read_all(
    listing: &mut Listing,
    custom: Option<&Adapter>,
    external: Option<&Adapter>,
) -> Result<(), (String, AdapterError)> {
    let mut failed = Ok(());
    if let Some(adapter) = custom {
        match list_custom(adapter).await {
            Ok(listed) => listing.entries = listed.into_iter().filter_map(entry).collect(),
            Err(error) => failed = Err((adapter.name().to_owned(), error)),
        }
    }
    if let Some(adapter) = external {
        match adapter.list(GroupVersion::ExternalV1Beta1).await {
            Ok(listed) => {
                let names = listed.into_iter().map(|listed| listed.name);
                listing.external = names.filter(|name| is_name(name)).collect();
            }
            Err(error) => failed = Err((adapter.name().to_owned(), error)),
        }
    }
    failed
}

/// All versions list the same; not every adapter has both.
async fn list_custom(adapter: &Adapter) -> Result<Vec<Listed>, AdapterError> {
    match adapter.list(GroupVersion::CustomV1Beta1).await {
        Err(AdapterError::Status { code: 404, .. }) => adapter.list(GroupVersion::CustomV1Beta2).await,
        listed => listed,
    }
}

/// What is no `resource/metric` is left out: it would make the cluster's discovery wrong.
fn entry(listed: Listed) -> Option<Entry> {
    let (resource, metric) = listed.name.split_once('/')?;
    let is_whole = is_name(resource) && is_name(metric);
    let entry =
        || Entry { resource: resource.to_owned(), metric: metric.to_owned(), namespaced: listed.namespaced };
    is_whole.then(entry)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && !text.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_of_resources_are_listed() {
        let of = |name: &str| entry(Listed { name: name.to_owned(), namespaced: true });
        let known = Entry { resource: "pods".to_owned(), metric: "rps".to_owned(), namespaced: true };
        assert_eq!(of("pods/rps"), Some(known));
        for name in ["pods", "pods/", "/rps", "pods/a/b", &format!("pods/{}", "x".repeat(600))] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
