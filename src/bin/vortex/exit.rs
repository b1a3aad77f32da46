//! How the command ends.

use serde::Serialize;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use vortex_p2p::wire::Escaped;

/// The exit codes: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Corrupt = 5,
    Network = 6,
    Unfinished = 7,
    TimedOut = 8,
    Disk = 9,
    Interrupted = 130,
}

impl Exit {
    /// Every exit code, in order.
    pub(crate) const ALL: [Self; 11] = [
        Self::Done,
        Self::Other,
        Self::Usage,
        Self::NotFound,
        Self::Refused,
        Self::Corrupt,
        Self::Network,
        Self::Unfinished,
        Self::TimedOut,
        Self::Disk,
        Self::Interrupted,
    ];

    /// What the code tells.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "failed for a reason that is none of the others",
            Self::Usage => "the command line is wrong",
            Self::NotFound => "a task, a piece or a file is not there",
            Self::Refused => "refused: a certificate, a limit",
            Self::Corrupt => "content does not have its digest",
            Self::Network => "the network failed",
            Self::Unfinished => "not finished; the same command goes on from there",
            Self::TimedOut => "took longer than its deadline",
            Self::Disk => "the disk failed or is full",
            Self::Interrupted => "interrupted",
        }
    }

    /// What to do next, where a failure says nothing more to the point.
    const fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Done => return None,
            Self::Other => "run it again with -vv, which tells more",
            Self::Usage => "--help says what the command takes; for a configuration, `vortex config check`",
            Self::NotFound => "check the task id and --kind, or ask another peer",
            Self::Refused => "check --ca, --cert, --key and --insecure, or the ticket",
            Self::Corrupt => "ask other peers: the one that lied is named",
            Self::Network => {
                "check the address and that the peer runs; where UDP is blocked, add a tcp:// peer"
            }
            Self::Unfinished | Self::Interrupted => {
                "what has arrived is kept: the same command goes on from there"
            }
            Self::TimedOut => {
                "check that the peer runs and that no firewall is in between, or ask another one"
            }
            Self::Disk => "free some space or name another place, then run the same command again",
        })
    }

    /// Its name in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::Network => "network",
            Self::Unfinished => "unfinished",
            Self::TimedOut => "timed-out",
            Self::Disk => "disk",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A path as it may be shown: whoever gave it its name may have put anything into it.
pub(crate) fn shown(path: &Path) -> String {
    Escaped(&path.display().to_string()).to_string()
}

/// A command that failed: why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// What is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The operating system failed on a file.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Disk };
        Self::new(exit, format!("{}: {error}", shown(path)))
    }

    /// Says which file the failure is about.
    pub(crate) fn context(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", shown(path), self.message);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Tells it: to people on stderr, to scripts as the last object on stdout. Nobody is left to hear of a failure to
    /// tell it.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        #[derive(Serialize)]
        struct Event<'a> {
            event: &'static str,
            code: &'static str,
            message: &'a str,
            hint: Option<&'a str>,
        }
        if self.exit == Exit::Done {
            return self.exit.into();
        }
        let hint = self.hint.as_deref().or(self.exit.hint());
        if json {
            let event = Event { event: "error", code: self.exit.name(), message: &self.message, hint };
            let _ = writeln!(io::stdout(), "{}", serde_json::to_string(&event).unwrap_or_default());
        } else {
            // What is quoted in it came from wherever it came from. Its line breaks are its own.
            let mut before = "error: ";
            for line in self.message.lines() {
                let _ = writeln!(io::stderr(), "{before}{}", Escaped(line));
                before = "";
            }
            if let Some(hint) = hint {
                let _ = writeln!(io::stderr(), "hint: {hint}");
            }
        }
        self.exit.into()
    }
}

/// Failing to write results. A reader that has enough and closes the pipe, as `head` does, is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Disk };
        Self::new(exit, format!("could not write the result: {error}"))
    }
}
