//! How a file arrives with `vortex get`: its digest as the pieces come, and pieces that have changed on the disk.

use crate::cli::{Serving, last_object, vortex};
use bytes::Bytes;
use std::sync::Arc;
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::store::disk::{DiskStore, OsDisk};
use vortex_p2p::store::{NewTask, ParentId, PieceStore as _, Provenance, TaskKey};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength};

const PIECE: usize = 16 << 10;
const PIECES: usize = 200;

struct Place {
    directory: tempfile::TempDir,
    content: Vec<u8>,
    serving: Serving,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..PIECE * PIECES - 5).map(|at| (at * 13 + at / 255) as u8).collect();
        let source = directory.path().join("source");
        std::fs::write(&source, &content).unwrap();
        let store = directory.path().join("store");
        let (source, store) = (source.to_str().unwrap(), store.to_str().unwrap());
        let serving = Serving::new(&[source, "--dir", store, "--piece-length", "16KiB"]);
        Self { directory, content, serving }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Fetches the file; returns the events, and the log.
    fn get(&self, more: &[&str]) -> (Vec<serde_json::Value>, String) {
        self.fetch(&self.content, more)
    }

    /// The same where a part of the file is wanted.
    fn fetch(&self, expected: &[u8], more: &[&str]) -> (Vec<serde_json::Value>, String) {
        let mut command = vortex();
        command.args(["get", self.serving.text("ticket"), "--json", "-o"]).arg(self.path("out")).args(more);
        let output = command.env("RUST_LOG", "vortex_p2p=debug").output().unwrap();
        let log = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(output.status.success(), "{log}");
        assert!(std::fs::read(self.path("out")).unwrap() == expected);
        let sha256 = Digest::of(Algorithm::Sha256, expected).to_string();
        assert_eq!(last_object(&output)["sha256"], sha256.strip_prefix("sha256:").unwrap());
        let text = String::from_utf8(output.stdout).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), log)
    }

    /// What a process leaves behind that is killed when it has all pieces but the last.
    async fn nearly_done(&self) {
        let disk = OsDisk::open(self.path(".out.vortex")).unwrap();
        let store = DiskStore::open(Arc::new(disk), Arc::new(TokioRuntime)).await.unwrap();
        let key = TaskKey { kind: PieceKind::Piece, id: self.serving.text("task").parse().unwrap() };
        let division =
            Division::new(self.content.len() as u64, PieceLength::try_from(PIECE as u64).unwrap()).unwrap();
        store.create(NewTask { key, division, digest: None }).await.unwrap();
        for (number, piece) in (0..).zip(self.content.chunks(PIECE)).take(PIECES - 1) {
            let mut writer = store.writer(key.piece(number)).await.unwrap();
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            let digest = Digest::of(Algorithm::Crc32, piece);
            let provenance = Provenance { digest, parent_id: ParentId::default(), cost: 0, created_at: 0 };
            writer.commit(provenance).await.unwrap();
        }
    }

    /// Changes bytes of what was left behind.
    fn damage(&self, places: [usize; 2]) {
        let mut names =
            std::fs::read_dir(self.path(".out.vortex")).unwrap().map(|entry| entry.unwrap().path());
        let file = names.find(|path| path.extension().is_some_and(|it| it == "content")).unwrap();
        let mut content = std::fs::read(&file).unwrap();
        for place in places {
            content[place] = !content[place];
        }
        std::fs::write(&file, content).unwrap();
    }
}

/// The numbers of the pieces that came, in their order.
fn fetched(events: &[serde_json::Value]) -> Vec<u64> {
    let pieces = events.iter().filter(|event| event["event"] == "piece");
    let mut pieces: Vec<_> = pieces.map(|event| event["piece"].as_u64().unwrap()).collect();
    pieces.sort_unstable();
    pieces
}

#[test]
fn the_digest_follows_the_pieces() {
    let place = Place::new();
    for more in [&["--concurrency", "1"][..], &["--concurrency", "4", "--protocol", "tcp"]] {
        let (_, log) = place.get(more);
        let told = log.lines().find(|line| line.contains("reads what is not in the digest yet")).unwrap();
        let ahead = told.split("ahead=").nth(1).unwrap().split_whitespace().next().unwrap();
        // How many they are is up to the machine. None would be: the whole file is read once more at the end.
        assert!(ahead.parse::<usize>().unwrap() > 0, "{told}");
    }
}

#[tokio::test]
async fn a_piece_that_has_changed_on_the_disk_meanwhile_is_fetched_again() {
    let place = Place::new();
    place.nearly_done().await;
    place.damage([3 * PIECE + 7, 150 * PIECE]);
    let (events, _) = place.get(&[]);
    assert_eq!(fetched(&events), [3, 150, PIECES as u64 - 1], "these are fetched, and no other");
    let done = events.last().unwrap();
    assert_eq!(done["resumed"], (PIECES - 1) * PIECE);
    assert_eq!(done["peers"][0]["pieces"], 3);
    assert!(!place.path(".out.vortex").exists());
}

#[tokio::test]
async fn a_part_of_a_file_has_no_piece_that_has_changed_on_the_disk() {
    let place = Place::new();
    place.nearly_done().await;
    // One within, one outside.
    place.damage([4 * PIECE + 7, 150 * PIECE]);
    let (from, to) = (3 * PIECE, 6 * PIECE + 9);
    let range = format!("{from}-{to}");
    let (events, _) = place.fetch(&place.content[from..=to], &["--range", &range]);
    assert_eq!(fetched(&events), [4], "the piece that is damaged, and no other");
}
