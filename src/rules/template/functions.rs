//! The functions of templates.

use super::Value;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Index,
    Len,
    Print,
    Println,
    Printf,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Not,
}

impl Function {
    pub(super) fn of(name: &str) -> Result<Self, String> {
        Ok(match name {
            "index" => Self::Index,
            "len" => Self::Len,
            "print" => Self::Print,
            "println" => Self::Println,
            "printf" => Self::Printf,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            other => {
                return Err(format!(
                    "{other:?} is no function here: there are index, len, print, printf, println, eq, ne, lt, le, gt, \
                     ge, and, or, not"
                ));
            }
        })
    }

    /// What it comes to.
    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, String> {
        match (self, arguments) {
            (Self::Index, [of, keys @ ..]) => keys.iter().try_fold(of.clone(), |of, key| index(&of, key)),
            (Self::Len, [of]) => len(of),
            (Self::Print, values) => Ok(Value::Text(print(values))),
            (Self::Println, values) => {
                let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
                Ok(Value::Text(texts.join(" ") + "\n"))
            }
            (Self::Printf, [Value::Text(format), values @ ..]) => printf(format, values).map(Value::Text),
            (Self::Eq, [first, others @ ..]) if !others.is_empty() => {
                for other in others {
                    if compare(first, other)?.is_eq() {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            (Self::Ne, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_ne())),
            (Self::Lt, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_lt())),
            (Self::Le, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_le())),
            (Self::Gt, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_gt())),
            (Self::Ge, [a, b]) => Ok(Value::Bool(compare(a, b)?.is_ge())),
            (Self::And, [first, rest @ ..]) => {
                let last = rest.last().unwrap_or(first);
                Ok(arguments.iter().find(|value| !value.is_true()).unwrap_or(last).clone())
            }
            (Self::Or, [first, rest @ ..]) => {
                let last = rest.last().unwrap_or(first);
                Ok(arguments.iter().find(|value| value.is_true()).unwrap_or(last).clone())
            }
            (Self::Not, [value]) => Ok(Value::Bool(!value.is_true())),
            (function, arguments) => Err(format!(
                "{function:?} is given {} arguments, or ones that it can't take",
                arguments.len()
            )
            .to_lowercase()),
        }
    }
}

fn index(of: &Value, key: &Value) -> Result<Value, String> {
    match (of, key) {
        // As a map of texts has it in Go: what is not there is the empty text.
        (Value::Map(map), Value::Text(key)) => {
            Ok(map.get(key).cloned().unwrap_or_else(|| Value::Text(String::new())))
        }
        (Value::List(list), Value::Number(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
            found.cloned().ok_or_else(|| format!("index {at} is outside of a list of {}", list.len()))
        }
        (of, key) => Err(format!("{} has no index that is {}", of.kind(), key.kind())),
    }
}

fn len(of: &Value) -> Result<Value, String> {
    let length = match of {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("{} has no length", other.kind())),
    };
    Ok(Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// As Go: a space between two operands when neither is a text.
fn print(values: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            text.push(' ');
        }
        text.push_str(&value.to_string());
        before = Some(value);
    }
    text
}

fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = chars.next();
        if verb == Some('%') {
            text.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("printf {format:?} has too few values"))?;
        match (verb, value) {
            (Some('s' | 'v'), value) => text.push_str(&value.to_string()),
            (Some('d'), Value::Number(_)) | (Some('t'), Value::Bool(_)) => text.push_str(&value.to_string()),
            (Some('q'), Value::Text(value)) => text.push_str(&go_quoted(value)),
            (Some('q'), Value::List(list)) => {
                let quoted: Vec<String> = list.iter().map(|value| go_quoted(&value.to_string())).collect();
                text.push_str(&format!("[{}]", quoted.join(" ")));
            }
            (verb, value) => {
                let verb = verb.map(String::from).unwrap_or_default();
                return Err(format!(
                    "printf can't print {} by %{verb}: %s, %q, %v, %d and %t are understood",
                    value.kind()
                ));
            }
        }
    }
    match values.next() {
        None => Ok(text),
        Some(_) => Err(format!("printf {format:?} has too many values")),
    }
}

fn go_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn compare(a: &Value, b: &Value) -> Result<std::cmp::Ordering, String> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (a, b) => Err(format!("{} can't be compared with {}", a.kind(), b.kind())),
    }
}
