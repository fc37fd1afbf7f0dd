//! Series selectors: `name{label="value",…}`, as `match[]` of Prometheus' HTTP API and rule files have them.
//!
//! The grammar is that of the crate `promql-parser`; an expression that is more than a selector is
//! refused by name.

use crate::text::start_of;
use lookback_storage::{METRIC_NAME_LABEL, MatchOp, Matcher, MatcherError};
use promql_parser::label::MatchOp as Operator;
use promql_parser::parser::{Expr, parse as parse_promql};
use thiserror::Error;

/// Longest selector, in bytes: bounds how deep the parser can be led.
const BYTES_MAX: usize = 8 << 10;

/// Text that is no selector.
#[derive(Debug, Error)]
pub enum SelectorError {
    /// It is longer than any sensible one.
    #[error("a series selector of {bytes} bytes is longer than {BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It can't be read.
    #[error("the series selector {text:?} can't be read: {problem}: write name{{label=\"value\"}}")]
    Syntax {
        /// Its beginning.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// It is an expression, but not a selector.
    #[error(
        "{text:?} is more than a series selector: write name{{label=\"value\"}}, without functions, ranges, offset, @ and or"
    )]
    NoSelector {
        /// Its beginning.
        text: String,
    },
    /// One of its regular expressions can't be used.
    #[error(transparent)]
    Matcher(#[from] MatcherError),
}

/// The matchers of a selector; at least one, of which one does not match an absent label.
///
/// # Errors
/// When the text is no selector.
pub fn parse(text: &str) -> Result<Vec<Matcher>, SelectorError> {
    if text.len() > BYTES_MAX {
        return Err(SelectorError::TooLong { bytes: text.len() });
    }
    let more = || SelectorError::NoSelector { text: start_of(text) };
    // Brackets and numbers belong into quoted values only: nothing of an expression may lead the parser deep, or
    // to a duration that is more than one holds.
    if has_expression_outside_quotes(text) {
        return Err(more());
    }
    let parsed = parse_promql(text)
        .map_err(|problem| SelectorError::Syntax { text: start_of(text), problem: start_of(&problem) })?;
    let Expr::VectorSelector(selector) = parsed else { return Err(more()) };
    if selector.offset.is_some() || selector.at.is_some() || !selector.matchers.or_matchers.is_empty() {
        return Err(more());
    }
    let mut matchers = Vec::new();
    matchers.extend(selector.name.map(|name| Matcher::equal(METRIC_NAME_LABEL, name)));
    for matcher in selector.matchers.matchers {
        let op = match matcher.op {
            Operator::Equal => MatchOp::Equal,
            Operator::NotEqual => MatchOp::NotEqual,
            Operator::Re(_) => MatchOp::Regex,
            Operator::NotRe(_) => MatchOp::NotRegex,
        };
        matchers.push(Matcher::new(matcher.name, op, matcher.value)?);
    }
    if matchers.iter().all(|matcher| matcher.matches_value("")) {
        let problem =
            "it matches series without any label: at least one matcher must not match the empty text";
        return Err(SelectorError::Syntax { text: start_of(text), problem: problem.to_owned() });
    }
    Ok(matchers)
}

/// Whether there is more outside quoted values than one name, braces, and what stands in them: brackets, numbers,
/// `@`, or a second word (`offset`).
fn has_expression_outside_quotes(text: &str) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    let (mut quote, mut before, mut in_braces, mut words) = (None, ' ', false, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '(' | '[' | '@') => return true,
            (None, '{') => in_braces = true,
            (None, '}') => in_braces = false,
            // A comment, to the end of the line.
            (None, '#') => while characters.next().is_some_and(|c| !matches!(c, '\n' | '\r')) {},
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, first) if is_of_word(first) && !is_of_word(before) => {
                words += usize::from(!in_braces);
                if first.is_ascii_digit() || words > 1 {
                    return true;
                }
            }
            (Some('"' | '\''), '\\') => {
                characters.next();
            }
            (Some(opening), closing) if opening == closing => quote = None,
            _ => {}
        }
        before = if quote.is_some() || character == '#' { ' ' } else { character };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::Labels;
    use proptest::prelude::*;

    #[test]
    fn selectors_are_read_as_prometheus_reads_them() {
        let labels =
            Labels::new([("__name__", "cpu"), ("pod", "web (1)"), ("namespace", "shop")]).expect("valid");
        for (text, matches) in [
            ("cpu", true),
            ("cpu{}", true),
            (r#"{__name__="cpu"}"#, true),
            (r#"cpu{namespace="shop",pod=~"web .*"}"#, true),
            (r#"cpu{pod="web (1)"}"#, true),
            (r#"cpu{pod!~"web.+"}"#, false),
            (r#"cpu{pod!="\"["}"#, true),
            (r#"cpu{pod!='it\'s (',namespace=`shop`}"#, true),
            (r#"{__name__=~"c.*|memory", namespace!="shop"}"#, false),
        ] {
            let matchers = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(matchers.iter().all(|matcher| matcher.matches(&labels)), matches, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_what_would_be_one() {
        for text in [
            "",
            "{}",
            r#"{a=""}"#,
            r#"{a=~".*"}"#,
            "cpu[5m]",
            "cpu # \"\n[5m]",
            "cpu offset 5m",
            "cpu @ 1",
            "rate(cpu[5m])",
            "1",
            "cpu + cpu",
            "(cpu)",
            "cpu{",
            r#"cpu{a="b" or c="d"}"#,
            r#"cpu{a=~"("}"#,
            "cpu}",
            "{a=b}",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.len() < 400, "{error}");
        }
        assert!(matches!(parse(&"(".repeat(BYTES_MAX)), Err(SelectorError::NoSelector { .. })));
        assert!(matches!(parse(&"a".repeat(BYTES_MAX + 1)), Err(SelectorError::TooLong { .. })));
    }

    /// Found by the fuzz target `retention_rules`.
    #[test]
    fn a_comment_hides_nothing_behind_a_carriage_return() {
        let digits = "4".repeat(400);
        for text in [
            format!("m#\r[{digits}]"),
            format!("m offset {digits}"),
            format!("m#\r offset {digits}s"),
            "m offset inf".to_owned(),
            "m @ -inf".to_owned(),
            "m offset nan".to_owned(),
            format!("m @ .{digits}e999"),
        ] {
            assert!(parse(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"([a-z{}()\[\]"',=~!@ ]|\\PC){0,60}"#) {
            let _ = parse(&text);
        }
    }
}
