//! Requests over a TCP connection: one after another.

use super::answer::Answer;
use super::gathering::Gathering;
use super::streamed::{Due, Input, Streamed};
use super::{RequestError, Waited, random_id};
use crate::runtime::SharedRuntime;
use crate::session::{
    Ask, ClientEvent, ClientRequest, Deadlines, ExtensionReply, Failure, Rejection, longest_reply, read_reply,
};
use crate::transport::ByteStream;
use crate::wire::extension::ExtensionRequest;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// Bytes that are read at a time while an answer's packet is to come: it fits whole, whatever follows it.
const PACKET_READ: usize = 16 << 10;
/// Bytes that are read at a time while content is to come. Large, so that few system calls and wake-ups are needed.
pub(super) const CONTENT_READ: usize = 256 << 10;

/// What becomes of a connection on which another request can follow.
pub type GiveBack = Box<dyn FnOnce(TcpClient) + Send>;

/// A TCP connection to a peer, free for a request.
pub struct TcpClient {
    stream: Box<dyn ByteStream>,
    runtime: SharedRuntime,
    deadlines: Deadlines,
    gathering: Gathering,
    used: bool,
}

impl TcpClient {
    /// Requests over `stream`, which is connected and has no request under way.
    #[must_use]
    pub fn new(stream: Box<dyn ByteStream>, runtime: SharedRuntime, deadlines: Deadlines) -> Self {
        let gathering = Gathering::new(runtime.now());
        Self { stream, runtime, deadlines, gathering, used: false }
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
        let (runtime, due) = (self.runtime.clone(), Due::new(&self.runtime, &self.deadlines));
        let sent = runtime.until(due.first, self.send(&ask)).await;
        sent.map_err(|_| RequestError::TimedOut(Waited::FirstByte))?.map_err(RequestError::Lost)?;
        let idle = Some((self, give_back));
        let input = TcpInput { idle, read: Bytes::new(), buffer: BytesMut::new() };
        Streamed::begin(ask, input, runtime, due).await
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

struct TcpInput {
    /// The connection, and where it goes after the answer; `None` once it went there or has to be closed.
    idle: Option<(TcpClient, GiveBack)>,
    /// What was read and not yet looked at.
    read: Bytes,
    buffer: BytesMut,
}

impl TcpInput {
    /// Another request may follow on the connection.
    fn free(&mut self) {
        if let Some((mut client, give_back)) = self.idle.take()
            && self.read.is_empty()
            && client.gathering.wait_for_anything(&*client.stream).is_ok()
        {
            client.used = true;
            give_back(client);
        }
    }
}

impl Input for TcpInput {
    const ENDS_WITH_CONTENT: bool = true;

    async fn event(&mut self, request: &mut ClientRequest) -> Result<Option<ClientEvent>, RequestError> {
        let (client, _) = self.idle.as_mut().ok_or(Failure::NotAnswered)?;
        loop {
            if !self.read.is_empty()
                && let Some(event) = request.receive(&mut self.read)?
            {
                return Ok(Some(event));
            }
            let left = request.remaining().map(|left| left as usize);
            let size = left.map_or(PACKET_READ, |left| CONTENT_READ.min(left));
            if let Some(left) = left {
                client.gathering.wait_for_much(&*client.stream, left).map_err(RequestError::Lost)?;
            }
            // One read, one owned buffer: what was split off keeps its memory, so a new one is taken when it is full.
            if self.buffer.capacity() < size {
                self.buffer = BytesMut::with_capacity(CONTENT_READ.max(size));
            }
            let mut room = (&mut client.stream).take(size as u64);
            let count = room.read_buf(&mut self.buffer).await.map_err(RequestError::Lost)?;
            if count == 0 {
                return Ok(None);
            }
            self.read = self.buffer.split().freeze();
            match left {
                Some(_) => client.gathering.came(count, client.runtime.now()),
                None => client.gathering.begin(client.runtime.now()),
            }
        }
    }

    fn complete(&mut self) {
        self.free();
    }

    /// Ends the connection where the boundaries of answers are lost.
    fn failed(&mut self, error: &RequestError) {
        match error {
            //= VTX-ERR-006
            RequestError::Failed(Failure::Refused { .. }) => self.free(),
            //= VTX-TCP-018
            RequestError::Failed(failure) if failure.is_mismatch() => self.free(),
            //= VTX-TCP-019
            _ => self.given_up(),
        }
    }

    fn given_up(&mut self) {
        self.idle = None;
    }
}
