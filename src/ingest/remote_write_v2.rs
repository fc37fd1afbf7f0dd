//! Prometheus remote write 2.0: a snappy block of one protobuf `io.prometheus.write.v2.Request`.
//!
//! The protocol is <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>; the messages are those
//! of its section "Protobuf Message":
//!
//! ```text
//! Request     4 repeated string symbols    5 repeated TimeSeries
//! TimeSeries  1 repeated uint32 labels_refs (name, value, name, value, …)   2 repeated Sample
//!             3 repeated Histogram (refused, counted)   4 repeated Exemplar (ignored, counted)
//!             5 Metadata                   6 int64 created_timestamp (ignored)
//! Sample      1 double value               2 int64 timestamp, Unix milliseconds
//! Metadata    1 enum type                  3 uint32 help_ref          4 uint32 unit_ref
//! ```
//!
//! Values keep every bit, staleness markers included. A bad series does not hold its neighbours back;
//! a message that is no protobuf is refused as a whole.

use super::intake::{Intake, IntakeError};
use super::packed::{each_field, uint64, varints};
use super::remote_write::decode_sample;
use crate::metadata::{Described, MetricType};
use crate::protobuf::ProtobufError;
use crate::text::start_of;
use lookback_storage::METRIC_NAME_LABEL;
use lookback_storage::labels::limits::LABELS_MAX;
use std::str;
use thiserror::Error;

/// Most symbols in one request: an empty one takes two bytes there and 16 here.
pub const SYMBOLS_MAX: usize = 1_000_000;

/// A message that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum V2Error {
    /// Not a `Request`.
    #[error("the body is not a remote write 2.0 request: {0}")]
    Malformed(#[from] ProtobufError),
    /// More symbols than [`SYMBOLS_MAX`].
    #[error("the request has more than {SYMBOLS_MAX} symbols: send fewer series a request")]
    TooManySymbols,
    /// Too much in it.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// Decodes a `Request` into `intake`.
///
/// # Errors
/// When the message is malformed, has too much in it, or the budget is spent.
pub fn decode(message: &[u8], intake: &mut Intake<'_>) -> Result<(), V2Error> {
    let mut symbols: Vec<&[u8]> = Vec::new();
    // A first pass: nothing says that symbols stand before what refers to them.
    each_field(message, |field| {
        if field.number == 4 {
            if symbols.len() == SYMBOLS_MAX {
                return Err(V2Error::TooManySymbols);
            }
            intake.pay(size_of::<&[u8]>())?;
            symbols.push(field.bytes()?);
        }
        Ok(())
    })?;
    let mut series = Series::default();
    each_field(message, |field| match field.number {
        5 => series.decode(field.bytes()?, &symbols, intake),
        _ => Ok(()),
    })
}

/// One `TimeSeries`; the room is used again for the next.
#[derive(Default)]
struct Series {
    refs: Vec<u64>,
    samples: Vec<(i64, f64)>,
}

impl Series {
    fn decode(&mut self, message: &[u8], symbols: &[&[u8]], intake: &mut Intake<'_>) -> Result<(), V2Error> {
        self.refs.clear();
        self.samples.clear();
        let (mut histograms, mut ref_count, mut metadata) = (0, 0_usize, None);
        each_field(message, |field| -> Result<(), V2Error> {
            match field.number {
                1 => varints(field, |number| {
                    ref_count += 1;
                    // One label more than allowed is kept, so that the set is refused for its number.
                    if self.refs.len() < 2 * (LABELS_MAX + 1) {
                        self.refs.push(number);
                    }
                })?,
                2 => {
                    if self.samples.len() > super::intake::SAMPLES_MAX {
                        return Err(IntakeError::TooManySamples.into());
                    }
                    self.samples.push(decode_sample(field.bytes()?)?);
                }
                3 => {
                    field.bytes()?;
                    histograms += 1;
                }
                4 => {
                    field.bytes()?;
                    intake.taken.exemplars += 1;
                }
                5 => metadata = Some(field.bytes()?),
                _ => {}
            }
            Ok(())
        })?;
        let labels = self.labels(ref_count, symbols);
        let name = labels.as_ref().ok().and_then(|pairs| pairs.iter().find(|(n, _)| *n == METRIC_NAME_LABEL));
        let name = name.map(|(_, value)| *value).unwrap_or_default();
        intake.refuse("histogram", histograms, || {
            format!("series {:?}: native histograms are not taken yet", start_of(name))
        });
        let pairs = match labels {
            Ok(pairs) => pairs,
            Err(message) => {
                intake.refuse("bad_labels", self.samples.len(), || message);
                return Ok(());
            }
        };
        if self.samples.is_empty() {
            return Ok(());
        }
        let Some(series) = intake.series(&pairs, self.samples.len())? else { return Ok(()) };
        for (timestamp_ms, value) in &self.samples {
            intake.sample(series, Some(*timestamp_ms), *value)?;
        }
        if let Some(metadata) = metadata
            && !intake.taken.notes.has(name)
        {
            let described = decode_metadata(metadata, symbols)?;
            intake.taken.notes.add(name, || described);
        }
        Ok(())
    }

    /// The labels that the references stand for, or what is wrong with them.
    fn labels<'s>(&self, ref_count: usize, symbols: &[&'s [u8]]) -> Result<Vec<(&'s str, &'s str)>, String> {
        let (pairs, rest) = self.refs.as_chunks::<2>();
        if !rest.is_empty() || !ref_count.is_multiple_of(2) {
            return Err(format!("a series has {ref_count} label references: names and values come in pairs"));
        }
        pairs.iter().map(|[name, value]| Ok((symbol(symbols, *name)?, symbol(symbols, *value)?))).collect()
    }
}

fn symbol<'s>(symbols: &[&'s [u8]], number: u64) -> Result<&'s str, String> {
    let bytes = usize::try_from(number).ok().and_then(|place| symbols.get(place));
    let bytes = bytes.ok_or_else(|| format!("a series refers to symbol {number} of {}", symbols.len()))?;
    str::from_utf8(bytes).map_err(|_| format!("symbol {number}, a label of a series, is not UTF-8"))
}

/// What is not UTF-8 or refers to nothing is as if nobody had said it: it is a hint only.
fn decode_metadata(message: &[u8], symbols: &[&[u8]]) -> Result<Described, ProtobufError> {
    let (mut kind, mut help, mut unit) = (0, 0, 0);
    each_field(message, |field| {
        match field.number {
            1 => kind = uint64(field)?,
            3 => help = uint64(field)?,
            4 => unit = uint64(field)?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    let text = |number| symbol(symbols, number).unwrap_or_default().to_owned();
    Ok(Described { kind: MetricType::of_number(kind), help: text(help), unit: text(unit) })
}

/// The messages as `prost` makes them: an encoder of another hand than the decoder.
#[cfg(test)]
pub(crate) mod messages {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Request {
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(crate) symbols: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub(crate) labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(crate) histograms: Vec<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(crate) exemplars: Vec<Vec<u8>>,
        #[prost(message, optional, tag = "5")]
        pub(crate) metadata: Option<Metadata>,
        #[prost(int64, tag = "6")]
        pub(crate) created_timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(crate) struct Metadata {
        #[prost(uint32, tag = "1")]
        pub(crate) kind: u32,
        #[prost(uint32, tag = "3")]
        pub(crate) help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub(crate) unit_ref: u32,
    }

    /// A request being put together: its symbols are interned.
    #[derive(Default)]
    pub(crate) struct Builder {
        pub(crate) request: Request,
        places: HashMap<Vec<u8>, u32>,
    }

    impl Builder {
        pub(crate) fn symbol(&mut self, text: impl AsRef<[u8]>) -> u32 {
            if self.request.symbols.is_empty() {
                self.request.symbols.push(Vec::new());
                self.places.insert(Vec::new(), 0);
            }
            let text = text.as_ref();
            if let Some(place) = self.places.get(text) {
                return *place;
            }
            let place = u32::try_from(self.request.symbols.len()).expect("few");
            self.places.insert(text.to_vec(), place);
            self.request.symbols.push(text.to_vec());
            place
        }

        pub(crate) fn series(&mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> &mut TimeSeries {
            let labels_refs = labels.iter().flat_map(|(n, v)| [self.symbol(n), self.symbol(v)]).collect();
            let samples = samples.iter().map(|(t, v)| Sample { value: *v, timestamp: *t }).collect();
            self.request.timeseries.push(TimeSeries { labels_refs, samples, ..TimeSeries::default() });
            self.request.timeseries.last_mut().expect("just pushed")
        }

        pub(crate) fn encode(&self) -> Vec<u8> {
            prost::Message::encode_to_vec(&self.request)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::messages::{Builder, Metadata};
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::Taken;
    use crate::store::Scope;
    use proptest::prelude::*;

    fn take(message: &[u8]) -> Result<Taken, V2Error> {
        let mut share = ByteBudget::new(64 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        decode(message, &mut intake)?;
        Ok(intake.taken)
    }

    fn flat(taken: &Taken) -> Vec<(String, i64, u64)> {
        let samples = taken.batch.samples.iter();
        let told = samples.map(|s| {
            let labels = taken.batch.series[s.series].to_string();
            (labels, s.timestamp_ms.expect("has a time"), s.value.to_bits())
        });
        told.collect()
    }

    #[test]
    fn good_series_are_taken_and_their_bad_neighbours_named() {
        let mut request = Builder::default();
        let (help, unit) = (request.symbol("what it is"), request.symbol("seconds"));
        let up = request.series(&[("__name__", "up"), ("job", "j")], &[(1, 1.0), (2, f64::NAN)]);
        up.metadata = Some(Metadata { kind: 2, help_ref: help, unit_ref: unit });
        up.created_timestamp = 7;
        up.exemplars = vec![vec![], vec![9]];
        request.series(&[("job", "no name")], &[(1, 1.0)]);
        request.series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(1, 1.0)]);
        request.series(&[("__name__", "odd")], &[(1, 1.0)]).labels_refs.push(0);
        request.series(&[("__name__", "nowhere")], &[(1, 1.0), (2, 1.0)]).labels_refs.extend([1, 9_999]);
        request.series(&[("__name__", "h")], &[]).histograms = vec![vec![], vec![]];
        request.series(&[("__name__", "empty"), ("", "x")], &[(1, 1.0)]);
        request.series(&[("__name__", "last")], &[(-3, 3.0)]);
        let taken = take(&request.encode()).expect("decoded");
        assert_eq!(
            flat(&taken),
            [
                (r#"up{job="j"}"#.to_owned(), 1, 1_f64.to_bits()),
                (r#"up{job="j"}"#.to_owned(), 2, f64::NAN.to_bits()),
                ("last{}".to_owned(), -3, 3_f64.to_bits()),
            ]
        );
        let by_reason: Vec<_> = taken.refusals.by_reason().collect();
        assert_eq!(by_reason, [("bad_labels", 6), ("histogram", 2)]);
        let text = taken.refusals.to_string();
        for part in ["no name", "\"a\" is given more than once", "come in pairs", "symbol 9999", "\"h\""] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(taken.exemplars, 2);
        let metadata = crate::metadata::Metadata::default();
        metadata.note(&Scope::All, taken.notes);
        let said = Described { kind: MetricType::Gauge, help: "what it is".into(), unit: "seconds".into() };
        assert_eq!(metadata.all(), [("up".to_owned(), said)]);
    }

    #[test]
    fn many_series_of_few_long_symbols_are_stopped_by_the_budget() {
        let mut request = Builder::default();
        let long = "x".repeat(4_000);
        for _ in 0..20_000 {
            request.series(&[("__name__", "m"), ("a", &long)], &[(1, 1.0)]);
        }
        let message = request.encode();
        assert!(message.len() < 1 << 20);
        assert!(matches!(take(&message), Err(V2Error::Intake(IntakeError::Budget(_)))));
        let symbols = [0x22, 0x00].repeat(SYMBOLS_MAX + 1);
        assert_eq!(take(&symbols).expect_err("refused"), V2Error::TooManySymbols);
    }

    proptest! {
        #[test]
        fn what_prost_encodes_is_decoded_bit_for_bit(
            all in proptest::collection::vec(
                ("[a-z]{1,8}", proptest::collection::vec((any::<i64>(), any::<u64>()), 0..5)), 0..6)
        ) {
            let mut request = Builder::default();
            let mut expected = Vec::new();
            for (name, samples) in &all {
                let values: Vec<_> = samples.iter().map(|(t, bits)| (*t, f64::from_bits(*bits))).collect();
                request.series(&[("__name__", name)], &values);
                expected.extend(samples.iter().map(|(t, bits)| (format!("{name}{{}}"), *t, *bits)));
            }
            // prost leaves out what equals zero, -0 too.
            let zeros = |bits: u64| if f64::from_bits(bits) == 0.0 { 0 } else { bits };
            let expected: Vec<_> = expected.into_iter().map(|(n, t, bits)| (n, t, zeros(bits))).collect();
            let taken = take(&request.encode()).expect("decoded");
            let taken: Vec<_> = flat(&taken).into_iter().map(|(n, t, bits)| (n, t, zeros(bits))).collect();
            prop_assert_eq!(taken, expected);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes);
        }

        #[test]
        fn no_change_of_one_byte_panics(place in 0_usize..200, byte in any::<u8>()) {
            let mut request = Builder::default();
            let symbol = request.symbol("s");
            let up = request.series(&[("__name__", "up"), ("job", "j")], &[(1, 1.0), (2, 3.0)]);
            up.metadata = Some(Metadata { kind: 2, help_ref: symbol, unit_ref: symbol });
            let mut message = request.encode();
            let place = place % message.len();
            message[place] = byte;
            let _ = take(&message);
        }
    }
}
