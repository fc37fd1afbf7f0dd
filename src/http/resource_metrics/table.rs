//! Answers as a `Table`, which is what `kubectl get podmetrics` and `nodemetrics` show.

use super::path::Kind;
use crate::http::error::ApiError;
use crate::kubernetes::resource_metrics::{Metrics, ObjectMeta, ResourceList, binary, decimal_nanos};
use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Bare,
    Metadata,
    Object,
}

/// Whether a table is what `Accept` names first of what can be given, and with which rows; `include` is the
/// parameter `includeObject`.
pub(super) fn wanted(headers: &HeaderMap, include: &str) -> Result<Option<Rows>, ApiError> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    let is_table = ranges.find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_json =
            matches!(parts.next().unwrap_or_default(), "application/json" | "application/*" | "*/*");
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let is = |name: &str, value: &str| parameters.contains(&(name, value));
        match parameters.iter().any(|(name, _)| *name == "as") {
            _ if !is_json => None,
            false => Some(false),
            true => (is("as", "Table") && is("g", "meta.k8s.io") && is("v", "v1")).then_some(true),
        }
    });
    if is_table != Some(true) {
        return Ok(None);
    }
    match include {
        "" | "Metadata" => Ok(Some(Rows::Metadata)),
        "None" => Ok(Some(Rows::Bare)),
        "Object" => Ok(Some(Rows::Object)),
        other => {
            let other = crate::text::start_of(other);
            Err(ApiError::bad_request(format!("includeObject={other:?}: use None, Metadata or Object")))
        }
    }
}

/// The table of these items.
pub(super) fn of(items: &[Metrics], kind: Kind, rows: Rows) -> Value {
    let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
    let row = |item: &Metrics| {
        let used = amounts(item);
        let (cpu, memory) = (decimal_nanos(used.cpu_nanocores), binary(used.memory_bytes));
        let cells = json!([item.metadata.name, cpu, memory, item.window]);
        let metadata = |metadata: &ObjectMeta| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
        let object = match rows {
            Rows::Bare => Value::Null,
            Rows::Metadata => metadata(&item.metadata),
            Rows::Object => {
                let (kind, api_version) = (Some(kind.name()), Some(super::API.to_string()));
                json!(Metrics { kind, api_version, ..item.clone() })
            }
        };
        json!({"cells": cells, "object": object})
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            column("Name", "name", "whose usage"),
            column("cpu", "quantity", "cores"),
            column("memory", "quantity", "bytes of the working set"),
            column("Window", "duration", "over how long CPU was measured"),
        ],
        "rows": items.iter().map(row).collect::<Vec<_>>(),
    })
}

/// What a node uses, or all containers of a pod together.
fn amounts(item: &Metrics) -> ResourceList {
    let containers = item.containers.iter().flatten().map(|container| container.usage);
    item.usage.into_iter().chain(containers).fold(ResourceList::default(), |sum, one| ResourceList {
        cpu_nanocores: sum.cpu_nanocores.saturating_add(one.cpu_nanocores),
        memory_bytes: sum.memory_bytes.saturating_add(one.memory_bytes),
    })
}
