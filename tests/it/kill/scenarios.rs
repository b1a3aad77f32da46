//! What is killed, and what has to hold afterwards.

use super::trace::{Cut, Ended, Points, run};
use crate::cli::Serving;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vortex_p2p::runtime::TokioRuntime;
use vortex_p2p::store::disk::{DiskStore, OsDisk};
use vortex_p2p::store::{Manifest, PieceStore as _};

const VORTEX: &str = env!("CARGO_BIN_EXE_vortex");

/// Which points are tried: every one, or one of so many, beginning at the first.
#[derive(Clone, Copy)]
struct Every(usize);

/// Kills `command` at one point after the other, until it lives, and looks at what each left behind.
fn at_every_call(every: Every, mut command: impl FnMut(Option<Cut>) -> Ended) -> Points {
    let mut points = Points::default();
    for at in (1..).step_by(every.0) {
        let mut lived = true;
        for cut in [Cut::Before(at), Cut::Within(at)] {
            if let Some(call) = command(Some(cut)).killed_at {
                points.count(call);
                lived = false;
            }
        }
        if lived {
            break;
        }
    }
    points
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 253) as u8).collect()
}

/// A directory with a file to import.
struct Place {
    directory: tempfile::TempDir,
    content: Vec<u8>,
}

impl Place {
    fn new(length: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let content = content(length);
        fs::write(directory.path().join("source"), &content).unwrap();
        Self { directory, content }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// What is beside the source; for a killed process to leave something behind is no crime, for one that is done it is.
    fn names(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Opens the store, as a new process does, and reads all that it would serve. Returns how many pieces that are, by task.
fn read_all(store: &str, content: &[u8]) -> Vec<(String, u64, bool)> {
    if !Path::new(store).exists() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let disk = OsDisk::open(store).unwrap();
        let store = DiskStore::open(Arc::new(disk), Arc::new(TokioRuntime)).await.unwrap();
        let mut found = Vec::new();
        for task in store.tasks().await.unwrap() {
            let held = store.held(task.key).await.unwrap();
            assert_eq!(held.len(), task.held);
            for number in &held {
                let piece = store.piece(task.key.piece(number)).await.unwrap();
                let (from, length) = (piece.span.offset as usize, u64::from(piece.span.length) as usize);
                let bytes = piece.content.read(0, length).await.unwrap();
                assert!(bytes[..] == content[from..from + length], "piece {number} is another");
                piece.verify().await.unwrap();
            }
            found.push((task.key.id.to_string(), task.held, task.is_complete()));
        }
        found
    })
}

fn imports(every: Every) -> Points {
    let place = Place::new(300_000);
    let (source, store, manifest) = (place.path("source"), place.path("store"), place.path("task.json"));
    let arguments =
        ["import", &source, "--dir", &store, "--piece-length", "64KiB", "--manifest", &manifest, "--json"];
    at_every_call(every, |cut| {
        let _ = fs::remove_dir_all(&store);
        let _ = fs::remove_file(&manifest);
        let ended = run(VORTEX, &arguments, cut);
        let found = read_all(&store, &place.content);
        assert!(found.iter().all(|(_, _, whole)| *whole), "{cut:?}: an import is there whole or not at all");
        if ended.stdout.ends_with('\n') {
            assert_eq!(found.len(), 1, "{cut:?}: the task was acknowledged");
        }
        if Path::new(&manifest).exists() {
            let manifest = Manifest::read(fs::File::open(&manifest).unwrap());
            let manifest = manifest.unwrap_or_else(|error| panic!("{cut:?}, {:?}: {error}", ended.killed_at));
            assert_eq!(manifest.pieces().len(), 5);
            assert_eq!(found.len(), 1, "{cut:?}: the manifest names a task that is not here");
        }
        let again = run(VORTEX, &arguments, None);
        assert_eq!(again.code, Some(0), "{cut:?}: {}", again.stdout);
        let found = read_all(&store, &place.content);
        assert!(matches!(&found[..], [(_, 5, true)]), "{cut:?}: {found:?}");
        Manifest::read(fs::File::open(&manifest).unwrap()).unwrap();
        let contents = fs::read_dir(&store).unwrap().filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            Path::new(&name).extension().is_some_and(|end| end == "content")
        });
        assert_eq!(contents.count(), 1, "{cut:?}: a content file that nobody knows was left");
        assert_eq!(place.names(), ["source", "store", "task.json"].map(str::to_owned).into(), "{cut:?}");
        ended
    })
}

/// The pieces that `get` said are here for good.
fn acknowledged(stdout: &str) -> BTreeSet<u64> {
    // A line that was cut by the kill was not heard.
    let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["event"] == "piece").map(|event| event["piece"].as_u64().unwrap()).collect()
}

/// What `get` may leave behind when it is killed, and what the next one makes of it.
fn downloads(every: Every, begin: impl Fn(&Path)) -> Points {
    let place = Place::new(300_000);
    let serving =
        Serving::new(&[&place.path("source"), "--dir", &place.path("store"), "--piece-length", "64KiB"]);
    let (out, staging) = (place.path("out"), PathBuf::from(place.path(".out.vortex")));
    let arguments = ["get", serving.text("ticket"), "-o", &out, "--json", "--concurrency", "2"];
    let points = at_every_call(every, |cut| {
        let _ = fs::remove_file(&out);
        let _ = fs::remove_dir_all(&staging);
        begin(&staging);
        let ended = run(VORTEX, &arguments, cut);
        let whole = || fs::read(&out).unwrap() == place.content;
        if Path::new(&out).exists() {
            assert!(whole(), "{cut:?}, {:?}: a partial file", ended.killed_at);
        } else {
            assert!(!ended.stdout.contains(r#""event":"done""#), "{cut:?}: it said that it was done");
            // Only where it was killed while it cleaned up, the pieces are in the file, and no longer in the store.
            let heard = acknowledged(&ended.stdout);
            let again = run(VORTEX, &arguments, None);
            let twice: Vec<_> = acknowledged(&again.stdout).intersection(&heard).copied().collect();
            assert!(twice.is_empty(), "{cut:?}, {:?}: fetched again: {twice:?}", ended.killed_at);
            assert_eq!(again.code, Some(0), "{cut:?}: {}", again.stdout);
        }
        // Once more, over whatever there is by now.
        let again = run(VORTEX, &arguments, None);
        assert_eq!(again.code, Some(0), "{cut:?}: {}", again.stdout);
        assert!(whole());
        assert_eq!(place.names(), ["out", "source", "store"].map(str::to_owned).into(), "{cut:?}");
        ended
    });
    drop(serving);
    points
}

/// A download that was killed half way, to be gone on with.
fn half_a_download() -> tempfile::TempDir {
    let place = Place::new(300_000);
    let serving =
        Serving::new(&[&place.path("source"), "--dir", &place.path("store"), "--piece-length", "64KiB"]);
    let arguments = ["get", serving.text("ticket"), "-o", &place.path("out"), "--json", "--concurrency", "1"];
    for at in 1.. {
        let ended = run(VORTEX, &arguments, Some(Cut::Before(at)));
        assert!(ended.killed_at.is_some(), "it was done before two pieces were heard of");
        if acknowledged(&ended.stdout).len() == 2 {
            break;
        }
        let _ = fs::remove_dir_all(place.path(".out.vortex"));
    }
    let kept = tempfile::tempdir().unwrap();
    copy(Path::new(&place.path(".out.vortex")), kept.path());
    kept
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// `serve` makes a certificate that tickets pin: killed at any moment, it has to start again, and its ticket to hold.
fn servers(every: Every) -> Points {
    let place = Place::new(1000);
    let (source, store, out) = (place.path("source"), place.path("store"), place.path("out"));
    let arguments = ["serve", &source, "--dir", &store, "--quic", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
    at_every_call(every, |cut| {
        let _ = fs::remove_dir_all(&store);
        let _ = fs::remove_file(&out);
        let ended = run(VORTEX, &arguments, cut);
        let serving = Serving::new(&["--dir", &store, &source]);
        let told = ended.stdout.strip_prefix("READY ").filter(|line| line.ends_with('\n'));
        if let Some(told) = told {
            let told: serde_json::Value = serde_json::from_str(told).unwrap();
            let pin = |ticket: &str| ticket.split('/').nth(3).unwrap().to_owned();
            assert_eq!(pin(told["ticket"].as_str().unwrap()), pin(serving.text("ticket")), "{cut:?}");
        }
        let got = run(VORTEX, &["get", serving.text("ticket"), "-o", &out], None);
        assert_eq!(got.code, Some(0), "{cut:?}");
        assert!(fs::read(&out).unwrap() == place.content);
        ended
    })
}

#[test]
fn a_sample_of_kills() {
    for points in [imports(Every(13)), downloads(Every(31), |_| {}), servers(Every(17))] {
        assert!(points.total() > 5, "{points}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn an_import_killed_at_every_call() {
    let points = imports(Every(1));
    println!("import: {points}");
    for call in ["openat", "fallocate", "pwrite64", "write", "fdatasync", "fsync", "rename"] {
        assert!(points.calls().contains(call), "{points}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_download_killed_at_every_call() {
    let points = downloads(Every(1), |_| {});
    println!("get: {points}");
    for call in ["openat", "ftruncate", "pwrite64", "write", "fdatasync", "fsync", "rename", "unlinkat"] {
        assert!(points.calls().contains(call), "{points}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_recovery_killed_at_every_call() {
    let half = half_a_download();
    println!("get, going on: {}", downloads(Every(1), |staging| copy(half.path(), staging)));
}

#[test]
#[ignore = "takes minutes"]
fn a_server_killed_at_every_call() {
    println!("serve: {}", servers(Every(1)));
}
