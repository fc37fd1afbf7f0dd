//! The protobuf exposition that Go clients push: `io.prometheus.client.MetricFamily` messages, each
//! behind its length (<https://github.com/prometheus/client_model>).
//!
//! ```text
//! MetricFamily  1 name   2 help   3 type (0 counter, 1 gauge, 2 summary, 3 untyped, 4 histogram, 5 gauge
//!               histogram)   4 Metric…   5 unit
//! Metric        1 (1 name, 2 value)…   2 gauge   3 counter   4 summary   5 untyped   6 time, Unix ms
//!               7 histogram
//! Summary       1 count   2 sum   3 (1 quantile, 2 value)…
//! Histogram     1 count   2 sum   3 (1 cumulative count, 2 upper bound)…
//! ```

use super::exposition::Outer;
use super::intake::{Intake, IntakeError};
use super::openmetrics::Pair;
use super::packed::{each_field, uint64, varint};
use crate::metadata::{Described, MetricType};
use crate::protobuf::ProtobufError;
use lookback_storage::METRIC_NAME_LABEL;
use lookback_storage::labels::limits::LABELS_MAX;
use std::borrow::Cow;
use thiserror::Error;

/// A body that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientModelError {
    /// Not such messages.
    #[error("the body is not a row of delimited io.prometheus.client.MetricFamily messages: {0}")]
    Malformed(#[from] ProtobufError),
    /// Too much in it.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// Reads a body into `intake`.
///
/// # Errors
/// When it is malformed, or too much has been taken.
pub fn read(body: &[u8], outer: Outer<'_>, intake: &mut Intake<'_>) -> Result<(), ClientModelError> {
    let mut rest = body;
    while !rest.is_empty() {
        let (length, behind) = varint(rest)?;
        let length = usize::try_from(length).map_err(|_| ProtobufError::CutShort)?;
        let (message, behind) = behind.split_at_checked(length).ok_or(ProtobufError::CutShort)?;
        family(message, outer, intake)?;
        rest = behind;
    }
    Ok(())
}

fn family(message: &[u8], outer: Outer<'_>, intake: &mut Intake<'_>) -> Result<(), ClientModelError> {
    let (mut name, mut help, mut unit, mut kind) = (Cow::default(), Cow::default(), Cow::default(), 0);
    each_field(message, |field| {
        match field.number {
            1 => name = String::from_utf8_lossy(field.bytes()?),
            2 => help = String::from_utf8_lossy(field.bytes()?),
            3 => kind = uint64(field)?,
            5 => unit = String::from_utf8_lossy(field.bytes()?),
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    let kind = match kind {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => MetricType::Unknown,
    };
    let described = || Described { kind, help: help.into_owned(), unit: unit.into_owned() };
    intake.taken.notes.add(&name, described);
    each_field(message, |field| match field.number {
        4 => {
            Metric { name: &name, outer, intake, labels: Vec::new(), timestamp_ms: None }.read(field.bytes()?)
        }
        _ => Ok(()),
    })
}

struct Metric<'m, 'a> {
    name: &'m str,
    outer: Outer<'m>,
    intake: &'m mut Intake<'a>,
    labels: Vec<(Cow<'m, str>, Cow<'m, str>)>,
    timestamp_ms: Option<i64>,
}

impl<'m> Metric<'m, '_> {
    fn read(mut self, message: &'m [u8]) -> Result<(), ClientModelError> {
        each_field(message, |field| {
            match field.number {
                // One more than allowed is kept, so that the set is refused for its number.
                1 if self.labels.len() <= LABELS_MAX => self.labels.push(label(field.bytes()?)?),
                6 => self.timestamp_ms = Some(field.int64()?),
                _ => {}
            }
            Ok::<_, ProtobufError>(())
        })?;
        each_field(message, |field| match field.number {
            2 | 3 | 5 => {
                let value = self.simple(field.number, field.bytes()?)?;
                Ok(self.sample("", None, value)?)
            }
            4 => self.compound("quantile", field.bytes()?),
            7 => self.compound("le", field.bytes()?),
            _ => Ok(()),
        })
    }

    /// A gauge, a counter or an untyped value.
    fn simple(&mut self, number: u32, message: &[u8]) -> Result<f64, ProtobufError> {
        let mut value = 0.0;
        each_field(message, |field| {
            match field.number {
                1 => value = field.double()?,
                2 if number == 3 => self.intake.taken.exemplars += 1,
                _ => {}
            }
            Ok::<_, ProtobufError>(())
        })?;
        Ok(value)
    }

    /// A summary or a histogram, whose parts differ by `label`.
    fn compound(&mut self, label: &'static str, message: &[u8]) -> Result<(), ClientModelError> {
        let (mut count, mut sum, mut has_infinity) = (0, 0.0, false);
        each_field(message, |field| -> Result<(), ClientModelError> {
            match (label, field.number) {
                (_, 1) => count = uint64(field)?,
                (_, 2) => sum = field.double()?,
                ("quantile", 3) => {
                    let (_, quantile, value) = part(field.bytes()?)?;
                    self.sample("", Some(("quantile", quantile)), value)?;
                }
                (_, 3) => {
                    let (below, _, bound) = part(field.bytes()?)?;
                    has_infinity |= bound == f64::INFINITY;
                    self.sample("_bucket", Some(("le", bound)), below as f64)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        self.sample("_count", None, count as f64)?;
        self.sample("_sum", None, sum)?;
        if label == "le" && !has_infinity {
            self.sample("_bucket", Some(("le", f64::INFINITY)), count as f64)?;
        }
        Ok(())
    }

    fn sample(
        &mut self,
        suffix: &str,
        part: Option<(&'static str, f64)>,
        value: f64,
    ) -> Result<(), IntakeError> {
        let mut labels: Vec<Pair<'_>> = Vec::with_capacity(self.labels.len() + 4);
        labels.push((METRIC_NAME_LABEL.into(), format!("{}{suffix}", self.name).into()));
        labels.extend(self.labels.iter().map(|(name, value)| (Cow::from(&**name), Cow::from(&**value))));
        labels.extend(part.map(|(name, number)| {
            let text = if number == f64::INFINITY { "+Inf".to_owned() } else { number.to_string() };
            (Cow::from(name), Cow::from(text))
        }));
        let labels = self.outer.join(labels);
        self.intake.single(&labels, self.timestamp_ms, value).map(|_| ())
    }
}

fn label(message: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), ProtobufError> {
    let (mut name, mut value) = (Cow::default(), Cow::default());
    each_field(message, |field| {
        match field.number {
            1 => name = String::from_utf8_lossy(field.bytes()?),
            2 => value = String::from_utf8_lossy(field.bytes()?),
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok((name, value))
}

/// The count (first, where it is a number), the first and the second double of a quantile or a bucket.
fn part(message: &[u8]) -> Result<(u64, f64, f64), ProtobufError> {
    let (mut count, mut first, mut second) = (0, 0.0, 0.0);
    each_field(message, |field| {
        match (field.number, uint64(field)) {
            (1, Ok(number)) => count = number,
            (1, Err(_)) => first = field.double()?,
            (2, _) => second = field.double()?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    Ok((count, first, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::Taken;
    use crate::store::Scope;
    use proptest::prelude::*;
    use prost::encoding;

    fn take(body: &[u8]) -> Result<Taken, ClientModelError> {
        let mut share = ByteBudget::new(1 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        read(body, Outer::Wins(&[("job".to_owned(), "j".to_owned())]), &mut intake)?;
        Ok(intake.taken)
    }

    fn message(tag: u32, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::bytes::encode(tag, &parts.concat(), &mut message);
        message
    }

    fn string(tag: u32, value: &str) -> Vec<u8> {
        message(tag, &[value.as_bytes().to_vec()])
    }

    fn double(tag: u32, value: f64) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::double::encode(tag, &value, &mut message);
        message
    }

    fn number(tag: u32, value: u64) -> Vec<u8> {
        let mut message = Vec::new();
        encoding::uint64::encode(tag, &value, &mut message);
        message
    }

    fn family(name: &str, kind: u64, metric: &[Vec<u8>]) -> Vec<u8> {
        let parts = [string(1, name), string(2, "help"), number(3, kind), message(4, metric)].concat();
        let mut body = Vec::new();
        encoding::encode_varint(parts.len() as u64, &mut body);
        body.extend(parts);
        body
    }

    fn whole() -> Vec<u8> {
        let label = message(1, &[string(1, "job"), string(2, "own")]);
        let bucket = |count, bound| message(3, &[number(1, count), double(2, bound)]);
        let quantile = message(3, &[double(1, 0.5), double(2, 7.0)]);
        [
            family("c_total", 0, &[label, message(3, &[double(1, 2.5)]), number(6, 5)]),
            family("h", 4, &[message(7, &[number(1, 3), double(2, 1.5), bucket(1, 0.5), bucket(2, 1.0)])]),
            family("s", 2, &[message(4, &[number(1, 3), double(2, 1.5), quantile])]),
        ]
        .concat()
    }

    #[test]
    fn families_become_their_series() {
        let taken = take(&whole()).expect("read");
        let samples = taken.batch.samples.iter();
        let flat: Vec<_> = samples
            .map(|s| format!("{} {:?} {}", taken.batch.series[s.series], s.timestamp_ms, s.value))
            .collect();
        assert_eq!(
            flat,
            [
                r#"c_total{job="j"} Some(5) 2.5"#,
                r#"h_bucket{job="j",le="0.5"} None 1"#,
                r#"h_bucket{job="j",le="1"} None 2"#,
                r#"h_count{job="j"} None 3"#,
                r#"h_sum{job="j"} None 1.5"#,
                r#"h_bucket{job="j",le="+Inf"} None 3"#,
                r#"s{job="j",quantile="0.5"} None 7"#,
                r#"s_count{job="j"} None 3"#,
                r#"s_sum{job="j"} None 1.5"#,
            ]
        );
        assert!(taken.notes.has("h"));
    }

    proptest! {
        #[test]
        fn no_change_of_one_byte_panics(place in any::<usize>(), byte in any::<u8>()) {
            let mut body = whole();
            let place = place % body.len();
            body[place] = byte;
            let _ = take(&body);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = take(&bytes);
        }
    }
}
