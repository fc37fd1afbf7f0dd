//! What `metrics.k8s.io/v1beta1` has in OpenAPI.

use super::super::served::GroupVersion;
use super::{Dialect, parameter, reference, schema_name, text};
use serde_json::{Map, Value, json};

const VERSION: GroupVersion = GroupVersion::ResourceV1Beta1;

/// Path below the version, identifier, kind of the answer.
const PATHS: [(&str, &str, &str); 5] = [
    ("/nodes", "NodeMetricsAll", "NodeMetricsList"),
    ("/nodes/{name}", "NodeMetricsOne", "NodeMetrics"),
    ("/pods", "PodMetricsAll", "PodMetricsList"),
    ("/namespaces/{namespace}/pods", "PodMetricsOfNamespace", "PodMetricsList"),
    ("/namespaces/{namespace}/pods/{name}", "PodMetricsOne", "PodMetrics"),
];

fn group_version_kind(kind: &str) -> Value {
    json!({"group": VERSION.group(), "version": VERSION.version(), "kind": kind})
}

/// Makes an operation of identifier, description, schema of the answer and parameters.
type Operation<'a> = dyn Fn(String, &str, Option<&Value>, Vec<Value>) -> Value + 'a;

/// Adds the paths.
pub(super) fn add_paths(paths: &mut Map<String, Value>, dialect: Dialect, operation: &Operation<'_>) {
    for (path, id, kind) in PATHS {
        let is_list = kind.ends_with("List");
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = in_path.map(|name| parameter(dialect, "path", name)).collect();
        if is_list {
            parameters
                .extend(["labelSelector", "fieldSelector"].map(|name| parameter(dialect, "query", name)));
        }
        let answer = reference(dialect, &schema_name(VERSION, kind));
        let id = format!("read_metrics_k8s_io_{}_{id}", VERSION.version());
        let mut get = operation(id, "read what pods or nodes use", Some(&answer), parameters);
        get["x-kubernetes-action"] = if is_list { "list" } else { "get" }.into();
        get["x-kubernetes-group-version-kind"] = group_version_kind(kind.trim_end_matches("List"));
        paths.insert(format!("/apis/{VERSION}{path}"), json!({"get": get}));
    }
}

/// The schemas of all kinds.
pub(super) fn schemas(dialect: Dialect) -> Map<String, Value> {
    let of = |kind: &str| reference(dialect, &schema_name(VERSION, kind));
    let usage = json!({"type": "object", "additionalProperties": {"type": "string"},
        "description": "cpu and memory, as quantities"});
    let metadata = json!({"type": "object", "description": "name, namespace and labels of the object"});
    let container = json!({"type": "object", "description": "what a container uses", "required": ["name", "usage"],
        "properties": {"name": text("its name"), "usage": usage}});
    let whole = |kind: &str, description: &str, more: (&str, Value)| {
        let mut properties = json!({
            "apiVersion": text("the version of this API"),
            "kind": text("the kind of this object"),
            "metadata": metadata,
            "timestamp": text("when it was measured, RFC 3339"),
            "window": text("over how long CPU was measured"),
        });
        properties[more.0] = more.1;
        json!({"type": "object", "description": description, "properties": properties,
            "x-kubernetes-group-version-kind": [group_version_kind(kind)]})
    };
    let list = |kind: &str| {
        let list = format!("{kind}List");
        let items = json!({"type": "array", "items": of(kind), "description": "by namespace and name"});
        let properties = json!({
            "apiVersion": text("the version of this API"),
            "kind": text("the kind of this list"),
            "metadata": {"type": "object", "description": "nothing"},
            "items": items,
        });
        let schema = json!({"type": "object", "description": "what is used", "required": ["items"],
            "properties": properties, "x-kubernetes-group-version-kind": [group_version_kind(&list)]});
        (schema_name(VERSION, &list), schema)
    };
    let containers =
        json!({"type": "array", "items": of("ContainerMetrics"), "description": "its containers"});
    let pod = whole("PodMetrics", "what a pod uses", ("containers", containers));
    let node = whole("NodeMetrics", "what a node uses", ("usage", usage.clone()));
    Map::from_iter([
        (schema_name(VERSION, "ContainerMetrics"), container),
        (schema_name(VERSION, "PodMetrics"), pod),
        (schema_name(VERSION, "NodeMetrics"), node),
        list("PodMetrics"),
        list("NodeMetrics"),
    ])
}
