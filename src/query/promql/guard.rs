//! Bounds on a query's text, checked before it is parsed.
//!
//! The parser keeps no bounds of its own: its checks recurse, each expression compiles, and a number where a
//! duration is meant can be more than a duration holds. This looks at brackets, operators and words only;
//! what they mean is the parser's.

use super::error::ParseError;

/// Longest query, in bytes.
pub(super) const QUERY_BYTES_MAX: usize = 256 << 10;

/// Deepest nesting of brackets.
const NESTING_MAX: usize = 200;

/// Most operators: a chain of them is as deep as it is long.
const OPERATORS_MAX: usize = 1_000;

/// Most regular expressions: each is compiled.
const EXPRESSIONS_MAX: usize = 100;

/// Longest duration, in seconds: about 300 years.
pub(super) const DURATION_SECONDS_MAX: f64 = 1e10;

/// Most digits of one number in a duration such as `90s`.
const DURATION_DIGITS_MAX: usize = 9;

/// Largest time of an `@`, in seconds either side of 1970.
const AT_SECONDS_MAX: f64 = 9e12;

/// What a number may be, where the guard has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Anything,
    Duration,
    Time,
}

struct Guard<'a> {
    rest: &'a str,
    open: Vec<char>,
    operators: usize,
    expressions: usize,
    expects: Expects,
}

/// Checks the bounds.
pub(super) fn check(text: &str) -> Result<(), ParseError> {
    if text.len() > QUERY_BYTES_MAX {
        let bytes = text.len();
        return Err(ParseError::new(format!("the query has {bytes} bytes, more than {QUERY_BYTES_MAX}")));
    }
    let expects = Expects::Anything;
    let mut guard = Guard { rest: text, open: Vec::new(), operators: 0, expressions: 0, expects };
    while let Some(first) = guard.rest.chars().next() {
        guard.take(first)?;
    }
    match guard.open.last() {
        None => Ok(()),
        Some('(') => Err(ParseError::new("unclosed left parenthesis")),
        Some('[') => Err(ParseError::new("unclosed left bracket")),
        Some(_) => Err(ParseError::new("unclosed left brace")),
    }
}

impl<'a> Guard<'a> {
    fn skip(&mut self, bytes: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        skipped
    }

    /// Skips as long as characters are `within`.
    fn skip_while(&mut self, within: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !within(c)).unwrap_or(self.rest.len());
        self.skip(end)
    }

    fn take(&mut self, first: char) -> Result<(), ParseError> {
        match first {
            '#' => {
                self.skip_while(|c| !matches!(c, '\n' | '\r'));
            }
            '"' | '\'' | '`' => self.string(first)?,
            '(' | '[' | '{' => {
                self.skip(1);
                self.open.push(first);
                self.expects = if first == '[' { Expects::Duration } else { Expects::Anything };
                if self.open.len() > NESTING_MAX {
                    return Err(ParseError::new(format!(
                        "the query is nested more than {NESTING_MAX} deep: split it"
                    )));
                }
            }
            ')' | ']' | '}' => {
                self.skip(1);
                self.expects = Expects::Anything;
                let opening = match first {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if self.open.pop() != Some(opening) {
                    return Err(ParseError::new(format!("unexpected {first:?}: nothing opens it")));
                }
            }
            ':' if self.open.last() == Some(&'[') => {
                self.skip(1);
                self.expects = Expects::Duration;
            }
            '@' => {
                self.skip(1);
                self.expects = Expects::Time;
            }
            '+' | '-' | '*' | '/' | '%' | '^' | '=' | '!' | '<' | '>' => self.operator(first)?,
            c if c.is_ascii_alphanumeric() || c == '_' || c == '.' => self.word()?,
            c => {
                self.skip(c.len_utf8());
            }
        }
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), ParseError> {
        self.skip(1);
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            if c == quote {
                return Ok(());
            }
            if c == '\\' && quote != '`' {
                check_escape(self.rest)?;
                let escaped = self.rest.chars().next().map_or(0, char::len_utf8);
                self.skip(escaped);
            }
        }
        Ok(())
    }

    fn operator(&mut self, first: char) -> Result<(), ParseError> {
        let operator = self.skip_while(|c| matches!(c, '=' | '!' | '<' | '>' | '~'));
        if operator.is_empty() {
            self.skip(first.len_utf8());
        }
        if operator.contains('~') {
            self.expressions += 1;
        }
        if self.expressions > EXPRESSIONS_MAX {
            return Err(ParseError::new(format!("more than {EXPRESSIONS_MAX} regular expressions")));
        }
        // A sign belongs to the number after it.
        if !matches!(first, '+' | '-') {
            self.expects = Expects::Anything;
        }
        // Matchers and what stands in brackets nest nothing.
        if !matches!(self.open.last(), Some('{' | '[')) {
            self.count_operator()?;
        }
        Ok(())
    }

    fn count_operator(&mut self) -> Result<(), ParseError> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(ParseError::new(format!("more than {OPERATORS_MAX} operators: split the query")));
        }
        Ok(())
    }

    fn word(&mut self) -> Result<(), ParseError> {
        let in_brackets = self.open.last() == Some(&'[');
        let within =
            |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || (c == ':' && !in_brackets);
        let starts_number = self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let text = self.rest;
        let mut bytes = self.skip_while(within).len();
        let is_decimal = starts_number && !text.starts_with("0x") && !text.starts_with("0X");
        let ends_in_exponent = text.get(..bytes).is_some_and(|word| word.ends_with(['e', 'E']));
        if is_decimal && ends_in_exponent && self.rest.starts_with(['+', '-']) {
            bytes += self.skip(1).len();
            bytes += self.skip_while(within).len();
        }
        let word = text.get(..bytes).unwrap_or_default();
        let expects = std::mem::replace(&mut self.expects, Expects::Anything);
        match expects {
            Expects::Duration => check_duration(word)?,
            Expects::Time => check_number(word, AT_SECONDS_MAX, "timestamp out of bounds for @ modifier")?,
            Expects::Anything => {}
        }
        match word.to_ascii_lowercase().as_str() {
            "offset" => self.expects = Expects::Duration,
            "and" | "or" | "unless" | "atan2" => self.count_operator()?,
            _ => {}
        }
        Ok(())
    }
}

/// A text is UTF-8: what a byte of its own, `\xff` or `\377`, would make of it is none.
fn check_escape(escape: &str) -> Result<(), ParseError> {
    let digits = |from: usize, to: usize, radix| u8::from_str_radix(escape.get(from..to)?, radix).ok();
    let byte = if escape.starts_with('x') { digits(1, 3, 16) } else { digits(0, 3, 8) };
    match byte {
        Some(byte) if !byte.is_ascii() => {
            let message = format!("the byte \\x{byte:02x} in a string: write the character itself, or \\u");
            Err(ParseError::new(message))
        }
        _ => Ok(()),
    }
}

fn check_duration(word: &str) -> Result<(), ParseError> {
    check_number(word, DURATION_SECONDS_MAX, "duration out of range")?;
    if word.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > DURATION_DIGITS_MAX)
        && word.parse::<f64>().is_err()
    {
        return Err(ParseError::new(format!("duration out of range: {}", crate::text::start_of(word))));
    }
    Ok(())
}

/// A word that reads as a number is at most so large.
fn check_number(word: &str, max: f64, what: &str) -> Result<(), ParseError> {
    match word.parse::<f64>() {
        Ok(number) if number.is_nan() || number.abs() > max => {
            Err(ParseError::new(format!("{what}: {}", crate::text::start_of(word))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_too_much_is_refused_by_its_bound() {
        let chain = format!("1{}", " + 1".repeat(OPERATORS_MAX + 1));
        let words = format!("a{}", " or a".repeat(OPERATORS_MAX + 1));
        let nested = "(".repeat(100_000);
        let expressions = format!("a{{{}}}", r#"b=~"c","#.repeat(EXPRESSIONS_MAX + 1));
        for (text, said) in [
            (chain.as_str(), "operators"),
            (&words, "operators"),
            (&nested, "nested"),
            (&expressions, "regular expressions"),
            (&" ".repeat(QUERY_BYTES_MAX + 1), "bytes"),
            ("a[1e300]", "out of range"),
            ("a[5m:1e300]", "out of range"),
            ("a[1E+300]", "out of range"),
            ("a offset -1e300", "out of range"),
            ("a OFFSET nan", "out of range"),
            ("a[99999999999y]", "out of range"),
            ("a @ 1e300", "out of bounds"),
            ("a @ -inf", "out of bounds"),
            ("a#\r[1e300]", "out of range"),
            ("(a", "unclosed left parenthesis"),
            ("a[", "unclosed left bracket"),
            ("a{", "unclosed left brace"),
            ("(a]", "nothing opens it"),
            (r#"a{b="\xff"}"#, "\\xff"),
            (r#"a{b='\303\251'}"#, "\\xc3"),
        ] {
            let error = check(text).expect_err(said).to_string();
            assert!(error.contains(said) && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn brackets_and_words_in_strings_and_comments_do_not_count() {
        for text in [
            r#"a{b="((([",c='\'(',d=`\`,e=~"x"} # ((("#,
            "a[5m:1m] offset -1w @ 1700000000.5 + 1e3 - 0x1f",
            "sum by (b, c) (rate(a:b:rate5m[1h30m]))",
            r#"a{b="\x7f\101\u00e9\n",c=`\xff`}"#,
            "\"",
            "ä",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}
