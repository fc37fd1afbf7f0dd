//! Keeps the REST mapping as the cluster has it.
//!
//! Discovery is read at the start, at an interval, and when a name is not found, at most once in a while.
//! Until it has been read once, and wherever it can't be read, the built-in table answers, or what was
//! known before: an API server that is away changes nothing.

use super::cluster::reasons;
use super::mapping::{Discovered, Mapping, Resolver, discovered};
use arc_swap::ArcSwapOption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

/// How often discovery is read.
const INTERVAL: Duration = Duration::from_secs(300);
/// From one reading to the next, at the least, whatever is not found.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How long one reading may take.
const READING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one who asks for an unknown name waits for a reading.
const MISS_TIMEOUT: Duration = Duration::from_secs(3);

/// The mapping, kept up to date.
pub struct LiveMapping {
    client: Client,
    unknown_allowed: bool,
    current: ArcSwapOption<Mapping>,
    /// When discovery was last read or tried. Its lock is held while it is being read, so that many who
    /// miss a name wait for one reading.
    tried: Mutex<Option<Instant>>,
    missed: Notify,
}

impl LiveMapping {
    /// Of a cluster; nothing is read yet. `unknown_allowed`: pushes may name resources with a group that the
    /// cluster does not have.
    #[must_use]
    pub fn new(client: Client, unknown_allowed: bool) -> Self {
        let (current, tried, missed) = (ArcSwapOption::empty(), Mutex::new(None), Notify::new());
        Self { client, unknown_allowed, current, tried, missed }
    }

    /// Finds resources by what is known now. Never waits.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        match self.current.load_full() {
            Some(mapping) => Resolver::of_cluster(mapping, self.unknown_allowed),
            None => Resolver::default(),
        }
    }

    /// What is known now; `None`: discovery has not been read yet.
    #[must_use]
    pub fn mapping(&self) -> Option<Arc<Mapping>> {
        self.current.load_full()
    }

    /// Says that a name was not found: discovery is to be read soon. Never waits.
    pub fn missed(&self) {
        self.missed.notify_one();
    }

    /// Reads discovery because a name was not found, unless that was done a moment ago. Waits for it no
    /// longer than one who asks can.
    pub async fn refresh_after_miss(&self) {
        if timeout(MISS_TIMEOUT, self.refresh()).await.is_err() {
            self.missed();
        }
    }

    /// Keeps it up to date; never ends.
    pub async fn keep_fresh(&self) {
        loop {
            self.refresh().await;
            let interval = if self.current.load().is_some() { INTERVAL } else { INTERVAL_MIN };
            let _ = timeout(interval, self.missed.notified()).await;
            tokio::time::sleep(INTERVAL_MIN).await;
        }
    }

    /// Reads discovery, unless that was tried a moment ago.
    async fn refresh(&self) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < INTERVAL_MIN) {
            return;
        }
        *tried = Some(Instant::now());
        match timeout(READING_TIMEOUT, read(&self.client)).await {
            Ok(Ok(mapping)) => self.put(mapping),
            Ok(Err(error)) => warn!(error = %reasons(&error), "the cluster's resources can't be read"),
            Err(_) => warn!("the cluster's resources were not told within {READING_TIMEOUT:?}"),
        }
    }

    fn put(&self, mapping: Mapping) {
        if mapping.left_out() > 0 {
            warn!(left_out = mapping.left_out(), "the cluster has more resources than are looked at");
        }
        match self.current.load().as_ref().map(|known| known.len()) {
            Some(known) if known == mapping.len() => {
                debug!(resources = known, "read the cluster's resources")
            }
            _ => info!(resources = mapping.len(), "read the cluster's resources"),
        }
        self.current.store(Some(Arc::new(mapping)));
    }
}

/// By two requests where the API server has aggregated discovery (Kubernetes 1.26), else one a group.
async fn read(client: &Client) -> Result<Mapping, kube::Error> {
    let (core, groups) =
        tokio::join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated());
    if let (Ok(core), Ok(groups)) = (core, groups) {
        let mapping = Mapping::of(discovered(core.items).chain(discovered(groups.items)));
        // Older ones answer with another document, which has none.
        if !mapping.is_empty() {
            return Ok(mapping);
        }
    }
    let mut found = of_list("", "v1", client.list_core_api_resources("v1").await?);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.iter().map(|version| &version.group_version);
        let others = group.versions.iter().map(|version| &version.group_version);
        let mut read = Vec::new();
        for group_version in preferred.chain(others) {
            if read.contains(&group_version) {
                continue;
            }
            read.push(group_version);
            // An aggregated API whose server is away has no say in the others.
            match client.list_api_group_resources(group_version).await {
                Ok(list) => {
                    let version = group_version.rsplit('/').next().unwrap_or_default();
                    found.extend(of_list(&group.name, version, list));
                }
                Err(error) => debug!(group_version, error = %reasons(&error), "can't read its resources"),
            }
        }
    }
    Ok(Mapping::of(found))
}

fn of_list(group: &str, version: &str, list: APIResourceList) -> Vec<Discovered> {
    let found = |resource: APIResource| {
        let can = |verb: &str| resource.verbs.iter().any(|allowed| allowed == verb);
        Discovered {
            group: group.to_owned(),
            version: version.to_owned(),
            can_be_watched: can("list") && can("watch"),
            plural: resource.name,
            singular: resource.singular_name,
            kind: resource.kind,
            short_names: resource.short_names.unwrap_or_default(),
            namespaced: resource.namespaced,
        }
    };
    list.resources.into_iter().map(found).collect()
}
