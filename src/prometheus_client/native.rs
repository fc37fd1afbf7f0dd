//! `/api/v1/export/native` of VictoriaMetrics: blocks of raw samples as they are stored.
//!
//! See <https://docs.victoriametrics.com/#how-to-export-data-in-native-format>. What comes, numbers of fixed size with
//! the largest byte first:
//!
//! ```text
//! 16 bytes                    the range of time that was asked for
//! again and again, in any order:
//!   4 bytes, then so many     the series: its name, then names and values of labels, each ended by a byte 1;
//!                             in them the bytes 0, 1, 2 are written as 0 '0', 0 '1', 0 '2'
//!   4 bytes, then so many     a block of samples
//!
//! a block; i is a signed, u an unsigned number of variable length, b a byte; what is in [] came with version 1.81:
//!   i first time  [i last time]  i first value  u samples  i decimal exponent
//!   b kind of the times  b kind of the values  [b how many bits of values count]
//!   u, then so many bytes: times      u, then so many bytes: values
//!
//! kinds: 1 zstd of 5   2 one step for all   3 all the same   4 zstd of 6   5 steps of steps   6 steps
//! ```
//!
//! A value is a whole number times ten to the exponent; the three outermost numbers are the infinities and the
//! staleness marker. Blocks may hold samples outside of the range. Nothing in an answer says which layout its blocks
//! have: they have the newer one where the first of them can be read so, to its last byte, and ends at its last time.

mod numbers;

use self::numbers::{NUMBER_BYTES_MAX, ended, plain_steps, signed, steps_of_steps, unsigned};
use super::remote_read::PART_SAMPLES;
use bytes::{Buf, Bytes, BytesMut};
use lookback_storage::{Labels, STALENESS_MARKER_BITS, Sample};
use std::collections::HashMap;
use std::ops::ControlFlow;
use thiserror::Error;

/// The range of time at the beginning, in bytes.
const HEAD_BYTES: usize = 16;
/// Longest series or block, in bytes.
const PART_BYTES_MAX: usize = 4 << 20;
/// Most samples of a block; VictoriaMetrics makes them half as long.
const BLOCK_SAMPLES_MAX: u64 = 32 * 1_024;
/// How much is held of an answer, in bytes: about 100 million samples where blocks are full.
pub(super) const HELD_BYTES_MAX: usize = 256 << 20;

/// Why an answer can't be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum NativeError {
    #[error("it ends within a block")]
    CutOff,
    #[error("a series or block of {0} bytes")]
    Size(usize),
    #[error("a block is not as the format has it: {0}")]
    Block(&'static str),
}

/// A series and its blocks; no labels: a set that Lookback does not keep.
type SeriesBlocks = (Option<Labels>, Vec<Bytes>);

/// The blocks of an answer, by series, as they came.
#[derive(Default)]
pub(super) struct Blocks {
    bytes: BytesMut,
    is_begun: bool,
    by_series: HashMap<Bytes, Vec<Bytes>>,
    held_bytes: usize,
}

impl Blocks {
    /// Adds bytes of the answer.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NativeError> {
        self.bytes.extend_from_slice(bytes);
        if !self.is_begun {
            if self.bytes.len() < HEAD_BYTES {
                return Ok(());
            }
            self.bytes.advance(HEAD_BYTES);
            self.is_begun = true;
        }
        while let Some((series, block)) = self.next()? {
            // A block keeps what came beside it, its series' name too.
            self.held_bytes += series.len() + block.len() + size_of::<Bytes>();
            match self.by_series.get_mut(&series) {
                Some(blocks) => blocks.push(block),
                None => {
                    self.held_bytes += 4 * size_of::<Bytes>();
                    self.by_series.insert(series, vec![block]);
                }
            }
        }
        Ok(())
    }

    /// How much is held, about, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The next series and block that came as a whole.
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, NativeError> {
        let length = |from: usize| -> Result<Option<usize>, NativeError> {
            let Some(bytes) = self.bytes.get(from..).and_then(|rest| rest.first_chunk()) else {
                return Ok(None);
            };
            let length = u32::from_be_bytes(*bytes) as usize;
            if length > PART_BYTES_MAX { Err(NativeError::Size(length)) } else { Ok(Some(length)) }
        };
        let Some(of_series) = length(0)? else { return Ok(None) };
        let Some(of_block) = length(4 + of_series)? else { return Ok(None) };
        if self.bytes.len() < 8 + of_series + of_block {
            return Ok(None);
        }
        self.bytes.advance(4);
        let series = self.bytes.split_to(of_series).freeze();
        self.bytes.advance(4);
        Ok(Some((series, self.bytes.split_to(of_block).freeze())))
    }

    /// The series in the order of their labels, and their blocks.
    pub(super) fn finish(self) -> Result<Vec<SeriesBlocks>, NativeError> {
        if !self.bytes.is_empty() || !self.is_begun {
            return Err(NativeError::CutOff);
        }
        let mut series = Vec::with_capacity(self.by_series.len());
        for (name, blocks) in self.by_series {
            series.push((labels(&name)?, blocks));
        }
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(series)
    }
}

/// The labels of a series; `None`: a set that Lookback does not keep.
fn labels(series: &[u8]) -> Result<Option<Labels>, NativeError> {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let mut text = Vec::new();
    let mut bytes = series.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            0 => match bytes.next() {
                Some(escaped @ b'0'..=b'2') => text.push(escaped - b'0'),
                _ => return Err(NativeError::Block("an escape that is none")),
            },
            1 => texts.push(std::mem::take(&mut text)),
            byte => text.push(*byte),
        }
    }
    let Some((name, rest)) = texts.split_first().filter(|(_, rest)| text.is_empty() && rest.len() % 2 == 0)
    else {
        return Err(NativeError::Block("a label without a value"));
    };
    let mut pairs: Vec<(&[u8], &[u8])> = vec![(b"__name__", name)];
    pairs.extend(rest.chunks_exact(2).map(|pair| (&pair[0][..], &pair[1][..])));
    Ok(Labels::from_utf8(&mut pairs))
}

/// Decodes blocks.
#[derive(Default)]
pub(super) struct Decoder {
    times: Vec<i64>,
    values: Vec<i64>,
    unpacked: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    /// That of the first block, and so of all.
    layout: Option<Layout>,
}

/// How a block is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Before1_81,
    Since1_81,
}

/// What stands before the numbers of a block.
struct Head {
    first_time_ms: i64,
    last_time_ms: Option<i64>,
    first_value: i64,
    samples: usize,
    exponent: i64,
    kinds: (u8, u8),
}

impl Decoder {
    /// Hands out the samples of a series' blocks, in time order as long as its blocks do not overlap; in several
    /// parts where there are very many.
    pub(super) fn each_part(
        &mut self,
        blocks: &[Bytes],
        mut visit: impl FnMut(Vec<Sample>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, NativeError> {
        let mut read = Vec::with_capacity(blocks.len());
        let mut left = 0;
        for block in blocks {
            let layout = self.layout(block);
            let mut rest = &block[..];
            let head = head(&mut rest, layout)?;
            left += head.samples;
            read.push((head, rest));
        }
        read.sort_by_key(|(head, _)| head.first_time_ms);
        let mut samples = Vec::with_capacity(left.min(PART_SAMPLES));
        for (head, rest) in read {
            self.unfold(&head, rest)?;
            let float = scale(head.exponent);
            let of_block = self.times.iter().zip(&self.values);
            samples.extend(of_block.map(|(at_ms, value)| Sample::new(*at_ms, float(*value))));
            left -= head.samples;
            if samples.len() >= PART_SAMPLES && left > 0 {
                let next = Vec::with_capacity(left.min(PART_SAMPLES));
                if visit(std::mem::replace(&mut samples, next)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(visit(samples))
    }

    /// How this block and all others are laid out.
    fn layout(&mut self, block: &[u8]) -> Layout {
        if let Some(layout) = self.layout {
            return layout;
        }
        let mut rest = block;
        let unfolded = head(&mut rest, Layout::Since1_81).and_then(|head| self.unfold(&head, rest));
        let layout = if unfolded.is_ok() { Layout::Since1_81 } else { Layout::Before1_81 };
        self.layout = Some(layout);
        layout
    }

    /// The numbers of a block, from what stands behind its head.
    fn unfold(&mut self, head: &Head, mut rest: &[u8]) -> Result<(), NativeError> {
        let (times, values) = (part(&mut rest)?, part(&mut rest)?);
        if !rest.is_empty() {
            return Err(NativeError::Block("it is longer than it should be"));
        }
        let mut into = std::mem::take(&mut self.times);
        self.numbers(head.kinds.0, head.first_time_ms, head.samples, times, &mut into)?;
        self.times = into;
        if head.last_time_ms.is_some_and(|last_ms| self.times.last() != Some(&last_ms)) {
            return Err(NativeError::Block("it ends at another time than it says"));
        }
        let mut into = std::mem::take(&mut self.values);
        self.numbers(head.kinds.1, head.first_value, head.samples, values, &mut into)?;
        self.values = into;
        Ok(())
    }

    /// So many numbers of this kind.
    fn numbers(
        &mut self,
        kind: u8,
        first: i64,
        count: usize,
        packed: &[u8],
        into: &mut Vec<i64>,
    ) -> Result<(), NativeError> {
        into.clear();
        into.push(first);
        let steps = count - 1;
        match kind {
            1 => {
                self.unpack(packed, steps)?;
                steps_of_steps(&self.unpacked, steps, into)
            }
            2 => {
                let (mut rest, mut number) = (packed, first);
                let step = signed(&mut rest)?;
                for _ in 0..steps {
                    number = number.wrapping_add(step);
                    into.push(number);
                }
                ended(rest)
            }
            3 => {
                into.resize(count, first);
                ended(packed)
            }
            4 => {
                self.unpack(packed, steps)?;
                plain_steps(&self.unpacked, steps, into)
            }
            5 => steps_of_steps(packed, steps, into),
            6 => plain_steps(packed, steps, into),
            _ => Err(NativeError::Block("numbers of an unknown kind")),
        }
    }

    fn unpack(&mut self, packed: &[u8], numbers: usize) -> Result<(), NativeError> {
        let wrong = |_| NativeError::Block("its zstd can't be read");
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(wrong)?),
        };
        self.unpacked.clear();
        self.unpacked.reserve(numbers * NUMBER_BYTES_MAX);
        zstd.decompress_to_buffer(packed, &mut self.unpacked).map_err(wrong)?;
        Ok(())
    }
}

fn head(rest: &mut &[u8], layout: Layout) -> Result<Head, NativeError> {
    let first_time_ms = signed(rest)?;
    let last_time_ms = if layout == Layout::Since1_81 { Some(signed(rest)?) } else { None };
    let (first_value, samples) = (signed(rest)?, unsigned(rest)?);
    if !(1..=BLOCK_SAMPLES_MAX).contains(&samples) {
        return Err(NativeError::Block("a number of samples that no block has"));
    }
    let exponent = signed(rest)?;
    let (kinds, after) = match (layout, *rest) {
        (Layout::Before1_81, [times, values, after @ ..])
        | (Layout::Since1_81, [times, values, _, after @ ..]) => ((*times, *values), after),
        _ => return Err(NativeError::CutOff),
    };
    *rest = after;
    let samples = usize::try_from(samples).map_err(|_| NativeError::CutOff)?;
    Ok(Head { first_time_ms, last_time_ms, first_value, samples, exponent, kinds })
}

/// Bytes behind their length.
fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], NativeError> {
    let length = usize::try_from(unsigned(rest)?).map_err(|_| NativeError::CutOff)?;
    let (part, after) = rest.split_at_checked(length).ok_or(NativeError::CutOff)?;
    *rest = after;
    Ok(part)
}

/// What a whole number stands for beside this decimal exponent.
fn scale(exponent: i64) -> impl Fn(i64) -> f64 {
    // Read as text it is the nearest there is.
    let power: f64 = format!("1e{}", exponent.unsigned_abs()).parse().unwrap_or(f64::INFINITY);
    move |value| match value {
        i64::MAX => f64::INFINITY,
        i64::MIN => f64::NEG_INFINITY,
        STALE => f64::from_bits(STALENESS_MARKER_BITS),
        // Whatever the power is.
        0 => 0.0,
        value if exponent < 0 => value as f64 / power,
        value => value as f64 * power,
    }
}

/// The whole number that is a staleness marker.
const STALE: i64 = i64::MAX - 1;

/// The parsers over any bytes, for fuzzing.
pub(super) fn fuzz(bytes: &[u8]) {
    let mut blocks = Blocks::default();
    if blocks.push(bytes).is_ok()
        && let Ok(series) = blocks.finish()
    {
        let mut decoder = Decoder::default();
        for (_, blocks) in &series {
            let _ = decoder.each_part(blocks, |_| ControlFlow::Continue(()));
        }
    }
    let block = Bytes::copy_from_slice(bytes);
    let _ = Decoder::default().each_part(&[block], |_| ControlFlow::Continue(()));
    let _ = labels(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All samples of blocks.
    fn samples(blocks: &[Bytes]) -> Vec<Sample> {
        let mut all = Vec::new();
        let flow = Decoder::default().each_part(blocks, |mut part| {
            all.append(&mut part);
            ControlFlow::Continue(())
        });
        assert_eq!(flow, Ok(ControlFlow::Continue(())));
        all
    }

    /// What VictoriaMetrics 1.79 answered for six samples of `m{ns="x",pod="a"}`, a second apart: 0.5, 1.5, … 5.5.
    const ANSWERED: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\x03\x44\x38\x44\x9c\x40\
        \0\0\0\x0dm\x01ns\x01x\x01pod\x01a\x01\
        \0\0\0\x10\x80\x8f\x8b\xc2\xc3\x68\x0a\x06\x01\x02\x02\x02\xd0\x0f\x01\x14";

    /// What its cluster, version 1.150, answered for the same.
    const ANSWERED_SINCE: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\x03\x46\x30\xb8\xa0\0\
        \0\0\0\x0dm\x01ns\x01x\x01pod\x01a\x01\
        \0\0\0\x17\x80\xc0\x87\xc8\xbb\x68\x90\x8e\x88\xc8\xbb\x68\x0a\x06\x01\x02\x02\x40\x02\xd0\x0f\x01\x14";

    #[test]
    fn what_victoria_metrics_answers_is_read_however_it_comes() {
        for (answered, step) in
            [ANSWERED, ANSWERED_SINCE].iter().flat_map(|a| [1, 3, 16, 1_000].map(|step| (*a, step)))
        {
            let mut blocks = Blocks::default();
            for bytes in answered.chunks(step) {
                blocks.push(bytes).expect("blocks");
            }
            assert!(blocks.held_bytes() > 16);
            let series = blocks.finish().expect("whole");
            let [(labels, blocks)] = &series[..] else { panic!("one series") };
            assert_eq!(*labels, Labels::new([("__name__", "m"), ("ns", "x"), ("pod", "a")]).ok());
            let samples = samples(blocks);
            let first_ms = samples[0].timestamp_ms;
            let expected: Vec<Sample> =
                (0..6).map(|at| Sample::new(first_ms + at * 1_000, at as f64 + 0.5)).collect();
            assert_eq!(samples, expected);
        }
        for answered in [ANSWERED, ANSWERED_SINCE] {
            for length in 0..answered.len() {
                let mut blocks = Blocks::default();
                blocks.push(&answered[..length]).expect("not yet wrong");
                let is_between = length == HEAD_BYTES;
                assert_eq!(blocks.finish().is_ok(), is_between, "cut off at {length}");
            }
        }
    }

    fn put_unsigned(mut number: u64, into: &mut Vec<u8>) {
        while number >= 0x80 {
            into.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        into.push(number as u8);
    }

    fn put_signed(number: i64, into: &mut Vec<u8>) {
        put_unsigned(((number << 1) ^ (number >> 63)).cast_unsigned(), into);
    }

    /// Numbers in a kind that can say any of them.
    fn packed(numbers: &[i64], kind: u8) -> Vec<u8> {
        let (mut bytes, mut step_before) = (Vec::new(), 0_i64);
        for pair in numbers.windows(2) {
            let step = pair[1].wrapping_sub(pair[0]);
            match kind {
                1 | 5 => put_signed(step.wrapping_sub(step_before), &mut bytes),
                _ => put_signed(step, &mut bytes),
            }
            step_before = step;
        }
        if kind == 1 || kind == 4 { zstd::bulk::compress(&bytes, 1).expect("compressed") } else { bytes }
    }

    fn block(times: &[i64], values: &[i64], exponent: i64, kinds: (u8, u8), layout: Layout) -> Bytes {
        let mut bytes = Vec::new();
        put_signed(times[0], &mut bytes);
        if layout == Layout::Since1_81 {
            put_signed(*times.last().expect("a time"), &mut bytes);
        }
        put_signed(values[0], &mut bytes);
        put_unsigned(times.len() as u64, &mut bytes);
        put_signed(exponent, &mut bytes);
        bytes.extend([kinds.0, kinds.1]);
        if layout == Layout::Since1_81 {
            bytes.push(64);
        }
        for (numbers, kind) in [(times, kinds.0), (values, kinds.1)] {
            let part = packed(numbers, kind);
            put_unsigned(part.len() as u64, &mut bytes);
            bytes.extend(part);
        }
        bytes.into()
    }

    #[test]
    fn outermost_numbers_are_special_and_exponents_decimal() {
        let values = [i64::MAX, i64::MIN, STALE, 0, 15, -25];
        let times = [1, 2, 3, 4, 5, 6];
        let read = |exponent| {
            let samples = samples(&[block(&times, &values, exponent, (5, 6), Layout::Since1_81)]);
            samples.iter().map(|sample| sample.value.to_bits()).collect::<Vec<_>>()
        };
        let stale = f64::from_bits(STALENESS_MARKER_BITS);
        let bits = |values: [f64; 6]| values.map(f64::to_bits).to_vec();
        assert_eq!(read(-1), bits([f64::INFINITY, f64::NEG_INFINITY, stale, 0.0, 1.5, -2.5]));
        assert_eq!(read(23), bits([f64::INFINITY, f64::NEG_INFINITY, stale, 0.0, 15.0 * 1e23, -25.0 * 1e23]));
        assert_eq!(read(-400)[4..], [0.0_f64.to_bits(), (-0.0_f64).to_bits()]);
    }

    #[test]
    fn blocks_that_unfold_to_very_much_come_in_parts() {
        // The most that a block says, in a few bytes: one step for all times, one value.
        let mut block = Vec::new();
        put_signed(0, &mut block);
        put_signed(BLOCK_SAMPLES_MAX.cast_signed() - 1, &mut block);
        put_signed(7, &mut block);
        put_unsigned(BLOCK_SAMPLES_MAX, &mut block);
        put_signed(0, &mut block);
        block.extend([2, 3, 64, 1, 2, 0]);
        let (blocks, mut sizes) = (vec![Bytes::from(block); 80], Vec::new());
        let flow = Decoder::default().each_part(&blocks, |part| {
            sizes.push(part.len());
            ControlFlow::Continue(())
        });
        assert_eq!(flow, Ok(ControlFlow::Continue(())));
        let of_block = BLOCK_SAMPLES_MAX as usize;
        assert_eq!(sizes, [PART_SAMPLES, PART_SAMPLES, 80 * of_block - 2 * PART_SAMPLES]);
    }

    proptest! {
        #[test]
        fn numbers_of_each_kind_come_back(
            pairs in proptest::collection::vec((any::<i64>(), any::<i64>()), 1..300), first in 0..4_usize, second in 0..4_usize,
            is_newer: bool,
        ) {
            let (times, values): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
            let kinds = [1, 4, 5, 6];
            let layout = if is_newer { Layout::Since1_81 } else { Layout::Before1_81 };
            let block = block(&times, &values, 0, (kinds[first], kinds[second]), layout);
            let samples = samples(&[block]);
            prop_assert!(samples.iter().map(|sample| sample.timestamp_ms).eq(times));
            let float = scale(0);
            prop_assert!(samples.iter().map(|s| s.value.to_bits()).eq(values.iter().map(|v| float(*v).to_bits())));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..ANSWERED.len()) {
            fuzz(&bytes);
            for answered in [ANSWERED, ANSWERED_SINCE] {
                let mut spoilt = answered.to_vec();
                spoilt[at] ^= bytes.first().copied().unwrap_or(1);
                fuzz(&spoilt);
            }
        }
    }
}
