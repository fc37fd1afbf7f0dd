//! Remote write bodies never panic, stay within their bound, and each sample has its series.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::ingest::remote_write::{decode, decompress};
use lookback::store::Scope;

const DECODED_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    if let Ok(message) = decompress(body, DECODED_BYTES_MAX) {
        assert!(message.len() <= DECODED_BYTES_MAX);
        let _ = decode(&message, &Scope::All);
    }
    if let Ok(decoded) = decode(body, &Scope::All) {
        let batch = &decoded.batch;
        assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
    }
});
