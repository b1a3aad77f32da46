//! Reads typed settings out of the tree, and remembers what was asked for: what nobody asked for is unknown.

use super::problem::{Position, Problem, ProblemKind};
use super::value::{ByteSize, Percent, parse_duration};
use super::yaml::{Entry, Node, Value};
use super::{Protocol, Unused};
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

/// What reading found, beside the settings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) unused: Vec<Unused>,
}

/// A value that can stand behind a key.
pub(super) trait Setting: Sized {
    /// What to write, in words.
    const EXPECTED: &'static str;
    fn parse(text: &str) -> Option<Self>;
}

/// One mapping of the file while it is read.
pub(super) struct Section<'a> {
    path: String,
    at: Position,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    findings: &'a mut Findings,
}

/// Reads `node` as the whole file.
pub(super) fn read_root(node: &Node, findings: &mut Findings, read: impl FnOnce(&mut Section<'_>)) {
    read_section(String::new(), node, findings, read);
}

fn read_section(path: String, node: &Node, findings: &mut Findings, read: impl FnOnce(&mut Section<'_>)) {
    let entries: &[Entry] = match &node.value {
        Value::Mapping(entries) => entries,
        Value::Null => &[],
        Value::Scalar(_) | Value::Sequence(_) => {
            let message = format!("expected a section, found {}", node.describe());
            findings.problems.push(Problem {
                at: node.at,
                key: path,
                kind: ProblemKind::Value,
                message,
                suggestion: None,
            });
            return;
        }
    };
    let mut section = Section { path, at: node.at, entries, known: Vec::new(), findings };
    read(&mut section);
    section.name_unknown_keys();
}

impl<'a> Section<'a> {
    /// Reads the section `key`, if it is there.
    pub(super) fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>)) {
        let path = self.path_of(key);
        if let Some(entry) = self.take(key) {
            read_section(path, &entry.node, self.findings, read);
        }
    }

    /// Reads `key` into `setting`, which keeps its default where the key is absent or wrong.
    pub(super) fn read<T: Setting>(&mut self, key: &'static str, setting: &mut T) {
        if let Some(value) = self.optional(key) {
            *setting = value;
        }
    }

    /// Reads `key`, if it is there.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let node = &self.take(key)?.node;
        let found = match &node.value {
            Value::Null => return None,
            Value::Scalar(text) => T::parse(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        };
        if found.is_none() {
            let message = format!("expected {}, found {}", T::EXPECTED, node.describe());
            self.problem(node.at, key, ProblemKind::Value, message);
        }
        found
    }

    /// Keys that a daemon of Dragonfly uses and a Vortex peer does not.
    pub(super) fn elsewhere(&mut self, keys: &[&'static str]) {
        for key in keys {
            if let Some(at) = self.take(key).map(|entry| entry.at) {
                let key = self.path_of(key);
                self.findings.unused.push(Unused { at, key });
            }
        }
    }

    /// Reports that `key`, or where it is absent the section, contradicts something.
    pub(super) fn conflict(&mut self, key: &'static str, message: impl Into<String>) {
        let at = self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.at);
        self.problem(at, key, ProblemKind::Conflict, message.into());
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn problem(&mut self, at: Position, key: &str, kind: ProblemKind, message: String) {
        let key = self.path_of(key);
        self.findings.problems.push(Problem { at, key, kind, message, suggestion: None });
    }

    fn name_unknown_keys(self) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let suggestion = nearest(&entry.key, &self.known).map(ToOwned::to_owned);
            let key = self.path_of(&entry.key.escape_debug().to_string());
            let message = "unknown key".to_owned();
            self.findings.problems.push(Problem {
                at: entry.at,
                key,
                kind: ProblemKind::UnknownKey,
                message,
                suggestion,
            });
        }
    }
}

/// The known key that a typo of it could have become `key`.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    // Spelled in another style (tcp_port, tcpport) it is the same word.
    let plain = |key: &str| key.replace(['_', '-'], "").to_lowercase();
    let key = plain(key);
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&key, &plain(known)), *known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }
}

impl Setting for u16 {
    const EXPECTED: &'static str = "a port (0 to 65535)";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for Percent {
    const EXPECTED: &'static str = "a number from 0 to 100";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|hundredths| *hundredths <= 100).map(Self::new)
    }
}

impl Setting for NonZeroU32 {
    const EXPECTED: &'static str = "a number from 1 to 4294967295";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size such as 4194304, 4MiB or 1GB";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|size: &ByteSize| NonZeroU64::new(size.0).is_some())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as 300s, 5m or 1h30m";
    fn parse(text: &str) -> Option<Self> {
        parse_duration(text).ok().filter(|duration| !duration.is_zero())
    }
}

impl Setting for IpAddr {
    const EXPECTED: &'static str = "an IP address";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }
}

impl Setting for Protocol {
    const EXPECTED: &'static str = "a protocol (auto, quic, tcp or grpc)";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}
