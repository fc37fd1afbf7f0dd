//! What another adapter answers never panics, and a value that is read is a number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::kubernetes::adapter::{parse_listed, parse_values};

fuzz_target!(|body: &[u8]| {
    if let Ok(items) = parse_values(body) {
        assert!(items.iter().all(|item| item.value.is_finite()));
    }
    let _ = parse_listed(body);
});
