//! Failures that are known, and why.

use std::collections::BTreeMap;

/// The cases that are expected to fail, from a file with `ID REASON` on each line; `#` begins a comment.
///
/// An id stands for a case (`VTX-TCP-006/skips`) or for all cases of a requirement (`VTX-TCP-006`); `quic:` or `tcp:` in
/// front confines it to one transport.
#[derive(Debug, Clone, Default)]
pub struct ExpectedFailures(BTreeMap<String, String>);

/// A line that is no expected failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected the id of a case and the reason why it fails")]
pub struct NotExpected {
    /// Which line, from 1.
    pub line: usize,
}

impl ExpectedFailures {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`NotExpected`] for a line without an id or without a reason.
    pub fn parse(text: &str) -> Result<Self, NotExpected> {
        let mut failures = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (id, reason) = text.split_once(char::is_whitespace).ok_or(NotExpected { line })?;
            let bare = id.strip_prefix("quic:").or(id.strip_prefix("tcp:")).unwrap_or(id);
            if !bare.starts_with("VTX-") {
                return Err(NotExpected { line });
            }
            failures.insert(id.to_owned(), reason.trim().to_owned());
        }
        Ok(Self(failures))
    }

    /// Why the case is expected to fail over this transport, if it is.
    pub(super) fn reason(&self, id: &str, transport: super::Transport) -> Option<&str> {
        let requirement = id.split('/').next().unwrap_or_default();
        [id, requirement].into_iter().find_map(|id| {
            let confined = format!("{}:{id}", transport.name());
            self.0.get(&confined).or_else(|| self.0.get(id)).map(String::as_str)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Transport;
    use super::*;

    #[test]
    fn the_closest_line_counts() {
        let text = "# deployed\n\nVTX-TCP-006 all of it\nquic:VTX-ERR-007/a only there\n";
        let expected = ExpectedFailures::parse(text).unwrap();
        assert_eq!(expected.reason("VTX-TCP-006/skips", Transport::Tcp), Some("all of it"));
        assert_eq!(expected.reason("VTX-ERR-007/a", Transport::Quic), Some("only there"));
        assert_eq!(expected.reason("VTX-ERR-007/a", Transport::Tcp), None);
        assert_eq!(ExpectedFailures::parse("VTX-TCP-006").unwrap_err(), NotExpected { line: 1 });
        assert_eq!(ExpectedFailures::parse("\nTCP why").unwrap_err(), NotExpected { line: 2 });
    }
}
