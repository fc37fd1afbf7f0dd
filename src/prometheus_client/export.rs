//! `/api/v1/export` of VictoriaMetrics: a JSON line a series, raw samples.
//!
//! See <https://docs.victoriametrics.com/#how-to-export-data-in-json-line-format>. A value is a number, null for NaN
//! (staleness markers among them), or `"Infinity"` and `"-Infinity"`.

use bytes::BytesMut;
use lookback_storage::{Labels, STALENESS_MARKER_BITS, Sample};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Most samples of a line: what the longest one that is read can hold.
const LINE_SAMPLES_MAX: usize = 16 << 20;

/// One line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    metric: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(deserialize_with = "bounded")]
    values: Vec<Value>,
    #[serde(deserialize_with = "bounded")]
    timestamps: Vec<i64>,
}

/// The elements of an array, [`LINE_SAMPLES_MAX`] at most.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Elements<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(element) = elements.next_element()? {
                if all.len() == LINE_SAMPLES_MAX {
                    return Err(A::Error::custom(format!("a line has more than {LINE_SAMPLES_MAX} samples")));
                }
                all.push(element);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(Elements(PhantomData))
}

/// A number, null, or a text that stands for an infinity.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value(value as f64))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value(f64::from_bits(STALENESS_MARKER_BITS)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
                match text {
                    "Infinity" => Ok(Value(f64::INFINITY)),
                    "-Infinity" => Ok(Value(f64::NEG_INFINITY)),
                    _ => Err(E::custom("a value is no number")),
                }
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Lines out of bytes as they come.
#[derive(Default)]
pub(super) struct Lines {
    bytes: BytesMut,
    /// No line ends before this.
    searched: usize,
}

impl Lines {
    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How much of a line has come that has no end yet, once whole lines are taken.
    pub(super) fn begun_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole line.
    pub(super) fn next(&mut self) -> Option<BytesMut> {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = self.bytes.split_to(self.searched + end + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }

    /// What came behind the last end of a line.
    pub(super) fn rest(self) -> BytesMut {
        self.bytes
    }
}

/// A series and its samples in time order; no labels: a set that Lookback does not keep.
pub(super) fn decode_line(line: &[u8]) -> Result<(Option<Labels>, Vec<Sample>), String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if line.values.len() != line.timestamps.len() {
        return Err("a line has more values than times, or fewer".to_owned());
    }
    let samples = line.values.into_iter().zip(line.timestamps);
    let samples = samples.map(|(Value(value), timestamp_ms)| Sample::new(timestamp_ms, value)).collect();
    Ok((Labels::new(line.metric).ok(), samples))
}

/// The parsers over any bytes, for fuzzing.
pub(super) fn fuzz(bytes: &[u8]) {
    let mut lines = Lines::default();
    lines.push(bytes);
    while let Some(line) = lines.next() {
        let _ = decode_line(&line);
    }
    let _ = decode_line(&lines.rest());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_a_series() {
        let line = br#"{"metric":{"__name__":"m","pod":"a\"b"},"values":[1.5,null,"Infinity","-Infinity"],"timestamps":[1,2,3,4]}"#;
        let (labels, samples) = decode_line(line).expect("read");
        assert_eq!(labels, Labels::new([("__name__", "m"), ("pod", "a\"b")]).ok());
        let stale = f64::from_bits(STALENESS_MARKER_BITS);
        let expected = [(1, 1.5), (2, stale), (3, f64::INFINITY), (4, f64::NEG_INFINITY)];
        assert_eq!(samples, expected.map(|(at, value)| Sample::new(at, value)));
        for wrong in [
            &br#"{"metric":{},"values":[1],"timestamps":[]}"#[..],
            br#"{"metric":{},"values":["x"],"timestamps":[1]}"#,
            b"[]",
            b"",
        ] {
            assert!(decode_line(wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn lines_are_whole_however_they_come(text in "[a-c\n]{0,60}", step in 1..20_usize) {
            let (mut lines, mut got) = (Lines::default(), String::new());
            for bytes in text.as_bytes().chunks(step) {
                lines.push(bytes);
                while let Some(line) = lines.next() {
                    prop_assert!(line.ends_with(b"\n"));
                    got.push_str(std::str::from_utf8(&line).expect("text"));
                }
            }
            got.push_str(std::str::from_utf8(&lines.rest()).expect("text"));
            prop_assert_eq!(got, text);
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
        }
    }
}
