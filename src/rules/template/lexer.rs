//! A template's text to pieces: text as it is, and the tokens of actions.

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// As it is.
    Text(&'t str),
    /// What stands between `<<` and `>>`.
    Action(Vec<Token>),
}

/// A token of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `.A`, `.A.B`
    Field(Vec<String>),
    Dot,
    /// `$`, `$x`, `$x.A`
    Variable(String, Vec<String>),
    /// A function's or keyword's name, `true`, `false`, `nil`.
    Word(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    /// `)`, and the fields asked of what it closes.
    Close(Vec<String>),
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

const OPEN: &str = "<<";
const CLOSE: &str = ">>";

/// The pieces of a template, in their order.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(at) = rest.find(OPEN) {
        let (before, action) = rest.split_at(at);
        let action = action.strip_prefix(OPEN).unwrap_or_default();
        // `<<- ` takes the space before it away, ` ->>` the space behind.
        let (action, trims_before) =
            match action.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
                Some(action) => (action, true),
                None => (action, false),
            };
        let before = if trim { before.trim_start() } else { before };
        let before = if trims_before { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        let (inner, behind) = split_action(action)?;
        (rest, trim) = (behind, false);
        let inner = match inner.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace)) {
            Some(inner) => {
                trim = true;
                inner
            }
            None => inner,
        };
        if !is_comment(inner)? {
            pieces.push(Piece::Action(tokens(inner)?));
        }
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// What stands before `>>`, and what behind it. Quotes and comments may hold `>>`.
fn split_action(text: &str) -> Result<(&str, &str), String> {
    let unclosed = || format!("an action is not closed by {CLOSE}: {OPEN}{}", crate::text::start_of(text));
    if text.trim_start().starts_with("/*") {
        let end = text.find("*/").ok_or_else(unclosed)?;
        let behind = text.get(end..).unwrap_or_default();
        let close = behind.find(CLOSE).ok_or_else(unclosed)?;
        let (inner, behind) = text.split_at(end + close);
        return Ok((inner, behind.strip_prefix(CLOSE).unwrap_or_default()));
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None => {
                if let Some(behind) = text.get(at..).and_then(|rest| rest.strip_prefix(CLOSE)) {
                    return Ok((text.get(..at).unwrap_or_default(), behind));
                }
            }
        }
    }
    Err(unclosed())
}

fn is_comment(inner: &str) -> Result<bool, String> {
    let inner = inner.trim();
    if !inner.starts_with("/*") {
        return Ok(false);
    }
    if inner.ends_with("*/") { Ok(true) } else { Err("a comment ends before its action does".to_owned()) }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, behind) = match c {
            '|' => (Token::Pipe, skip(rest, 1)),
            '(' => (Token::Open, skip(rest, 1)),
            ')' => {
                let (fields, behind) = fields(skip(rest, 1));
                (Token::Close(fields), behind)
            }
            ',' => (Token::Comma, skip(rest, 1)),
            '=' => (Token::Assign, skip(rest, 1)),
            ':' if rest.starts_with(":=") => (Token::Declare, skip(rest, 2)),
            '.' => match fields(rest) {
                (fields, behind) if fields.is_empty() => (Token::Dot, skip(behind, 1)),
                (fields, behind) => (Token::Field(fields), behind),
            },
            '$' => {
                let (name, behind) = word(skip(rest, 1));
                let (fields, behind) = fields(behind);
                (Token::Variable(name.to_owned(), fields), behind)
            }
            '"' => quoted(skip(rest, 1))?,
            '`' => {
                let (raw, behind) = skip(rest, 1).split_once('`').ok_or("a text is not closed by `")?;
                (Token::Text(raw.to_owned()), behind)
            }
            c if c.is_ascii_digit() || (c == '-' && rest.len() > 1) => {
                let end = rest
                    .char_indices()
                    .skip(1)
                    .find(|(_, c)| !c.is_ascii_digit())
                    .map_or(rest.len(), |(at, _)| at);
                let (number, behind) = rest.split_at(end);
                let number = number.parse().map_err(|_| format!("{number:?} is no whole number"))?;
                (Token::Number(number), behind)
            }
            c if c.is_alphabetic() || c == '_' => {
                let (name, behind) = word(rest);
                (Token::Word(name.to_owned()), behind)
            }
            other => return Err(format!("{other:?} means nothing between {OPEN} and {CLOSE}")),
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

fn skip(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// `.A.B` at the beginning of a text.
fn fields(mut text: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    while let Some(behind) = text.strip_prefix('.') {
        let (name, behind) = word(behind);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        text = behind;
    }
    (names, text)
}

/// A text in Go's double quotes, behind the first of them.
fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), skip(text, at + 1))),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(c @ ('"' | '\\')) => value.push(c),
                other => return Err(format!("\\{} is not understood in a text", other.unwrap_or(' '))),
            },
            c => value.push(c),
        }
    }
    Err("a text is not closed by \"".to_owned())
}
