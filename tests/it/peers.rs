//! Clients and servers over loopback sockets.

use bytes::Bytes;
use futures_util::FutureExt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::client::{Ask, ExtensionReply, QuicClient, RequestError, TcpClient};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::{Deadlines, Failure};
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::quic::{self, AppCode, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust};
use vortex_p2p::transport::{Network, SocketSettings, TokioNetwork};
use vortex_p2p::wire::extension::ExtensionRequest;
use vortex_p2p::wire::{Algorithm, Digest, Division, ErrorCode, PieceKind, PieceLength, TaskId};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server on loopback, and what a client needs to reach it.
pub(crate) struct Served {
    pub(crate) runtime: SharedRuntime,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) store: MemoryStore,
    pub(crate) server: StorageServer,
    pub(crate) quic: SocketAddr,
    pub(crate) tcp: SocketAddr,
    #[cfg(feature = "grpc")]
    pub(crate) grpc: SocketAddr,
    pub(crate) endpoint: QuicEndpoint,
    pub(crate) dialer: quic::QuicClient,
    serving: QuicEndpoint,
    tls: ServerTls,
}

impl Served {
    pub(crate) async fn new(settings: ServerSettings) -> Self {
        Self::over(QuicSettings::default(), settings).await
    }

    pub(crate) async fn over(quic_settings: QuicSettings, settings: ServerSettings) -> Self {
        let runtime: SharedRuntime = Arc::new(TokioRuntime);
        let network: Arc<dyn Network> = Arc::new(TokioNetwork::new(SocketSettings::default()));
        let store = MemoryStore::new(runtime.clone());
        let server = StorageServer::new(runtime.clone(), Arc::new(store.clone()), settings);
        let crypto = Crypto::new(runtime.clone());
        let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
        let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
        let bind =
            |tls| QuicEndpoint::bind(runtime.clone(), network.clone(), LOOPBACK, quic_settings.clone(), tls);
        let serving = bind(Some(&tls)).await.unwrap();
        let quic = serving.local_addr().unwrap();
        server.serve_quic(serving.clone());
        let listener = network.listen(LOOPBACK).await.unwrap();
        let tcp = listener.local_addr().unwrap();
        server.serve_tcp(listener);
        #[cfg(feature = "grpc")]
        let grpc = {
            let listener = network.listen(LOOPBACK).await.unwrap();
            let grpc = listener.local_addr().unwrap();
            server.serve_grpc(listener, None);
            grpc
        };
        let endpoint = bind(None).await.unwrap();
        let trust = ClientTls::new(&crypto, &Trust::Insecure, None).unwrap();
        let dialer = quic::QuicClient::new(runtime.clone(), &quic_settings, trust.into());
        Self {
            runtime,
            network,
            store,
            server,
            quic,
            tcp,
            #[cfg(feature = "grpc")]
            grpc,
            endpoint,
            dialer,
            serving,
            tls,
        }
    }

    /// Serves by `server` from now on, at other addresses.
    pub(crate) async fn serve(&mut self, server: StorageServer) {
        let (runtime, network) = (self.runtime.clone(), self.network.clone());
        let serving =
            QuicEndpoint::bind(runtime, network, LOOPBACK, QuicSettings::default(), Some(&self.tls));
        self.serving = serving.await.unwrap();
        self.quic = self.serving.local_addr().unwrap();
        server.serve_quic(self.serving.clone());
        let listener = self.network.listen(LOOPBACK).await.unwrap();
        self.tcp = listener.local_addr().unwrap();
        server.serve_tcp(listener);
        self.server = server;
    }

    /// As after a restart: sessions of before can't be resumed.
    pub(crate) fn forget_sessions(&self) {
        let crypto = Crypto::new(self.runtime.clone());
        let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
        let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
        self.serving.serve(Some(&tls)).unwrap();
    }

    pub(crate) async fn insert(&self, kind: PieceKind, content: &Bytes, piece_length: u64) -> TaskKey {
        let Digest::Sha256(hash) = Digest::of(Algorithm::Sha256, content) else { panic!() };
        let key = TaskKey { kind, id: TaskId::from_sha256(hash) };
        let piece_length = PieceLength::try_from(piece_length).unwrap();
        let division = Division::new(content.len() as u64, piece_length).unwrap();
        let task = NewTask { key, division, digest: None };
        self.store.insert(task, Algorithm::Crc32, content).await.unwrap();
        key
    }

    pub(crate) async fn quic(&self) -> QuicClient {
        let dialing = self.endpoint.dial(&self.dialer, self.quic).unwrap();
        let connection = dialing.established().await.unwrap();
        QuicClient::new(connection, self.runtime.clone(), Deadlines::default())
    }

    pub(crate) async fn tcp(&self) -> TcpClient {
        let stream = self.network.connect(self.tcp).await.unwrap();
        TcpClient::new(stream, self.runtime.clone(), Deadlines::default())
    }
}

pub(crate) fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

async fn fetch_quic(client: &QuicClient, key: TaskKey, number: u32) -> Result<Vec<u8>, RequestError> {
    client.request(Ask::new(key.piece(number))).await?.collect().await
}

/// Fetches over a connection and gets it back for the next request.
async fn fetch_tcp(slot: &mut Option<TcpClient>, key: TaskKey, number: u32) -> Result<Vec<u8>, RequestError> {
    let back = Arc::new(Mutex::new(None));
    let give_back = {
        let back = back.clone();
        Box::new(move |client| *back.lock().unwrap() = Some(client))
    };
    let client = slot.take().expect("the connection was given back");
    let fetched =
        async { client.request(Ask::new(key.piece(number)), give_back).await?.collect().await }.await;
    *slot = back.lock().unwrap().take();
    fetched
}

fn is_not_found(error: &RequestError) -> bool {
    matches!(error, RequestError::Failed(Failure::Refused { code: ErrorCode::NotFound, .. }))
}

//= VTX-REQ-006 test
//= VTX-REQ-007 test
//= VTX-REQ-011 test
//= VTX-REQ-012 test
//= VTX-REQ-013 test
//= VTX-REQ-014 test
//= VTX-TCP-001 test
//= VTX-TCP-004 test
//= VTX-QUC-012 test
//= VTX-QUC-015 test
#[tokio::test]
async fn every_kind_and_every_size_arrives_over_both_transports() {
    const PIECE: usize = 1 << 16;
    let served = Served::new(ServerSettings::default()).await;
    let quic = served.quic().await;
    let mut tcp = Some(served.tcp().await);
    for kind in PieceKind::ALL {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3] {
            let whole = content(length);
            let key = served.insert(kind, &whole, PIECE as u64).await;
            let pieces = length.div_ceil(PIECE).max(1) as u32;
            let (mut over_quic, mut over_tcp) = (Vec::new(), Vec::new());
            for number in 0..pieces {
                over_quic.extend(fetch_quic(&quic, key, number).await.unwrap());
                over_tcp.extend(fetch_tcp(&mut tcp, key, number).await.unwrap());
            }
            assert_eq!(over_quic, whole);
            assert_eq!(over_tcp, whole);
            assert!(is_not_found(&fetch_quic(&quic, key, pieces).await.unwrap_err()));
            assert!(is_not_found(&fetch_tcp(&mut tcp, key, pieces).await.unwrap_err()));
        }
    }
    let nobodys = TaskKey { kind: PieceKind::Cache, id: TaskId::from_sha256([1; 32]) };
    assert!(is_not_found(&fetch_quic(&quic, nobodys, 0).await.unwrap_err()));
    let one_kind = served.insert(PieceKind::Cache, &content(77), 100).await;
    let other_kind = TaskKey { kind: PieceKind::Piece, ..one_kind };
    assert!(is_not_found(&fetch_quic(&quic, other_kind, 0).await.unwrap_err()));
    assert!(is_not_found(&fetch_tcp(&mut tcp, other_kind, 0).await.unwrap_err()));
    assert_eq!(fetch_tcp(&mut tcp, one_kind, 0).await.unwrap(), content(77));
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way_and_ends() {
    //= VTX-QUC-027 test
    //= VTX-QUC-046 test
    let served = Served::new(ServerSettings::default()).await;
    let whole = content(3 << 20);
    let key = served.insert(PieceKind::Piece, &whole, 4 << 20).await;
    let client = served.quic().await;
    let mut answer = client.request(Ask::new(key.piece(0))).await.unwrap();
    let (received, ()) = tokio::join!(answer.collect(), served.server.shutdown());
    assert_eq!(received.unwrap(), whole);
    let reason = client.connection().closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = reason else { panic!("{reason}") };
    assert_eq!(close.error_code, quic::AppCode::GoingAway.into());
}

#[tokio::test]
async fn early_requests_are_answered_in_a_resumed_session() {
    //= VTX-QUC-037 test
    //= VTX-QUC-041 test
    let served = Served::new(ServerSettings::default()).await;
    let whole = content(1 << 16);
    let key = served.insert(PieceKind::Piece, &whole, 1 << 16).await;
    let first = served.quic().await;
    assert_eq!(fetch_quic(&first, key, 0).await.unwrap(), whole);
    quic::close(first.connection(), AppCode::NoError, b"");

    let dialing = served.endpoint.dial(&served.dialer, served.quic).unwrap();
    let (connection, early) = dialing.into_early().expect("a session to resume");
    let client = QuicClient::new(connection, served.runtime.clone(), Deadlines::default());
    // More than the server answers early, all at once; those above wait for the end of the handshake.
    let requests = (0..40).map(|_| fetch_quic(&client, key, 0));
    let (answers, accepted) = tokio::join!(futures_util::future::join_all(requests), early.accepted());
    assert!(accepted.unwrap(), "the server took the early data");
    assert!(answers.into_iter().all(|answer| answer.unwrap() == whole));
}

#[tokio::test]
async fn a_shutdown_says_close_after_the_answer_under_way_and_not_within_it() {
    //= VTX-CLS-010 test
    let served = Served::new(ServerSettings::default()).await;
    // More than the sockets hold, so that the answer is under way while the server shuts down.
    let whole = content(40 << 20);
    let key = served.insert(PieceKind::Piece, &whole, 40 << 20).await;
    let mut stream = served.network.connect(served.tcp).await.unwrap();
    stream.write_all(&key.piece(0).encode(1)).await.unwrap();
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.unwrap();
    let mut bytes = Vec::new();
    let (read, ()) = tokio::join!(stream.read_to_end(&mut bytes), served.server.shutdown());
    read.unwrap();
    let value = u32::from_be_bytes(head[2..].try_into().unwrap()) as usize;
    let content = &bytes[value..];
    assert!(content[..whole.len()] == whole, "the content is whole");
    assert_eq!(content[whole.len()..], [0, 0xFE, 0, 0, 0, 0]);
}

#[tokio::test]
async fn an_answer_that_is_given_up_takes_its_tcp_connection_with_it() {
    //= VTX-TCP-019 test
    let served = Served::new(ServerSettings::default()).await;
    let mut listener = served.network.listen(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let piece = Ask::new(TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([7; 32]) }.piece(0));
    let late = Deadlines { first_byte: Duration::from_millis(50), ..Deadlines::default() };
    let stuck = Deadlines { piece: Duration::from_millis(500), ..Deadlines::default() };
    for (gives_up, deadlines) in [("begun", Deadlines::default()), ("late", late), ("stuck", stuck)] {
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 74];
            stream.read_exact(&mut request).await.unwrap();
            if gives_up != "late" {
                let answer = crate::downloader::world::answer(PieceKind::Piece, 0, &[7; 1000]);
                stream.write_all(&answer[..answer.len() - 1000]).await.unwrap();
            }
            stream.read_u8().await.unwrap_err()
        };
        let client = async {
            let stream = served.network.connect(address).await.unwrap();
            let client = TcpClient::new(stream, served.runtime.clone(), deadlines);
            let answer = client.request(piece, Box::new(|_| panic!("not to be used again"))).await;
            assert_eq!(answer.is_ok(), gives_up != "late", "{answer:?}");
            let mut answer = answer.ok().filter(|_| gives_up == "stuck");
            if let Some(answer) = &mut answer {
                let error = answer.collect().await.unwrap_err();
                assert!(matches!(error, RequestError::TimedOut(_)), "{error}");
            }
            // Kept: the end does not wait for whoever has it.
            answer
        };
        let (end, _answer) = tokio::join!(server, client);
        assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{end}");
    }
}

#[tokio::test]
async fn requests_of_extensions_go_early_too() {
    //= VTX-EXT-010 test
    let served = Served::new(ServerSettings::default()).await;
    let key = served.insert(PieceKind::Piece, &content(1000), 300).await;
    let first = served.quic().await;
    fetch_quic(&first, key, 0).await.unwrap();
    quic::close(first.connection(), AppCode::NoError, b"");

    let dialing = served.endpoint.dial(&served.dialer, served.quic).unwrap();
    let (connection, early) = dialing.into_early().expect("a session to resume");
    let client = QuicClient::early(connection, early, served.runtime.clone(), Deadlines::default());
    let request = ExtensionRequest::Description { kind: key.kind, task_id: key.id };
    // Polled once, it has a stream; the handshake can't be complete by then, for nothing else has run.
    let mut asking = std::pin::pin!(client.extension(&request));
    assert!(asking.as_mut().now_or_never().is_none());
    let (mut next, _) = client.connection().open_bi().now_or_never().expect("early streams").unwrap();
    assert_eq!(next.id().index(), 1);
    next.reset(0u32.into()).unwrap();
    let Ok(Some(ExtensionReply::Description(description))) = asking.await else { panic!("no description") };
    assert_eq!(description.division.pieces(), 4);
}
