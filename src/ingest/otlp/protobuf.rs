//! The request as protobuf, read field by field: nothing is built that is larger than what is kept.
//!
//! ```text
//! ExportMetricsServiceRequest  1 ResourceMetrics…
//! ResourceMetrics   1 Resource   2 ScopeMetrics…          Resource      1 KeyValue…
//! ScopeMetrics      2 Metric…                             KeyValue      1 key   2 AnyValue
//! Metric            1 name   2 description   3 unit   5 gauge   7 sum   9 histogram
//!                   10 exponential histogram   11 summary
//! gauge, sum, …     1 points…   2 temporality   3 is_monotonic
//! NumberDataPoint   3 time   4 double   6 sfixed64   7 KeyValue…   8 flags   5 exemplars…
//! Histogram…Point   3 time   4 count   5 sum   6 counts   7 bounds   8 exemplars…   9 KeyValue…   10 flags
//! SummaryDataPoint  3 time   4 count   5 sum   6 (1 quantile, 2 value)…   7 KeyValue…   8 flags
//! AnyValue          1 string   2 bool   3 int   4 double   5 (1 AnyValue…)   6 (1 KeyValue…)   7 bytes
//! ```

use super::attributes::{Attributes, COMPOUND_BYTES_MAX, DEPTH_MAX};
use super::translate::Translator;
use super::{Kind, Metric, OtlpError, Point, PointValue, Temporality};
use crate::ingest::packed::{each_field, fixed64, fixed64s, uint64};
use crate::protobuf::{Field, ProtobufError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The flag of a point that says that there is no value any more.
const NO_RECORDED_VALUE: u64 = 1;

/// Most quantiles of one point that are kept.
const QUANTILES_MAX: usize = 1_000;

/// Most buckets of one histogram.
const BUCKETS_MAX: usize = 10_000;

/// Decodes a request into `translator`.
///
/// # Errors
/// When the message is malformed, or has too much in it.
pub fn decode(message: &[u8], translator: &mut Translator<'_, '_>) -> Result<(), OtlpError> {
    each_field(message, |field| match field.number {
        1 => resource_metrics(field.bytes()?, translator),
        _ => Ok(()),
    })
}

fn resource_metrics(message: &[u8], translator: &mut Translator<'_, '_>) -> Result<(), OtlpError> {
    let mut attributes = Attributes::default();
    each_field(message, |field| match field.number {
        1 => each_field(field.bytes()?, |field| match field.number {
            1 => key_value(field.bytes()?, &mut attributes),
            _ => Ok(()),
        }),
        _ => Ok::<_, ProtobufError>(()),
    })?;
    translator.begin_resource(&attributes);
    each_field(message, |field| match field.number {
        2 => each_field(field.bytes()?, |field| match field.number {
            2 => metric(field.bytes()?, translator),
            _ => Ok(()),
        }),
        _ => Ok::<_, OtlpError>(()),
    })?;
    Ok(translator.end_resource()?)
}

fn metric(message: &[u8], translator: &mut Translator<'_, '_>) -> Result<(), OtlpError> {
    let (mut name, mut description, mut unit) = (Cow::default(), Cow::default(), Cow::default());
    let mut data = None;
    each_field(message, |field| {
        match field.number {
            1 => name = text(field)?,
            2 => description = text(field)?,
            3 => unit = text(field)?,
            5 | 7 | 9 | 10 | 11 => data = Some((field.number, field.bytes()?)),
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    let Some((number, data)) = data else { return Ok(()) };
    let kind = kind(number, data)?;
    let metric = Metric { name: &name, description: &description, unit: &unit, kind };
    let series = translator.metric(metric);
    each_field(data, |field| {
        if field.number != 1 {
            return Ok(());
        }
        let message = field.bytes()?;
        let (point, exemplars) = match kind {
            Kind::Gauge | Kind::Sum { .. } => number_point(message)?,
            Kind::Histogram { .. } => histogram_point(message)?,
            Kind::Summary => (summary_point(message)?, 0),
            Kind::ExponentialHistogram => (Point::default(), 0),
        };
        translator.ignore_exemplars(exemplars);
        Ok::<_, OtlpError>(translator.point(&series, &point)?)
    })
}

fn kind(number: u32, data: &[u8]) -> Result<Kind, ProtobufError> {
    let (mut temporality, mut monotonic) = (Temporality::Unspecified, false);
    each_field(data, |field| {
        match (number, field.number) {
            (7 | 9, 2) => temporality = Temporality::of_number(uint64(field)?),
            (7, 3) => monotonic = uint64(field)? != 0,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok(match number {
        5 => Kind::Gauge,
        7 => Kind::Sum { monotonic, temporality },
        9 => Kind::Histogram { temporality },
        10 => Kind::ExponentialHistogram,
        _ => Kind::Summary,
    })
}

/// A point and how many exemplars came with it.
fn number_point(message: &[u8]) -> Result<(Point, usize), ProtobufError> {
    let (mut point, mut exemplars) = (Point::default(), 0);
    each_field(message, |field| {
        match field.number {
            3 => point.time_ns = time(field)?,
            4 => point.value = PointValue::Number(field.double()?),
            5 => exemplars += 1,
            6 => point.value = PointValue::Number(fixed64(field)?.cast_signed() as f64),
            7 => key_value(field.bytes()?, &mut point.attributes)?,
            8 => point.no_recorded_value = uint64(field)? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok((point, exemplars))
}

fn histogram_point(message: &[u8]) -> Result<(Point, usize), ProtobufError> {
    let (mut point, mut exemplars) = (Point::default(), 0);
    let (mut count, mut sum, mut bounds, mut counts) = (0, None, Vec::new(), Vec::new());
    each_field(message, |field| {
        match field.number {
            3 => point.time_ns = time(field)?,
            4 => count = fixed64(field)?,
            5 => sum = Some(field.double()?),
            6 => fixed64s(field, |number| push_bounded(&mut counts, number, BUCKETS_MAX))?,
            7 => fixed64s(field, |bits| push_bounded(&mut bounds, f64::from_bits(bits), BUCKETS_MAX + 1))?,
            8 => exemplars += 1,
            9 => key_value(field.bytes()?, &mut point.attributes)?,
            10 => point.no_recorded_value = uint64(field)? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    point.value = PointValue::Histogram { count, sum, bounds, counts };
    Ok((point, exemplars))
}

fn summary_point(message: &[u8]) -> Result<Point, ProtobufError> {
    let mut point = Point::default();
    let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
    each_field(message, |field| {
        match field.number {
            3 => point.time_ns = time(field)?,
            4 => count = fixed64(field)?,
            5 => sum = field.double()?,
            6 => push_bounded(&mut quantiles, quantile(field.bytes()?)?, QUANTILES_MAX),
            7 => key_value(field.bytes()?, &mut point.attributes)?,
            8 => point.no_recorded_value = uint64(field)? & NO_RECORDED_VALUE != 0,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    point.value = PointValue::Summary { count, sum, quantiles };
    Ok(point)
}

fn quantile(message: &[u8]) -> Result<(f64, f64), ProtobufError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    each_field(message, |field| {
        match field.number {
            1 => quantile = field.double()?,
            2 => value = field.double()?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok((quantile, value))
}

fn push_bounded<T>(list: &mut Vec<T>, item: T, max: usize) {
    // A histogram that is cut does not fit its bounds any more, and is refused for that.
    if list.len() < max {
        list.push(item);
    }
}

fn time(field: Field<'_>) -> Result<Option<u64>, ProtobufError> {
    Ok(Some(fixed64(field)?).filter(|time_ns| *time_ns != 0))
}

/// A text; what is not UTF-8 in it shows as such, and is no reason to refuse its neighbours.
fn text(field: Field<'_>) -> Result<Cow<'_, str>, ProtobufError> {
    Ok(String::from_utf8_lossy(field.bytes()?))
}

fn key_value(message: &[u8], attributes: &mut Attributes) -> Result<(), ProtobufError> {
    let (mut key, mut value) = (Cow::default(), String::new());
    each_field(message, |field| {
        match field.number {
            1 => key = text(field)?,
            2 => value = any_text(field.bytes()?)?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    attributes.push(key, value);
    Ok(())
}

/// An `AnyValue` as the value of a label: text as it is, anything else as JSON.
fn any_text(message: &[u8]) -> Result<String, ProtobufError> {
    let mut compound = false;
    each_field(message, |field| {
        compound |= matches!(field.number, 5 | 6);
        Ok::<_, ProtobufError>(())
    })?;
    if compound && message.len() > COMPOUND_BYTES_MAX {
        return Ok(format!("a value of {} bytes", message.len()));
    }
    Ok(match any_json(message, 0)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// What stands too deep is left out.
fn any_json(message: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut value = Value::Null;
    each_field(message, |field| {
        value = match field.number {
            1 => text(field)?.into(),
            2 => (uint64(field)? != 0).into(),
            3 => field.int64()?.into(),
            4 => field.double()?.into(),
            5 | 6 if depth == DEPTH_MAX => Value::Null,
            5 => {
                let mut list = Vec::new();
                each_field(field.bytes()?, |field| {
                    if field.number == 1 {
                        list.push(any_json(field.bytes()?, depth + 1)?);
                    }
                    Ok::<_, ProtobufError>(())
                })?;
                list.into()
            }
            6 => {
                let mut map = Map::new();
                each_field(field.bytes()?, |field| {
                    if field.number == 1 {
                        let (key, value) = any_entry(field.bytes()?, depth + 1)?;
                        map.insert(key, value);
                    }
                    Ok::<_, ProtobufError>(())
                })?;
                map.into()
            }
            7 => STANDARD.encode(field.bytes()?).into(),
            _ => Value::Null,
        };
        Ok::<_, ProtobufError>(())
    })?;
    Ok(value)
}

fn any_entry(message: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), Value::Null);
    each_field(message, |field| {
        match field.number {
            1 => key = text(field)?.into_owned(),
            2 => value = any_json(field.bytes()?, depth)?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::{Intake, Taken};
    use crate::store::Scope;
    use proptest::prelude::*;
    use prost::encoding;

    fn take(message: &[u8]) -> Result<Taken, OtlpError> {
        let mut share = ByteBudget::new(16 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        let mut translator = Translator::new(&mut intake);
        decode(message, &mut translator)?;
        Ok(intake.taken)
    }

    fn message(tag: u32, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::bytes::encode(tag, &parts.concat(), &mut message);
        message
    }

    fn string(tag: u32, value: &str) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::string::encode(tag, &value.to_owned(), &mut message);
        message
    }

    fn fixed(tag: u32, value: u64) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::fixed64::encode(tag, &value, &mut message);
        message
    }

    fn number(tag: u32, value: u64) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::uint64::encode(tag, &value, &mut message);
        message
    }

    fn attribute(tag: u32, key: &str, value: Vec<u8>) -> Vec<u8> {
        message(tag, &[string(1, key), message(2, &[value])])
    }

    fn request(metrics: &[Vec<u8>]) -> Vec<u8> {
        let resource = message(1, &[attribute(1, "k8s.pod.name", string(1, "p"))]);
        let scope = message(2, &[message(1, &[string(1, "scope")]), metrics.concat()]);
        message(1, &[scope, resource])
    }

    fn flat(taken: &Taken) -> Vec<String> {
        let samples = taken.batch.samples.iter();
        samples
            .map(|s| format!("{} {:?} {}", taken.batch.series[s.series], s.timestamp_ms, s.value))
            .collect()
    }

    fn whole() -> Vec<u8> {
        let nested = message(5, &[message(1, &[number(3, 7)]), message(1, &[string(1, "x")])]);
        let gauge_point =
            [fixed(3, 5_000_000), fixed(6, (-2_i64).cast_unsigned()), attribute(7, "list", nested)];
        let gauge = message(2, &[string(1, "g"), message(5, &[message(1, &gauge_point)])]);
        let point = [fixed(3, 5_000_000), fixed(4, 1.5_f64.to_bits()), message(5, &[])];
        let sum = message(7, &[message(1, &point), number(2, 2), number(3, 1)]);
        let sum = message(2, &[sum, string(1, "hits"), string(3, "By")]);
        let mut counts = Vec::new();
        encoding::fixed64::encode_packed(6, &[1, 2], &mut counts);
        encoding::double::encode_packed(7, &[0.5], &mut counts);
        let point = message(1, &[fixed(3, 5_000_000), fixed(4, 3), fixed(5, 4.5_f64.to_bits()), counts]);
        let histogram = message(2, &[string(1, "h"), message(9, &[point, number(2, 2)])]);
        let quantile = message(6, &[fixed(1, 0.5_f64.to_bits()), fixed(2, 2_f64.to_bits())]);
        let point = message(1, &[fixed(3, 5_000_000), fixed(4, 3), fixed(5, 4.5_f64.to_bits()), quantile]);
        let summary = message(2, &[string(1, "q"), message(11, &[point])]);
        let exponential = message(2, &[string(1, "e"), message(10, &[message(1, &[])])]);
        request(&[gauge, sum, histogram, summary, exponential])
    }

    #[test]
    fn each_kind_of_metric_is_read() {
        let taken = take(&whole()).expect("read");
        let at = "Some(5)";
        assert_eq!(
            flat(&taken),
            [
                format!("g{{list=\"[7,\\\"x\\\"]\", pod=\"p\"}} {at} -2").replace(", ", ","),
                format!("hits_bytes_total{{pod=\"p\"}} {at} 1.5"),
                format!("h_count{{pod=\"p\"}} {at} 3"),
                format!("h_sum{{pod=\"p\"}} {at} 4.5"),
                format!("h_bucket{{le=\"0.5\",pod=\"p\"}} {at} 1"),
                format!("h_bucket{{le=\"+Inf\",pod=\"p\"}} {at} 3"),
                format!("q_count{{pod=\"p\"}} {at} 3"),
                format!("q_sum{{pod=\"p\"}} {at} 4.5"),
                format!("q{{pod=\"p\",quantile=\"0.5\"}} {at} 2"),
            ]
        );
        assert_eq!(taken.refusals.by_reason().collect::<Vec<_>>(), [("exponential_histogram", 1)]);
        assert_eq!(taken.exemplars, 1);
    }

    #[test]
    fn many_points_of_a_long_label_are_stopped_by_the_budget() {
        let point = message(1, &[fixed(3, 5_000_000), fixed(4, 0)]);
        let metric = message(2, &[string(1, "m"), message(5, &[point.repeat(20_000)])]);
        let resource = message(1, &[attribute(1, "k8s.pod.name", string(1, &"p".repeat(4_000)))]);
        let request = message(1, &[resource, message(2, &[metric])]);
        assert!(request.len() < 1 << 20);
        assert!(matches!(take(&request), Err(OtlpError::Intake(_))));
        // What nests without an end is cut, not followed.
        let mut deep = string(1, "x");
        for _ in 0..500 {
            deep = message(5, &[message(1, &[deep])]);
        }
        assert!(deep.len() < COMPOUND_BYTES_MAX);
        assert!(any_text(&deep).expect("read").starts_with("[[[[[[[["));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes);
            let _ = any_text(&bytes);
        }

        #[test]
        fn no_change_of_one_byte_panics(place in any::<usize>(), byte in any::<u8>()) {
            let mut message = whole();
            let place = place % message.len();
            message[place] = byte;
            let _ = take(&message);
        }
    }
}
