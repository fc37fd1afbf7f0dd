use super::super::matchers::Names;
use super::super::question::AboutObjects;
use super::super::{OwnStore, defaults};
use super::*;
use crate::kubernetes::resources::resolve;
use crate::kubernetes::selector;
use crate::query::promql::Options;
use crate::rules::source::{OWN_STORE, PromQl};
use crate::rules::usage::UsageAsked;
use crate::store::Scope;
use crate::testing::{Fault, NOW_MS, TestApp};

fn settings() -> RulesSettings {
    RulesSettings {
        relist_interval: Duration::from_secs(60),
        max_age: Duration::from_secs(300),
        query_timeout: Duration::from_secs(30),
    }
}

fn sources(server: &TestApp) -> Sources {
    let own: Arc<dyn PromQl> = Arc::new(OwnStore::new(server.app.store.clone(), Options::default()));
    Sources::new(vec![(OWN_STORE.to_owned(), own)])
}

fn rules(server: &TestApp, text: &str) -> Rules {
    let rules = Rules::new(sources(server), settings());
    rules.put_text(text).expect("a file");
    rules
}

fn listed(rules: &Rules) -> Vec<String> {
    let (entries, external) = rules.metrics().entries();
    let entries = entries.iter().map(|entry| format!("{}/{}", entry.resource, entry.metric));
    entries.chain(external).collect()
}

const TEXT: &str = r#"
rules:
- seriesQuery: 'requests_total{namespace!="",pod!=""}'
  resources: {template: "<<.Resource>>"}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
- seriesQuery: 'temperature{host!=""}'
  resources: {overrides: {host: {resource: node}}}
  metricsQuery: 'avg(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: 'queue{topic!=""}'
  resources: {namespaced: false}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (topic)'
"#;

fn filled() -> TestApp {
    let server = TestApp::new();
    for (pod, factor) in [("p1", 1.0), ("p2", 2.0)] {
        for verb in ["GET", "PUT"] {
            let labels = [
                ("__name__", "requests_total"),
                ("namespace", "shop"),
                ("pod", pod),
                ("verb", verb),
                ("service", "web"),
            ];
            let samples: Vec<(i64, f64)> =
                (0..=20).map(|at| (NOW_MS - 205_000 + at * 10_000, factor * 50.0 * at as f64)).collect();
            server.put_all(&labels, &samples);
        }
    }
    server.put(&[("__name__", "temperature"), ("host", "n1")], NOW_MS - 7_000, 41.5);
    server.put(&[("__name__", "temperature"), ("host", "n2")], NOW_MS - 7_000, f64::NAN);
    server.put(&[("__name__", "queue"), ("topic", "a"), ("namespace", "bank")], NOW_MS - 3_000, 4.0);
    server.put(
        &[("__name__", "queue"), ("topic", "b"), ("namespace", "shop")],
        NOW_MS - 1_000,
        f64::INFINITY,
    );
    server
}

#[tokio::test]
async fn metrics_are_listed_by_rules_and_answered_by_their_queries() {
    let server = filled();
    let rules = rules(&server, TEXT);
    assert_eq!(rules.relist(&Resolver::default(), NOW_MS).await, [""; 0]);
    assert_eq!(
        listed(&rules),
        [
            "namespaces/requests_per_second",
            "nodes/temperature",
            "pods/requests_per_second",
            "services/requests_per_second",
            "queue"
        ]
    );
    let metrics = rules.metrics();
    let found = |resource: &str, metric: &str| {
        metrics.of_objects(&resolve(resource).expect("known"), metric).expect("listed").clone()
    };
    let all = selector::parse("").expect("a selector");
    let ask = async |resource: &str, metric: &str, namespace: Option<&str>, names: Names<'_>, of_series| {
        let found = found(resource, metric);
        let about = AboutObjects { found: &found, namespace, names, of_series, scope: &Scope::All };
        rules.objects(&about, NOW_MS).await.expect("answered")
    };
    let shown = |answered: &super::super::question::Answered<String>| -> Vec<(String, f64, i64)> {
        answered.values.iter().map(|one| (one.of.clone(), one.value, NOW_MS - one.time_ms)).collect()
    };
    let answered =
        ask("pods", "requests_per_second", Some("shop"), Names::These(&["p1", "p2", "p3"]), &all).await;
    assert_eq!(shown(&answered), [("p1".to_owned(), 10.0, 5_000), ("p2".to_owned(), 20.0, 5_000)]);
    assert_eq!(answered.window, Some(Duration::from_secs(120)));
    let gets = selector::parse("verb=GET").expect("a selector");
    let answered = ask("pods", "requests_per_second", Some("shop"), Names::All, &gets).await;
    assert_eq!(shown(&answered), [("p1".to_owned(), 5.0, 5_000), ("p2".to_owned(), 10.0, 5_000)]);
    let answered = ask("namespaces", "requests_per_second", None, Names::These(&["shop"]), &all).await;
    assert_eq!(shown(&answered), [("shop".to_owned(), 30.0, 5_000)]);
    let answered = ask("nodes", "temperature", None, Names::All, &all).await;
    assert_eq!(shown(&answered), [("n1".to_owned(), 41.5, 7_000)], "NaN is missing");
    assert_eq!(answered.window, None);

    let external = metrics.external("queue").expect("listed");
    let answered = rules.external(external, "anything", &all, &Scope::All, NOW_MS).await.expect("answered");
    let values: Vec<_> = answered.values.iter().map(|one| (one.of["topic"].as_str(), one.value)).collect();
    assert_eq!(values, [("a", 4.0)], "infinity is missing");
    assert_eq!(answered.values[0].time_ms, NOW_MS - 3_000);
}

#[tokio::test]
async fn the_store_keeps_a_caller_within_its_namespaces() {
    let server = filled();
    let rules = rules(&server, TEXT);
    rules.relist(&Resolver::default(), NOW_MS).await;
    let metrics = rules.metrics();
    let scope = Scope::Namespaces(Arc::new(BTreeSet::from(["shop".to_owned()])));
    let all = selector::parse("").expect("a selector");
    let external = metrics.external("queue").expect("listed");
    let answered = rules.external(external, "shop", &all, &scope, NOW_MS).await.expect("answered");
    assert_eq!(answered.values, []);
}

#[tokio::test]
async fn a_bad_rule_is_told_and_the_others_hold_and_a_bad_file_changes_nothing() {
    let server = filled();
    let text = TEXT.replace("avg(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)", "avg(<<.Serie>>)");
    let rules = rules(&server, &text);
    let statuses = rules.statuses();
    let bad: Vec<_> = statuses.iter().filter(|status| status.outcome.is_err()).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].name.as_str(), bad[0].place.line), ("rules[1]", 7));
    assert!(bad[0].outcome.as_ref().is_err_and(|reason| reason.contains("there is no .Serie")), "{bad:?}");
    rules.relist(&Resolver::default(), NOW_MS).await;
    assert!(!listed(&rules).contains(&"nodes/temperature".to_owned()));
    assert!(rules.put_text("rules: [").is_err());
    assert_eq!(rules.statuses(), statuses);
    // The rule mended: its metrics are there without a relist, where their series are known.
    rules.put_text(TEXT).expect("a file");
    rules.name_known(&Resolver::default()).await;
    assert!(listed(&rules).contains(&"pods/requests_per_second".to_owned()), "none flickers");
}

#[tokio::test]
async fn metrics_do_not_flicker_when_a_source_fails_or_series_pause() {
    let server = filled();
    let rules = rules(&server, TEXT);
    let resolver = Resolver::default();
    rules.relist(&resolver, NOW_MS).await;
    let all = listed(&rules);
    server.store.set_fault(Some(Fault::Failing));
    let failures = rules.relist(&resolver, NOW_MS + 1_000).await;
    assert!(failures.len() == 3 && failures[0].contains("told to fail"), "{failures:?}");
    assert_eq!(listed(&rules), all);
    server.store.set_fault(None);
    // No sample within max_age, but within one more relist: still there; then not.
    assert_eq!(rules.relist(&resolver, NOW_MS + 350_000).await, [""; 0]);
    assert_eq!(listed(&rules), all);
    rules.relist(&resolver, NOW_MS + 100_000_000).await;
    assert_eq!(listed(&rules), [""; 0]);
}

#[tokio::test]
async fn without_a_file_the_original_rules_hold() {
    let server = TestApp::new();
    let series = |labels: &[(&str, &str)]| server.put(labels, NOW_MS - 1_000, 1.0);
    for (name, pod, container, of) in [
        ("container_cpu_usage_seconds_total", "pod_name", "container_name", "app"),
        ("container_memory_usage_bytes", "pod_name", "container_name", "app"),
        ("container_network_rx_total", "pod", "container", "app"),
        ("container_fs_usage_bytes", "pod", "container", "POD"),
    ] {
        series(&[("__name__", name), ("namespace", "shop"), (pod, "p1"), (container, of)]);
    }
    series(&[
        ("__name__", "http_requests_total"),
        ("namespace", "shop"),
        ("service", "web"),
        ("pod", "p1"),
        ("verb", "GET"),
    ]);
    series(&[("__name__", "busy_seconds_total"), ("namespace", "shop"), ("deployment", "d")]);
    series(&[("__name__", "depth"), ("namespace", "shop")]);
    series(&[("__name__", "nowhere_total"), ("pod", "p1")]);
    let sources = sources(&server);
    let rules = Rules::new(sources.clone(), settings());
    rules.put_rules(defaults::rules(Duration::from_secs(300), sources.names()).expect("usable"));
    rules.relist(&Resolver::default(), NOW_MS).await;
    assert_eq!(
        listed(&rules),
        [
            "deployments.apps/busy",
            "namespaces/busy",
            "namespaces/depth",
            "namespaces/http_requests",
            "pods/cpu_usage",
            "pods/http_requests",
            "pods/memory_usage_bytes",
            "pods/network_rx",
            "services/http_requests",
        ]
    );
    let examples: Vec<String> =
        rules.statuses().into_iter().filter_map(|status| status.outcome.ok()).collect();
    let matchers = r#"namespace="lookback-sample",pod_name=~"pod1|pod2",container_name!="POD""#;
    assert!(
        examples.iter().any(|text| *text == format!("sum(rate(series{{{matchers}}}[5m])) by (pod_name)")
            || text.contains("[5m])) by (pod")),
        "{examples:?}"
    );
}

/// Rules for cpu and memory that leave no container out.
const RESOURCE_RULES: &str = r#"
resourceRules:
  cpu:
    containerQuery: 'sum by (<<.GroupBy>>) (rate(container_cpu_usage_seconds_total{<<.LabelMatchers>>}[2m]))'
    nodeQuery: 'sum by (<<.GroupBy>>) (rate(node_cpu_usage_seconds_total{<<.LabelMatchers>>}[2m]))'
    resources: {overrides: {node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  memory:
    containerQuery: 'sum by (<<.GroupBy>>) (container_memory_working_set_bytes{<<.LabelMatchers>>})'
    nodeQuery: 'sum by (<<.GroupBy>>) (node_memory_working_set_bytes{<<.LabelMatchers>>})'
    resources: {overrides: {node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  window: 2m
"#;

#[tokio::test]
async fn the_pause_container_keeps_no_pod_from_being_told_of_but_one_without_memory_does() {
    let server = TestApp::new();
    let labels = |name, pod, container| {
        [("__name__", name), ("namespace", "shop"), ("pod", pod), ("container", container)]
    };
    for (pod, container) in [("web", "app"), ("web", "POD"), ("half", "app"), ("half", "side")] {
        let samples: Vec<(i64, f64)> =
            (0..=20).map(|at| (NOW_MS - 205_000 + at * 10_000, 5.0 * at as f64)).collect();
        server.put_all(&labels("container_cpu_usage_seconds_total", pod, container), &samples);
    }
    for (pod, container) in [("web", "app"), ("half", "app")] {
        server.put(&labels("container_memory_working_set_bytes", pod, container), NOW_MS - 5_000, 1e8);
    }
    let rules = rules(&server, RESOURCE_RULES);
    let resolver = server.app.resolver();
    let asked = UsageAsked {
        namespace: Some("shop"),
        name: None,
        scope: &Scope::All,
        resolver: &resolver,
        now_ms: NOW_MS,
    };
    let pods = rules.pods_usage(&asked).await.expect("answered").expect("there are rules");
    let [pod] = &pods[..] else { panic!("one pod: {pods:?}") };
    assert_eq!(pod.name, "web");
    let [(name, used)] = &pod.containers.iter().collect::<Vec<_>>()[..] else {
        panic!("one container: {pod:?}")
    };
    assert_eq!((name.as_str(), used.memory_bytes), ("app", 100_000_000));
    assert!(used.cpu_nanocores.abs_diff(500_000_000) < 1_000, "{used:?}");
}
