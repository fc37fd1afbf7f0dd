//! Bodies that come compressed by gzip.

use crate::budget::{BudgetSpent, Share};
use flate2::read::MultiGzDecoder;
use std::io::Read;
use thiserror::Error;

/// How much is decompressed, and paid for, at once.
const STEP_BYTES: usize = 64 << 10;

/// Why a body was not decompressed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InflateError {
    /// Not gzip, or cut short.
    #[error("the body is not gzip: {0}")]
    NotGzip(String),
    /// Too large when decompressed.
    #[error("the body has more than {max} bytes when decompressed: send it in parts")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// It takes more memory than there is for requests now.
    #[error(transparent)]
    Budget(#[from] BudgetSpent),
}

/// Decompresses a body to at most `bytes_max` bytes, paying with `share` step by step.
///
/// # Errors
/// When it is not gzip, too large, or the budget is spent.
pub fn gunzip(body: &[u8], bytes_max: usize, share: &mut Share) -> Result<Vec<u8>, InflateError> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut inflated = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = decoder.read(&mut step).map_err(|error| InflateError::NotGzip(error.to_string()))?;
        let Some(bytes) = step.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(inflated) };
        if bytes.len() > bytes_max - inflated.len() {
            return Err(InflateError::TooLarge { max: bytes_max });
        }
        share.grow(bytes.len())?;
        inflated.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("compressed")
    }

    #[test]
    fn bombs_and_broken_bodies_are_refused() {
        let mut share = ByteBudget::new(8 << 20).share();
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(gunzip(&bomb, 1 << 20, &mut share), Err(InflateError::TooLarge { max: 1 << 20 }));
        assert!(matches!(gunzip(&bomb, 32 << 20, &mut share), Err(InflateError::Budget(_))));
        let mut share = ByteBudget::new(8 << 20).share();
        let mut cut = gzip(b"a text");
        assert_eq!(gunzip(&cut, 6, &mut share), Ok(b"a text".to_vec()));
        assert_eq!(gunzip(&cut, 5, &mut share), Err(InflateError::TooLarge { max: 5 }));
        cut.truncate(cut.len() - 3);
        assert!(matches!(gunzip(&cut, 100, &mut share), Err(InflateError::NotGzip(_))));
        assert!(matches!(gunzip(b"plain", 100, &mut share), Err(InflateError::NotGzip(_))));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut share = ByteBudget::new(8 << 20).share();
            prop_assert_eq!(gunzip(&gzip(&bytes), 2_000, &mut share), Ok(bytes));
        }
    }
}
