//! A server that sends from files: in bursts from threads to clients that are quick, otherwise as its tasks have turns.

use crate::clock::Stopped;
use crate::peers::content;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use vortex_p2p::client::{Ask, TcpClient};
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::server::{Limit, ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::TaskKey;
use vortex_p2p::store::disk::{DiskStore, ImportOptions, OsDisk};
use vortex_p2p::transport::{Network, TokioNetwork};
use vortex_p2p::wire::{Algorithm, PieceKind, PieceLength};

const PIECE: u64 = 16 << 20;

/// A server of one task in a file; unless told otherwise at a clock that stands still, by which everyone is quick.
struct World {
    clock: Arc<Stopped>,
    server: StorageServer,
    tcp: SocketAddr,
    key: TaskKey,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new(bytes: &[u8], settings: ServerSettings) -> Self {
        Self::at(Stopped::new(), bytes, settings).await
    }

    async fn at(clock: Arc<Stopped>, bytes: &[u8], settings: ServerSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(OsDisk::open(directory.path()).unwrap());
        let store = DiskStore::open(disk, Arc::new(TokioRuntime)).await.unwrap();
        let options = ImportOptions {
            kind: PieceKind::Piece,
            piece_length: Some(PieceLength::try_from(PIECE).unwrap()),
            algorithm: Algorithm::Crc32,
        };
        let source = std::io::Cursor::new(bytes.to_vec());
        let key = store.import_reader(source, bytes.len() as u64, options).await.unwrap().key;
        let server = StorageServer::new(clock.clone(), Arc::new(store), settings);
        let listener = TokioNetwork::default().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let tcp = listener.local_addr().unwrap();
        server.serve_tcp(listener);
        Self { clock, server, tcp, key, _directory: directory }
    }

    /// Fetches one piece after another over one connection.
    async fn fetch(&self, pieces: u32) -> Vec<u8> {
        let stream = TokioNetwork::default().connect(self.tcp).await.unwrap();
        let client = TcpClient::new(stream, Arc::new(TokioRuntime), Deadlines::default());
        let slot = Arc::new(Mutex::new(Some(client)));
        let mut fetched = Vec::new();
        for number in 0..pieces {
            let client = slot.lock().unwrap().take().expect("the connection was given back");
            let back = slot.clone();
            let give_back = Box::new(move |client| *back.lock().unwrap() = Some(client));
            let mut answer = client.request(Ask::new(self.key.piece(number)), give_back).await.unwrap();
            fetched.extend(answer.collect().await.unwrap());
        }
        fetched
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_clients_than_there_are_threads_have_it_all() {
    let whole = content(2 * PIECE as usize + 12_345);
    let world = World::new(&whole, ServerSettings::default()).await;
    let clients = 2 * std::thread::available_parallelism().unwrap().get() + 3;
    let fetched = futures_util::future::join_all((0..clients).map(|_| world.fetch(3))).await;
    assert!(fetched.iter().all(|fetched| *fetched == whole));
    let stats = &world.server.stats().pieces[&PieceKind::Piece];
    assert_eq!((stats.bytes, stats.failed), ((clients * whole.len()) as u64, 0));
    assert!(world.clock.jobs() > 0, "some of it went from threads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_sends_what_a_rate_lets_through_at_once_and_no_more() {
    let whole = content(7 << 20);
    // That of `vortex serve`, and one of which 100 ms are less than what is left once the client counts as quick.
    for (rate, jobs) in [(50_000_000_000, 1), (20_000_000, 0)] {
        let limits = ServerLimits { bandwidth: NonZeroU64::new(rate), ..ServerLimits::default() };
        // The rate needs a clock that goes on, and so slowly that everyone is quick.
        let clock = Stopped::stepping(Duration::from_millis(1));
        let world = World::at(clock, &whole, ServerSettings { limits, ..ServerSettings::default() }).await;
        assert!(world.fetch(1).await == whole);
        assert_eq!(world.clock.jobs(), jobs, "{rate}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_quick_and_stops_meets_the_deadline() {
    //= VTX-LIM-002 test
    //= VTX-TCP-010 test
    let whole = content(3 * PIECE as usize);
    let deadlines = Deadlines { progress: Duration::from_secs(2), ..Deadlines::default() };
    let world = World::new(&whole, ServerSettings { deadlines, ..ServerSettings::default() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut client = socket.connect(world.tcp).await.unwrap();
    let mut read = vec![0; PIECE as usize];
    client.write_all(&world.key.piece(0).encode(1)).await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    // The next ones are more than the kernel holds.
    client.write_all(&world.key.piece(1).encode(1)).await.unwrap();
    client.write_all(&world.key.piece(2).encode(1)).await.unwrap();
    client.read_exact(&mut read[..1 << 20]).await.unwrap();
    // The server ends by itself: what was under way was broken off, and no thread waits for the client any more.
    world.server.shutdown().await;
    assert_eq!(world.server.stats().limits[&Limit::LeastRate], 1);
    assert!(world.clock.jobs() > 0, "a thread has sent to it");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(rest.len() < 2 * PIECE as usize, "the rest was not sent");
}
