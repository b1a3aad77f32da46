//! What a server has done and has under way.

use super::Limit;
use crate::wire::PieceKind;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The figures of a server since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerStats {
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were let in.
    pub accepted: u64,
    /// QUIC handshakes under way.
    pub handshakes: u64,
    /// Answers under way.
    pub answers: u64,
    /// Bytes of content in memory for them.
    pub memory: u64,
    /// Bytes that the send windows of QUIC connections have beyond the least.
    pub windows: u64,
    /// By kind of piece.
    pub pieces: BTreeMap<PieceKind, PieceStats>,
    /// How often each limit made somebody wait or was a refusal.
    pub limits: BTreeMap<Limit, u64>,
    /// Error packets, and statuses of gRPC other than OK, that were sent.
    pub refused: u64,
}

/// What became of the answers with pieces of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PieceStats {
    /// Answers with a piece that were begun.
    pub begun: u64,
    /// Answers with a piece that were broken off.
    pub failed: u64,
    /// Bytes of content that were handed to the transports.
    pub bytes: u64,
}

/// The counters that only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pieces: [PieceCounters; PieceKind::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
}

#[derive(Debug, Default)]
pub(super) struct PieceCounters {
    pub(super) begun: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) bytes: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, more: u64) {
    // Nothing is decided by it.
    counter.fetch_add(more, Relaxed);
}

impl Counters {
    pub(super) fn limit(&self, limit: Limit) {
        let met = Limit::ALL.iter().zip(&self.limits).find(|(it, _)| **it == limit);
        met.into_iter().for_each(|(_, counter)| count(counter, 1));
    }

    pub(super) fn piece(&self, kind: PieceKind, change: impl Fn(&PieceCounters)) {
        let of_kind = PieceKind::ALL.iter().zip(&self.pieces).find(|(it, _)| **it == kind);
        of_kind.into_iter().for_each(|(_, counters)| change(counters));
    }

    pub(super) fn snapshot(&self) -> ServerStats {
        let pieces = PieceKind::ALL.into_iter().zip(&self.pieces).map(|(kind, counters)| {
            let PieceCounters { begun, failed, bytes } = counters;
            let [begun, failed, bytes] = [begun, failed, bytes].map(|counter| counter.load(Relaxed));
            (kind, PieceStats { begun, failed, bytes })
        });
        ServerStats {
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            pieces: pieces.collect(),
            limits: Limit::ALL
                .into_iter()
                .zip(&self.limits)
                .map(|(limit, counter)| (limit, counter.load(Relaxed)))
                .collect(),
            ..ServerStats::default()
        }
    }
}
