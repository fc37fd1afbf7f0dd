//! A template's tree and arguments to text.

use super::parser::{Command, Node, Operand, Pipeline};
use super::{OUTPUT_BYTES_MAX, Value};

/// Most nodes that one rendering may visit.
const STEPS_MAX: usize = 100_000;

pub(super) fn render(nodes: &[Node], arguments: &Value) -> Result<String, String> {
    let mut rendering = Rendering { root: arguments, variables: Vec::new(), text: String::new(), steps: 0 };
    rendering.nodes(nodes, arguments)?;
    Ok(rendering.text)
}

struct Rendering<'a> {
    root: &'a Value,
    /// The newest of a name counts.
    variables: Vec<(String, Value)>,
    text: String,
    steps: usize,
}

impl Rendering<'_> {
    /// Variables that are declared in here end with it.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let outside = self.variables.len();
        for node in nodes {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("the template takes more than {STEPS_MAX} steps"));
            }
            self.node(node, dot)?;
        }
        self.variables.truncate(outside);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(text) => self.print(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.print(&value.to_string())
            }
            Node::Set { variable, is_new, value } => {
                let value = self.pipeline(value, dot)?;
                if *is_new {
                    self.variables.push((variable.clone(), value));
                    return Ok(());
                }
                let known = self.variables.iter_mut().rev().find(|(name, _)| name == variable);
                known.ok_or_else(|| format!("${variable} is not declared"))?.1 = value;
                Ok(())
            }
            Node::If { condition, then, otherwise } => {
                let holds = self.pipeline(condition, dot)?.is_true();
                self.nodes(if holds { then } else { otherwise }, dot)
            }
            Node::With { variable, value, then, otherwise } => {
                let value = self.pipeline(value, dot)?;
                if !value.is_true() {
                    return self.nodes(otherwise, dot);
                }
                self.nodes_with(
                    variable.iter().map(|name| (name.clone(), value.clone())).collect(),
                    then,
                    &value,
                )
            }
            Node::Range { key, element, over, body, otherwise } => {
                let pairs: Vec<(Value, Value)> = match self.pipeline(over, dot)? {
                    Value::List(list) => (0..).map(Value::Number).zip(list).collect(),
                    Value::Map(map) => {
                        map.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
                    }
                    Value::Nothing => Vec::new(),
                    other => return Err(format!("range can't go over {}", other.kind())),
                };
                if pairs.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                for (place, value) in pairs {
                    let key = key.iter().map(|name| (name.clone(), place.clone()));
                    let variables =
                        key.chain(element.iter().map(|name| (name.clone(), value.clone()))).collect();
                    self.nodes_with(variables, body, &value)?;
                }
                Ok(())
            }
        }
    }

    fn nodes_with(
        &mut self,
        variables: Vec<(String, Value)>,
        nodes: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let outside = self.variables.len();
        self.variables.extend(variables);
        self.nodes(nodes, dot)?;
        self.variables.truncate(outside);
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), String> {
        if self.text.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(format!("the template makes more than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut so_far = None;
        for command in &pipeline.0 {
            self.steps += 1;
            so_far = Some(match command {
                Command::Value(operand) => self.operand(operand, dot)?,
                Command::Call(function, operands) => {
                    let mut arguments = operands
                        .iter()
                        .map(|operand| self.operand(operand, dot))
                        .collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(so_far);
                    function.call(&arguments)?
                }
            });
        }
        Ok(so_far.unwrap_or(Value::Nothing))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Field(fields) => field(dot, fields),
            Operand::Variable(name, fields) if name.is_empty() => field(self.root, fields),
            Operand::Variable(name, fields) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                field(&known.ok_or_else(|| format!("${name} is not declared"))?.1, fields)
            }
            Operand::Text(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Bool(is) => Ok(Value::Bool(*is)),
            Operand::Nil => Ok(Value::Nothing),
            Operand::Call(function) => function.call(&[]),
            Operand::Nested(pipeline, fields) => field(&self.pipeline(pipeline, dot)?, fields),
        }
    }
}

fn field(of: &Value, fields: &[String]) -> Result<Value, String> {
    let mut value = of;
    for name in fields {
        value = match value {
            Value::Struct(known) => known.get(name.as_str()).ok_or_else(|| {
                let known: Vec<String> = known.keys().map(|name| format!(".{name}")).collect();
                format!("there is no .{name}: there are {}", known.join(", "))
            })?,
            Value::Map(map) => match map.get(name) {
                Some(value) => value,
                None => return Ok(Value::Nothing),
            },
            other => return Err(format!("{} has no .{name}", other.kind())),
        };
    }
    Ok(value.clone())
}
