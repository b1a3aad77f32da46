//! What a server does at its limits and deadlines, when its store fails, and while it shuts down.

#[cfg(feature = "metrics")]
mod met;

use crate::peers::{Served, content};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vortex_p2p::client::{Ask, RequestError};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::{ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::{Deadlines, Failure, Rejection};
use vortex_p2p::store::{
    Collected, Content, Keep, MemoryStore, NewTask, PieceSet, PieceStore, PieceWriter, StoreError,
    StoredPiece, Task, TaskKey,
};
use vortex_p2p::transport::quic::{self, AppCode};
use vortex_p2p::wire::{Download, ErrorCode, Message, Packet, PieceKind, TaskId};

fn limited(change: impl FnOnce(&mut ServerLimits)) -> ServerSettings {
    let mut settings = ServerSettings::default();
    change(&mut settings.limits);
    settings
}

fn request() -> [u8; Download::PACKET_LEN] {
    Download { kind: PieceKind::Piece, task_id: TaskId::from_sha256([7; 32]), number: 0 }.encode(9)
}

/// The one Error packet that comes until the end of the connection.
async fn last_error(stream: &mut TcpStream) -> (u8, ErrorCode) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let packet = Packet::decode_exact(&bytes).unwrap();
    let Message::Error(error) = packet.message else { panic!("{packet:?}") };
    (packet.id, error.code)
}

#[tokio::test]
async fn connections_above_the_limit_are_told_and_end() {
    //= VTX-LIM-006 test
    //= VTX-TCP-014 test
    //= VTX-QUC-026 test
    let served = Served::new(limited(|limits| limits.connections = 1)).await;
    let first = served.quic().await;
    let mut above = TcpStream::connect(served.tcp).await.unwrap();
    assert_eq!(last_error(&mut above).await, (0, ErrorCode::Internal));
    let above = served.endpoint.dial(&served.dialer, served.quic).unwrap().established().await;
    assert!(above.is_err());
    // Who was there is served, and its place is given to the next.
    let key = served.insert(PieceKind::Piece, &content(10), 10).await;
    assert_eq!(first.request(Ask::new(key.piece(0))).await.unwrap().collect().await.unwrap(), content(10));
    quic::close(first.connection(), AppCode::NoError, b"");
    drop(first);
    for _ in 0..1000 {
        let mut next = TcpStream::connect(served.tcp).await.unwrap();
        next.write_all(&request()).await.unwrap();
        let mut head = [0; 6];
        next.read_exact(&mut head).await.unwrap();
        let mut value = vec![0; head[5] as usize];
        next.read_exact(&mut value).await.unwrap();
        if value[0] == 2 {
            return;
        }
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn one_address_does_not_take_everything() {
    //= VTX-SEC-002 test
    let served = Served::new(limited(|limits| limits.connections_per_address = 2)).await;
    let _first = TcpStream::connect(served.tcp).await.unwrap();
    let _second = served.quic().await;
    let mut greedy = TcpStream::connect(served.tcp).await.unwrap();
    assert_eq!(last_error(&mut greedy).await, (0, ErrorCode::Internal));
    // Another address of this machine.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut honest = socket.connect(served.tcp).await.unwrap();
    honest.write_all(&request()).await.unwrap();
    let mut head = [0; 7];
    honest.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], head[1], head[6]), (9, 0xFF, 2), "it is answered: no such task");
}

#[tokio::test]
async fn answers_above_the_limit_are_refused_with_code_3() {
    //= VTX-LIM-007 test
    //= VTX-QUC-026 test
    let served = Served::new(limited(|limits| limits.answers_per_connection = 1)).await;
    // Far more than the windows hold, so that the first answer stays under way.
    let key = served.insert(PieceKind::Piece, &content(40 << 20), 40 << 20).await;
    let client = served.quic().await;
    let first = client.request(Ask::new(key.piece(0))).await.unwrap();
    let above = client.request(Ask::new(key.piece(0))).await.unwrap_err();
    assert!(matches!(above, RequestError::Failed(Failure::Rejected(Rejection::Reset))), "{above}");
    // Given up, its place is free again.
    drop(first);
    let mut answered = false;
    for _ in 0..1000 {
        answered |= client.request(Ask::new(key.piece(0))).await.is_ok();
        if answered {
            break;
        }
    }
    assert!(answered);
}

#[tokio::test]
async fn addresses_prove_themselves_while_handshakes_pile_up() {
    //= VTX-SEC-003 test
    // From the first one on: each connection takes the round trip of a Retry, and is then served.
    let served = Served::new(limited(|limits| limits.half_open = 0)).await;
    let key = served.insert(PieceKind::Piece, &content(10), 10).await;
    let client = served.quic().await;
    assert!(client.connection().stats().frame_rx.crypto > 0);
    assert_eq!(client.request(Ask::new(key.piece(0))).await.unwrap().collect().await.unwrap(), content(10));
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_broken_off() {
    //= VTX-LIM-002 test
    //= VTX-TCP-010 test
    let deadlines = Deadlines { progress: Duration::from_millis(100), ..Deadlines::default() };
    let served = Served::new(ServerSettings { deadlines, ..ServerSettings::default() }).await;
    let key = served.insert(PieceKind::Piece, &content(40 << 20), 40 << 20).await;
    let client = served.quic().await;
    let mut answer = client.request(Ask::new(key.piece(0))).await.unwrap();
    // Nothing is read until the server has lost its patience: it says so by closing what is under way.
    let mut tcp = TcpStream::connect(served.tcp).await.unwrap();
    tcp.write_all(&key.piece(0).encode(1)).await.unwrap();
    served.server.shutdown().await;
    let broken = answer.collect().await.unwrap_err();
    assert!(matches!(broken, RequestError::Failed(_) | RequestError::Lost(_)), "{broken}");
    let mut bytes = Vec::new();
    let _ = tcp.read_to_end(&mut bytes).await;
    assert!(bytes.len() < 40 << 20, "the rest was not sent");
}

#[tokio::test]
async fn a_shutdown_ends_by_its_deadline_whoever_does_not_read() {
    //= VTX-LIM-005 test
    //= VTX-TCP-015 test
    let deadlines = Deadlines { shutdown: Duration::from_millis(50), ..Deadlines::default() };
    let served = Served::new(ServerSettings { deadlines, ..ServerSettings::default() }).await;
    let key = served.insert(PieceKind::Piece, &content(40 << 20), 40 << 20).await;
    let mut slow = TcpStream::connect(served.tcp).await.unwrap();
    slow.write_all(&key.piece(0).encode(1)).await.unwrap();
    let mut idle = TcpStream::connect(served.tcp).await.unwrap();
    idle.write_all(&request()).await.unwrap();
    let mut answer = [0; 6];
    idle.read_exact(&mut answer).await.unwrap();
    let client = served.quic().await;
    let _answer = client.request(Ask::new(key.piece(0))).await.unwrap();
    served.server.shutdown().await;
    let closed = client.connection().closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(close.error_code, AppCode::GoingAway.into());
    // The idle one was told, and ended.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(&[0, 0xFE, 0, 0, 0, 0]), "{rest:?}");
    assert!(TcpStream::connect(served.tcp).await.is_err());
}

/// How a store fails.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// At once.
    Lookup,
    /// Never answers.
    Silence,
    /// After so many bytes of content.
    Reading(u64),
    /// The bytes are others than were stored.
    Damage,
}

/// A store with one kind of trouble.
#[derive(Debug)]
struct Troubled(MemoryStore, Trouble);

#[derive(Debug)]
struct TroubledContent(Arc<dyn Content>, Trouble);

fn broken() -> StoreError {
    StoreError::io("reading", std::io::Error::other("/secret/path is gone"))
}

impl Content for TroubledContent {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            let bytes = self.0.read(offset, max).await?;
            match self.1 {
                Trouble::Reading(limit) if offset + bytes.len() as u64 > limit => Err(broken()),
                Trouble::Damage if offset == 0 => Ok(bytes.iter().map(|byte| byte ^ 1).collect()),
                _ => Ok(bytes),
            }
        })
    }
}

impl PieceStore for Troubled {
    fn piece(&self, request: Download) -> BoxFuture<'_, Result<StoredPiece, StoreError>> {
        Box::pin(async move {
            match self.1 {
                Trouble::Lookup => Err(broken()),
                Trouble::Silence => std::future::pending().await,
                trouble => {
                    let piece = self.0.piece(request).await?;
                    Ok(StoredPiece { content: Arc::new(TroubledContent(piece.content, trouble)), ..piece })
                }
            }
        })
    }
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<Task, StoreError>> {
        self.0.create(task)
    }
    fn task(&self, key: TaskKey) -> BoxFuture<'_, Result<Option<Task>, StoreError>> {
        self.0.task(key)
    }
    fn tasks(&self) -> BoxFuture<'_, Result<Vec<Task>, StoreError>> {
        self.0.tasks()
    }
    fn held(&self, key: TaskKey) -> BoxFuture<'_, Result<PieceSet, StoreError>> {
        self.0.held(key)
    }
    fn grown(&self) -> BoxFuture<'static, ()> {
        self.0.grown()
    }
    fn writer(&self, request: Download) -> BoxFuture<'_, Result<Box<dyn PieceWriter>, StoreError>> {
        self.0.writer(request)
    }
    fn mark_damaged(&self, request: Download) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.mark_damaged(request)
    }
    fn pin(&self, key: TaskKey, pinned: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.pin(key, pinned)
    }
    fn delete(&self, key: TaskKey) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.0.delete(key)
    }
    fn collect(&self, keep: Keep) -> BoxFuture<'_, Result<Collected, StoreError>> {
        self.0.collect(keep)
    }
}

/// What both transports make of a store with `trouble`; the answers have to be alike.
async fn with_trouble(trouble: Trouble) -> (Result<Vec<u8>, RequestError>, Served, TaskKey) {
    let deadlines = Deadlines { answer: Duration::from_millis(50), ..Deadlines::default() };
    let mut served = Served::new(ServerSettings { deadlines, ..ServerSettings::default() }).await;
    let key = served.insert(PieceKind::Piece, &content(3 << 20), 4 << 20).await;
    let settings = ServerSettings { deadlines, ..ServerSettings::default() };
    let store = Arc::new(Troubled(served.store.clone(), trouble));
    served.serve(StorageServer::new(served.runtime.clone(), store, settings)).await;
    let ask = Ask::new(key.piece(0));
    let quic = async { served.quic().await.request(ask).await?.collect().await }.await;
    let tcp = async { served.tcp().await.request(ask, Box::new(drop)).await?.collect().await }.await;
    if matches!(trouble, Trouble::Damage) {
        // The first of the two finds it out; the second is told.
        let told =
            matches!(tcp, Err(RequestError::Failed(Failure::Refused { code: ErrorCode::Internal, .. })));
        assert!(told, "{tcp:?}");
        return (quic, served, key);
    }
    let kind = |result: &Result<_, RequestError>| match result {
        Err(RequestError::Failed(Failure::Refused { code, message })) => format!("{code}: {message}"),
        Err(_) => "broken off".to_owned(),
        Ok(_) => "whole".to_owned(),
    };
    assert_eq!(kind(&quic), kind(&tcp), "{quic:?} {tcp:?}");
    (quic, served, key)
}

#[tokio::test]
async fn a_store_that_fails_is_told_without_its_insides() {
    //= VTX-ERR-010 test
    //= VTX-SEC-009 test
    let (answer, ..) = with_trouble(Trouble::Lookup).await;
    let Err(RequestError::Failed(Failure::Refused { code, message })) = answer else { panic!("{answer:?}") };
    assert_eq!((code, message.as_str()), (ErrorCode::Internal, "the store failed"));
}

#[tokio::test]
async fn a_store_that_is_silent_is_told_by_the_deadline() {
    //= VTX-ERR-012 test
    let (answer, ..) = with_trouble(Trouble::Silence).await;
    assert!(matches!(answer, Err(RequestError::Failed(Failure::Refused { code: ErrorCode::Internal, .. }))));
}

#[tokio::test]
async fn a_store_that_fails_within_an_answer_breaks_it_off() {
    //= VTX-ERR-013 test
    //= VTX-TCP-010 test
    //= VTX-QUC-031 test
    for limit in [0, 1 << 20] {
        let (answer, ..) = with_trouble(Trouble::Reading(limit)).await;
        assert!(matches!(answer, Err(RequestError::Failed(Failure::Rejected(_)))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_damaged_piece_is_found_out_while_it_is_served_and_not_served_again() {
    let (answer, served, key) = with_trouble(Trouble::Damage).await;
    assert!(matches!(answer, Err(RequestError::Failed(Failure::Rejected(Rejection::Reset)))), "{answer:?}");
    assert!(matches!(served.store.piece(key.piece(0)).await, Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn a_session_is_resumed_early_and_requests_survive_its_rejection() {
    //= VTX-QUC-038 test
    //= VTX-QUC-042 test
    //= VTX-QUC-044 test
    //= VTX-QUC-039 test
    let mut served = Served::new(ServerSettings::default()).await;
    let whole = content(1 << 16);
    let key = served.insert(PieceKind::Piece, &whole, 1 << 16).await;
    let store = served.store.clone();
    for reject in [false, true, false] {
        // The first one has nothing to resume, and leaves a session for the next.
        let first = served.quic().await;
        assert_eq!(first.request(Ask::new(key.piece(0))).await.unwrap().collect().await.unwrap(), whole);
        quic::close(first.connection(), AppCode::NoError, b"");
        if reject {
            served.forget_sessions();
        }
        let dialing = served.endpoint.dial(&served.dialer, served.quic).unwrap();
        let (connection, early) = dialing.into_early().expect("a session to resume");
        let client = vortex_p2p::client::QuicClient::early(
            connection,
            early,
            served.runtime.clone(),
            Deadlines::default(),
        );
        // More than may go early: those above wait for the handshake, and all of them are answered.
        let requests =
            (0..40).map(|_| async { client.request(Ask::new(key.piece(0))).await?.collect().await });
        for answer in futures_util::future::join_all(requests).await {
            assert_eq!(answer.unwrap(), whole, "rejected: {reject}");
        }
        quic::close(client.connection(), AppCode::NoError, b"");
    }
    assert_eq!(store.tasks().await.unwrap().len(), 1, "nothing was made");
    let _ = &mut served;
}
