//! Pods of the cluster as targets of a job, in the words of Prometheus.
//!
//! ```yaml
//! kubernetes_sd_configs:
//!   - role: pod                                  # the only one that there is
//!     namespaces: {names: [shop], own_namespace: false}   # all of them unless said
//!     selectors: [{role: pod, label: 'app=web', field: 'spec.nodeName=n1'}]
//! ```
//!
//! Pods are watched in the cluster that Lookback is connected to. Each port of each container is a target before
//! the job's `relabel_configs` keep, drop and label it; what they know of it: `pod_labels`.

use super::discovered::Common;
use super::pod_labels::addresses;
use super::pod_watch::watch;
use super::settings::Target;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::selector;
use crate::text::start_of;
use futures::future::join_all;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch::{Receiver, Sender};

/// Most watches of pods; jobs that select the same share one.
pub(super) const WATCHES_MAX: usize = 100;

/// Which pods.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "Written")]
pub(super) struct Selected {
    /// Of these namespaces; none: of all.
    namespaces: BTreeSet<String>,
    /// Also of the namespace that Lookback runs in.
    own_namespace: bool,
    label: Option<String>,
    field: Option<String>,
}

/// The entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    role: String,
    #[serde(default)]
    namespaces: WrittenNamespaces,
    #[serde(default)]
    selectors: Vec<WrittenSelector>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNamespaces {
    #[serde(default)]
    names: BTreeSet<String>,
    #[serde(default)]
    own_namespace: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSelector {
    role: String,
    label: Option<String>,
    field: Option<String>,
}

impl TryFrom<Written> for Selected {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let is_pod = |role: &str| {
            let known = role == "pod";
            known.then_some(()).ok_or_else(|| {
                format!("kubernetes_sd_configs: the role {:?} is not supported, only pod is", start_of(role))
            })
        };
        is_pod(&written.role)?;
        if written.selectors.len() > 1 {
            return Err("kubernetes_sd_configs: give one entry of selectors for the role pod".to_owned());
        }
        let WrittenNamespaces { names, own_namespace } = written.namespaces;
        if let Some(name) = names.iter().find(|name| !is_namespace(name)) {
            return Err(format!("kubernetes_sd_configs: {:?} is no namespace", start_of(name)));
        }
        let mut selected = Self { namespaces: names, own_namespace, label: None, field: None };
        if let Some(WrittenSelector { role, label, field }) = written.selectors.into_iter().next() {
            is_pod(&role)?;
            if let Some(label) = &label {
                selector::parse(label).map_err(|error| format!("kubernetes_sd_configs: {error}"))?;
            }
            (selected.label, selected.field) = (label, field);
        }
        Ok(selected)
    }
}

/// Whether Kubernetes lets a namespace be called so.
fn is_namespace(name: &str) -> bool {
    let within = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(within)
}

/// A job that asks pods.
#[derive(Clone, Debug, PartialEq)]
pub struct PodJob {
    /// Which.
    pub(super) selected: Selected,
    /// How, and what of them is kept.
    pub(super) common: Common,
}

impl PodJob {
    /// The targets that a pod is.
    fn targets(&self, pod: &Pod) -> Result<Vec<Target>, String> {
        let found = addresses(pod);
        let targets = found.iter().map(|(address, labels)| self.common.target(address, labels));
        Ok(targets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// One watch: the namespace (`None`: all), labels and fields.
type WatchKey = (Option<String>, Option<String>, Option<String>);

fn watches<'j>(jobs: &'j [PodJob], own_namespace: &str) -> BTreeMap<WatchKey, Vec<&'j PodJob>> {
    let mut watches: BTreeMap<WatchKey, Vec<&PodJob>> = BTreeMap::new();
    for job in jobs {
        let Selected { namespaces, own_namespace: own, label, field } = &job.selected;
        let mut namespaces: BTreeSet<Option<String>> = namespaces.iter().cloned().map(Some).collect();
        if *own {
            namespaces.insert(Some(own_namespace.to_owned()));
        }
        if namespaces.is_empty() {
            namespaces.insert(None);
        }
        for namespace in namespaces {
            watches.entry((namespace, label.clone(), field.clone())).or_default().push(job);
        }
    }
    watches
}

/// How many watches jobs take.
pub(super) fn watches_of(jobs: &[PodJob]) -> usize {
    watches(jobs, "").len()
}

/// Follows the pods of jobs, which may change, for ever and tells which targets there are.
pub(super) async fn discover(client: Client, mut jobs: Receiver<Vec<PodJob>>, targets: Sender<Vec<Target>>) {
    loop {
        let wanted = jobs.borrow_and_update().clone();
        tokio::select! {
            () = follow(&client, &wanted, &targets) => return,
            changed = jobs.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Follows the pods of these jobs for ever.
async fn follow(client: &Client, jobs: &[PodJob], targets: &Sender<Vec<Target>>) {
    let watches = watches(jobs, client.default_namespace());
    if watches.is_empty() {
        targets.send_replace(Vec::new());
        return std::future::pending().await;
    }
    // Targets that are there stay until each watch has had its say.
    let told: Mutex<Vec<Option<Vec<Target>>>> = Mutex::new(vec![None; watches.len()]);
    let tell = |place: usize, found: Vec<Target>| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = told.get_mut(place) {
            *slot = Some(found);
        }
        if told.iter().all(Option::is_some) {
            targets.send_replace(told.iter().flatten().flatten().cloned().collect());
        }
    };
    let following = watches.into_iter().enumerate().map(|(place, ((namespace, label, field), jobs))| {
        let pods = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let config = Config { label_selector: label, field_selector: field, ..Config::default() };
        let targets_of = move |pod: &Pod| {
            let each: Result<Vec<Vec<Target>>, String> = jobs.iter().map(|job| job.targets(pod)).collect();
            each.map(|each| each.into_iter().flatten().collect())
        };
        watch(pods, config, targets_of, move |found| tell(place, found))
    });
    join_all(following).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::scrape::config::parse;
    use serde_json::{Value, json};

    /// The job for pods of Prometheus' published charts, with its own quotes and booleans.
    const PUBLISHED: &str = r#"
scrape_configs:
  - job_name: kubernetes-pods
    honor_labels: true
    kubernetes_sd_configs:
      - role: pod
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]
        action: keep
        regex: true
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape_slow]
        action: drop
        regex: true
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scheme]
        action: replace
        regex: (https?)
        target_label: __scheme__
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
        action: replace
        target_label: __metrics_path__
        regex: (.+)
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip]
        action: replace
        regex: (\d+);(([A-Fa-f0-9]{1,4}::?){1,7}[A-Fa-f0-9]{1,4})
        replacement: '[$2]:$1'
        target_label: __address__
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip]
        action: replace
        regex: (\d+);((([0-9]+?)(\.|$)){4})
        replacement: $2:$1
        target_label: __address__
      - action: labelmap
        regex: __meta_kubernetes_pod_annotation_prometheus_io_param_(.+)
        replacement: __param_$1
      - action: labelmap
        regex: __meta_kubernetes_pod_label_(.+)
      - source_labels: [__meta_kubernetes_namespace]
        action: replace
        target_label: namespace
      - source_labels: [__meta_kubernetes_pod_name]
        action: replace
        target_label: pod
      - source_labels: [__meta_kubernetes_pod_phase]
        regex: Pending|Succeeded|Failed|Completed
        action: drop
      - source_labels: [__meta_kubernetes_pod_node_name]
        action: replace
        target_label: node
"#;

    fn pod(ip: &str, annotations: &Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "app", "ports": [{"containerPort": 8080}, {"containerPort": 9090, "name": "metrics"}]},
            ]},
            "status": {"phase": "Running", "podIP": ip},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn told(job: &PodJob, pod: &Pod) -> BTreeSet<String> {
        let one = |target: Target| {
            let labels: Vec<_> = target.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {}", target.url(), labels.join(","))
        };
        job.targets(pod).expect("no problem").into_iter().map(one).collect()
    }

    #[test]
    fn the_published_job_finds_annotated_pods() {
        let job = parse(PUBLISHED, true).expect("understood").pods.remove(0);
        let mut annotations = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9", "prometheus.io/path": "/m",
            "prometheus.io/param_module": "x"});
        let labels = "app=web,instance=10.1.2.3:9,job=kubernetes-pods,namespace=shop,node=n1,pod=web-0";
        let expected = format!("http://10.1.2.3:9/m?module=x {labels}");
        assert_eq!(told(&job, &pod("10.1.2.3", &annotations)), BTreeSet::from([expected]));
        let at = told(&job, &pod("fd00::1", &annotations)).pop_first().expect("a target");
        assert!(at.starts_with("http://[fd00::1]:9/m?module=x "), "{at}");
        annotations["prometheus.io/scheme"] = json!("https");
        let at = told(&job, &pod("10.1.2.3", &annotations)).pop_first().expect("a target");
        assert!(at.starts_with("https://10.1.2.3:9/m"), "{at}");
        annotations["prometheus.io/scrape"] = json!("false");
        assert_eq!(told(&job, &pod("10.1.2.3", &annotations)), BTreeSet::new());
    }

    #[test]
    fn pods_are_chosen_by_label_and_by_the_name_of_a_port() {
        let text = "
scrape_configs:
- job_name: web
  kubernetes_sd_configs: [{role: pod}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_labelpresent_app, __meta_kubernetes_pod_label_app], regex: true;web, action: keep}
  - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: metrics, action: keep}
  - {source_labels: [__meta_kubernetes_pod_container_name], target_label: container}
";
        let job = parse(text, true).expect("understood").pods.remove(0);
        let expected = "http://10.1.2.3:9090/metrics container=app,instance=10.1.2.3:9090,job=web".to_owned();
        assert_eq!(told(&job, &pod("10.1.2.3", &json!({}))), BTreeSet::from([expected]));
        let wrong = text.replace("target_label: container", "target_label: __scheme__");
        let job = parse(&wrong, true).expect("understood").pods.remove(0);
        let problem = job.targets(&pod("10.1.2.3", &json!({}))).expect_err("refused");
        assert!(problem.contains("\"app\" is no scheme"), "{problem}");
    }

    #[test]
    fn jobs_that_select_the_same_pods_share_a_watch() {
        let job = |name: &str, more: &str| {
            format!("- {{job_name: {name}, kubernetes_sd_configs: [{{role: pod{more}}}]}}\n")
        };
        let web = ", namespaces: {names: [a, b]}, selectors: [{role: pod, label: 'app=web'}]";
        let own = ", namespaces: {own_namespace: true}";
        let text = format!(
            "scrape_configs:\n{}{}{}{}{}",
            job("j1", ""),
            job("j2", ""),
            job("j3", web),
            job("j4", web),
            job("j5", own)
        );
        let jobs = parse(&text, true).expect("understood").pods;
        let found: Vec<String> = watches(&jobs, "mine")
            .into_iter()
            .map(|((namespace, label, _), jobs)| format!("{namespace:?} {label:?} {}", jobs.len()))
            .collect();
        assert_eq!(
            found,
            [
                "None None 2",
                "Some(\"a\") Some(\"app=web\") 2",
                "Some(\"b\") Some(\"app=web\") 2",
                "Some(\"mine\") None 1",
            ]
        );
        let names: Vec<String> = (0..=WATCHES_MAX).map(|i| format!("n{i}")).collect();
        let text = format!(
            "scrape_configs:\n{}",
            job("j", &format!(", namespaces: {{names: [{}]}}", names.join(", ")))
        );
        assert!(parse(&text, true).expect_err("refused").contains("more than 100 watches"));
    }
}
