//! How a request fails.

use crate::session::{Failure, Rejection};
use std::io;

/// Why a request ended without its piece.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The answer was an error, was no answer, or can't be accepted.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A deadline passed.
    #[error("{0}")]
    TimedOut(Waited),
    /// The connection ended before the answer was complete.
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
}

impl From<Rejection> for RequestError {
    fn from(rejection: Rejection) -> Self {
        Self::Failed(rejection.into())
    }
}

/// What was waited for until its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Waited {
    /// The header of the answer.
    #[error("the peer did not begin to answer by the first-byte deadline")]
    FirstByte,
    /// The end of the answer.
    #[error("the piece was not complete by the piece deadline")]
    Piece,
}
