//! The functions by name.

use super::dates::DateFunction;
use super::math;

/// A function.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    /// Of a range of samples.
    Range(RangeFunction),
    /// Of one value.
    Value(fn(f64) -> f64),
    /// Of a time as a value.
    Date(DateFunction),
    Absent,
    AbsentOverTime,
    Clamp,
    ClampMax,
    ClampMin,
    HistogramFraction,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Pi,
    Round,
    Scalar,
    Sort,
    SortDesc,
    Time,
    Timestamp,
    Vector,
}

/// A function of the samples in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeFunction {
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    First,
    Idelta,
    Increase,
    Irate,
    Last,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Stddev,
    Stdvar,
    Sum,
}

impl RangeFunction {
    /// Whether a value of it is one of its samples, which keep their name.
    pub(super) fn keeps_name(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }
}

/// The function of this name, if it is supported.
pub(super) fn by_name(name: &str) -> Option<Function> {
    if let Some(function) = math::by_name(name) {
        return Some(Function::Value(function));
    }
    if let Some(function) = range_by_name(name) {
        return Some(Function::Range(function));
    }
    if let Some(function) = DateFunction::by_name(name) {
        return Some(Function::Date(function));
    }
    Some(match name {
        "absent" => Function::Absent,
        "absent_over_time" => Function::AbsentOverTime,
        "clamp" => Function::Clamp,
        "clamp_max" => Function::ClampMax,
        "clamp_min" => Function::ClampMin,
        "histogram_fraction" => Function::HistogramFraction,
        "histogram_quantile" => Function::HistogramQuantile,
        "label_join" => Function::LabelJoin,
        "label_replace" => Function::LabelReplace,
        "pi" => Function::Pi,
        "round" => Function::Round,
        "scalar" => Function::Scalar,
        "sort" => Function::Sort,
        "sort_desc" => Function::SortDesc,
        "time" => Function::Time,
        "timestamp" => Function::Timestamp,
        "vector" => Function::Vector,
        _ => return None,
    })
}

fn range_by_name(name: &str) -> Option<RangeFunction> {
    Some(match name {
        "avg_over_time" => RangeFunction::Avg,
        "changes" => RangeFunction::Changes,
        "count_over_time" => RangeFunction::Count,
        "delta" => RangeFunction::Delta,
        "deriv" => RangeFunction::Deriv,
        "first_over_time" => RangeFunction::First,
        "idelta" => RangeFunction::Idelta,
        "increase" => RangeFunction::Increase,
        "irate" => RangeFunction::Irate,
        "last_over_time" => RangeFunction::Last,
        "max_over_time" => RangeFunction::Max,
        "min_over_time" => RangeFunction::Min,
        "predict_linear" => RangeFunction::PredictLinear,
        "present_over_time" => RangeFunction::Present,
        "quantile_over_time" => RangeFunction::Quantile,
        "rate" => RangeFunction::Rate,
        "resets" => RangeFunction::Resets,
        "stddev_over_time" => RangeFunction::Stddev,
        "stdvar_over_time" => RangeFunction::Stdvar,
        "sum_over_time" => RangeFunction::Sum,
        _ => return None,
    })
}

/// Why a function that the language has, or had, is not here.
pub(super) fn why_not(name: &str) -> String {
    let why = match name {
        "histogram_avg" | "histogram_count" | "histogram_stddev" | "histogram_stdvar" | "histogram_sum" => {
            "it is of native histograms, which are not stored here"
        }
        "holt_winters" => "Prometheus 3 has it as the experimental double_exponential_smoothing",
        _ => "it is experimental in Prometheus",
    };
    format!("function {name:?} is not supported: {why}")
}
