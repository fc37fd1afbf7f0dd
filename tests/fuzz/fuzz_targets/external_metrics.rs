//! Questions for external metrics never panic, and one that is understood names a namespace and a metric.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::http::external_metrics::parse;

fuzz_target!(|rest: &str| {
    for uri in [rest.to_owned(), format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{rest}")] {
        let Ok(uri) = uri.parse() else { continue };
        if let Ok(asked) = parse(&uri) {
            assert!(!asked.namespace.is_empty() && !asked.metric.is_empty());
        }
    }
});
