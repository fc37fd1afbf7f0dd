//! What the readers of sample files have in common.

use super::refusals::Refusals;
use lookback_storage::WriteBatch;
use std::io::{self, BufRead, Read};
use thiserror::Error;

/// Longest line of a file, in bytes; past it the file is not what it is taken for.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Why a file can't be read on.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system's error.
    #[error("the file can't be read: {0}")]
    Io(#[from] io::Error),
    /// Something in it is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong and what to do.
        message: String,
    },
    /// Its beginning or end is wrong.
    #[error("{0}")]
    Whole(String),
}

/// A file of samples, read in its own order.
pub trait SampleFile: Send {
    /// Adds samples to `batch` until it has `samples_max`, or nearly, or the file ends; answers
    /// whether there is more. What stands before an error is in the batch.
    ///
    /// # Errors
    /// When something is wrong with the file; with bad lines only where they are not to be skipped.
    fn fill(&mut self, batch: &mut WriteBatch, samples_max: usize) -> Result<bool, FileError>;

    /// What has been skipped so far.
    fn skipped(&self) -> &Refusals;
}

/// Whether a bad line ends an import, or is counted and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadLines {
    /// The import ends with an error.
    #[default]
    Stop,
    /// The line is counted and left out.
    Skip,
}

impl BadLines {
    /// Deals with a bad line, or with one bad value in it.
    pub(super) fn handle(
        self,
        skipped: &mut Refusals,
        reason: &'static str,
        line: u64,
        message: String,
    ) -> Result<(), FileError> {
        match self {
            Self::Stop => Err(FileError::Line { line, message }),
            Self::Skip => {
                skipped.add(reason, 1, || format!("line {line}: {message}"));
                Ok(())
            }
        }
    }
}

/// A value as both formats write it; `None`: it is none, or overflows. A NaN may say its bits, as
/// `NaN(0x7ff0000000000002)`: so does `lookback export`.
pub(super) fn parse_value(text: &str) -> Option<f64> {
    if let Some(digits) = text.strip_prefix("NaN(0x").and_then(|rest| rest.strip_suffix(')')) {
        let whole = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let bits = u64::from_str_radix(digits, 16).ok().filter(|_| whole)?;
        return Some(f64::from_bits(bits)).filter(|value| value.is_nan());
    }
    let value: f64 = text.parse().ok()?;
    let overflows = value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit());
    (!overflows).then_some(value)
}

/// Input that is decompressed where it begins as gzip does.
///
/// # Errors
/// When the beginning can't be read.
pub fn decompressed(mut input: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
    let mut head = Vec::with_capacity(GZIP_MAGIC.len());
    input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
    let gzip = head == GZIP_MAGIC;
    let whole = io::Cursor::new(head).chain(input);
    Ok(if gzip {
        Box::new(io::BufReader::new(flate2::bufread::MultiGzDecoder::new(whole)))
    } else {
        Box::new(whole)
    })
}

/// Hands bytes through, and fails on a line longer than [`LINE_BYTES_MAX`].
pub(super) struct LineLimit<R> {
    inner: R,
    line_bytes: usize,
}

impl<R> LineLimit<R> {
    pub(super) const fn new(inner: R) -> Self {
        Self { inner, line_bytes: 0 }
    }
}

impl<R: Read> Read for LineLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        match read.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => self.line_bytes = read.len() - newline - 1,
            None => self.line_bytes += read.len(),
        }
        if self.line_bytes > LINE_BYTES_MAX { Err(line_too_long()) } else { Ok(count) }
    }
}

/// Reads one line, without its end, into `line`; `false` at the end of the file.
pub(super) fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let count = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if count > LINE_BYTES_MAX {
        return Err(line_too_long());
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(count > 0)
}

fn line_too_long() -> io::Error {
    let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
    io::Error::new(io::ErrorKind::InvalidData, message)
}
