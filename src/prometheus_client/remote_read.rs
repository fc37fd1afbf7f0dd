//! Remote read: raw samples, bit for bit, staleness markers included.
//!
//! The messages are specified in `prompb/remote.proto` of Prometheus, the frames of the streamed answer in
//! <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>: a length (varint), a CRC-32C
//! (big-endian), a `ChunkedReadResponse`. A series may come in several frames, one behind the other.

use super::write::{bytes_field, varint_field};
use super::xor::{self, XorError};
use crate::protobuf::{Fields, ProtobufError};
use bytes::{Buf, Bytes, BytesMut};
use lookback_storage::{Labels, MatchOp, Matcher, Sample};
use thiserror::Error;

/// Largest frame, in bytes. Prometheus makes them of 1 MiB unless it is told otherwise.
const FRAME_BYTES_MAX: u64 = 64 << 20;
/// Chunks of this encoding hold floats.
const XOR: i64 = 1;
/// Chunks of these hold native histograms.
const HISTOGRAMS: std::ops::RangeInclusive<i64> = 2..=3;

/// An answer that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RemoteReadError {
    /// No message.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// No chunk.
    #[error(transparent)]
    Xor(#[from] XorError),
    /// A frame whose checksum is another's.
    #[error("a frame fails its checksum")]
    Checksum,
    /// A frame that is too large.
    #[error("a frame has {0} bytes")]
    FrameTooLarge(u64),
    /// A chunk in an encoding that is not understood.
    #[error("a chunk is encoded in a way (number {0}) that is not understood")]
    Encoding(i64),
}

/// The labels of a series and some of its samples.
pub(super) struct Part {
    /// `None`: a label set that Lookback does not keep.
    pub(super) labels: Option<Labels>,
    pub(super) samples: Vec<Sample>,
    /// How many chunks are native histograms.
    pub(super) histograms: usize,
}

/// A request for the samples of matching series in `[start_ms, end_ms]`, answered preferably by a stream.
pub(super) fn read_request(matchers: &[Matcher], (start_ms, end_ms): (i64, i64)) -> Vec<u8> {
    let mut query = Vec::new();
    varint_field(1, start_ms.cast_unsigned(), &mut query);
    varint_field(2, end_ms.cast_unsigned(), &mut query);
    for matcher in matchers {
        let mut message = Vec::new();
        let op = match matcher.op() {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        varint_field(1, op, &mut message);
        bytes_field(2, matcher.name().as_bytes(), &mut message);
        bytes_field(3, matcher.value().as_bytes(), &mut message);
        bytes_field(3, &message, &mut query);
    }
    let mut request = Vec::new();
    bytes_field(1, &query, &mut request);
    // STREAMED_XOR_CHUNKS, else SAMPLES.
    varint_field(2, 1, &mut request);
    varint_field(2, 0, &mut request);
    request
}

/// Frames out of bytes as they come.
#[derive(Default)]
pub(super) struct Frames {
    bytes: BytesMut,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &Bytes) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing is begun.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole frame, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, RemoteReadError> {
        let (mut length, mut header) = (0_u64, 0);
        loop {
            let Some(byte) = self.bytes.get(header).copied() else { return Ok(None) };
            length |= u64::from(byte & 0x7f) << (7 * header);
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if header > 5 {
                return Err(RemoteReadError::FrameTooLarge(length));
            }
        }
        if length > FRAME_BYTES_MAX {
            return Err(RemoteReadError::FrameTooLarge(length));
        }
        let length = usize::try_from(length).map_err(|_| RemoteReadError::FrameTooLarge(length))?;
        if self.bytes.len() < header + 4 + length {
            return Ok(None);
        }
        self.bytes.advance(header);
        let checksum = self.bytes.get_u32();
        let frame = self.bytes.split_to(length).freeze();
        if crc32c::crc32c(&frame) != checksum {
            return Err(RemoteReadError::Checksum);
        }
        Ok(Some(frame))
    }
}

/// What a frame holds.
pub(super) fn decode_frame(frame: &[u8]) -> Result<Vec<Part>, RemoteReadError> {
    let (mut fields, mut parts) = (Fields::new(frame), Vec::new());
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            parts.push(chunked_series(field.bytes()?)?);
        }
    }
    Ok(parts)
}

fn chunked_series(message: &[u8]) -> Result<Part, RemoteReadError> {
    let mut pairs = Vec::new();
    let (mut samples, mut histograms) = (Vec::new(), 0);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => pairs.push(label(field.bytes()?)?),
            2 => {
                let (mut encoding, mut data) = (0, &[][..]);
                let mut chunk = Fields::new(field.bytes()?);
                while let Some(field) = chunk.next_field()? {
                    match field.number {
                        3 => encoding = field.int64()?,
                        4 => data = field.bytes()?,
                        _ => {}
                    }
                }
                match encoding {
                    XOR => xor::decode(data, |sample| samples.push(sample))?,
                    histogram if HISTOGRAMS.contains(&histogram) => histograms += 1,
                    other => return Err(RemoteReadError::Encoding(other)),
                }
            }
            _ => {}
        }
    }
    Ok(Part { labels: Labels::from_utf8(&mut pairs), samples, histograms })
}

/// What an answer of type SAMPLES holds, decompressed.
pub(super) fn decode_samples(response: &[u8]) -> Result<Vec<Part>, RemoteReadError> {
    let (mut fields, mut parts) = (Fields::new(response), Vec::new());
    while let Some(field) = fields.next_field()? {
        if field.number != 1 {
            continue;
        }
        let mut result = Fields::new(field.bytes()?);
        while let Some(field) = result.next_field()? {
            if field.number == 1 {
                parts.push(time_series(field.bytes()?)?);
            }
        }
    }
    Ok(parts)
}

pub(super) fn time_series(message: &[u8]) -> Result<Part, RemoteReadError> {
    let mut pairs = Vec::new();
    let (mut samples, mut histograms) = (Vec::new(), 0);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => pairs.push(label(field.bytes()?)?),
            2 => {
                let mut sample = Sample::new(0, 0.0);
                let mut parts = Fields::new(field.bytes()?);
                while let Some(part) = parts.next_field()? {
                    match part.number {
                        1 => sample.value = part.double()?,
                        2 => sample.timestamp_ms = part.int64()?,
                        _ => {}
                    }
                }
                samples.push(sample);
            }
            4 => histograms += 1,
            _ => {}
        }
    }
    Ok(Part { labels: Labels::from_utf8(&mut pairs), samples, histograms })
}

fn label(message: &[u8]) -> Result<(&[u8], &[u8]), ProtobufError> {
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

/// The parsers over any bytes, for fuzzing.
pub(super) fn fuzz(bytes: &[u8]) {
    let mut frames = Frames::default();
    frames.push(&Bytes::copy_from_slice(bytes));
    while let Ok(Some(frame)) = frames.next() {
        let _ = decode_frame(&frame);
    }
    let _ = decode_frame(bytes);
    let _ = decode_samples(bytes);
    let _ = xor::decode(bytes, |_| ());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_client::write_request;
    use proptest::prelude::*;

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut length = data.len();
        while length >= 0x80 {
            frame.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        frame.push(length as u8);
        frame.extend(crc32c::crc32c(data).to_be_bytes());
        frame.extend(data);
        frame
    }

    #[test]
    fn frames_are_whole_and_checked_however_they_come() {
        let sent = [frame(b"one"), frame(&[7; 300])].concat();
        for step in [1, 2, 7, 1_000] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for bytes in sent.chunks(step) {
                frames.push(&Bytes::copy_from_slice(bytes));
                while let Some(frame) = frames.next().expect("whole") {
                    got.push(frame);
                }
            }
            assert_eq!(got, [&b"one"[..], &[7; 300]]);
            assert!(frames.is_empty());
        }
        let mut flipped = frame(b"one");
        flipped[6] ^= 1;
        let mut frames = Frames::default();
        frames.push(&Bytes::from(flipped));
        assert_eq!(frames.next(), Err(RemoteReadError::Checksum));
        let mut frames = Frames::default();
        frames.push(&Bytes::from_static(&[0xff; 20]));
        assert!(matches!(frames.next(), Err(RemoteReadError::FrameTooLarge(_))));
    }

    #[test]
    fn an_answer_of_samples_is_read_bit_for_bit() {
        let labels = Labels::new([("__name__", "m"), ("pod", "ü")]).expect("valid");
        let samples = [Sample::new(-5, f64::from_bits(0x7ff0_0000_0000_0002)), Sample::new(7, -0.0)];
        // A TimeSeries is the same in both directions.
        let mut response = Vec::new();
        bytes_field(1, &write_request([(&labels, &samples[..])]), &mut response);
        let parts = decode_samples(&response).expect("read");
        assert_eq!(parts[0].labels.as_ref(), Some(&labels));
        assert_eq!(parts[0].samples, samples);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz(&bytes);
        }
    }
}
