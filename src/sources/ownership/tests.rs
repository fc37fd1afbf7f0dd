//! What a cluster says becomes series, and series become a workload's history.

use super::*;
use crate::kubernetes::pod::PodStatus;
use crate::kubernetes::pod_states::PodStates;
use crate::kubernetes::scaled_pods::Phase;
use crate::query::range::{self, RangeQuestion};
use crate::testing::{NOW_MS, TestApp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

fn meta(name: &str, owner: (&str, &str)) -> ObjectMeta {
    let reference = OwnerReference {
        kind: owner.0.to_owned(),
        name: owner.1.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        owner_references: Some(vec![reference]),
        ..ObjectMeta::default()
    }
}

fn pod(name: &str, replica_set: &str, phase: &str) -> Pod {
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "web".to_owned())]);
    let metadata = ObjectMeta {
        labels: Some(labels),
        uid: Some("u1".to_owned()),
        ..meta(name, ("ReplicaSet", replica_set))
    };
    let status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
    Pod { metadata, status, ..Pod::default() }
}

fn replica_set(name: &str) -> Change {
    let object: Metadata = serde_json::from_value(serde_json::json!({
        "metadata": meta(name, ("Deployment", "web")),
    }))
    .expect("metadata");
    Change::Applied(Watched::ReplicaSets, format!("shop/{name}"), of_replica_set(&object))
}

fn applied(pod: &Pod) -> Change {
    Change::Applied(Watched::Pods, key_of(pod), of_pod(pod))
}

fn told<'l>(series: impl IntoIterator<Item = &'l Labels>) -> Vec<String> {
    let mut told: Vec<String> = series.into_iter().map(ToString::to_string).collect();
    told.sort();
    told
}

#[test]
fn an_object_is_series_until_it_says_something_else_or_goes() {
    let mut recorded = Recorded::default();
    recorded.take(applied(&pod("a", "web-1", "Pending")));
    let (present, ended) = recorded.take_unwritten();
    let present = told(&present);
    assert!(
        present[0].starts_with("kube_pod_labels")
            && present[0].contains(r#"label_app_kubernetes_io_name="web""#)
    );
    assert!(present[1].starts_with("kube_pod_owner") && present[1].contains(r#"owner_name="web-1""#));
    assert!(present[2].starts_with("kube_pod_status_phase") && present[2].contains(r#"phase="Pending""#));
    assert!(ended.is_empty() && recorded.take_unwritten().0.is_empty());

    recorded.take(applied(&pod("a", "web-1", "Running")));
    let (present, ended) = recorded.take_unwritten();
    assert!(told(&present)[0].contains("Running") && told(&ended)[0].contains("Pending"));
    assert_eq!((present.len(), ended.len(), recorded.present().count()), (1, 1, 3));

    recorded.take(Change::Gone(Watched::Pods, "shop/a".to_owned()));
    assert_eq!((recorded.present().count(), recorded.take_unwritten().1.len()), (0, 3));
}

#[test]
fn what_a_new_list_does_not_name_is_gone_and_nothing_else_is() {
    let mut recorded = Recorded::default();
    for name in ["a", "b"] {
        recorded.take(applied(&pod(name, "web-1", "Running")));
    }
    recorded.take(replica_set("web-1"));
    recorded.take_unwritten();
    recorded.take(Change::Relisting(Watched::Pods));
    recorded.take(applied(&pod("b", "web-1", "Running")));
    recorded.take(Change::Relisted(Watched::Pods));
    let (present, ended) = recorded.take_unwritten();
    assert!(present.is_empty() && ended.len() == 3 && told(&ended).iter().all(|s| s.contains(r#"pod="a""#)));
    assert_eq!(recorded.present().count(), 4);
}

#[test]
fn how_pods_are_is_told_once_all_are_listed_and_until_they_go() {
    let states = Arc::new(PodStates::default());
    let mut recorded = Recorded::telling(states.clone());
    let names = ["a", "b"].map(str::to_owned);
    let phases = || {
        let found = states.of("shop", &names)?;
        Some(found.into_iter().map(|pod| (pod.name, pod.phase)).collect::<Vec<_>>())
    };
    let row = |name: &str, phase| (name.to_owned(), phase);
    recorded.take(Change::Relisting(Watched::Pods));
    recorded.take(applied(&pod("a", "web-1", "Pending")));
    assert_eq!(phases(), None);
    recorded.take(Change::Relisted(Watched::Pods));
    recorded.take(applied(&pod("b", "web-1", "Running")));
    assert_eq!(phases(), Some(vec![row("a", Phase::Pending), row("b", Phase::Running)]));
    recorded.take(Change::Relisting(Watched::Pods));
    recorded.take(applied(&pod("a", "web-1", "Running")));
    recorded.take(Change::Relisted(Watched::Pods));
    assert_eq!(phases(), Some(vec![row("a", Phase::Running)]));
    recorded.take(Change::Gone(Watched::Pods, "shop/a".to_owned()));
    assert_eq!(phases(), Some(Vec::new()));
}

#[test]
fn what_could_not_be_written_is_written_with_the_next() {
    let mut recorded = Recorded::default();
    recorded.take(applied(&pod("a", "web-1", "Running")));
    let (present, ended) = recorded.take_unwritten();
    recorded.not_written(present, ended);
    assert_eq!(recorded.take_unwritten().0.len(), 3);
}

/// Three sets of pods in two weeks, each gone before the next.
#[tokio::test]
async fn a_workloads_history_is_found_after_three_rollouts() {
    const DAY_MS: i64 = 86_400_000;
    let server = TestApp::new();
    let mut recorder = Recorder {
        store: server.app.store.clone(),
        clock: server.clock.clone(),
        context: server.context(),
        recorded: Recorded::default(),
        write_fails: false,
        lacks_everything: false,
    };
    let start_ms = NOW_MS - 13 * DAY_MS;
    for day in 0..14_i64 {
        let (revision, at_ms) = (day / 5, start_ms + day * DAY_MS);
        server.clock.set_ms(at_ms);
        recorder.recorded.take(replica_set(&format!("web-{revision}")));
        for gone in 0..revision {
            recorder.recorded.take(Change::Gone(Watched::Pods, format!("shop/pod-{gone}")));
        }
        let name = format!("pod-{revision}");
        recorder.recorded.take(applied(&pod(&name, &format!("web-{revision}"), "Running")));
        recorder.write(true).await;
        let labels = [("__name__", "memory"), ("namespace", "shop"), ("pod", &name), ("container", "app")];
        server.put_all(&labels, &[(at_ms, day as f64)]);
    }
    let asked = [
        ("workload", "web"),
        ("namespace", "shop"),
        ("metric", "memory"),
        ("rollingWindow", "14d"),
        ("step", "1d"),
    ];
    let ask = async |more: &[(&str, &str)]| {
        let pairs = asked.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let question = RangeQuestion::parse(pairs, 50_000, NOW_MS).expect("valid");
        let (context, settings) = (server.context(), &server.app.settings);
        let asked =
            range::Asked { question: &question, store: server.store.as_ref(), context: &context, settings };
        range::answer(asked).await.expect("answered")
    };
    let answer = ask(&[]).await;
    let pods: Vec<_> = answer.series.iter().map(|s| (s.pod.as_deref(), s.samples.len())).collect();
    assert_eq!(pods, [(Some("pod-0"), 5), (Some("pod-1"), 5), (Some("pod-2"), 4)], "{:?}", answer.infos);
    let merged = ask(&[("merge", "max")]).await;
    let values: Vec<f64> = merged.series[0].samples.iter().map(|s| s.value).collect();
    assert_eq!(values, (0..14).map(f64::from).collect::<Vec<_>>());
}
