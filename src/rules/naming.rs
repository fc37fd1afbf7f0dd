//! From the names of series to those of metrics: `seriesFilters` and `name` of a rule.
//!
//! Regular expressions are not anchored, and `as` takes `$1`, `${1}` and `${name}`, as in Go: `$1_x` means the
//! group `1_x`.

use super::config::{FilterText, RuleText};
use regex::{Regex, RegexBuilder};

/// Largest compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Names series.
#[derive(Clone, Debug)]
pub struct Naming {
    filters: Vec<(Regex, bool)>,
    matches: Regex,
    named_as: String,
}

impl Naming {
    /// Of a rule.
    ///
    /// # Errors
    /// When an expression can't be read, or does not say what a metric is called.
    pub fn of(rule: &RuleText) -> Result<Self, String> {
        let filter = |filter: &FilterText| match filter {
            FilterText::Is(text) => Ok((compile(text, "seriesFilters: is")?, true)),
            FilterText::IsNot(text) => Ok((compile(text, "seriesFilters: isNot")?, false)),
        };
        let filters = rule.filters.iter().map(filter).collect::<Result<_, String>>()?;
        let matches = compile(rule.matches.as_deref().unwrap_or(".*"), "name: matches")?;
        let named_as = match (&rule.named_as, matches.captures_len()) {
            (Some(text), _) => text.clone(),
            (None, 1) => "$0".to_owned(),
            (None, 2) => "$1".to_owned(),
            (None, groups) => {
                return Err(format!(
                    "name: matches has {} groups: say by `as` what the metric is called",
                    groups - 1
                ));
            }
        };
        Ok(Self { filters, matches, named_as })
    }

    /// The metric that series of this name are; `None`: this rule is not for them.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<String> {
        let passes = self.filters.iter().all(|(regex, is)| regex.is_match(series) == *is);
        let captures = self.matches.captures(series).filter(|_| passes)?;
        let mut name = String::new();
        captures.expand(&self.named_as, &mut name);
        Some(name).filter(|name| !name.is_empty())
    }
}

fn compile(text: &str, what: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    compiled.map_err(|error| format!("{what}: {text:?} is no regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(
        matches: Option<&str>,
        named_as: Option<&str>,
        filters: &[FilterText],
    ) -> Result<Naming, String> {
        Naming::of(&RuleText {
            matches: matches.map(str::to_owned),
            named_as: named_as.map(str::to_owned),
            filters: filters.to_vec(),
            ..RuleText::default()
        })
    }

    #[test]
    fn a_name_is_made_of_groups_as_documented() {
        for (matches, named_as, series, metric) in [
            (None, None, "http_requests", Some("http_requests")),
            (Some("^container_(.*)_seconds_total$"), None, "container_cpu_seconds_total", Some("cpu")),
            (Some("^container_(.*)_seconds_total$"), None, "container_memory_bytes", None),
            (
                Some("^(.*)_total$"),
                Some("${1}_per_second"),
                "http_requests_total",
                Some("http_requests_per_second"),
            ),
            (Some("^(?P<what>.*)_(total)$"), Some("${what}.$2"), "jobs_total", Some("jobs.total")),
            (Some("^(.*)_total$"), Some("$1_per_second"), "jobs_total", None),
            (None, Some("cheesy_goodness"), "cheddar", Some("cheesy_goodness")),
            (Some("requests"), None, "http_requests_total", Some("requests")),
        ] {
            let naming = naming(matches, named_as, &[]).expect("usable");
            assert_eq!(naming.metric(series).as_deref(), metric, "{matches:?} {named_as:?} {series}");
        }
    }

    #[test]
    fn filters_hold_all_of_them() {
        let filters = [FilterText::Is("^container_".into()), FilterText::IsNot("_seconds_total$".into())];
        let naming = naming(None, None, &filters).expect("usable");
        for (series, is_kept) in [
            ("container_network_bytes_total", true),
            ("container_cpu_seconds_total", false),
            ("http_requests_total", false),
        ] {
            assert_eq!(naming.metric(series).is_some(), is_kept, "{series}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_to_do() {
        for (matches, said) in
            [("(a)(b)", "by `as`"), ("(", "no regular expression"), ("(?=a)", "no regular")]
        {
            let error = naming(Some(matches), None, &[]).expect_err(matches);
            assert!(error.contains(said), "{error}");
        }
    }
}
