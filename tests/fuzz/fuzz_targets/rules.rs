//! prometheus-adapter's rules, and the templates in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::rules::matchers::{Arguments, Names};
use lookback::rules::source::{OWN_STORE, SourceNames};
use lookback::rules::template::Template;

fuzz_target!(|text: &str| {
    let _ = lookback::rules::check(text, &SourceNames::new(vec![OWN_STORE.to_owned()]));
    let Ok(template) = Template::parse(text) else { return };
    let arguments = Arguments::of(text).within("namespace", text).about("pod", Names::These(&[text, "p"]));
    if let Ok(value) = arguments.to_value(template.uses_raw_values()) {
        let _ = template.render(&value);
    }
});
