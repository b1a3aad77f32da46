//! gRPC: this server and this client, each against a counterpart that knows HTTP/2 and field numbers and nothing of this
//! crate, and against each other.

mod client;
mod protobuf;
mod raw;
mod server;
mod together;

use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::tls::ServerTls;
use vortex_p2p::transport::{Network, TokioNetwork};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength, TaskId};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The methods of deployed peers, by kind.
const PATHS: [(PieceKind, &str); 4] = [
    (PieceKind::Piece, "/dfdaemon.v2.DfdaemonUpload/DownloadPiece"),
    (PieceKind::Persistent, "/dfdaemon.v2.DfdaemonUpload/DownloadPersistentPiece"),
    (PieceKind::PersistentCache, "/dfdaemon.v2.DfdaemonUpload/DownloadPersistentCachePiece"),
    (PieceKind::Cache, "/dfdaemon.v2.DfdaemonUpload/DownloadCachePiece"),
];

fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// A server on loopback.
struct Served {
    store: MemoryStore,
    server: StorageServer,
    address: SocketAddr,
}

impl Served {
    async fn new(settings: ServerSettings, tls: Option<ServerTls>) -> Self {
        let store = MemoryStore::new(runtime());
        let server = StorageServer::new(runtime(), Arc::new(store.clone()), settings);
        let listener = TokioNetwork::default().listen(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        server.serve_grpc(listener, tls);
        Self { store, server, address }
    }

    async fn insert(&self, kind: PieceKind, content: &Bytes, piece_length: u64) -> TaskKey {
        let Digest::Sha256(hash) = Digest::of(Algorithm::Sha256, content) else { panic!() };
        let key = TaskKey { kind, id: TaskId::from_sha256(hash) };
        let piece_length = PieceLength::try_from(piece_length).unwrap();
        let division = Division::new(content.len() as u64, piece_length).unwrap();
        let task = NewTask { key, division, digest: None };
        self.store.insert(task, Algorithm::Crc32, content).await.unwrap();
        key
    }
}
