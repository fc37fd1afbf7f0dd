//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/{name}/values`, `/api/v1/metadata`: what there is.

use super::answer::write_notes;
use super::json::{write_labels, write_list, write_string};
use super::request::{Failure, Parameters};
use super::run::{Answer, Bench, Turns, Writer, run};
use crate::app::App;
use crate::http::auth::Caller;
use crate::metadata::{Described, MetricType};
use crate::query::promql::{Notes, parse_selector};
use crate::store::{LabelsRequest, Scope};
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::Arc;

/// Which series, and how many entries of the answer.
struct Wanted {
    selectors: Vec<String>,
    start_ms: i64,
    end_ms: i64,
    entries_max: Option<usize>,
    /// Whether the caller asks of a time at all.
    bounded: bool,
}

impl Wanted {
    fn of(parameters: &Parameters) -> Result<Self, Failure> {
        let (start_ms, end_ms) = (parameters.time_ms("start")?, parameters.time_ms("end")?);
        let bounded = start_ms.is_some() || end_ms.is_some();
        let (start_ms, end_ms) = (start_ms.unwrap_or(i64::MIN), end_ms.unwrap_or(i64::MAX));
        if end_ms < start_ms {
            return Err(Failure::parameter("end", "end timestamp must not be before start time"));
        }
        let (selectors, entries_max) = (parameters.selectors()?, parameters.limit()?);
        Ok(Self { selectors, start_ms, end_ms, entries_max, bounded })
    }

    /// The series that fit any of the selectors; without one: all.
    fn series(&self, bench: &Bench<'_>) -> Result<BTreeSet<Arc<Labels>>, Failure> {
        let parse =
            |text: &String| parse_selector(text).map_err(|error| Failure::parameter("match[]", error));
        let mut each: Vec<Vec<Matcher>> = self.selectors.iter().map(parse).collect::<Result<_, _>>()?;
        if each.is_empty() {
            each.push(Vec::new());
        }
        let mut all = BTreeSet::new();
        for matchers in each {
            if (bench.stop)().is_some() {
                return Err(Failure::timeout("query timed out while series were listed"));
            }
            all.extend(bench.reader.series(&matchers, self.start_ms, self.end_ms)?);
        }
        Ok(all)
    }
}

/// A list, of which the rest is left out with a warning.
struct ListAnswer<T> {
    entries: Vec<T>,
    entries_max: Option<usize>,
}

trait Entry {
    fn write(&self, json: &mut Writer) -> fmt::Result;
}

impl Entry for String {
    fn write(&self, json: &mut Writer) -> fmt::Result {
        write_string(self, json)
    }
}

impl Entry for Arc<Labels> {
    fn write(&self, json: &mut Writer) -> fmt::Result {
        write_labels(self.iter(), json)
    }
}

impl<T: Entry> Answer for ListAnswer<T> {
    fn write(self, json: &mut Writer) -> fmt::Result {
        let entries_max = self.entries_max.unwrap_or(usize::MAX);
        json.write_str(r#"{"status":"success","data":"#)?;
        write_list(self.entries.iter().take(entries_max), json, |entry, json| entry.write(json))?;
        let mut notes = Notes::default();
        if self.entries.len() > entries_max {
            notes.warnings.insert("results truncated due to limit".to_owned());
        }
        write_notes(&notes, json)?;
        json.write_char('}')
    }
}

/// The label sets of series.
pub(super) async fn series(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let wanted = Wanted::of(&Parameters::read(request).await?)?;
    if wanted.selectors.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    run(&app, &turns, &caller.scope, app.settings.query.timeout, move |bench| {
        let mut entries: Vec<Arc<Labels>> = wanted.series(bench)?.into_iter().collect();
        entries.sort_by(|a, b| a.iter().cmp(b.iter()));
        Ok(ListAnswer { entries, entries_max: wanted.entries_max })
    })
    .await
}

/// Names of labels.
pub(super) async fn labels(
    State(app): State<App>,
    turns: Extension<Turns>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    names_or_values(app, turns, caller, None, request).await
}

/// Values of a label.
pub(super) async fn label_values(
    State(app): State<App>,
    turns: Extension<Turns>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    names_or_values(app, turns, caller, Some(name), request).await
}

async fn names_or_values(
    app: App,
    Extension(turns): Extension<Turns>,
    caller: Caller,
    name: Option<String>,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let wanted = Wanted::of(&Parameters::read(request).await?)?;
    let entries_max = wanted.entries_max;
    if wanted.selectors.is_empty() && !wanted.bounded {
        // The index knows.
        let question = LabelsRequest { name, matchers: Vec::new() };
        let entries = app.store.labels(&app.context(&caller.scope), question).await?;
        let work = move |_: &Bench<'_>| Ok(ListAnswer { entries, entries_max });
        return run(&app, &turns, &caller.scope, app.settings.query.timeout, work).await;
    }
    run(&app, &turns, &caller.scope, app.settings.query.timeout, move |bench| {
        let mut entries = BTreeSet::new();
        for labels in wanted.series(bench)? {
            match &name {
                Some(name) => entries.extend(labels.get(name).map(str::to_owned)),
                None => entries.extend(labels.iter().map(|(name, _)| name.to_owned())),
            }
        }
        Ok(ListAnswer { entries: entries.into_iter().collect(), entries_max })
    })
    .await
}

/// What senders say of metrics. A caller who is bound to namespaces sees the metrics of those.
pub(super) async fn metadata(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.require_read()?;
    let parameters = Parameters::read(request).await?;
    let mut all = app.metadata.all();
    if caller.scope != Scope::All {
        let question = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers: Vec::new() };
        let visible = app.store.labels(&app.context(&caller.scope), question).await?;
        let visible: BTreeSet<String> = visible.into_iter().collect();
        all.retain(|(name, described)| is_visible(name, described, &visible));
    }
    if let Some(metric) = parameters.get("metric") {
        all.retain(|(name, _)| name == metric);
    }
    all.truncate(parameters.limit()?.unwrap_or(usize::MAX));
    let told = |(name, described): (String, Described)| {
        let one = json!({"type": kind(described.kind), "help": described.help, "unit": described.unit});
        (name, json!([one]))
    };
    let data: BTreeMap<String, serde_json::Value> = all.into_iter().map(told).collect();
    Ok(([(header::CACHE_CONTROL, "no-cache")], Json(json!({"status": "success", "data": data})))
        .into_response())
}

/// Whether a metric has a series of its name, or of what a histogram or a summary is made of.
fn is_visible(name: &str, described: &Described, visible: &BTreeSet<String>) -> bool {
    let has_parts =
        matches!(described.kind, MetricType::Histogram | MetricType::GaugeHistogram | MetricType::Summary);
    let part = |end: &str| visible.contains(&format!("{name}{end}"));
    visible.contains(name)
        || part("_total")
        || (has_parts && ["_bucket", "_count", "_sum"].into_iter().any(part))
}

fn kind(kind: MetricType) -> serde_json::Value {
    serde_json::to_value(kind).unwrap_or_default()
}
