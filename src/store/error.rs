//! What a store fails with, and what a peer is told of it.

use crate::runtime::JobLost;
use crate::wire::ErrorCode;
use std::io;
use std::sync::Arc;

/// Why a piece is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No such task under this kind.
    #[error("no such task of this kind")]
    Task,
    /// The task has fewer pieces.
    #[error("no such piece: the task has {pieces}")]
    Piece {
        /// How many it has.
        pieces: u64,
    },
    /// The task has the piece, this store does not.
    #[error("this piece is not held here")]
    Content,
}

/// A store can't do what was asked.
///
/// `Display` is for the log of this machine. A peer gets [`StoreError::code`] and [`StoreError::peer_text`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The stored bytes are not those that were received.
    #[error("piece {number} is damaged: its bytes do not match its digest. It has to be fetched again")]
    Damaged {
        /// Which piece.
        number: u32,
    },
    /// The task is known with other parameters.
    #[error("the task is known with another {what}: delete it first, or ask for what is there")]
    Conflict {
        /// Which parameter differs.
        what: &'static str,
    },
    /// The piece is held already.
    #[error("piece {number} is held already")]
    Held {
        /// Which piece.
        number: u32,
    },
    /// Another writer has the piece.
    #[error("piece {number} is being written by another")]
    Busy {
        /// Which piece.
        number: u32,
    },
    /// More bytes than the piece has.
    #[error("content goes past the end of the piece, expected {expected} bytes")]
    Overrun {
        /// The length of the piece.
        expected: u64,
    },
    /// Fewer bytes than the piece has.
    #[error("the content ends after {written} of {expected} bytes")]
    Incomplete {
        /// Bytes that were written.
        written: u64,
        /// The length of the piece.
        expected: u64,
    },
    /// No room.
    #[error("the disk is full (while {doing}): free some space, or collect tasks")]
    Full {
        /// What the store was doing.
        doing: &'static str,
    },
    /// The disk failed.
    #[error("the disk failed while {doing}: {source}")]
    Io {
        /// What the store was doing.
        doing: &'static str,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// Another process has the store open.
    #[error("the store is in use by another process: stop it, or choose another directory")]
    Locked,
    /// The index can't be read as one.
    #[error(
        "the index of the store is not readable: {reason}. Move the store's directory away to begin anew"
    )]
    Corrupt {
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The runtime is shutting down, or the writer failed before.
    #[error("the store is shutting down, or an earlier step of this job failed")]
    Unavailable,
}

impl StoreError {
    /// An error of the operating system, while `doing`.
    #[must_use]
    pub fn io(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { doing },
            _ => Self::Io { doing, source: Arc::new(source) },
        }
    }

    /// The code of the Error packet that answers a request for a piece that failed so.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            //= VTX-REQ-012
            //= VTX-REQ-013
            //= VTX-REQ-014
            Self::Missing(_) => ErrorCode::NotFound,
            //= VTX-ERR-010
            //= VTX-ERR-011
            _ => ErrorCode::Internal,
        }
    }

    /// What a peer is told: never a path, nor anything that the operating system said.
    #[must_use]
    pub fn peer_text(&self) -> &'static str {
        //= VTX-SEC-009
        match self {
            Self::Missing(Missing::Task) => "no such task of this kind",
            Self::Missing(Missing::Piece { .. }) => "the task has no such piece",
            Self::Missing(Missing::Content) => "this piece is not held here",
            Self::Damaged { .. } => "the stored piece is damaged",
            Self::Unavailable => "the server is shutting down",
            _ => "the store failed",
        }
    }
}

impl From<JobLost> for StoreError {
    fn from(_: JobLost) -> Self {
        Self::Unavailable
    }
}
