//! A peer that says a task is far longer than what it has: what that takes of a client before a piece has come.

use super::victim::{Held, held};
use crate::cli::{last_object, run, vortex};
use crate::peers::Served;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use vortex_p2p::downloader::transfer::MAX_DESCRIBED_PIECES;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::{NewTask, PieceStore as _, TaskKey};
use vortex_p2p::wire::{Division, PieceKind, PieceLength, TaskId};

/// A peer that has nothing of a task that it says is so long.
async fn liar(length: u64, piece_length: u64) -> (Served, String) {
    let served = Served::new(ServerSettings::default()).await;
    let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([5; 32]) };
    let division = Division::new(length, PieceLength::try_from(piece_length).unwrap()).unwrap();
    served.store.create(NewTask { key, division, digest: None }).await.unwrap();
    (served, key.id.to_string())
}

/// Bytes of the disk that a directory's files have.
fn blocks(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// What `get` holds of memory and disk when it has taken the peer's word and begins to ask for pieces, or has given up.
fn get(served: &Served, task: &str, directory: &Path) -> Held {
    let mut child = vortex()
        .args(["get", task, "--peer", &format!("tcp://{}", served.tcp), "--insecure", "--json", "-o"])
        .arg(directory.join("out"))
        // Others may have what this one lacks: it goes on to ask.
        .args(["--serve", "--quic", "127.0.0.1:0", "--tcp", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    let event = events.find(|event| event["event"] == "start" || event["event"] == "error").unwrap();
    // It has said its last word where it failed, and is still there or a zombie.
    let mut found = Held::default();
    if event["event"] == "start" {
        found = held(child.id());
    } else {
        assert_eq!(event["code"], "disk", "{event}");
    }
    found.disk = blocks(&directory.join(".out.vortex"));
    child.kill().unwrap();
    child.wait().unwrap();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_is_only_said_takes_neither_disk_nor_memory() {
    const MIB: u64 = 1 << 20;
    let mut honest = None;
    // The last one has as many pieces as are believed, and more bytes than most disks.
    for length in [MIB, 1 << 30, 4 << 30, MAX_DESCRIBED_PIECES * MIB] {
        let (served, task) = liar(length, MIB).await;
        let directory = tempfile::tempdir().unwrap();
        let found = tokio::task::block_in_place(|| get(&served, &task, directory.path()));
        println!("{length} bytes said: {} KiB of disk, {} KiB of memory", found.disk >> 10, found.peak >> 10);
        assert!(found.disk < 2 * MIB, "{} KiB of disk for {length} bytes", found.disk >> 10);
        let honest = *honest.get_or_insert(found.peak);
        assert!(found.peak < honest + 16 * MIB, "{} KiB of memory, not {}", found.peak >> 10, honest >> 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_pieces_than_anybody_has_are_not_believed() {
    // As many as there are numbers, each of a byte; and one more than are believed.
    for pieces in [1 << 32, MAX_DESCRIBED_PIECES + 1] {
        let (served, task) = liar(pieces, 1).await;
        let directory = tempfile::tempdir().unwrap();
        let (out, peer) = (directory.path().join("out"), format!("tcp://{}", served.tcp));
        let get = ["get", &task, "--peer", &peer, "--insecure", "--json", "-o", out.to_str().unwrap()];
        let got = tokio::task::block_in_place(|| run(&get));
        let error = last_object(&got);
        assert_eq!((got.status.code(), &error["code"]), (Some(5), &"corrupt".into()), "{error}");
        assert!(error["message"].as_str().unwrap().contains(&format!("{pieces} pieces")), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");
    }
}
