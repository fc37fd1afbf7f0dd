//! What is known of the cluster at present, kept up to date in the background.

use super::autoscalers::{Answers, Autoscalers};
use super::cluster::Cluster;
use super::live_mapping::LiveMapping;
use super::objects::{Bounds, Known, NotKnown, Objects};
use super::pod_states::PodStates;
use super::registration::{APIS, ApiName, Owner, Registrations};
use super::resources::Resource;
use super::served::Served;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// How long a question that needs the objects of a resource waits for its first list.
const LISTING_WAIT: Duration = Duration::from_secs(2);

/// Choices about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveSettings {
    /// Pushes may name resources, with their group, that the cluster does not have.
    pub unknown_resources_allowed: bool,
}

/// The cluster at present.
pub struct Live {
    /// The clients.
    pub cluster: Cluster,
    /// Which resources there are.
    pub mapping: LiveMapping,
    /// Which objects there are.
    pub objects: Objects,
    /// How its pods are, where it is written down who owns which.
    pub pods: Arc<PodStates>,
    /// Which autoscalers there are.
    pub autoscalers: Autoscalers,
    /// What was answered, on its way to be remembered.
    pub answers: Answers,
}

impl Live {
    /// Of a cluster; nothing is asked yet. `dropped` counts answers that could not be left to be remembered.
    #[must_use]
    pub fn new(cluster: Cluster, settings: LiveSettings, dropped: Counter) -> Self {
        let client = || cluster.lister.clone();
        Self {
            mapping: LiveMapping::new(client(), settings.unknown_resources_allowed),
            objects: Objects::new(client(), Bounds::default()),
            pods: Arc::default(),
            autoscalers: Autoscalers::default(),
            answers: Answers::counting(dropped),
            cluster,
        }
    }

    /// The objects of a resource that a selector of labels is about.
    ///
    /// # Errors
    /// When they are not known: nothing can be said of their labels.
    pub async fn objects_to_select(&self, resource: &Resource) -> Result<Arc<Known>, NotKnown> {
        self.objects.of(resource, LISTING_WAIT).await
    }

    /// The objects of a resource, if they are known at once; else they are soon.
    pub async fn objects_if_known(&self, resource: &Resource) -> Option<Arc<Known>> {
        // A resource that the cluster does not have has no objects to watch.
        let is_watchable = self.mapping.mapping()?.can_be_watched(resource)?;
        if is_watchable { self.objects.of(resource, Duration::ZERO).await.ok() } else { None }
    }

    /// Says who serves the metrics APIs at the start.
    async fn tell_registrations(&self, served: &Served) {
        let registrations = Registrations::new(self.cluster.lister.clone());
        let is_served =
            |api: &ApiName| served.versions().any(|version| version.api_service() == api.to_string());
        let apis: Vec<ApiName> = APIS.into_iter().filter(is_served).collect();
        match registrations.read(&apis).await {
            Ok(registered) => {
                for one in registered {
                    let (api, owner) = (one.api.to_string(), one.owner.to_string());
                    let is_others = match &one.owner {
                        Owner::Nobody => false,
                        Owner::ApiServer => true,
                        Owner::Service(service) => service.namespace != self.cluster.namespace,
                    };
                    match is_others {
                        true => {
                            warn!(api, owner, "another serves this API: autoscalers do not ask this Lookback")
                        }
                        false => info!(api, owner, "who serves this API"),
                    }
                }
            }
            Err(error) => debug!(%error, "who serves the metrics APIs can't be read"),
        }
    }

    /// Keeps it up to date until `shutdown`.
    pub async fn keep_fresh(&self, served: &Served, shutdown: impl Future<Output = ()>) {
        let pods = async {
            if let Ok(pods) = super::resources::resolve("pods") {
                // Begun at once, so that the first question finds them.
                let _ = self.objects.of(&pods, Duration::ZERO).await;
            }
        };
        tokio::select! {
            () = shutdown => {}
            ((), (), ()) = async { tokio::join!(pods, self.tell_registrations(served), self.mapping.keep_fresh()) } => {}
        }
        self.objects.close();
    }
}
