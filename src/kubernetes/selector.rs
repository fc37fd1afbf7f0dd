//! Kubernetes label selectors, as they come in `labelSelector` and `metricLabelSelector`.
//!
//! ```text
//! selector    = [ requirement *( "," requirement ) ]
//! requirement = key | "!" key | key ( "=" | "==" | "!=" ) value | key ( "in" | "notin" ) "(" values ")"
//! ```
//!
//! Keys and values are any run of characters that have no meaning above: metric labels hold paths and
//! other text that Kubernetes' own object labels could not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector};
use lookback_storage::Labels;
use std::collections::BTreeSet;
use thiserror::Error;

/// Longest selector that is looked at, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 4_096;

/// A selector that can't be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unable to parse requirement: {0}")]
pub struct SelectorError(String);

/// Reads a selector; an empty one selects everything.
///
/// Its requirements come sorted by key, so that it shows itself as Go's selectors do.
///
/// # Errors
/// When `text` is not a selector, or longer than [`SELECTOR_BYTES_MAX`].
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(SelectorError(format!(
            "a selector of {} bytes is longer than {SELECTOR_BYTES_MAX}",
            text.len()
        )));
    }
    let mut parser = Parser { rest: text.trim_start() };
    let mut expressions = Vec::new();
    while parser.peek() != Token::End {
        expressions.push(parser.requirement()?);
        match parser.next() {
            Token::End => break,
            Token::Comma => {
                if !matches!(parser.peek(), Token::Word(_) | Token::Not) {
                    return Err(parser.unexpected("identifier after ','"));
                }
            }
            other => return Err(found(other, "',' or 'end of string'")),
        }
    }
    expressions.sort_by(|a, b| key_of(a).cmp(key_of(b)));
    keep_equalities_apart(&mut expressions);
    Ok(expressions.into_iter().collect())
}

/// A key that must equal two values can't be shown as matchLabels, which has one value a key: it is shown
/// as sets of one.
fn keep_equalities_apart(sorted: &mut [Expression]) {
    for of_key in sorted.chunk_by_mut(|a, b| key_of(a) == key_of(b)) {
        if of_key.iter().filter(|e| matches!(e, Expression::Equal(..))).count() < 2 {
            continue;
        }
        for expression in of_key {
            if let Expression::Equal(key, value) = expression {
                *expression = Expression::In(std::mem::take(key), BTreeSet::from([std::mem::take(value)]));
            }
        }
    }
}

/// A selector made ready to be held against many label sets.
#[derive(Clone, Debug)]
pub struct Requirements(Vec<Requirement>);

#[derive(Clone, Debug)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Requirements {
    /// Those of a selector.
    #[must_use]
    pub fn of(selector: &Selector) -> Self {
        let LabelSelector { match_labels, match_expressions } = selector.clone().into();
        let labels = match_labels.unwrap_or_default().into_iter();
        let labels =
            labels.map(|(key, value)| Requirement { key, condition: Condition::In(BTreeSet::from([value])) });
        let expressions = match_expressions.unwrap_or_default().into_iter().map(|expression| {
            let values = || expression.values.clone().unwrap_or_default().into_iter().collect();
            let condition = match expression.operator.as_str() {
                "In" => Condition::In(values()),
                "NotIn" => Condition::NotIn(values()),
                "DoesNotExist" => Condition::DoesNotExist,
                _ => Condition::Exists,
            };
            Requirement { key: expression.key, condition }
        });
        Self(labels.chain(expressions).collect())
    }

    /// Nothing is required.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether every label set has what is required.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a label set has what is required.
    pub fn hold<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|Requirement { key, condition }| {
            let value = label(key);
            match condition {
                Condition::In(values) => value.is_some_and(|value| values.contains(value)),
                Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Condition::Exists => value.is_some(),
                Condition::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Whether a series is selected by its metric labels: all but those in `identity`, which say whose
    /// metric it is.
    #[must_use]
    pub fn select(&self, labels: &Labels, identity: &[&str]) -> bool {
        self.hold(|key| labels.get(key).filter(|_| !identity.contains(&key)))
    }
}

/// Whether a series is selected by its metric labels. For many series [`Requirements`] are faster.
#[must_use]
pub fn matches(selector: &Selector, labels: &Labels, identity: &[&str]) -> bool {
    Requirements::of(selector).select(labels, identity)
}

/// The selector as answers repeat it; `None` for one that selects everything.
#[must_use]
pub fn to_label_selector(selector: &Selector) -> Option<LabelSelector> {
    (!selector.selects_all()).then(|| selector.clone().into())
}

fn key_of(expression: &Expression) -> &str {
    match expression {
        Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    NotEqual,
    Equal,
    DoubleEqual,
    Greater,
    Less,
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(word) => word,
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::NotEqual => "!=",
            Self::Equal => "=",
            Self::DoubleEqual => "==",
            Self::Greater => ">",
            Self::Less => "<",
            Self::End => "",
        }
    }
}

/// Longest first, so that `==` is not read as two.
const SYMBOLS: [Token<'static>; 9] = [
    Token::DoubleEqual,
    Token::NotEqual,
    Token::Equal,
    Token::Not,
    Token::Comma,
    Token::Open,
    Token::Close,
    Token::Greater,
    Token::Less,
];

fn found(token: Token<'_>, expected: &str) -> SelectorError {
    SelectorError(format!("found '{}', expected: {expected}", token.text()))
}

struct Parser<'a> {
    /// What has not been read; never begins with a space.
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        if self.rest.is_empty() {
            return Token::End;
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|s| self.rest.starts_with(s.text())) {
            return symbol;
        }
        let special = |c: char| c.is_whitespace() || "=!,()<>".contains(c);
        Token::Word(self.rest.split(special).next().unwrap_or_default())
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        let rest = self.rest.strip_prefix(token.text()).unwrap_or_default();
        self.rest = rest.trim_start();
        token
    }

    fn unexpected(&self, expected: &str) -> SelectorError {
        found(self.peek(), expected)
    }

    fn requirement(&mut self) -> Result<Expression, SelectorError> {
        match self.next() {
            Token::Not => match self.next() {
                Token::Word(key) => Ok(Expression::DoesNotExist(key.to_owned())),
                other => Err(found(other, "identifier")),
            },
            Token::Word(key) => self.condition(key.to_owned()),
            other => Err(found(other, "!, identifier, or 'end of string'")),
        }
    }

    fn condition(&mut self, key: String) -> Result<Expression, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(Expression::Exists(key));
        }
        match self.next() {
            Token::Equal | Token::DoubleEqual => Ok(Expression::Equal(key, self.value()?)),
            Token::NotEqual => Ok(Expression::NotEqual(key, self.value()?)),
            Token::Word("in") => Ok(Expression::In(key, self.values()?)),
            Token::Word("notin") => Ok(Expression::NotIn(key, self.values()?)),
            Token::Greater | Token::Less => Err(SelectorError(
                "the operators '>' and '<' are not served here, expected: in, notin, =, ==, !=".to_owned(),
            )),
            other => Err(found(other, "in, notin, =, ==, !=")),
        }
    }

    /// One value; none at all is the empty one.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                Ok(word.to_owned())
            }
            Token::End | Token::Comma => Ok(String::new()),
            other => Err(found(other, "identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(found(other, "'('")),
        }
        if self.peek() == Token::Close {
            return Err(SelectorError(
                "for 'in', 'notin' operators, the set of values can't be empty".to_owned(),
            ));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.peek() {
                Token::Word(word) => {
                    self.next();
                    values.insert(word.to_owned());
                }
                Token::Comma | Token::Close => {
                    values.insert(String::new());
                }
                other => return Err(found(other, "',', ')' or identifier")),
            }
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                other => return Err(found(other, "',' or ')'")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn every_form_is_read_and_shown_sorted_by_key() {
        for (text, shown) in [
            ("", ""),
            ("  ", ""),
            ("verb=GET", "verb=GET"),
            (" verb == GET ", "verb=GET"),
            ("verb!=GET", "verb!=GET"),
            ("verb=GET,code in (201, 200)", "code in (200,201),verb=GET"),
            ("tier notin (a,b)", "tier notin (a,b)"),
            ("!canary", "!canary"),
            ("canary", "canary"),
            ("b,a,!c", "a,b,!c"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("a=", "a="),
            ("a=,b", "a=,b"),
            ("a in (,x)", "a in (,x)"),
            ("route=/api/v1", "route=/api/v1"),
            ("app.kubernetes.io/name=web", "app.kubernetes.io/name=web"),
        ] {
            assert_eq!(canonical(text), shown, "{text:?}");
        }
    }

    #[test]
    fn broken_selectors_are_refused_in_the_words_of_go() {
        for text in [
            "=",
            "a b",
            "a in",
            "a in (",
            "a in ()",
            "a in (x",
            "a notin x",
            "!!a",
            "!",
            ",",
            "a,",
            "a,,b",
            "a=b=c",
            "a=(x)",
            "!a=b",
            "a>1",
            "a in (x) y",
            "(",
            "a)",
            "a!",
            "=x",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("unable to parse requirement: "), "{text}: {error}");
        }
        assert_eq!(
            parse("a in x").expect_err("refused").to_string(),
            "unable to parse requirement: found 'x', expected: '('"
        );
        let long = "a".repeat(SELECTOR_BYTES_MAX + 1);
        assert!(parse(&long).expect_err("refused").to_string().contains("longer than 4096"));
    }

    #[test]
    fn series_are_selected_by_their_metric_labels_only() {
        let labels =
            Labels::new([("__name__", "m"), ("pod", "p1"), ("code", "200"), ("verb", "GET")]).expect("valid");
        let selected = |text| matches(&parse(text).expect(text), &labels, &["__name__", "pod"]);
        for text in
            ["", "verb=GET", "code in (200,201),verb=GET", "!pod", "tier notin (a)", "tier!=a", "verb"]
        {
            assert!(selected(text), "{text}");
        }
        for text in
            ["verb=,verb=GET", "verb=POST", "verb!=GET", "pod=p1", "!verb", "tier in (a)", "code notin (200)"]
        {
            assert!(!selected(text), "{text}");
        }
    }

    #[test]
    fn answers_repeat_the_selector_with_expressions_sorted_by_key() {
        let shown = |text| serde_json::to_value(to_label_selector(&parse(text).expect(text))).expect("json");
        assert_eq!(shown(""), serde_json::Value::Null);
        assert_eq!(
            shown("verb=GET,tier notin (b,a),code in (200),!x,w!=1"),
            serde_json::json!({
                "matchLabels": {"verb": "GET"},
                "matchExpressions": [
                    {"key": "code", "operator": "In", "values": ["200"]},
                    {"key": "tier", "operator": "NotIn", "values": ["a", "b"]},
                    {"key": "w", "operator": "NotIn", "values": ["1"]},
                    {"key": "x", "operator": "DoesNotExist"},
                ],
            })
        );
    }

    proptest! {
        #[test]
        fn requirements_hold_as_the_selector_matches(
            text in "((!?[a-c]|[a-c](=|!=)[xyz]?|[a-c] (in|notin) \\([xy](,[yz])?\\)),){0,3}(!?[a-c]|[a-c]=[xyz])",
            labels in proptest::collection::btree_map("[a-d]", "[xyz]?", 0..4),
        ) {
            use kube::core::SelectorExt;
            let selector = parse(&text).expect("a selector");
            let held = Requirements::of(&selector).hold(|key| labels.get(key).map(String::as_str));
            prop_assert_eq!(held, selector.matches(&labels));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", tokens in "([a-c]|in|notin|[=!,()<> ]){0,24}") {
            let _ = parse(&text);
            if let Ok(selector) = parse(&tokens) {
                prop_assert_eq!(parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
