//! `PUT`, `POST` and `DELETE /metrics/job/<job>[/<label>/<value>…]`: what clients of the Pushgateway send.
//!
//! A push is stored at one time, and with it `push_time_seconds` of its group. The Pushgateway repeats
//! what it holds at every scrape; here a pushed value is one sample, which ends when the group is replaced
//! (`PUT`), when a push of its name leaves it out (`POST`), or when the group is deleted: by a staleness
//! marker.
//!
//! What belongs to a group is read from what is stored: series with the group's labels whose newest
//! sample is of the time of one of its pushes. So nothing is lost by a restart, and series of other
//! sources that carry the same job are left alone.

use super::Api;
use super::append::append_taken;
use super::auth::Caller;
use super::error::ApiError;
use super::exposition::{receive, syntax_of};
use crate::app::App;
use crate::ingest::client_model::{self, ClientModelError};
use crate::ingest::exposition::{Outer, Reading, read};
use crate::ingest::grouping;
use crate::ingest::intake::Taken;
use crate::store::StoreError;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, put};
use axum::{Extension, Router};
use lookback_storage::{LabelError, Labels, METRIC_NAME_LABEL, Matcher, STALENESS_MARKER_BITS};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::Mutex;

const API: &str = "pushgateway";

/// When a group was pushed last, in Unix seconds; the Pushgateway's own name for it.
const PUSH_TIME: &str = "push_time_seconds";

/// Pushes of one group are stored one after another; groups share this many turns.
const TURNS: usize = 64;

/// Most pushes of a group that are looked through for what they brought.
const PUSHES_MAX: usize = 1_000_000;

/// How far back the end of a group is looked for, in milliseconds.
const JUST_ENDED_MS: i64 = 60_000;

type Turns = Arc<[Mutex<()>; TURNS]>;

/// This file's routes.
pub fn routes() -> Router<App> {
    let methods: MethodRouter<App> = put(push).post(push).delete(delete).fallback(method_not_allowed);
    let turns: Turns = Arc::new(std::array::from_fn(|_| Mutex::new(())));
    Router::new().route("/metrics/{*group}", methods).layer(Extension(turns))
}

async fn method_not_allowed() -> Response {
    let error = ApiError::method_not_allowed(
        "a group is pushed by PUT or POST, and deleted by DELETE",
        "PUT, POST, DELETE",
    );
    Api(API).answered(plain(error))
}

async fn push(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request<Body>,
) -> Response {
    let done = store_push(&app, &turns, &caller, request).await;
    Api(API).answered(done.map_or_else(plain, IntoResponse::into_response))
}

async fn delete(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request<Body>,
) -> Response {
    let done = match Group::of(&caller, &request) {
        Ok(group) => delete_group(&app, &turns, &caller, group).await,
        Err(error) => Err(error),
    };
    Api(API).answered(done.map_or_else(plain, IntoResponse::into_response))
}

/// Clients of the Pushgateway show what comes back as it is.
fn plain(error: ApiError) -> Response {
    let mut response = (error.code, format!("{}\n", error.message)).into_response();
    for (name, value) in error.headers {
        response.headers_mut().append(name, value);
    }
    response
}

async fn store_push(
    app: &App,
    turns: &Turns,
    caller: &Caller,
    request: Request<Body>,
) -> Result<StatusCode, ApiError> {
    let group = Group::of(caller, &request)?;
    let replaces_all = request.method() == Method::PUT;
    let (format, outer) = (Format::of(request.headers()), group.labels.clone());
    let received = receive(app, &caller.scope, request, move |body, intake| match format {
        Format::Text(syntax) => Ok(read(body, syntax, Outer::Wins(&outer), intake)?),
        Format::Protobuf => {
            Ok(client_model::read(body, Outer::Wins(&outer), intake).map(|()| Reading::default())?)
        }
    });
    let (mut taken, reading, _share) = received.await?;
    if let Some(bad) = reading.first_bad {
        return Err(ApiError::bad_request(format!("nothing is stored: {bad}")));
    }
    let _turn = turns[group.turn()].lock().await;
    let pushed = group.pushed(app, caller).await?;
    let at_ms = pushed.next_ms(app.clock.now_ms());
    for sample in &mut taken.batch.samples {
        sample.timestamp_ms.get_or_insert(at_ms);
    }
    let gone: Vec<Labels> = {
        let kept: HashSet<&Labels> = taken.batch.series.iter().collect();
        let names: HashSet<&str> = taken.batch.series.iter().map(Labels::metric_name).collect();
        let goes = |labels: &&Labels| {
            !kept.contains(*labels) && (replaces_all || names.contains(labels.metric_name()))
        };
        pushed.members.iter().filter(goes).cloned().collect()
    };
    end(&mut taken, gone, at_ms);
    taken.batch.push(group.push_time, Some(at_ms), at_ms as f64 / 1_000.0);
    let outcome = append_taken(app, caller, API, taken).await?;
    if outcome.refusals.is_empty() {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::refused(outcome.written, &outcome.refusals))
}

async fn delete_group(
    app: &App,
    turns: &Turns,
    caller: &Caller,
    group: Group,
) -> Result<StatusCode, ApiError> {
    let _turn = turns[group.turn()].lock().await;
    let pushed = group.pushed(app, caller).await?;
    let at_ms = pushed.next_ms(app.clock.now_ms());
    let mut taken = Taken::default();
    end(&mut taken, pushed.members, at_ms);
    if pushed.lives {
        end(&mut taken, vec![group.push_time], at_ms);
    }
    append_taken(app, caller, API, taken).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Adds the end of these series.
fn end(taken: &mut Taken, series: Vec<Labels>, at_ms: i64) {
    for labels in series {
        taken.batch.push(labels, Some(at_ms), f64::from_bits(STALENESS_MARKER_BITS));
    }
}

/// A group of series that are pushed together.
struct Group {
    labels: Vec<(String, String)>,
    push_time: Labels,
}

/// What was pushed to a group and has not ended.
struct Pushed {
    members: Vec<Labels>,
    last_ms: Option<i64>,
    /// Whether it has been pushed since it was last deleted.
    lives: bool,
}

impl Pushed {
    /// The time of the next push: later than the last one, so that its values follow.
    fn next_ms(&self, now_ms: i64) -> i64 {
        self.last_ms.map_or(now_ms, |last_ms| now_ms.max(last_ms.saturating_add(1)))
    }
}

impl Group {
    fn of(caller: &Caller, request: &Request<Body>) -> Result<Self, ApiError> {
        caller.require_write()?;
        let path = request.uri().path().strip_prefix("/metrics/").unwrap_or_default();
        let labels = grouping::parse(path).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let named = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let push_time = Labels::new(named.chain([(METRIC_NAME_LABEL, PUSH_TIME)]));
        let push_time = push_time.map_err(|error: LabelError| ApiError::bad_request(error.to_string()))?;
        if !caller.scope.allows(push_time.get("namespace")) {
            let message = "these credentials are bound to namespaces: put one of them into the path, as in \
                           /metrics/job/JOB/namespace/NAMESPACE";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        Ok(Self { labels, push_time })
    }

    fn turn(&self) -> usize {
        let mut hasher = DefaultHasher::new();
        self.push_time.hash(&mut hasher);
        hasher.finish() as usize % TURNS
    }

    async fn pushed(&self, app: &App, caller: &Caller) -> Result<Pushed, StoreError> {
        let context = app.context(&caller.scope);
        let mut matchers: Vec<_> =
            self.labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let newest = app.store.latest(&context, &matchers, i64::MIN).await?;
        let last_ms = newest.iter().find(|latest| *latest.labels == self.push_time);
        let Some(last_ms) = last_ms.map(|latest| latest.sample.timestamp_ms) else {
            // It may have ended a moment ago: what comes now is to follow that.
            matchers.push(Matcher::equal(METRIC_NAME_LABEL, PUSH_TIME));
            let since_ms = app.clock.now_ms() - JUST_ENDED_MS;
            let ended = app.store.select(&context, &matchers, since_ms, i64::MAX, PUSHES_MAX).await?;
            let ended = ended.into_iter().find(|series| *series.labels == self.push_time);
            let ended_ms = ended.and_then(|series| Some(series.samples.last()?.timestamp_ms));
            return Ok(Pushed { members: Vec::new(), last_ms: ended_ms, lives: false });
        };
        let first_ms = newest.iter().map(|latest| latest.sample.timestamp_ms).min().unwrap_or(last_ms);
        matchers.push(Matcher::equal(METRIC_NAME_LABEL, PUSH_TIME));
        let pushes = app.store.select(&context, &matchers, first_ms, last_ms, PUSHES_MAX).await?;
        let pushes = pushes.into_iter().find(|series| *series.labels == self.push_time);
        let times: HashSet<i64> =
            pushes.iter().flat_map(|series| &series.samples).map(|sample| sample.timestamp_ms).collect();
        let members = newest.into_iter().filter(|latest| {
            times.contains(&latest.sample.timestamp_ms) && latest.labels.metric_name() != PUSH_TIME
        });
        Ok(Pushed {
            members: members.map(|latest| (*latest.labels).clone()).collect(),
            last_ms: Some(last_ms),
            lives: true,
        })
    }
}

/// How a push is written.
#[derive(Clone, Copy)]
enum Format {
    Text(crate::ingest::exposition::Syntax),
    Protobuf,
}

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/vnd.google.protobuf") {
            Self::Protobuf
        } else {
            Self::Text(syntax_of(headers))
        }
    }
}

impl From<ClientModelError> for ApiError {
    fn from(error: ClientModelError) -> Self {
        match error {
            ClientModelError::Intake(error) => error.into(),
            ClientModelError::Malformed(_) => Self::bad_request(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Scope;
    use crate::testing::{Answer, NOW_MS, TestApp};

    async fn send(server: &TestApp, method: &str, path: &str, body: &'static str) -> Answer {
        let request = Request::builder().method(method).uri(format!("/metrics/{path}"));
        server.call(request.body(body.into()).expect("a request")).await
    }

    /// The series that have not ended, without the times of pushes.
    async fn alive(server: &TestApp) -> Vec<String> {
        let latest = server.app.store.latest(&server.context(), &[], i64::MIN).await.expect("read");
        let mut alive: Vec<_> = latest
            .iter()
            .filter(|latest| latest.labels.metric_name() != PUSH_TIME)
            .map(|latest| format!("{} {}", latest.labels, latest.sample.value))
            .collect();
        alive.sort();
        alive
    }

    #[tokio::test]
    async fn put_replaces_the_group_post_the_names_and_delete_ends_it() {
        let server = TestApp::serving(routes());
        // Of other sources, and of a group within: never touched.
        server.put(&[("__name__", "scraped"), ("job", "j")], NOW_MS - 7, 9.0);
        assert_eq!(send(&server, "PUT", "job/j/instance/i", "a 5\n").await.code.as_u16(), 200);
        let others = ["a{instance=\"i\",job=\"j\"} 5", "scraped{job=\"j\"} 9"];
        server.clock.set_ms(NOW_MS + 10);
        let answer = send(&server, "PUT", "job/j", "a{l=\"1\"} 1\na{l=\"2\"} 2\nb{job=\"own\"} 3\n").await;
        assert_eq!((answer.code.as_u16(), answer.api), (200, Some("pushgateway")), "{}", answer.body);
        let expect = |own: &[&str]| {
            let mut all: Vec<_> = own.iter().chain(&others).map(|s| (*s).to_owned()).collect();
            all.sort();
            all
        };
        assert_eq!(
            alive(&server).await,
            expect(&["a{job=\"j\",l=\"1\"} 1", "a{job=\"j\",l=\"2\"} 2", "b{job=\"j\"} 3"])
        );
        // In the same millisecond: still later than the one before.
        assert_eq!(send(&server, "POST", "job/j", "a{l=\"2\"} 1\n").await.code.as_u16(), 200);
        assert_eq!(alive(&server).await, expect(&["a{job=\"j\",l=\"2\"} 1", "b{job=\"j\"} 3"]));
        assert_eq!(send(&server, "PUT", "job/j", "c 4\n").await.code.as_u16(), 200);
        assert_eq!(alive(&server).await, expect(&["c{job=\"j\"} 4"]));
        assert_eq!(send(&server, "DELETE", "job/j", "").await.code.as_u16(), 202);
        assert_eq!(alive(&server).await, expect(&[]));
        assert_eq!(send(&server, "DELETE", "job/j", "").await.code.as_u16(), 202);
        // What came back has a new beginning.
        assert_eq!(send(&server, "POST", "job@base64/ag", "c 4\n").await.code.as_u16(), 200);
        assert_eq!(alive(&server).await, expect(&["c{job=\"j\"} 4"]));
    }

    #[tokio::test]
    async fn a_push_that_cannot_be_read_changes_nothing() {
        let server = TestApp::serving(routes());
        assert_eq!(send(&server, "PUT", "job/j", "a 1\n").await.code.as_u16(), 200);
        let before = server.everything();
        let answer = send(&server, "PUT", "job/j", "b 1\nc\n").await;
        assert_eq!(answer.code.as_u16(), 400);
        assert!(answer.body.starts_with("nothing is stored: line 2: "), "{}", answer.body);
        for path in ["job", "job/", "x/y", "job/j/__a/b"] {
            assert_eq!(send(&server, "PUT", path, "b 1\n").await.code.as_u16(), 400, "{path}");
        }
        assert_eq!(send(&server, "PATCH", "job/j", "").await.code.as_u16(), 405);
        let request =
            Request::put("/metrics/job/j").header("content-type", "application/vnd.google.protobuf");
        let answer = server.call(request.body("junk".into()).expect("a request")).await;
        assert_eq!(answer.code.as_u16(), 400, "{}", answer.body);
        assert_eq!(server.everything(), before);
    }

    #[tokio::test]
    async fn bound_callers_push_into_their_namespaces_only() {
        let mut server = TestApp::serving(routes());
        let scope = Scope::Namespaces(Arc::new(["mine".to_owned()].into()));
        server.caller = Some(Caller { scope, ..Caller::local() });
        assert_eq!(send(&server, "PUT", "job/j/namespace/yours", "a 1\n").await.code.as_u16(), 403);
        assert_eq!(send(&server, "PUT", "job/j", "a{namespace=\"mine\"} 1\n").await.code.as_u16(), 403);
        assert_eq!(
            send(&server, "PUT", "job/j/namespace/mine", "a{namespace=\"yours\"} 1\n").await.code.as_u16(),
            200
        );
        assert_eq!(alive(&server).await, ["a{job=\"j\",namespace=\"mine\"} 1"]);
        assert_eq!(send(&server, "DELETE", "job/j/namespace/yours", "").await.code.as_u16(), 403);
        server.caller = Some(Caller { write: false, ..Caller::local() });
        assert_eq!(send(&server, "DELETE", "job/j/namespace/mine", "").await.code.as_u16(), 403);
    }
}
