//! What a server does on a connection: it reads requests, answers as it is told, and notes what comes of it.

use super::{Record, Recording, beside, lock};
use crate::conformance::Waits;
use crate::conformance::client::seen::{Connection, Request};
use crate::conformance::client::speak::{Heard, Sending, Speak};
use crate::conformance::client::{Asked, Reply, Step};
use crate::conformance::draft::{Draft, close, error};
use crate::conformance::lane::{Event, Lane};
use crate::conformance::observe::{Hello, ObservingServer};
use crate::runtime::SharedRuntime;
use crate::store::TaskKey;
use crate::transport::quic::{self, token_key};
use crate::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};
use crate::wire::{Division, Download};
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, join, select};
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{TransportConfig, VarInt};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server that acts.
#[derive(Clone)]
pub(in crate::conformance::client) struct Acting {
    pub(in crate::conformance::client) runtime: SharedRuntime,
    pub(in crate::conformance::client) waits: Waits,
    pub(super) server: usize,
    pub(super) key: TaskKey,
    pub(super) division: Division,
    pub(super) content: Bytes,
    pub(super) record: Arc<Mutex<Record>>,
    pub(super) reply: fn(Asked) -> Reply,
    pub(super) hasty: bool,
}

/// What became of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conformance::client) enum After {
    /// Another request may follow on it.
    Next,
    /// The server says no more.
    Ended,
    /// The connection is closed.
    Closed,
}

/// What a client opened.
enum Opened {
    Request(quinn::SendStream, quinn::RecvStream),
    Unidirectional,
    /// Nothing: the connection has ended.
    Nothing,
}

impl Acting {
    pub(super) fn config(&self) -> Result<quinn::ServerConfig, Box<dyn std::error::Error>> {
        let crypto = Crypto::new(self.runtime.clone());
        let identity = ServerIdentity::new(Identity::self_signed(&crypto)?);
        let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone)?;
        let mut tls = rustls::ServerConfig::clone(tls.config());
        tls.cert_resolver = Arc::new(Recording { identity, record: self.record.clone() });
        let tls = ObservingServer(Arc::new(QuicServerConfig::try_from(tls)?));
        let mut config = quinn::ServerConfig::new(Arc::new(tls), token_key(&self.runtime));
        let mut transport = TransportConfig::default();
        // More than a client may use, so that it can do what it must not.
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(8))
            .max_concurrent_bidi_streams(VarInt::from_u32(100));
        if self.hasty {
            // A client that has sent everything can't be told to stop.
            transport.stream_receive_window(VarInt::from_u32(8));
        }
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    fn connected(&self, hello: Option<Hello>) -> usize {
        let mut record = lock(&self.record);
        record.connections.push(Connection { hello, ..Connection::default() });
        record.connections.len() - 1
    }

    fn note(&self, requirement: &'static str, seen: impl Into<String>) {
        lock(&self.record).notes.push((requirement, seen.into()));
    }

    fn with_connection(&self, connection: usize, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = lock(&self.record).connections.get_mut(connection) {
            change(connection);
        }
    }

    fn with_request(&self, place: usize, change: impl FnOnce(&mut Request)) {
        if let Some(request) = lock(&self.record).requests.get_mut(place) {
            change(request);
        }
    }

    pub(super) async fn quic(self, incoming: quinn::Incoming) {
        let Ok(connecting) = incoming.accept() else { return };
        let Ok(connection) = connecting.await else { return };
        let hello = connection.handshake_data().and_then(|data| data.downcast::<Hello>().ok());
        let index = self.connected(hello.map(|hello| *hello));
        let mut running = FuturesUnordered::new();
        loop {
            let opened = async {
                match select(pin!(connection.accept_bi()), pin!(connection.accept_uni())).await {
                    Either::Left((Ok((send, receive)), _)) => Opened::Request(send, receive),
                    Either::Right((Ok(_), _)) => Opened::Unidirectional,
                    _ => Opened::Nothing,
                }
            };
            match beside(opened, &mut running).await {
                Opened::Request(send, receive) => {
                    let (acting, connection) = (self.clone(), connection.clone());
                    running.push(async move {
                        let mut talk = Heard { lane: Lane::Quic { send, receive }, unread: BytesMut::new() };
                        if acting.hasty {
                            acting.answer_early(&mut talk, index).await;
                        } else {
                            acting.request(&mut talk, index, Some(&connection)).await;
                        }
                    });
                }
                Opened::Unidirectional => {
                    self.with_connection(index, |connection| connection.unidirectional = true);
                }
                Opened::Nothing => break,
            }
        }
        self.with_connection(index, |connection| connection.ended = true);
    }

    pub(super) async fn tcp(self, lane: Lane) {
        let index = self.connected(None);
        let mut talk = Heard { lane, unread: BytesMut::new() };
        loop {
            match self.request(&mut talk, index, None).await {
                After::Next => {}
                // Dropping the lane closes the connection.
                After::Closed => return,
                After::Ended => break,
            }
        }
        while matches!(talk.lane.event(&self.runtime, self.waits.soon * 8).await, Event::Bytes(_)) {}
        self.with_connection(index, |connection| connection.ended = true);
    }

    /// Reads a request, answers it and watches what the client makes of the answer.
    async fn request(&self, talk: &mut Heard, connection: usize, quic: Option<&quinn::Connection>) -> After {
        let Some(bytes) = self.packet(talk).await else { return After::Ended };
        let number = self.read(&bytes);
        let place = {
            let mut record = lock(&self.record);
            let is_close = bytes.get(1) == Some(&CLOSE);
            // Streams overtake each other: what comes right behind Close was on its way.
            let grace = if quic.is_some() { self.waits.quiet / 2 } else { Duration::ZERO };
            let now = self.runtime.now();
            let closed_at = record.connections.get(connection).and_then(|seen| seen.closed_at);
            let after_close = closed_at.is_some_and(|closed_at| now >= closed_at + grace);
            record.requests.push(Request {
                server: self.server,
                connection,
                bytes: bytes.clone(),
                number,
                finished: false,
                stopped: None,
                after_close,
            });
            if is_close && let Some(seen) = record.connections.get_mut(connection) {
                seen.closed_at.get_or_insert(now);
            }
            record.requests.len() - 1
        };
        let steps = self.answer(&bytes, number, connection, place);
        if quic.is_some() && !talk.unread.is_empty() {
            self.note("VTX-QUC-012", format!("{} bytes after a request", talk.unread.len()));
        }
        let Lane::Quic { receive, send } = &mut talk.lane else {
            return self.act(&mut talk.lane, steps, connection, None).await;
        };
        let stopped = send.stopped();
        let ending = async {
            // Directly: with the request, or right behind it.
            let by = self.runtime.now() + self.waits.soon;
            while let Ok(Ok(read)) = self.runtime.until(by, receive.read_chunk(512, true)).await {
                let Some(more) = read else {
                    self.with_request(place, |request| request.finished = true);
                    return;
                };
                self.note("VTX-QUC-012", format!("{} bytes after a request", more.bytes.len()));
            }
        };
        let watching = async {
            let code = stopped.await.ok().flatten().map(VarInt::into_inner);
            self.with_request(place, |request| request.stopped = code);
        };
        let mut lane = Sending(send);
        let acting = self.act(&mut lane, steps, connection, quic);
        let ((), (after, ())) = join(ending, join(acting, watching)).await;
        after
    }

    /// Takes the first bytes of a stream for a request for piece 0, stops the rest and answers.
    async fn answer_early(&self, talk: &mut Heard, connection: usize) {
        if !talk.fill(self, 1).await {
            return;
        }
        talk.lane.stop(0);
        let bytes = talk.unread.split().freeze();
        let place = {
            let mut record = lock(&self.record);
            record.requests.push(Request {
                server: self.server,
                connection,
                bytes: bytes.clone(),
                number: Some(0),
                finished: false,
                stopped: None,
                after_close: false,
            });
            record.requests.len() - 1
        };
        let steps = self.answer(&bytes, Some(0), connection, place);
        if let Lane::Quic { send, .. } = &mut talk.lane {
            self.act(&mut Sending(send), steps, connection, None).await;
            let _ = send.stopped().await;
        }
    }

    /// The next packet of a client, whole; `None` when there is none.
    async fn packet(&self, talk: &mut Heard) -> Option<Bytes> {
        if !talk.fill(self, 6).await {
            if !talk.unread.is_empty() {
                self.note("VTX-FRM-001", format!("{} bytes of a packet", talk.unread.len()));
            }
            return None;
        }
        let &[_, _, a, b, c, d] = talk.unread.get(..6)? else { return None };
        let declared = u32::from_be_bytes([a, b, c, d]);
        let length = match declared {
            0..=16_384 if declared == 68 + 6 => {
                self.note("VTX-FRM-004", "Length counts the header");
                68
            }
            0..=16_384 => declared as usize,
            _ if declared.swap_bytes() <= 16_384 => {
                self.note("VTX-FRM-003", format!("Length in little-endian: {}", declared.swap_bytes()));
                declared.swap_bytes() as usize
            }
            _ => {
                self.note("VTX-FRM-001", format!("a Length of {declared}"));
                return None;
            }
        };
        if !talk.fill(self, 6 + length).await {
            self.note("VTX-FRM-001", format!("{} bytes of a packet of {}", talk.unread.len(), 6 + length));
            return None;
        }
        Some(talk.unread.split_to(6 + length).freeze())
    }

    /// The piece number that a packet asks for, if it does; notes what is wrong with it.
    fn read(&self, packet: &[u8]) -> Option<u32> {
        let (&[_, tag, ..], value) = packet.split_first_chunk::<6>()?;
        match tag {
            0x00 => {}
            0x02 | 0x04 | 0x06 => {
                self.note("VTX-TAG-001", format!("tag 0x{tag:02X} for a task of kind piece"));
            }
            0x08..=0xEF => {
                self.note("VTX-TAG-003", format!("tag 0x{tag:02X}"));
                return None;
            }
            0xF0..=0xFE => return None,
            _ => {
                self.note("VTX-TAG-001", format!("tag 0x{tag:02X} from a client"));
                return None;
            }
        }
        let (id, number) = match value.split_at_checked(64) {
            Some((id, number)) if number.len() == 4 => (id, number),
            _ => {
                self.note("VTX-REQ-001", format!("a value of {} bytes", value.len()));
                return None;
            }
        };
        if id != self.key.id.as_bytes() {
            if id.eq_ignore_ascii_case(self.key.id.as_bytes()) {
                self.note("VTX-REQ-002", "upper-case letters in the task id");
            } else {
                self.note("VTX-REQ-001", "another task id");
                return None;
            }
        }
        let number = u32::from_be_bytes(*number.first_chunk()?);
        let swapped = number.swap_bytes();
        if number > 1 << 16 && swapped < 1 << 16 {
            self.note("VTX-FRM-003", format!("piece number in little-endian: {swapped}"));
            return Some(swapped);
        }
        Some(number)
    }

    fn answer(&self, packet: &[u8], number: Option<u32>, connection: usize, place: usize) -> Reply {
        let id = packet.first().copied().unwrap_or_default();
        let close = packet.get(1) == Some(&0xFE);
        if close {
            return vec![Step::Fin];
        }
        let Some(number) = number else {
            return crate::conformance::client::say(error(id, 1, b"not known here"));
        };
        let Some(span) = self.division.piece(number) else {
            return crate::conformance::client::say(error(id, 2, b"no such piece"));
        };
        let start = usize::try_from(span.offset).unwrap_or(usize::MAX);
        let piece = self.content.get(start..start + span.length.get() as usize).unwrap_or_default();
        let download = Download { kind: self.key.kind, task_id: self.key.id, number };
        let (before, on_connection) = {
            let record = lock(&self.record);
            let earlier = record.requests.get(..place).unwrap_or_default();
            let of_server = earlier.iter().filter(|request| request.server == self.server);
            (
                of_server.clone().filter(|request| request.number == Some(number)).count(),
                of_server
                    .filter(|request| request.connection == connection && request.number.is_some())
                    .count(),
            )
        };
        let right = Draft::new(id, download, span.offset, piece);
        (self.reply)(Asked { number, before, on_connection, right, waits: self.waits })
    }

    async fn act(
        &self,
        lane: &mut impl Speak,
        steps: Reply,
        connection: usize,
        quic: Option<&quinn::Connection>,
    ) -> After {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let closes = bytes.get(1) == Some(&CLOSE) || bytes.ends_with(&close(0));
                    // Before it is sent: whatever the client says next may be its answer.
                    if closes {
                        let now = self.runtime.now();
                        self.with_connection(connection, |seen| {
                            seen.closed_at.get_or_insert(now);
                        });
                    }
                    lane.say(self, &bytes).await;
                }
                Step::Trickle(bytes, size) => {
                    let (packet, content) = bytes.split_at(bytes.len().min(TRICKLED));
                    for (place, part) in packet.chunks(size).enumerate() {
                        lane.say(self, part).await;
                        if place % 8 == 0 {
                            self.runtime.sleep(TRICKLE).await;
                        }
                    }
                    for part in content.chunks(size * 100) {
                        lane.say(self, part).await;
                    }
                }
                Step::Pause(time) => self.runtime.sleep(time).await,
                Step::Done => return lane.done(),
                Step::Fin => {
                    lane.finish().await;
                    return After::Ended;
                }
                Step::Reset(code) => return lane.reset(code),
                Step::CloseConnection(code) => {
                    if let Some(connection) = quic {
                        quic::close(connection, code, b"");
                    }
                    return After::Closed;
                }
                Step::Hold => return After::Ended,
            }
        }
        lane.done()
    }
}

/// The tag of Close.
const CLOSE: u8 = 0xFE;

/// Bytes of an answer that trickle: its packet and some of its content. A whole piece would take longer than a client
/// waits.
const TRICKLED: usize = 200;

/// Pause between some of the parts of an answer that trickles.
const TRICKLE: Duration = Duration::from_millis(1);
