//! Requests over a QUIC connection: a bidirectional stream for each.

use super::answer::{Answer, Progress, Source};
use super::{RequestError, Waited, random_id};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::{
    Ask, ClientEvent, ClientRequest, Deadlines, ExtensionReply, Failure, Piece, Rejection, longest_reply,
    read_reply,
};
use crate::transport::quic::{AppCode, EarlyData};
use crate::watch;
use crate::wire::extension::ExtensionRequest;
use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{ReadError, ReadToEndError, RecvStream, WriteError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Chunks that are taken from the connection under one lock.
const CHUNKS_AT_ONCE: usize = 32;

/// A QUIC connection to a peer. Requests share it; clones are the same connection.
#[derive(Debug, Clone)]
pub struct QuicClient {
    connection: quinn::Connection,
    runtime: SharedRuntime,
    deadlines: Deadlines,
    early: Option<Arc<Early>>,
}

/// The time before the handshake is complete.
#[derive(Debug)]
struct Early {
    /// Requests that may still go early.
    left: AtomicUsize,
    outcome: watch::Receiver<Option<EarlyOutcome>>,
    /// Requests that went early and have not heard of the outcome.
    under_way: watch::Sender<usize>,
}

/// A request that goes early. Counted until it is dropped.
struct EarlyTurn(Arc<Early>);

impl Drop for EarlyTurn {
    fn drop(&mut self) {
        self.0.under_way.modify(|count| *count -= 1);
    }
}

/// What became of early data.
#[derive(Debug, Clone)]
enum EarlyOutcome {
    Accepted,
    Rejected,
    Failed(Arc<str>),
}

/// Requests that go early on one connection at most.
const MAX_EARLY: usize = 16;

impl QuicClient {
    /// Requests over `connection`, whose handshake is complete.
    #[must_use]
    pub fn new(connection: quinn::Connection, runtime: SharedRuntime, deadlines: Deadlines) -> Self {
        Self { connection, runtime, deadlines, early: None }
    }

    /// Requests over `connection`, on which `early` lets the first ones go before the handshake is complete: their answers
    /// come a round trip earlier, and none counts before the server is known to be the right one.
    #[must_use]
    pub fn early(
        connection: quinn::Connection,
        early: EarlyData,
        runtime: SharedRuntime,
        deadlines: Deadlines,
    ) -> Self {
        let (tell, outcome) = watch::channel(None);
        let (clock, connect) = (runtime.clone(), deadlines.connect);
        runtime.spawn(Box::pin(async move {
            let outcome = match clock.timeout(connect, early.accepted()).await {
                Ok(Ok(true)) => EarlyOutcome::Accepted,
                Ok(Ok(false)) => EarlyOutcome::Rejected,
                Ok(Err(error)) => EarlyOutcome::Failed(error.to_string().into()),
                Err(_) => EarlyOutcome::Failed("the handshake was not complete by its deadline".into()),
            };
            tell.send(Some(outcome));
        }));
        let early =
            Arc::new(Early { left: AtomicUsize::new(MAX_EARLY), outcome, under_way: watch::Sender::new(0) });
        Self { early: Some(early), ..Self::new(connection, runtime, deadlines) }
    }

    /// What will become of a request that goes out now; `None` once the handshake is complete. Beyond the requests that
    /// may go early, it waits for that.
    async fn goes_early(&self) -> Result<Option<EarlyTurn>, RequestError> {
        let Some(early) = &self.early else { return Ok(None) };
        let known = early.outcome.wait_for(Option::is_some).now_or_never().is_some();
        //= VTX-QUC-038
        let take = |left: usize| left.checked_sub(1);
        if !known && early.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok() {
            early.under_way.modify(|count| *count += 1);
            return Ok(Some(EarlyTurn(early.clone())));
        }
        settled(early).await?;
        Ok(None)
    }

    /// Sends `packet` on a stream of its own: early where that is possible, and then once more if the server did not take
    /// it so. Returns when the handshake is complete.
    async fn exchange(&self, packet: &[u8]) -> Result<RecvStream, RequestError> {
        //= VTX-QUC-037
        //= VTX-EXT-010
        let Some(turn) = self.goes_early().await? else { return self.send(packet).await };
        let stream = self.send(packet).await;
        let early = turn.0.clone();
        if let EarlyOutcome::Accepted = settled(&early).await? {
            return stream;
        }
        // The streams of before are void, and their ids are given out again. quinn files wakers by these ids: a void stream
        // that goes late takes the waker of the new one with it. So all of them go before any new one comes.
        drop(stream);
        drop(turn);
        let _ = early.under_way.subscribe().wait_for(|count| *count == 0).await;
        //= VTX-QUC-044
        self.send(packet).await
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Asks for a piece and waits for the begin of its answer.
    ///
    /// Where the peer allows no more streams, it waits for one; that counts towards the first-byte deadline.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, ask: Ask) -> Result<Answer, RequestError> {
        let asked = self.runtime.now();
        //= VTX-LIM-003
        let piece_by = asked + self.deadlines.piece;
        let first_by = piece_by.min(asked + self.deadlines.first_byte);
        let opened =
            self.runtime.until(first_by, self.exchange(&ask.download.encode(random_id(&self.runtime)))).await;
        let stream = opened.map_err(|_| RequestError::TimedOut(Waited::FirstByte))??;
        let mut source = QuicSource {
            stream,
            request: Some(ClientRequest::new(ask)),
            input: VecDeque::new(),
            runtime: self.runtime.clone(),
            deadline: piece_by,
        };
        match self.runtime.until(first_by, source.answered()).await {
            Ok(Ok(piece)) => Ok(Answer::new(piece, source)),
            Ok(Err(error)) => Err(source.fail(error)),
            Err(_) => Err(source.fail(RequestError::TimedOut(Waited::FirstByte))),
        }
    }

    /// Sends a request of an extension on a stream of its own, and reads the answer whole. `None`: the peer does not know
    /// the extension.
    ///
    /// # Errors
    /// [`RequestError`]; the deadline is that of the first byte, for all of the answer.
    pub async fn extension(
        &self,
        request: &ExtensionRequest,
    ) -> Result<Option<ExtensionReply>, RequestError> {
        //= VTX-EXT-003
        let exchange = async {
            let mut stream = self.exchange(&request.encode(random_id(&self.runtime))).await?;
            match stream.read_to_end(longest_reply(request)).await {
                Ok(bytes) => Ok(read_reply(request, &bytes.into())?),
                Err(ReadToEndError::TooLong) => Err(Rejection::Trailing.into()),
                Err(ReadToEndError::Read(ReadError::Reset(_))) => Ok(None),
                Err(ReadToEndError::Read(error)) => Err(RequestError::Lost(error.into())),
            }
        };
        let answered = self.runtime.timeout(self.deadlines.first_byte, exchange).await;
        answered.unwrap_or(Err(RequestError::TimedOut(Waited::FirstByte)))
    }

    /// Opens a stream for `packet`, which is all that is sent on it.
    async fn send(&self, packet: &[u8]) -> Result<RecvStream, RequestError> {
        //= VTX-QUC-012
        let (mut send, receive) = self.connection.open_bi().await.map_err(lost)?;
        match send.write_all(packet).await {
            //= VTX-QUC-013
            Ok(()) => {
                // It fails only on a stream that is finished or reset, and this one is neither.
                let _ = send.finish();
            }
            //= VTX-QUC-017
            Err(WriteError::Stopped(_)) => {}
            Err(error) => return Err(RequestError::Lost(error.into())),
        }
        Ok(receive)
    }
}

struct QuicSource {
    stream: RecvStream,
    /// `None` once the request has ended.
    request: Option<ClientRequest>,
    /// What was taken from the connection and not yet looked at.
    input: VecDeque<Bytes>,
    runtime: SharedRuntime,
    deadline: Instant,
}

impl QuicSource {
    /// Reads up to the end of the answer's packet.
    async fn answered(&mut self) -> Result<Piece, RequestError> {
        loop {
            match self.event().await? {
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

    /// The next event; `None` at the end of the stream.
    async fn event(&mut self) -> Result<Option<ClientEvent>, RequestError> {
        let request = self.request.as_mut().ok_or(Failure::NotAnswered)?;
        loop {
            while let Some(input) = self.input.front_mut() {
                if let Some(event) = request.receive(input)? {
                    return Ok(Some(event));
                }
                if input.is_empty() {
                    self.input.pop_front();
                }
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS_AT_ONCE];
            match self.stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => self.input.extend(chunks.into_iter().take(count)),
                Ok(None) => return Ok(None),
                //= VTX-QUC-031
                //= VTX-QUC-035
                Err(ReadError::Reset(_)) => return Err(Rejection::Reset.into()),
                Err(error) => return Err(RequestError::Lost(error.into())),
            }
        }
    }

    async fn progress(&mut self) -> Result<Progress, RequestError> {
        match self.event().await? {
            Some(ClientEvent::Content(bytes)) => Ok(Progress::Content(bytes)),
            Some(ClientEvent::Answered(_)) => Ok(Progress::Content(Bytes::new())),
            //= VTX-QUC-028
            None => {
                let request = self.request.take().ok_or(Failure::NotAnswered)?;
                Ok(Progress::Complete(request.finish()?))
            }
        }
    }

    /// Ends the request with `error` and tells the peer.
    fn fail(&mut self, error: RequestError) -> RequestError {
        //= VTX-QUC-032
        //= VTX-QUC-033
        let code = match &error {
            RequestError::TimedOut(_) => AppCode::Deadline,
            RequestError::Failed(failure) if failure.is_mismatch() => AppCode::DigestMismatch,
            RequestError::Failed(Failure::Rejected(_)) => AppCode::Malformed,
            RequestError::Failed(_) | RequestError::Lost(_) => AppCode::NoError,
        };
        self.request = None;
        // It fails only where the stream has ended already: then there is nothing to stop.
        let _ = self.stream.stop(code.into());
        error
    }
}

impl Source for QuicSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(async move {
            let (runtime, deadline) = (self.runtime.clone(), self.deadline);
            match runtime.until(deadline, self.progress()).await {
                Ok(Ok(progress)) => Ok(progress),
                Ok(Err(error)) => Err(self.fail(error)),
                Err(_) => Err(self.fail(RequestError::TimedOut(Waited::Piece))),
            }
        })
    }
}

impl Drop for QuicSource {
    fn drop(&mut self) {
        if self.request.is_some() {
            let _ = self.stream.stop(AppCode::Cancelled.into());
        }
    }
}

/// What became of early data, once that is known.
async fn settled(early: &Early) -> Result<EarlyOutcome, RequestError> {
    let lost = |reason: &str| RequestError::Lost(io::Error::other(reason.to_owned()));
    match early.outcome.wait_for(Option::is_some).await {
        Ok(Some(EarlyOutcome::Failed(reason))) => Err(lost(&reason)),
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) | Err(_) => Err(lost("the handshake was given up")),
    }
}

fn lost(error: quinn::ConnectionError) -> RequestError {
    RequestError::Lost(io::Error::from(error))
}
