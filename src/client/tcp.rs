//! Requests over a TCP connection: one after another.

use super::answer::{Answer, Progress, Source};
use super::{RequestError, Waited, random_id};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::{
    Ask, ClientEvent, ClientRequest, Deadlines, ExtensionReply, Failure, Piece, Rejection, longest_reply,
    read_reply,
};
use crate::transport::ByteStream;
use crate::wire::extension::ExtensionRequest;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// Bytes that are read at a time while an answer's packet is to come: it fits whole, whatever follows it.
const PACKET_READ: usize = 16 << 10;
/// Bytes that are read at a time while content is to come. Large, so that few system calls and wake-ups are needed.
const CONTENT_READ: usize = 256 << 10;

/// What becomes of a connection on which another request can follow.
pub type GiveBack = Box<dyn FnOnce(TcpClient) + Send>;

/// A TCP connection to a peer, free for a request.
pub struct TcpClient {
    stream: Box<dyn ByteStream>,
    runtime: SharedRuntime,
    deadlines: Deadlines,
    used: bool,
}

impl TcpClient {
    /// Requests over `stream`, which is connected and has no request under way.
    #[must_use]
    pub fn new(stream: Box<dyn ByteStream>, runtime: SharedRuntime, deadlines: Deadlines) -> Self {
        Self { stream, runtime, deadlines, used: false }
    }

    /// Whether an answer has come over it. Such a connection may end at the very moment of its next use; a request
    /// without an answer is then sent again on a new one.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.used
    }

    /// Whether the peer has ended the connection or sent what nobody asked for. No request can follow then.
    #[must_use]
    pub fn is_stale(&mut self) -> bool {
        //= VTX-TCP-020
        //= VTX-CLS-009
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut cx, &mut buffer).is_ready()
    }

    /// Asks for a piece and waits for the begin of its answer. When the answer is complete, or an Error packet, the
    /// connection goes to `give_back`; otherwise it is closed.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(mut self, ask: Ask, give_back: GiveBack) -> Result<Answer, RequestError> {
        let asked = self.runtime.now();
        let piece_by = asked + self.deadlines.piece;
        let first_by = piece_by.min(asked + self.deadlines.first_byte);
        let runtime = self.runtime.clone();
        let sent = runtime.until(first_by, self.send(&ask)).await;
        sent.map_err(|_| RequestError::TimedOut(Waited::FirstByte))?.map_err(RequestError::Lost)?;
        let mut source = TcpSource {
            client: Some(self),
            give_back: Some(give_back),
            request: Some(ClientRequest::new(ask)),
            input: Bytes::new(),
            buffer: BytesMut::new(),
            deadline: piece_by,
        };
        match runtime.until(first_by, source.answered()).await {
            Ok(Ok(piece)) => Ok(Answer::new(piece, source)),
            Ok(Err(error)) => Err(source.fail(error)),
            Err(_) => Err(RequestError::TimedOut(Waited::FirstByte)),
        }
    }

    /// Sends a request of an extension, and reads the answer whole. It takes the connection: a deployed peer ends it at a
    /// tag that it does not know. `None`: the peer does not know the extension.
    ///
    /// # Errors
    /// [`RequestError`]; the deadline is that of the first byte, for all of the answer.
    pub async fn extension(
        mut self,
        request: &ExtensionRequest,
    ) -> Result<Option<ExtensionReply>, RequestError> {
        //= VTX-EXT-004
        let runtime = self.runtime.clone();
        let exchange = async {
            let limit = longest_reply(request) as u64;
            let mut bytes = Vec::new();
            // The peer may have ended the connection by the time that these are written, and what it sent counts.
            let _ = self.stream.write_all(&request.encode(random_id(&runtime))).await;
            let _ = self.stream.shutdown().await;
            match (&mut self.stream).take(limit + 1).read_to_end(&mut bytes).await {
                Ok(_) if bytes.len() as u64 > limit => Err(Rejection::Trailing.into()),
                //= VTX-EXT-005
                Err(_) if bytes.is_empty() => Ok(None),
                Err(error) => Err(RequestError::Lost(error)),
                Ok(_) => Ok(read_reply(request, &bytes.into())?),
            }
        };
        let answered = runtime.timeout(self.deadlines.first_byte, exchange).await;
        answered.unwrap_or(Err(RequestError::TimedOut(Waited::FirstByte)))
    }

    async fn send(&mut self, ask: &Ask) -> io::Result<()> {
        self.stream.write_all(&ask.download.encode(random_id(&self.runtime))).await?;
        self.stream.flush().await
    }
}

impl fmt::Debug for TcpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpClient").field("used", &self.used).finish_non_exhaustive()
    }
}

struct TcpSource {
    /// `None` once the connection was given back or has to be closed.
    client: Option<TcpClient>,
    give_back: Option<GiveBack>,
    request: Option<ClientRequest>,
    /// What was read and not yet looked at.
    input: Bytes,
    buffer: BytesMut,
    deadline: Instant,
}

impl TcpSource {
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

    /// The next event; `None` at the end of the connection.
    async fn event(&mut self) -> Result<Option<ClientEvent>, RequestError> {
        let request = self.request.as_mut().ok_or(Failure::NotAnswered)?;
        let client = self.client.as_mut().ok_or(Failure::NotAnswered)?;
        loop {
            if !self.input.is_empty()
                && let Some(event) = request.receive(&mut self.input)?
            {
                return Ok(Some(event));
            }
            let size = request.remaining().map_or(PACKET_READ, |left| CONTENT_READ.min(left as usize));
            // One read, one owned buffer: what was split off keeps its memory, so a new one is taken when it is full.
            if self.buffer.capacity() < size {
                self.buffer = BytesMut::with_capacity(CONTENT_READ.max(size));
            }
            let mut room = (&mut client.stream).take(size as u64);
            match room.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => self.input = self.buffer.split().freeze(),
                Err(error) => return Err(RequestError::Lost(error)),
            }
        }
    }

    async fn progress(&mut self) -> Result<Progress, RequestError> {
        if self.request.as_ref().and_then(ClientRequest::remaining) != Some(0)
            && let Some(event) = self.event().await?
        {
            return Ok(Progress::Content(match event {
                ClientEvent::Content(bytes) => bytes,
                ClientEvent::Answered(_) => Bytes::new(),
            }));
        }
        let request = self.request.take().ok_or(Failure::NotAnswered)?;
        let received = request.finish()?;
        self.free();
        Ok(Progress::Complete(received))
    }

    /// Ends the request with `error`, and the connection with it where its boundaries are lost.
    fn fail(&mut self, error: RequestError) -> RequestError {
        self.request = None;
        match &error {
            //= VTX-ERR-006
            RequestError::Failed(Failure::Refused { .. }) => self.free(),
            //= VTX-TCP-018
            RequestError::Failed(failure) if failure.is_mismatch() => self.free(),
            //= VTX-TCP-019
            _ => self.client = None,
        }
        error
    }

    /// Another request may follow on the connection.
    fn free(&mut self) {
        if let (Some(mut client), Some(give_back)) = (self.client.take(), self.give_back.take())
            && self.input.is_empty()
        {
            client.used = true;
            give_back(client);
        }
    }
}

impl Source for TcpSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(async move {
            let Some(client) = &self.client else { return Err(Failure::NotAnswered.into()) };
            let (runtime, deadline) = (client.runtime.clone(), self.deadline);
            match runtime.until(deadline, self.progress()).await {
                Ok(Ok(progress)) => Ok(progress),
                Ok(Err(error)) => Err(self.fail(error)),
                Err(_) => Err(self.fail(RequestError::TimedOut(Waited::Piece))),
            }
        })
    }
}
