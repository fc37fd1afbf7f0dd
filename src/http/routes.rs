//! Every route, and what a caller needs for it.
//!
//! The routers are put together in [`crate::serve`]; a test holds them against this table, and
//! `tests/identity_matrix.rs` sends every case of identity to each row of it. So no route can be added without
//! saying here who may use it, and without that being tried.

/// What a caller has to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: probes.
    Nothing,
    /// To read.
    Read,
    /// To write.
    Write,
    /// To delete, or to do what concerns all that is stored.
    Administer,
    /// To get the path itself, as of any Kubernetes component.
    GetPath,
}

/// A method of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method. `HEAD` goes with `GET`.
    pub method: &'static str,
    /// The path, as the router has it.
    pub path: &'static str,
    /// What a caller needs.
    pub needs: Needs,
}

const fn route(method: &'static str, path: &'static str, needs: Needs) -> Route {
    Route { method, path, needs }
}

/// The probes, on both ports.
pub const PROBES: &[Route] = &[
    route("GET", "/health", Needs::Nothing),
    route("GET", "/healthz", Needs::Nothing),
    route("GET", "/livez", Needs::Nothing),
    route("GET", "/readyz", Needs::Nothing),
    route("GET", "/-/healthy", Needs::Nothing),
    route("GET", "/-/ready", Needs::Nothing),
];

/// The plain port, but for the probes.
pub const PLAIN: &[Route] = &[
    route("GET", "/metrics", Needs::GetPath),
    route("POST", "/write-metrics", Needs::Write),
    route("POST", "/write-metrics/", Needs::Write),
    route("POST", "/write-metrics/{*path}", Needs::Write),
    route("POST", "/api/v1/write", Needs::Write),
    route("POST", "/v1/metrics", Needs::Write),
    route("POST", "/api/v1/otlp/v1/metrics", Needs::Write),
    route("POST", "/api/v1/import/prometheus", Needs::Write),
    route("PUT", "/api/v1/import/prometheus", Needs::Write),
    route("PUT", "/metrics/{*group}", Needs::Write),
    route("POST", "/metrics/{*group}", Needs::Write),
    route("DELETE", "/metrics/{*group}", Needs::Write),
    route("GET", "/api/v1/metrics", Needs::Read),
    route("POST", "/api/v1/metrics", Needs::Read),
    route("GET", "/api/v1/summary", Needs::Read),
    route("POST", "/api/v1/summary", Needs::Read),
    route("GET", "/api/v1/explain/hpa/{namespace}/{name}", Needs::Read),
    route("GET", "/api/v1/query", Needs::Read),
    route("POST", "/api/v1/query", Needs::Read),
    route("GET", "/api/v1/query_range", Needs::Read),
    route("POST", "/api/v1/query_range", Needs::Read),
    route("GET", "/api/v1/format_query", Needs::Read),
    route("POST", "/api/v1/format_query", Needs::Read),
    route("GET", "/api/v1/parse_query", Needs::Read),
    route("POST", "/api/v1/parse_query", Needs::Read),
    route("GET", "/api/v1/query_exemplars", Needs::Read),
    route("POST", "/api/v1/query_exemplars", Needs::Read),
    route("GET", "/api/v1/series", Needs::Read),
    route("POST", "/api/v1/series", Needs::Read),
    route("GET", "/api/v1/labels", Needs::Read),
    route("POST", "/api/v1/labels", Needs::Read),
    route("GET", "/api/v1/label/{name}/values", Needs::Read),
    route("GET", "/api/v1/metadata", Needs::Read),
    route("GET", "/api/v1/rules", Needs::Read),
    route("GET", "/api/v1/alerts", Needs::Read),
    route("GET", "/api/v1/status/buildinfo", Needs::Read),
    route("GET", "/api/v1/status/tsdb", Needs::Read),
    route("POST", "/api/v1/admin/tsdb/delete_series", Needs::Administer),
    route("PUT", "/api/v1/admin/tsdb/delete_series", Needs::Administer),
    route("POST", "/api/v1/admin/backup", Needs::Administer),
    route("GET", "/api/v1/admin/backup", Needs::Administer),
];

/// The Kubernetes APIs: on the secure port, and without a cluster on the plain one too.
pub const KUBERNETES: &[Route] = &[
    route("GET", "/apis", Needs::Read),
    route("GET", "/apis/", Needs::Read),
    route("GET", "/apis/{*path}", Needs::Read),
    route("GET", "/openapi/{*path}", Needs::Read),
    route("GET", "/version", Needs::Read),
    route("GET", "/version/", Needs::Read),
];

/// Whether a `POST` to a path of the plain port only reads.
#[must_use]
pub fn reads_by_post(path: &str) -> bool {
    PLAIN.iter().any(|route| route.method == "POST" && route.needs == Needs::Read && route.path == path)
}
