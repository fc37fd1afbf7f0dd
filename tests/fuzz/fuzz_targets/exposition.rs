//! Exposed and pushed metrics never panic, stay within their budget, and each sample has its series.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::budget::ByteBudget;
use lookback::ingest::client_model;
use lookback::ingest::exposition::{Outer, Syntax, read};
use lookback::ingest::intake::Intake;
use lookback::store::Scope;

fuzz_target!(|body: &[u8]| {
    let outer = [("job".to_owned(), "j".to_owned())];
    for syntax in [Syntax::Text, Syntax::OpenMetrics] {
        let mut share = ByteBudget::new(16 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        if let Ok(reading) = read(body, syntax, Outer::Renames(&outer), &mut intake) {
            assert!(intake.taken.batch.samples.len() <= reading.samples);
        }
    }
    let mut share = ByteBudget::new(16 << 20).share();
    let mut intake = Intake::new(&Scope::All, &mut share);
    let _ = client_model::read(body, Outer::Wins(&outer), &mut intake);
    let batch = &intake.taken.batch;
    assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
});
