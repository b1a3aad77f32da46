//! QUIC connections: a stream for each request.

use super::admission::{AnswerPlace, Busy, ConnectionPlace};
use super::answering::{BrokenOff, Sink};
use super::lifecycle::Phase;
use super::{Shared, StorageServer};
use crate::session::{Incoming, Refusal, RequestReader};
use crate::transport::quic::{AppCode, QuicEndpoint};
use crate::wire::{Download, ErrorCode, ReservedTag};
use bytes::Bytes;
use futures_util::future::{Either, select};
use quinn::{Connection, ReadError, RecvStream, SendStream};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Bytes that are read at a time of a request. It has 74; what follows is ignored.
const REQUEST_READ: usize = 512;

impl StorageServer {
    /// Serves the connections that come to `endpoint`, until the shutdown.
    pub fn serve_quic(&self, endpoint: QuicEndpoint) {
        let shared = self.shared.clone();
        self.shared.lifecycle.spawn(&self.shared.runtime, accept(shared, endpoint));
    }
}

async fn accept(shared: Arc<Shared>, endpoint: QuicEndpoint) {
    let mut draining = pin!(shared.lifecycle.reached(Phase::Draining));
    loop {
        let Either::Left((Some(incoming), _)) = select(pin!(endpoint.accept()), draining.as_mut()).await
        else {
            break;
        };
        //= VTX-SEC-003
        if shared.admission.half_open() >= shared.settings.limits.half_open && incoming.may_retry() {
            // It fails only for an address that is validated already, which was asked just before.
            let _ = incoming.retry();
            continue;
        }
        let place = match shared.admission.connection(incoming.remote_address().ip()) {
            Ok(place) => place,
            //= VTX-QUC-026
            Err(busy) => {
                tracing::debug!(peer = %incoming.remote_address(), %busy, "connection refused");
                incoming.refuse();
                continue;
            }
        };
        shared.lifecycle.spawn(&shared.runtime, serve_incoming(shared.clone(), incoming, place));
    }
    //= VTX-QUC-027
    if let Err(error) = endpoint.serve(None) {
        tracing::warn!(%error, "an endpoint goes on to accept connections while the server shuts down");
    }
}

async fn serve_incoming(shared: Arc<Shared>, incoming: quinn::Incoming, mut place: ConnectionPlace) {
    let peer = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match shared.runtime.timeout(shared.settings.deadlines.request, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%peer, "handshake not complete by its deadline"),
    };
    place.established();
    tracing::debug!(%peer, "connected");
    let served = Served {
        shared,
        connection,
        place,
        closing: watch::Sender::new(false),
        requests: TaskTracker::new(),
    };
    Arc::new(served).serve().await;
    tracing::debug!(%peer, "disconnected");
}

/// A connection that is being served.
struct Served {
    shared: Arc<Shared>,
    connection: Connection,
    place: ConnectionPlace,
    /// Whether the client has sent Close.
    closing: watch::Sender<bool>,
    requests: TaskTracker,
}

/// Why no more requests are taken.
enum End {
    Lost,
    Closed,
    Draining,
}

impl Served {
    async fn serve(self: Arc<Self>) {
        let code = match self.accept_requests().await {
            End::Lost => return self.ended().await,
            //= VTX-CLS-004
            End::Closed => AppCode::NoError,
            End::Draining => AppCode::GoingAway,
        };
        //= VTX-QUC-046
        let answered = async {
            select(pin!(self.ended()), pin!(self.refuse_requests())).await;
        };
        let Shared { runtime, settings, lifecycle, .. } = &*self.shared;
        let answered = runtime.timeout(settings.deadlines.shutdown, answered);
        select(pin!(answered), pin!(lifecycle.reached(Phase::Aborted))).await;
        self.connection.close(code.into(), b"");
        self.ended().await;
    }

    /// Takes requests until the connection ends or none is to come.
    async fn accept_requests(self: &Arc<Self>) -> End {
        let mut closing = self.closing.subscribe();
        let closed = pin!(closing.wait_for(|closing| *closing));
        let draining = pin!(self.shared.lifecycle.reached(Phase::Draining));
        let mut stop = select(closed, draining);
        loop {
            match select(pin!(self.connection.accept_bi()), &mut stop).await {
                Either::Left((Ok((send, receive)), _)) => {
                    let request = Request { served: self.clone(), send, receive };
                    let serve = self.requests.track_future(request.serve());
                    self.shared.runtime.spawn(Box::pin(serve));
                }
                Either::Left((Err(_), _)) => return End::Lost,
                Either::Right((Either::Left(_), _)) => return End::Closed,
                Either::Right((Either::Right(_), _)) => return End::Draining,
            }
        }
    }

    /// Turns away requests that come after the last one that counts.
    async fn refuse_requests(&self) {
        //= VTX-CLS-006
        while let Ok((mut send, mut receive)) = self.connection.accept_bi().await {
            reset(&mut send, AppCode::GoingAway);
            stop(&mut receive, AppCode::GoingAway);
        }
        // The connection has ended, and the answers end with it.
        std::future::pending().await
    }

    /// Waits for the answers under way.
    async fn ended(&self) {
        self.requests.close();
        self.requests.wait().await;
    }
}

/// One stream.
struct Request {
    served: Arc<Served>,
    send: SendStream,
    receive: RecvStream,
}

/// What came of reading a request.
enum Read {
    Packet(Incoming),
    Reset,
    /// The client has sent Close on another stream.
    Closing,
    Lost,
}

impl Request {
    async fn serve(mut self) {
        let served = self.served.clone();
        let Shared { runtime, settings, admission, .. } = &*served.shared;
        let mut reader = RequestReader::new();
        let read = {
            let mut closing = served.closing.subscribe();
            let closing = pin!(closing.wait_for(|closing| *closing));
            let read = read(&mut reader, &mut self.receive);
            match select(pin!(runtime.timeout(settings.deadlines.request, read)), closing).await {
                Either::Left((read, _)) => read,
                Either::Right(_) => Ok(Read::Closing),
            }
        };
        match read {
            Ok(Read::Packet(Incoming::Request { id, download })) => match admission.answer(&served.place) {
                Ok(place) => self.answer(id, download, place).await,
                Err(busy) => self.busy(busy),
            },
            Ok(Read::Packet(Incoming::Extension { id, tag, value })) => match admission.answer(&served.place)
            {
                Ok(place) => self.extend(id, tag, &value, place).await,
                Err(busy) => self.busy(busy),
            },
            //= VTX-CLS-003
            Ok(Read::Packet(Incoming::Close)) => {
                finish(&mut self.send);
                served.closing.send_replace(true);
            }
            Ok(Read::Packet(Incoming::Refuse(refusal))) => {
                //= VTX-QUC-021
                stop(&mut self.receive, AppCode::Malformed);
                self.refuse(&refusal).await;
            }
            Err(_) => {
                stop(&mut self.receive, AppCode::Deadline);
                self.refuse(&Refusal::late(reader.packet_id())).await;
            }
            //= VTX-QUC-024
            Ok(Read::Reset) => reset(&mut self.send, AppCode::Cancelled),
            Ok(Read::Closing) => {
                reset(&mut self.send, AppCode::GoingAway);
                stop(&mut self.receive, AppCode::GoingAway);
            }
            Ok(Read::Lost) => {}
        }
    }

    async fn answer(mut self, id: u8, download: Download, _place: AnswerPlace) {
        //= VTX-QUC-014
        //= VTX-QUC-016
        stop(&mut self.receive, AppCode::NoError);
        let shared = self.served.shared.clone();
        //= VTX-REQ-010
        let mut found = match shared.look_up(id, download).await {
            Ok(found) => found,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        match found.send(&mut QuicSink { shared: &shared, send: &mut self.send }).await {
            Ok(()) => {
                //= VTX-QUC-015
                finish(&mut self.send);
                self.delivered().await;
            }
            Err(BrokenOff::Gone) => {}
            //= VTX-QUC-023
            //= VTX-ERR-013
            Err(BrokenOff::Store) => reset(&mut self.send, AppCode::Internal),
            Err(BrokenOff::Late) => reset(&mut self.send, AppCode::Deadline),
            Err(BrokenOff::Corrupt) => {
                reset(&mut self.send, AppCode::DigestMismatch);
                shared.quarantine(download).await;
            }
        }
    }

    async fn extend(mut self, id: u8, tag: ReservedTag, value: &[u8], _place: AnswerPlace) {
        stop(&mut self.receive, AppCode::NoError);
        let shared = self.served.shared.clone();
        match shared.extend(id, tag, value).await {
            Ok(reply) => self.send_all([reply.packet, reply.content]).await,
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    async fn refuse(self, refusal: &Refusal) {
        self.send_all([refusal.encode()]).await;
    }

    /// Sends an answer that is in memory, and ends the stream.
    async fn send_all<const N: usize>(mut self, parts: [Bytes; N]) {
        let shared = self.served.shared.clone();
        let mut sink = QuicSink { shared: &shared, send: &mut self.send };
        for part in parts {
            match sink.write(part).await {
                Ok(()) => {}
                Err(BrokenOff::Late) => return reset(&mut self.send, AppCode::Deadline),
                Err(_) => return,
            }
        }
        finish(&mut self.send);
        self.delivered().await;
    }

    fn busy(mut self, busy: Busy) {
        tracing::debug!(%busy, "request refused");
        //= VTX-QUC-026
        reset(&mut self.send, AppCode::Limit);
        stop(&mut self.receive, AppCode::Limit);
    }

    /// Waits until the client has the answer: until then it is under way, and the connection is not closed in order.
    async fn delivered(&mut self) {
        let Shared { runtime, settings, .. } = &*self.served.shared;
        let _ = runtime.timeout(settings.deadlines.progress, self.send.stopped()).await;
    }
}

struct QuicSink<'a> {
    shared: &'a Shared,
    send: &'a mut SendStream,
}

impl Sink for QuicSink<'_> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BrokenOff> {
        while !bytes.is_empty() {
            //= VTX-LIM-002
            let write = self.send.write_chunks(std::slice::from_mut(&mut bytes));
            match self.shared.runtime.timeout(self.shared.settings.deadlines.progress, write).await {
                Ok(Ok(_)) => {}
                //= VTX-QUC-025
                Ok(Err(_)) => return Err(BrokenOff::Gone),
                Err(_) => return Err(BrokenOff::Late),
            }
        }
        Ok(())
    }
}

/// Reads the first packet of a stream.
async fn read(reader: &mut RequestReader, receive: &mut RecvStream) -> Read {
    loop {
        match receive.read_chunk(REQUEST_READ, true).await {
            Ok(Some(chunk)) => {
                if let Some(incoming) = reader.receive(&mut chunk.bytes.as_ref()) {
                    return Read::Packet(incoming);
                }
            }
            Ok(None) => {
                //= VTX-QUC-022
                let empty =
                    || Refusal::new(0, ErrorCode::InvalidArgument, "the stream ended without a request");
                return Read::Packet(Incoming::Refuse(reader.finish().unwrap_or_else(empty)));
            }
            Err(ReadError::Reset(_)) => return Read::Reset,
            Err(_) => return Read::Lost,
        }
    }
}

// These fail only where the stream has ended already; then what they are to bring about has come about.

fn finish(send: &mut SendStream) {
    let _ = send.finish();
}

fn reset(send: &mut SendStream, code: AppCode) {
    let _ = send.reset(code.into());
}

fn stop(receive: &mut RecvStream, code: AppCode) {
    let _ = receive.stop(code.into());
}
