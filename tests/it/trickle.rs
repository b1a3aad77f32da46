//! Answers over TCP that come in small parts, late, or never in full, at a client that lets content gather in the kernel.
//!
//! Its clock stands still, so that every path looks fast, and it waits for as much as it ever does.

use crate::clock::Stopped;
use crate::downloader::world::answer;
use crate::peers::{Served, content};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use vortex_p2p::client::{Ask, Failure, RequestError, TcpClient, Waited};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::ServerSettings;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::TaskKey;
use vortex_p2p::transport::tls::{
    self, Admission, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::transport::{ByteStream, Network, TokioNetwork};
use vortex_p2p::wire::{Bounded, ErrorCode, ErrorMessage, Message, Packet, PieceKind, TaskId};

/// Bytes that a client waits for at most.
const MOST: usize = 256 << 10;

/// A stream of the kernel, and what it was told to wait for.
struct Told {
    stream: Box<dyn ByteStream>,
    marks: Arc<Mutex<Vec<usize>>>,
}

impl ByteStream for Told {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }
    fn wake_at(&self, bytes: usize) -> io::Result<()> {
        self.marks.lock().unwrap().push(bytes);
        self.stream.wake_at(bytes)
    }
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Told {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client's stream, what it is told, and the server's end of it.
async fn connection() -> (Told, Arc<Mutex<Vec<usize>>>, Box<dyn ByteStream>) {
    let network = TokioNetwork::default();
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(network.connect(address), listener.accept());
    let marks = Arc::default();
    let told = Told { stream: connected.unwrap(), marks: Arc::clone(&marks) };
    (told, marks, accepted.unwrap().0)
}

fn runtime() -> SharedRuntime {
    Stopped::new()
}

/// Long enough for whatever comes at all; what does not come is told sooner than by default.
fn patient() -> Deadlines {
    Deadlines { first_byte: Duration::from_secs(15), piece: Duration::from_secs(15), ..Deadlines::default() }
}

fn ask(number: u32) -> Ask {
    Ask::new(TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([7; 32]) }.piece(number))
}

/// Asks over the connection in `slot`, to which it comes back where it can be used again.
async fn fetch(slot: &Arc<Mutex<Option<TcpClient>>>, number: u32) -> Result<Vec<u8>, RequestError> {
    let client = slot.lock().unwrap().take().expect("the connection was given back");
    let back = slot.clone();
    let give_back = Box::new(move |client| *back.lock().unwrap() = Some(client));
    client.request(ask(number), give_back).await?.collect().await
}

async fn requested(stream: &mut Box<dyn ByteStream>) {
    let mut request = [0; 74];
    stream.read_exact(&mut request).await.unwrap();
}

/// Lets everybody else do what they can.
async fn others() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whatever_comes_in_trickles_arrives_and_the_next_answers_too() {
    let (stream, marks, mut server) = connection().await;
    let slot = Arc::new(Mutex::new(Some(TcpClient::new(Box::new(stream), runtime(), patient()))));
    let whole = content(2 << 20);
    let serve = async {
        requested(&mut server).await;
        let bytes = answer(PieceKind::Piece, 0, &whole);
        // So much at once that the client knows how fast it can be.
        let (at_once, rest) = bytes.split_at(bytes.len() - (1 << 20));
        let (trickle, last) = rest.split_at(rest.len() - 1);
        server.write_all(at_once).await.unwrap();
        for part in trickle.chunks(1009) {
            server.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        others().await;
        server.write_all(last).await.unwrap();

        // Answers that are shorter than all that was waited for.
        requested(&mut server).await;
        let refusal = ErrorMessage { code: ErrorCode::NotFound, message: Bounded::cut("no") };
        let refusal = Packet { id: 0, message: Message::Error(refusal) };
        let mut bytes = Vec::new();
        refusal.encode(&mut bytes);
        for byte in &bytes {
            server.write_all(&[*byte]).await.unwrap();
            others().await;
        }
        for length in [0, 1, 1000] {
            requested(&mut server).await;
            for part in answer(PieceKind::Piece, 1, &whole[..length]).chunks(100) {
                server.write_all(part).await.unwrap();
                others().await;
            }
        }
    };
    let test = async {
        assert!(fetch(&slot, 0).await.unwrap() == whole);
        {
            let mut marks = marks.lock().unwrap();
            assert_eq!((marks.iter().max(), marks.last()), (Some(&MOST), Some(&1)), "{marks:?}");
            marks.clear();
        }
        let refused = fetch(&slot, 1).await.unwrap_err();
        assert!(
            matches!(refused, RequestError::Failed(Failure::Refused { code: ErrorCode::NotFound, .. })),
            "{refused}"
        );
        for length in [0, 1, 1000] {
            assert!(fetch(&slot, 1).await.unwrap() == whole[..length]);
        }
        assert!(marks.lock().unwrap().is_empty(), "not worth it");
    };
    tokio::join!(serve, test);
}

#[tokio::test]
async fn a_peer_that_stops_midway_meets_the_deadline_and_one_that_ends_does_not() {
    let whole = content(2 << 20);
    let bytes = answer(PieceKind::Piece, 0, &whole);
    for ends in [false, true] {
        let (stream, marks, mut server) = connection().await;
        let piece = Duration::from_millis(if ends { 60_000 } else { 500 });
        let client = TcpClient::new(Box::new(stream), runtime(), Deadlines { piece, ..Deadlines::default() });
        let serve = async {
            requested(&mut server).await;
            server.write_all(&bytes[..1 << 20]).await.unwrap();
            // Less than is waited for.
            others().await;
            server.write_all(&bytes[1 << 20..][..1000]).await.unwrap();
            if ends {
                server.shutdown().await.unwrap();
            }
        };
        let give_back = Box::new(|_| panic!("not to be used again"));
        let test = async { client.request(ask(0), give_back).await?.collect().await };
        let (collected, ()) = tokio::join!(test, serve);
        let error = collected.unwrap_err();
        assert_eq!(matches!(error, RequestError::TimedOut(Waited::Piece)), !ends, "{error}");
        assert_eq!(marks.lock().unwrap().iter().max(), Some(&MOST));
    }
}

#[tokio::test]
async fn a_stream_under_tls_is_left_alone() {
    let crypto = Crypto::new(Arc::new(TokioRuntime));
    let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
    let serving = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
    let trust = ClientTls::new(&crypto, &Trust::Insecure, None).unwrap();
    let (stream, marks, server) = connection().await;
    let peer = stream.socket().unwrap().peer_addr().unwrap();
    let whole = content(2 << 20);
    let serve = async {
        let mut server = tls::accept(&serving, server).await.unwrap();
        requested(&mut server).await;
        server.write_all(&answer(PieceKind::Piece, 0, &whole)).await.unwrap();
        server.flush().await.unwrap();
    };
    let test = async {
        let stream = tls::connect(&trust, peer, Box::new(stream)).await.unwrap();
        let slot = Arc::new(Mutex::new(Some(TcpClient::new(stream, runtime(), patient()))));
        assert!(fetch(&slot, 0).await.unwrap() == whole);
    };
    tokio::join!(serve, test);
    // What is left of the content says nothing of the bytes that carry it.
    assert!(marks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_real_server_is_read_in_few_parts() {
    let served = Served::new(ServerSettings::default()).await;
    let whole = content(16 << 20);
    let key = served.insert(PieceKind::Piece, &whole, 16 << 20).await;
    let marks = Arc::default();
    let stream = served.network.connect(served.tcp).await.unwrap();
    let told = Told { stream, marks: Arc::clone(&marks) };
    let client = TcpClient::new(Box::new(told), runtime(), patient());
    let mut answer = client.request(Ask::new(key.piece(0)), Box::new(drop)).await.unwrap();
    assert!(answer.collect().await.unwrap() == whole);
    let marks = marks.lock().unwrap();
    assert!(marks.contains(&MOST) && marks.iter().all(|mark| *mark <= MOST), "{marks:?}");
    assert!(marks.len() < 40, "it is told when that changes only: {marks:?}");
}
