//! The tokens of a template to its tree.

use super::functions::Function;
use super::lexer::{Piece, Token, pieces};

/// How deep actions and brackets may be nested.
const DEPTH_MAX: usize = 32;

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    /// Prints a value.
    Print(Pipeline),
    /// `$x := …`, `$x = …`
    Set {
        variable: String,
        is_new: bool,
        value: Pipeline,
    },
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        variable: Option<String>,
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        element: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands, each of which gets what the one before it comes to as its last argument.
#[derive(Clone, Debug)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

#[derive(Clone, Debug)]
pub(super) enum Command {
    Call(Function, Vec<Operand>),
    Value(Operand),
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Dot,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
    Nil,
    Call(Function),
    Nested(Box<Pipeline>, Vec<String>),
}

/// What a template has been seen to use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// All arguments at once.
    pub(super) dot: bool,
    /// Values as they are.
    pub(super) raw_values: bool,
}

pub(super) fn parse(text: &str) -> Result<(Vec<Node>, Seen), String> {
    let pieces = pieces(text)?;
    let mut parser = Parser { pieces: pieces.into_iter(), seen: Seen::default() };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        RunEnd::OfText => Ok((nodes, parser.seen)),
        RunEnd::Closed => Err("<<end>> ends nothing".to_owned()),
        RunEnd::Else(_) => Err("<<else>> belongs to nothing".to_owned()),
    }
}

/// What a run of nodes ends with.
enum RunEnd {
    /// The whole text.
    OfText,
    /// Its `end`.
    Closed,
    /// `else`, and what follows it: `if …`, `with …`.
    Else(Vec<Token>),
}

struct Parser<'t> {
    pieces: std::vec::IntoIter<Piece<'t>>,
    seen: Seen,
}

impl Parser<'_> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, RunEnd), String> {
        if depth > DEPTH_MAX {
            return Err(format!("actions are nested more than {DEPTH_MAX} deep"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.to_owned()));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            match tokens.split_first() {
                None => return Err("an action is empty".to_owned()),
                Some((Token::Word(word), rest)) => match (word.as_str(), rest) {
                    ("end", []) => return Ok((nodes, RunEnd::Closed)),
                    ("else", rest) => return Ok((nodes, RunEnd::Else(rest.to_vec()))),
                    ("if" | "with" | "range", rest) => nodes.push(self.block(word, rest, depth)?),
                    ("define" | "template" | "block" | "break" | "continue" | "end", _) => {
                        return Err(format!("<<{word}>> is not understood here"));
                    }
                    _ => nodes.push(Node::Print(self.pipeline(&tokens, 0)?)),
                },
                Some((
                    Token::Variable(name, fields),
                    [set @ (Token::Declare | Token::Assign), rest @ ..],
                )) if fields.is_empty() && !name.is_empty() => {
                    let value = self.pipeline(rest, 0)?;
                    nodes.push(Node::Set { variable: name.clone(), is_new: *set == Token::Declare, value });
                }
                Some(_) => nodes.push(Node::Print(self.pipeline(&tokens, 0)?)),
            }
        }
        Ok((nodes, RunEnd::OfText))
    }

    /// `if`, `with` or `range` up to its `end`.
    fn block(&mut self, word: &str, head: &[Token], depth: usize) -> Result<Node, String> {
        let (variables, head) = declared(word, head)?;
        let value = self.pipeline(head, 0)?;
        let (body, end) = self.nodes(depth + 1)?;
        let otherwise = self.otherwise(word, end, depth)?;
        let mut variables = variables.into_iter();
        Ok(match word {
            "if" => Node::If { condition: value, then: body, otherwise },
            "with" => Node::With { variable: variables.next(), value, then: body, otherwise },
            _ => {
                let (first, second) = (variables.next(), variables.next());
                let (key, element) = if second.is_some() { (first, second) } else { (None, first) };
                Node::Range { key, element, over: value, body, otherwise }
            }
        })
    }

    fn otherwise(&mut self, word: &str, end: RunEnd, depth: usize) -> Result<Vec<Node>, String> {
        let follows = match end {
            RunEnd::Closed => return Ok(Vec::new()),
            RunEnd::OfText => return Err(format!("<<{word}>> has no <<end>>")),
            RunEnd::Else(follows) => follows,
        };
        match follows.split_first() {
            None => match self.nodes(depth + 1)? {
                (nodes, RunEnd::Closed) => Ok(nodes),
                _ => Err(format!("<<{word}>> has no <<end>> behind its <<else>>")),
            },
            Some((Token::Word(again), head)) if again == word && word != "range" => {
                if depth >= DEPTH_MAX {
                    return Err(format!("actions are nested more than {DEPTH_MAX} deep"));
                }
                Ok(vec![self.block(again, head, depth + 1)?])
            }
            Some(_) => Err("only `if` and `with` can follow an <<else>>, each its own kind".to_owned()),
        }
    }

    fn pipeline(&mut self, tokens: &[Token], depth: usize) -> Result<Pipeline, String> {
        if depth > DEPTH_MAX {
            return Err(format!("brackets are nested more than {DEPTH_MAX} deep"));
        }
        let mut commands = Vec::new();
        let mut rest = tokens;
        loop {
            let mut operands = Vec::new();
            while let Some((token, behind)) = rest.split_first() {
                if *token == Token::Pipe {
                    break;
                }
                let (operand, behind) = self.operand(token, behind, depth)?;
                operands.push(operand);
                rest = behind;
            }
            commands.push(command(operands, commands.is_empty())?);
            match rest.split_first() {
                Some((_, behind)) => rest = behind,
                None => return Ok(Pipeline(commands)),
            }
        }
    }

    fn operand<'k>(
        &mut self,
        token: &Token,
        behind: &'k [Token],
        depth: usize,
    ) -> Result<(Operand, &'k [Token]), String> {
        let operand = match token {
            Token::Dot => {
                self.seen.dot = true;
                Operand::Dot
            }
            Token::Field(fields) => {
                self.seen.raw_values |= fields.iter().any(|field| field == "LabelValuesByName");
                Operand::Field(fields.clone())
            }
            Token::Variable(name, fields) => {
                // `$` alone is what the template was given.
                self.seen.dot |= name.is_empty() && fields.is_empty();
                self.seen.raw_values |= fields.iter().any(|field| field == "LabelValuesByName");
                Operand::Variable(name.clone(), fields.clone())
            }
            Token::Text(text) => Operand::Text(text.clone()),
            Token::Number(number) => Operand::Number(*number),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                name => Operand::Call(Function::of(name)?),
            },
            Token::Open => {
                let end = closing(behind)?;
                let (inner, rest) = behind.split_at(end);
                let pipeline = self.pipeline(inner, depth + 1)?;
                let Some((Token::Close(fields), rest)) = rest.split_first() else {
                    return Err("a bracket is not closed".to_owned());
                };
                return Ok((Operand::Nested(Box::new(pipeline), fields.clone()), rest));
            }
            Token::Pipe | Token::Close(_) | Token::Comma | Token::Declare | Token::Assign => {
                return Err("a bracket, comma or = stands where a value is wanted".to_owned());
            }
        };
        Ok((operand, behind))
    }
}

/// Variables that a `with` or `range` declares, and what follows them.
fn declared<'k>(word: &str, head: &'k [Token]) -> Result<(Vec<String>, &'k [Token]), String> {
    let name = |token: &Token| match token {
        Token::Variable(name, fields) if fields.is_empty() && !name.is_empty() => Some(name.clone()),
        _ => None,
    };
    match head {
        [variable, Token::Declare, rest @ ..] if word != "if" => {
            let variable = name(variable).ok_or("a variable is called $name")?;
            Ok((vec![variable], rest))
        }
        [key, Token::Comma, element, Token::Declare, rest @ ..] if word == "range" => {
            let variables = name(key).zip(name(element)).ok_or("a variable is called $name")?;
            Ok((vec![variables.0, variables.1], rest))
        }
        head => Ok((Vec::new(), head)),
    }
}

/// Where the bracket closes that was opened before these tokens.
fn closing(tokens: &[Token]) -> Result<usize, String> {
    let mut open = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => open += 1,
            Token::Close(_) if open == 0 => return Ok(at),
            Token::Close(_) => open -= 1,
            _ => {}
        }
    }
    Err("a bracket is not closed".to_owned())
}

fn command(operands: Vec<Operand>, is_first: bool) -> Result<Command, String> {
    let mut operands = operands.into_iter();
    match (operands.next(), operands.len()) {
        (None, _) => Err("a command is missing".to_owned()),
        (Some(Operand::Call(function)), _) => Ok(Command::Call(function, operands.collect())),
        (Some(_), _) if !is_first => Err("only a function can follow a |".to_owned()),
        (Some(operand), 0) => Ok(Command::Value(operand)),
        (Some(_), _) => Err("two values stand beside each other, and the first is no function".to_owned()),
    }
}
