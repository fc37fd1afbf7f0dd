//! Answers of queries.

use super::json::{write_list, write_metric, write_sample, write_seconds, write_string, write_value};
use super::run::{Answer, Writer};
use crate::http::decimal::Fraction;
use crate::http::stamps::Stamps;
use crate::query::promql::{Notes, Outcome, Row, Value};
use std::fmt::{self, Write};

/// Of more series than this the rest is left out, with a warning.
pub(super) struct QueryAnswer {
    pub(super) outcome: Outcome,
    pub(super) series_max: Option<usize>,
}

impl Answer for QueryAnswer {
    fn write(mut self, json: &mut Writer) -> fmt::Result {
        let series_max = self.series_max.unwrap_or(usize::MAX);
        let series = match &self.outcome.value {
            Value::Vector(vector) => vector.len(),
            Value::Matrix(rows) => rows.len(),
            Value::Scalar(_) | Value::Text(..) => 0,
        };
        if series > series_max {
            self.outcome.notes.warnings.insert("results truncated due to limit".to_owned());
        }
        json.write_str(r#"{"status":"success","data":"#)?;
        write_data(self.outcome.value, series_max, json)?;
        write_notes(&self.outcome.notes, json)?;
        json.write_char('}')
    }
}

fn write_data(value: Value, series_max: usize, json: &mut Writer) -> fmt::Result {
    match value {
        Value::Scalar(sample) => {
            json.write_str(r#"{"resultType":"scalar","result":"#)?;
            write_sample(sample, json)?;
        }
        Value::Text(time_ms, text) => {
            json.write_str(r#"{"resultType":"string","result":["#)?;
            write_seconds(time_ms, json)?;
            json.write_char(',')?;
            write_string(&text, json)?;
            json.write_char(']')?;
        }
        Value::Vector(vector) => {
            json.write_str(r#"{"resultType":"vector","result":"#)?;
            write_list(vector.into_iter().take(series_max), json, |(labels, sample), json| {
                json.write_char('{')?;
                write_metric(&labels, json)?;
                json.write_str(r#","value":"#)?;
                write_sample(sample, json)?;
                json.write_char('}')
            })?;
        }
        Value::Matrix(rows) => {
            json.write_str(r#"{"resultType":"matrix","result":"#)?;
            let mut stamps = stamps_of(&rows);
            // Each series is let go of when it is written.
            write_list(rows.into_iter().take(series_max), json, |row, json| {
                json.write_char('{')?;
                write_metric(&row.labels, json)?;
                json.write_str(r#","values":["#)?;
                let mut is_first = true;
                for sample in row.samples() {
                    stamps.write(sample.timestamp_ms, is_first, json)?;
                    write_value(sample.value, json)?;
                    is_first = false;
                }
                json.write_str(if is_first { "]}" } else { "\"]]}" })
            })?;
        }
    }
    json.write_char('}')
}

/// The times of rows, which mostly are at the same steps.
fn stamps_of(rows: &[Row]) -> Stamps {
    let steps = rows.first().and_then(Row::steps);
    let (start_ms, step_ms, count) =
        steps.map_or((0, 1, 0), |steps| (steps.time_ms(0), steps.step_ms(), steps.count()));
    Stamps::new(start_ms, step_ms, count as u64, Fraction::ThreeDigits)
}

pub(super) fn write_notes(notes: &Notes, json: &mut Writer) -> fmt::Result {
    for (name, texts) in [("warnings", &notes.warnings), ("infos", &notes.infos)] {
        if !texts.is_empty() {
            write!(json, r#","{name}":"#)?;
            write_list(texts, json, |text, json| write_string(text, json))?;
        }
    }
    Ok(())
}

/// An answer whose data is one JSON value.
pub(super) struct JsonAnswer(pub(super) serde_json::Value);

impl Answer for JsonAnswer {
    fn write(self, json: &mut Writer) -> fmt::Result {
        write!(json, r#"{{"status":"success","data":{}}}"#, self.0)
    }
}
