//! gRPC: connections of HTTP/2, a stream for each call.

use super::admission::ConnectionPlace;
use super::answering::{BrokenOff, Found, Recipient, Sink, request_span};
use super::lifecycle::Phase;
use super::stats::count;
use super::{Limit, Shared, StorageServer, tcp};
use crate::grpc::{self, Code, MessageReader, PieceRequest, Status, Time};
use crate::session::Answer;
use crate::store::StoredPiece;
use crate::transport::tls::{self, ServerTls};
use crate::transport::{ByteStream, Listener};
use crate::wire::{Download, PieceKind, TaskId, TrafficType};
use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::server::{Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use prost::Message;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Bytes of an answer that wait to be written to the connection. Two parts of content: one is written while the next
/// is read.
const SEND_BUFFER: usize = 512 << 10;

impl StorageServer {
    /// Serves gRPC to the connections that come to `listener`, until the shutdown: over TLS with `tls`, in the clear
    /// without. All four kinds of pieces are served, each by the method that deployed peers have for it.
    ///
    /// The limits and deadlines are those of the other transports. A client that is over a limit of answers is told
    /// RESOURCE_EXHAUSTED, a connection over a limit is closed. A connection without a call is closed after the idle
    /// deadline, or after twice the time at most.
    pub fn serve_grpc(&self, listener: Box<dyn Listener>, tls: Option<ServerTls>) {
        let serve = move |shared, stream, peer| serve(shared, stream, peer, tls.clone());
        let accept = tcp::accept(self.shared.clone(), listener, "grpc", serve);
        self.shared.lifecycle.spawn(&self.shared.runtime, accept);
    }
}

async fn serve(shared: Arc<Shared>, stream: Box<dyn ByteStream>, peer: SocketAddr, tls: Option<ServerTls>) {
    let place = match shared.admission.connection(peer.ip()) {
        Ok(place) => place,
        Err(busy) => return tracing::debug!(%busy, "connection refused"),
    };
    let connect = shared.runtime.timeout(shared.settings.deadlines.request, connect(&shared, stream, tls));
    let draining = shared.lifecycle.reached(Phase::Draining);
    let connection = match select(pin!(connect), pin!(draining)).await {
        Either::Left((Ok(Ok(connection)), _)) => connection,
        Either::Left((Ok(Err(error)), _)) => return tracing::debug!(%error, "handshake failed"),
        Either::Left((Err(_), _)) => {
            shared.admission.met(Limit::RequestDeadline);
            return tracing::debug!("handshake not complete by its deadline");
        }
        Either::Right(_) => return,
    };
    tracing::debug!("connected");
    let calls = TaskTracker::new();
    let served = Served { shared, place: Arc::new(place), calls };
    if let Err(error) = served.serve(connection).await {
        tracing::debug!(%error, "connection broken off");
    }
    // The connection is gone, and the calls end with it.
    served.calls.close();
    served.calls.wait().await;
}

type Http2 = Connection<Box<dyn ByteStream>, Bytes>;

async fn connect(
    shared: &Shared,
    stream: Box<dyn ByteStream>,
    tls: Option<ServerTls>,
) -> Result<Http2, io::Error> {
    let stream = match tls {
        Some(tls) => tls::accept_http2(&tls, stream).await?,
        None => stream,
    };
    // What protects against floods of resets, of empty frames and of headers is on by default in h2.
    let calls = u32::try_from(shared.settings.limits.answers_per_connection).unwrap_or(u32::MAX);
    h2::server::Builder::new()
        .max_concurrent_streams(calls)
        .max_header_list_size(grpc::MAX_HEADERS_LEN)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(stream)
        .await
        .map_err(io::Error::other)
}

/// A connection that is being served.
struct Served {
    shared: Arc<Shared>,
    place: Arc<ConnectionPlace>,
    calls: TaskTracker,
}

impl Served {
    /// Takes calls until the connection ends, the server shuts down, or nothing comes any more. It also moves the bytes
    /// of all calls: so it never waits for anything but the connection.
    async fn serve(&self, mut connection: Http2) -> Result<(), h2::Error> {
        let Shared { runtime, settings, lifecycle, .. } = &*self.shared;
        let mut draining = pin!(lifecycle.reached(Phase::Draining));
        let mut aborted = pin!(lifecycle.reached(Phase::Aborted));
        let mut idle = runtime.timer(runtime.now() + settings.deadlines.idle);
        let mut closing = false;
        loop {
            let next = std::future::poll_fn(|cx| {
                if aborted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if !closing && draining.as_mut().poll(cx).is_ready() {
                    closing = true;
                    connection.graceful_shutdown();
                }
                while idle.as_mut().poll(cx).is_ready() {
                    let unused = self.calls.is_empty();
                    if unused && closing {
                        // It was asked to end and did not.
                        return Poll::Ready(None);
                    }
                    if unused {
                        closing = true;
                        connection.graceful_shutdown();
                    }
                    idle.as_mut().reset(runtime.now() + settings.deadlines.idle);
                }
                connection.poll_accept(cx)
            });
            let Some(call) = next.await else { return Ok(()) };
            let (request, respond) = call?;
            let call = call_task(self.shared.clone(), self.place.clone(), request, respond);
            let call = call.in_current_span();
            runtime.spawn(Box::pin(self.calls.track_future(call)));
            idle.as_mut().reset(runtime.now() + settings.deadlines.idle);
        }
    }
}

async fn call_task(
    shared: Arc<Shared>,
    place: Arc<ConnectionPlace>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let status = match http_status(&request) {
        Ok(()) => answer(&shared, &place, request, &mut respond).await,
        Err(code) => {
            let mut response = Response::new(());
            *response.status_mut() = code;
            // It fails only where the client has given the call up: then nobody waits for it.
            let _ = respond.send_response(response, true);
            return;
        }
    };
    if let Err(status) = status {
        count(&shared.admission.counters.refused, 1);
        tracing::debug!(code = ?status.code, message = %status.message, "call refused");
        let mut response = Response::new(());
        response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
        status.write(response.headers_mut());
        // As above.
        let _ = respond.send_response(response, true);
    }
}

/// Whether a request is a call of gRPC at all, or what HTTP has to say to it.
fn http_status(request: &Request<RecvStream>) -> Result<(), StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !grpc::is_grpc(request.headers()) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    Ok(())
}

/// Answers one call; an error is a status that is still to be sent.
async fn answer(
    shared: &Arc<Shared>,
    place: &ConnectionPlace,
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Status> {
    let kind = grpc::kind(request.uri().path())
        .ok_or_else(|| Status::new(Code::Unimplemented, "this server hands out pieces and nothing else"))?;
    let read = read(kind, request.into_body());
    let download = shared.runtime.timeout(shared.settings.deadlines.request, read).await;
    let download = download.map_err(|_| {
        Status::new(Code::DeadlineExceeded, shared.admission.met(Limit::RequestDeadline).told())
    })??;
    hand_out(shared, place, download, respond).instrument(request_span(download)).await
}

/// Answers with a piece.
async fn hand_out(
    shared: &Arc<Shared>,
    place: &ConnectionPlace,
    download: Download,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Status> {
    let exhausted = |limit: Limit| Status::new(Code::ResourceExhausted, limit.told());
    let _place = shared.admit(place).await.map_err(exhausted)?;
    let stored = shared.find(download).await;
    let stored = stored.map_err(|refusal| Status::from_error(refusal.code, refusal.message))?;

    tracing::debug!("answers with a piece");
    let mut found = found(stored);
    let memory = shared.memory(0, place, found.in_memory()).await;
    let _memory = memory.map_err(|_| exhausted(Limit::Memory))?;

    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    let Ok(send) = respond.send_response(response, false) else { return Ok(()) };
    let mut sink = GrpcSink { shared, send };
    let to = Recipient { shared, place, kind: download.kind };
    shared.begun(download.kind);
    let sent = found.send(&to, &mut sink).await;
    shared.ended(download, sent).await;
    let status = match sent {
        Ok(()) => Status::OK,
        // A stream that is dropped before its end is reset by h2, as cancelled.
        Err(BrokenOff::Gone | BrokenOff::Late) => return Ok(()),
        Err(BrokenOff::Store) => Status::new(Code::Internal, "the store failed within the answer"),
        Err(BrokenOff::Corrupt) => Status::new(Code::Internal, "the stored piece is damaged"),
    };
    let mut trailers = HeaderMap::new();
    status.write(&mut trailers);
    // As above.
    let _ = sink.send.send_trailers(trailers);
    Ok(())
}

/// Reads the one message of a request. What follows it is ignored.
async fn read(kind: PieceKind, mut body: RecvStream) -> Result<Download, Status> {
    let mut reader = MessageReader::new(grpc::MAX_REQUEST_LEN);
    while !reader.is_complete() {
        let Some(bytes) = body.data().await else { break };
        let bytes = bytes.map_err(|_| Status::new(Code::Cancelled, "the request was given up"))?;
        reader.receive(&bytes).map_err(|bad| Status::new(Code::InvalidArgument, bad.to_string()))?;
        // It fails only for more than was received.
        let _ = body.flow_control().release_capacity(bytes.len());
    }
    if !reader.is_complete() {
        return Err(Status::new(Code::InvalidArgument, "the stream ended without a request"));
    }
    let message = PieceRequest::decode(reader.into_message());
    let message = message.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    let task_id = message.task_id.parse::<TaskId>();
    let task_id = task_id.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    Ok(Download { kind, task_id, number: message.piece_number })
}

/// The answer with a piece: everything but its content, and the content behind it.
fn found(stored: StoredPiece) -> Found {
    let StoredPiece { number, span, provenance, content } = stored;
    let parent_id = provenance.parent_id.as_bounded();
    let piece = grpc::Piece {
        number,
        parent_id: (!parent_id.is_empty()).then(|| parent_id.as_str().to_owned()),
        offset: span.offset,
        length: span.length.into(),
        digest: provenance.digest.to_text().as_str().to_owned(),
        content: None,
        traffic_type: Some(TrafficType::REMOTE_PEER.0.into()),
        cost: Some(Time { seconds: i64::try_from(provenance.cost).unwrap_or(i64::MAX), nanos: 0 }),
        created_at: Some(Time { seconds: provenance.created_at, nanos: 0 }),
    };
    let head = grpc::response_head(&piece, span.length);
    Found { answer: Answer::with_head(head, span.length, provenance.digest), content }
}

struct GrpcSink<'a> {
    shared: &'a Shared,
    send: SendStream<Bytes>,
}

impl Sink for GrpcSink<'_> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BrokenOff> {
        let Shared { runtime, settings, .. } = self.shared;
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let mut capacity = self.send.capacity();
            if capacity == 0 {
                let more = std::future::poll_fn(|cx| self.send.poll_capacity(cx));
                match runtime.timeout(settings.deadlines.progress, more).await {
                    Ok(Some(Ok(more))) => capacity = more,
                    Ok(None | Some(Err(_))) => return Err(BrokenOff::Gone),
                    Err(_) => return Err(BrokenOff::Late),
                }
            }
            let part = bytes.split_to(capacity.min(bytes.len()));
            self.send.send_data(part, false).map_err(|_| BrokenOff::Gone)?;
        }
        Ok(())
    }
}
