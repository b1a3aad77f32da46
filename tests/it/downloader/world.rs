//! Peers on loopback, honest and not, and a client that reaches them.

use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use vortex_p2p::downloader::{Dialer, DownloaderFactory, Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust};
use vortex_p2p::transport::{Listener, Network, SocketSettings, TokioNetwork};
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Division, Metadata, PieceKind, PieceLength, TaskId, TrafficType,
};

pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

pub(super) fn network() -> Arc<dyn Network> {
    Arc::new(TokioNetwork::new(SocketSettings::default()))
}

pub(super) fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// The task that has `content`, in pieces of `piece_length`.
pub(super) fn task(kind: PieceKind, content: &Bytes, piece_length: u64) -> NewTask {
    let Digest::Sha256(hash) = Digest::of(Algorithm::Sha256, content) else { panic!() };
    let key = TaskKey { kind, id: TaskId::from_sha256(hash) };
    let piece_length = PieceLength::try_from(piece_length).unwrap();
    NewTask { key, division: Division::new(content.len() as u64, piece_length).unwrap(), digest: None }
}

/// A TLS identity for one server, and what pins it.
pub(super) fn server_tls() -> (ServerTls, Trust) {
    let crypto = Crypto::new(runtime());
    let identity = Identity::self_signed(&crypto).unwrap();
    let trust = Trust::Pinned(identity.fingerprint().unwrap());
    (ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone).unwrap(), trust)
}

pub(super) async fn endpoint(tls: Option<&ServerTls>) -> QuicEndpoint {
    QuicEndpoint::bind(runtime(), network(), LOOPBACK, QuicSettings::default(), tls).await.unwrap()
}

pub(super) async fn listener() -> (Box<dyn Listener>, Peer) {
    let listener = network().listen(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Peer::new(Protocol::Tcp, address))
}

/// An honest server on loopback.
pub(super) struct Served {
    pub(super) store: MemoryStore,
    pub(super) server: StorageServer,
    pub(super) quic: Peer,
    pub(super) tcp: Peer,
    /// The same server over everything that the build has.
    pub(super) peers: Vec<Peer>,
    pub(super) trust: Trust,
}

impl Served {
    pub(super) async fn new() -> Self {
        Self::with(ServerSettings::default()).await
    }

    pub(super) async fn with(settings: ServerSettings) -> Self {
        let store = MemoryStore::new(runtime());
        let server = StorageServer::new(runtime(), Arc::new(store.clone()), settings);
        let (tls, trust) = server_tls();
        let serving = endpoint(Some(&tls)).await;
        let quic = Peer::new(Protocol::Quic, serving.local_addr().unwrap());
        server.serve_quic(serving);
        let (listener, tcp) = listener().await;
        server.serve_tcp(listener);
        #[allow(unused_mut, reason = "gRPC is a feature")]
        let mut peers = vec![quic, tcp];
        #[cfg(feature = "grpc")]
        {
            let (listener, Peer { address, .. }) = self::listener().await;
            server.serve_grpc(listener, None);
            peers.push(Peer::new(Protocol::Grpc, address));
        }
        Self { store, server, quic, tcp, peers, trust }
    }

    /// The same server over TCP that is protected.
    pub(super) async fn tcp_tls(&self) -> Peer {
        let (tls, _) = server_tls();
        let (listener, peer) = listener().await;
        self.server.serve_tcp_tls(listener, tls);
        peer
    }

    pub(super) async fn insert(&self, task: NewTask, content: &Bytes) -> TaskKey {
        self.store.insert(task, Algorithm::Crc32, content).await.unwrap();
        task.key
    }
}

pub(super) async fn dialer(trust: &Trust, deadlines: Deadlines) -> Dialer {
    let tls = ClientTls::new(&Crypto::new(runtime()), trust, None).unwrap();
    Dialer::new(runtime(), network(), deadlines, Arc::new(tls))
        .with_quic(endpoint(None).await, &QuicSettings::default())
}

/// A dialer that trusts anybody, on another network.
pub(super) async fn dialer_on(network: Arc<dyn Network>, deadlines: Deadlines) -> Dialer {
    let tls = ClientTls::new(&Crypto::new(runtime()), &Trust::Insecure, None).unwrap();
    let endpoint = QuicEndpoint::bind(runtime(), network.clone(), LOOPBACK, QuicSettings::default(), None);
    Dialer::new(runtime(), network, deadlines, Arc::new(tls))
        .with_quic(endpoint.await.unwrap(), &QuicSettings::default())
}

/// Downloaders that trust anybody.
pub(super) async fn downloaders() -> DownloaderFactory {
    DownloaderFactory::new(&dialer(&Trust::Insecure, Deadlines::default()).await, PoolSettings::default())
}

/// The packet and the content of an answer.
pub(crate) fn answer(kind: PieceKind, number: u32, content: &[u8]) -> Vec<u8> {
    let digest = Digest::of(Algorithm::Crc32, content).to_text();
    let metadata = Metadata {
        number,
        offset: 0,
        length: PieceLength::try_from(content.len() as u64).unwrap(),
        digest: (&digest).into(),
        parent_id: Bounded::default(),
        traffic_type: TrafficType::REMOTE_PEER,
        cost: 0,
        created_at: 0,
    };
    let mut bytes = Vec::new();
    metadata.encode(0, kind, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}
