//! How a transfer goes about it, for whoever starts one.

use std::time::Duration;

/// How the pieces of a task are spread over peers, and how these are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanSettings {
    /// Requests under way at a time, at all peers together; at least 1. 8, as deployed (`concurrentPieceCount`).
    /// One from which nothing has come for two seconds does not count: a peer that dies must not keep the others from being
    /// asked until its requests stall.
    pub concurrency: usize,
    /// Requests under way with one peer at most. How many it really gets follows from its rate and its round trip.
    ///
    /// 8: as much as one peer is ever worth.
    pub per_peer: usize,
    /// Failures in a row after which a peer is given up; at least 1. Those of requests that were under way together count
    /// once.
    ///
    /// 6: with the pauses between them a peer has about 8 s to come back, and as much again as its deadlines take.
    pub attempts: u32,
    /// The pause after a peer's first failure; it doubles with each further one.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Silence of a peer in the middle of its answer, or before it, after which the piece is fetched anew.
    ///
    /// 31 s, a little longer than the first-byte deadline, so that it is this one which ends a request without an answer, and
    /// tells the peer why: no path is silent for so long and then worth waiting for.
    pub stall: Duration,
    /// Bytes of pieces that are fetched a second time, in memory until it is clear which answer is first.
    ///
    /// 128 MiB, two of the largest pieces that deployed peers cut. One piece may always be.
    pub spare_memory: u64,
    /// How long to go on asking for pieces that no peer has. A peer that is fetching them itself may have them soon.
    pub patience: Duration,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            concurrency: 8,
            per_peer: 8,
            attempts: 6,
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(10),
            stall: Duration::from_secs(31),
            spare_memory: 128 << 20,
            patience: Duration::ZERO,
        }
    }
}

impl PlanSettings {
    /// The pause after so many failures in a row.
    pub(in crate::downloader::transfer) fn pause_after(&self, failures: u32) -> Duration {
        self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_pause)
    }
}
