//! Requests over a QUIC connection: a bidirectional stream for each.

use super::answer::Answer;
use super::streamed::{Due, Input, Streamed};
use super::{RequestError, Waited, random_id};
use crate::canary::planted;
use crate::runtime::SharedRuntime;
use crate::session::{
    Ask, ClientEvent, ClientRequest, Deadlines, ExtensionReply, Failure, Rejection, longest_reply, read_reply,
};
use crate::transport::quic::{AppCode, EarlyData, ended};
use crate::watch;
use crate::wire::extension::ExtensionRequest;
use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{ReadError, ReadToEndError, RecvStream, WriteError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Mutex;

/// Chunks that are taken from the connection under one lock.
const CHUNKS_AT_ONCE: usize = 32;

/// A QUIC connection to a peer. Requests share it; clones are the same connection.
#[derive(Debug, Clone)]
pub struct QuicClient {
    connection: quinn::Connection,
    runtime: SharedRuntime,
    deadlines: Deadlines,
    early: Option<Arc<Early>>,
    /// Whose turn it is to wait for a stream that the peer allows. quinn wakes all that wait as soon as there is one: with
    /// thousands of requests they would be at nothing else.
    turn: Arc<Mutex<()>>,
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
        Self { connection, runtime, deadlines, early: None, turn: Arc::default() }
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
        let due = Due::new(&self.runtime, &self.deadlines);
        let packet = ask.download.encode(random_id(&self.runtime));
        let opened = self.runtime.until(due.first, self.exchange(&packet)).await;
        let stream = opened.map_err(|_| RequestError::TimedOut(Waited::FirstByte))??;
        let input = QuicInput { stream, read: VecDeque::new() };
        Streamed::begin(ask, input, self.runtime.clone(), due).await
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
                Err(ReadToEndError::Read(error)) => Err(unread(error)),
            }
        };
        let answered = self.runtime.timeout(self.deadlines.first_byte, exchange).await;
        answered.unwrap_or(Err(RequestError::TimedOut(Waited::FirstByte)))
    }

    /// Opens a stream for `packet`, which is all that is sent on it. Nothing else opens one: a lint sees to that.
    #[allow(clippy::disallowed_methods, reason = "requests are what streams are opened for")]
    async fn send(&self, packet: &[u8]) -> Result<RecvStream, RequestError> {
        //= VTX-QUC-012
        //= VTX-QUC-018
        let turn = self.turn.lock().await;
        let opened = self.connection.open_bi().await;
        drop(turn);
        let (mut send, receive) = opened.map_err(lost)?;
        match send.write_all(packet).await {
            //= VTX-QUC-013
            Ok(()) => {
                // It fails only on a stream that is finished or reset, and this one is neither.
                let _ = send.finish();
            }
            //= VTX-QUC-017
            Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(lost(error)),
            Err(error) => return Err(RequestError::Lost(error.into())),
        }
        Ok(receive)
    }
}

struct QuicInput {
    stream: RecvStream,
    /// What was taken from the connection and not yet looked at.
    read: VecDeque<Bytes>,
}

impl QuicInput {
    /// Stops the stream. It fails only where that has ended already: then there is nothing to stop.
    fn stop(&mut self, code: AppCode) {
        let _ = self.stream.stop(code.into());
    }
}

impl Input for QuicInput {
    const ENDS_WITH_CONTENT: bool = false;

    async fn event(&mut self, request: &mut ClientRequest) -> Result<Option<ClientEvent>, RequestError> {
        loop {
            while let Some(input) = self.read.front_mut() {
                if let Some(event) = request.receive(input)? {
                    return Ok(Some(event));
                }
                if input.is_empty() {
                    self.read.pop_front();
                }
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS_AT_ONCE];
            match self.stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => {
                    let count = if planted("burst-cut-off") { count.min(8) } else { count };
                    self.read.extend(chunks.into_iter().take(count));
                }
                Ok(None) => return Ok(None),
                //= VTX-QUC-031
                //= VTX-QUC-035
                Err(ReadError::Reset(_)) => return Err(Rejection::Reset.into()),
                Err(error) => return Err(unread(error)),
            }
        }
    }

    fn complete(&mut self) {}

    /// Tells the peer, on this stream alone: others share the connection.
    fn failed(&mut self, error: &RequestError) {
        //= VTX-QUC-034
        //= VTX-QUC-032
        //= VTX-QUC-033
        self.stop(match error {
            RequestError::TimedOut(_) => AppCode::Deadline,
            RequestError::Failed(failure) if failure.is_mismatch() => AppCode::DigestMismatch,
            RequestError::Failed(Failure::Rejected(_)) => AppCode::Malformed,
            RequestError::Failed(_) | RequestError::Lost(_) => AppCode::NoError,
        });
    }

    fn given_up(&mut self) {
        self.stop(AppCode::Cancelled);
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

/// Nothing more can be read: where the connection is lost, with the reason, which the stream's own error does not tell.
fn unread(error: ReadError) -> RequestError {
    match error {
        ReadError::ConnectionLost(error) => lost(error),
        error => RequestError::Lost(error.into()),
    }
}

fn lost(error: quinn::ConnectionError) -> RequestError {
    RequestError::Lost(ended(error))
}
