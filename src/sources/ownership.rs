//! Who owns which pods, remembered as ordinary series with kube-state-metrics' names, so that a
//! workload's history is still found when its pods are gone; see [`crate::query::range`].
//!
//! | series | labels beside `namespace` |
//! |---|---|
//! | `kube_pod_owner` | `pod`, `uid`, `owner_kind`, `owner_name`, `owner_is_controller` |
//! | `kube_pod_labels` | `pod`, `uid`, `label_…` for each label of the pod |
//! | `kube_pod_status_phase` | `pod`, `uid`, `phase`: the present phase only |
//! | `kube_pod_status_ready` | `pod`, `uid`, `condition`: what it is at present only |
//! | `lookback_pod_terminating` | `pod`, `uid`: the pod is being deleted |
//! | `kube_replicaset_owner` | `replicaset`, `owner_kind`, `owner_name`, `owner_is_controller` |
//! | `kube_job_owner` | `job_name`, `owner_kind`, `owner_name`, `owner_is_controller` |
//!
//! Each is 1. It is written as soon as it is seen, then at every interval, and ended by a staleness
//! marker when the object goes or says something else. Three watches give what there is: pods whole,
//! for their phase, the others without anything but metadata; only the series are kept, and of pods what an
//! autoscaler's formula goes by ([`crate::kubernetes::pod_states`]), so that its answers are remembered with what they
//! count for.
//!
//! A write that fails is made up for by the next: what it would have said is said again then.

mod facts;
mod recorded;

use crate::app::App;
use crate::clock::Clock;
use crate::kubernetes::cluster::reasons;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::scaled_pods::ScaledPod;
use crate::store::{Context, Scope, Store};
use facts::Facts;
use futures::{Stream, StreamExt};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use lookback_storage::{Labels, OutOfOrder, STALENESS_MARKER_BITS, WriteBatch};
use recorded::{Recorded, Watched, of_job, of_pod, of_replica_set};
use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 500;

/// How soon what has changed is written.
const CHANGES_EVERY: Duration = Duration::from_secs(1);

/// Series in one write.
const SERIES_PER_WRITE: usize = 5_000;

type Metadata = PartialObjectMeta<DynamicObject>;
type Events = Pin<Box<dyn Stream<Item = Result<Change, watcher::Error>> + Send>>;

/// What a watch says.
enum Change {
    Relisting(Watched),
    Relisted(Watched),
    Applied(Watched, String, Said),
    Gone(Watched, String),
}

/// What an object says.
#[derive(Default)]
struct Said {
    facts: Facts,
    /// Of a pod, how it is.
    pod: Option<ScaledPod>,
}

/// Follows the cluster until `shutdown` and writes every `interval`. Without a cluster, or an interval, it does nothing.
pub async fn record(app: App, shutdown: impl Future<Output = ()>) {
    let (Some(live), Some(interval)) = (app.live(), app.settings.ownership_interval) else { return };
    let client = live.cluster.lister.clone();
    let mut recorder = Recorder {
        store: app.store.clone(),
        clock: app.clock.clone(),
        context: app.context(&Scope::All),
        recorded: Recorded::telling(live.pods.clone()),
        write_fails: false,
        lacks_everything: false,
    };
    let mut events = futures::stream::select_all([
        pods(client.clone()),
        metadata(client.clone(), Watched::ReplicaSets, "apps", "ReplicaSet", of_replica_set),
        metadata(client, Watched::Jobs, "batch", "Job", of_job),
    ]);
    let mut shutdown = pin!(shutdown);
    let mut changes = tokio::time::interval(CHANGES_EVERY);
    let mut all = tokio::time::interval(interval);
    let mut watch_fails = false;
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = all.tick() => recorder.write(true).await,
            _ = changes.tick() => recorder.write(false).await,
            Some(event) = events.next() => match event {
                Ok(change) => {
                    watch_fails = false;
                    recorder.recorded.take(change);
                }
                Err(error) => {
                    if !watch_fails {
                        warn!(reason = reasons(&error), "who owns which pods can't be watched at present");
                    }
                    watch_fails = true;
                }
            },
        }
    }
}

fn pods(client: Client) -> Events {
    let api: Api<Pod> = Api::all(client);
    let events = watcher(api, Config::default().page_size(PAGE_OBJECTS)).default_backoff();
    Box::pin(events.map(|event| event.map(|event| change(Watched::Pods, event, key_of, of_pod))))
}

fn metadata(
    client: Client,
    watched: Watched,
    group: &str,
    kind: &str,
    said: fn(&Metadata) -> Said,
) -> Events {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let api: Api<Metadata> = Api::all_with(client, &resource);
    let events = watcher(api, Config::default().page_size(PAGE_OBJECTS)).default_backoff();
    Box::pin(events.map(move |event| event.map(|event| change(watched, event, key_of, said))))
}

fn key_of<K: kube::Resource>(object: &K) -> String {
    let meta = object.meta();
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&meta.namespace), text(&meta.name))
}

fn change<K>(watched: Watched, event: Event<K>, key: fn(&K) -> String, said: impl Fn(&K) -> Said) -> Change {
    match event {
        Event::Init => Change::Relisting(watched),
        Event::InitDone => Change::Relisted(watched),
        Event::InitApply(object) | Event::Apply(object) => {
            Change::Applied(watched, key(&object), said(&object))
        }
        Event::Delete(object) => Change::Gone(watched, key(&object)),
    }
}

struct Recorder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    context: Context,
    recorded: Recorded,
    write_fails: bool,
    /// A write of everything has failed.
    lacks_everything: bool,
}

impl Recorder {
    /// Writes what has changed, or everything.
    async fn write(&mut self, everything: bool) {
        let everything = everything || self.lacks_everything;
        let (fresh, ended) = self.recorded.take_unwritten();
        let now_ms = self.clock.now_ms();
        let mut left = samples(&self.recorded, (!everything).then_some(&fresh), &ended).peekable();
        while left.peek().is_some() {
            let mut batch = WriteBatch::default();
            for (labels, value) in left.by_ref().take(SERIES_PER_WRITE) {
                batch.push(labels, Some(now_ms), value);
            }
            if let Err(error) = self.store.append(&self.context, batch, now_ms, OutOfOrder::Window).await {
                drop(left);
                if !self.write_fails {
                    warn!(%error, "who owns which pods could not be written; it will be tried again");
                }
                self.write_fails = true;
                self.lacks_everything = everything;
                self.recorded.not_written(fresh, ended);
                return;
            }
        }
        (self.write_fails, self.lacks_everything) = (false, false);
    }
}

/// The ends of series, and the fresh ones or, without those, all that are there.
fn samples<'s>(
    recorded: &'s Recorded,
    fresh: Option<&'s HashSet<Labels>>,
    ended: &'s HashSet<Labels>,
) -> Box<dyn Iterator<Item = (Labels, f64)> + Send + 's> {
    let ended = ended.iter().map(|labels| (labels.clone(), f64::from_bits(STALENESS_MARKER_BITS)));
    match fresh {
        Some(fresh) => Box::new(ended.chain(fresh.iter().map(|labels| (labels.clone(), 1.0)))),
        None => Box::new(ended.chain(recorded.present().map(|labels| (labels, 1.0)))),
    }
}

#[cfg(test)]
mod tests;
