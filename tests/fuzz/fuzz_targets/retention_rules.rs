//! Rule files of retention and series selectors never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::config::retention::parse_rules;
use lookback::series_selector;
use lookback_storage::Labels;
use std::path::Path;

fuzz_target!(|text: &str| {
    let labels = Labels::new([("__name__", "m"), ("pod", "p")]).expect("valid");
    if let Ok(matchers) = series_selector::parse(text) {
        let _ = matchers.iter().all(|matcher| matcher.matches(&labels));
    }
    let _ = parse_rules(Path::new("rules.yaml"), text);
});
