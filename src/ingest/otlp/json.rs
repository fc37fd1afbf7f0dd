//! The request as JSON: protobuf's JSON mapping with lowerCamelCase names, 64-bit numbers as texts or
//! numbers, enums as numbers or names.
//!
//! Lists are kept as the texts of their entries and read one by one, so that many empty objects take
//! little memory. Unknown fields are stepped over, as OTLP asks.

use super::attributes::{Attributes, COMPOUND_BYTES_MAX};
use super::translate::Translator;
use super::{Kind, Metric, OtlpError, Point, PointValue, Temporality};
use crate::text::start_of;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The flag of a point that says that there is no value any more.
const NO_RECORDED_VALUE: u64 = 1;

/// Entries of a list, each to be read when its turn comes.
type Raw<'a> = Option<Vec<&'a RawValue>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_metrics: Raw<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceMetrics<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    #[serde(borrow)]
    scope_metrics: Raw<'a>,
}

#[derive(Deserialize)]
struct WithAttributes<'a> {
    #[serde(borrow)]
    attributes: Raw<'a>,
}

#[derive(Deserialize)]
struct ScopeMetrics<'a> {
    #[serde(borrow)]
    metrics: Raw<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricText<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Cow<'a, str>,
    #[serde(borrow, default)]
    unit: Cow<'a, str>,
    #[serde(borrow)]
    gauge: Option<&'a RawValue>,
    #[serde(borrow)]
    sum: Option<&'a RawValue>,
    #[serde(borrow)]
    histogram: Option<&'a RawValue>,
    #[serde(borrow)]
    exponential_histogram: Option<&'a RawValue>,
    #[serde(borrow)]
    summary: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow)]
    data_points: Raw<'a>,
    #[serde(borrow)]
    aggregation_temporality: Option<Number<'a>>,
    is_monotonic: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PointText<'a> {
    #[serde(borrow)]
    attributes: Raw<'a>,
    #[serde(borrow)]
    time_unix_nano: Option<Number<'a>>,
    #[serde(borrow)]
    as_double: Option<Number<'a>>,
    #[serde(borrow)]
    as_int: Option<Number<'a>>,
    #[serde(borrow)]
    flags: Option<Number<'a>>,
    #[serde(borrow)]
    count: Option<Number<'a>>,
    #[serde(borrow)]
    sum: Option<Number<'a>>,
    #[serde(borrow)]
    bucket_counts: Raw<'a>,
    #[serde(borrow)]
    explicit_bounds: Raw<'a>,
    #[serde(borrow)]
    quantile_values: Raw<'a>,
    #[serde(borrow)]
    exemplars: Raw<'a>,
}

#[derive(Deserialize)]
struct Quantile<'a> {
    #[serde(borrow)]
    quantile: Option<Number<'a>>,
    #[serde(borrow)]
    value: Option<Number<'a>>,
}

#[derive(Deserialize)]
struct KeyValue<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// A number, or its text: `"NaN"`, `"Infinity"`, 64-bit integers.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Whole(u64),
    Signed(i64),
    Float(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Number<'_> {
    fn whole(&self) -> Result<u64, OtlpError> {
        match self {
            Self::Whole(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| bad_number(text)),
            Self::Signed(number) => Err(bad_number(&number.to_string())),
            Self::Float(number) => Err(bad_number(&number.to_string())),
        }
    }

    fn signed(&self) -> Result<i64, OtlpError> {
        match self {
            Self::Whole(number) => i64::try_from(*number).map_err(|_| bad_number(&number.to_string())),
            Self::Signed(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| bad_number(text)),
            Self::Float(number) => Err(bad_number(&number.to_string())),
        }
    }

    fn float(&self) -> Result<f64, OtlpError> {
        match self {
            Self::Whole(number) => Ok(*number as f64),
            Self::Signed(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| bad_number(text)),
        }
    }
}

fn bad_number(text: &str) -> OtlpError {
    OtlpError::Json(format!("{:?} is not the number that should stand there", start_of(text)))
}

fn bad_json(error: &serde_json::Error) -> OtlpError {
    OtlpError::Json(error.to_string())
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, OtlpError> {
    serde_json::from_str(raw.get()).map_err(|error| bad_json(&error))
}

/// Decodes a request into `translator`.
///
/// # Errors
/// When the message is malformed, or has too much in it.
pub fn decode(message: &[u8], translator: &mut Translator<'_, '_>) -> Result<(), OtlpError> {
    let request: Request<'_> = serde_json::from_slice(message).map_err(|error| bad_json(&error))?;
    for raw in request.resource_metrics.unwrap_or_default() {
        let ResourceMetrics { resource, scope_metrics } = read(raw)?;
        let resource: Option<WithAttributes<'_>> = resource.map(read).transpose()?;
        translator.begin_resource(&attributes(resource.and_then(|resource| resource.attributes))?);
        for raw in scope_metrics.unwrap_or_default() {
            for raw in read::<ScopeMetrics<'_>>(raw)?.metrics.unwrap_or_default() {
                metric(&read(raw)?, translator)?;
            }
        }
        translator.end_resource()?;
    }
    Ok(())
}

fn metric(text: &MetricText<'_>, translator: &mut Translator<'_, '_>) -> Result<(), OtlpError> {
    let kinds = [text.gauge, text.sum, text.histogram, text.exponential_histogram, text.summary];
    let Some((place, raw)) = kinds.iter().enumerate().find_map(|(place, raw)| Some((place, (*raw)?))) else {
        return Ok(());
    };
    let data: Data<'_> = read(raw)?;
    let temporality = data.aggregation_temporality.as_ref().map_or(Temporality::Unspecified, temporality);
    let kind = match place {
        0 => Kind::Gauge,
        1 => Kind::Sum { monotonic: data.is_monotonic.unwrap_or(false), temporality },
        2 => Kind::Histogram { temporality },
        3 => Kind::ExponentialHistogram,
        _ => Kind::Summary,
    };
    let (name, description, unit) = (&*text.name, &*text.description, &*text.unit);
    let series = translator.metric(Metric { name, description, unit, kind });
    for raw in data.data_points.unwrap_or_default() {
        let text: PointText<'_> = read(raw)?;
        translator.ignore_exemplars(text.exemplars.as_ref().map_or(0, Vec::len));
        translator.point(&series, &point(kind, text)?)?;
    }
    Ok(())
}

fn temporality(number: &Number<'_>) -> Temporality {
    match number {
        Number::Text(text) if text == "AGGREGATION_TEMPORALITY_DELTA" => Temporality::Delta,
        Number::Text(text) if text == "AGGREGATION_TEMPORALITY_CUMULATIVE" => Temporality::Cumulative,
        number => number.whole().map_or(Temporality::Unspecified, Temporality::of_number),
    }
}

fn point(kind: Kind, text: PointText<'_>) -> Result<Point, OtlpError> {
    let whole = |number: &Option<Number<'_>>| number.as_ref().map(Number::whole).transpose();
    let float = |number: &Option<Number<'_>>| number.as_ref().map(Number::float).transpose();
    let value = match kind {
        Kind::Gauge | Kind::Sum { .. } => match (&text.as_double, &text.as_int) {
            (Some(number), _) => PointValue::Number(number.float()?),
            (None, Some(number)) => PointValue::Number(number.signed()? as f64),
            (None, None) => PointValue::None,
        },
        Kind::Histogram { .. } => PointValue::Histogram {
            count: whole(&text.count)?.unwrap_or(0),
            sum: float(&text.sum)?,
            bounds: numbers(text.explicit_bounds, |n| n.float())?,
            counts: numbers(text.bucket_counts, |n| n.whole())?,
        },
        Kind::Summary => PointValue::Summary {
            count: whole(&text.count)?.unwrap_or(0),
            sum: float(&text.sum)?.unwrap_or(0.0),
            quantiles: quantiles(text.quantile_values)?,
        },
        Kind::ExponentialHistogram => PointValue::None,
    };
    Ok(Point {
        attributes: attributes(text.attributes)?,
        time_ns: whole(&text.time_unix_nano)?.filter(|time_ns| *time_ns != 0),
        no_recorded_value: whole(&text.flags)?.unwrap_or(0) & NO_RECORDED_VALUE != 0,
        value,
    })
}

fn numbers<T>(
    raw: Raw<'_>,
    number: impl Fn(&Number<'_>) -> Result<T, OtlpError>,
) -> Result<Vec<T>, OtlpError> {
    raw.unwrap_or_default().into_iter().map(|raw| number(&read(raw)?)).collect()
}

fn quantiles(raw: Raw<'_>) -> Result<Vec<(f64, f64)>, OtlpError> {
    let float = |number: Option<Number<'_>>| number.map_or(Ok(0.0), |number| number.float());
    let one = |raw| {
        let Quantile { quantile, value } = read(raw)?;
        Ok((float(quantile)?, float(value)?))
    };
    raw.unwrap_or_default().into_iter().map(one).collect()
}

fn attributes(raw: Raw<'_>) -> Result<Attributes, OtlpError> {
    let mut attributes = Attributes::default();
    for raw in raw.unwrap_or_default() {
        let KeyValue { key, value } = read(raw)?;
        attributes.push(key, value.map_or(Ok(String::new()), any_text)?);
    }
    Ok(attributes)
}

/// An `AnyValue` as the value of a label: text as it is, anything else as JSON.
fn any_text(raw: &RawValue) -> Result<String, OtlpError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Any<'a> {
        #[serde(borrow)]
        string_value: Option<Cow<'a, str>>,
    }
    if let Some(text) = read::<Any<'_>>(raw)?.string_value {
        return Ok(text.into_owned());
    }
    if raw.get().len() > COMPOUND_BYTES_MAX {
        return Ok(format!("a value of {} bytes", raw.get().len()));
    }
    Ok(match any_json(read(raw)?) {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// An `AnyValue` without its wrapping. It is no deeper than what serde_json reads.
fn any_json(mut any: Value) -> Value {
    let Some(any) = any.as_object_mut() else { return Value::Null };
    let mut take = |key: &str| any.get_mut(key).map(Value::take).filter(|value| !value.is_null());
    let list = |mut value: Value| match value.get_mut("values").map(Value::take) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    if let Some(value) =
        ["stringValue", "boolValue", "doubleValue", "bytesValue"].into_iter().find_map(&mut take)
    {
        return value;
    }
    if let Some(value) = take("intValue") {
        let number = value.as_str().and_then(|text| text.parse::<i64>().ok()).map(Value::from);
        return number.unwrap_or(value);
    }
    if let Some(value) = take("arrayValue") {
        return list(value).into_iter().map(any_json).collect();
    }
    if let Some(value) = take("kvlistValue") {
        let entry = |mut entry: Value| {
            let key = entry.get("key")?.as_str()?.to_owned();
            Some((key, any_json(entry.get_mut("value").map(Value::take).unwrap_or_default())))
        };
        return Value::Object(list(value).into_iter().filter_map(entry).collect());
    }
    Value::Null
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::{Intake, Taken};
    use crate::store::Scope;
    use proptest::prelude::*;

    fn take(message: &[u8]) -> Result<Taken, OtlpError> {
        let mut share = ByteBudget::new(16 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        let mut translator = Translator::new(&mut intake);
        decode(message, &mut translator)?;
        Ok(intake.taken)
    }

    const WHOLE: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"k8s.pod.name","value":
        {"stringValue":"p"}},{"key":"n","value":{"intValue":"7"}}]},"scopeMetrics":[{"metrics":[{"name":"h","histogram":
        {"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"5000000","count":"3","sum":4.5,
        "bucketCounts":["1",2],"explicitBounds":[0.5],"attributes":[{"key":"m","value":{"kvlistValue":{"values":
        [{"key":"a","value":{"doubleValue":1.5}}]}}},{"key":"b","value":{"bytesValue":"AQ=="}}]}]}}]}]}]}"#;

    #[test]
    fn a_histogram_with_compound_attributes_is_read() {
        let taken = take(WHOLE.as_bytes()).expect("read");
        let series: Vec<_> = taken.batch.series.iter().map(ToString::to_string).collect();
        assert_eq!(series.len(), 4, "{series:?}");
        assert_eq!(series[0], r#"h_count{b="AQ==",m="{\"a\":1.5}",pod="p"}"#);
    }

    #[test]
    fn numbers_out_of_place_are_named() {
        let point = |field: &str| {
            format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{{{field}}}]}}}}]}}]}}]}}"#
            )
        };
        for field in [r#""asInt":"1.5""#, r#""timeUnixNano":-1"#, r#""asDouble":"much""#, r#""flags":"x""#] {
            assert!(matches!(take(point(field).as_bytes()), Err(OtlpError::Json(_))), "{field}");
        }
        assert_eq!(take(point(r#""asDouble":"-Infinity""#).as_bytes()).expect("read").batch.samples.len(), 1);
        assert!(take(b"{}").expect("nothing in it").batch.samples.is_empty());
    }

    proptest! {
        #[test]
        fn no_change_of_one_byte_panics(place in any::<usize>(), byte in any::<u8>()) {
            let mut message = WHOLE.as_bytes().to_vec();
            let place = place % message.len();
            message[place] = byte;
            let _ = take(&message);
        }

        #[test]
        fn no_text_panics(text in r#"[{}\[\]":,a-z0-9]{0,80}"#) {
            let _ = take(text.as_bytes());
        }
    }
}
