//! The answers to questions, from the real engine.

use super::*;
use crate::store::Scope;
use crate::testing::TestApp;
use lookback_storage::Aggregation;
use std::collections::BTreeSet;
use std::sync::Arc;

const POD: &str = "web-7d4b9c6f5-x2k9p";

fn question(metric: &str) -> RangeQuestion {
    RangeQuestion {
        workload: "web".into(),
        namespace: "shop".into(),
        kind: None,
        container: None,
        metric: metric.into(),
        start_ms: 300_000,
        end_ms: 900_000,
        step_ms: 300_000,
        aggregation: Aggregation::Avg,
        merge: None,
    }
}

/// Series by their labels, each with samples as `(Unix seconds, value)`.
type Stored<'a> = ([(&'a str, &'a str); 5], &'a [(i64, f64)]);

fn store_of(series: &[Stored<'_>]) -> TestApp {
    let server = TestApp::new();
    for (labels, samples) in series {
        let samples: Vec<_> = samples.iter().map(|(seconds, value)| (seconds * 1_000, *value)).collect();
        server.put_all(labels, &samples);
    }
    server
}

async fn ask(server: &TestApp, question: &RangeQuestion) -> Result<RangeAnswer, RangeError> {
    let (store, context, settings) = (server.store.as_ref(), server.context(), Settings::default());
    answer(Asked { question, store, context: &context, settings: &settings }).await
}

fn values(answer: &RangeAnswer) -> Vec<(&str, &str, Vec<f64>)> {
    let mut told = Vec::new();
    for PodSeries { pod, container, samples, .. } in &answer.series {
        told.push((
            pod.as_deref().unwrap_or("all"),
            container.as_str(),
            samples.iter().map(|s| s.value).collect(),
        ));
    }
    told
}

fn labels<'a>(name: &'a str, pod: &'a str, container: &'a str, workload: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("__name__", name),
        ("namespace", "shop"),
        ("pod", pod),
        ("container", container),
        ("workload", workload),
    ]
}

#[tokio::test]
async fn series_with_the_workload_label_are_preferred_to_pod_names() {
    let store = store_of(&[
        (labels("memory", "any-name", "app", "web"), &[(100, 1.0), (300, 3.0), (700, 7.0)]),
        (labels("memory", POD, "app", ""), &[(300, 99.0)]),
        (labels("memory", "other", "app", "api"), &[(300, 99.0)]),
    ]);
    let answer = ask(&store, &question("memory")).await.expect("answered");
    assert_eq!(values(&answer), [("any-name", "app", vec![2.0, 7.0])]);
    assert_eq!(answer.series[0].samples[1].timestamp_ms, 900_000);
    assert_eq!(answer.infos, [r#"selected by the label workload="web""#]);
}

#[tokio::test]
async fn without_the_label_pods_are_found_by_their_names() {
    let store = store_of(&[
        (labels("memory", POD, "app", ""), &[(300, 1.0)]),
        (labels("memory", POD, "POD", ""), &[(300, 99.0)]),
        (labels("memory", POD, "", ""), &[(300, 99.0)]),
        (labels("memory", "web-api-7d4b9c6f5-x2k9p", "app", ""), &[(300, 99.0)]),
        (labels("memory", "web-0", "app", "api"), &[(300, 99.0)]),
    ]);
    let answer = ask(&store, &question("memory")).await.expect("answered");
    assert_eq!(values(&answer), [(POD, "app", vec![1.0])]);
    assert!(answer.infos[0].contains("selected by pod names such as web-<hash>-"), "{:?}", answer.infos);
}

#[tokio::test]
async fn each_container_is_answered_by_the_first_source_that_has_it() {
    let counter = "container_cpu_usage_seconds_total";
    let store = store_of(&[
        (labels("cpu", POD, "app", ""), &[(300, 0.25)]),
        (labels(counter, POD, "app", ""), &[(0, 0.0), (300, 3000.0)]),
        (labels(counter, POD, "proxy", ""), &[(0, 30.0), (300, 180.0)]),
    ]);
    let answer = ask(&store, &question("cpu")).await.expect("answered");
    assert_eq!(values(&answer), [(POD, "app", vec![0.25]), (POD, "proxy", vec![0.5])]);
}

#[tokio::test]
async fn one_container_can_be_asked_for() {
    let store = store_of(&[
        (labels("memory", POD, "app", ""), &[(300, 1.0)]),
        (labels("memory", POD, "POD", ""), &[(300, 2.0)]),
    ]);
    let asked = RangeQuestion { container: Some("POD".into()), ..question("memory") };
    assert_eq!(values(&ask(&store, &asked).await.expect("answered")), [(POD, "POD", vec![2.0])]);
}

#[tokio::test]
async fn any_stored_metric_can_be_asked_for_and_an_unknown_one_is_refused_with_its_likes() {
    let store = store_of(&[
        (labels("queue_length", POD, "app", ""), &[(300, 4.0)]),
        (labels("idle", "db-0", "", ""), &[(300, 4.0)]),
    ]);
    let answer = ask(&store, &question("queue_length")).await.expect("answered");
    assert_eq!(values(&answer), [(POD, "app", vec![4.0])]);

    let idle = ask(&store, &question("idle")).await.expect("answered");
    assert!(idle.series.is_empty());
    assert!(idle.infos[0].starts_with("no series matched"), "{:?}", idle.infos);

    let error = ask(&store, &question("queue_lenght")).await.expect_err("refused").to_string();
    assert!(error.contains(r#"metric "queue_lenght" is unknown: it is none of cpu, memory"#), "{error}");
    assert!(error.ends_with("did you mean queue_length?"), "{error}");
}

#[tokio::test]
async fn nothing_is_seen_outside_of_the_scope() {
    let store = store_of(&[(labels("cpu", POD, "app", "web"), &[(300, 4.0)])]);
    let scope = Scope::Namespaces(Arc::new(BTreeSet::from(["other".to_owned()])));
    let (context, settings) = (store.app.context(&scope), Settings::default());
    let asked = Asked {
        question: &question("cpu"),
        store: store.store.as_ref(),
        context: &context,
        settings: &settings,
    };
    let answer = answer(asked).await.expect("answered");
    assert!(answer.series.is_empty());
}

#[tokio::test]
async fn a_question_that_would_read_too_much_is_refused_with_what_to_do() {
    let store = store_of(&[(labels("cpu", POD, "app", "web"), &[(300, 4.0), (600, 4.0)])]);
    let settings = Settings { samples_max: 1, ..Settings::default() };
    let asked = Asked {
        question: &question("cpu"),
        store: store.store.as_ref(),
        context: &store.context(),
        settings: &settings,
    };
    let error = answer(asked).await.expect_err("refused");
    assert!(matches!(error, RangeError::Store(StoreError::TooLarge(_))), "{error}");
    assert!(error.to_string().contains("ask for fewer series or a shorter time"), "{error}");
}

/// A series of kube-state-metrics that says who owned something at these times, in seconds.
fn owner(server: &TestApp, name: &str, object: (&str, &str), owner: (&str, &str), seconds: &[i64]) {
    let labels = [
        ("__name__", name),
        ("namespace", "shop"),
        (object.0, object.1),
        ("owner_kind", owner.0),
        ("owner_name", owner.1),
    ];
    let samples: Vec<_> = seconds.iter().map(|s| (s * 1_000, 1.0)).collect();
    server.put_all(&labels, &samples);
}

#[tokio::test]
async fn a_workload_has_the_pods_that_it_owned_within_the_range_whatever_their_names() {
    let store = store_of(&[
        (labels("memory", "alpha", "app", ""), &[(300, 1.0)]),
        (labels("memory", "beta", "app", ""), &[(600, 2.0)]),
        (labels("memory", "gamma", "app", ""), &[(600, 4.0)]),
        // Named as a pod of web would be, and owned by another.
        (labels("memory", POD, "app", ""), &[(600, 99.0)]),
    ]);
    owner(&store, "kube_pod_owner", ("pod", "alpha"), ("ReplicaSet", "web-1"), &[100, 300]);
    owner(&store, "kube_pod_owner", ("pod", "beta"), ("ReplicaSet", "web-2"), &[600]);
    owner(&store, "kube_pod_owner", ("pod", "gamma"), ("ReplicaSet", "api-1"), &[600]);
    owner(&store, "kube_pod_owner", ("pod", POD), ("ReplicaSet", "api-1"), &[600]);
    for (replicaset, deployment) in [("web-1", "web"), ("web-2", "web"), ("api-1", "api")] {
        let of = ("replicaset", replicaset);
        owner(&store, "kube_replicaset_owner", of, ("Deployment", deployment), &[100, 600]);
    }
    let answer = ask(&store, &question("memory")).await.expect("answered");
    assert_eq!(values(&answer), [("alpha", "app", vec![1.0]), ("beta", "app", vec![2.0])]);
    assert_eq!(answer.infos, [r#"Deployment "web" had 2 pods by their owners"#]);
    let merged = RangeQuestion { merge: Some(Merge::Sum), ..question("memory") };
    assert_eq!(values(&ask(&store, &merged).await.expect("answered")), [("all", "app", vec![1.0, 2.0])]);
}

#[tokio::test]
async fn pods_that_were_there_before_their_owners_were_noted_are_found_by_name() {
    let store = store_of(&[
        (labels("memory", POD, "app", ""), &[(300, 1.0)]),
        (labels("memory", "web-66b6c48dd5-vmz8q", "app", ""), &[(600, 2.0)]),
    ]);
    owner(&store, "kube_pod_owner", ("pod", "web-66b6c48dd5-vmz8q"), ("ReplicaSet", "web-1"), &[600]);
    owner(&store, "kube_replicaset_owner", ("replicaset", "web-1"), ("Deployment", "web"), &[600]);
    let answer = ask(&store, &question("memory")).await.expect("answered");
    let expected = [("web-66b6c48dd5-vmz8q", "app", vec![2.0]), (POD, "app", vec![1.0])];
    assert_eq!(values(&answer), expected);
    assert_eq!(answer.infos.len(), 2, "{:?}", answer.infos);
}

#[tokio::test]
async fn workloads_of_one_name_are_told_apart_by_their_kind() {
    let store = store_of(&[
        (labels("memory", "web-0", "app", ""), &[(300, 1.0)]),
        (labels("memory", POD, "app", ""), &[(300, 2.0)]),
        (labels("memory", "run", "app", ""), &[(300, 4.0)]),
    ]);
    owner(&store, "kube_pod_owner", ("pod", "web-0"), ("StatefulSet", "web"), &[300]);
    owner(&store, "kube_pod_owner", ("pod", POD), ("ReplicaSet", "web-7d4b9c6f5"), &[300]);
    owner(&store, "kube_replicaset_owner", ("replicaset", "web-7d4b9c6f5"), ("Deployment", "web"), &[300]);
    owner(&store, "kube_pod_owner", ("pod", "run"), ("Job", "web-28"), &[300]);
    owner(&store, "kube_job_owner", ("job_name", "web-28"), ("CronJob", "web"), &[300]);
    let all = ask(&store, &question("memory")).await.expect("answered");
    let kinds: Vec<_> = all.series.iter().map(|s| (s.kind.as_deref(), s.pod.as_deref())).collect();
    let expected = [("CronJob", "run"), ("Deployment", POD), ("StatefulSet", "web-0")];
    assert_eq!(kinds, expected.map(|(kind, pod)| (Some(kind), Some(pod))));
    assert!(all.infos.iter().any(|info| info.contains("give kind=")), "{:?}", all.infos);

    let one = RangeQuestion { kind: Some("statefulset".into()), ..question("memory") };
    let one = ask(&store, &one).await.expect("answered");
    assert_eq!((values(&one), &one.series[0].kind), (vec![("web-0", "app", vec![1.0])], &None));

    let none = RangeQuestion { kind: Some("DaemonSet".into()), ..question("memory") };
    let none = ask(&store, &none).await.expect("answered");
    assert!(none.infos[0].contains("the kind was not considered"), "{:?}", none.infos);
}
