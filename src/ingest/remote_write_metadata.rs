//! What a remote write 1.0 message says of metrics, apart from their samples.
//!
//! ```text
//! WriteRequest    3 repeated MetricMetadata
//! MetricMetadata  1 enum type   2 string metric_family_name   4 string help   5 string unit
//! ```
//!
//! Prometheus sends it now and then in requests of its own. It is a hint: what can't be read is as if
//! nobody had said it.

use super::packed::{each_field, uint64};
use crate::metadata::{Described, MetricType, Notes};
use crate::protobuf::ProtobufError;
use std::str;

/// Reads the metadata of a `WriteRequest`; its samples are stepped over.
///
/// # Errors
/// When the message is malformed.
pub fn decode(message: &[u8]) -> Result<Notes, ProtobufError> {
    let mut notes = Notes::default();
    each_field(message, |field| match field.number {
        3 => decode_one(field.bytes()?, &mut notes),
        _ => Ok(()),
    })?;
    Ok(notes)
}

fn decode_one(message: &[u8], notes: &mut Notes) -> Result<(), ProtobufError> {
    let (mut kind, mut name, mut help, mut unit) = (0, &[][..], &[][..], &[][..]);
    each_field(message, |field| {
        match field.number {
            1 => kind = uint64(field)?,
            2 => name = field.bytes()?,
            4 => help = field.bytes()?,
            5 => unit = field.bytes()?,
            _ => {}
        }
        Ok::<_, ProtobufError>(())
    })?;
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    notes.add(text(name), || Described {
        kind: MetricType::of_number(kind),
        help: text(help).to_owned(),
        unit: text(unit).to_owned(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;
    use crate::store::Scope;
    use proptest::prelude::*;
    use prost::Message;

    #[derive(Clone, PartialEq, prost::Message)]
    struct WriteRequest {
        #[prost(bytes = "vec", repeated, tag = "1")]
        timeseries: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<MetricMetadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct MetricMetadata {
        #[prost(uint32, tag = "1")]
        kind: u32,
        #[prost(string, tag = "2")]
        metric_family_name: String,
        #[prost(string, tag = "4")]
        help: String,
        #[prost(string, tag = "5")]
        unit: String,
    }

    #[test]
    fn metadata_is_read_and_samples_stepped_over() {
        let one = |kind, name: &str| MetricMetadata {
            kind,
            metric_family_name: name.to_owned(),
            help: format!("help of {name}"),
            unit: "s".to_owned(),
        };
        let message = WriteRequest { timeseries: vec![vec![1, 2]], metadata: vec![one(1, "a"), one(5, "b")] };
        let metadata = Metadata::default();
        metadata.note(&Scope::All, decode(&message.encode_to_vec()).expect("read"));
        let said = |kind, help: &str| Described { kind, help: help.to_owned(), unit: "s".to_owned() };
        let a = ("a".to_owned(), said(MetricType::Counter, "help of a"));
        let b = ("b".to_owned(), said(MetricType::Summary, "help of b"));
        assert_eq!(metadata.all(), [a, b]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
