//! Remote write 2.0 messages never panic, stay within their budget, and each sample has its series.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::budget::ByteBudget;
use lookback::ingest::intake::Intake;
use lookback::ingest::{remote_write_metadata, remote_write_v2};
use lookback::store::Scope;

fuzz_target!(|message: &[u8]| {
    let mut share = ByteBudget::new(16 << 20).share();
    let mut intake = Intake::new(&Scope::All, &mut share);
    let _ = remote_write_v2::decode(message, &mut intake);
    let batch = &intake.taken.batch;
    assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
    let _ = remote_write_metadata::decode(message);
});
