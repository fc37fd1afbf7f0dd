//! `deploy/`: every kustomize overlay and the Helm chart are rendered, checked against Kubernetes' own schemas, and
//! against what they promise: least rights, Pod Security `restricted`, verified TLS, flags that the binary has.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::{helm, kustomize, objects, output_of, root, the, title, tool};
use common::process::{Server, lookback};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Overlays, and the chart's values that say the same.
fn variants() -> [(&'static str, Value); 10] {
    [
        ("overlays/plain", json!({})),
        ("overlays/cert-manager", json!({"certManager": {"enabled": true}})),
        ("overlays/external-metrics", json!({"externalMetrics": {"v1beta1": true}})),
        ("overlays/resource-metrics", json!({"resourceMetrics": {"v1beta1": true}})),
        ("overlays/loadbalancer", json!({"loadBalancer": {"enabled": true}})),
        ("overlays/openshift", json!({"openshift": true})),
        ("overlays/monitoring", json!({"monitoring": true})),
        (
            "overlays/prometheus-adapter",
            json!({
                "customMetrics": {"v1beta1": false, "v1beta2": false},
                "prometheus": {"urls": ["http://prometheus-k8s.monitoring.svc:9090"]},
                "rules": {
                    "rules": [{
                        "seriesQuery": "{namespace!=\"\",pod!=\"\",__name__=~\"^http_.*_total$\"}",
                        "resources": {"template": "<<.Resource>>"},
                        "name": {"matches": "^(.*)_total$", "as": "${1}_per_second"},
                        "metricsQuery": "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)",
                    }],
                    "externalRules": [],
                },
            }),
        ),
        (
            DISTRIBUTED,
            json!({
                "replicas": 2,
                "store": {"url": "http://victoria-metrics.monitoring.svc:8428"},
            }),
        ),
        (
            "overlays/dev",
            json!({
                "externalMetrics": {"v1beta1": true},
                "image": {"tag": "dev", "pullPolicy": "Never"},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
                "storage": {"size": "1Gi"},
                "retention": "2d",
                "logFormat": "text",
                "extraArgs": ["--log-level=info,lookback=debug"],
            }),
        ),
    ]
}

/// This one registers nothing: it runs beside another adapter.
const BESIDE_ANOTHER: &str = "overlays/prometheus-adapter";

/// Whether a rendering looks first whose the APIs are: Helm's do, where they register any.
fn has_preflight(name: &str) -> bool {
    name.starts_with("chart") && !name.ends_with(BESIDE_ANOTHER)
}

/// Whether cert-manager makes its certificate.
fn certified(name: &str) -> bool {
    name.contains("cert-manager") || name == EVERYTHING
}

/// Whether a rendering registers metrics.k8s.io, which is mostly metrics-server's.
fn serves_usage(name: &str) -> bool {
    name.ends_with("overlays/resource-metrics") || name == EVERYTHING
}

const EVERYTHING: &str = "chart with everything";

/// Several replicas over another engine.
const DISTRIBUTED: &str = "overlays/distributed";

/// Every rendering that a user can get from this tree, by its name.
fn renderings() -> Option<BTreeMap<String, Vec<Value>>> {
    let (kubectl, python) = (tool("kubectl")?, tool("python")?);
    let mut all = BTreeMap::new();
    for (overlay, values) in variants() {
        all.insert(overlay.to_owned(), objects(&kustomize(&kubectl, overlay)));
        all.insert(format!("chart for {overlay}"), objects(&chart(&python, &values)));
    }
    let rich = json!({
        "certManager": {"enabled": true},
        "externalMetrics": {"v1beta1": true},
        "resourceMetrics": {"v1beta1": true},
        "loadBalancer": {"enabled": true, "sourceRanges": ["192.0.2.0/24"], "annotations": {"a": "b"}},
        "monitoring": true,
        "credentialsSecret": "lookback-credentials",
        "settings": {"freshness": "2m"},
        "rules": {"rules": [{"seriesQuery": "up", "metricsQuery": "up"}]},
        "takeOver": true,
        "delegate": {"customMetrics": "monitoring/prometheus-adapter", "externalMetrics": "keda/keda:6443", "caConfigMap": "adapters-ca"},
        "describedResources": [{"apiGroups": ["example.com"], "resources": ["queues"], "verbs": ["get", "list"]}],
        "nodeSelector": {"disk": "ssd"},
        "priorityClassName": "high",
        "podAnnotations": {"c": "d"},
        "imagePullSecrets": [{"name": "registry"}],
    });
    all.insert(EVERYTHING.to_owned(), objects(&chart(&python, &rich)));
    Some(all)
}

#[track_caller]
fn chart(python: &Path, values: &Value) -> String {
    let rendered = helm(python, values);
    assert!(rendered.status.success(), "{values}: {}", String::from_utf8_lossy(&rendered.stderr));
    String::from_utf8(rendered.stdout).unwrap()
}

/// An object without what only Helm writes, with sets in one order.
fn comparable(mut object: Value) -> Value {
    if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
        labels.retain(|name, _| {
            !["app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"]
                .contains(&name.as_str())
        });
    }
    object
}

#[test]
fn the_rendered_manifest_is_the_base_of_today() {
    let Some(kubectl) = tool("kubectl") else { return };
    let kept = std::fs::read_to_string(root().join("deploy/k8s/deployment.yaml")).unwrap();
    let (head, kept) = kept.split_once('\n').unwrap();
    assert!(head.starts_with("# Rendered from deploy/base"), "{head}");
    assert_eq!(kept, kustomize(&kubectl, "base"), "run deploy/render");
}

#[test]
fn what_chart_and_components_share_is_the_same_file() {
    let read = |path: &str| std::fs::read_to_string(root().join("deploy").join(path)).unwrap();
    assert_eq!(
        read("components/monitoring/lookback.json"),
        read("chart/files/lookback.json"),
        "run deploy/render"
    );
    let rule = objects(&read("components/monitoring/prometheusrule.yaml")).remove(0);
    assert_eq!(rule["spec"], objects(&read("chart/files/alerts.yaml")).remove(0), "run deploy/render");
}

#[test]
fn the_chart_says_the_same_as_the_overlays() {
    let (Some(kubectl), Some(python)) = (tool("kubectl"), tool("python")) else { return };
    for (overlay, values) in variants() {
        let by_title = |text: &str| -> BTreeMap<String, Value> {
            objects(text).into_iter().map(|object| (title(&object), comparable(object))).collect()
        };
        let mut of_overlay = by_title(&kustomize(&kubectl, overlay));
        let mut of_chart = by_title(&chart(&python, &values));
        // The preflight Job is Helm's alone: kubectl has no hooks.
        of_chart.retain(|_, object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
        // Helm makes the namespace itself, with --create-namespace.
        assert!(of_overlay.remove("Namespace lookback").is_some());
        if overlay == "overlays/dev" {
            // The order of flags.
            for objects in [&mut of_overlay, &mut of_chart] {
                let args = objects.get_mut("StatefulSet lookback").unwrap();
                let args = args["spec"]["template"]["spec"]["containers"][0]["args"].as_array_mut().unwrap();
                args.retain(|arg| arg != "--log-format=text");
                args.sort_by_key(|arg| arg.as_str().map(str::to_owned));
            }
        }
        let titles = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(titles(&of_overlay), titles(&of_chart), "{overlay}");
        for (title, object) in &of_overlay {
            assert_eq!(object, &of_chart[title], "{overlay}: {title}");
        }
    }
}

#[test]
fn everything_rendered_fits_the_schemas_of_kubernetes() {
    let (Some(validate), Some(all)) = (tool("kubernetes-validate"), renderings()) else { return };
    let directory = tempfile::tempdir().unwrap();
    // Their definitions are not Kubernetes' own.
    let foreign = ["Certificate", "Issuer", "ServiceMonitor", "PrometheusRule"];
    let mut command = Command::new(validate);
    command.args(["--kubernetes-version", "1.36", "--strict", "--no-warn"]);
    for (number, objects) in all.values().enumerate() {
        let own: Vec<_> =
            objects.iter().filter(|object| !foreign.contains(&object["kind"].as_str().unwrap())).collect();
        assert!(own.len() > 8, "most are");
        let text: Vec<String> = own.iter().map(|object| object.to_string()).collect();
        let path = directory.path().join(format!("{number}.yaml"));
        std::fs::write(&path, text.join("\n---\n")).unwrap();
        command.arg(path);
    }
    for example in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        command.arg(example.unwrap().path());
    }
    let said = output_of(&mut command);
    assert!(!said.contains("ERROR"), "{said}");
}

#[test]
fn helm_finds_nothing_wrong_and_refuses_values_that_mean_nothing() {
    let Some(python) = tool("python") else { return };
    let mut lint = Command::new(&python);
    lint.arg(root().join("tests/deploy/helm.py")).arg("lint").arg(root().join("deploy/chart"));
    let found: Value = serde_json::from_str(&output_of(&mut lint)).unwrap();
    assert_eq!(found["errors"], json!([]), "{found}");
    // 1 is advice: the chart has no icon.
    let bad =
        found["messages"].as_array().unwrap().iter().filter(|message| message["severity"].as_i64() > Some(1));
    assert_eq!(bad.count(), 0, "{found}");
    for values in [
        json!({"retention": "soon"}),
        json!({"replicas": 3}),
        json!({"replicas": 0}),
        json!({"store": {"url": "mimir:8080"}}),
        json!({"store": {"writeUrl": "http://mimir/api/v1/push"}}),
        json!({"store": {"url": "http://mimir", "queryUrl": "http://mimir"}}),
        json!({"externalMetrics": true}),
        json!({"describedResources": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}]}),
        json!({"describedResources": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]}),
    ] {
        assert!(!helm(&python, &values).status.success(), "{values} was taken");
    }
}

#[test]
fn rights_are_the_least() {
    let Some(all) = renderings() else { return };
    for (name, objects) in &all {
        let rules = objects
            .iter()
            .filter(|object| ["Role", "ClusterRole"].contains(&object["kind"].as_str().unwrap()))
            .flat_map(|role| role["rules"].as_array().unwrap());
        let mut count = 0;
        for rule in rules {
            count += 1;
            assert!(!rule.to_string().contains('*'), "{name}: a wildcard: {rule}");
            let has = |field: &str, value: &str| {
                rule[field].as_array().is_some_and(|values| values.iter().any(|v| v == value))
            };
            // Its own CA's, and no other.
            let of_own_ca = rule["resourceNames"] == json!(["lookback-shared-ca"]);
            assert!(!has("resources", "secrets") || of_own_ca && !certified(name), "{name}: {rule}");
            assert!(!has("resources", "configmaps"), "{name}: {rule}");
            for verb in rule["verbs"].as_array().unwrap() {
                let may = match verb.as_str().unwrap() {
                    "get" | "list" | "watch" => true,
                    "create" => has("resources", "events") || of_own_ca,
                    "patch" => {
                        has("resources", "events")
                            || of_own_ca
                            || has("resources", "apiservices") && rule["resourceNames"].is_array()
                    }
                    _ => false,
                };
                assert!(may, "{name}: {verb}: {rule}");
            }
        }
        assert!(count > 5, "{name}: {count} rules");
        let bound: BTreeSet<_> = objects
            .iter()
            .filter(|object| object["kind"].as_str().unwrap().ends_with("RoleBinding"))
            .map(|binding| binding["roleRef"]["name"].as_str().unwrap())
            .collect();
        let mut expected =
            vec!["extension-apiserver-authentication-reader", "lookback", "system:auth-delegator"];
        if has_preflight(name) {
            expected.push("lookback-preflight");
        }
        if serves_usage(name) {
            expected.push("lookback:resource-metrics");
        }
        if !certified(name) {
            expected.push("lookback:ca");
        }
        expected.sort_unstable();
        assert_eq!(bound.into_iter().collect::<Vec<_>>(), expected, "{name}");
    }
}

#[track_caller]
fn check_restricted(name: &str, pod: &Value) {
    let context = &pod["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{name}");
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    assert!(context["runAsUser"].is_null(), "{name}: any user ID must do");
    for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
        assert!(pod[field].is_null(), "{name}: {field}");
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        assert!(volume["secret"].is_object() || volume["configMap"].is_object(), "{name}: {volume}");
    }
    let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("{name}: one container") };
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], expected, "{name}");
    assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
    assert!(container["resources"]["limits"]["cpu"].is_null(), "{name}: a CPU limit throttles answers");
}

#[test]
fn pods_keep_to_pod_security_restricted() {
    let Some(all) = renderings() else { return };
    for (name, objects) in &all {
        let fs_group = &the(objects, "StatefulSet", "lookback")["spec"]["template"]["spec"]["securityContext"]
            ["fsGroup"];
        assert_eq!(fs_group.is_null(), name.ends_with("openshift"), "{name}");
        let pods: Vec<_> = objects.iter().map(|object| &object["spec"]["template"]["spec"]).collect();
        let pods: Vec<_> = pods.into_iter().filter(|pod| pod.is_object()).collect();
        assert_eq!(pods.len(), if has_preflight(name) { 2 } else { 1 }, "{name}");
        pods.into_iter().for_each(|pod| check_restricted(name, pod));
    }
    let namespace = &all["overlays/plain"];
    let labels = &the(namespace, "Namespace", "lookback")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn registrations_are_verified_and_bear_no_ca_of_a_rendering() {
    let Some(all) = renderings() else { return };
    let priorities = [
        ("v1beta1.custom.metrics.k8s.io", 100),
        ("v1beta2.custom.metrics.k8s.io", 200),
        ("v1beta1.external.metrics.k8s.io", 100),
        ("v1beta1.metrics.k8s.io", 100),
    ];
    for (name, objects) in &all {
        let registrations: Vec<_> = objects.iter().filter(|object| object["kind"] == "APIService").collect();
        let is_registered = !name.ends_with(BESIDE_ANOTHER);
        assert!(is_registered == (registrations.len() >= 2), "{name}");
        let own_usage =
            registrations.iter().any(|object| object["metadata"]["name"] == "v1beta1.metrics.k8s.io");
        assert_eq!(own_usage, serves_usage(name), "{name}");
        for registration in registrations {
            let spec = &registration["spec"];
            assert!(spec["insecureSkipTLSVerify"].is_null() && spec["caBundle"].is_null(), "{name}: {spec}");
            let own = registration["metadata"]["name"].as_str().unwrap();
            let (_, priority) = priorities.iter().find(|(name, _)| *name == own).unwrap();
            assert_eq!(spec["versionPriority"], *priority, "{name}: {own}");
            let service = the(objects, "Service", spec["service"]["name"].as_str().unwrap());
            let ports = service["spec"]["ports"].as_array().unwrap();
            assert!(ports.iter().any(|port| port["port"] == spec["service"]["port"]), "{name}");
        }
    }
}

#[test]
fn replicas_block_no_drain_and_end_in_order() {
    let Some(all) = renderings() else { return };
    for (name, objects) in &all {
        let set = &the(objects, "StatefulSet", "lookback")["spec"];
        let budget = &the(objects, "PodDisruptionBudget", "lookback")["spec"];
        let replicas = if name.ends_with(DISTRIBUTED) { 2 } else { 1 };
        assert_eq!((&set["replicas"], &budget["maxUnavailable"]), (&json!(replicas), &json!(1)), "{name}");
        assert_eq!(budget["selector"], set["selector"], "{name}");
        assert!(set["template"]["spec"]["terminationGracePeriodSeconds"].as_i64() >= Some(30), "{name}");
        the(objects, "Service", set["serviceName"].as_str().unwrap());
    }
}

#[track_caller]
fn check_flags(name: &str, container: &Value, command: &str, help: &str) {
    let args = container["args"].as_array().unwrap();
    assert_eq!(args[0], command, "{name}");
    for flag in args[1..].iter().map(|arg| arg.as_str().unwrap().split('=').next().unwrap()) {
        let known = help.split_whitespace().any(|word| word.trim_end_matches(',') == flag);
        assert!(known, "{name}: {flag} is no flag of {command}:\n{help}");
    }
}

#[test]
fn the_binary_has_every_flag_that_the_manifests_give_and_answers_their_probes() {
    let Some(all) = renderings() else { return };
    let help = |command: &str| output_of(lookback().args([command, "--help"]));
    let (serve, preflight) = (help("serve"), help("preflight"));
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    for (name, objects) in &all {
        let container = &the(objects, "StatefulSet", "lookback")["spec"]["template"]["spec"]["containers"][0];
        check_flags(name, container, "serve", &serve);
        if has_preflight(name) {
            let job = &the(objects, "Job", "lookback-preflight")["spec"]["template"]["spec"];
            check_flags(name, &job["containers"][0], "preflight", &preflight);
        }
        let ports: BTreeSet<_> = container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["name"].as_str().unwrap())
            .collect();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &container[probe]["httpGet"];
            assert!(ports.contains(get["port"].as_str().unwrap()), "{name}: {get}");
            assert_eq!(server.get(get["path"].as_str().unwrap()).status, 200, "{name}: {get}");
        }
        for service in objects.iter().filter(|object| object["kind"] == "Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                assert!(ports.contains(port["targetPort"].as_str().unwrap()), "{name}: {port}");
            }
        }
    }
}

#[test]
fn there_is_an_example_of_each_kind_of_hpa_metric() {
    let mut kinds = BTreeSet::new();
    for example in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        for object in objects(&std::fs::read_to_string(example.unwrap().path()).unwrap()) {
            for metric in object["spec"]["metrics"].as_array().into_iter().flatten() {
                let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let described = part(&metric["object"]["describedObject"]["kind"]);
                kinds.insert((part(&metric["type"]), described, part(&metric["object"]["target"]["type"])));
            }
        }
    }
    let kinds: Vec<_> = kinds.iter().map(|(a, b, c)| format!("{a} {b} {c}").trim_end().to_owned()).collect();
    let expected = [
        "External",
        "Object Deployment AverageValue",
        "Object Ingress AverageValue",
        "Object Namespace Value",
        "Object Node Value",
        "Object Service Value",
        "Pods",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_dockerfile_has_no_finding() {
    let Some(hadolint) = tool("hadolint") else { return };
    output_of(Command::new(hadolint).arg(root().join("deploy/Dockerfile")));
}
