//! Answers to the requests of extensions.

use super::admission::{AnswerMemory, ConnectionPlace};
use super::answering::{BrokenOff, Recipient, Sink};
use super::lifecycle::Phase;
use super::{Limit, Shared};
use crate::session::Refusal;
use crate::store::{PieceSet, StoreError, Task, TaskKey};
use crate::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionRequest, Hold, MAX_AVAILABILITY, MAX_HOLD,
    MAX_RANGE_LEN, RangeHead,
};
use crate::wire::{Algorithm, Digest, Download, ErrorCode, PieceKind, ReservedTag, Tag};
use bytes::Bytes;
use futures_util::future::{Either, select};
use std::pin::pin;
use std::time::Duration;

/// An answer: the packet, and the bytes that follow it.
pub(super) struct Reply {
    pub(super) packet: Bytes,
    pub(super) content: Bytes,
    /// Of the piece that the content is from.
    pub(super) kind: PieceKind,
    #[allow(dead_code, reason = "held for its drop")]
    memory: Option<AnswerMemory>,
}

impl From<Bytes> for Reply {
    fn from(packet: Bytes) -> Self {
        Self { packet, content: Bytes::new(), kind: PieceKind::Piece, memory: None }
    }
}

impl Reply {
    /// Sends it.
    pub(super) async fn send(&self, to: &Recipient<'_>, sink: &mut impl Sink) -> Result<(), BrokenOff> {
        to.hand_over(self.packet.clone(), sink).await?;
        to.hand_over(self.content.clone(), sink).await?;
        to.sent(self.content.len() as u64);
        Ok(())
    }
}

impl Shared {
    /// Answers the request of an extension, by the answer deadline.
    pub(super) async fn extend(
        &self,
        id: u8,
        tag: ReservedTag,
        value: &[u8],
        place: &ConnectionPlace,
    ) -> Result<Reply, Refusal> {
        let known = Extension::asked_by(tag).filter(|_| self.settings.extensions);
        //= VTX-EXT-002
        let extension = known.ok_or_else(|| Refusal::no_request(id, Tag::Reserved(tag)))?;
        //= VTX-EXT-014
        let request = ExtensionRequest::decode(extension, value)
            .map_err(|error| Refusal::new(id, ErrorCode::InvalidArgument, error.to_string()))?;
        let reply = self.reply(id, request, place);
        match self.runtime.timeout(self.settings.deadlines.answer, reply).await {
            Ok(reply) => reply,
            Err(_) => {
                let met = self.admission.met(Limit::AnswerDeadline);
                Err(Refusal::new(id, ErrorCode::Internal, met.told()))
            }
        }
    }

    async fn reply(
        &self,
        id: u8,
        request: ExtensionRequest,
        place: &ConnectionPlace,
    ) -> Result<Reply, Refusal> {
        Ok(match request {
            ExtensionRequest::Capabilities => Capabilities::all().encode(id).into(),
            ExtensionRequest::Description { kind, task_id } => {
                let Task { division, digest, .. } = self.task(id, TaskKey { kind, id: task_id }).await?;
                Description { division, digest }.encode(id).into()
            }
            ExtensionRequest::Availability { kind, task_id, first, hold } => {
                let key = TaskKey { kind, id: task_id };
                self.availability(id, key, first, hold).await?.encode(id).into()
            }
            ExtensionRequest::Range { piece, start, length } => {
                self.range(id, piece, start, length, place).await?
            }
        })
    }

    async fn task(&self, id: u8, key: TaskKey) -> Result<Task, Refusal> {
        //= VTX-EXT-013
        let task = self.store.task(key).await.map_err(|error| refusal(id, &error))?;
        task.ok_or_else(|| refusal(id, &StoreError::Missing(crate::store::Missing::Task)))
    }

    /// Which pieces are held, from `first` on: as soon as there is news beyond `hold`.
    async fn availability(
        &self,
        id: u8,
        key: TaskKey,
        first: u32,
        hold: Option<Hold>,
    ) -> Result<Availability, Refusal> {
        //= VTX-EXT-025
        let until =
            hold.map(|hold| self.runtime.now() + Duration::from_millis(hold.wait.into()).min(MAX_HOLD));
        // A server that leaves says what it has.
        let mut draining = pin!(self.lifecycle.reached(Phase::Draining));
        loop {
            let grown = self.store.grown();
            let task = self.task(id, key).await?;
            let held = self.store.held(key).await.map_err(|error| refusal(id, &error))?;
            let availability = availability(&task, first, &held);
            let (Some(hold), Some(until)) = (hold, until) else { return Ok(availability) };
            if availability.held.iter().filter(|held| **held).count() != hold.known as usize {
                return Ok(availability);
            }
            let waited = self.runtime.until(until, select(grown, &mut draining)).await;
            if !matches!(waited, Ok(Either::Left(_))) {
                return Ok(availability);
            }
        }
    }

    async fn range(
        &self,
        id: u8,
        piece: Download,
        start: u32,
        length: u32,
        place: &ConnectionPlace,
    ) -> Result<Reply, Refusal> {
        let kind = piece.kind;
        let piece = self.store.piece(piece).await.map_err(|error| refusal(id, &error))?;
        let piece_length = piece.span.length;
        //= VTX-EXT-021
        if !(1..=MAX_RANGE_LEN).contains(&length) || start >= piece_length.get() {
            let message =
                format!("expected 1 to {MAX_RANGE_LEN} bytes from within a piece of {piece_length}");
            return Err(Refusal::new(id, ErrorCode::InvalidArgument, message));
        }
        let length = length.min(piece_length.get() - start);
        let memory = Some(self.memory(id, place, length.into()).await?);
        let content = piece.content.read(start.into(), length as usize).await;
        let content = content.map_err(|error| refusal(id, &error))?;
        let digest = Digest::of(Algorithm::Crc32, &content);
        let packet = RangeHead { start, length, piece_length, digest }.encode(id);
        Ok(Reply { packet, content, kind, memory })
    }
}

fn availability(task: &Task, first: u32, held: &PieceSet) -> Availability {
    let left = task.division.pieces().saturating_sub(first.into());
    let count = u32::try_from(left).unwrap_or(u32::MAX).min(MAX_AVAILABILITY);
    let held = (0..count).map(|at| first.checked_add(at).is_some_and(|number| held.contains(number)));
    Availability { first, held: held.collect() }
}

fn refusal(id: u8, error: &StoreError) -> Refusal {
    Refusal::new(id, error.code(), error.peer_text())
}
