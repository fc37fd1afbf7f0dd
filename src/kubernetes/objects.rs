//! The cluster's objects: which there are, and their labels.
//!
//! One watch a resource, begun when the resource is first asked about and given up when nobody has asked for
//! a while. Lists come in pages and without anything but metadata; of it only names and labels are
//! kept ([`super::object_index`]). A watch that breaks keeps what it knew and goes on by itself.
//!
//! invariant: a resource that has not been listed whole is never answered from: a part of the pods would
//! look like a scale-down.

use super::cluster::reasons;
use super::object_index::ObjectIndex;
use super::resources::Resource;
use futures::StreamExt;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 500;

/// How much is watched.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most resources watched at once.
    pub resources_max: usize,
    /// Most objects of one resource.
    pub objects_max: usize,
    /// A watch that nobody has asked for so long is given up.
    pub unused_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { resources_max: 16, objects_max: 200_000, unused_max: Duration::from_secs(1_800) }
    }
}

/// Why the objects of a resource are not known. Each says what to do.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotKnown {
    /// They are being listed.
    #[error(
        "{resource} have not been listed yet, so that nobody knows which of them have these labels: ask again"
    )]
    Listing {
        /// Which.
        resource: String,
    },
    /// They can't be listed.
    #[error(
        "{resource} can't be listed, so that nobody knows which of them have these labels: {reason}: let Lookback \
         list and watch them"
    )]
    Failing {
        /// Which.
        resource: String,
        /// What the cluster says.
        reason: String,
    },
    /// There are too many.
    #[error("there are more than {objects_max} {resource}: Lookback does not keep the labels of so many")]
    TooMany {
        /// Which.
        resource: String,
        /// The bound.
        objects_max: usize,
    },
    /// As many resources are watched as may be.
    #[error(
        "objects of {resources_max} resources are being watched already, and {resource} would be one more"
    )]
    TooManyResources {
        /// Which.
        resource: String,
        /// The bound.
        resources_max: usize,
    },
}

/// How far a watch is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Listing,
    Failing(String),
    TooMany,
    Listed,
}

/// What is known of the objects of one resource.
#[derive(Debug)]
pub struct Known {
    index: RwLock<ObjectIndex>,
    progress: watch::Sender<Progress>,
    used: Mutex<Instant>,
}

impl Known {
    fn new() -> Self {
        let progress = watch::Sender::new(Progress::Listing);
        Self { index: RwLock::default(), progress, used: Mutex::new(Instant::now()) }
    }

    /// The objects as of now. Not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, ObjectIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut ObjectIndex)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn use_now(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn unused(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

struct Watched {
    known: Arc<Known>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The objects of the cluster, of the resources that are asked about.
pub struct Objects {
    client: Client,
    bounds: Bounds,
    watched: Mutex<BTreeMap<String, Watched>>,
    is_closed: AtomicBool,
}

impl Objects {
    /// Of a cluster; nothing is watched yet.
    #[must_use]
    pub fn new(client: Client, bounds: Bounds) -> Self {
        Self { client, bounds, watched: Mutex::default(), is_closed: AtomicBool::new(false) }
    }

    /// The objects of a resource, once all have been listed; waits for that at most so long. To be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// When they are not known then.
    pub async fn of(&self, resource: &Resource, wait_max: Duration) -> Result<Arc<Known>, NotKnown> {
        let known = self.watch(resource)?;
        known.use_now();
        let name = || resource.group_resource();
        let mut progress = known.progress.subscribe();
        let listed = progress.wait_for(|progress| *progress != Progress::Listing);
        if *known.progress.borrow() == Progress::Listing
            && (wait_max.is_zero() || tokio::time::timeout(wait_max, listed).await.is_err())
        {
            return Err(NotKnown::Listing { resource: name() });
        }
        let progress = known.progress.borrow().clone();
        match progress {
            Progress::Listed => Ok(known),
            Progress::Listing => Err(NotKnown::Listing { resource: name() }),
            Progress::Failing(reason) => Err(NotKnown::Failing { resource: name(), reason }),
            Progress::TooMany => {
                Err(NotKnown::TooMany { resource: name(), objects_max: self.bounds.objects_max })
            }
        }
    }

    /// Resource, objects known and the bytes they take, of each resource that is watched.
    #[must_use]
    pub fn sizes(&self) -> Vec<(String, usize, usize)> {
        let watched = self.lock();
        let size = |(name, watched): (&String, &Watched)| {
            let index = watched.known.read();
            (name.clone(), index.len(), index.bytes())
        };
        watched.iter().map(size).collect()
    }

    /// Ends all watches, for good.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.lock().clear();
    }

    fn watch(&self, resource: &Resource) -> Result<Arc<Known>, NotKnown> {
        let name = resource.group_resource();
        let mut watched = self.lock();
        if let Some(watched) = watched.get(&name) {
            return Ok(watched.known.clone());
        }
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(NotKnown::Listing { resource: name });
        }
        let unused_max = self.bounds.unused_max;
        watched.retain(|name, watched| {
            let is_used = watched.known.unused() < unused_max;
            if !is_used {
                info!(resource = name, "nobody asks about its objects any more: no longer watched");
            }
            is_used
        });
        if watched.len() >= self.bounds.resources_max {
            let resources_max = self.bounds.resources_max;
            return Err(NotKnown::TooManyResources { resource: name, resources_max });
        }
        let known = Arc::new(Known::new());
        let task = follow(self.client.clone(), resource, known.clone(), self.bounds.objects_max);
        let task = tokio::spawn(task);
        watched.insert(name, Watched { known: known.clone(), task });
        Ok(known)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Metadata = PartialObjectMeta<DynamicObject>;

fn follow(
    client: Client,
    resource: &Resource,
    known: Arc<Known>,
    objects_max: usize,
) -> impl Future<Output = ()> + Send + use<> {
    let kind = GroupVersionKind::gvk(&resource.group, &resource.version, &resource.kind);
    let api_resource = ApiResource::from_gvk_with_plural(&kind, &resource.plural);
    let name = resource.group_resource();
    let api: Api<Metadata> = Api::all_with(client, &api_resource);
    let events = watcher(api, Config::default().page_size(PAGE_OBJECTS)).default_backoff();
    let follower = Follower { name, known, objects_max, listing: ObjectIndex::default(), failing: false };
    async move {
        let mut follower = follower;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => follower.take(event),
                Err(error) => follower.failed(&reasons(&error)),
            }
        }
    }
}

struct Follower {
    name: String,
    known: Arc<Known>,
    objects_max: usize,
    /// The list that is being read.
    listing: ObjectIndex,
    failing: bool,
}

impl Follower {
    fn take(&mut self, event: Event<Metadata>) {
        match event {
            Event::Init => self.listing = ObjectIndex::default(),
            Event::InitApply(object) => put(&mut self.listing, &object, self.objects_max),
            Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                info!(resource = self.name, objects = listing.len(), bytes = listing.bytes(), "listed");
                self.known.change(|index| *index = listing);
                self.went_well();
            }
            Event::Apply(object) => {
                self.known.change(|index| put(index, &object, self.objects_max));
                self.went_well();
            }
            Event::Delete(object) => {
                let (namespace, name) = name_of(&object);
                self.known.change(|index| index.remove(namespace, name));
                self.went_well();
            }
        }
    }

    fn went_well(&mut self) {
        self.failing = false;
        let is_full = self.known.read().len() >= self.objects_max;
        let progress = if is_full { Progress::TooMany } else { Progress::Listed };
        self.known.progress.send_if_modified(|before| {
            if is_full && *before != progress {
                warn!(resource = self.name, objects_max = self.objects_max, "too many objects to keep");
            }
            std::mem::replace(before, progress.clone()) != progress
        });
    }

    /// What was listed before stays in use.
    fn failed(&mut self, reason: &str) {
        if !self.failing {
            warn!(resource = self.name, reason, "its objects can't be watched at present");
        }
        self.failing = true;
        self.known.progress.send_if_modified(|progress| match progress {
            Progress::Listing | Progress::Failing(_) => {
                *progress = Progress::Failing(reason.to_owned());
                true
            }
            Progress::Listed | Progress::TooMany => false,
        });
    }
}

fn name_of(object: &Metadata) -> (&str, &str) {
    (
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// At the bound no more are taken: then the resource is not answered from.
fn put(index: &mut ObjectIndex, object: &Metadata, objects_max: usize) {
    let (namespace, name) = name_of(object);
    if index.len() >= objects_max && index.get(namespace, name).is_none() {
        return;
    }
    let labels = object.metadata.labels.iter().flatten();
    index.put(namespace, name, labels.map(|(key, value)| (key.as_str(), value.as_str())));
}
