//! From a request to its answer.

use super::admission::{AnswerMemory, AnswerPlace, ConnectionPlace};
use super::stats::count;
use super::{Limit, Shared};
use crate::session::{Answer, AnswerStep, Refusal};
use crate::store::{Content, StoreError, StoredPiece};
use crate::wire::{Download, ErrorCode, PieceKind};
use bytes::Bytes;
use futures_util::future::join;
use std::sync::Arc;
use std::time::Duration;
use tracing::Span;

/// Bytes of content that are read from the store at a time, and so held for an answer: twice, since the next part is
/// read while one is sent. Large enough that a read's fixed cost vanishes beside it.
pub(super) const READ_LEN: u32 = 256 << 10;

/// Within which logs tell of the answer to a request for a piece.
pub(super) fn request_span(download: Download) -> Span {
    let Download { kind, task_id, number } = download;
    tracing::debug_span!("request", task = %task_id.short(), piece = number, %kind)
}

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
    /// Bytes of content that are in memory while it is sent.
    pub(super) fn in_memory(&self) -> u64 {
        self.content.len().min(2 * u64::from(READ_LEN))
    }

    /// Sends the packet and the content, reading the next part of the content while one is on its way.
    pub(super) async fn send(&mut self, to: &Recipient<'_>, sink: &mut impl Sink) -> Result<(), BrokenOff> {
        let (mut ready, mut content) = (Bytes::new(), 0);
        loop {
            match self.answer.step() {
                AnswerStep::Send(packet) => ready = packet,
                AnswerStep::Content { offset, length } => {
                    let read = self.content.read(offset.into(), length.min(READ_LEN) as usize);
                    let (written, read) = join(to.hand_over(ready, sink), read).await;
                    written?;
                    to.sent(content);
                    ready = read.map_err(|error| {
                        tracing::warn!(%error, "an answer is broken off");
                        match error {
                            StoreError::Damaged { .. } => BrokenOff::Corrupt,
                            _ => BrokenOff::Store,
                        }
                    })?;
                    content = ready.len() as u64;
                    self.answer.content(&ready).map_err(|_| BrokenOff::Corrupt)?;
                }
                AnswerStep::Done => {
                    to.hand_over(ready, sink).await?;
                    to.sent(content);
                    return Ok(());
                }
            }
        }
    }
}

/// Whom an answer goes to: its bytes are charged to the connection as they flow.
pub(super) struct Recipient<'a> {
    pub(super) shared: &'a Shared,
    pub(super) place: &'a ConnectionPlace,
    pub(super) kind: PieceKind,
}

impl Recipient<'_> {
    /// Hands `bytes` to the transport, when it is their turn and part by part, each of which has to be taken in time.
    pub(super) async fn hand_over(&self, mut bytes: Bytes, sink: &mut impl Sink) -> Result<(), BrokenOff> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(READ_LEN as usize));
            let time = self.turn(part.len() as u64).await;
            let taken = self.shared.runtime.timeout(time, sink.write(part)).await;
            taken.unwrap_or(Err(BrokenOff::Late))?;
        }
        Ok(())
    }

    /// Counts bytes of content that the transport has taken.
    pub(super) fn sent(&self, bytes: u64) {
        self.shared.admission.counters.piece(self.kind, |piece| count(&piece.bytes, bytes));
    }

    /// Waits until so many bytes may be handed to the transport; how long that may take then.
    pub(super) async fn turn(&self, bytes: u64) -> Duration {
        let Shared { admission, settings, .. } = self.shared;
        admission.bandwidth_turn(self.place, bytes).await;
        let least = settings.limits.least_rate.get();
        //= VTX-LIM-002
        settings.deadlines.progress + Duration::from_secs_f64(bytes as f64 / least as f64)
    }
}

impl Shared {
    /// A place for an answer to a request on the connection that holds `place`, when it is its turn.
    pub(super) async fn admit(&self, place: &ConnectionPlace) -> Result<AnswerPlace, Limit> {
        let answer = self.admission.answer(place)?;
        let turn = self.runtime.timeout(self.settings.deadlines.answer, self.admission.request_turn(place));
        turn.await.map_err(|_| self.admission.met(Limit::Requests))?;
        Ok(answer)
    }

    /// Memory for `bytes` of content, by the answer deadline.
    pub(super) async fn memory(
        &self,
        id: u8,
        place: &ConnectionPlace,
        bytes: u64,
    ) -> Result<AnswerMemory, Refusal> {
        let taking = self.admission.memory(place, bytes);
        let taken = self.runtime.timeout(self.settings.deadlines.answer, taking).await;
        taken.map_err(|_| Refusal::new(id, ErrorCode::Internal, self.admission.met(Limit::Memory).told()))
    }

    /// Counts the begin of an answer with a piece.
    pub(super) fn begun(&self, kind: PieceKind) {
        self.admission.counters.piece(kind, |piece| count(&piece.begun, 1));
    }

    /// Counts, and tells, how an answer with a piece ended, and takes the piece out of service where its content turned out
    /// to be another while it was sent.
    pub(super) async fn ended(&self, download: Download, ended: Result<(), BrokenOff>) {
        self.admission.counters.piece(download.kind, |piece| count(&piece.failed, ended.is_err().into()));
        match ended {
            Ok(()) => tracing::debug!("has answered"),
            Err(reason) => tracing::debug!(?reason, "the answer was broken off"),
        }
        match ended {
            Err(BrokenOff::Late) => {
                self.admission.met(Limit::LeastRate);
            }
            Err(BrokenOff::Corrupt) => self.quarantine(download).await,
            _ => {}
        }
    }

    /// Looks a piece up, by the answer deadline, and prepares the answer to the request with packet id `id`.
    pub(super) async fn look_up(&self, id: u8, download: Download) -> Result<Found, Refusal> {
        let piece = self.find(download).await.map_err(|refusal| Refusal { id, ..refusal });
        let piece = piece.inspect_err(|refusal| {
            tracing::debug!(code = %refusal.code, "refuses a piece");
        })?;
        tracing::debug!("answers with a piece");
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
            let met = self.admission.met(Limit::AnswerDeadline);
            return Err(Refusal::new(0, ErrorCode::Internal, met.told()));
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

    async fn quarantine(&self, download: Download) {
        tracing::error!(task = %download.task_id, piece = download.number, "stored piece is damaged");
        if let Err(error) = self.store.mark_damaged(download).await {
            tracing::warn!(%error, "the damaged piece is out of service until the restart only");
        }
    }
}
