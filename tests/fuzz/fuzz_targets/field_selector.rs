//! Field selectors never panic, neither parsed nor asked, and one of a name selects nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::http::resource_metrics::FieldSelector;

fuzz_target!(|text: &str| {
    let Ok(selector) = FieldSelector::parse(text) else { return };
    if selector.selects("shop", "web-0") {
        let narrowed = FieldSelector::parse(&format!("metadata.name=web-1,{text}"));
        if let Ok(narrowed) = narrowed {
            assert!(!narrowed.selects("shop", "web-0"), "{text}");
        }
    }
});
