//! Servers that answer as they are told, and note what their client does.

use super::seen::{Connection, Request, Seen};
use super::speak::{Heard, Sending, Speak};
use super::{Asked, Case, For, Inner, Outcome, PIECE, Reply, Step, World};
use crate::conformance::case::{Shown, Stop};
use crate::conformance::draft::{Draft, close, error};
use crate::conformance::lane::{Event, Lane};
use crate::conformance::observe::{Hello, ObservingServer};
use crate::conformance::{Transport, Waits};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::store::TaskKey;
use crate::transport::quic::{QuicEndpoint, QuicSettings, token_key};
use crate::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};
use crate::wire::{Division, Download, PieceKind, PieceLength, TaskId};
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, join, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{TransportConfig, VarInt};
use rustls::server::{ClientHello, ResolvesServerCert};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// The servers of a case.
pub(super) struct Stage {
    world: World,
    pub(super) key: TaskKey,
    pub(super) division: Division,
    content: Bytes,
    record: Arc<Mutex<Record>>,
    opened: AtomicUsize,
    /// Whether nothing that arrives is answered.
    deaf: bool,
    /// Whether requests are stopped and answered before they are whole (QUIC).
    hasty: bool,
}

#[derive(Debug, Default)]
struct Record {
    requests: Vec<Request>,
    connections: Vec<Connection>,
    notes: Vec<(&'static str, String)>,
    alpn: Vec<String>,
    /// Connection ids to which clients have sent their first packets, where nobody answers.
    attempts: BTreeSet<Vec<u8>>,
}

/// A server, which serves for as long as its future is polled.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) serve: BoxFuture<'static, ()>,
}

impl Stage {
    pub(super) fn new(world: &World, case: &Case) -> Shown<Self> {
        let mut hash = [0; 32];
        world.0.runtime.fill_random(&mut hash);
        // Letters, so that upper case shows.
        hash[0] = 0xab;
        let length = case.pieces * PIECE - PIECE / 4;
        let mut content = vec![0; length as usize];
        world.0.runtime.fill_random(&mut content);
        choose_sums(&mut content, case.id.starts_with("VTX-DIG-008"));
        let broken = |error: &dyn std::fmt::Display| Stop::Skip(error.to_string());
        let piece_length = PieceLength::try_from(u64::from(PIECE)).map_err(|error| broken(&error))?;
        let division = Division::new(length.into(), piece_length).map_err(|error| broken(&error))?;
        Ok(Self {
            world: world.clone(),
            key: TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256(hash) },
            division,
            content: content.into(),
            record: Arc::default(),
            opened: AtomicUsize::new(0),
            deaf: case.waits == For::Connect,
            hasty: case.id == super::accepts::HASTY,
        })
    }

    /// A server that answers by `reply`.
    pub(super) async fn open(&self, reply: fn(Asked) -> Reply) -> Shown<Server> {
        let Inner { runtime, network, target, .. } = &*self.world.0;
        let broken = |error: &dyn std::fmt::Display| Stop::Skip(format!("this runner can't listen: {error}"));
        let bind = self.world.0.address();
        let acting = Acting {
            runtime: runtime.clone(),
            waits: target.waits,
            server: self.opened.fetch_add(1, Ordering::Relaxed),
            key: self.key,
            division: self.division,
            content: self.content.clone(),
            record: self.record.clone(),
            reply,
            hasty: self.hasty,
        };
        match target.transport {
            Transport::Tcp => {
                let mut listener = network.listen(bind).await.map_err(|error| broken(&error))?;
                let address = listener.local_addr().map_err(|error| broken(&error))?;
                let serve = async move {
                    let mut running = FuturesUnordered::new();
                    loop {
                        if let Ok((stream, _)) = beside(listener.accept(), &mut running).await {
                            running.push(acting.clone().tcp(Lane::Tcp(stream)));
                        }
                    }
                };
                Ok(Server { address, serve: Box::pin(serve) })
            }
            Transport::Quic if self.deaf => {
                let socket = network.udp(bind).await.map_err(|error| broken(&error))?;
                let address = socket.local_addr().map_err(|error| broken(&error))?;
                Ok(Server { address, serve: Box::pin(attempts(socket, self.record.clone())) })
            }
            Transport::Quic => {
                let settings = QuicSettings::default();
                let endpoint =
                    QuicEndpoint::bind(runtime.clone(), network.clone(), bind, settings, None).await;
                let endpoint = endpoint.map_err(|error| broken(&error))?;
                let address = endpoint.local_addr().map_err(|error| broken(&error))?;
                let config = acting.config().map_err(|error| broken(&error))?;
                endpoint.raw().set_server_config(Some(config));
                let serve = async move {
                    let mut running = FuturesUnordered::new();
                    while let Some(incoming) = beside(endpoint.accept(), &mut running).await {
                        running.push(acting.clone().quic(incoming));
                    }
                };
                Ok(Server { address, serve: Box::pin(serve) })
            }
        }
    }

    /// All that was seen.
    pub(super) fn seen(&self, outcome: Outcome) -> Seen {
        let mut record = lock(&self.record);
        Seen {
            requests: std::mem::take(&mut record.requests),
            connections: std::mem::take(&mut record.connections),
            notes: std::mem::take(&mut record.notes),
            alpn: std::mem::take(&mut record.alpn),
            attempts: record.attempts.len(),
            outcome,
            content: self.content.clone(),
        }
    }
}

/// Changes the first bytes of each piece until its CRC has more than eight decimal digits, and so one reading; or, where
/// `two_readings` is wanted, eight digits both in decimal and in hexadecimal, which one piece in about 1300 has.
fn choose_sums(content: &mut [u8], two_readings: bool) {
    for piece in content.chunks_mut(PIECE as usize) {
        for counter in 0u32..1 << 20 {
            let Some(first) = piece.first_chunk_mut() else { break };
            *first = counter.to_be_bytes();
            let sum = crc32fast::hash(piece);
            let digits = || format!("{sum:x}").bytes().all(|byte| byte.is_ascii_digit());
            let fits = match two_readings {
                true => (10_000_000..100_000_000).contains(&sum) && digits(),
                false => sum >= 100_000_000,
            };
            if fits {
                break;
            }
        }
    }
}

/// Notes the connection attempts that arrive, and answers none. Each has a connection id of its own that the client has
/// drawn, and keeps it until a server answers.
async fn attempts(socket: Arc<dyn quinn::AsyncUdpSocket>, record: Arc<Mutex<Record>>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut meta = [quinn::udp::RecvMeta::default()];
        let received =
            poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await;
        if received.is_err() {
            return std::future::pending().await;
        }
        let [quinn::udp::RecvMeta { len, stride, .. }] = meta;
        for datagram in buffer.get(..len).unwrap_or_default().chunks(stride.max(1)) {
            // A long header: flags, version, and the id that it is sent to.
            let id = datagram
                .get(6..)
                .zip(datagram.get(5))
                .and_then(|(rest, length)| rest.get(..usize::from(*length)));
            lock(&record).attempts.extend(id.map(<[u8]>::to_vec));
        }
    }
}

/// Drives what runs, until `work` is done.
async fn beside<T, F>(work: impl Future<Output = T>, running: &mut FuturesUnordered<F>) -> T
where
    F: Future<Output = ()>,
{
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
        Poll::Pending
    })
    .await
}

/// A record is whole after any panic: nothing is done between taking and leaving it that could.
fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers which application protocols were offered.
#[derive(Debug)]
struct Recording {
    identity: ServerIdentity,
    record: Arc<Mutex<Record>>,
}

impl ResolvesServerCert for Recording {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let offered = hello.alpn().into_iter().flatten();
        lock(&self.record).alpn.extend(offered.map(|name| String::from_utf8_lossy(name).into_owned()));
        self.identity.resolve(hello)
    }
}

/// A server that acts.
#[derive(Clone)]
pub(super) struct Acting {
    pub(super) runtime: SharedRuntime,
    pub(super) waits: Waits,
    server: usize,
    key: TaskKey,
    division: Division,
    content: Bytes,
    record: Arc<Mutex<Record>>,
    reply: fn(Asked) -> Reply,
    hasty: bool,
}

/// What became of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
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
    fn config(&self) -> Result<quinn::ServerConfig, Box<dyn std::error::Error>> {
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

    async fn quic(self, incoming: quinn::Incoming) {
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

    async fn tcp(self, lane: Lane) {
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
        let Some(number) = number else { return super::say(error(id, 1, b"not known here")) };
        let Some(span) = self.division.piece(number) else {
            return super::say(error(id, 2, b"no such piece"));
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
                        connection.close(VarInt::from_u32(code), b"");
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
const TRICKLE: std::time::Duration = std::time::Duration::from_millis(1);
