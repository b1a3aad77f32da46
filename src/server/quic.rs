//! QUIC connections: a stream for each request.

use super::admission::{AnswerPlace, ConnectionPlace};
use super::answering::{BrokenOff, Recipient, Sink, request_span};
use super::extension::Reply;
use super::lifecycle::Phase;
use super::stats::count;
use super::windows::{Sending, Window};
use super::{Limit, Shared, StorageServer};
use crate::canary::planted;
use crate::session::{Incoming, Refusal, RequestReader};
use crate::transport::quic::{AppCode, QuicEndpoint, close};
use crate::watch;
use crate::wire::{Download, ErrorCode, ReservedTag};
use bytes::Bytes;
use futures_util::future::{Either, select};
use quinn::{Connection, ReadError, RecvStream, SendStream, ZeroRttAccepted};
use std::pin::pin;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

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
    accept_until_draining(&shared, &endpoint).await;
    // Whoever still comes is told, rather than left to its deadline, as long as others are being finished with.
    //= VTX-QUC-027
    let runtime = shared.runtime.clone();
    runtime.spawn(Box::pin(async move {
        let refuse = async {
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
            }
        };
        select(pin!(refuse), pin!(shared.lifecycle.ended())).await;
    }));
}

async fn accept_until_draining(shared: &Arc<Shared>, endpoint: &QuicEndpoint) {
    let mut draining = pin!(shared.lifecycle.reached(Phase::Draining));
    loop {
        let Either::Left((Some(incoming), _)) = select(pin!(endpoint.accept()), draining.as_mut()).await
        else {
            return;
        };
        //= VTX-SEC-003
        if shared.admission.half_open() >= shared.settings.limits.half_open && incoming.may_retry() {
            shared.admission.met(Limit::HalfOpen);
            // It fails only for an address that is validated already, which was asked just before.
            let _ = incoming.retry();
            continue;
        }
        let place = match shared.admission.connection(incoming.remote_address().ip()) {
            Ok(place) => place,
            //= VTX-QUC-026
            Err(limit) => {
                tracing::debug!(peer = %incoming.remote_address(), %limit, "connection refused");
                incoming.refuse();
                continue;
            }
        };
        let span = shared.connection_span("quic", incoming.remote_address());
        let served = serve_incoming(shared.clone(), endpoint.clone(), incoming, place);
        shared.lifecycle.spawn(&shared.runtime, served.instrument(span));
    }
}

async fn serve_incoming(
    shared: Arc<Shared>,
    endpoint: QuicEndpoint,
    incoming: quinn::Incoming,
    place: ConnectionPlace,
) {
    let half_open = shared.admission.handshake();
    let (answers_early, windows) = (endpoint.answers_early(), endpoint.send_windows());
    let connecting = match endpoint.let_in(incoming) {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%error, "handshake failed"),
    };
    drop(endpoint);
    let served = |connection| {
        Arc::new(Served {
            shared: shared.clone(),
            connection,
            place,
            window: Window::new(windows.clone()),
            closing: watch::Sender::new(false),
            requests: TaskTracker::new(),
        })
    };
    let by = shared.runtime.now() + shared.settings.deadlines.request;
    //= VTX-QUC-043
    let early = if answers_early && !planted("early-not-answered") {
        connecting.into_0rtt()
    } else {
        Err(connecting)
    };
    let served = match early {
        Ok((connection, complete)) => {
            let served = served(connection);
            if shared.runtime.until(by, served.accept_early(complete)).await.is_err() {
                shared.admission.met(Limit::RequestDeadline);
                close(&served.connection, AppCode::Deadline, b"");
            }
            served
        }
        Err(connecting) => match shared.runtime.until(by, connecting).await {
            Ok(Ok(connection)) => served(connection),
            Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
            Err(_) => {
                shared.admission.met(Limit::RequestDeadline);
                return tracing::debug!("handshake not complete by its deadline");
            }
        },
    };
    drop(half_open);
    tracing::debug!("connected");
    served.serve().await;
    tracing::debug!("disconnected");
}

/// A connection that is being served.
struct Served {
    shared: Arc<Shared>,
    connection: Connection,
    place: ConnectionPlace,
    window: Window,
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
        //= VTX-LIM-005
        close(&self.connection, code, b"");
        self.ended().await;
    }

    /// Takes requests while the handshake is not complete: they may be replayed, and whoever sent them has not shown that
    /// the address is theirs.
    async fn accept_early(self: &Arc<Self>, complete: ZeroRttAccepted) {
        /// Answers that are begun before the handshake is complete: as many requests as a client may send early.
        const MAX_EARLY: usize = 16;
        //= VTX-QUC-039
        //= VTX-QUC-041
        //= VTX-QUC-042
        let mut complete = pin!(complete);
        for _ in 0..MAX_EARLY {
            match select(pin!(self.connection.accept_bi()), complete.as_mut()).await {
                Either::Left((Ok((send, receive)), _)) => self.take(send, receive),
                Either::Left((Err(_), _)) | Either::Right(_) => return,
            }
        }
        complete.await;
    }

    /// Serves a request, in a task of its own.
    fn take(self: &Arc<Self>, send: SendStream, receive: RecvStream) {
        let request = Request { served: self.clone(), send, receive };
        let serving = request.serve().in_current_span();
        self.shared.runtime.spawn(Box::pin(self.requests.track_future(serving)));
    }

    /// Takes requests until the connection ends or none is to come.
    async fn accept_requests(self: &Arc<Self>) -> End {
        let closing = self.closing.subscribe();
        let closed = pin!(closing.wait_for(|closing| *closing));
        let draining = pin!(self.shared.lifecycle.reached(Phase::Draining));
        let mut stop = select(closed, draining);
        loop {
            match select(pin!(self.connection.accept_bi()), &mut stop).await {
                Either::Left((Ok((send, receive)), _)) => self.take(send, receive),
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

    /// To be kept until an answer has been sent and acknowledged.
    fn sending(&self) -> Sending<'_> {
        self.window.sending(&self.connection, &self.shared.admission)
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
        let shared = &served.shared;
        let mut reader = RequestReader::new();
        let read = {
            let closing = served.closing.subscribe();
            let closing = pin!(closing.wait_for(|closing| *closing));
            let read = read(&mut reader, &mut self.receive);
            match select(pin!(runtime.timeout(settings.deadlines.request, read)), closing).await {
                Either::Left((read, _)) => read,
                Either::Right(_) => Ok(Read::Closing),
            }
        };
        match read {
            Ok(Read::Packet(Incoming::Request { id, download })) => match shared.admit(&served.place).await {
                Ok(place) => self.answer(id, download, place).instrument(request_span(download)).await,
                Err(limit) => self.busy(limit),
            },
            Ok(Read::Packet(Incoming::Extension { id, tag, value })) => {
                match shared.admit(&served.place).await {
                    Ok(place) => self.extend(id, tag, &value, place).await,
                    Err(limit) => self.busy(limit),
                }
            }
            //= VTX-CLS-003
            Ok(Read::Packet(Incoming::Close)) => {
                finish(&mut self.send);
                served.closing.send(true);
                // The end of this stream would be lost with the connection.
                self.delivered().await;
            }
            Ok(Read::Packet(Incoming::Refuse(refusal))) => {
                //= VTX-QUC-021
                stop(&mut self.receive, AppCode::Malformed);
                self.refuse(&refusal).await;
            }
            Err(_) => {
                admission.met(Limit::RequestDeadline);
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
        let served = self.served.clone();
        let shared = &served.shared;
        //= VTX-REQ-010
        let mut found = match shared.look_up(id, download).await {
            Ok(found) => found,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        let _memory = match shared.memory(id, &self.served.place, found.in_memory()).await {
            Ok(memory) => memory,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        shared.begun(download.kind);
        let sending = served.sending();
        let sent = {
            let to = Recipient { shared, place: &served.place, kind: download.kind };
            let mut sink = QuicSink { shared, send: &mut self.send, sending: &sending };
            let sent = pin!(found.send(&to, &mut sink));
            // It may be waiting for its turn, which takes as long as others need.
            match select(sent, pin!(served.connection.closed())).await {
                Either::Left((sent, _)) => sent,
                Either::Right(_) => Err(BrokenOff::Gone),
            }
        };
        shared.ended(download, sent).await;
        match sent {
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
            Err(BrokenOff::Corrupt) => reset(&mut self.send, AppCode::DigestMismatch),
        }
    }

    async fn extend(mut self, id: u8, tag: ReservedTag, value: &[u8], _place: AnswerPlace) {
        stop(&mut self.receive, AppCode::NoError);
        let shared = self.served.shared.clone();
        match shared.extend(id, tag, value, &self.served.clone().place).await {
            Ok(reply) => self.send_all(reply).await,
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    async fn refuse(self, refusal: &Refusal) {
        count(&self.served.shared.admission.counters.refused, 1);
        self.send_all(refusal.encode().into()).await;
    }

    /// Sends an answer that is in memory, and ends the stream.
    async fn send_all(mut self, reply: Reply) {
        let served = self.served.clone();
        let to = Recipient { shared: &served.shared, place: &served.place, kind: reply.kind };
        let sending = served.sending();
        let mut sink = QuicSink { shared: &served.shared, send: &mut self.send, sending: &sending };
        match reply.send(&to, &mut sink).await {
            Ok(()) => {
                finish(&mut self.send);
                self.delivered().await;
            }
            Err(BrokenOff::Late) => reset(&mut self.send, AppCode::Deadline),
            Err(_) => {}
        }
    }

    fn busy(mut self, limit: Limit) {
        tracing::debug!(%limit, "request refused");
        //= VTX-QUC-026
        reset(&mut self.send, AppCode::Limit);
        stop(&mut self.receive, AppCode::Limit);
    }

    /// Waits until the client has the answer: until then it is under way, and the connection is not closed in order.
    async fn delivered(&mut self) {
        if planted("answer-not-awaited") {
            return;
        }
        let Shared { runtime, settings, .. } = &*self.served.shared;
        // The client has it, or will not take it any more; or the connection has ended.
        let _ = runtime.timeout(settings.deadlines.progress, self.send.stopped()).await;
    }
}

struct QuicSink<'a> {
    shared: &'a Shared,
    send: &'a mut SendStream,
    sending: &'a Sending<'a>,
}

impl Sink for QuicSink<'_> {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BrokenOff> {
        while !bytes.is_empty() {
            // A write that waits for the windows of the connection does not notice that its stream is not wanted any more,
            // and what that stream has sent already may be what fills them.
            let stopped = self.send.stopped();
            let write = pin!(self.send.write_chunks(std::slice::from_mut(&mut bytes)));
            //= VTX-LIM-002
            let write = self.shared.runtime.timeout(self.shared.settings.deadlines.progress, write);
            match select(pin!(write), pin!(stopped)).await {
                Either::Left((Ok(Ok(written)), _)) => self.sending.wrote(written.bytes as u64),
                //= VTX-QUC-025
                Either::Left((Ok(Err(_)), _)) | Either::Right(_) => return Err(BrokenOff::Gone),
                Either::Left((Err(_), _)) => return Err(BrokenOff::Late),
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
    if planted("answer-not-finished") {
        return;
    }
    let _ = send.finish();
}

fn reset(send: &mut SendStream, code: AppCode) {
    let _ = send.reset(code.into());
}

fn stop(receive: &mut RecvStream, code: AppCode) {
    let _ = receive.stop(code.into());
}
