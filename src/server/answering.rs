//! From a request to its answer.

use super::Shared;
use crate::session::{Answer, AnswerStep, Refusal};
use crate::store::{Content, StoreError, StoredPiece};
use crate::wire::{Download, ErrorCode};
use bytes::Bytes;
use futures_util::future::join;
use std::sync::Arc;

/// Bytes of content that are read from the store at a time, and so held for an answer: twice, since the next part is
/// read while one is sent. Large enough that a read's fixed cost vanishes beside it.
pub(super) const READ_LEN: u32 = 256 << 10;

/// A piece that is held, and the answer with it.
pub(super) struct Found {
    pub(super) answer: Answer,
    pub(super) content: Arc<dyn Content>,
}

/// Where an answer goes.
pub(super) trait Sink: Send {
    /// Hands `bytes` to the transport, which has to take some of them from time to time.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), BrokenOff>> + Send;
}

/// Why an answer was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokenOff {
    /// The client does not want it any more, or is gone.
    Gone,
    /// The client took nothing for too long.
    Late,
    /// The store failed.
    Store,
    /// The stored content is damaged.
    Corrupt,
}

impl Found {
    /// Sends the packet and the content, reading the next part of the content while one is on its way.
    pub(super) async fn send(&mut self, sink: &mut impl Sink) -> Result<(), BrokenOff> {
        let mut ready = Bytes::new();
        loop {
            match self.answer.step() {
                AnswerStep::Send(packet) => ready = packet,
                AnswerStep::Content { offset, length } => {
                    let read = self.content.read(offset.into(), length.min(READ_LEN) as usize);
                    let (written, read) = join(sink.write(ready), read).await;
                    written?;
                    ready = read.map_err(|error| {
                        tracing::warn!(%error, "an answer is broken off");
                        match error {
                            StoreError::Damaged { .. } => BrokenOff::Corrupt,
                            _ => BrokenOff::Store,
                        }
                    })?;
                    self.answer.content(&ready).map_err(|_| BrokenOff::Corrupt)?;
                }
                AnswerStep::Done => return sink.write(ready).await,
            }
        }
    }
}

impl Shared {
    /// Looks a piece up, by the answer deadline, and prepares the answer to the request with packet id `id`.
    pub(super) async fn look_up(&self, id: u8, download: Download) -> Result<Found, Refusal> {
        let piece = self.find(download).await.map_err(|refusal| Refusal { id, ..refusal });
        let piece = piece.inspect_err(|refusal| {
            tracing::debug!(piece = download.number, code = %refusal.code, "refuses a piece");
        })?;
        tracing::debug!(piece = download.number, "answers with a piece");
        let digest = piece.provenance.digest;
        let text = digest.to_text();
        //= VTX-CNT-006
        //= VTX-CNT-008
        //= VTX-CNT-012
        //= VTX-DIG-002
        let answer = Answer::new(id, download.kind, &piece.metadata(&text), digest);
        Ok(Found { answer, content: piece.content })
    }

    /// Looks a piece up, by the answer deadline.
    pub(super) async fn find(&self, download: Download) -> Result<StoredPiece, Refusal> {
        //= VTX-ERR-012
        let looked = self.runtime.timeout(self.settings.deadlines.answer, self.store.piece(download)).await;
        let Ok(found) = looked else {
            return Err(Refusal::new(0, ErrorCode::Internal, "the store did not answer by its deadline"));
        };
        //= VTX-REQ-011
        found.map_err(|error| {
            let code = error.code();
            if code == ErrorCode::Internal {
                tracing::warn!(%error, task = %download.task_id, piece = download.number, "store failed");
            }
            Refusal::new(0, code, error.peer_text())
        })
    }

    /// Takes a piece out of service whose content turned out to be another while it was sent.
    pub(super) async fn quarantine(&self, download: Download) {
        tracing::error!(task = %download.task_id, piece = download.number, "stored piece is damaged");
        if let Err(error) = self.store.mark_damaged(download).await {
            tracing::warn!(%error, "the damaged piece is out of service until the restart only");
        }
    }
}
