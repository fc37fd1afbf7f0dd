//! From what is asked to the label matchers of a query.
//!
//! Values are escaped: no name or selector can end the text that it stands in. Where several are meant, they
//! are alternatives of a regular expression, each as it is.

use super::template::Value;
use kube::core::{Expression, Selector};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Why a question can't be put into a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CantAsk {
    /// A label's name that PromQL does not have.
    #[error("{0:?} can't be a label of a series: select by names of letters, digits and '_'")]
    Label(String),
    /// A value that would not stay within its quotes.
    #[error(
        "{0:?} can't be put into the query of the rule, which uses LabelValuesByName: use no quotes in it"
    )]
    Value(String),
}

/// Which objects are asked about.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// Each there is.
    All,
    /// These.
    These(&'a [&'a str]),
}

/// What a template can use.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    series: String,
    matchers: Vec<String>,
    /// For templates that put them between quotes of their own.
    values: BTreeMap<String, String>,
    /// The first value that must not leave its quotes.
    risky: Option<String>,
    group_by: Vec<String>,
}

impl Arguments {
    /// For a question about series of this name.
    #[must_use]
    pub fn of(series: &str) -> Self {
        Self { series: series.to_owned(), ..Self::default() }
    }

    /// With the requirements of a selector.
    ///
    /// # Errors
    /// When one can't be asked in PromQL.
    pub fn selecting(mut self, selector: &Selector) -> Result<Self, CantAsk> {
        for expression in selector.clone() {
            let one = |value: String| vec![value];
            let (label, operator, values): (String, &str, Vec<String>) = match expression {
                Expression::Equal(label, value) => (label, "=", one(value)),
                Expression::NotEqual(label, value) => (label, "!=", one(value)),
                Expression::In(label, values) => (label, "=~", values.into_iter().collect()),
                Expression::NotIn(label, values) => (label, "!~", values.into_iter().collect()),
                Expression::Exists(label) => (label, "!=", Vec::new()),
                Expression::DoesNotExist(label) => (label, "=", Vec::new()),
            };
            if !is_label_name(&label) {
                return Err(CantAsk::Label(label));
            }
            let is_regex = operator.ends_with('~');
            let value =
                if is_regex { alternatives(values.iter().map(String::as_str)) } else { values.concat() };
            values.iter().for_each(|value| self.look_at(value));
            self.matchers.push(format!("{label}{operator}\"{}\"", escaped(&value)));
            self.values.insert(label, escaped(&value));
        }
        Ok(self)
    }

    /// Of this namespace.
    #[must_use]
    pub fn within(mut self, label: &str, namespace: &str) -> Self {
        self.look_at(namespace);
        self.matchers.push(format!("{label}=\"{}\"", escaped(namespace)));
        self.values.insert(label.to_owned(), escaped(namespace));
        self
    }

    /// About these objects, a value an object.
    #[must_use]
    pub fn about(mut self, label: &str, names: Names<'_>) -> Self {
        if let Names::These(names) = names {
            names.iter().for_each(|name| self.look_at(name));
        }
        let (operator, value) = match names {
            Names::All => ("=~", ".+".to_owned()),
            Names::These([one]) => ("=", (*one).to_owned()),
            Names::These(several) => ("=~", alternatives(several.iter().copied())),
        };
        self.matchers.push(format!("{label}{operator}\"{}\"", escaped(&value)));
        self.values.insert(label.to_owned(), escaped(&value));
        self.group_by.insert(0, label.to_owned());
        self
    }

    /// With one more label by which values are kept apart.
    #[must_use]
    pub fn also_by(mut self, label: &str) -> Self {
        self.group_by.push(label.to_owned());
        self
    }

    /// No object of Kubernetes is called so, and no sensible label either.
    fn look_at(&mut self, value: &str) {
        let is_risky = |c: char| "\"'`\\{}()[]".contains(c) || c.is_control();
        if self.risky.is_none() && value.contains(is_risky) {
            self.risky = Some(value.to_owned());
        }
    }

    /// `label="value",…`, as in a selector.
    #[must_use]
    pub fn label_matchers(&self) -> String {
        self.matchers.join(",")
    }

    /// A selector of the series that are asked about.
    #[must_use]
    pub fn selector(&self) -> String {
        let is_plain = is_label_name(&self.series.replace(':', "_"));
        match is_plain {
            true => format!("{}{{{}}}", self.series, self.label_matchers()),
            false => {
                let name = format!("__name__=\"{}\"", escaped(&self.series));
                let all: Vec<&str> =
                    std::iter::once(name.as_str()).chain(self.matchers.iter().map(String::as_str)).collect();
                format!("{{{}}}", all.join(","))
            }
        }
    }

    /// As a template sees them.
    ///
    /// # Errors
    /// When a template that uses values as they are would let one out of its quotes.
    pub fn to_value(&self, uses_raw_values: bool) -> Result<Value, CantAsk> {
        if uses_raw_values && let Some(value) = &self.risky {
            return Err(CantAsk::Value(value.clone()));
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let values = self.values.iter().map(|(label, value)| (label.clone(), text(value))).collect();
        let group_by = self.group_by.iter().map(|label| text(label)).collect();
        Ok(Value::Struct(BTreeMap::from([
            ("Series", text(&self.series)),
            ("LabelMatchers", Value::Text(self.label_matchers())),
            ("LabelValuesByName", Value::Map(values)),
            ("GroupBy", Value::Text(self.group_by.join(","))),
            ("GroupBySlice", Value::List(group_by)),
        ])))
    }
}

/// Whether a text is a label's name as PromQL has always had it.
#[must_use]
pub fn is_label_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn alternatives<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.map(regex_literal).collect::<Vec<_>>().join("|")
}

/// A value as a regular expression that matches it alone.
fn regex_literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// A text as PromQL reads it between double quotes.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\0'..='\u{1f}' => {
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            }
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::selector::parse;
    use crate::rules::template::Template;
    use proptest::prelude::*;

    fn rendered(template: &str, arguments: &Arguments) -> Result<String, String> {
        let template = Template::parse(template).expect("a template");
        let value = arguments.to_value(template.uses_raw_values()).map_err(|error| error.to_string())?;
        template.render(&value)
    }

    #[test]
    fn a_question_becomes_what_the_documentation_states() {
        let selector = parse("verb=GET,code in (200,201),!canary,tier!=x,zone").expect("a selector");
        let all = Arguments::of("http_requests_total").selecting(&selector).expect("PromQL");
        let all = all
            .within("namespace", "somens")
            .about("pod", Names::These(&["pod1", "pod2"]))
            .also_by("container");
        for (template, text) in [
            ("<<.Series>>", "http_requests_total"),
            (
                "<<.LabelMatchers>>",
                "canary=\"\",code=~\"200|201\",tier!=\"x\",verb=\"GET\",zone!=\"\",namespace=\"somens\",pod=~\"pod1|pod2\"",
            ),
            ("<<.GroupBy>>", "pod,container"),
            ("<<.GroupBySlice>>", "[pod container]"),
            ("<<index .LabelValuesByName \"pod\">>/<<.LabelValuesByName.namespace>>", "pod1|pod2/somens"),
            ("<<index .LabelValuesByName \"code\">>", "200|201"),
        ] {
            assert_eq!(rendered(template, &all).as_deref(), Ok(text), "{template}");
        }
        let one = Arguments::of("up").within("ns", "a").about("node", Names::These(&["n.1"]));
        assert_eq!(one.selector(), r#"up{ns="a",node="n.1"}"#);
        assert_eq!(Arguments::of("up").about("pod", Names::All).selector(), r#"up{pod=~".+"}"#);
        assert_eq!(Arguments::of("a.b").selector(), r#"{__name__="a.b"}"#);
        let two = Arguments::of("up").about("node", Names::These(&["n.1", "m"]));
        assert_eq!(two.selector(), r#"up{node=~"n\\.1|m"}"#, "a dot is a dot");
    }

    #[test]
    fn values_that_would_leave_their_quotes_are_refused_where_the_template_quotes_them_itself() {
        let names = ["x\"} or vector(1) or x{y=\""];
        let arguments = Arguments::of("up").about("pod", Names::These(&names));
        assert!(rendered("up{pod=\"<<index .LabelValuesByName `pod`>>\"}", &arguments).is_err());
        assert!(rendered("<<.>>", &arguments).is_err());
        let safe = rendered("up{<<.LabelMatchers>>}", &arguments).expect("escaped");
        assert_eq!(safe, r#"up{pod="x\"} or vector(1) or x{y=\""}"#);
        let error = Arguments::of("up").selecting(&parse("app.kubernetes.io/name=web").expect("one")).err();
        assert_eq!(error, Some(CantAsk::Label("app.kubernetes.io/name".to_owned())));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_stays_one_selector(name in "\\PC{1,12}|[\"\\\\'{}\n.|]{1,8}", other in "\\PC{1,8}") {
            let names = [name.as_str(), other.as_str()];
            for names in [Names::These(&names[..1]), Names::These(&names)] {
                let text = Arguments::of("up").within("namespace", &other).about("pod", names).selector();
                let matchers = crate::query::promql::parse_selector(&text);
                let matchers = matchers.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
                prop_assert_eq!(matchers.len(), 3, "{}", text);
                prop_assert!(matchers.iter().any(|matcher| matcher.matches_value(&name)));
                prop_assert!(matchers.iter().any(|matcher| matcher.matches_value(&other)));
            }
        }
    }
}
