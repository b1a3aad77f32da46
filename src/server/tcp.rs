//! TCP connections: requests one after another.

use super::admission::ConnectionPlace;
#[cfg(feature = "sendfile")]
use super::answering::Found;
use super::answering::{BrokenOff, Recipient, Sink, request_span};
use super::lifecycle::Phase;
use super::stats::count;
use super::{Limit, Shared, StorageServer};
use crate::runtime::{BoxFuture, Elapsed};
use crate::session::{Incoming, Refusal, RequestReader};
#[cfg(feature = "tls")]
use crate::transport::tls::ServerTls;
use crate::transport::{ByteStream, Listener};
use crate::wire::{Download, ErrorCode, Message, Packet, ReservedTag};
#[cfg(feature = "sendfile")]
use crate::{session::AnswerStep, transport::FileSend};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{Either, select};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::Instrument as _;

/// Bytes of requests that are read at a time. No more than this and one packet is held unanswered, far below the
/// 65,536 bytes that are allowed: the rest waits in the transport.
const REQUEST_READ: usize = 8 << 10;

/// Chunks that have to go at a quick pace, one after another, before a thread sends: the kernel takes as much as 4 MiB
/// (`net.ipv4.tcp_wmem`) for a client that reads nothing.
#[cfg(feature = "sendfile")]
const QUICK_CHUNKS: u32 = 4;

/// Pause after an accept that failed for want of resources, so that a server out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl StorageServer {
    /// Serves the connections that come to `listener`, unprotected, until the shutdown.
    pub fn serve_tcp(&self, listener: Box<dyn Listener>) {
        let serve = |shared, stream, peer| serve(shared, stream, peer, None);
        let accept = accept(self.shared.clone(), listener, "tcp", serve);
        self.shared.lifecycle.spawn(&self.shared.runtime, accept);
    }

    /// Serves the connections that come to `listener`, with TLS from their first byte, until the shutdown.
    #[cfg(feature = "tls")]
    pub fn serve_tcp_tls(&self, listener: Box<dyn Listener>, tls: ServerTls) {
        //= VTX-TCP-021
        let protect: Protect = Arc::new(move |stream| {
            let tls = tls.clone();
            Box::pin(async move { crate::transport::tls::accept(&tls, stream).await })
        });
        let serve = move |shared, stream, peer| serve(shared, stream, peer, Some(protect.clone()));
        let accept = accept(self.shared.clone(), listener, "tcp", serve);
        self.shared.lifecycle.spawn(&self.shared.runtime, accept);
    }
}

/// What turns the stream of a new connection into a protected one.
type Protect =
    Arc<dyn Fn(Box<dyn ByteStream>) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> + Send + Sync>;

/// Hands the connections of a protocol, which come to `listener`, to `serve`, each in a task of its own.
pub(super) async fn accept<F: Future<Output = ()> + Send + 'static>(
    shared: Arc<Shared>,
    mut listener: Box<dyn Listener>,
    protocol: &'static str,
    serve: impl Fn(Arc<Shared>, Box<dyn ByteStream>, SocketAddr) -> F,
) {
    let mut draining = pin!(shared.lifecycle.reached(Phase::Draining));
    loop {
        match select(listener.accept(), draining.as_mut()).await {
            Either::Left((Ok((stream, peer)), _)) => {
                let span = shared.connection_span(protocol, peer);
                let served = serve(shared.clone(), stream, peer).instrument(span);
                shared.lifecycle.spawn(&shared.runtime, served);
            }
            Either::Left((Err(error), _)) => {
                tracing::debug!(%error, "accept failed");
                shared.runtime.sleep(ACCEPT_PAUSE).await;
            }
            //= VTX-TCP-015
            Either::Right(_) => return,
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: Box<dyn ByteStream>, peer: SocketAddr, protect: Option<Protect>) {
    let served = async {
        let place = shared.admission.connection(peer.ip());
        let stream = match protect {
            // A refusal could not be told before the handshake, which is what costs most.
            Some(_) if place.is_err() => return Ok(()),
            Some(protect) => {
                let handshake =
                    shared.runtime.timeout(shared.settings.deadlines.request, protect(stream)).await;
                handshake.map_err(|Elapsed| {
                    shared.admission.met(Limit::RequestDeadline);
                    io::ErrorKind::TimedOut
                })??
            }
            None => stream,
        };
        let mut connection = Connection {
            shared: shared.clone(),
            stream,
            unread: BytesMut::new(),
            #[cfg(feature = "sendfile")]
            quick: 0,
        };
        match place {
            Ok(place) => {
                tracing::debug!("connected");
                connection.serve(&place).await
            }
            //= VTX-TCP-014
            Err(met) => connection.last_words(&limit(0, met)).await,
        }
    };
    let aborted = shared.lifecycle.reached(Phase::Aborted);
    if let Either::Left((Err(error), _)) = select(pin!(served), pin!(aborted)).await {
        tracing::debug!(%error, "connection broken off");
    }
}

/// A connection that is being served.
struct Connection {
    shared: Arc<Shared>,
    stream: Box<dyn ByteStream>,
    /// What has arrived of the requests that were not looked at yet.
    unread: BytesMut,
    /// How many chunks in a row went from a file at a pace at which a thread is worth it.
    #[cfg(feature = "sendfile")]
    quick: u32,
}

/// What comes next on a connection.
enum Next {
    Packet(Incoming),
    /// Nothing: the client has ended it, is idle, or the server shuts down.
    End,
    /// The server shuts down.
    Draining,
    /// One last Error packet is due.
    Refuse(Refusal),
}

impl Connection {
    async fn serve(&mut self, place: &ConnectionPlace) -> io::Result<()> {
        let mut reader = RequestReader::new();
        loop {
            //= VTX-TCP-001
            //= VTX-TCP-002
            //= VTX-TCP-005
            match self.next(&mut reader).await? {
                Next::Packet(Incoming::Request { id, download }) => match self.shared.admit(place).await {
                    Ok(_place) => {
                        self.answer(id, download, place).instrument(request_span(download)).await?;
                    }
                    Err(met) => return self.last_words(&limit(id, met)).await,
                },
                Next::Packet(Incoming::Extension { id, tag, value }) => {
                    match self.shared.admit(place).await {
                        Ok(_place) => self.extend(id, tag, &value, place).await?,
                        Err(met) => return self.last_words(&limit(id, met)).await,
                    }
                }
                //= VTX-TCP-007
                Next::Packet(Incoming::Refuse(refusal)) if refusal.ends => {
                    return self.last_words(&refusal).await;
                }
                //= VTX-TCP-004
                //= VTX-TCP-006
                Next::Packet(Incoming::Refuse(refusal)) => self.refuse(&refusal).await?,
                //= VTX-CLS-003
                //= VTX-CLS-005
                //= VTX-TCP-011
                //= VTX-TCP-012
                Next::Packet(Incoming::Close) | Next::End => return self.stream.shutdown().await,
                // The answer before is complete: the shutdown is looked at only where the next packet is.
                //= VTX-CLS-010
                Next::Draining => {
                    let mut close = BytesMut::new();
                    Packet { id: 0, message: Message::Close }.encode(&mut close);
                    self.write(close.freeze()).await?;
                    return self.stream.shutdown().await;
                }
                //= VTX-TCP-009
                Next::Refuse(refusal) => return self.last_words(&refusal).await,
            }
        }
    }

    /// The next packet, by the deadlines.
    async fn next(&mut self, reader: &mut RequestReader) -> io::Result<Next> {
        let shared = self.shared.clone();
        let deadlines = &shared.settings.deadlines;
        let waits_since = shared.runtime.now();
        //= VTX-TCP-008
        let mut request_by = None;
        let mut draining = pin!(shared.lifecycle.reached(Phase::Draining));
        loop {
            let mut unread: &[u8] = &self.unread;
            let incoming = reader.receive(&mut unread);
            self.unread.advance(self.unread.len() - unread.len());
            if let Some(incoming) = incoming {
                return Ok(Next::Packet(incoming));
            }
            if !reader.is_idle() && request_by.is_none() {
                request_by = Some(shared.runtime.now() + deadlines.request);
            }
            let deadline = request_by.unwrap_or(waits_since + deadlines.idle);
            //= VTX-TCP-003
            self.unread.reserve(REQUEST_READ);
            let mut room = (&mut self.stream).take(REQUEST_READ as u64);
            let read = shared.runtime.until(deadline, room.read_buf(&mut self.unread));
            match select(pin!(read), draining.as_mut()).await {
                Either::Left((Ok(Ok(0)), _)) => {
                    return Ok(reader.finish().map_or(Next::End, Next::Refuse));
                }
                Either::Left((Ok(read), _)) => read.map(|_| ())?,
                // A rejected packet that stays incomplete has its Error packet already.
                Either::Left((Err(Elapsed), _)) if request_by.is_none() || reader.is_passing_over() => {
                    return Ok(Next::End);
                }
                Either::Left((Err(Elapsed), _)) => {
                    shared.admission.met(Limit::RequestDeadline);
                    return Ok(Next::Refuse(Refusal::late(reader.packet_id())));
                }
                Either::Right(_) => return Ok(Next::Draining),
            }
        }
    }

    async fn answer(&mut self, id: u8, download: Download, place: &ConnectionPlace) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut found = match shared.look_up(id, download).await {
            Ok(found) => found,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        let to = Recipient { shared: &shared, place, kind: download.kind };
        #[cfg(feature = "sendfile")]
        if let Some((file, begin)) = found.content.file()
            && self.stream.socket().is_some()
        {
            shared.begun(download.kind);
            let sent = self.send_file(&mut found, &to, file, begin).await;
            shared.ended(download, sent).await;
            //= VTX-TCP-010
            return Ok(sent?);
        }
        let _memory = match shared.memory(id, place, found.in_memory()).await {
            Ok(memory) => memory,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        shared.begun(download.kind);
        let sent = found.send(&to, &mut TcpSink { shared: &shared, stream: &mut self.stream }).await;
        shared.ended(download, sent).await;
        //= VTX-TCP-010
        Ok(sent?)
    }

    async fn extend(
        &mut self,
        id: u8,
        tag: ReservedTag,
        value: &[u8],
        place: &ConnectionPlace,
    ) -> io::Result<()> {
        let shared = self.shared.clone();
        match shared.extend(id, tag, value, place).await {
            Ok(reply) => {
                let to = Recipient { shared: &shared, place, kind: reply.kind };
                Ok(reply.send(&to, &mut TcpSink { shared: &shared, stream: &mut self.stream }).await?)
            }
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    /// Sends an answer whose content goes from the file, where it begins at `begin`, to the socket within the kernel. Its
    /// digest is not checked on the way: the client does.
    #[cfg(feature = "sendfile")]
    async fn send_file(
        &mut self,
        found: &mut Found,
        to: &Recipient<'_>,
        file: Arc<std::fs::File>,
        begin: u64,
    ) -> Result<(), BrokenOff> {
        loop {
            match found.answer.step() {
                AnswerStep::Send(packet) => {
                    TcpSink { shared: &self.shared, stream: &mut self.stream }.write(packet).await?;
                }
                AnswerStep::Content { offset, length } => {
                    let mut send = FileSend::new(file.clone(), begin + u64::from(offset), length.into())
                        .map_err(|_| BrokenOff::Store)?;
                    while send.remaining() > 0 {
                        if !self.burst(&mut send, found, to).await? {
                            self.chunk(&mut send, found, to).await?;
                        }
                    }
                }
                AnswerStep::Done => return Ok(()),
            }
        }
    }

    /// Sends from a thread, where there is one for it and the client is quick; whether anything was sent.
    #[cfg(feature = "sendfile")]
    async fn burst(
        &mut self,
        send: &mut FileSend,
        found: &mut Found,
        to: &Recipient<'_>,
    ) -> Result<bool, BrokenOff> {
        // What the socket takes without waiting needs no thread.
        if self.quick < QUICK_CHUNKS || send.remaining() <= FileSend::CHUNK {
            return Ok(false);
        }
        let admission = &self.shared.admission;
        let limit = send.remaining().min(FileSend::BURST);
        if !admission.may_burst(limit) {
            return Ok(false);
        }
        to.turn(limit).await;
        let burst = match admission.sender() {
            Some(place) => {
                let sending = send.burst(&self.shared.runtime, &mut *self.stream, limit, place);
                sending.await.map_err(broken_off)?
            }
            None => None,
        };
        let went = burst.map_or(0, |burst| burst.sent);
        admission.bandwidth_unused(to.place, limit - went).await;
        let Some(burst) = burst else { return Ok(false) };
        if burst.slow {
            self.quick = 0;
        }
        sent(burst.sent, found, to)?;
        Ok(burst.sent > 0)
    }

    /// Sends a chunk as the socket takes it, by the deadlines.
    #[cfg(feature = "sendfile")]
    async fn chunk(
        &mut self,
        send: &mut FileSend,
        found: &mut Found,
        to: &Recipient<'_>,
    ) -> Result<(), BrokenOff> {
        let socket = self.stream.socket().ok_or(BrokenOff::Gone)?;
        let runtime = &self.shared.runtime;
        let part = send.remaining().min(FileSend::CHUNK);
        let time = to.turn(part).await;
        let begun = runtime.now();
        let end = send.remaining() - part;
        while send.remaining() > end {
            let left = send.remaining() - end;
            let progress = runtime.now() + self.shared.settings.deadlines.progress;
            let step = runtime.until((begun + time).min(progress), send.step(socket, left)).await;
            sent(step.map_err(|Elapsed| BrokenOff::Late)?.map_err(broken_off)?, found, to)?;
        }
        if runtime.now().saturating_duration_since(begun) > FileSend::QUICK {
            self.quick = 0;
        } else if part == FileSend::CHUNK {
            self.quick = self.quick.saturating_add(1);
        }
        Ok(())
    }

    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        count(&self.shared.admission.counters.refused, 1);
        self.write(refusal.encode()).await
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut sink = TcpSink { shared: &self.shared, stream: &mut self.stream };
        Ok(sink.write(bytes).await?)
    }

    /// Sends a last Error packet, and sees to it that it arrives: a socket that is closed with unread bytes sends a reset,
    /// which may overtake the packet.
    async fn last_words(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.refuse(refusal).await?;
        //= VTX-TCP-013
        self.stream.shutdown().await?;
        let shared = self.shared.clone();
        let discard = async {
            loop {
                self.unread.clear();
                self.unread.reserve(REQUEST_READ);
                if matches!(self.stream.read_buf(&mut self.unread).await, Ok(0) | Err(_)) {
                    return;
                }
            }
        };
        let _ = shared.runtime.timeout(shared.settings.deadlines.discard, discard).await;
        Ok(())
    }
}

/// Notes that `count` bytes of content went from the file.
#[cfg(feature = "sendfile")]
fn sent(count: u64, found: &mut Found, to: &Recipient<'_>) -> Result<(), BrokenOff> {
    found.answer.passed(count).map_err(|_| BrokenOff::Corrupt)?;
    to.sent(count);
    Ok(())
}

/// Why `sendfile` failed.
#[cfg(feature = "sendfile")]
fn broken_off(error: io::Error) -> BrokenOff {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BrokenOff::Corrupt,
        _ => BrokenOff::Gone,
    }
}

struct TcpSink<'a> {
    shared: &'a Shared,
    stream: &'a mut Box<dyn ByteStream>,
}

impl Sink for TcpSink<'_> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BrokenOff> {
        let (runtime, progress) = (&self.shared.runtime, self.shared.settings.deadlines.progress);
        while !bytes.is_empty() {
            match runtime.timeout(progress, self.stream.write_buf(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return Err(BrokenOff::Gone),
                Err(Elapsed) => return Err(BrokenOff::Late),
            }
        }
        match runtime.timeout(progress, self.stream.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BrokenOff::Gone),
            Err(Elapsed) => Err(BrokenOff::Late),
        }
    }
}

fn limit(id: u8, limit: Limit) -> Refusal {
    tracing::debug!(%limit, "refused");
    Refusal { ends: true, ..Refusal::new(id, ErrorCode::Internal, limit.told()) }
}

impl From<BrokenOff> for io::Error {
    fn from(broken_off: BrokenOff) -> Self {
        let (kind, message) = match broken_off {
            BrokenOff::Gone => (io::ErrorKind::BrokenPipe, "the client is gone"),
            BrokenOff::Late => (io::ErrorKind::TimedOut, "the client took nothing for too long"),
            BrokenOff::Store => (io::ErrorKind::Other, "the store failed within an answer"),
            BrokenOff::Corrupt => (io::ErrorKind::InvalidData, "the stored piece is damaged"),
        };
        Self::new(kind, message)
    }
}
