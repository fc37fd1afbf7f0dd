//! Records of a segment, byte by byte.
//!
//! ```text
//! segment  "LBKOUTB1"  record*
//! record   payload bytes: u32 LE   samples: u32 LE   CRC-32C of these eight bytes and the payload: u32 LE
//!          payload: a remote write request, compressed by snappy's block format
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a segment begins with.
pub(super) const MAGIC: &[u8; 8] = b"LBKOUTB1";
/// Where its first record begins.
pub(super) const HEADER_BYTES: u64 = 8;
/// What comes before a payload.
const RECORD_HEADER_BYTES: u64 = 12;
/// Largest payload, in bytes, and what it may become when decompressed.
const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

/// What comes at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record.
    Record {
        /// The request.
        raw: Vec<u8>,
        /// How many samples are in it.
        samples: u32,
        /// Where the next one begins.
        next_offset: u64,
    },
    /// A record that fails its checksum, with more behind it.
    Damaged {
        /// Where the next one begins.
        next_offset: u64,
    },
    /// Nothing, or what was being written when the power went.
    End,
}

/// Appends a record; `false` where it is too large.
pub(super) fn encode(raw: &[u8], samples: u32, into: &mut Vec<u8>) -> bool {
    let Ok(payload) = snap::raw::Encoder::new().compress_vec(raw) else { return false };
    let Some(length) = u32::try_from(payload.len()).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX) else {
        return false;
    };
    let (length, samples) = (length.to_le_bytes(), samples.to_le_bytes());
    into.extend_from_slice(&length);
    into.extend_from_slice(&samples);
    into.extend_from_slice(&checksum(length, samples, &payload).to_le_bytes());
    into.extend_from_slice(&payload);
    true
}

fn checksum(length: [u8; 4], samples: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&length), &samples), payload)
}

/// What comes at this offset.
pub(super) fn read(file: &File, offset: u64) -> io::Result<Next> {
    let length_of_file = file.metadata()?.len();
    let Some(room) = length_of_file.checked_sub(offset + RECORD_HEADER_BYTES) else { return Ok(Next::End) };
    let (mut length, mut samples, mut expected) = ([0; 4], [0; 4], [0; 4]);
    file.read_exact_at(&mut length, offset)?;
    file.read_exact_at(&mut samples, offset + 4)?;
    file.read_exact_at(&mut expected, offset + 8)?;
    let payload_bytes = u32::from_le_bytes(length);
    if u64::from(payload_bytes) > room || payload_bytes > PAYLOAD_BYTES_MAX || payload_bytes == 0 {
        return Ok(Next::End);
    }
    let next_offset = offset + RECORD_HEADER_BYTES + u64::from(payload_bytes);
    let mut payload = vec![0; usize::try_from(payload_bytes).unwrap_or_default()];
    file.read_exact_at(&mut payload, offset + RECORD_HEADER_BYTES)?;
    let is_whole = checksum(length, samples, &payload) == u32::from_le_bytes(expected);
    let raw = if is_whole { decompress(&payload) } else { None };
    Ok(match raw {
        Some(raw) => Next::Record { raw, samples: u32::from_le_bytes(samples), next_offset },
        None if next_offset < length_of_file => Next::Damaged { next_offset },
        None => Next::End,
    })
}

fn decompress(payload: &[u8]) -> Option<Vec<u8>> {
    let bytes = snap::raw::decompress_len(payload).ok()?;
    let fits = u32::try_from(bytes).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX);
    fits.then(|| snap::raw::Decoder::new().decompress_vec(payload).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for payload in payloads {
            assert!(encode(payload, 3, &mut bytes));
        }
        bytes
    }

    #[test]
    fn a_flipped_bit_loses_its_own_record_only_and_never_changes_one() {
        let bytes = segment(&[b"first", b"second"]);
        let first = Next::Record { raw: b"first".to_vec(), samples: 3, next_offset: 27 };
        assert_eq!(read(&file_of(&bytes), HEADER_BYTES).expect("read"), first);
        for at in 8..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let file = file_of(&flipped);
            let (mut offset, mut read_back) = (HEADER_BYTES, Vec::new());
            loop {
                match read(&file, offset).expect("read") {
                    Next::Record { raw, next_offset, .. } => {
                        read_back.push(raw);
                        offset = next_offset;
                    }
                    Next::Damaged { next_offset } => offset = next_offset,
                    Next::End => break,
                }
            }
            assert!(read_back.len() <= 1, "at {at}");
            assert!(read_back.iter().all(|raw| raw == b"first" || raw == b"second"), "at {at}");
        }
    }

    #[test]
    fn what_is_cut_short_is_the_end() {
        let bytes = segment(&[b"first", b"second"]);
        for cut in 8..bytes.len() {
            let file = file_of(&bytes[..cut]);
            let first = read(&file, HEADER_BYTES).expect("read");
            assert_eq!(matches!(first, Next::Record { .. }), cut >= 27, "cut at {cut}");
            if cut >= 27 {
                assert_eq!(read(&file, 27).expect("read"), Next::End, "cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&file_of(&bytes), 0).expect("read");
        }

        #[test]
        fn a_record_comes_back(raw in proptest::collection::vec(any::<u8>(), 1..2_000), samples: u32) {
            let mut bytes = Vec::new();
            prop_assert!(encode(&raw, samples, &mut bytes));
            let next_offset = bytes.len() as u64;
            let next = read(&file_of(&bytes), 0).expect("read");
            prop_assert_eq!(next, Next::Record { raw, samples, next_offset });
        }
    }
}
