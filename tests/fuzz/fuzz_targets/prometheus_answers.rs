//! What a Prometheus-compatible server answers never brings Lookback down: JSON, remote read, exports.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| lookback::prometheus_client::fuzz(body));
