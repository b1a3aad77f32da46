//! What a transfer tells while it runs, and at its end.

use super::PeerIndex;
use crate::client::RequestError;
use crate::downloader::{ConnectError, DownloadError, Peer};
use crate::store::StoreError;
use std::fmt;
use std::time::Duration;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It begins.
    Start {
        /// Pieces that are wanted.
        pieces: u64,
        /// Their bytes.
        bytes: u64,
        /// Bytes that are in the store already.
        resumed: u64,
    },
    /// Bytes of some piece came from a peer. They are not verified yet.
    Bytes {
        /// From whom.
        peer: PeerIndex,
        /// How many.
        count: u64,
    },
    /// A piece is here, verified and stored.
    Piece {
        /// Its number.
        number: u32,
        /// Who gave it.
        peer: PeerIndex,
        /// Its bytes.
        bytes: u64,
        /// How long it took, from the request on.
        elapsed: Duration,
    },
    /// A request failed or was given up; the piece is asked for again.
    Retry {
        /// The piece.
        number: u32,
        /// Who did not give it.
        peer: PeerIndex,
        /// Why, safe for a terminal.
        reason: String,
    },
    /// Another answer with the piece was first, and this one is given up.
    Beaten {
        /// The piece.
        number: u32,
        /// Whose answer is given up.
        peer: PeerIndex,
    },
    /// A peer is not asked any more.
    PeerGone {
        /// Which.
        peer: PeerIndex,
        /// The last straw.
        reason: String,
    },
}

/// What kind of failure a peer had last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does not have the piece.
    Lacks,
    /// It sent something else.
    Lied,
    /// One of the two does not accept the other.
    Refused,
    /// A deadline passed.
    TimedOut,
    /// The network or the peer failed.
    Failed,
}

impl Verdict {
    pub(super) fn of(error: &DownloadError) -> Self {
        match error {
            DownloadError::Connect(error) if matches!(error.reason(), ConnectError::TimedOut(_)) => {
                Self::TimedOut
            }
            DownloadError::Request(RequestError::TimedOut(_)) => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// What one peer has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Which peer.
    pub peer: Peer,
    /// Pieces that it gave.
    pub pieces: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that failed or were given up.
    pub failures: u64,
    /// Whether it was not asked any more in the end.
    pub gone: bool,
    /// Its last failure, and its text.
    pub last: Option<(Verdict, String)>,
}

impl PeerReport {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, pieces: 0, bytes: 0, failures: 0, gone: false, last: None }
    }
}

/// How a transfer went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Bytes that were wanted.
    pub bytes: u64,
    /// Bytes of them that were in the store before.
    pub resumed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Pieces whose digest could not be checked.
    pub unverified: u64,
    /// What each peer has done, in the order they were given.
    pub peers: Vec<PeerReport>,
}

/// A transfer can't go on.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is nobody to ask.
    #[error("no peer to ask: name at least one")]
    NoPeers,
    /// Nobody is left who could give a piece.
    #[error("{left} pieces are missing, and no peer is left that gives piece {piece}{}", Reasons(peers))]
    Stuck {
        /// The first piece that is missing.
        piece: u32,
        /// How many are missing.
        left: u64,
        /// What each peer has done.
        peers: Vec<PeerReport>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why each peer gave nothing more.
struct Reasons<'a>(&'a [PeerReport]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.0.iter().filter_map(|report| Some((report.peer, report.last.as_ref()?)));
        for (peer, (_, reason)) in failed {
            write!(f, "\n  {peer}: {reason}")?;
        }
        Ok(())
    }
}
