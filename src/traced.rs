//! What logs tell of one piece, from both sides, over each protocol.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use crate::downloader::transfer::{PlanSettings, Transfer};
use crate::downloader::{Dialer, DownloaderFactory, Peer, PoolSettings, Protocol};
use crate::runtime::{SharedRuntime, TokioRuntime};
use crate::server::{ServerSettings, StorageServer};
use crate::session::Deadlines;
use crate::store::{MemoryStore, NewTask, TaskKey};
use crate::transport::quic::{QuicEndpoint, QuicSettings};
use crate::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust};
use crate::transport::{Network, SocketSettings, TokioNetwork};
use crate::wire::{Algorithm, Division, PieceKind, PieceLength, TaskId};
use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tracing_test::traced_test;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server of `task`, whose content is `content`, and the ways to it.
async fn served(network: &Arc<dyn Network>, task: NewTask, content: &Bytes) -> (StorageServer, Vec<Peer>) {
    let runtime: SharedRuntime = Arc::new(TokioRuntime);
    let store = MemoryStore::new(runtime.clone());
    store.insert(task, Algorithm::Crc32, content).await.unwrap();
    let server = StorageServer::new(runtime.clone(), Arc::new(store), ServerSettings::default());
    let crypto = Crypto::new(runtime.clone());
    let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
    let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
    let settings = QuicSettings::default();
    let endpoint =
        QuicEndpoint::bind(runtime, network.clone(), LOOPBACK, settings, Some(&tls)).await.unwrap();
    let mut peers = vec![Peer::new(Protocol::Quic, endpoint.local_addr().unwrap())];
    server.serve_quic(endpoint);
    let listener = network.listen(LOOPBACK).await.unwrap();
    peers.push(Peer::new(Protocol::Tcp, listener.local_addr().unwrap()));
    server.serve_tcp(listener);
    #[cfg(feature = "grpc")]
    {
        let listener = network.listen(LOOPBACK).await.unwrap();
        peers.push(Peer::new(Protocol::Grpc, listener.local_addr().unwrap()));
        server.serve_grpc(listener, None);
    }
    (server, peers)
}

#[tokio::test]
#[traced_test]
async fn each_line_says_which_connection_peer_task_and_piece_it_is_about() {
    let network: Arc<dyn Network> = Arc::new(TokioNetwork::new(SocketSettings::default()));
    let runtime: SharedRuntime = Arc::new(TokioRuntime);
    let key = TaskKey { kind: PieceKind::Cache, id: TaskId::from_sha256([7; 32]) };
    let division = Division::new(3000, PieceLength::try_from(1000u64).unwrap()).unwrap();
    let task = NewTask { key, division, digest: None };
    let (server, peers) = served(&network, task, &vec![1; 3000].into()).await;

    let settings = QuicSettings::default();
    let endpoint = QuicEndpoint::bind(runtime.clone(), network.clone(), LOOPBACK, settings.clone(), None);
    let endpoint = endpoint.await.unwrap();
    let trust = ClientTls::new(&Crypto::new(runtime.clone()), &Trust::Insecure, None).unwrap();
    let dialer = Dialer::new(runtime.clone(), network, Deadlines::default(), trust.into());
    let dialer = dialer.with_quic(endpoint, &settings);
    for peer in &peers {
        let transfer = Transfer {
            runtime: runtime.clone(),
            downloaders: DownloaderFactory::new(&dialer, PoolSettings::default()),
            store: Arc::new(MemoryStore::new(runtime.clone())),
            task,
            digests: Vec::new(),
            wanted: None,
            peers: vec![*peer],
            plan: PlanSettings::default(),
            swarm: false,
            limit: None,
            lenient: false,
            observer: None,
        };
        transfer.run().await.unwrap();
    }
    server.shutdown().await;

    logs_assert(|lines: &[&str]| {
        let told = |wanted: &[&str]| match lines.iter().any(|line| wanted.iter().all(|it| line.contains(it)))
        {
            true => Ok(()),
            false => Err(format!("no line with all of {wanted:?} in\n{}", lines.join("\n"))),
        };
        for Peer { protocol, address } in &peers {
            let asked = format!(
                "transfer{{task=070707070707}}:request{{protocol={protocol} peer={address} task=070707070707 piece=1 \
                 connection="
            );
            told(&[&asked, if *protocol == Protocol::Grpc { "has the answer" } else { "has a piece" }])?;
            told(&[
                "transfer{task=070707070707}:",
                "has stored a piece",
                &format!("peer={protocol}://{address} piece=1 "),
            ])?;
            let connection = ":connection{id=";
            let answered = "request{task=070707070707 piece=1 kind=cache}: ";
            let on = format!(" protocol={protocol} peer=127.0.0.1:");
            told(&[connection, &on, answered, "answers with a piece"])?;
            told(&[connection, &on, answered, "has answered"])?;
            told(&[connection, &on, ": connected"])?;
        }
        Ok(())
    });
}
