//! Quantities never panic, and one that can be kept is written as one of the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::kubernetes::quantity::{Quantity, format_value};

fuzz_target!(|body: &[u8]| {
    let Ok(quantity) = Quantity::from_json(body) else { return };
    let again = Quantity::parse(&quantity.to_string()).expect("a written quantity is one");
    assert_eq!(again, quantity);
    if let Ok(value) = quantity.value() {
        let text = format_value(value).expect("a kept value can be written");
        let read = Quantity::parse(&text).expect("a written quantity is one");
        assert_eq!(read.milli(), quantity.milli());
    }
});
