//! Keeps a task a target: begins it when the target appears, ends it when it goes.

#![allow(
    clippy::mutable_key_type,
    reason = "a target's rules are equal and hashed by their text, which nothing changes"
)]

use super::config::{self, Configured};
use super::kubernetes_sd::{PodJob, discover};
use super::pods::Pods;
use super::settings::Target;
use super::target::Scraped;
use crate::app::App;
use crate::sources::schedule::{offset_ms, until_next_ms};
use kube::Client;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Most scrapes at once; others wait for a place.
const SCRAPES_MAX: usize = 64;

/// How often the file is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// What is scraped.
#[derive(Default)]
pub struct Sources {
    /// The file, and what was in it when the server was started.
    pub file: Option<(PathBuf, Configured)>,
    /// The cluster's annotated pods.
    pub pods: Option<Pods>,
    /// The cluster in which the file's jobs find pods.
    pub cluster: Option<Client>,
}

/// Scrapes until `shutdown`. Series do not end with it: the next start goes on.
pub async fn run(app: App, sources: Sources, shutdown: CancellationToken) {
    let (from_file, mut of_file) = watch::channel(Vec::new());
    let (from_pods, mut of_pods) = watch::channel(Vec::new());
    let (from_jobs, mut of_jobs) = watch::channel(Vec::new());
    let (tell_jobs, jobs) = watch::channel(Vec::new());
    let has_cluster = sources.cluster.is_some();
    let file = async {
        let Some((path, configured)) = sources.file else { return };
        let Configured { targets, pods } = configured.clone();
        from_file.send_replace(targets);
        tell_jobs.send_replace(pods);
        follow_file(path, has_cluster, configured, from_file, tell_jobs).await;
    };
    let found = async {
        if let Some(cluster) = sources.cluster {
            discover(cluster, jobs, from_jobs).await;
        }
    };
    let pods = async {
        if let Some(pods) = sources.pods {
            pods.follow(from_pods).await;
        }
    };
    let scraping = async {
        let mut running = Running::new(app, shutdown.clone());
        loop {
            let mut wanted: HashSet<Target> = HashSet::new();
            for targets in [&mut of_file, &mut of_pods, &mut of_jobs] {
                wanted.extend(targets.borrow_and_update().iter().cloned());
            }
            running.change_to(wanted);
            // A sender that has gone says nothing any more.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = of_file.changed() => {}
                Ok(()) = of_pods.changed() => {}
                Ok(()) = of_jobs.changed() => {}
            }
        }
        running.stopped().await;
    };
    tokio::select! {
        () = async { tokio::join!(file, pods, found); std::future::pending().await } => {}
        () = scraping => {}
    }
}

/// Reads the file again when it changes; what is wrong with it is told, and what was before holds on.
async fn follow_file(
    path: PathBuf,
    has_cluster: bool,
    mut known: Configured,
    targets: watch::Sender<Vec<Target>>,
    jobs: watch::Sender<Vec<PodJob>>,
) {
    let mut wrong = String::new();
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let from = path.clone();
        let read = tokio::task::spawn_blocking(move || config::read(&from, has_cluster)).await;
        let read = match read {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(read) if read != known => {
                let (count, pods) = (read.targets.len(), read.pods.len());
                tracing::info!(targets = count, jobs_of_pods = pods, "the scrape configuration has changed");
                known = read;
                targets.send_replace(known.targets.clone());
                // Watches that nothing has changed for go on.
                jobs.send_if_modified(|jobs| {
                    let changed = *jobs != known.pods;
                    jobs.clone_from(&known.pods);
                    changed
                });
                wrong.clear();
            }
            Ok(_) => wrong.clear(),
            Err(error) if error != wrong => {
                tracing::error!("{error}; the one before holds on");
                wrong = error;
            }
            Err(_) => {}
        }
    }
}

/// The targets that are being scraped.
struct Running {
    app: App,
    shutdown: CancellationToken,
    places: Arc<Semaphore>,
    tasks: HashMap<Target, (CancellationToken, JoinHandle<()>)>,
    ending: Vec<JoinHandle<()>>,
}

impl Running {
    fn new(app: App, shutdown: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(SCRAPES_MAX));
        Self { app, shutdown, places, tasks: HashMap::new(), ending: Vec::new() }
    }

    fn change_to(&mut self, wanted: HashSet<Target>) {
        self.ending.retain(|task| !task.is_finished());
        let gone: Vec<Target> =
            self.tasks.keys().filter(|target| !wanted.contains(*target)).cloned().collect();
        for target in gone {
            if let Some((gone, task)) = self.tasks.remove(&target) {
                gone.cancel();
                self.ending.push(task);
            }
        }
        for target in wanted {
            if !self.tasks.contains_key(&target) {
                let gone = CancellationToken::new();
                let following = follow(
                    self.app.clone(),
                    target.clone(),
                    self.places.clone(),
                    gone.clone(),
                    self.shutdown.clone(),
                );
                self.tasks.insert(target, (gone, tokio::spawn(following)));
            }
        }
    }

    /// Waits for all tasks, which hold the store.
    async fn stopped(self) {
        for task in self.tasks.into_values().map(|(_, task)| task).chain(self.ending) {
            if let Err(error) = task.await {
                tracing::error!(%error, "the scraper of a target broke off");
            }
        }
    }
}

/// Scrapes one target at its times until it is gone, or until the shutdown.
async fn follow(
    app: App,
    target: Target,
    places: Arc<Semaphore>,
    gone: CancellationToken,
    shutdown: CancellationToken,
) {
    let interval_ms = target.job.interval.as_millis().try_into().unwrap_or(u64::MAX).max(1);
    let offset_ms = offset_ms(&(&target.address, &target.path, &target.labels), interval_ms);
    let mut scraped = Scraped::new(target);
    loop {
        let wait_ms = until_next_ms(app.clock.now_ms(), interval_ms, offset_ms);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = gone.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
        let scrape = async {
            let Ok(_place) = places.acquire().await else { return };
            if let Err(error) = scraped.scrape(&app).await {
                tracing::warn!(%error, "what was scraped can't be stored");
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = scrape => {}
        }
    }
    if let Err(error) = scraped.end(&app).await {
        tracing::warn!(%error, "the end of a target can't be stored");
    }
}

#[cfg(test)]
mod tests;
