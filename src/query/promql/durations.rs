//! Durations that are computed: `[5m * 2]`, `[max_of(step(), 1m)]`, `offset (1h / 2)`.
//!
//! The parser knows durations only as they are written, so what is computed is put in its place before: `[10m]`. It
//! is computed as in Prometheus: in seconds, `^` before a sign, a sign as `* / %`, those before `+ -`.

use super::error::ParseError;
use super::guard::DURATION_SECONDS_MAX;
use crate::text::start_of;
use crate::time::{format_duration, parse_duration_or_zero};
use std::borrow::Cow;

/// Deepest nesting within a duration.
const DEPTH_MAX: usize = 200;

/// What `step()` and `range()` are: of a query at one instant nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From step to step of a range query, in milliseconds.
    pub step_ms: i64,
    /// From its start to its end, in milliseconds.
    pub range_ms: i64,
}

type Folded<T> = Result<T, ParseError>;

/// The query with what is computed in its place.
pub(super) fn fold(text: &str, times: Times) -> Folded<Cow<'_, str>> {
    let mut folder = Folder { rest: text, folded: String::new(), changed: false, after_operand: false };
    while let Some(first) = folder.rest.chars().next() {
        folder.take(first, times)?;
    }
    Ok(if folder.changed { Cow::Owned(folder.folded) } else { Cow::Borrowed(text) })
}

struct Folder<'a> {
    rest: &'a str,
    folded: String,
    changed: bool,
    /// Whether an `offset` here is the modifier, not the name of a metric.
    after_operand: bool,
}

impl<'a> Folder<'a> {
    fn skip(&mut self, bytes: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        skipped
    }

    fn copy(&mut self, bytes: usize) -> &'a str {
        let copied = self.skip(bytes);
        self.folded.push_str(copied);
        copied
    }

    fn take(&mut self, first: char, times: Times) -> Folded<()> {
        match first {
            '#' => {
                let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
                self.copy(end);
            }
            '"' | '\'' | '`' => {
                self.copy(string_bytes(self.rest, first));
                self.after_operand = true;
            }
            '[' => {
                self.copy(1);
                self.brackets(times)?;
                self.after_operand = true;
            }
            c if is_of_word(c) || c == ':' => {
                let end = self.rest.find(|c| !is_of_word(c) && c != ':').unwrap_or(self.rest.len());
                let word = self.copy(end).to_ascii_lowercase();
                if self.after_operand && word == "offset" {
                    self.offset(end, times)?;
                }
                self.after_operand = !is_keyword(&word);
            }
            c => {
                self.copy(c.len_utf8());
                if !c.is_whitespace() {
                    self.after_operand = matches!(c, ')' | '}' | ']');
                }
            }
        }
        Ok(())
    }

    /// A range and the step of a subquery, from behind the bracket up to the one that closes it.
    fn brackets(&mut self, times: Times) -> Folded<()> {
        let end = self.rest.find(']').unwrap_or(self.rest.len());
        let inside = self.rest.get(..end).unwrap_or_default();
        if !inside.contains(['+', '-', '*', '/', '%', '^', '(']) {
            self.copy(end);
            return Ok(());
        }
        let mut parser = Parser { rest: inside, times, depth: 0, asks_times: false };
        let range = parser.sum()?;
        let mut written = parser.positive(range)?;
        if parser.eat(':') {
            written.push(':');
            if !parser.rest.trim().is_empty() {
                let step = parser.sum()?;
                written += &parser.positive(step)?;
            }
        }
        parser.end()?;
        self.put(end, &written);
        Ok(())
    }

    /// What stands behind an `offset` of so many bytes, if it is computed, in brackets or a function, or nothing: the
    /// parser knows no offset of 0.
    fn offset(&mut self, word_bytes: usize, times: Times) -> Folded<()> {
        let mut parser = Parser { rest: self.rest, times, depth: 0, asks_times: false };
        let negative = parser.eat('-');
        if !negative {
            parser.eat('+');
        }
        if !parser.is_bracket_or_function() && number(parser.word()) != Some(0.0) {
            return Ok(());
        }
        let seconds = parser.primary()?;
        let ms = duration(if negative { -seconds } else { seconds })?;
        let bytes = self.rest.len() - parser.rest.len();
        if ms == 0 {
            self.folded.truncate(self.folded.len() - word_bytes);
            self.put(bytes, "");
        } else {
            self.put(bytes, &format!(" {}", format_duration(ms)));
        }
        Ok(())
    }

    fn put(&mut self, bytes: usize, written: &str) {
        self.skip(bytes);
        self.folded.push_str(written);
        self.changed = true;
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

fn is_keyword(word: &str) -> bool {
    let operators = ["and", "or", "unless", "atan2", "bool"];
    let modifiers = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    operators.contains(&word) || modifiers.contains(&word)
}

/// How long a string is with its quotes.
fn string_bytes(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == quote {
            return at + c.len_utf8();
        }
        if c == '\\' && quote != '`' {
            characters.next();
        }
    }
    text.len()
}

/// Milliseconds of seconds.
fn duration(seconds: f64) -> Folded<i64> {
    if !seconds.is_finite() {
        return Err(ParseError::new("parse error: duration is NaN or infinite"));
    }
    if seconds.abs() > DURATION_SECONDS_MAX {
        return Err(ParseError::new(format!("parse error: duration out of range: {seconds} s")));
    }
    Ok((seconds * 1_000.0) as i64)
}

/// Computes one duration, in seconds.
struct Parser<'a> {
    rest: &'a str,
    times: Times,
    depth: usize,
    asks_times: bool,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn unexpected(&self) -> ParseError {
        let rest = self.rest.trim_start();
        let what = if rest.is_empty() { "its end".to_owned() } else { format!("{:?}", start_of(rest)) };
        ParseError::new(format!("parse error: unexpected {what} in a duration"))
    }

    fn end(&self) -> Folded<()> {
        if self.rest.trim().is_empty() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A duration that has to be more than nothing, as it is written.
    fn positive(&self, seconds: f64) -> Folded<String> {
        match duration(seconds)? {
            ms if ms > 0 => Ok(format_duration(ms)),
            _ if self.asks_times => Err(ParseError::new(
                "parse error: duration must be greater than 0: step() and range() are 0 but in a range query",
            )),
            _ => Err(ParseError::new("parse error: duration must be greater than 0")),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Folded<T>) -> Folded<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ParseError::new(format!("a duration is nested more than {DEPTH_MAX} deep")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn sum(&mut self) -> Folded<f64> {
        let mut sum = self.product()?;
        loop {
            if self.eat('+') {
                sum += self.product()?;
            } else if self.eat('-') {
                sum -= self.product()?;
            } else {
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Folded<f64> {
        let mut product = self.signed()?;
        loop {
            if self.eat('*') {
                product *= self.signed()?;
            } else if self.eat('/') {
                product /= self.divisor("division by zero")?;
            } else if self.eat('%') {
                product %= self.divisor("modulo by zero")?;
            } else {
                return Ok(product);
            }
        }
    }

    fn divisor(&mut self, zero: &str) -> Folded<f64> {
        match self.signed()? {
            0.0 => Err(ParseError::new(format!("parse error: {zero}"))),
            divisor => Ok(divisor),
        }
    }

    fn signed(&mut self) -> Folded<f64> {
        if self.eat('-') {
            return Ok(-self.deeper(Self::signed)?);
        }
        if self.eat('+') {
            return self.deeper(Self::signed);
        }
        let base = self.primary()?;
        if self.eat('^') { Ok(base.powf(self.deeper(Self::signed)?)) } else { Ok(base) }
    }

    fn word(&self) -> &'a str {
        let rest = self.rest.trim_start();
        let mut end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let after = rest.get(end..).unwrap_or_default();
        let is_decimal =
            word.starts_with(|c: char| c.is_ascii_digit() || c == '.') && !word.starts_with("0x");
        if is_decimal && word.ends_with(['e', 'E']) && after.starts_with(['+', '-']) {
            let digits = after.get(1..).unwrap_or_default();
            end += 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        }
        rest.get(..end).unwrap_or_default()
    }

    fn is_bracket_or_function(&self) -> bool {
        let rest = self.rest.trim_start();
        let functions = ["step", "range", "min_of", "max_of"];
        let is_function = functions.iter().any(|name| self.word().eq_ignore_ascii_case(name));
        let behind = rest.get(self.word().len()..).unwrap_or_default();
        rest.starts_with('(') || (is_function && behind.trim_start().starts_with('('))
    }

    fn primary(&mut self) -> Folded<f64> {
        if self.eat('(') {
            let inner = self.deeper(Self::sum)?;
            return if self.eat(')') { Ok(inner) } else { Err(self.unexpected()) };
        }
        let word = self.word();
        if self.is_bracket_or_function() {
            self.rest = self.rest.trim_start().get(word.len()..).unwrap_or_default();
            self.eat('(');
            let value = self.function(&word.to_ascii_lowercase())?;
            return if self.eat(')') { Ok(value) } else { Err(self.unexpected()) };
        }
        let value = number(word).ok_or_else(|| self.unexpected())?;
        self.rest = self.rest.trim_start().get(word.len()..).unwrap_or_default();
        Ok(value)
    }

    fn function(&mut self, name: &str) -> Folded<f64> {
        let ms = match name {
            "step" => self.times.step_ms,
            "range" => self.times.range_ms,
            _ => {
                let one = self.deeper(Self::sum)?;
                if !self.eat(',') {
                    return Err(self.unexpected());
                }
                let other = self.deeper(Self::sum)?;
                return Ok(if name == "min_of" { one.min(other) } else { one.max(other) });
            }
        };
        self.asks_times = true;
        Ok(ms as f64 / 1_000.0)
    }
}

/// Seconds, as a number or with units.
fn number(word: &str) -> Option<f64> {
    if let Some(hex) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|number| number as f64);
    }
    let number = word.parse::<f64>().ok().filter(|_| !word.is_empty());
    number.or_else(|| parse_duration_or_zero(word).ok().map(|ms| ms as f64 / 1_000.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMES: Times = Times { step_ms: 10_000, range_ms: 3_600_000 };

    #[test]
    fn what_is_computed_is_put_in_its_place() {
        for (text, expected) in [
            ("a[5m * 2]", "a[10m]"),
            ("a[(5+2) * 1m]", "a[7m]"),
            ("a[29s+1s:((((8 - 2) / 3) * 7s) % 4) + 8000ms]", "a[30s:10s]"),
            ("a[1h/2:]", "a[30m:]"),
            ("a[-5m+35m+0s]", "a[30m]"),
            ("a[2^3^0 * 1m]", "a[2m]"),
            ("a[-2^2+5]", "a[1s]"),
            ("a[1e+1*0x2]", "a[20s]"),
            ("a[STep() + 1]", "a[11s]"),
            ("a[min_of(range(), 2*30m) : max_of(step(), 5s)]", "a[1h:10s]"),
            ("a[((max_of(min_of((step()+1),((1h))),1ms)))]", "a[11s]"),
            ("a[5m] offset (1h / 2)", "a[5m] offset 30m"),
            ("a offset -(2m*2)", "a offset -4m"),
            ("a offset - step()*2", "a offset -10s*2"),
            ("a offset +min_of(step(), 1s)^0", "a offset 1s^0"),
            ("a{b=\"offset (1)\"} offset (step() - 10)", "a{b=\"offset (1)\"} "),
            ("a offset 0s + b offset -0", "a  + b "),
            // As they are written.
            ("a[5m] offset 5m + (2)", "a[5m] offset 5m + (2)"),
            ("offset + (2)", "offset + (2)"),
            ("a and offset + (2)", "a and offset + (2)"),
            ("sum by (offset) (a)", "sum by (offset) (a)"),
            ("{a=\"[1+1]\"} # [1+1]\n + b[1m:5s]", "{a=\"[1+1]\"} # [1+1]\n + b[1m:5s]"),
        ] {
            assert_eq!(fold(text, TIMES).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for (text, why) in [
            ("a[5m - 5m]", "greater than 0"),
            ("a[step() * 1]", "step() and range() are 0"),
            ("a[1/0]", "division by zero"),
            ("a[1 % (1-1)]", "modulo by zero"),
            ("a[Inf*1]", "NaN or infinite"),
            ("a[1*99999999999y]", "unexpected \"99999999999y\" in a duration"),
            ("a[1y^9]", "out of range"),
            ("a[5m +]", "unexpected its end"),
            ("a[(5m]", "unexpected its end"),
            ("a[min_of(1)]", "unexpected \")\""),
            ("a offset (1 2)", "unexpected \"2)\""),
            ("a[0.0001*1]", "greater than 0"),
        ] {
            let error = fold(text, Times::default()).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let signs = format!("a[{}1]", "-".repeat(10_000));
        assert!(fold(&signs, TIMES).expect_err("too deep").to_string().contains("nested more than 200"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z\\[\\]()+*/^%:,'\"# 0-9-]{0,40}") {
            let _ = fold(&text, TIMES);
            let _ = fold(&format!("a[{text}] offset ({text})"), TIMES);
        }
    }
}
