//! The JSON of answers.

use lookback_storage::Sample;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Labels of a result; it need not have a name.
pub type LabelMap = BTreeMap<String, String>;

/// An answer, and what the server has to say of it: a part that is missing, for example.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// What was asked for.
    pub data: T,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Whether the cluster of VictoriaMetrics says that nodes are away, so that a part may be missing. There is a
    /// warning of it, too.
    pub is_partial: bool,
}

/// What a query gives.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Typed")]
pub enum Value {
    /// A sample of each series.
    Vector(Vec<VectorSample>),
    /// Samples of each series.
    Matrix(Vec<MatrixSeries>),
    /// A number.
    Scalar(Sample),
    /// A text at a time.
    String(TextAt),
}

/// The same as it stands in the answer.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Typed {
    Vector(Vec<VectorSample>),
    Matrix(Vec<MatrixSeries>),
    Scalar(Pair),
    String(TextAt),
}

impl From<Typed> for Value {
    fn from(typed: Typed) -> Self {
        match typed {
            Typed::Vector(vector) => Self::Vector(vector),
            Typed::Matrix(matrix) => Self::Matrix(matrix),
            Typed::Scalar(Pair(sample)) => Self::Scalar(sample),
            Typed::String(text) => Self::String(text),
        }
    }
}

impl Value {
    /// Its name in the API.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
            Self::Scalar(_) => "scalar",
            Self::String(_) => "string",
        }
    }
}

/// A text at a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TextAt(f64, String);

impl TextAt {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.1
    }
}

/// A series and one sample of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct VectorSample {
    /// The labels.
    pub metric: LabelMap,
    /// The sample; `None`: it is a native histogram.
    #[serde(default, deserialize_with = "optional_sample")]
    pub value: Option<Sample>,
}

/// A series and samples of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MatrixSeries {
    /// The labels.
    pub metric: LabelMap,
    /// The samples, in time order; those that are native histograms are left out.
    #[serde(default, deserialize_with = "samples")]
    pub values: Vec<Sample>,
}

/// What is around every answer.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) status: String,
    pub(super) data: Option<T>,
    #[serde(rename = "errorType")]
    pub(super) error_type: Option<String>,
    pub(super) error: Option<String>,
    pub(super) warnings: Option<Vec<String>>,
    #[serde(rename = "isPartial")]
    pub(super) is_partial: Option<bool>,
}

/// `[seconds, "value"]`.
struct Pair(Sample);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[seconds, \"value\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Pair, A::Error> {
                let seconds: f64 =
                    parts.next_element()?.ok_or_else(|| A::Error::custom("a sample without a time"))?;
                let value: Text<'de> =
                    parts.next_element()?.ok_or_else(|| A::Error::custom("a sample without a value"))?;
                let value = value.0.parse().map_err(|_| A::Error::custom("a value that is no number"))?;
                let ms = (seconds * 1_000.0).round();
                // Exact so far: what is further away is no time.
                if ms.abs() > 9_007_199_254_740_992.0 {
                    return Err(A::Error::custom("a time that is none"));
                }
                #[expect(clippy::cast_possible_truncation, reason = "checked above, and whole")]
                Ok(Pair(Sample::new(ms as i64, value)))
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// A text, borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn optional_sample<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sample>, D::Error> {
    Ok(Option::<Pair>::deserialize(deserializer)?.map(|pair| pair.0))
}

fn samples<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Sample>, D::Error> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Vec<Sample>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("samples")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Vec<Sample>, A::Error> {
            let mut samples = Vec::new();
            while let Some(Pair(sample)) = parts.next_element()? {
                samples.push(sample);
            }
            Ok(samples)
        }
    }
    deserializer.deserialize_seq(All)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<Envelope<Value>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn each_type_of_result_is_read() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a \"b\" \u00e9"},"value":[1435781451.781,"+Inf"]},
            {"metric":{},"histogram":[1435781451.781,{"count":"1"}]}]},"warnings":["a part is missing"]}"#;
        let envelope = value(vector).expect("read");
        assert_eq!(envelope.warnings, Some(vec!["a part is missing".to_owned()]));
        let Some(Value::Vector(vector)) = envelope.data else { panic!("a vector") };
        assert_eq!(vector[0].value, Some(Sample::new(1_435_781_451_781, f64::INFINITY)));
        assert_eq!(vector[0].metric["job"], "a \"b\" é");
        assert_eq!(vector[1].value, None);

        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1,"NaN"],[1.5,"-1e-7"]]}]}}"#;
        let Some(Value::Matrix(matrix)) = value(matrix).expect("read").data else { panic!("a matrix") };
        assert!(matrix[0].values[0].value.is_nan());
        assert_eq!(matrix[0].values[1], Sample::new(1_500, -1e-7));

        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[7.001,"2"]}}"#;
        assert_eq!(value(scalar).expect("read").data, Some(Value::Scalar(Sample::new(7_001, 2.0))));
        let text = r#"{"status":"success","data":{"resultType":"string","result":[7,"said"]}}"#;
        let Some(Value::String(text)) = value(text).expect("read").data else { panic!("a text") };
        assert_eq!(text.text(), "said");
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for sample in ["[1]", "[]", r#"[1,"x"]"#, r#"["1","2"]"#, r#"[1e300,"2"]"#, "{}", r#"[1,"2",3]"#] {
            let text = format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":{sample}}}]}}}}"#
            );
            assert!(value(&text).is_err(), "{sample}");
        }
    }

    proptest! {
        #[test]
        fn samples_come_back_bit_for_bit(ms in 0..4_102_444_800_000_i64, bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            let text = format!(
                r#"{{"status":"success","data":{{"resultType":"scalar","result":[{},"{number:?}"]}}}}"#,
                super::super::seconds(ms)
            );
            prop_assert_eq!(value(&text).expect("read").data, Some(Value::Scalar(Sample::new(ms, number))));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Envelope<Value>>(&bytes);
        }
    }
}
