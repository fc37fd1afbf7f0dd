//! A record of the log never panics, whatever stands in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback_storage::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::log_record(bytes));
