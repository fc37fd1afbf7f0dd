//! The OpenAPI documents of the served APIs: version 2 (one document) and version 3 (one a version of a
//! group, and an index), as kube-apiserver's aggregator merges them and `kubectl explain` reads them.

mod resource_metrics;

use super::served::{GroupVersion, Served};
use serde_json::{Map, Value, json};

/// Which way of writing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// The answer of `/openapi/v2`.
#[must_use]
pub fn v2(served: &Served) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for version in served.versions() {
        paths.append(&mut paths_of(version, Dialect::V2));
        definitions.append(&mut schemas_of(version, Dialect::V2));
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions})
}

/// The answer of `/openapi/v3/apis/<group>/<version>`.
#[must_use]
pub fn v3(version: GroupVersion) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths_of(version, Dialect::V3),
        "components": {"schemas": schemas_of(version, Dialect::V3)},
    })
}

/// The answer of `/openapi/v3`: where each document is, with the hash of its content.
#[must_use]
pub fn v3_index<'a>(documents: impl IntoIterator<Item = (GroupVersion, &'a str)>) -> Value {
    let entry = |(version, hash): (GroupVersion, &str)| {
        let url = format!("/openapi/v3/apis/{version}?hash={hash}");
        (format!("apis/{version}"), json!({"serverRelativeURL": url}))
    };
    json!({"paths": documents.into_iter().map(entry).collect::<Map<_, _>>()})
}

fn info() -> Value {
    json!({"title": "Lookback", "version": concat!("v", env!("CARGO_PKG_VERSION"))})
}

fn schema_name(version: GroupVersion, kind: &str) -> String {
    let package = match version {
        GroupVersion::ResourceV1Beta1 => "metrics",
        GroupVersion::ExternalV1Beta1 => "external_metrics",
        GroupVersion::CustomV1Beta1 | GroupVersion::CustomV1Beta2 => "custom_metrics",
    };
    format!("io.k8s.metrics.pkg.apis.{package}.{}.{kind}", version.version())
}

fn reference(dialect: Dialect, name: &str) -> Value {
    let place = if dialect == Dialect::V2 { "#/definitions/" } else { "#/components/schemas/" };
    json!({"$ref": format!("{place}{name}")})
}

/// The forms of path in which values are asked for: what follows the version, and a name for it.
fn forms(version: GroupVersion) -> &'static [(&'static str, &'static str)] {
    match version {
        GroupVersion::ExternalV1Beta1 => &[("/namespaces/{namespace}/{metric}", "ExternalMetric")],
        // They have kinds of their own: see `resource_metrics`.
        GroupVersion::ResourceV1Beta1 => &[],
        GroupVersion::CustomV1Beta1 | GroupVersion::CustomV1Beta2 => &[
            ("/namespaces/{namespace}/{resource}/{name}/{metric}", "NamespacedMetric"),
            ("/namespaces/{namespace}/metrics/{metric}", "NamespaceMetric"),
            ("/{resource}/{name}/{metric}", "ClusterMetric"),
        ],
    }
}

fn paths_of(version: GroupVersion, dialect: Dialect) -> Map<String, Value> {
    let (group, version_name) = (version.group(), version.version());
    let base = format!("/apis/{version}");
    let tag: String = group.split('.').next().unwrap_or(group).to_owned();
    let kind = json!({"group": group, "version": version_name, "kind": version.list_kind()});
    let list = reference(dialect, &schema_name(version, version.list_kind()));
    let operation = |id: String, description: &str, schema: Option<&Value>, parameters: Vec<Value>| {
        let mut ok = json!({"description": "OK"});
        match (dialect, schema) {
            (_, None) => {}
            (Dialect::V2, Some(schema)) => ok["schema"] = schema.clone(),
            (Dialect::V3, Some(schema)) => ok["content"] = json!({"application/json": {"schema": schema}}),
        }
        let mut get = json!({"operationId": id, "description": description, "tags": [format!("{tag}_{version_name}")],
            "parameters": parameters, "responses": {"200": ok, "401": {"description": "Unauthorized"}}});
        if dialect == Dialect::V2 {
            get["produces"] = json!(["application/json"]);
            get["schemes"] = json!(["https"]);
        }
        get
    };
    let id = |what: &str| format!("read_{}_{version_name}_{what}", group.replace('.', "_"));
    let discovery = operation(id("resources"), "get available resources", None, Vec::new());
    let mut paths = Map::from_iter([(format!("{base}/"), json!({"get": discovery}))]);
    if version == GroupVersion::ResourceV1Beta1 {
        resource_metrics::add_paths(&mut paths, dialect, &operation);
    }
    for (form, name) in forms(version) {
        let in_path = form.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = in_path.map(|name| parameter(dialect, "path", name)).collect();
        parameters.push(parameter(dialect, "query", "labelSelector"));
        if version != GroupVersion::ExternalV1Beta1 {
            parameters.push(parameter(dialect, "query", "metricLabelSelector"));
        }
        let mut get = operation(id(name), "read the latest values of a metric", Some(&list), parameters);
        get["x-kubernetes-action"] = "get".into();
        get["x-kubernetes-group-version-kind"] = kind.clone();
        paths.insert(format!("{base}{form}"), json!({"get": get}));
    }
    paths
}

fn parameter(dialect: Dialect, place: &str, name: &str) -> Value {
    let mut parameter = json!({"in": place, "name": name});
    if place == "path" {
        parameter["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            parameter["type"] = "string".into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": "string", "uniqueItems": true}),
    }
    parameter
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn schemas_of(version: GroupVersion, dialect: Dialect) -> Map<String, Value> {
    if version == GroupVersion::ResourceV1Beta1 {
        return resource_metrics::schemas(dialect);
    }
    let item_kind = version.list_kind().trim_end_matches("List");
    let (item, list) = (schema_name(version, item_kind), schema_name(version, version.list_kind()));
    let labels = json!({"type": "object", "additionalProperties": {"type": "string"},
        "description": "the labels of the series"});
    let selector = json!({"type": "object", "description": "the selector that was asked, or null"});
    let object = json!({"type": "object", "description": "the object that the metric describes", "properties": {
        "kind": text("its kind"), "namespace": text("its namespace"), "name": text("its name"),
        "apiVersion": text("the version of its API"),
    }});
    let name = text("the name of the metric");
    let mut properties = Map::from_iter([
        ("timestamp".to_owned(), text("when the value was sampled, RFC 3339")),
        ("value".to_owned(), text("the value, a quantity")),
    ]);
    let seconds =
        json!({"type": "integer", "format": "int64", "description": "the window of a rate, in seconds"});
    let more = match version {
        GroupVersion::CustomV1Beta1 => {
            vec![
                ("describedObject", object),
                ("metricName", name),
                ("window", seconds),
                ("selector", selector),
            ]
        }
        GroupVersion::CustomV1Beta2 => {
            let metric = json!({"type": "object", "description": "the metric",
                "properties": {"name": name, "selector": selector}});
            vec![("describedObject", object), ("metric", metric), ("windowSeconds", seconds)]
        }
        GroupVersion::ExternalV1Beta1 => {
            vec![("metricName", name), ("metricLabels", labels), ("window", seconds)]
        }
        GroupVersion::ResourceV1Beta1 => Vec::new(),
    };
    properties.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    let items = json!({"type": "array", "items": reference(dialect, &item), "description": "the values"});
    let list_schema = json!({
        "type": "object",
        "description": "the latest values of a metric",
        "required": ["items"],
        "properties": {
            "apiVersion": text("the version of this API"),
            "kind": text("the kind of this list"),
            "metadata": {"type": "object", "description": "nothing"},
            "items": items,
        },
        "x-kubernetes-group-version-kind":
            [{"group": version.group(), "version": version.version(), "kind": version.list_kind()}],
    });
    Map::from_iter([
        (item, json!({"type": "object", "description": "a value of a metric", "properties": properties})),
        (list, list_schema),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(target) if key == "$ref" => drop(found.insert(target.to_owned())),
                _ => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    fn is_whole(document: &Value) {
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let pointer = target.strip_prefix('#').expect("local");
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        let paths = document["paths"].as_object().expect("paths");
        let ids: BTreeSet<_> = paths.values().map(|path| path["get"]["operationId"].to_string()).collect();
        assert_eq!(ids.len(), paths.len(), "each operation has an identifier of its own");
        assert!(paths.keys().all(|path| path.starts_with("/apis/")));
    }

    #[test]
    fn every_document_is_whole() {
        let served = Served::of_runtime_config(["metrics.k8s.io=true"]).expect("usable");
        is_whole(&v2(&served));
        for version in served.versions() {
            is_whole(&v3(version));
        }
        let index = v3_index([(GroupVersion::ExternalV1Beta1, "AB")]);
        assert_eq!(
            index["paths"]["apis/external.metrics.k8s.io/v1beta1"]["serverRelativeURL"],
            "/openapi/v3/apis/external.metrics.k8s.io/v1beta1?hash=AB"
        );
    }
}
