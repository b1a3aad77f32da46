//! Servers that answer as they are told, and note what their client does: where they listen, and what is seen in the end.

mod acting;

pub(super) use acting::{Acting, After};

use super::seen::{Connection, Request, Seen};
use super::{Asked, Case, For, Inner, Outcome, PIECE, Reply, World};
use crate::conformance::Transport;
use crate::conformance::case::{Shown, Stop};
use crate::conformance::lane::Lane;
use crate::runtime::BoxFuture;
use crate::store::TaskKey;
use crate::transport::quic::{QuicEndpoint, QuicSettings};
use crate::transport::tls::ServerIdentity;
use crate::wire::{Division, PieceKind, PieceLength, TaskId};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls::server::{ClientHello, ResolvesServerCert};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

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
