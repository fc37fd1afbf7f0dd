//! Prometheus remote write 1.0: a snappy block of one protobuf `WriteRequest`.
//!
//! The protocol is <https://prometheus.io/docs/specs/prw/remote_write_spec/>; the messages are
//! `WriteRequest`, `TimeSeries`, `Label` and `Sample` of its section "Protobuf message":
//!
//! ```text
//! WriteRequest  1 repeated TimeSeries    3 repeated MetricMetadata (ignored)
//! TimeSeries    1 repeated Label         2 repeated Sample
//!               3 repeated Exemplar (ignored, counted)   4 repeated Histogram (refused, counted)
//! Label         1 string name            2 string value
//! Sample        1 double value           2 int64 timestamp, Unix milliseconds
//! ```
//!
//! Values keep every bit, staleness markers included. A bad series does not hold its neighbours back;
//! a message that is no protobuf is refused as a whole.

use super::refusals::Refusals;
use crate::protobuf::{Fields, ProtobufError};
use crate::store::Scope;
use crate::text::start_of;
use lookback_storage::labels::limits::LABELS_MAX;
use lookback_storage::{Labels, NewSample, WriteBatch};
use std::str;
use thiserror::Error;

/// Most samples in one request. Past that it is refused as a whole: senders make smaller ones
/// (Prometheus: 2,000 by default), and empty samples would take 20 times their bytes in memory.
pub const SAMPLES_MAX: usize = 1_000_000;

/// Snappy can't shrink a block more than this: its densest element makes 64 bytes of 3.
const SNAPPY_RATIO_MAX: usize = 22;

/// A request that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RemoteWriteError {
    /// Not in snappy's block format.
    #[error("the body is not in snappy's block format: {0}")]
    NotSnappy(String),
    /// Too large when decompressed.
    #[error("the body has {bytes} bytes when decompressed, more than {max}: send fewer samples a request")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// More samples than [`SAMPLES_MAX`].
    #[error("the request has more than {SAMPLES_MAX} samples: send fewer a request")]
    TooManySamples,
    /// Not a `WriteRequest`.
    #[error("the body is not a remote write 1.0 request: {0}")]
    Malformed(#[from] ProtobufError),
}

/// What a request holds.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The samples of the good series.
    pub batch: WriteBatch,
    /// What was left out.
    pub refusals: Refusals,
    /// Exemplars, which are not kept.
    pub exemplars: usize,
}

/// Decompresses a body. Its size is checked before any memory is taken.
///
/// # Errors
/// When it is not snappy, or larger than `decoded_bytes_max`.
pub fn decompress(body: &[u8], decoded_bytes_max: usize) -> Result<Vec<u8>, RemoteWriteError> {
    let not_snappy = |error: snap::Error| RemoteWriteError::NotSnappy(error.to_string());
    let bytes = snap::raw::decompress_len(body).map_err(not_snappy)?;
    if bytes > decoded_bytes_max {
        return Err(RemoteWriteError::TooLarge { bytes, max: decoded_bytes_max });
    }
    if bytes / SNAPPY_RATIO_MAX > body.len() {
        return Err(RemoteWriteError::NotSnappy(format!(
            "it claims {bytes} bytes in a block of {}",
            body.len()
        )));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(not_snappy)
}

/// Decodes a `WriteRequest`, leaving out series that are bad or outside of `scope`.
///
/// # Errors
/// When the message is malformed or has too many samples.
pub fn decode(message: &[u8], scope: &Scope) -> Result<Decoded, RemoteWriteError> {
    let mut decoded = Decoded::default();
    let mut pairs = Vec::new();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            decode_series(field.bytes()?, scope, &mut pairs, &mut decoded)?;
        }
    }
    Ok(decoded)
}

/// A label as it was sent; whether it is UTF-8 is asked once its series is complete.
type RawLabel<'a> = (&'a [u8], &'a [u8]);

fn decode_series<'a>(
    message: &'a [u8],
    scope: &Scope,
    pairs: &mut Vec<RawLabel<'a>>,
    decoded: &mut Decoded,
) -> Result<(), RemoteWriteError> {
    let batch = &mut decoded.batch;
    let (series, samples_before) = (batch.series.len(), batch.samples.len());
    let (mut label_count, mut histograms) = (0_usize, 0_usize);
    pairs.clear();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => {
                label_count += 1;
                let pair = decode_label(field.bytes()?)?;
                // One more than allowed is kept, so that the set is refused for its number.
                if pairs.len() <= LABELS_MAX {
                    pairs.push(pair);
                }
            }
            2 => {
                if batch.samples.len() == SAMPLES_MAX {
                    return Err(RemoteWriteError::TooManySamples);
                }
                let (timestamp_ms, value) = decode_sample(field.bytes()?)?;
                batch.samples.push(NewSample { series, timestamp_ms: Some(timestamp_ms), value });
            }
            3 => decoded.exemplars += 1,
            4 => histograms += 1,
            _ => {}
        }
    }
    let samples = batch.samples.len() - samples_before;
    if histograms > 0 {
        decoded.refusals.add("histogram", histograms, || {
            format!("{}: native histograms are not taken yet", describe(pairs))
        });
    }
    if samples == 0 {
        return Ok(());
    }
    match accept(pairs, label_count, scope) {
        Ok(labels) => batch.series.push(labels),
        Err((reason, message)) => {
            batch.samples.truncate(samples_before);
            decoded.refusals.add(reason, samples, || format!("{}: {message}", describe(pairs)));
        }
    }
    Ok(())
}

fn accept(
    pairs: &mut Vec<RawLabel<'_>>,
    label_count: usize,
    scope: &Scope,
) -> Result<Labels, (&'static str, String)> {
    let bad = |message: String| ("bad_labels", message);
    if label_count > LABELS_MAX {
        return Err(bad(format!(
            "{label_count} labels are more than the {LABELS_MAX} that one series may carry"
        )));
    }
    let labels = match Labels::from_utf8(pairs) {
        Some(labels) => labels,
        None => checked_labels(pairs).map_err(bad)?,
    };
    if scope.allows_series(&labels) {
        return Ok(labels);
    }
    let namespace = labels.get("namespace").unwrap_or_default();
    Err(("out_of_scope", format!("namespace {namespace:?} is outside of what these credentials may use")))
}

/// Labels piece by piece, so that what is wrong with them can be said.
fn checked_labels(pairs: &[RawLabel<'_>]) -> Result<Labels, String> {
    let mut text = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match (str::from_utf8(name), str::from_utf8(value)) {
            (Ok(name), Ok(value)) => text.push((name, value)),
            (Err(_), _) => return Err("a label name is not UTF-8".to_owned()),
            (Ok(name), Err(_)) => return Err(format!("the value of label {name:?} is not UTF-8")),
        }
    }
    Labels::new(text).map_err(|error| error.to_string())
}

/// A series by its metric name, for messages.
fn describe(pairs: &[RawLabel<'_>]) -> String {
    match pairs.iter().find(|(name, _)| *name == b"__name__") {
        Some((_, value)) => {
            format!("series {:?}", start_of(&String::from_utf8_lossy(value)))
        }
        None => "a series without a name".to_owned(),
    }
}

fn decode_label(message: &[u8]) -> Result<RawLabel<'_>, ProtobufError> {
    if let Some(label) = plain_label(message) {
        return Ok(label);
    }
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// A `Label` as nearly all are sent: a short name, and then a short value.
fn plain_label(message: &[u8]) -> Option<RawLabel<'_>> {
    let [0x0a, name_bytes @ ..0x80, rest @ ..] = message else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*name_bytes))?;
    let [0x12, value_bytes @ ..0x80, value @ ..] = rest else { return None };
    (value.len() == usize::from(*value_bytes)).then_some((name, value))
}

/// A `Sample` as nearly all are sent: the value, and then a time that is not negative.
fn plain_sample(message: &[u8]) -> Option<(i64, f64)> {
    let (value, time) = message.strip_prefix(&[0x09])?.split_first_chunk()?;
    let time = time.strip_prefix(&[0x10]).filter(|time| time.len() <= 9)?;
    let (last, more) = time.split_last()?;
    if last & 0x80 != 0 || more.iter().any(|byte| byte & 0x80 == 0) {
        return None;
    }
    let time = time.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    Some((time.cast_signed(), f64::from_le_bytes(*value)))
}

/// A `Sample`, which is the same in 2.0.
pub(super) fn decode_sample(message: &[u8]) -> Result<(i64, f64), ProtobufError> {
    if let Some(sample) = plain_sample(message) {
        return Ok(sample);
    }
    let (mut timestamp_ms, mut value) = (0, 0.0);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => value = field.double()?,
            2 => timestamp_ms = field.int64()?,
            _ => {}
        }
    }
    Ok((timestamp_ms, value))
}

/// The messages as `prost` makes them: an encoder of another hand than the decoder.
#[cfg(test)]
pub(crate) mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) timeseries: Vec<TimeSeries>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(crate) metadata: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(crate) exemplars: Vec<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(crate) histograms: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
    }

    pub(crate) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
        TimeSeries {
            labels: labels.iter().map(|(n, v)| Label { name: (*n).into(), value: (*v).into() }).collect(),
            samples: samples.iter().map(|(t, v)| Sample { value: *v, timestamp: *t }).collect(),
            ..TimeSeries::default()
        }
    }

    pub(crate) fn encode(timeseries: Vec<TimeSeries>) -> Vec<u8> {
        prost::Message::encode_to_vec(&WriteRequest { timeseries, metadata: vec![vec![1, 2]] })
    }

    pub(crate) fn compress(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).expect("compressed")
    }
}

#[cfg(test)]
mod tests {
    use super::messages::{compress, encode, series};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn flat(batch: &WriteBatch) -> Vec<(String, i64, u64)> {
        batch
            .samples
            .iter()
            .map(|s| {
                let labels = batch.series[s.series].to_string();
                (labels, s.timestamp_ms.expect("has a time"), s.value.to_bits())
            })
            .collect()
    }

    #[test]
    fn good_series_are_taken_and_their_bad_neighbours_named() {
        let many: Vec<(String, String)> = (0..10_000).map(|i| (format!("l{i}"), "v".into())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut not_utf8 = series(&[("__name__", "binary"), ("a", "x")], &[(1, 1.0)]);
        not_utf8.labels[1].value = vec![0xff];
        let mut histogram = series(&[("__name__", "h")], &[(3, 3.0)]);
        histogram.histograms = vec![vec![], vec![]];
        histogram.exemplars = vec![vec![9]];
        let message = encode(vec![
            series(&[("__name__", "up"), ("job", "j b\"ü")], &[(1, 1.0), (2, f64::NAN)]),
            series(&[("job", "j")], &[(1, 1.0), (2, 2.0)]),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(1, 1.0)]),
            series(&many, &[(1, 1.0)]),
            not_utf8,
            series(&[("__name__", "empty")], &[]),
            histogram,
        ]);
        let decoded = decode(&message, &Scope::All).expect("decoded");
        assert_eq!(
            flat(&decoded.batch),
            [
                (r#"up{job="j b\"ü"}"#.to_owned(), 1, 1_f64.to_bits()),
                (r#"up{job="j b\"ü"}"#.to_owned(), 2, f64::NAN.to_bits()),
                ("h{}".to_owned(), 3, 3_f64.to_bits()),
            ]
        );
        let by_reason: Vec<_> = decoded.refusals.by_reason().collect();
        assert_eq!(by_reason, [("bad_labels", 5), ("histogram", 2)]);
        assert_eq!(decoded.exemplars, 1);
        let text = decoded.refusals.to_string();
        for part in ["no name", "\"a\" is given more than once", "10000 labels", "\"binary\"", "not UTF-8"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn series_outside_of_the_scope_are_left_out() {
        let scope = Scope::Namespaces(Arc::new(["mine".to_owned()].into()));
        let message = encode(vec![
            series(&[("__name__", "m"), ("namespace", "mine")], &[(1, 1.0)]),
            series(&[("__name__", "m"), ("namespace", "yours")], &[(1, 1.0)]),
            series(&[("__name__", "m")], &[(1, 1.0)]),
        ]);
        let decoded = decode(&message, &scope).expect("decoded");
        assert_eq!(decoded.batch.samples.len(), 1);
        assert_eq!(decoded.refusals.by_reason().collect::<Vec<_>>(), [("out_of_scope", 2)]);
    }

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        let body = compress(&[0; 10_000]);
        assert_eq!(decompress(&body, 10_000), Ok(vec![0; 10_000]));
        assert_eq!(decompress(&body, 9_999), Err(RemoteWriteError::TooLarge { bytes: 10_000, max: 9_999 }));
        let claims_2_gib = [0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(matches!(decompress(&claims_2_gib, usize::MAX), Err(RemoteWriteError::NotSnappy(_))));
        assert!(matches!(decompress(b"{\"json\":1}", 1 << 30), Err(RemoteWriteError::NotSnappy(_))));
        assert!(matches!(decompress(&[], 1 << 30), Err(RemoteWriteError::NotSnappy(_))));
        // A million samples of no bytes, in one series.
        let mut one = Vec::new();
        for _ in 0..=SAMPLES_MAX {
            one.extend([0x12, 0x00]);
        }
        let mut message = Vec::new();
        prost::encoding::bytes::encode(1, &one, &mut message);
        assert_eq!(decode(&message, &Scope::All).expect_err("refused"), RemoteWriteError::TooManySamples);
    }

    proptest! {
        #[test]
        fn what_prost_encodes_is_decoded_bit_for_bit(
            all in proptest::collection::vec(
                (".{1,8}", proptest::collection::vec((prop_oneof![any::<i64>(), -2..1i64 << 42], any::<u64>()), 0..5)), 0..6)
        ) {
            let mut sent = Vec::new();
            let mut expected = Vec::new();
            for (name, samples) in &all {
                let samples: Vec<(i64, f64)> =
                    samples.iter().map(|(t, bits)| (*t, f64::from_bits(*bits))).collect();
                sent.push(series(&[("__name__", name), ("l", "v")], &samples));
                let labels = Labels::new([("__name__", name.as_str()), ("l", "v")]).expect("valid");
                expected.extend(samples.iter().map(|(t, v)| (labels.to_string(), *t, v.to_bits())));
            }
            let body = compress(&encode(sent));
            let message = decompress(&body, 1 << 20).expect("decompressed");
            let decoded = decode(&message, &Scope::All).expect("decoded");
            prop_assert_eq!(flat(&decoded.batch), expected);
            prop_assert!(decoded.refusals.is_empty());
        }

        #[test]
        fn cut_or_flipped_messages_never_panic(cut in 0_usize..60, at in 0_usize..60, flip in any::<u8>()) {
            let mut message = encode(vec![series(&[("__name__", "up"), ("job", "j")], &[(1_795_338_120_000, 1.0)])]);
            if let Some(byte) = message.get_mut(at) {
                *byte ^= flip;
            }
            message.truncate(cut);
            let _ = decode(&message, &Scope::All);
            let _ = decompress(&message, 1 << 20);
        }
    }
}
