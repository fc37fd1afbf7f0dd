//! Arbitrary texts as scrape configurations: none panics, and what is understood relabels whatever labels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::sources::scrape::config::parse;
use lookback::sources::scrape::relabel::LabelSet;

fuzz_target!(|text: &str| {
    let rule = format!("scrape_configs:\n- job_name: a\n  static_configs: [{{targets: [x]}}]\n  metric_relabel_configs:\n  - {text}\n");
    for text in [text, &rule] {
        let Ok(configured) = parse(text, true) else { continue };
        for target in configured.targets.iter().take(10) {
            let mut set = LabelSet::of([("__name__", "m"), ("pod", "p-0"), ("le", text)]);
            set.relabel(&target.job.metric_rules);
        }
    }
});
