//! What is wrong with a configuration, and where.

use std::fmt;

/// A place in the text. Both numbers count from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The text is not the YAML of a configuration.
    Syntax,
    /// A key that no release knows. Peers start all the same: a newer release may know it.
    UnknownKey,
    /// A value that the key can't have.
    Value,
    /// Two keys that contradict each other, or one that needs another.
    Conflict,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// The key with the sections it stands in, `storage.server.tcpPort`; empty for [`ProblemKind::Syntax`].
    pub key: String,
    /// Which kind.
    pub kind: ProblemKind,
    /// What is wrong, in words.
    pub message: String,
    /// The key that was probably meant.
    pub suggestion: Option<String>,
}

impl Problem {
    pub(super) fn syntax(at: Position, message: &str) -> Self {
        let message = message.to_owned();
        Self { at, key: String::new(), kind: ProblemKind::Syntax, message, suggestion: None }
    }

    /// Whether a peer can't start with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.kind != ProblemKind::UnknownKey
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(key) => write!(f, "; did you mean `{key}`?"),
            None => Ok(()),
        }
    }
}
