//! Manifests of kinds that are not Kubernetes' own: ServiceMonitor and PrometheusRule (Prometheus operator), Certificate and
//! Issuer (cert-manager). Their schemas come with those operators, so what is used of them is written down here, as their
//! API references (`monitoring.coreos.com/v1`, `cert-manager.io/v1`) have it: an unknown field, a missing one or a value of
//! another type fails, as kube-apiserver would drop or refuse it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::{helm, kustomize, objects, root, tool};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a field may be. A `!` at the end of a name says that it has to be there.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    Bool,
    Number,
    /// As `30s`, `1h30m`; Go's form where `h` is the longest.
    Duration,
    /// Any names with texts.
    Texts,
    /// A label selector.
    Selector,
    List(&'static Form),
    Fields(&'static [(&'static str, Form)]),
}

use Form::{Bool, Duration, Fields, List, Number, OneOf, Selector, Text, Texts};

const RELABELING: Form = Fields(&[
    ("sourceLabels", List(&Text)),
    ("separator", Text),
    ("targetLabel", Text),
    ("regex", Text),
    ("modulus", Number),
    ("replacement", Text),
    (
        "action",
        OneOf(&[
            "replace",
            "keep",
            "drop",
            "hashmod",
            "labelmap",
            "labeldrop",
            "labelkeep",
            "lowercase",
            "uppercase",
            "keepequal",
            "dropequal",
        ]),
    ),
]);

const SECRET_KEY: Form = Fields(&[("name!", Text), ("key!", Text), ("optional", Bool)]);

const SERVICE_MONITOR: Form = Fields(&[
    ("jobLabel", Text),
    ("targetLabels", List(&Text)),
    ("podTargetLabels", List(&Text)),
    ("sampleLimit", Number),
    ("selector!", Selector),
    ("namespaceSelector", Fields(&[("any", Bool), ("matchNames", List(&Text))])),
    (
        "endpoints!",
        List(&Fields(&[
            ("port", Text),
            ("path", Text),
            ("scheme", OneOf(&["http", "https"])),
            ("interval", Duration),
            ("scrapeTimeout", Duration),
            ("honorLabels", Bool),
            ("honorTimestamps", Bool),
            ("bearerTokenFile", Text),
            ("authorization", Fields(&[("type", Text), ("credentials", SECRET_KEY)])),
            ("tlsConfig", Fields(&[("caFile", Text), ("serverName", Text), ("insecureSkipVerify", Bool)])),
            ("relabelings", List(&RELABELING)),
            ("metricRelabelings", List(&RELABELING)),
        ])),
    ),
]);

const PROMETHEUS_RULE: Form = Fields(&[(
    "groups",
    List(&Fields(&[
        ("name!", Text),
        ("interval", Duration),
        ("limit", Number),
        (
            "rules",
            List(&Fields(&[
                ("record", Text),
                ("alert", Text),
                ("expr!", Text),
                ("for", Duration),
                ("keep_firing_for", Duration),
                ("labels", Texts),
                ("annotations", Texts),
            ])),
        ),
    ])),
)]);

const CERTIFICATE: Form = Fields(&[
    ("secretName!", Text),
    (
        "issuerRef!",
        Fields(&[("name!", Text), ("kind", OneOf(&["Issuer", "ClusterIssuer"])), ("group", Text)]),
    ),
    ("commonName", Text),
    ("dnsNames", List(&Text)),
    ("ipAddresses", List(&Text)),
    ("duration", Duration),
    ("renewBefore", Duration),
    ("isCA", Bool),
    (
        "usages",
        List(&OneOf(&["server auth", "client auth", "digital signature", "key encipherment", "cert sign"])),
    ),
    ("revisionHistoryLimit", Number),
    (
        "privateKey",
        Fields(&[
            ("algorithm", OneOf(&["RSA", "ECDSA", "Ed25519"])),
            ("size", Number),
            ("encoding", OneOf(&["PKCS1", "PKCS8"])),
            ("rotationPolicy", OneOf(&["Never", "Always"])),
        ]),
    ),
]);

const ISSUER: Form = Fields(&[
    ("selfSigned", Fields(&[("crlDistributionPoints", List(&Text))])),
    (
        "ca",
        Fields(&[
            ("secretName!", Text),
            ("crlDistributionPoints", List(&Text)),
            ("ocspServers", List(&Text)),
        ]),
    ),
]);

/// Kind, API version and the form of its `spec`.
const KINDS: [(&str, &str, Form); 4] = [
    ("ServiceMonitor", "monitoring.coreos.com/v1", SERVICE_MONITOR),
    ("PrometheusRule", "monitoring.coreos.com/v1", PROMETHEUS_RULE),
    ("Certificate", "cert-manager.io/v1", CERTIFICATE),
    ("Issuer", "cert-manager.io/v1", ISSUER),
];

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = ["ms", "s", "m", "h", "d"].into_iter().find(|unit| rest[digits..].starts_with(unit));
        let (true, Some(unit)) = (digits > 0, unit) else { return false };
        rest = &rest[digits + unit.len()..];
    }
    !text.is_empty()
}

/// What is wrong, with where.
fn faults(at: &str, value: &Value, form: Form) -> Vec<String> {
    let unless =
        |holds: bool, what: &str| if holds { Vec::new() } else { vec![format!("{at}: {what}: {value}")] };
    let text = value.as_str();
    match form {
        Text => unless(text.is_some(), "no text"),
        OneOf(all) => unless(text.is_some_and(|text| all.contains(&text)), "none of what it may be"),
        Bool => unless(value.is_boolean(), "neither true nor false"),
        Number => unless(value.is_number(), "no number"),
        Duration => unless(text.is_some_and(is_duration), "no duration"),
        Texts => unless(
            value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
            "not names with texts",
        ),
        Selector => {
            let expression = Fields(&[("key!", Text), ("operator!", Text), ("values", List(&Text))]);
            let mut all = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                let at = format!("{at}.{name}");
                all.extend(match name.as_str() {
                    "matchLabels" => faults(&at, value, Texts),
                    "matchExpressions" => value.as_array().map_or(vec![at.clone()], |list| {
                        list.iter().flat_map(|one| faults(&at, one, expression)).collect()
                    }),
                    _ => vec![format!("{at}: no field of a selector")],
                });
            }
            all.extend(unless(value.is_object(), "no selector"));
            all
        }
        List(form) => match value.as_array() {
            Some(list) => {
                let each = list.iter().enumerate();
                each.flat_map(|(place, one)| faults(&format!("{at}[{place}]"), one, *form)).collect()
            }
            None => unless(false, "no list"),
        },
        Fields(fields) => {
            let Some(object) = value.as_object() else { return unless(false, "no object") };
            let mut all = Vec::new();
            for (name, value) in object {
                match fields.iter().find(|(field, _)| field.trim_end_matches('!') == name) {
                    Some((_, form)) => all.extend(faults(&format!("{at}.{name}"), value, *form)),
                    None => all.push(format!("{at}.{name}: there is no such field")),
                }
            }
            let needed = fields.iter().filter_map(|(field, _)| field.strip_suffix('!'));
            all.extend(
                needed
                    .filter(|name| !object.contains_key(*name))
                    .map(|name| format!("{at}.{name} is missing")),
            );
            all
        }
    }
}

/// What is wrong with an object of one of the kinds; `None`: it is of none.
fn faults_of(object: &Value) -> Option<Vec<String>> {
    let (kind, version, form) = KINDS.into_iter().find(|(kind, ..)| object["kind"] == *kind)?;
    let mut all = faults(&format!("{kind} spec"), &object["spec"], form);
    if object["apiVersion"] != version {
        all.push(format!("{kind} is of {version}"));
    }
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        all.push(format!("{kind} has no name"));
    }
    for rule in object["spec"]["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        if rule["alert"].is_null() == rule["record"].is_null() {
            all.push(format!("either an alert or a record: {rule}"));
        }
    }
    Some(all)
}

fn check(what: &str, text: &str, kinds: &mut BTreeSet<String>) {
    for object in objects(text) {
        if let Some(faults) = faults_of(&object) {
            assert_eq!(faults, Vec::<String>::new(), "{what}");
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
        }
    }
}

#[test]
fn the_sources_use_only_fields_that_there_are() {
    let mut kinds = BTreeSet::new();
    for path in
        ["monitoring/servicemonitor.yaml", "monitoring/prometheusrule.yaml", "cert-manager/certificate.yaml"]
    {
        let text = std::fs::read_to_string(root().join("deploy/components").join(path)).unwrap();
        check(path, &text, &mut kinds);
    }
    assert_eq!(kinds.len(), KINDS.len());
}

#[test]
fn what_is_rendered_uses_only_fields_that_there_are() {
    let mut kinds = BTreeSet::new();
    let (Some(kubectl), Some(python)) = (tool("kubectl"), tool("python")) else { return };
    for overlay in ["overlays/cert-manager", "overlays/monitoring"] {
        check(overlay, &kustomize(&kubectl, overlay), &mut kinds);
    }
    let values = json!({"certManager": {"enabled": true}, "monitoring": true});
    let rendered = helm(&python, &values);
    check("the chart", &String::from_utf8(rendered.stdout).unwrap(), &mut kinds);
    assert_eq!(kinds.len(), KINDS.len());
}

#[test]
fn a_wrong_manifest_is_found() {
    let wrong = |kind: &str, version: &str, spec: Value| {
        faults_of(&json!({"kind": kind, "apiVersion": version, "metadata": {"name": "x"}, "spec": spec}))
            .unwrap()
    };
    let monitoring = "monitoring.coreos.com/v1";
    for (kind, version, spec) in [
        ("ServiceMonitor", monitoring, json!({"endpoints": []})),
        ("ServiceMonitor", monitoring, json!({"selector": {}, "endpoints": [{"intervall": "30s"}]})),
        ("ServiceMonitor", monitoring, json!({"selector": {}, "endpoints": [{"interval": "soon"}]})),
        ("ServiceMonitor", monitoring, json!({"selector": {"app": "x"}, "endpoints": []})),
        ("ServiceMonitor", "monitoring.coreos.com/v2", json!({"selector": {}, "endpoints": []})),
        ("PrometheusRule", monitoring, json!({"groups": [{"name": "a", "rules": [{"alert": "b"}]}]})),
        ("PrometheusRule", monitoring, json!({"groups": [{"name": "a", "rules": [{"expr": "b"}]}]})),
        ("Certificate", "cert-manager.io/v1", json!({"secretName": "a", "issuerRef": {"kind": "Issuer"}})),
        (
            "Certificate",
            "cert-manager.io/v1",
            json!({"secretName": "a", "issuerRef": {"name": "b"}, "usages": ["serving"]}),
        ),
        ("Issuer", "cert-manager.io/v1", json!({"ca": {}})),
    ] {
        assert_eq!(wrong(kind, version, spec.clone()).len(), 1, "{spec}");
    }
}
