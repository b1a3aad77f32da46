//! YAML text as a tree that knows where everything stands.

use super::problem::{Position, Problem};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;

/// Deeper than any configuration; keeps recursion over a tree short.
const MAX_DEPTH: usize = 32;
/// More than any configuration; keeps aliases of aliases from growing without bound.
const MAX_NODES: usize = 16_384;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`: as if the key were absent.
    Null,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar(text) => format!("`{}`", text.escape_debug()),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a section".into(),
        }
    }

    fn nodes(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Node::nodes).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.node.nodes()).sum(),
        }
    }
}

/// Parses the one document that `text` holds; an empty text is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder::default();
    // The scanner tells of a text that breaks off one line after its end.
    let mut lines = text.rsplit(['\n', '\r']);
    let end = lines.next().map_or(0, |line| line.chars().count()) + 1;
    let end = Position { line: lines.count() + 1, column: end };
    let position = |marker: &Marker| Some(position(marker)).filter(|at| at.line <= end.line).unwrap_or(end);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Problem::syntax(position(error.marker()), error.info()))?;
        builder.accept(event, position(&span.start))?;
    }
    let start = Position { line: 1, column: 1 };
    Ok(builder.root.unwrap_or(Node { at: start, value: Value::Null }))
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A collection that is not closed yet.
struct Open {
    anchor: usize,
    node: Node,
    /// In a mapping: the key that waits for its value.
    key: Option<(Position, String)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, at: Position) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar(text.to_owned()),
                };
                self.complete(anchor, Node { at, value })
            }
            Event::SequenceStart(anchor, _) => self.start(anchor, at, Value::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => self.start(anchor, at, Value::Mapping(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(closed) => self.complete(closed.anchor, closed.node),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Problem::syntax(at, "a second document; one is expected"))
            }
            _ => Ok(()),
        }
    }

    /// Copies the named node; counted first, so that aliases of aliases can't grow beyond the limit.
    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Problem> {
        let Some(size) = self.anchors.get(&anchor).map(Node::nodes) else {
            return Err(Problem::syntax(at, "an alias within the node that it names"));
        };
        self.count(size, at)?;
        let value = self.anchors.get(&anchor).map_or(Value::Null, |node| node.value.clone());
        self.complete(0, Node { at, value })
    }

    fn start(&mut self, anchor: usize, at: Position, value: Value) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem::syntax(at, &format!("more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open { anchor, node: Node { at, value }, key: None });
        Ok(())
    }

    fn count(&mut self, more: usize, at: Position) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > MAX_NODES { Err(Problem::syntax(at, "too many values")) } else { Ok(()) }
    }

    fn complete(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        self.count(1, node.at)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Sequence(items), _) => items.push(node),
            (Value::Mapping(entries), Some((at, key))) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    let what = format!("`{key}` is given twice, first in line {}", first.at.line);
                    return Err(Problem::syntax(at, &what));
                }
                entries.push(Entry { at, key, node });
            }
            (_, None) => {
                let key = match node.value {
                    Value::Scalar(text) => text,
                    Value::Null => "null".into(),
                    _ => return Err(Problem::syntax(node.at, "a key has to be a word")),
                };
                parent.key = Some((node.at, key));
            }
            // Only collections are ever open.
            (Value::Null | Value::Scalar(_), Some(_)) => {}
        }
        Ok(())
    }
}
