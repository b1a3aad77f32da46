//! This client and this server.

use super::{PATHS, Served, content, runtime};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use vortex_p2p::client::{Ask, Failure, GrpcClient, RequestError};
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{PieceStore, TaskKey};
use vortex_p2p::transport::tls::{
    self, Admission, By, ClientTls, Crypto, Fingerprint, Identity, Reason, Refusal, ServerIdentity,
    ServerTls, Trust,
};
use vortex_p2p::transport::{Network, TokioNetwork};
use vortex_p2p::wire::{ErrorCode, PieceKind};

const PIECE: usize = 1 << 20;

async fn plain(address: SocketAddr) -> GrpcClient {
    let stream = TokioNetwork::default().connect(address).await.unwrap();
    GrpcClient::new(stream, address, runtime(), Deadlines::default()).await.unwrap()
}

async fn protected(address: SocketAddr, tls: &ClientTls) -> io::Result<GrpcClient> {
    let stream = TokioNetwork::default().connect(address).await?;
    let stream = tls::connect_http2(tls, address, stream).await?;
    GrpcClient::new(stream, address, runtime(), Deadlines::default()).await
}

async fn fetch(client: &GrpcClient, key: TaskKey, number: u32) -> Result<Vec<u8>, RequestError> {
    client.request(Ask::new(key.piece(number))).await?.collect().await
}

/// Tasks of every kind and of lengths that matter.
async fn tasks(served: &Served) -> Vec<(TaskKey, Bytes)> {
    let mut tasks = Vec::new();
    for (kind, _) in PATHS {
        for length in [0, 1, PIECE - 1, PIECE, 2 * PIECE + 3] {
            let whole = content(length);
            tasks.push((served.insert(kind, &whole, PIECE as u64).await, whole));
        }
    }
    tasks
}

async fn fetches(client: &GrpcClient, tasks: &[(TaskKey, Bytes)]) {
    for (key, whole) in tasks {
        let mut got = Vec::new();
        for number in 0..whole.len().div_ceil(PIECE).max(1) {
            got.extend(fetch(client, *key, number as u32).await.unwrap());
        }
        assert!(got == *whole, "{key} of {}", whole.len());
    }
}

fn identity() -> (ServerTls, Option<Fingerprint>) {
    let crypto = Crypto::new(runtime());
    let identity = Identity::self_signed(&crypto).unwrap();
    let fingerprint = identity.fingerprint();
    (ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone).unwrap(), fingerprint)
}

fn trusting(trust: &Trust) -> ClientTls {
    ClientTls::new(&Crypto::new(runtime()), trust, None).unwrap()
}

#[tokio::test]
async fn every_kind_and_size_arrives_in_the_clear() {
    let served = Served::new(ServerSettings::default(), None).await;
    let client = plain(served.address).await;
    let tasks = tasks(&served).await;
    fetches(&client, &tasks).await;
    served.server.shutdown().await;
    let late = client.request(Ask::new(tasks[0].0.piece(0))).await;
    assert!(matches!(late, Err(RequestError::Failed(Failure::GoingAway))), "{late:?}");
}

#[tokio::test]
async fn every_kind_and_size_arrives_over_tls() {
    let (tls, fingerprint) = identity();
    let served = Served::new(ServerSettings::default(), Some(tls)).await;
    let trust = trusting(&Trust::Pinned(fingerprint.unwrap()));
    let tasks = tasks(&served).await;
    // The second connection resumes the session of the first.
    for _ in 0..2 {
        fetches(&protected(served.address, &trust).await.unwrap(), &tasks).await;
    }
    served.server.shutdown().await;
}

#[tokio::test]
async fn a_piece_larger_than_the_window_arrives() {
    let served = Served::new(ServerSettings::default(), None).await;
    let whole = Bytes::from(vec![7; 17 << 20]);
    let key = served.insert(PieceKind::Piece, &whole, whole.len() as u64).await;
    assert!(fetch(&plain(served.address).await, key, 0).await.unwrap() == whole);
}

#[tokio::test]
async fn a_piece_is_not_found_or_damaged() {
    let served = Served::new(ServerSettings::default(), None).await;
    let client = plain(served.address).await;
    let key = served.insert(PieceKind::Cache, &content(100), 64).await;
    let code = |result: Result<Vec<u8>, RequestError>| match result {
        Err(RequestError::Failed(Failure::Refused { code, .. })) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(fetch(&client, key, 2).await), ErrorCode::NotFound);
    assert_eq!(code(fetch(&client, TaskKey { kind: PieceKind::Piece, ..key }, 0).await), ErrorCode::NotFound);
    served.store.mark_damaged(key.piece(0)).await.unwrap();
    assert_eq!(code(fetch(&client, key, 0).await), ErrorCode::Internal);
    assert_eq!(fetch(&client, key, 1).await.unwrap(), content(100)[64..]);
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason() {
    let (tls, _) = identity();
    let served = Served::new(ServerSettings::default(), Some(tls)).await;
    let (_, other) = identity();
    let error = protected(served.address, &trusting(&Trust::Pinned(other.unwrap()))).await.unwrap_err();
    let refusal = Refusal::from_io(&error).unwrap();
    assert_eq!((refusal.by, refusal.reason), (By::This, Reason::Fingerprint));
}

#[tokio::test]
async fn http2_is_agreed_upon() {
    let (tls, _) = identity();
    let served = Served::new(ServerSettings::default(), Some(tls)).await;
    let trust = trusting(&Trust::Insecure);
    let connect = async |protocol: &[u8]| {
        let mut config = trust.for_peer(served.address);
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(trust.name().clone(), stream).await
    };
    let agreed = connect(b"h2").await.unwrap();
    assert_eq!(agreed.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let refusal = Refusal::from_io(&connect(b"http/1.1").await.unwrap_err()).unwrap();
    assert_eq!((refusal.by, refusal.reason), (By::Peer, Reason::ApplicationProtocol));

    // A server that does not choose HTTP/2 is no server of gRPC.
    let (tls, _) = identity();
    let mut listener = TokioNetwork::default().listen(super::LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        tls::accept(&tls, stream).await
    };
    let (asked, _) = tokio::join!(protected(address, &trust), accept);
    assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::InvalidData);
}
