//! OTLP requests never panic, stay within their budget, and each sample has its series and its point.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::budget::ByteBudget;
use lookback::ingest::intake::Intake;
use lookback::ingest::otlp::protobuf::decode;
use lookback::ingest::otlp::translate::Translator;
use lookback::store::Scope;

fuzz_target!(|message: &[u8]| {
    let mut share = ByteBudget::new(16 << 20).share();
    let mut intake = Intake::new(&Scope::All, &mut share);
    let mut translator = Translator::new(&mut intake);
    let decoded = decode(message, &mut translator);
    let told = translator.finish();
    let batch = &intake.taken.batch;
    assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
    assert!(told.deltas.iter().all(|place| *place < batch.samples.len()));
    assert!(decoded.is_err() || told.point_of_sample.len() == batch.samples.len());
});
