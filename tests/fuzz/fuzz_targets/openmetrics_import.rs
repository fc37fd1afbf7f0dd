//! OpenMetrics files never panic, whether bad lines stop the reading or are skipped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::ingest::file::{BadLines, SampleFile};
use lookback::ingest::openmetrics::OpenMetricsFile;
use lookback_storage::WriteBatch;

fuzz_target!(|text: &[u8]| {
    for bad_lines in [BadLines::Stop, BadLines::Skip] {
        let mut file = OpenMetricsFile::new(text, vec![("host".to_owned(), "h".to_owned())], bad_lines);
        loop {
            let mut batch = WriteBatch::default();
            let filled = file.fill(&mut batch, 100);
            assert!(batch.samples.iter().all(|sample| sample.series < batch.series.len()));
            if !matches!(filled, Ok(true)) {
                break;
            }
        }
    }
});
