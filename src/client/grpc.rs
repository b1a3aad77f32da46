//! Requests over gRPC: a connection of HTTP/2, a stream for each.

use super::answer::{Answer, Progress, Source};
use super::streamed::Due;
use super::{RequestError, Waited};
use crate::grpc::{self, Code, MessageReader, PieceRequest, PieceResponse, Status};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::session::{Ask, ClientEvent, ClientRequest, Deadlines, Failure, Piece, Rejection};
use crate::transport::ByteStream;
use crate::wire::{Bounded, DecodeError, Metadata, PieceLength, TooLong, TrafficType, limits};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, Uri, header};
use prost::Message;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of one answer that the server may send before this side has taken them: a bandwidth of 10 Gb/s at a round
/// trip of 13 ms.
const STREAM_WINDOW: u32 = 16 << 20;
/// The same for all answers on a connection: two of them at full speed.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The largest frame that is taken. Deployed libraries send 16 KiB unless they are told otherwise; each frame costs a
/// pass through the connection's lock.
const MAX_FRAME: u32 = 1 << 20;
/// Bytes of content that are handed out, and hashed, at a time.
const PART_LEN: usize = 256 << 10;

/// A gRPC connection to a peer. Requests share it; clones are the same connection, which closes when the last of them
/// and of their requests is gone.
///
/// A response is one message, as deployed peers have it, and the piece's metadata may come behind its content. So
/// [`GrpcClient::request`] returns when the whole piece is in memory: as many bytes as arrive, and no more than the
/// piece is known to have ([`Ask::length`]), or 1 GiB where that is unknown.
#[derive(Clone)]
pub struct GrpcClient {
    requests: SendRequest<Bytes>,
    peer: SocketAddr,
    closed: Arc<AtomicBool>,
    host_id: Arc<str>,
    runtime: SharedRuntime,
    deadlines: Deadlines,
}

impl GrpcClient {
    /// Speaks gRPC over `stream`, which leads to `peer`. For TLS it comes from
    /// [`connect_http2`](crate::transport::tls::connect_http2).
    ///
    /// # Errors
    /// The stream's own; `TimedOut` when it takes nothing by the connect deadline.
    pub async fn new(
        stream: Box<dyn ByteStream>,
        peer: SocketAddr,
        runtime: SharedRuntime,
        deadlines: Deadlines,
    ) -> io::Result<Self> {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(grpc::MAX_HEADERS_LEN)
            .enable_push(false);
        let handshake = runtime.timeout(deadlines.connect, builder.handshake(stream)).await;
        let (requests, connection) =
            handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(into_io)?;
        let closed = Arc::new(AtomicBool::new(false));
        let closing = closed.clone();
        runtime.spawn(Box::pin(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection lost");
            }
            closing.store(true, Ordering::Release);
        }));
        Ok(Self { requests, peer, closed, host_id: "".into(), runtime, deadlines })
    }

    /// Names this host to the peer, by at most 1,024 bytes; without it requests name none. Deployed peers log it.
    #[must_use]
    pub fn with_host_id(mut self, host_id: &str) -> Self {
        self.host_id = Bounded::<{ limits::MAX_PARENT_ID_LEN }>::cut(host_id).as_str().into();
        self
    }

    /// Whether the connection has ended: then no request can follow. Where the peer has only announced the end, requests
    /// fail with [`Failure::GoingAway`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Asks for a piece and waits for all of it.
    ///
    /// Where the peer allows no more streams, it waits for one; that counts towards the first-byte deadline.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, ask: Ask) -> Result<Answer, RequestError> {
        let due = Due::new(&self.runtime, &self.deadlines);
        tracing::debug!("asks for a piece");
        // A call whose future is dropped is reset by h2.
        let response = self.runtime.until(due.first, self.call(&ask)).await;
        let response = response.map_err(|_| RequestError::TimedOut(Waited::FirstByte))??;
        let answer = self.runtime.until(due.piece, receive(ask, response)).await;
        answer.map_err(|_| RequestError::TimedOut(Waited::Piece))?
    }

    /// Sends the request and waits for the headers of its response.
    async fn call(&self, ask: &Ask) -> Result<Response<RecvStream>, RequestError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.peer.to_string())
            .path_and_query(grpc::path(ask.download.kind))
            .build()
            .map_err(|error| RequestError::Lost(io::Error::other(error)))?;
        let mut request =
            Request::post(uri).body(()).map_err(|error| RequestError::Lost(io::Error::other(error)))?;
        request.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
        request.headers_mut().insert(header::TE, http::HeaderValue::from_static("trailers"));
        let message = PieceRequest {
            host_id: self.host_id.to_string(),
            task_id: ask.download.task_id.to_string(),
            piece_number: ask.download.number,
        };
        let mut requests = self.requests.clone().ready().await.map_err(ended)?;
        let (response, mut send) = requests.send_request(request, false).map_err(ended)?;
        // A server may answer, and end the stream, before it has the request.
        let _ = send.send_data(grpc::encode(&message), true);
        response.await.map_err(ended)
    }
}

impl fmt::Debug for GrpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcClient")
            .field("peer", &self.peer)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Reads the message of a response and the status behind it.
async fn receive(ask: Ask, response: Response<RecvStream>) -> Result<Answer, RequestError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK || !grpc::is_grpc(&head.headers) {
        return Err(bad(format!("HTTP status {}, expected a response of gRPC", head.status.as_u16())));
    }
    let mut status = Status::read(&head.headers);
    let mut response = GrpcResponse::new(ask);
    while let Some(bytes) = body.data().await {
        let bytes = bytes.map_err(ended)?;
        response.receive(&bytes)?;
        // It fails only for more than was received.
        let _ = body.flow_control().release_capacity(bytes.len());
    }
    if let Some(trailers) = body.trailers().await.map_err(ended)? {
        status = Status::read(&trailers).or(status);
    }
    match status {
        Some(Status { code: Code::Ok, .. }) => response.finish(),
        Some(status) => {
            let code = status.error_code();
            Err(Failure::Refused { code, message: status.message }.into())
        }
        None => Err(bad("the response ended without a status")),
    }
}

/// The response to a request, put together from the bytes of its stream in whatever parts they come.
#[derive(Debug)]
pub struct GrpcResponse {
    ask: Ask,
    reader: MessageReader,
}

impl GrpcResponse {
    /// The response to `ask`, of which nothing has come yet.
    #[must_use]
    pub fn new(ask: Ask) -> Self {
        Self { ask, reader: MessageReader::for_piece(ask.length) }
    }

    /// Takes the next bytes. They are kept: as many as have come, and no more than the piece may have, with its fields.
    ///
    /// # Errors
    /// [`Rejection::BadMessage`] for what is not one message of gRPC, uncompressed and short enough.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        self.reader.receive(bytes).map_err(|error| bad(error.to_string()))
    }

    /// The answer, once the stream has ended well. Its content is verified while it is handed out.
    ///
    /// # Errors
    /// [`Rejection`]: the message is not complete, or is no answer to the request.
    pub fn finish(self) -> Result<Answer, RequestError> {
        if !self.reader.is_complete() {
            return Err(bad("the response ended within its message"));
        }
        let message = self.reader.into_message();
        tracing::debug!(bytes = message.len(), "has the answer");
        let (request, piece, content) = accept(self.ask, message)?;
        Ok(Answer::new(piece, GrpcSource { request: Some(request), content }))
    }
}

/// Judges a response like a Content packet. What is returned of its content is not verified yet.
fn accept(ask: Ask, response: Bytes) -> Result<(ClientRequest, Piece, Bytes), RequestError> {
    let response = PieceResponse::decode(response).map_err(|error| bad(error.to_string()))?;
    let piece = response.piece.ok_or_else(|| bad("no piece"))?;
    let length = PieceLength::try_from(piece.length)
        .map_err(|_| malformed(DecodeError::BadPieceLength { length: piece.length }))?;
    let metadata = Metadata {
        number: piece.number,
        offset: piece.offset,
        length,
        digest: Bounded::new(&piece.digest).map_err(|long| too_long("the digest", long))?,
        parent_id: Bounded::new(piece.parent_id.as_deref().unwrap_or_default())
            .map_err(|long| too_long("the parent id", long))?,
        // The field is wider here than in a packet, for no value that anybody sends.
        traffic_type: TrafficType(u8::try_from(piece.traffic_type.unwrap_or_default()).unwrap_or(u8::MAX)),
        cost: piece.cost.and_then(|cost| u64::try_from(cost.seconds).ok()).unwrap_or_default(),
        created_at: piece.created_at.unwrap_or_default().seconds,
    };
    let (request, accepted) = ClientRequest::answered(ask, &metadata)?;
    Ok((request, accepted, piece.content.unwrap_or_default()))
}

/// Content that is here already, and is verified while it is handed out.
struct GrpcSource {
    /// `None` once the request has ended.
    request: Option<ClientRequest>,
    content: Bytes,
}

impl GrpcSource {
    fn progress(&mut self) -> Result<Progress, RequestError> {
        let mut request = self.request.take().ok_or(Failure::NotAnswered)?;
        if self.content.is_empty() {
            return Ok(Progress::Complete(request.finish()?));
        }
        let mut part = self.content.split_to(self.content.len().min(PART_LEN));
        let event = request.receive(&mut part)?;
        // More content than the piece has is left over in `part`: it goes back, to be rejected as such.
        if !part.is_empty() {
            self.content = part;
        }
        self.request = Some(request);
        Ok(Progress::Content(match event {
            Some(ClientEvent::Content(bytes)) => bytes,
            Some(ClientEvent::Answered(_)) | None => Bytes::new(),
        }))
    }
}

impl Source for GrpcSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Progress, RequestError>> {
        Box::pin(std::future::ready(self.progress()))
    }
}

fn bad(what: impl Into<String>) -> RequestError {
    Rejection::BadMessage(what.into()).into()
}

fn malformed(error: DecodeError) -> RequestError {
    Rejection::Malformed(error).into()
}

fn too_long(field: &'static str, TooLong { length, limit }: TooLong) -> RequestError {
    malformed(DecodeError::FieldTooLong { field, length: u32::try_from(length).unwrap_or(u32::MAX), limit })
}

/// What the end of a stream or of the connection means to a request.
fn ended(error: h2::Error) -> RequestError {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Failure::GoingAway.into(),
        Some(Reason::NO_ERROR) if error.is_go_away() => Failure::GoingAway.into(),
        Some(_) if error.is_reset() && error.is_remote() => Rejection::Reset.into(),
        _ => RequestError::Lost(into_io(error)),
    }
}

fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}
