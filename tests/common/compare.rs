//! Whether two answers say the same.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use serde_json::Value;
use std::collections::BTreeMap;

/// How far values may differ, relative to the larger one: both servers add up in an order of their own.
pub const TOLERANCE: f64 = 1e-9;

/// What is left where a sum cancels: the last bits of its parts, none of which is smaller than 1/64.
const NOTHING: f64 = 1e-12;

/// How two answers compare.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Equal to the last bit. With how many points.
    Equal(usize),
    /// Equal within the tolerance.
    Near(usize),
    /// Both refuse.
    Refused,
    /// They differ.
    Differs(String),
}

type Points = BTreeMap<i64, f64>;
type Labels = BTreeMap<String, String>;

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no value"))
}

fn point(point: &Value) -> (i64, f64) {
    let seconds = point[0].as_f64().unwrap_or_else(|| panic!("{point} is no point"));
    ((seconds * 1_000.0).round() as i64, number(&point[1]))
}

/// The points of each series.
fn rows(data: &Value) -> Vec<(Labels, Points)> {
    let result = &data["result"];
    if matches!(data["resultType"].as_str(), Some("scalar")) {
        return vec![(Labels::new(), Points::from([point(result)]))];
    }
    let row = |row: &Value| {
        let labels = serde_json::from_value(row["metric"].clone()).expect("labels");
        let points = match row["values"].as_array() {
            Some(values) => values.iter().map(point).collect(),
            None => Points::from([point(&row["value"])]),
        };
        (labels, points)
    };
    result.as_array().map(|rows| rows.iter().map(row).collect()).unwrap_or_default()
}

/// Compares the answers to one question. Where it asks for an order the values have to come in the same.
pub fn compare(ours: (u16, &Value), theirs: (u16, &Value), ordered: bool) -> Verdict {
    let differs = |what: String| Verdict::Differs(what);
    match (ours.0, theirs.0) {
        (200, 200) => {}
        (200, status) => return differs(format!("they refuse by {status}: {}", theirs.1["error"])),
        (status, 200) => return differs(format!("we refuse by {status}: {}", ours.1["error"])),
        _ => return Verdict::Refused,
    }
    let (ours, theirs) = (&ours.1["data"], &theirs.1["data"]);
    if ours["resultType"] != theirs["resultType"] {
        return differs(format!("{} and {}", ours["resultType"], theirs["resultType"]));
    }
    if ours["resultType"] == "string" {
        return if ours == theirs { Verdict::Equal(1) } else { differs("other texts".to_owned()) };
    }
    let (mut ours, mut theirs) = (rows(ours), rows(theirs));
    if !ordered {
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let (ours_count, theirs_count) = (ours.len(), theirs.len());
    let (mut count, mut equal) = (0, true);
    for ((our_labels, our_points), (their_labels, their_points)) in ours.iter().zip(&theirs) {
        if our_labels != their_labels {
            return differs(format!("series {our_labels:?} and {their_labels:?}"));
        }
        if !our_points.keys().eq(their_points.keys()) {
            let missing = their_points.keys().find(|at_ms| !our_points.contains_key(at_ms));
            let more = our_points.keys().find(|at_ms| !their_points.contains_key(at_ms));
            return differs(format!("points of {our_labels:?}: we lack {missing:?} and have {more:?} more"));
        }
        for ((at_ms, our), their) in our_points.iter().zip(their_points.values()) {
            count += 1;
            if our.to_bits() == their.to_bits() || (our.is_nan() && their.is_nan()) {
                continue;
            }
            equal = false;
            let near = (our - their).abs() <= (TOLERANCE * our.abs().max(their.abs())).max(NOTHING);
            if !near || !our.is_finite() || !their.is_finite() {
                return differs(format!("{our:e} and {their:e} at {at_ms} of {our_labels:?}"));
            }
        }
    }
    if ours_count != theirs_count {
        return differs(format!("{ours_count} series and {theirs_count}"));
    }
    if equal { Verdict::Equal(count) } else { Verdict::Near(count) }
}
