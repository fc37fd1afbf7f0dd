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
use std::ops::ControlFlow;
use thiserror::Error;

/// Largest frame, in bytes. Prometheus makes them of 1 MiB unless it is told otherwise.
const FRAME_BYTES_MAX: u64 = 64 << 20;
/// About how many samples are handed out at once, at most: what is more of a series are several parts.
pub(super) const PART_SAMPLES: usize = 1 << 20;
/// Most bytes that the series of an answer of type SAMPLES may take.
const SERIES_BYTES_MAX: usize = 256 << 20;
/// What a series takes beside its labels' text, about, in bytes.
const SERIES_BYTES: usize = 64;
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
    /// More series than may be held.
    #[error("it has too many series: ask for fewer")]
    TooManySeries,
}

/// The labels of a series and some of its samples.
pub(super) struct Part {
    /// `None`: a label set that Lookback does not keep.
    pub(super) labels: Option<Labels>,
    pub(super) samples: Vec<Sample>,
    /// How many chunks are native histograms.
    pub(super) histograms: usize,
}

impl Part {
    fn of(labels: Option<Labels>) -> Self {
        Self { labels, samples: Vec::new(), histograms: 0 }
    }

    /// Leaves an empty part of the same series in its place.
    fn begin_another(&mut self) -> Self {
        let another = Self::of(self.labels.clone());
        std::mem::replace(self, another)
    }
}

/// How the samples of a remote read may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// As one message of samples, in which a zero has no sign. What costs a stream is a frame a series, each sent by
    /// itself.
    Samples,
    /// Preferably as a stream of chunks, whole ones at both ends of the time.
    Chunks,
}

/// A request for the samples of matching series in `[start_ms, end_ms]`.
pub(super) fn read_request(
    matchers: &[Matcher],
    (start_ms, end_ms): (i64, i64),
    answered: Answered,
) -> Vec<u8> {
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
    if answered == Answered::Chunks {
        varint_field(2, 1, &mut request);
    }
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

/// What is handed out goes on or breaks off.
type Flow = Result<ControlFlow<()>, RemoteReadError>;

/// Hands out what a frame holds.
pub(super) fn each_in_frame(frame: &[u8], visit: &mut impl FnMut(Part) -> ControlFlow<()>) -> Flow {
    let mut fields = Fields::new(frame);
    while let Some(field) = fields.next_field()? {
        if field.number == 1 && chunked_series(field.bytes()?, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn chunked_series(message: &[u8], visit: &mut impl FnMut(Part) -> ControlFlow<()>) -> Flow {
    let mut part = Part::of(labels(message)?);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        if field.number != 2 {
            continue;
        }
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
            XOR => xor::decode(data, |sample| part.samples.push(sample))?,
            histogram if HISTOGRAMS.contains(&histogram) => part.histograms += 1,
            other => return Err(RemoteReadError::Encoding(other)),
        }
        if part.samples.len() >= PART_SAMPLES && visit(part.begin_another()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(visit(part))
}

/// Hands out what an answer of type SAMPLES holds, decompressed, in the order of labels: servers that do not
/// stream (Cortex) have none.
pub(super) fn each_in_samples(response: &[u8], visit: &mut impl FnMut(Part) -> ControlFlow<()>) -> Flow {
    let (mut fields, mut all, mut held_bytes) = (Fields::new(response), Vec::new(), 0);
    while let Some(field) = fields.next_field()? {
        if field.number != 1 {
            continue;
        }
        let mut result = Fields::new(field.bytes()?);
        while let Some(field) = result.next_field()? {
            if field.number != 1 {
                continue;
            }
            let message = field.bytes()?;
            match labels(message)? {
                Some(labels) => {
                    held_bytes += labels.text_bytes() + SERIES_BYTES;
                    if held_bytes > SERIES_BYTES_MAX {
                        return Err(RemoteReadError::TooManySeries);
                    }
                    all.push((labels, message));
                }
                None if visit(Part::of(None)).is_break() => return Ok(ControlFlow::Break(())),
                None => {}
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (labels, message) in all {
        if samples_of(message, Part::of(Some(labels)), visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Hands out what a `TimeSeries` holds.
pub(super) fn time_series(message: &[u8], visit: &mut impl FnMut(Part) -> ControlFlow<()>) -> Flow {
    samples_of(message, Part::of(labels(message)?), visit)
}

fn samples_of(message: &[u8], mut part: Part, visit: &mut impl FnMut(Part) -> ControlFlow<()>) -> Flow {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
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
                part.samples.push(sample);
            }
            4 => part.histograms += 1,
            _ => {}
        }
        if part.samples.len() >= PART_SAMPLES && visit(part.begin_another()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(visit(part))
}

/// The labels of a message that has them as its field 1; `None`: a set that Lookback does not keep.
fn labels(message: &[u8]) -> Result<Option<Labels>, ProtobufError> {
    let (mut fields, mut pairs) = (Fields::new(message), Vec::new());
    while let Some(field) = fields.next_field()? {
        if field.number == 1 {
            pairs.push(label(field.bytes()?)?);
        }
    }
    Ok(Labels::from_utf8(&mut pairs))
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
        let _ = each_in_frame(&frame, &mut |_| ControlFlow::Continue(()));
    }
    let _ = each_in_frame(bytes, &mut |_| ControlFlow::Continue(()));
    let _ = each_in_samples(bytes, &mut |_| ControlFlow::Continue(()));
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
    fn an_answer_of_samples_is_read_bit_for_bit_in_the_order_of_labels() {
        let labels = |pod| Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
        let samples = [Sample::new(-5, f64::from_bits(0x7ff0_0000_0000_0002)), Sample::new(7, -0.0)];
        // A TimeSeries is the same in both directions.
        let (last, first, mut response) = (labels("ü"), labels("a"), Vec::new());
        bytes_field(1, &write_request([(&last, &samples[..]), (&first, &samples[..1])]), &mut response);
        let mut read = Vec::new();
        let flow = each_in_samples(&response, &mut |part| {
            read.push((part.labels, part.samples));
            ControlFlow::Continue(())
        });
        assert_eq!(flow, Ok(ControlFlow::Continue(())));
        assert_eq!(read, [(Some(first), samples[..1].to_vec()), (Some(last), samples.to_vec())]);
    }

    #[test]
    fn chunks_that_unfold_to_very_much_come_in_parts() {
        // Nothing but "the same again": a bit for the time, a bit for the value.
        let mut chunk = u16::MAX.to_be_bytes().to_vec();
        chunk.extend([0; 1 + 8 + 1]);
        chunk.resize(chunk.len() + 2 * usize::from(u16::MAX) / 8 + 1, 0);
        let (mut message, mut pair, mut of_chunk) = (Vec::new(), Vec::new(), Vec::new());
        bytes_field(1, b"__name__", &mut pair);
        bytes_field(2, b"m", &mut pair);
        bytes_field(1, &pair, &mut message);
        varint_field(3, XOR.cast_unsigned(), &mut of_chunk);
        bytes_field(4, &chunk, &mut of_chunk);
        (0..40).for_each(|_| bytes_field(2, &of_chunk, &mut message));
        let mut frame = Vec::new();
        bytes_field(1, &message, &mut frame);
        let mut sizes = Vec::new();
        let mut visit = |part: Part| {
            assert!(part.labels.is_some());
            sizes.push(part.samples.len());
            ControlFlow::Continue(())
        };
        assert_eq!(each_in_frame(&frame, &mut visit), Ok(ControlFlow::Continue(())));
        assert_eq!(sizes.iter().sum::<usize>(), 40 * usize::from(u16::MAX));
        let most = PART_SAMPLES + usize::from(u16::MAX);
        assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < most), "{sizes:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz(&bytes);
        }
    }
}
