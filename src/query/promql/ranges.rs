//! Over which ranges a query looks.

use super::expr::{Expr, RangeSource};
use super::lower::Query;

impl Query {
    /// The one range, in milliseconds, over which all range selectors of the query look; `None`: it has none, or
    /// several of different lengths.
    #[must_use]
    pub fn only_range_ms(&self) -> Option<i64> {
        let mut ranges = Vec::new();
        collect(&self.expr, &mut ranges);
        let first = *ranges.first()?;
        ranges.iter().all(|range| *range == first).then_some(first)
    }
}

/// The depth of a query is bounded where it is read.
fn collect(expr: &Expr, into: &mut Vec<i64>) {
    match expr {
        Expr::Number(_) | Expr::Text(_) | Expr::Selector(_) => {}
        Expr::Range(range) => {
            into.push(range.range_ms);
            if let RangeSource::Subquery { expr, .. } = &range.source {
                collect(expr, into);
            }
        }
        Expr::Call(call) => call.args.iter().for_each(|arg| collect(arg, into)),
        Expr::Aggregate(aggregate) => {
            aggregate.param.iter().for_each(|param| collect(param, into));
            collect(&aggregate.expr, into);
        }
        Expr::Binary(binary) => {
            collect(&binary.left, into);
            collect(&binary.right, into);
        }
        Expr::Negate(expr) => collect(expr, into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_with_one_range_says_it() {
        for (text, range_ms) in [
            ("sum(rate(x[2m])) by (pod)", Some(120_000)),
            ("rate(a[1m]) / rate(b[1m])", Some(60_000)),
            ("rate(a[1m]) / rate(b[2m])", None),
            ("sum(x)", None),
            ("max_over_time(rate(x[1m])[5m:1m])", None),
        ] {
            assert_eq!(Query::parse(text).expect("a query").only_range_ms(), range_ms, "{text}");
        }
    }
}
