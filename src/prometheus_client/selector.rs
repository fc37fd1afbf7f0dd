//! Matchers as the text of a series selector.

use lookback_storage::{MatchOp, Matcher};

/// `{name="value",…}`. The metric's name is a matcher like others, so that any name can be asked for; a
/// label's name that is no identifier is quoted, which Prometheus understands from version 3 on.
#[must_use]
pub fn selector<'a>(matchers: impl IntoIterator<Item = &'a Matcher>) -> String {
    let mut text = String::from("{");
    for matcher in matchers {
        if text.len() > 1 {
            text.push(',');
        }
        if is_identifier(matcher.name()) {
            text.push_str(matcher.name());
        } else {
            quote(matcher.name(), &mut text);
        }
        text.push_str(match matcher.op() {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        });
        quote(matcher.value(), &mut text);
    }
    text.push('}');
    text
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A text in double quotes, as Go reads it.
fn quote(text: &str, into: &mut String) {
    into.push('"');
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            control if control.is_control() => {
                into.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => into.push(other),
        }
    }
    into.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series_selector;
    use proptest::prelude::*;

    #[test]
    fn names_and_values_are_quoted() {
        let matchers = [
            Matcher::equal("__name__", "http requests/sec é"),
            Matcher::not_equal("k8s.pod", "a\"\\\n\r"),
            Matcher::new("pod", MatchOp::Regex, "web-.+").expect("compiles"),
        ];
        assert_eq!(
            selector(&matchers),
            r#"{__name__="http requests/sec é","k8s.pod"!="a\"\\\n\u000d",pod=~"web-.+"}"#
        );
        assert_eq!(selector(&[]), "{}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[a-z_][a-z0-9_]{0,5}", value in "[ -z~é\n\t\"\\\\]{0,12}", equal: bool) {
            let matcher = if equal { Matcher::equal(&name, &value) } else { Matcher::not_equal(&name, &value) };
            let text = selector(&[Matcher::equal("__name__", "m"), matcher]);
            let read = series_selector::parse(&text).expect("a selector");
            let read = read.last().expect("two matchers");
            prop_assert_eq!((read.name(), read.value()), (name.as_str(), value.as_str()));
        }
    }
}
