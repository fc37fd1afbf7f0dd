//! Quantile compression by the crate `pco`, in its wrapped format: a header, one chunk, one page.

use pco::ChunkConfig;
use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};

/// What `pco` calls the level: 8 is the crate's own choice; higher ones gain next to nothing here.
pub(super) const LEVEL_THOROUGH: usize = 8;
/// A quarter of the time of the other.
pub(super) const LEVEL_QUICK: usize = 2;

/// The numbers as bytes; `None` if there are none, or `pco` declines.
pub(super) fn encode<T: Number>(numbers: &[T], level: usize) -> Option<Vec<u8>> {
    if numbers.is_empty() {
        return None;
    }
    let config = ChunkConfig::default().with_compression_level(level);
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(numbers, &config).ok()?;
    if chunk.n_per_page().len() != 1 {
        return None;
    }
    let bytes = file.write_header(Vec::new()).ok()?;
    let bytes = chunk.write_meta(bytes).ok()?;
    chunk.write_page(0, bytes).ok()
}

/// `count` numbers, which are all that the bytes hold.
pub(super) fn decode<T: Number>(bytes: &[u8], count: usize) -> Option<Vec<T>> {
    let (file, rest) = FileDecompressor::new(bytes).ok()?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).ok()?;
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    let mut numbers = vec![T::default(); count];
    let progress = page.read(&mut numbers).ok()?;
    let whole = progress.finished && progress.n_processed == count && page.into_src().is_empty();
    whole.then_some(numbers)
}
