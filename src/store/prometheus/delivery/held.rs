//! What the engine holds already of samples that are to go there.

use super::{Delivery, Series};
use crate::store::prometheus::engine::{EngineRead, failed};
use crate::store::{Scope, StoreError};
use lookback_storage::{Labels, Matcher, Pick, Sample};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

/// How long the engine may take to tell what it holds.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most samples that are read for it.
const LOOK_UP_SAMPLES_MAX: usize = 20_000_000;

impl Delivery {
    /// What of these samples the engine lacks, in the same order. One of another value at its time is held too
    /// where the engine keeps values to a number of digits.
    pub(crate) async fn missing(&mut self, mut series: Vec<Series>) -> Result<Vec<Series>, StoreError> {
        let times = || series.iter().flat_map(|(_, samples)| samples).map(|sample| sample.timestamp_ms);
        let (Some(first_ms), Some(last_ms)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
        let method = self.engine.method(LOOK_UP_TIMEOUT).await;
        let method = method.map_err(|error| failed(error, LOOK_UP_TIMEOUT))?;
        let holds = |held: &[Sample], wanted: &Sample| {
            let found = held.binary_search_by_key(&wanted.timestamp_ms, |sample| sample.timestamp_ms);
            found.is_ok_and(|at| {
                method.is_victoria_metrics() || held[at].value.to_bits() == wanted.value.to_bits()
            })
        };
        let matchers = in_common(&series);
        let mut wanted: HashMap<Labels, Vec<usize>> = HashMap::new();
        for (at, (labels, _)) in series.iter().enumerate() {
            wanted.entry(labels.clone()).or_default().push(at);
        }
        let read = EngineRead {
            scope: &Scope::All,
            matchers: &matchers,
            within_ms: (first_ms, last_ms),
            pick: Pick::All,
            samples_max: LOOK_UP_SAMPLES_MAX,
            timeout: LOOK_UP_TIMEOUT,
        };
        let without_held = |labels, held: Vec<Sample>| {
            for at in wanted.get(&labels).into_iter().flatten() {
                series[*at].1.retain(|sample| !holds(&held, sample));
            }
            ControlFlow::Continue(())
        };
        self.engine.each(read, without_held).await?;
        series.retain(|(_, samples)| !samples.is_empty());
        Ok(series)
    }
}

/// Matchers that all of the series fit: the labels that each of them has, with all of their values.
fn in_common(series: &[Series]) -> Vec<Matcher> {
    let Some((first, _)) = series.first() else { return Vec::new() };
    let of_label = |name: &str| {
        let values: Option<BTreeSet<&str>> = series.iter().map(|(labels, _)| labels.get(name)).collect();
        let values = values?;
        let one = values.first().filter(|_| values.len() == 1);
        Some(match one {
            Some(value) => Matcher::equal(name, *value),
            None => Matcher::one_of(name, values.into_iter()),
        })
    };
    first.iter().filter_map(|(name, _)| of_label(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_client::selector;

    #[test]
    fn series_are_asked_for_by_the_labels_that_all_of_them_have() {
        let labels = |pairs: &[(&str, &str)]| Labels::new(pairs.iter().copied()).expect("valid");
        let one = labels(&[("__name__", "m"), ("pod", "a.1"), ("only", "here")]);
        let two = labels(&[("__name__", "m"), ("pod", "b")]);
        assert_eq!(
            selector(&in_common(&[(one.clone(), Vec::new())])),
            r#"{__name__="m",only="here",pod="a.1"}"#
        );
        assert_eq!(
            selector(&in_common(&[(one, Vec::new()), (two, Vec::new())])),
            r#"{__name__="m",pod=~"a\\.1|b"}"#
        );
    }
}
