//! Go's text templates between `<<` and `>>`, as far as rules use them: fields, `index`, `printf` and their like,
//! pipelines, variables, `if`, `range`, `with`, comments and trimming.
//!
//! What is not understood is refused when the rule is read, never rendered to something else. Templates have no
//! loops but over what they are given, and their size, depth and output are bounded, so that every rendering ends.

mod functions;
mod lexer;
mod parser;
mod render;

use self::parser::Node;
use std::collections::BTreeMap;
use std::fmt;

/// Most bytes of a template.
pub const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// Most bytes that a template may render to.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// A value that templates work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: a key that a map does not have.
    Nothing,
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Bool(bool),
    /// A list.
    List(Vec<Value>),
    /// A map.
    Map(BTreeMap<String, Value>),
    /// Fields by name: what a template is given.
    Struct(BTreeMap<&'static str, Value>),
}

impl Value {
    /// Whether it counts as true: whether it is not empty.
    fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
            Self::Bool(is) => *is,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Struct(_) => true,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Bool(_) => "a truth value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Struct(_) => "the whole of the arguments",
        }
    }
}

/// As Go prints it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spaced = |f: &mut fmt::Formatter<'_>, values: &mut dyn Iterator<Item = &Self>| {
            for (place, value) in values.enumerate() {
                if place > 0 {
                    f.write_str(" ")?;
                }
                value.fmt(f)?;
            }
            Ok(())
        };
        match self {
            Self::Nothing => f.write_str("<no value>"),
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Bool(is) => is.fmt(f),
            Self::List(list) => {
                f.write_str("[")?;
                spaced(f, &mut list.iter())?;
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("map[")?;
                for (place, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if place > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Struct(fields) => {
                f.write_str("{")?;
                spaced(f, &mut fields.values())?;
                f.write_str("}")
            }
        }
    }
}

/// A template that has been read.
#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<Node>,
    uses_raw_values: bool,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong, and where about.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("a template of {} bytes is longer than {TEMPLATE_BYTES_MAX}", text.len()));
        }
        let (nodes, seen) = parser::parse(text)?;
        Ok(Self { nodes, uses_raw_values: seen.dot || seen.raw_values })
    }

    /// Whether it puts values into the query as they are, instead of label matchers made for it.
    #[must_use]
    pub fn uses_raw_values(&self) -> bool {
        self.uses_raw_values
    }

    /// The text that it makes of its arguments.
    ///
    /// # Errors
    /// When a field or function does not fit what it is given, or the text gets too long.
    pub fn render(&self, arguments: &Value) -> Result<String, String> {
        render::render(&self.nodes, arguments)
    }
}

#[cfg(test)]
mod tests;
