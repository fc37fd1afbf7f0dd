//! No file of the catalogue and no manifest panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback_storage::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::catalog(bytes));
