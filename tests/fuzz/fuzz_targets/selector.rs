//! Selectors never panic, neither parsed nor matched.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::kubernetes::selector;
use lookback_storage::Labels;

fuzz_target!(|text: &str| {
    let labels = Labels::new([("__name__", "m"), ("pod", "p"), ("verb", "GET")]).expect("valid");
    if let Ok(selector) = selector::parse(text) {
        let _ = selector::matches(&selector, &labels, &["pod"]);
    }
});
