//! A `vortex serve` process, and what it holds of the machine.

use crate::cli::Serving;
use std::net::SocketAddr;
use std::path::Path;
use vortex_p2p::downloader::{Peer, Protocol};
use vortex_p2p::store::TaskKey;
use vortex_p2p::wire::{PieceKind, TaskId};

/// Bytes of a piece that honest clients ask for.
pub(super) const PIECE: usize = 256 << 10;

/// A server with tasks of several sizes.
pub(super) struct Victim {
    serving: Serving,
    directory: tempfile::TempDir,
    /// By size, as [`SIZES`] has them.
    pub(super) tasks: Vec<TaskKey>,
    pub(super) contents: Vec<Vec<u8>>,
    /// Pieces have this length.
    piece: usize,
}

/// Bytes of the tasks.
pub(super) const SIZES: [usize; 4] = [1, 100_000, 3 << 20, 16 << 20];

/// What a process holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// Bytes of memory now, and the most since the last [`Victim::forget_peak`].
    pub(super) resident: u64,
    pub(super) peak: u64,
    pub(super) descriptors: usize,
    pub(super) threads: u64,
    /// Bytes of its store.
    pub(super) disk: u64,
}

impl Victim {
    /// Its pieces have `piece` bytes.
    pub(super) fn new(piece: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut contents = Vec::new();
        for (number, size) in SIZES.iter().enumerate() {
            let content: Vec<u8> = (0..*size).map(|at| (at * 31 + at / 251 + number) as u8).collect();
            std::fs::write(directory.path().join(number.to_string()), &content).unwrap();
            contents.push(content);
        }
        let mut victim =
            Self { serving: serve(directory.path(), piece), directory, tasks: Vec::new(), contents, piece };
        // The files that were named come first, in their order.
        victim.tasks = victim.serving.tasks().map(key).collect();
        assert_eq!(victim.tasks.len(), SIZES.len());
        victim
    }

    /// Stops the server by a signal, as an operator does, and starts another one on the same store.
    pub(super) fn restart(&mut self) {
        assert!(self.serving.terminate().success(), "a server that is asked to stop has no reason to fail");
        self.serving = serve(self.directory.path(), self.piece);
    }

    pub(super) fn address(&self, protocol: Protocol) -> SocketAddr {
        self.serving.text(protocol.name()).parse().unwrap()
    }

    pub(super) fn peer(&self, protocol: Protocol) -> Peer {
        Peer::new(protocol, self.address(protocol))
    }

    /// The bytes of piece `number` of a task.
    pub(super) fn piece(&self, task: usize, number: u32) -> &[u8] {
        let from = number as usize * self.piece;
        &self.contents[task][from..self.contents[task].len().min(from + self.piece)]
    }

    pub(super) fn held(&self) -> Held {
        let store = std::fs::read_dir(self.directory.path().join("store")).unwrap();
        let disk = store.map(|entry| entry.unwrap().metadata().map_or(0, |entry| entry.len())).sum();
        Held { disk, ..held(self.serving.pid()) }
    }

    /// The names in the directory of its store.
    pub(super) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("store")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// From now on the peak is counted anew.
    pub(super) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.serving.pid()), "5").unwrap();
    }
}

/// What a process holds, but for its store.
pub(super) fn held(pid: u32) -> Held {
    let process = format!("/proc/{pid}");
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    Held {
        resident: number("VmRSS:") << 10,
        peak: number("VmHWM:") << 10,
        descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
        threads: number("Threads:"),
        disk: 0,
    }
}

fn serve(directory: &Path, piece: usize) -> Serving {
    let files: Vec<_> = (0..SIZES.len()).map(|number| directory.join(number.to_string())).collect();
    let store = directory.join("store");
    let length = piece.to_string();
    let mut arguments = vec!["--insecure", "--dir", store.to_str().unwrap(), "--piece-length", &length];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    Serving::new(&arguments)
}

fn key(id: &str) -> TaskKey {
    TaskKey { kind: PieceKind::Piece, id: id.parse::<TaskId>().unwrap() }
}
