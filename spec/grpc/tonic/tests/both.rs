//! A client of tonic and this server, a server of tonic and this client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says where")]

use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use vortex_grpc_tonic::common::v2::{Piece, TrafficType};
use vortex_grpc_tonic::dfdaemon::v2::dfdaemon_upload_client::DfdaemonUploadClient;
use vortex_grpc_tonic::dfdaemon::v2::dfdaemon_upload_server::{DfdaemonUpload, DfdaemonUploadServer};
use vortex_grpc_tonic::dfdaemon::v2::{
    DownloadCachePieceRequest, DownloadCachePieceResponse, DownloadPersistentCachePieceRequest,
    DownloadPersistentCachePieceResponse, DownloadPersistentPieceRequest, DownloadPersistentPieceResponse,
    DownloadPieceRequest, DownloadPieceResponse,
};
use vortex_p2p::client::{Ask, Failure, GrpcClient, RequestError};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::{Network, TokioNetwork};
use vortex_p2p::wire::{Algorithm, Digest, Division, Download, ErrorCode, PieceKind, PieceLength, TaskId};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PIECE: usize = 1 << 20;

fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime)
}

fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Calls the method for pieces of `kind`.
async fn call(
    client: &mut DfdaemonUploadClient<Channel>,
    TaskKey { kind, id }: TaskKey,
    piece_number: u32,
) -> Result<Option<Piece>, Status> {
    let (host_id, task_id) = ("host".to_owned(), id.to_string());
    Ok(match kind {
        PieceKind::Piece => {
            let request = DownloadPieceRequest { host_id, task_id, piece_number };
            client.download_piece(request).await?.into_inner().piece
        }
        PieceKind::Persistent => {
            let request = DownloadPersistentPieceRequest { host_id, task_id, piece_number };
            client.download_persistent_piece(request).await?.into_inner().piece
        }
        PieceKind::PersistentCache => {
            let request = DownloadPersistentCachePieceRequest { host_id, task_id, piece_number };
            client.download_persistent_cache_piece(request).await?.into_inner().piece
        }
        PieceKind::Cache => {
            let request = DownloadCachePieceRequest { host_id, task_id, piece_number };
            client.download_cache_piece(request).await?.into_inner().piece
        }
    })
}

#[tokio::test]
async fn a_client_of_tonic_is_served() {
    let store = MemoryStore::new(runtime());
    let server = StorageServer::new(runtime(), Arc::new(store.clone()), ServerSettings::default());
    let listener = TokioNetwork::default().listen(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    server.serve_grpc(listener, None);

    let client = DfdaemonUploadClient::connect(format!("http://{address}")).await.unwrap();
    let mut client = client.max_decoding_message_size(2 * PIECE);
    for kind in PieceKind::ALL {
        for length in [0, 1, PIECE, 2 * PIECE + 3] {
            let whole = content(length);
            let Digest::Sha256(hash) = Digest::of(Algorithm::Sha256, &whole) else { panic!() };
            let key = TaskKey { kind, id: TaskId::from_sha256(hash) };
            let division =
                Division::new(length as u64, PieceLength::try_from(PIECE as u64).unwrap()).unwrap();
            store.insert(NewTask { key, division, digest: None }, Algorithm::Crc32, &whole).await.unwrap();
            for (number, part) in whole.chunks(PIECE).chain((length == 0).then_some(&[][..])).enumerate() {
                let piece = call(&mut client, key, number as u32).await.unwrap().unwrap();
                assert_eq!((piece.number as usize, piece.length as usize), (number, part.len()));
                assert_eq!(piece.offset as usize, number * PIECE);
                assert_eq!(piece.digest, Digest::of(Algorithm::Crc32, part).to_string());
                assert_eq!(piece.traffic_type(), TrafficType::RemotePeer);
                assert!(piece.cost.is_some() && piece.created_at.unwrap().seconds > 1_700_000_000);
                assert!(piece.content.unwrap() == part);
            }
            let missing = call(&mut client, key, 9).await.unwrap_err();
            assert_eq!((missing.code(), missing.message()), (Code::NotFound, "the task has no such piece"));
        }
    }
    let bad = DownloadPieceRequest { task_id: "no task id".to_owned(), ..Default::default() };
    assert_eq!(client.download_piece(bad).await.unwrap_err().code(), Code::InvalidArgument);
    // The channel is idle: it does not hold up the shutdown.
    server.shutdown().await;
}

/// A server with one piece of each kind, whose content begins with the kind's position; it knows no other pieces.
struct Uploader;

fn id() -> TaskId {
    TaskId::from_sha256([7; 32])
}

fn stored(at: u8) -> Bytes {
    [&[at][..], &content(PIECE)].concat().into()
}

fn piece(at: u8, task_id: &str, number: u32) -> Result<Option<Piece>, Status> {
    if task_id != id().to_string() {
        return Err(Status::invalid_argument("another task"));
    }
    if number != 3 {
        return Err(Status::not_found("no such piece – sorry"));
    }
    let content = stored(at);
    Ok(Some(Piece {
        number,
        parent_id: Some("parent".to_owned()),
        offset: 3 * content.len() as u64,
        length: content.len() as u64,
        digest: Digest::of(Algorithm::Crc32, &content).to_string(),
        content: Some(content),
        traffic_type: Some(TrafficType::LocalPeer.into()),
        cost: Some(prost_types::Duration { seconds: 5, nanos: 1 }),
        created_at: Some(prost_types::Timestamp { seconds: -9, nanos: 0 }),
    }))
}

#[tonic::async_trait]
impl DfdaemonUpload for Uploader {
    async fn download_piece(
        &self,
        request: Request<DownloadPieceRequest>,
    ) -> Result<Response<DownloadPieceResponse>, Status> {
        let request = request.get_ref();
        let piece = piece(0, &request.task_id, request.piece_number)?;
        Ok(Response::new(DownloadPieceResponse { piece, digest: Some("of the metadata".to_owned()) }))
    }

    async fn download_persistent_piece(
        &self,
        request: Request<DownloadPersistentPieceRequest>,
    ) -> Result<Response<DownloadPersistentPieceResponse>, Status> {
        let request = request.get_ref();
        let piece = piece(1, &request.task_id, request.piece_number)?;
        Ok(Response::new(DownloadPersistentPieceResponse { piece, digest: None }))
    }

    async fn download_persistent_cache_piece(
        &self,
        request: Request<DownloadPersistentCachePieceRequest>,
    ) -> Result<Response<DownloadPersistentCachePieceResponse>, Status> {
        let request = request.get_ref();
        let piece = piece(2, &request.task_id, request.piece_number)?;
        Ok(Response::new(DownloadPersistentCachePieceResponse { piece, digest: None }))
    }

    async fn download_cache_piece(
        &self,
        request: Request<DownloadCachePieceRequest>,
    ) -> Result<Response<DownloadCachePieceResponse>, Status> {
        let request = request.get_ref();
        let piece = piece(3, &request.task_id, request.piece_number)?;
        Ok(Response::new(DownloadCachePieceResponse { piece, digest: None }))
    }
}

#[tokio::test]
async fn a_server_of_tonic_is_asked() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Server::builder()
        .add_service(DfdaemonUploadServer::new(Uploader))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let test = async {
        let stream = TokioNetwork::default().connect(address).await.unwrap();
        let client = GrpcClient::new(stream, address, runtime(), Deadlines::default()).await.unwrap();
        for (at, kind) in PieceKind::ALL.into_iter().enumerate() {
            let download = Download { kind, task_id: id(), number: 3 };
            let mut answer = client.request(Ask::new(download)).await.unwrap();
            assert!(answer.collect().await.unwrap() == stored(at as u8));
            let piece = answer.piece();
            assert_eq!((piece.number, &*piece.parent_id), (3, "parent"));
            assert_eq!((piece.traffic_type.0, piece.cost, piece.created_at), (2, 5, -9));

            let missing = client.request(Ask::new(Download { number: 4, ..download })).await;
            let Err(RequestError::Failed(Failure::Refused { code, message })) = missing else {
                panic!("{missing:?}")
            };
            assert_eq!((code, &*message), (ErrorCode::NotFound, "no such piece – sorry"));
        }
        let other = Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([8; 32]), number: 3 };
        let other = client.request(Ask::new(other)).await;
        assert!(matches!(
            other,
            Err(RequestError::Failed(Failure::Refused { code: ErrorCode::InvalidArgument, .. }))
        ));
    };
    tokio::select! {
        () = test => {}
        ended = serve => panic!("{ended:?}"),
    }
}
