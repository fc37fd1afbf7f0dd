//! No column of a chunk makes a decoder panic, or give another number of samples than asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback_storage::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::codec(bytes));
