//! A small Kubernetes API server over real TLS, for faults that a real one can't be made to show.
//!
//! It keeps any object by its path, lists (page by page) and watches what lies below a path, takes merge and apply
//! patches, and reviews tokens and access by what a test told it. It can fail or hang on demand, and
//! remembers what it was asked.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::StreamExt;
use lookback::http::server::{Limits, run};
use lookback::http::tls::TlsSettings;
use lookback::kubernetes::certificates::{ServingCertificate, kept_ca_path};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

/// The path of the ConfigMap by which aggregated API servers learn whom to believe.
pub const AUTHENTICATION_CONFIG: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// What ails it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every request is answered with this status code.
    Failing(u16),
    /// No request is answered.
    Hanging,
    /// Reviews take this long.
    Slow(Duration),
}

/// One request that it was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub body: Value,
}

type AllowRule = Box<dyn Fn(&Value) -> bool + Send + Sync>;

#[derive(Default)]
struct Inner {
    version: u64,
    /// By path, as `/api/v1/namespaces/default/pods/p1`.
    objects: BTreeMap<String, Value>,
    /// Who applied an object last.
    managers: BTreeMap<String, String>,
    /// Version, path and watch event.
    events: Vec<(u64, String, Value)>,
    /// The `status.user` of a token's review.
    tokens: BTreeMap<String, Value>,
    /// Whether the `spec` of an access review is allowed: by any of these.
    rules: Vec<AllowRule>,
    fault: Option<Fault>,
    asked: Vec<Asked>,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics with the lock")
    }
}

/// A running fake; ends when it is dropped.
pub struct FakeKubernetes {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    dir: TempDir,
    shutdown: Option<oneshot::Sender<()>>,
}

impl FakeKubernetes {
    /// Starts one on a port of its own, within a tokio runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let dir = tempfile::tempdir().expect("a directory");
        let now_ms = lookback::clock::Clock::now_ms(&lookback::clock::SystemClock);
        let certificate = ServingCertificate::self_made(dir.path(), &[], now_ms).expect("a certificate");
        let tls = TlsSettings::new(certificate).expect("TLS");
        let shared = Arc::new(Shared { inner: Mutex::default(), changed: watch::channel(0).0 });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let (shutdown, asked) = oneshot::channel::<()>();
        let limits = Limits { drain_timeout: Duration::ZERO, ..Limits::default() };
        tokio::spawn(run(listener, Some(tls), router, limits, async move { drop(asked.await) }));
        Self { address, shared, dir, shutdown: Some(shutdown) }
    }

    /// Lets discovery tell of pods and nodes, and of no other resource.
    pub fn tell_of_pods_and_nodes(&self) {
        let resource = |plural: &str, singular: &str, kind: &str, scope: &str| {
            json!({"resource": plural, "singularResource": singular, "scope": scope,
                "responseKind": {"group": "", "version": "", "kind": kind}, "verbs": ["get", "list", "watch"]})
        };
        let core = json!([
            resource("pods", "pod", "Pod", "Namespaced"),
            resource("nodes", "node", "Node", "Cluster")
        ]);
        let core = json!([{"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": core}]}]);
        let list = |items| json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items});
        self.put("/api", list(core));
        self.put("/apis", list(json!([])));
    }

    /// A kubeconfig for it, with this bearer token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let ca = kept_ca_path(self.dir.path());
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority": ca,
            }}],
            "users": [{"name": "lookback", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {
                "cluster": "fake", "user": "lookback", "namespace": "monitoring",
            }}],
            "current-context": "fake",
        });
        let path = self.dir.path().join(format!("kubeconfig-{token}"));
        std::fs::write(&path, text.to_string()).expect("written");
        path
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it: connections are closed, and new ones refused.
    pub fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// What ails it from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.lock().fault = fault;
    }

    /// Knows this token as this user's.
    pub fn put_token(&self, token: &str, user: &str, groups: &[&str]) {
        let user = json!({"username": user, "uid": format!("uid-of-{user}"), "groups": groups});
        self.shared.lock().tokens.insert(token.to_owned(), user);
    }

    /// No longer knows this token.
    pub fn delete_token(&self, token: &str) {
        self.shared.lock().tokens.remove(token);
    }

    /// Allows what this says of the `spec` of a SubjectAccessReview.
    pub fn allow(&self, rule: impl Fn(&Value) -> bool + Send + Sync + 'static) {
        self.shared.lock().rules.push(Box::new(rule));
    }

    /// Allows nothing any more.
    pub fn allow_nothing(&self) {
        self.shared.lock().rules.clear();
    }

    /// Keeps an object at its path, and tells those who watch.
    pub fn put(&self, path: &str, object: Value) {
        put(&self.shared, path, object);
    }

    /// Deletes an object, and tells those who watch.
    pub fn delete(&self, path: &str) {
        let mut inner = self.shared.lock();
        let Some(object) = inner.objects.remove(path) else { return };
        record(&self.shared, &mut inner, path, "DELETED", object);
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.shared.lock().objects.get(path).cloned()
    }

    /// What it was asked, of requests whose path begins so.
    pub fn asked(&self, path_start: &str) -> Vec<Asked> {
        let inner = self.shared.lock();
        inner.asked.iter().filter(|asked| asked.path.starts_with(path_start)).cloned().collect()
    }
}

fn put(shared: &Shared, path: &str, mut object: Value) {
    let mut inner = shared.lock();
    let kind = if inner.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
    let (parent, name) = path.rsplit_once('/').expect("a path");
    let mut metadata = object["metadata"].take();
    if !metadata.is_object() {
        metadata = Value::Object(Map::new());
    }
    metadata["name"] = name.into();
    if let Some((_, rest)) = parent.split_once("/namespaces/")
        && let Some((namespace, _)) = rest.split_once('/')
    {
        metadata["namespace"] = namespace.into();
    }
    metadata["resourceVersion"] = (inner.version + 1).to_string().into();
    object["metadata"] = metadata;
    inner.objects.insert(path.to_owned(), object.clone());
    record(shared, &mut inner, path, kind, object);
}

fn record(shared: &Shared, inner: &mut Inner, path: &str, kind: &str, object: Value) {
    inner.version += 1;
    let version = inner.version;
    inner.events.push((version, path.to_owned(), json!({"type": kind, "object": object})));
    shared.changed.send_replace(version);
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 4 << 20).await.unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let fault = {
        let mut inner = shared.lock();
        let path = parts.uri.to_string();
        inner.asked.push(Asked { method: parts.method.clone(), path, body: body.clone() });
        inner.fault
    };
    match fault {
        Some(Fault::Failing(code)) => return status(code, "told to fail"),
        Some(Fault::Hanging) => return std::future::pending().await,
        Some(Fault::Slow(time)) if parts.method == Method::POST => tokio::time::sleep(time).await,
        _ => {}
    }
    match parts.method {
        Method::POST if path.ends_with("/tokenreviews") => review_token(&shared, body),
        Method::POST if path.ends_with("/subjectaccessreviews") => review_access(&shared, body),
        Method::POST => {
            let name = body["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
            put(&shared, &format!("{path}/{name}"), body.clone());
            (StatusCode::CREATED, Json(body)).into_response()
        }
        Method::PUT => {
            let exists = shared.lock().objects.contains_key(&path);
            if !exists {
                return status(404, "no such object");
            }
            put(&shared, &path, body);
            Json(shared.lock().objects.get(&path).cloned()).into_response()
        }
        Method::DELETE => {
            let mut inner = shared.lock();
            let Some(object) = inner.objects.remove(&path) else { return status(404, "no such object") };
            record(&shared, &mut inner, &path, "DELETED", object);
            Json(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
                .into_response()
        }
        Method::PATCH => patch(&shared, &path, query, body),
        Method::GET if value(query, "watch").is_some_and(|watch| watch != "false") => {
            watch_below(&shared, &path, query)
        }
        Method::GET => get(&shared, &path, query),
        _ => status(405, "not here"),
    }
}

fn status(code: u16, message: &str) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        _ => "InternalError",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    (StatusCode::from_u16(code).expect("a status code"), Json(body)).into_response()
}

fn value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

fn review_token(shared: &Shared, mut review: Value) -> Response {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    review["status"] = match shared.lock().tokens.get(&token) {
        Some(user) => json!({"authenticated": true, "user": user}),
        None => json!({"authenticated": false, "error": "invalid bearer token"}),
    };
    (StatusCode::CREATED, Json(review)).into_response()
}

fn review_access(shared: &Shared, mut review: Value) -> Response {
    let allowed = shared.lock().rules.iter().any(|rule| rule(&review["spec"]));
    review["status"] = json!({"allowed": allowed, "reason": if allowed { "a rule" } else { "" }});
    (StatusCode::CREATED, Json(review)).into_response()
}

/// As server-side apply: refused where it names another version, or changes what another manager applied
/// without force.
fn patch(shared: &Shared, path: &str, query: &str, patch: Value) -> Response {
    let before = shared.lock().objects.get(path).cloned();
    let version = &patch["metadata"]["resourceVersion"];
    if !version.is_null()
        && before.as_ref().is_none_or(|before| before["metadata"]["resourceVersion"] != *version)
    {
        return status(409, "the object has been modified");
    }
    let manager = value(query, "fieldManager").unwrap_or_default().to_owned();
    let mut object = before.clone().unwrap_or_else(|| json!({}));
    merge(&mut object, patch);
    {
        let mut inner = shared.lock();
        let owner = inner.managers.get(path).cloned();
        let is_forced = value(query, "force").is_some_and(|force| force == "true");
        let is_changed = before.is_some_and(|before| before["data"] != object["data"]);
        if !is_forced && is_changed && owner.is_some_and(|owner| owner != manager) {
            return status(409, "another manager applied it");
        }
        inner.managers.insert(path.to_owned(), manager);
    }
    put(shared, path, object);
    Json(shared.lock().objects.get(path).cloned()).into_response()
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

/// Whether an object lies below the path of a collection (in all namespaces, where it names none) and
/// is selected by the field selector `metadata.name`.
fn lies_below(collection: &str, path: &str, query: &str) -> bool {
    let Some((parent, name)) = path.rsplit_once('/') else { return false };
    let everywhere = || {
        let (before, resource) = collection.rsplit_once('/')?;
        let rest = parent.strip_prefix(before)?.strip_prefix("/namespaces/")?;
        let (_, of) = rest.split_once('/')?;
        Some(of == resource)
    };
    let selected = value(query, "fieldSelector").unwrap_or_default();
    let selected = selected.replace("%3D", "=");
    let selected = selected.strip_prefix("metadata.name=").is_none_or(|asked| asked == name);
    selected && (parent == collection || everywhere() == Some(true))
}

fn get(shared: &Shared, path: &str, query: &str) -> Response {
    let inner = shared.lock();
    if let Some(object) = inner.objects.get(path) {
        return Json(object.clone()).into_response();
    }
    let number = |name: &str| value(query, name).and_then(|number| number.parse::<usize>().ok());
    // A page goes on where the one before it ended, as long as nothing changes in between.
    let (from, most) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let mut below = inner.objects.iter().filter(|(of, _)| lies_below(path, of, query)).skip(from);
    let items: Vec<&Value> = below.by_ref().take(most).map(|(_, object)| object).collect();
    let next = below.next().map(|_| (from + most).to_string());
    // Whatever was ever there is a collection; anything else is unknown.
    if items.is_empty() && path.rsplit('/').next().is_none_or(|last| !last.ends_with('s')) {
        return status(404, "the server could not find the requested resource");
    }
    let kind = if items.is_empty() { "List" } else { "ItemList" };
    let metadata = json!({"resourceVersion": inner.version.to_string(), "continue": next});
    Json(json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
}

fn watch_below(shared: &Arc<Shared>, path: &str, query: &str) -> Response {
    let since = value(query, "resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let (shared, path, query) = (shared.clone(), path.to_owned(), query.to_owned());
    let changed = shared.changed.subscribe();
    let lines = futures::stream::unfold((since, changed), move |(since, mut changed)| {
        let (shared, path, query) = (shared.clone(), path.clone(), query.clone());
        async move {
            loop {
                let next = {
                    let inner = shared.lock();
                    let mut later = inner.events.iter().filter(|(version, ..)| *version > since);
                    later.find(|(_, of, _)| lies_below(&path, of, &query)).cloned()
                };
                if let Some((version, _, event)) = next {
                    return Some((Bytes::from(format!("{event}\n")), (version, changed)));
                }
                changed.changed().await.ok()?;
            }
        }
    });
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
