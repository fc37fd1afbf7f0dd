//! Paths of the Pushgateway never panic, and what they name is a group.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::ingest::grouping::parse;

fuzz_target!(|path: &str| {
    if let Ok(labels) = parse(path) {
        assert!(labels.first().is_some_and(|(name, job)| name == "job" && !job.is_empty()));
        assert!(labels.iter().all(|(name, value)| !name.starts_with("__") && !value.is_empty()));
    }
});
