//! An answer that comes as a stream of bytes, whatever carries it.

use super::answer::{Answer, Progress, Source};
use super::{RequestError, Waited};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::{Ask, ClientEvent, ClientRequest, Deadlines, Failure, Piece};
use bytes::Bytes;
use std::time::Instant;
use tracing::Span;

/// Where the bytes of one answer come from.
pub(super) trait Input: Send + 'static {
    /// Whether an answer is over with the last byte of its content; otherwise it is with the end of its stream.
    const ENDS_WITH_CONTENT: bool;

    /// Reads until `request` has something to tell; `None` at the end of the stream.
    fn event(
        &mut self,
        request: &mut ClientRequest,
    ) -> impl Future<Output = Result<Option<ClientEvent>, RequestError>> + Send;

    /// The answer is complete and has been accepted.
    fn complete(&mut self);

    /// The request has failed: the peer is told why, where there is a way to.
    fn failed(&mut self, error: &RequestError);

    /// Nobody wants the answer any more.
    fn given_up(&mut self);
}

/// When a request has to be how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// The header of the answer.
    pub(super) first: Instant,
    /// The end of the answer.
    pub(super) piece: Instant,
}

impl Due {
    /// For a request that begins now.
    pub(super) fn new(runtime: &SharedRuntime, deadlines: &Deadlines) -> Self {
        let asked = runtime.now();
        //= VTX-LIM-003
        let piece = asked + deadlines.piece;
        Self { first: piece.min(asked + deadlines.first_byte), piece }
    }
}

/// A request whose answer streams in.
pub(super) struct Streamed<I: Input> {
    input: I,
    /// `None` once it has ended.
    request: Option<ClientRequest>,
    runtime: SharedRuntime,
    due: Due,
    /// Within which it was asked.
    span: Span,
}

impl<I: Input> Streamed<I> {
    /// Waits for the begin of the answer to `ask`, which was sent.
    pub(super) async fn begin(
        ask: Ask,
        input: I,
        runtime: SharedRuntime,
        due: Due,
    ) -> Result<Answer, RequestError> {
        tracing::debug!("has asked for a piece");
        let span = Span::current();
        let mut streamed = Self { input, request: Some(ClientRequest::new(ask)), runtime, due, span };
        let runtime = streamed.runtime.clone();
        match runtime.until(due.first, streamed.answered()).await {
            Ok(Ok(piece)) => Ok(Answer::new(piece, streamed)),
            Ok(Err(error)) => Err(streamed.fail(error)),
            Err(_) => Err(streamed.fail(RequestError::TimedOut(Waited::FirstByte))),
        }
    }

    /// Reads up to the end of the answer's packet.
    async fn answered(&mut self) -> Result<Piece, RequestError> {
        loop {
            let request = self.request.as_mut().ok_or(Failure::NotAnswered)?;
            match self.input.event(request).await? {
                Some(ClientEvent::Answered(piece)) => return Ok(piece),
                Some(ClientEvent::Content(_)) => {}
                None => {
                    let request = self.request.take().ok_or(Failure::NotAnswered)?;
                    request.finish()?;
                    return Err(Failure::NotAnswered.into());
                }
            }
        }
    }

    async fn progress(&mut self) -> Result<Progress, RequestError> {
        let request = self.request.as_mut().ok_or(Failure::NotAnswered)?;
        let over = I::ENDS_WITH_CONTENT && request.remaining() == Some(0);
        if !over && let Some(event) = self.input.event(request).await? {
            return Ok(Progress::Content(match event {
                ClientEvent::Content(bytes) => bytes,
                ClientEvent::Answered(_) => Bytes::new(),
            }));
        }
        //= VTX-QUC-028
        let request = self.request.take().ok_or(Failure::NotAnswered)?;
        let received = request.finish()?;
        tracing::debug!(parent: &self.span, verified = ?received.verified, "has a piece");
        self.input.complete();
        Ok(Progress::Complete(received))
    }

    fn fail(&mut self, error: RequestError) -> RequestError {
        tracing::debug!(parent: &self.span, %error, "a request failed");
        self.request = None;
        self.input.failed(&error);
        error
    }
}

impl<I: Input> Source for Streamed<I> {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(async move {
            let (runtime, deadline) = (self.runtime.clone(), self.due.piece);
            match runtime.until(deadline, self.progress()).await {
                Ok(Ok(progress)) => Ok(progress),
                Ok(Err(error)) => Err(self.fail(error)),
                Err(_) => Err(self.fail(RequestError::TimedOut(Waited::Piece))),
            }
        })
    }
}

impl<I: Input> Drop for Streamed<I> {
    fn drop(&mut self) {
        if self.request.is_some() {
            self.input.given_up();
        }
    }
}
