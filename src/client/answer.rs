//! An answer that streams.

use super::RequestError;
use crate::runtime::BoxFuture;
use crate::session::{Piece, Received};
use bytes::Bytes;
use std::fmt;

/// Where the content of an answer comes from.
pub(crate) trait Source: Send {
    /// The next bytes of content, or, once it is complete, what was verified.
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>>;
}

pub(crate) enum Progress {
    Content(Bytes),
    Complete(Received),
}

/// The answer to a request: what the server says of the piece, then its content while it arrives.
///
/// Dropped before its end, it gives the request up: on QUIC the stream is stopped, on TCP the connection closed.
pub struct Answer {
    piece: Piece,
    source: Box<dyn Source>,
    outcome: Option<Received>,
}

impl Answer {
    pub(crate) fn new(piece: Piece, source: impl Source + 'static) -> Self {
        Self { piece, source: Box::new(source), outcome: None }
    }

    /// The same answer, its content from what `wrap` makes of its source.
    pub(crate) fn map<S: Source + 'static>(self, wrap: impl FnOnce(Box<dyn Source>) -> S) -> Self {
        Self { source: Box::new(wrap(self.source)), ..self }
    }

    /// What the server says of the piece.
    #[must_use]
    pub fn piece(&self) -> &Piece {
        &self.piece
    }

    /// The next bytes of the content; `None` when it is complete and has the digest that it should have.
    ///
    /// The bytes are not verified before `None` has come: nothing may be told of them, nor given to others.
    ///
    /// # Errors
    /// [`RequestError`]: the request has failed, and no part of the content counts.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        if self.outcome.is_some() {
            return Ok(None);
        }
        match self.source.next().await? {
            Progress::Content(bytes) => Ok(Some(bytes)),
            Progress::Complete(received) => {
                self.outcome = Some(received);
                Ok(None)
            }
        }
    }

    /// What was verified, once [`Answer::chunk`] has returned `None`.
    #[must_use]
    pub fn received(&self) -> Option<Received> {
        self.outcome
    }

    /// The whole content in memory: at most 1 GiB, and no more than arrives.
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn collect(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut content = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            content.extend_from_slice(&bytes);
        }
        Ok(content)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("piece", &self.piece)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}
