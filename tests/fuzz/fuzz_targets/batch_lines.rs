//! Batches and single pushes never panic, and each sample of a batch has its series.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::ingest::batch::ParsedBatch;
use lookback::ingest::write_metrics::Push;
use lookback::kubernetes::mapping::Resolver;
use lookback::store::Scope;

fuzz_target!(|body: &[u8]| {
    if let Ok(parsed) = ParsedBatch::parse(&Resolver::default(), body, &Scope::All) {
        let batch = &parsed.batch;
        assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
        let good = batch.samples.len();
        let answer = parsed.answer(good, 0, &[]);
        assert!(answer.rejected.len() <= answer.rejected_count);
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let (path, query) = text.split_once('?').unwrap_or((text, text));
        let _ = Push::parse(&Resolver::default(), path, query, b"1");
        let _ = Push::parse(&Resolver::default(), &format!("/write-metrics/{path}"), query, b"1");
    }
});
