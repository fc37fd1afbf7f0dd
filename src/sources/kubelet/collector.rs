//! Keeps a task a node: begins it when the node appears, ends it when it goes.
//!
//! A kubelet that hangs costs a connection until its time is up, and keeps no other from being asked: there is no
//! queue between them. What their answers take in memory is bounded by the budget that requests share.

use super::client::KubeletClient;
use super::node::NodeUsage;
use super::nodes::{self, Kubelets};
use super::settings::KubeletSettings;
use crate::app::App;
use crate::sources::schedule::{offset_ms, until_next_ms};
use kube::Client;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is collected from.
pub struct Collection {
    /// Watches nodes.
    pub nodes: Client,
    /// Asks kubelets.
    pub kubelets: KubeletClient,
    /// How.
    pub settings: KubeletSettings,
}

/// Collects until `shutdown`. Series do not end with it: the next start goes on.
pub async fn run(app: App, collection: Collection, shutdown: CancellationToken) {
    let Collection { nodes, kubelets, settings } = collection;
    let settings = Arc::new(settings);
    let (told, mut known) = watch::channel(Kubelets::new());
    let following = nodes::follow(nodes, &settings, told);
    let collecting = async {
        let mut running = Running {
            app,
            kubelets,
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            tasks: HashMap::new(),
            ending: Vec::new(),
        };
        loop {
            let wanted = known.borrow_and_update().clone();
            running.change_to(wanted);
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = known.changed() => {}
            }
        }
        running.stopped().await;
    };
    tokio::select! {
        () = async { following.await; std::future::pending().await } => {}
        () = collecting => {}
    }
}

/// A node's task.
struct Task {
    address: String,
    gone: CancellationToken,
    handle: JoinHandle<()>,
}

struct Running {
    app: App,
    kubelets: KubeletClient,
    settings: Arc<KubeletSettings>,
    shutdown: CancellationToken,
    tasks: HashMap<String, Task>,
    ending: Vec<JoinHandle<()>>,
}

impl Running {
    fn change_to(&mut self, wanted: Kubelets) {
        self.ending.retain(|task| !task.is_finished());
        let is_gone = |(name, task): &(&String, &Task)| wanted.get(*name) != Some(&task.address);
        let gone: Vec<String> = self.tasks.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some(Task { gone, handle, .. }) = self.tasks.remove(&name) {
                gone.cancel();
                self.ending.push(handle);
            }
        }
        self.app.metrics.kubelets.nodes.set(i64::try_from(wanted.len()).unwrap_or(i64::MAX));
        for (name, address) in wanted {
            if self.tasks.contains_key(&name) {
                continue;
            }
            let gone = CancellationToken::new();
            let following = follow(
                self.app.clone(),
                self.kubelets.clone(),
                self.settings.clone(),
                NodeUsage::new(name.clone(), address.clone()),
                offset_ms(&name, interval_ms(&self.settings)),
                (gone.clone(), self.shutdown.clone()),
            );
            self.tasks.insert(name, Task { address, gone, handle: tokio::spawn(following) });
        }
    }

    /// Waits for all tasks, which hold the store.
    async fn stopped(self) {
        for task in self.tasks.into_values().map(|task| task.handle).chain(self.ending) {
            if let Err(error) = task.await {
                tracing::error!(%error, "the collector of a node broke off");
            }
        }
    }
}

fn interval_ms(settings: &KubeletSettings) -> u64 {
    settings.resolution.as_millis().try_into().unwrap_or(u64::MAX).max(1)
}

/// Asks one kubelet at its times until its node is gone, or until the shutdown.
async fn follow(
    app: App,
    client: KubeletClient,
    settings: Arc<KubeletSettings>,
    mut node: NodeUsage,
    offset_ms: u64,
    (gone, shutdown): (CancellationToken, CancellationToken),
) {
    loop {
        let wait_ms = until_next_ms(app.clock.now_ms(), interval_ms(&settings), offset_ms);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = gone.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            collected = node.collect(&app, &client, &settings) => {
                if let Err(error) = collected {
                    tracing::warn!(%error, "what a kubelet told can't be stored");
                }
            }
        }
    }
    if node.is_failing() {
        app.metrics.kubelets.failing.dec();
    }
    if let Err(error) = node.end(&app).await {
        tracing::warn!(%error, "the end of a node can't be stored");
    }
}
