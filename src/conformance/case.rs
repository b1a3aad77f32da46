//! What a case shows, and how it says so.

use super::requirement::Requirement;
use serde::Serialize;
use std::time::Duration;

/// Over which transport a case ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TCP.
    Tcp,
}

impl Transport {
    /// Its name, which is the scheme of its URLs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// Over which transports a case can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Both,
    Quic,
    Tcp,
}

impl On {
    pub(super) fn includes(self, transport: Transport) -> bool {
        match self {
            Self::Both => true,
            Self::Quic => transport == Transport::Quic,
            Self::Tcp => transport == Transport::Tcp,
        }
    }
}

/// Why a case did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// A requirement is broken: the one that the case is about, or the one that is named.
    Fail { requirement: Option<&'static str>, seen: String },
    /// Nothing can be said.
    Skip(String),
}

/// Whether what the case is about was shown.
pub(super) type Shown<T = ()> = Result<T, Stop>;

/// The case's own requirement is broken.
pub(super) fn fail<T>(seen: impl Into<String>) -> Shown<T> {
    Err(Stop::Fail { requirement: None, seen: seen.into() })
}

/// Another requirement is broken, without which the case can't go on.
pub(super) fn blame<T>(requirement: &'static str, seen: impl Into<String>) -> Shown<T> {
    Err(Stop::Fail { requirement: Some(requirement), seen: seen.into() })
}

/// What would break the case's requirement breaks `requirement`.
pub(super) fn or_blame<T>(shown: Shown<T>, requirement: &'static str) -> Shown<T> {
    shown.map_err(|stop| match stop {
        Stop::Fail { requirement: None, seen } => Stop::Fail { requirement: Some(requirement), seen },
        other => other,
    })
}

/// Nothing can be said.
pub(super) fn skip<T>(reason: impl Into<String>) -> Shown<T> {
    Err(Stop::Skip(reason.into()))
}

/// Breaks the case's requirement unless `holds`.
pub(super) fn ensure(holds: bool, seen: impl FnOnce() -> String) -> Shown {
    if holds { Ok(()) } else { fail(seen()) }
}

/// The outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The requirement was met.
    Pass,
    /// The requirement was not met.
    Fail,
    /// Nothing could be shown; the message says why.
    Skip,
}

/// A case, and how it ended.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// The requirement's id, and a suffix where several cases are about one.
    pub id: &'static str,
    /// Over which transport it ran.
    pub transport: Transport,
    /// How it ended.
    pub verdict: Verdict,
    /// The requirement that it is about.
    pub requirement: &'static Requirement,
    /// What was expected, and what was seen where that differs.
    pub message: String,
    /// How long it took.
    pub took: Duration,
    /// Why it was expected to fail, where it was.
    pub expected_failure: Option<String>,
    /// Whether this outcome fails the whole run.
    pub counts: bool,
}
