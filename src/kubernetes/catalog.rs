//! What discovery lists: which metrics have really been written for which resources.
//!
//! invariant: discovery reads nothing but the [`Snapshot`] in memory. Whatever the store does, it
//! answers, and at once: a failing or slow APIService breaks namespace deletion, garbage collection
//! and quota in the whole cluster.
//!
//! invariant: all entries of one resource have the same `namespaced`, or the aggregator errs.

mod reading;

use self::reading::Reader;
use super::documents::Documents;
use super::resources::{Resource, built_in_resources, is_resource_label};
use super::served::Served;
use crate::app::App;
use crate::store::{Context, Scope, Store, StoreError};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

/// How often the store is asked whether its set of series has changed in ways that nobody announced:
/// series that expired, or that another server wrote.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// From one refresh to the next, at the least, however many new series are announced.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// A reading is followed by a pause of this many times its length, so that a large store whose series
/// come and go all the time is not read without end.
const PAUSE_READINGS: u32 = 4;

/// One metric of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The resource with its group: `pods`, `deployments.apps`.
    pub resource: String,
    /// The metric's name.
    pub metric: String,
    /// Whether the resource's objects lie in namespaces.
    pub namespaced: bool,
}

/// What is answered by others than the store's own series, as discovery is to list it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Metrics of objects.
    pub entries: Vec<Entry>,
    /// External metrics.
    pub external: Vec<String>,
}

/// Listings, by whose they are.
type Listings = BTreeMap<&'static str, Listing>;

/// What was known at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Sorted by resource, then by metric; at most as many as were asked for.
    pub entries: Vec<Entry>,
    /// Metrics with a series of some namespace, sorted; at most as many as were asked for.
    pub external: Vec<String>,
    /// How many more there are.
    pub left_out: usize,
    /// The labels of custom resources.
    custom: BTreeMap<String, CustomResource>,
}

/// A custom resource of which something was written.
#[derive(Debug)]
struct CustomResource {
    /// With its group.
    name: String,
    /// Whether its objects lie in namespaces.
    namespaced: bool,
}

impl Snapshot {
    /// Whether objects of a resource lie in namespaces; `None` for a custom one that nobody pushed.
    #[must_use]
    pub fn namespaced(&self, resource: &Resource) -> Option<bool> {
        resource
            .namespaced
            .or_else(|| self.custom.get(resource.label.as_ref()).map(|custom| custom.namespaced))
    }

    /// Whether a label names an object of some resource.
    #[must_use]
    pub fn is_resource_label(&self, label: &str) -> bool {
        is_resource_label(label) || self.custom.contains_key(label)
    }

    /// The resource, with its group, whose objects a label names.
    #[must_use]
    pub fn resource_of_label(&self, label: &str) -> Option<String> {
        let built_in = || built_in_resources().find(|resource| resource.label == label);
        let custom = self.custom.get(label).map(|custom| custom.name.clone());
        custom.or_else(|| built_in().map(|resource| resource.group_resource()))
    }

    /// What discovery tells: these entries, and after them as many of others' as there is room for. Of a
    /// resource that is here already, or comes twice, the first scope counts.
    fn with(&self, others: &Listings, entries_max: usize) -> Self {
        let mut scopes: BTreeMap<&str, bool> =
            self.entries.iter().map(|entry| (entry.resource.as_str(), entry.namespaced)).collect();
        let mut entries: BTreeSet<Entry> = self.entries.iter().cloned().collect();
        let mut external: BTreeSet<&str> = self.external.iter().map(String::as_str).collect();
        for entry in others.values().flat_map(|listing| &listing.entries) {
            if entries.len() >= entries_max {
                break;
            }
            let namespaced = *scopes.entry(&entry.resource).or_insert(entry.namespaced);
            entries.insert(Entry { namespaced, ..entry.clone() });
        }
        for metric in others.values().flat_map(|listing| &listing.external) {
            if external.len() >= entries_max {
                break;
            }
            external.insert(metric);
        }
        let external = external.into_iter().map(str::to_owned).collect();
        Self { entries: entries.into_iter().collect(), external, ..Self::default() }
    }
}

/// A snapshot of `resource/metric` pairs, in memory, replaced as a whole.
#[derive(Debug)]
pub struct Catalog {
    served: Served,
    current: ArcSwap<Snapshot>,
    /// What is told of it, and of `others`.
    documents: ArcSwap<Documents>,
    /// What others answer. Its lock is held while documents are made, so that none is made of what is no
    /// more; nobody who asks waits for it.
    others: Mutex<Listings>,
    /// Woken when there is something new to list.
    announced: Notify,
    /// Whether it has been said that not everything is listed.
    said_capped: AtomicBool,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new(Served::default())
    }
}

impl Catalog {
    /// An empty one, for what is served.
    #[must_use]
    pub fn new(served: Served) -> Self {
        let snapshot = Snapshot::default();
        let documents = Documents::new(&served, &snapshot);
        Self {
            served,
            current: ArcSwap::from_pointee(snapshot),
            documents: ArcSwap::from_pointee(documents),
            others: Mutex::default(),
            announced: Notify::new(),
            said_capped: AtomicBool::new(false),
        }
    }

    /// What discovery tells now. Never waits.
    #[must_use]
    pub fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    /// Says that new series have been written: they are to be listed soon. Never waits.
    pub fn announce(&self) {
        self.announced.notify_one();
    }

    /// What is known now. Never waits.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Reads the store anew and lists at most `entries_max` entries.
    ///
    /// # Errors
    /// When the store fails; what was known before stays.
    pub async fn refresh(
        &self,
        store: &dyn Store,
        timeout: Duration,
        entries_max: usize,
    ) -> Result<(), StoreError> {
        let reader = Reader { store, context: Context { scope: Scope::All, timeout } };
        let snapshot = reader.read(entries_max).await?;
        if snapshot.left_out > 0 && !self.said_capped.swap(true, Ordering::Relaxed) {
            warn!(
                listed = entries_max,
                left_out = snapshot.left_out,
                "discovery does not list all metrics: all can be read, but kubectl won't show the rest"
            );
        }
        let others = self.lock();
        let told = self.current.load();
        let is_new = snapshot.entries != told.entries || snapshot.external != told.external;
        self.current.store(Arc::new(snapshot));
        if is_new {
            self.tell(&others, entries_max);
        }
        Ok(())
    }

    /// Lists also what another answers, in place of what was listed of it before; at most `entries_max`
    /// entries in all, the store's own first.
    pub fn list_also(&self, whose: &'static str, listing: Listing, entries_max: usize) {
        let mut others = self.lock();
        if others.get(whose) != Some(&listing) {
            others.insert(whose, listing);
            self.tell(&others, entries_max);
        }
    }

    fn tell(&self, others: &Listings, entries_max: usize) {
        let snapshot = self.current.load();
        let documents = match others.is_empty() {
            true => Documents::new(&self.served, &snapshot),
            false => Documents::new(&self.served, &snapshot.with(others, entries_max)),
        };
        self.documents.store(Arc::new(documents));
    }

    fn lock(&self) -> MutexGuard<'_, Listings> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the app's catalog fresh until `shutdown`: reads the store again whenever its set of series
/// has changed, at once when that is announced, and at most a fifth of the time. A failing store leaves
/// what was known and is asked again.
pub fn spawn_refresher(app: App, shutdown: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown => {}
            () = keep_fresh(&app) => {}
        }
    })
}

async fn keep_fresh(app: &App) {
    let mut seen = None;
    // Until the store has answered once it is being opened, which is no failure.
    let mut failing = true;
    loop {
        let begun = Instant::now();
        match refresh_if_changed(app, seen).await {
            Ok(generation) => {
                seen = Some(generation);
                failing = false;
            }
            Err(error) if failing => debug!(%error, "discovery still lists what was known before"),
            Err(error) => {
                warn!(%error, "discovery lists what was known before: the store does not answer");
                failing = true;
            }
        }
        tokio::time::sleep(REFRESH_INTERVAL_MIN.max(begun.elapsed() * PAUSE_READINGS)).await;
        // Announced or not, it is time to look again.
        let _ = tokio::time::timeout(POLL_INTERVAL, app.catalog.announced.notified()).await;
    }
}

async fn refresh_if_changed(app: &App, seen: Option<u64>) -> Result<u64, StoreError> {
    let generation = app.store_stats().await?.series_generation;
    if seen != Some(generation) {
        let settings = &app.settings;
        app.catalog.refresh(app.store.as_ref(), settings.store_timeout, settings.discovery_max).await?;
    }
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Settings;
    use crate::kubernetes::resources::{RESOURCE_INFO_METRIC, resolve};
    use crate::kubernetes::served::GroupVersion;
    use crate::testing::{Fault, NOW_MS, TestApp};

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn listed(catalog: &Catalog) -> Vec<String> {
        let entry = |e: &Entry| format!("{}/{} {}", e.resource, e.metric, e.namespaced);
        catalog.snapshot().entries.iter().map(entry).collect()
    }

    async fn catalog_of(series: &[&[(&str, &str)]], entries_max: usize) -> Catalog {
        let server = TestApp::new();
        for labels in series {
            server.put(labels, NOW_MS, 1.0);
        }
        let catalog = Catalog::default();
        catalog.refresh(server.store.as_ref(), TIMEOUT, entries_max).await.expect("refreshed");
        catalog
    }

    #[tokio::test]
    async fn everything_written_is_listed_once_by_resource() {
        let catalog = catalog_of(
            &[
                &[("__name__", "rps"), ("namespace", "a"), ("pod", "p1")],
                &[("__name__", "rps"), ("namespace", "b"), ("pod", "p2"), ("verb", "GET")],
                &[("__name__", "rps"), ("namespace", "b"), ("deployment", "web")],
                &[("__name__", "load"), ("node", "n1")],
                &[("__name__", "queue"), ("namespace", "a")],
                &[("__name__", "up"), ("job", "prometheus")],
            ],
            100,
        )
        .await;
        assert_eq!(
            listed(&catalog),
            ["deployments.apps/rps true", "namespaces/queue false", "nodes/load false", "pods/rps true"]
        );
    }

    #[tokio::test]
    async fn custom_resources_are_known_by_their_info_series_and_consistent() {
        let info = |namespaced| {
            vec![
                ("__name__", RESOURCE_INFO_METRIC),
                ("resource", "widgets.example.com"),
                ("namespaced", namespaced),
            ]
        };
        let catalog = catalog_of(
            &[
                &info("false"),
                &info("true"),
                &[("__name__", RESOURCE_INFO_METRIC), ("resource", "pods"), ("namespaced", "false")],
                &[("__name__", RESOURCE_INFO_METRIC), ("resource", "!"), ("namespaced", "true")],
                &[("__name__", "size"), ("namespace", "a"), ("widgets_example_com", "w1")],
                &[("__name__", "size"), ("widgets_example_com", "w2")],
                &[("__name__", "rps"), ("namespace", "a"), ("pod", "p1")],
            ],
            100,
        )
        .await;
        assert_eq!(listed(&catalog), ["pods/rps true", "widgets.example.com/size true"]);
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.namespaced(&resolve("widgets.example.com").expect("custom")), Some(true));
        assert_eq!(snapshot.namespaced(&resolve("gadgets.example.com").expect("custom")), None);
        assert_eq!(snapshot.namespaced(&resolve("nodes").expect("built in")), Some(false));
        assert!(snapshot.is_resource_label("widgets_example_com") && !snapshot.is_resource_label("verb"));
        assert_eq!(snapshot.resource_of_label("widgets_example_com").as_deref(), Some("widgets.example.com"));
        assert_eq!(snapshot.resource_of_label("deployment").as_deref(), Some("deployments.apps"));
        assert_eq!(snapshot.resource_of_label("verb"), None);
    }

    #[tokio::test]
    async fn the_list_is_capped_and_says_by_how_many() {
        let metrics: Vec<String> = (0..10).map(|i| format!("m{i}")).collect();
        let series: Vec<[(&str, &str); 3]> =
            metrics.iter().map(|m| [("__name__", m.as_str()), ("namespace", "a"), ("pod", "p")]).collect();
        let series: Vec<&[(&str, &str)]> = series.iter().map(<[_; 3]>::as_slice).collect();
        let catalog = catalog_of(&series, 4).await;
        assert_eq!((catalog.snapshot().entries.len(), catalog.snapshot().external.len()), (4, 4));
        assert_eq!(catalog.snapshot().left_out, 6 + 6);
    }

    #[tokio::test]
    async fn a_failing_store_leaves_what_was_known() {
        let server = TestApp::new();
        server.put(&[("__name__", "rps"), ("namespace", "a"), ("pod", "p1")], NOW_MS, 1.0);
        let (store, catalog) = (server.store.as_ref(), Catalog::default());
        catalog.refresh(store, TIMEOUT, 9).await.expect("refreshed");
        server.store.set_fault(Some(Fault::Failing));
        assert!(catalog.refresh(store, TIMEOUT, 9).await.is_err());
        assert_eq!(listed(&catalog), ["pods/rps true"]);
    }

    #[tokio::test]
    async fn the_refresher_lists_new_series_soon_and_survives_failures() {
        for fault in [Fault::Failing, Fault::Hanging] {
            survive(fault).await;
        }
    }

    async fn survive(fault: Fault) {
        let store_timeout = Duration::from_millis(10);
        let server = TestApp::with_settings(Settings { store_timeout, ..Settings::default() });
        let (app, store) = (&server.app, &server.store);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        store.set_fault(Some(fault));
        let task = spawn_refresher(app.clone(), async move { drop(stopped.await) });
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.set_fault(None);
        server.put(&[("__name__", "rps"), ("namespace", "a"), ("pod", "p1")], NOW_MS, 1.0);
        let begun = Instant::now();
        while listed(&app.catalog).is_empty() && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(listed(&app.catalog), ["pods/rps true"]);
        drop(stop);
        task.await.expect("ends at shutdown");
    }

    #[tokio::test]
    async fn what_others_answer_is_listed_after_the_own_within_the_bound_and_in_one_scope() {
        let server = TestApp::new();
        server.put(&[("__name__", "rps"), ("namespace", "a"), ("pod", "p1")], NOW_MS, 1.0);
        let catalog = Catalog::default();
        let entry = |resource: &str, metric: &str, namespaced| Entry {
            resource: resource.to_owned(),
            metric: metric.to_owned(),
            namespaced,
        };
        let theirs = Listing {
            entries: vec![
                entry("pods", "theirs", false),
                entry("pods", "rps", true),
                entry("nodes", "heat", false),
                entry("nodes", "load", true),
                entry("services", "one_too_many", true),
            ],
            external: vec!["queue".to_owned(), "rps".to_owned()],
        };
        catalog.refresh(server.store.as_ref(), TIMEOUT, 4).await.expect("refreshed");
        catalog.list_also("delegate", theirs, 4);
        let told = || {
            let documents = catalog.documents();
            let list = |version| {
                let body = &documents.resources[&version].body;
                let list: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                let name = |one: &serde_json::Value| format!("{} {}", one["name"], one["namespaced"]);
                let all: Vec<String> =
                    list["resources"].as_array().expect("a list").iter().map(name).collect();
                all.join(", ").replace('"', "")
            };
            (list(GroupVersion::CustomV1Beta1), list(GroupVersion::ExternalV1Beta1))
        };
        let (custom, external) = told();
        assert_eq!(custom, "nodes/heat false, nodes/load false, pods/rps true, pods/theirs true");
        assert_eq!(external, "queue true, rps true");
        server.put(&[("__name__", "more"), ("namespace", "a"), ("pod", "p1")], NOW_MS, 1.0);
        catalog.refresh(server.store.as_ref(), TIMEOUT, 4).await.expect("refreshed");
        assert_eq!(told().0, "nodes/heat false, pods/more true, pods/rps true, pods/theirs true");
        catalog.list_also("delegate", Listing::default(), 4);
        assert_eq!(told().0, "pods/more true, pods/rps true");
    }
}
