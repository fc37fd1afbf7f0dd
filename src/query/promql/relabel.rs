//! `label_replace` and `label_join`.

use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::Expr;
use super::labels::SeriesLabels;
use super::merge::Merger;
use super::series::Series;
use super::steps::Steps;
use lookback_storage::METRIC_NAME_LABEL;
use lookback_storage::labels::limits::VALUE_BYTES_MAX;
use regex::{Regex, RegexBuilder};

/// Most memory that one compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Engine<'_> {
    /// Sets a label to what an expression finds in another.
    pub(super) fn label_replace(&self, args: &[Expr], steps: Steps, sink: Sink<'_>) -> Result<()> {
        let [vector, Expr::Text(target), Expr::Text(template), Expr::Text(source), Expr::Text(regex)] = args
        else {
            return Err(EvalError::execution("label_replace takes a vector and four texts"));
        };
        let compiled = compile(regex)?;
        check_target("label_replace", target)?;
        self.relabel(vector, steps, target, sink, &|labels| {
            let found = compiled.captures(labels.get(source))?;
            let mut value = String::new();
            found.expand(template, &mut value);
            Some(value)
        })
    }

    /// Sets a label to the values of others, joined.
    pub(super) fn label_join(&self, args: &[Expr], steps: Steps, sink: Sink<'_>) -> Result<()> {
        let [vector, Expr::Text(target), Expr::Text(separator), sources @ ..] = args else {
            return Err(EvalError::execution("label_join takes a vector and texts"));
        };
        check_target("label_join", target)?;
        self.relabel(vector, steps, target, sink, &|labels| {
            let text = |source: &Expr| {
                if let Expr::Text(name) = source { labels.get(name).to_owned() } else { String::new() }
            };
            Some(sources.iter().map(text).collect::<Vec<_>>().join(separator))
        })
    }

    fn relabel(
        &self,
        vector: &Expr,
        steps: Steps,
        target: &str,
        sink: Sink<'_>,
        value_of: &dyn Fn(&SeriesLabels) -> Option<String>,
    ) -> Result<()> {
        let mut merger = Merger::default();
        let mut held = self.hold(0)?;
        self.vector(vector, steps, &mut |mut series: Series| {
            if let Some(value) = value_of(&series.labels) {
                if value.len() > VALUE_BYTES_MAX {
                    let message = format!("a new label value has more than {VALUE_BYTES_MAX} bytes");
                    return Err(EvalError::execution(message));
                }
                series.labels = series.labels.with(target, &value);
                series.drop_name &= target != METRIC_NAME_LABEL;
            }
            held.absorb(self.hold(series.points.len())?);
            merger.add(series)
        })?;
        merger.into_series().into_iter().try_for_each(sink)
    }
}

fn compile(regex: &str) -> Result<Regex> {
    let whole = format!("^(?s:{regex})$");
    RegexBuilder::new(&whole)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| EvalError::execution(format!("invalid regular expression in label_replace(): {regex}")))
}

fn check_target(function: &str, target: &str) -> Result<()> {
    if target.is_empty() {
        return Err(EvalError::execution(format!(
            "invalid destination label name in {function}(): {target}"
        )));
    }
    Ok(())
}
