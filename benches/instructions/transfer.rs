//! Pieces over one connection, with the server and the client of the library, on one thread, a network in memory and a
//! clock that jumps.

mod pipes;

use super::PIECE;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use vortex_p2p::client::{Ask, TcpClient};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::wire::{Algorithm, Division, PieceKind, PieceLength, TaskId};

pub(crate) fn run(times: u32) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio.unwrap().block_on(fetch(times));
}

async fn fetch(times: u32) {
    let runtime: SharedRuntime = Arc::new(TokioRuntime);
    let store = MemoryStore::new(runtime.clone());
    let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([0x5A; 32]) };
    let length = PieceLength::try_from(PIECE as u64).unwrap();
    let task = NewTask { key, division: Division::new(PIECE as u64, length).unwrap(), digest: None };
    store.insert(task, Algorithm::Crc32, &Bytes::from(vec![0xA5; PIECE])).await.unwrap();
    let server = StorageServer::new(runtime.clone(), Arc::new(store), ServerSettings::default());
    let (connect, listener) = mpsc::unbounded_channel();
    server.serve_tcp(Box::new(pipes::Pipes(listener)));
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    connect.send(theirs).unwrap();
    let mut client = TcpClient::new(Box::new(pipes::Pipe(ours)), runtime, Deadlines::default());
    for _ in 0..times {
        let (give_back, given_back) = oneshot::channel();
        let give_back = Box::new(|client| drop(give_back.send(client)));
        let mut answer = client.request(Ask::new(key.piece(0)), give_back).await.unwrap();
        let mut bytes = 0;
        while let Some(part) = answer.chunk().await.unwrap() {
            bytes += part.len();
        }
        assert_eq!(bytes, PIECE);
        client = given_back.await.unwrap();
    }
}
