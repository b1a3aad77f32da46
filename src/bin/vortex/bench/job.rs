//! What the measuring process and its two workers tell each other, one JSON object a line.

use super::side::Side;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the server has the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    /// In a file that is in the page cache; Vortex has it in its store on the disk
    File,
    /// In memory
    Memory,
}

/// Where the client has it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    /// Nowhere. Vortex verifies it all the same
    Discard,
    /// Into a file, which is not synced
    File,
}

/// Which of the two workers, and what only it has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    Server,
    Client { server: SocketAddr },
}

/// All that a worker has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(super) role: Role,
    pub(super) side: Side,
    /// Has `content`, the `store` with the same in it, and takes what the client writes.
    pub(super) dir: PathBuf,
    pub(super) length: u64,
    pub(super) piece_length: u64,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) concurrency: u32,
    pub(super) connections: u32,
    pub(super) idle: u32,
    pub(super) threads: usize,
    pub(super) datagram: Option<u16>,
}

impl Job {
    pub(super) fn content(&self) -> PathBuf {
        self.dir.join("content")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    pub(super) fn received(&self) -> PathBuf {
        self.dir.join("received")
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Usage {
    /// Seconds of processor time, in user space and in the kernel.
    pub(super) cpu: f64,
    /// KiB in memory now.
    pub(super) resident: u64,
    /// KiB in memory at most.
    pub(super) peak: u64,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// The server listens.
    Listening(SocketAddr),
    /// The server was asked.
    Usage(Usage),
    /// The client has its idle connections and waits for a line to begin.
    Ready,
    /// The client has the content.
    Done(Transfer),
    Failed(String),
}

/// What the client saw.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Transfer {
    /// Content bytes that arrived.
    pub(super) bytes: u64,
    /// From the first dial to the last byte.
    pub(super) seconds: f64,
    /// From the first dial to the first content byte, where that is known.
    pub(super) first_byte: Option<f64>,
    /// From a piece's request to its end, the median and the 99th percentile.
    pub(super) piece_p50: f64,
    pub(super) piece_p99: f64,
    /// Of the client; its processor time is that of the transfer alone.
    pub(super) usage: Usage,
}
