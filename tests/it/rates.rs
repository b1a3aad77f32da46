//! What a server's rates let through, on a network in memory and a clock that jumps: no time passes, and every figure is
//! the same each time.

use crate::memory::{LOOPBACK, Memory};
use bytes::Bytes;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use vortex_p2p::client::{Ask, RequestError, TcpClient};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{Limit, ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::{Deadlines, Failure};
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::{ByteStream, Network};
use vortex_p2p::wire::{Algorithm, Division, ErrorCode, PieceKind, PieceLength, TaskId};

struct World {
    runtime: SharedRuntime,
    server: StorageServer,
    network: Memory,
    address: SocketAddr,
    store: MemoryStore,
}

impl World {
    async fn new(deadlines: Deadlines, change: impl FnOnce(&mut ServerLimits)) -> Self {
        let runtime: SharedRuntime = Arc::new(TokioRuntime);
        let store = MemoryStore::new(runtime.clone());
        let mut settings = ServerSettings { deadlines, ..ServerSettings::default() };
        change(&mut settings.limits);
        let server = StorageServer::new(runtime.clone(), Arc::new(store.clone()), settings);
        let network = Memory::default();
        let listener = network.listen(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        server.serve_tcp(listener);
        Self { runtime, server, network, address, store }
    }

    /// A task of one piece.
    async fn insert(&self, length: usize) -> TaskKey {
        let piece_length = PieceLength::try_from(length as u64).unwrap();
        let division = Division::new(length as u64, piece_length).unwrap();
        let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([length as u8; 32]) };
        let task = NewTask { key, division, digest: None };
        self.store.insert(task, Algorithm::Crc32, &Bytes::from(vec![7; length])).await.unwrap();
        key
    }

    async fn raw(&self) -> Box<dyn ByteStream> {
        self.network.connect(self.address).await.unwrap()
    }

    async fn client(&self) -> TcpClient {
        TcpClient::new(self.raw().await, self.runtime.clone(), patient())
    }

    /// Fetches the piece of `task` again and again, by one connection; how many bytes come in `time`.
    async fn fetch_for(&self, task: TaskKey, time: Duration) -> u64 {
        let mut client = self.client().await;
        let mut bytes = 0;
        let fetch = async {
            loop {
                let (give_back, given_back) = oneshot::channel();
                let give_back = Box::new(|client| drop(give_back.send(client)));
                let mut answer = client.request(Ask::new(task.piece(0)), give_back).await.unwrap();
                while let Some(part) = answer.chunk().await.unwrap() {
                    bytes += part.len() as u64;
                }
                client = given_back.await.unwrap();
            }
        };
        let _: Result<std::convert::Infallible, _> = tokio::time::timeout(time, fetch).await;
        bytes
    }

    fn met(&self, limit: Limit) -> u64 {
        self.server.stats().limits[&limit]
    }
}

/// A client that waits as long as it takes.
fn patient() -> Deadlines {
    let long = Duration::from_secs(100_000);
    Deadlines { first_byte: long, piece: long, ..Deadlines::default() }
}

fn rate(per_second: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(per_second)
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_charged_as_bytes_flow_and_shared_between_connections() {
    let world = World::new(Deadlines::default(), |limits| limits.bandwidth = rate(1_000_000)).await;
    let (large, medium, small) =
        (world.insert(8 << 20).await, world.insert(300_001).await, world.insert(5_000).await);
    let time = Duration::from_secs(100);
    let shares: [u64; 3] = tokio::join!(
        world.fetch_for(large, time),
        world.fetch_for(medium, time),
        world.fetch_for(small, time),
    )
    .into();
    let total: u64 = shares.iter().sum();
    // 100 s of it and the burst; some is on its way.
    assert!((97_000_000..=100_100_000).contains(&total), "{shares:?}");
    for share in shares {
        assert!((share * 3).abs_diff(total) < total / 20, "{shares:?}");
    }
    // A piece of eight seconds came part by part, not whole and then nothing: that is what the other two show, each of
    // which had its third of every second.
    assert!(world.met(Limit::Bandwidth) > 100);
    assert_eq!(world.met(Limit::LeastRate), 0);
    let served = world.server.stats().pieces[&PieceKind::Piece].bytes;
    assert!(served.abs_diff(total) < 1 << 20, "{served} of {total}");
}

#[tokio::test(start_paused = true)]
async fn requests_take_turns() {
    let world = World::new(Deadlines::default(), |limits| limits.requests = rate(20)).await;
    let task = world.insert(100).await;
    let time = Duration::from_secs(100);
    let shares = futures_util::future::join_all((0..4).map(|_| world.fetch_for(task, time))).await;
    let total: u64 = shares.iter().sum();
    // 20 a second, a burst of 2, and a hundred bytes each.
    assert!((199_000..=200_300).contains(&total), "{shares:?}");
    for share in &shares {
        assert!((share * 4).abs_diff(total) < total / 50, "{shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_turn_does_not_come_is_told() {
    let deadlines = Deadlines { answer: Duration::from_secs(2), ..Deadlines::default() };
    let world = World::new(deadlines, |limits| limits.requests = rate(1)).await;
    let task = world.insert(100).await;
    let answers = (0..10).map(|_| async {
        let answer = world.client().await.request(Ask::new(task.piece(0)), Box::new(drop)).await?;
        Ok::<_, RequestError>(answer.piece().length)
    });
    let answers = futures_util::future::join_all(answers).await;
    let refused: Vec<_> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            Err(RequestError::Failed(Failure::Refused { code, message })) => Some((code, message)),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        })
        .collect();
    // One from the burst, one each second.
    assert_eq!(refused.len(), 7, "{refused:?}");
    for (code, message) in refused {
        assert_eq!((code, message.as_str()), (ErrorCode::Internal, Limit::Requests.told()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_drops_does_not_hold_an_answer() {
    //= VTX-LIM-002 test
    let world = World::new(Deadlines::default(), |_| ()).await;
    let task = world.insert(8 << 20).await;
    let mut slow = world.raw().await;
    slow.write_all(&task.piece(0).encode(1)).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut read = 0;
    // Always in time for the progress deadline, and never done.
    while let Ok(1) = slow.read(&mut [0]).await {
        read += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if world.server.stats().answers == 0 {
            break;
        }
    }
    // 256 KiB have 4 s at 64 KiB a second, beside the 30 s of the progress deadline.
    assert!((33..=36).contains(&begun.elapsed().as_secs()), "{:?}, {read} bytes", begun.elapsed());
    assert_eq!(world.met(Limit::LeastRate), 1);
    assert_eq!(world.server.stats().pieces[&PieceKind::Piece].failed, 1);
    assert_eq!(world.server.stats().memory, 0);
}

#[tokio::test(start_paused = true)]
async fn content_in_memory_is_bounded_and_given_back() {
    let deadlines = Deadlines { answer: Duration::from_secs(5), ..Deadlines::default() };
    let world = World::new(deadlines, |limits| limits.memory = 600 << 10).await;
    let task = world.insert(8 << 20).await;
    let mut first = world.raw().await;
    first.write_all(&task.piece(0).encode(1)).await.unwrap();
    first.read_exact(&mut [0; 100]).await.unwrap();
    assert_eq!(world.server.stats().memory, 512 << 10);
    // It does not read on, so the next one finds no room by its deadline.
    let refused = world.client().await.request(Ask::new(task.piece(0)), Box::new(drop)).await.unwrap_err();
    let RequestError::Failed(Failure::Refused { code, message }) = refused else { panic!("{refused}") };
    assert_eq!((code, message.as_str()), (ErrorCode::Internal, Limit::Memory.told()));
    assert_eq!(world.met(Limit::Memory), 1);
    // It is gone, and its room is there.
    drop(first);
    let mut answer = world.client().await.request(Ask::new(task.piece(0)), Box::new(drop)).await.unwrap();
    assert_eq!(answer.collect().await.unwrap().len(), 8 << 20);
    let stats = world.server.stats();
    assert_eq!(stats.pieces[&PieceKind::Piece].begun, 2);
    assert_eq!(stats.accepted, 3);
}
