//! What series are made of: the tables of `/api/v1/status/tsdb`.

use lookback_storage::{Labels, METRIC_NAME_LABEL};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// How often names and labels occur.
#[derive(Default)]
pub(super) struct Cardinality<'l> {
    /// Series by label pair.
    pairs: HashMap<(&'l str, &'l str), u64>,
}

impl<'l> Cardinality<'l> {
    pub(super) fn of(all: &'l [Arc<Labels>]) -> Self {
        let mut pairs = HashMap::new();
        for pair in all.iter().flat_map(|labels| labels.iter()) {
            *pairs.entry(pair).or_default() += 1;
        }
        Self { pairs }
    }

    /// How many different label pairs there are.
    pub(super) fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// The tables, with the `rows_max` highest rows each.
    pub(super) fn tables(&self, rows_max: usize) -> Value {
        let (mut values, mut bytes) = (HashMap::<&str, u64>::new(), HashMap::<&str, u64>::new());
        for ((name, value), series) in &self.pairs {
            *values.entry(name).or_default() += 1;
            *bytes.entry(name).or_default() += series * value.len() as u64;
        }
        let names = self.pairs.iter().filter(|((name, _), _)| *name == METRIC_NAME_LABEL);
        let pairs = self.pairs.iter().map(|((name, value), series)| (format!("{name}={value}"), *series));
        json!({
            "seriesCountByMetricName": highest(names.map(|((_, name), series)| (*name, *series)), rows_max),
            "labelValueCountByLabelName": highest(values, rows_max),
            "memoryInBytesByLabelName": highest(bytes, rows_max),
            "seriesCountByLabelValuePair": highest(pairs, rows_max),
        })
    }
}

fn highest<N: Into<String> + Ord>(rows: impl IntoIterator<Item = (N, u64)>, rows_max: usize) -> Vec<Value> {
    let mut rows: Vec<(Reverse<u64>, N)> =
        rows.into_iter().map(|(name, count)| (Reverse(count), name)).collect();
    rows.sort_unstable();
    let row = |(Reverse(count), name): (Reverse<u64>, N)| json!({"name": name.into(), "value": count});
    rows.into_iter().take(rows_max).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rows_come_first() {
        let series = |name: &str, pod: &str| {
            Arc::new(Labels::new([("__name__", name), ("pod", pod)]).expect("labels"))
        };
        let all = [series("a", "p-0"), series("a", "p-1"), series("b", "p-1")];
        let cardinality = Cardinality::of(&all);
        assert_eq!(cardinality.pairs(), 4);
        assert_eq!(
            cardinality.tables(1),
            json!({
                "seriesCountByMetricName": [{"name": "a", "value": 2}],
                "labelValueCountByLabelName": [{"name": "__name__", "value": 2}],
                "memoryInBytesByLabelName": [{"name": "pod", "value": 9}],
                "seriesCountByLabelValuePair": [{"name": "__name__=a", "value": 2}],
            })
        );
    }
}
