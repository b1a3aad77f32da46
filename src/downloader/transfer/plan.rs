//! Which piece is asked of whom next. No I/O, no clock: time is an argument.
//!
//! A peer is worth what it delivers: each free place goes to the peer that would be done first, judged by its rate so far
//! and by what it has to do already. So a slow peer gets little, and a dead one is left alone for longer each time. What
//! a peer has that lies or lacks a piece is asked of others first. At the end, when nothing is left to begin, a piece
//! that drags on at one peer is taken over by another that would be done much earlier.

use crate::store::PieceSet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A peer's place in the list that the plan was made with.
pub type PeerIndex = usize;

/// How the pieces of a task are spread over peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanSettings {
    /// Pieces under way at a time, at all peers together. 8, as deployed (`concurrentPieceCount`).
    pub concurrency: usize,
    /// Failures in a row after which a peer is given up. Between two of them the pause doubles from 100 ms to 5 s, so
    /// that a restarting peer is found again.
    pub attempts: u32,
    /// How long to go on asking for pieces that no peer has. A peer that is fetching them itself may have them soon.
    pub patience: Duration,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { concurrency: 8, attempts: 6, patience: Duration::ZERO }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask a peer for a piece. Where another is at it, that request is given up first: its progress is lost, and little.
    Ask {
        /// Whom.
        peer: PeerIndex,
        /// For which piece.
        piece: u32,
        /// Who is at it.
        instead_of: Option<PeerIndex>,
    },
    /// Nothing before a request ends, or this moment comes.
    Wait(Option<Instant>),
    /// Every piece is here.
    Done,
    /// No peer is left that could give this piece.
    Stuck(u32),
}

/// Why a request failed, as far as the plan is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer does not have the piece.
    Lacks,
    /// What it sent is not the piece: content, length or kind.
    Lied,
    /// It can't be reached, broke off, was too slow, or is busy.
    Failed,
    /// It will not serve this client, whatever is asked.
    Refused,
}

/// Answers that were not the piece, after which a peer is not asked for anything any more.
const STRIKES: u32 = 3;

/// How often peers are asked again for a piece that they lacked.
const ASK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Clone)]
struct Peer {
    /// Bytes a second, of all its requests together, averaged; `None` before its first piece.
    rate: Option<f64>,
    in_flight: usize,
    failures: u32,
    strikes: u32,
    gone: bool,
    /// Not to be asked before.
    pause: Option<Instant>,
}

impl Peer {
    fn is_able(&self, now: Instant) -> bool {
        !self.gone && self.pause.is_none_or(|pause| pause <= now)
    }
}

#[derive(Debug)]
struct Flight {
    peer: PeerIndex,
    since: Instant,
    received: u64,
}

/// The state of a transfer of `pieces`.
#[derive(Debug)]
pub struct Plan {
    settings: PlanSettings,
    peers: Vec<Peer>,
    /// Not begun.
    waiting: PieceSet,
    /// Where to look next in `waiting`, so that pieces go out in order, from a start of its own.
    cursor: u32,
    flights: BTreeMap<u32, Flight>,
    /// Who should not be asked for a piece, as long as there are others.
    avoid: BTreeMap<u32, BTreeSet<PeerIndex>>,
    /// When the avoided may be asked again, and since when nobody could be asked.
    lacking: Option<(Instant, Instant)>,
    piece_length: u64,
}

impl Plan {
    /// A plan to get the pieces in `missing`, of `piece_length` bytes each, from `peers` peers, beginning at `first`.
    #[must_use]
    pub fn new(
        settings: PlanSettings,
        peers: usize,
        missing: PieceSet,
        piece_length: u64,
        first: u32,
    ) -> Self {
        Self {
            settings,
            peers: vec![Peer::default(); peers],
            waiting: missing,
            cursor: first,
            flights: BTreeMap::new(),
            avoid: BTreeMap::new(),
            lacking: None,
            piece_length: piece_length.max(1),
        }
    }

    /// What to do at `now`. [`Next::Ask`] counts as done.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.waiting.is_empty() && self.flights.is_empty() {
            return Next::Done;
        }
        if self.flights.len() < self.settings.concurrency.max(1) {
            match self.next_waiting(now) {
                Some((peer, piece)) => {
                    self.lacking = None;
                    self.begin(peer, piece, now);
                    return Next::Ask { peer, piece, instead_of: None };
                }
                None if self.waiting.is_empty() => {
                    if let Some((peer, piece, slow)) = self.takeover(now) {
                        self.end_flight(piece);
                        self.begin(peer, piece, now);
                        return Next::Ask { peer, piece, instead_of: Some(slow) };
                    }
                }
                None => return self.nobody(now),
            }
        }
        // A takeover becomes due with time alone.
        let endgame = self.waiting.is_empty() && self.peers.len() > 1;
        Next::Wait(endgame.then(|| now + ASK_AGAIN))
    }

    /// `bytes` more of a piece are here.
    pub fn progress(&mut self, piece: u32, bytes: u64) {
        if let Some(flight) = self.flights.get_mut(&piece) {
            flight.received += bytes;
        }
    }

    /// A piece is here, verified and stored.
    pub fn completed(&mut self, piece: u32, now: Instant) {
        let Some(flight) = self.end_flight(piece) else { return };
        self.avoid.remove(&piece);
        let Some(peer) = self.peers.get_mut(flight.peer) else { return };
        peer.failures = 0;
        peer.pause = None;
        // The others that were under way shared the time, so this piece stands for all of them.
        let share = (peer.in_flight + 1) as f64;
        let seconds = now.saturating_duration_since(flight.since).as_secs_f64().max(1e-6);
        let rate = flight.received.max(1) as f64 * share / seconds;
        peer.rate = Some(peer.rate.map_or(rate, |before| before + (rate - before) * 0.3));
    }

    /// A request ended without its piece. Whether the peer is given up.
    pub fn failed(&mut self, piece: u32, fault: Fault, now: Instant) -> bool {
        let Some(flight) = self.end_flight(piece) else { return false };
        self.waiting.insert(piece);
        let settings = self.settings;
        let Some(peer) = self.peers.get_mut(flight.peer) else { return false };
        match fault {
            Fault::Lacks => {
                peer.failures = 0;
                self.avoid.entry(piece).or_default().insert(flight.peer);
            }
            //= VTX-SEC-008
            Fault::Lied => {
                peer.strikes += 1;
                peer.gone |= peer.strikes >= STRIKES;
                self.avoid.entry(piece).or_default().insert(flight.peer);
            }
            Fault::Refused => peer.gone = true,
            Fault::Failed => {
                peer.failures += 1;
                peer.gone |= peer.failures >= settings.attempts;
                let pause = Duration::from_millis(100) * 2u32.pow((peer.failures - 1).min(6));
                peer.pause = Some(now + pause.min(Duration::from_secs(5)));
                // Its rate says nothing any more.
                peer.rate = peer.rate.map(|rate| rate / 2.0);
            }
        }
        peer.gone
    }

    /// How many pieces are neither here nor under way.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.len()
    }

    fn begin(&mut self, peer: PeerIndex, piece: u32, now: Instant) {
        self.waiting.remove(piece);
        self.cursor = piece.wrapping_add(1);
        self.flights.insert(piece, Flight { peer, since: now, received: 0 });
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.in_flight += 1;
        }
    }

    fn end_flight(&mut self, piece: u32) -> Option<Flight> {
        let flight = self.flights.remove(&piece)?;
        if let Some(peer) = self.peers.get_mut(flight.peer) {
            peer.in_flight -= 1;
        }
        Some(flight)
    }

    /// A piece that is to be begun, and who is to give it.
    fn next_waiting(&mut self, now: Instant) -> Option<(PeerIndex, u32)> {
        // Without exceptions the first piece will do. With them, every piece that somebody can't give is looked at, and
        // one that nobody can give now is passed over.
        let from = self.cursor;
        let ahead = self.waiting.range(from..).chain(self.waiting.range(..from));
        for piece in ahead.take(self.avoid.len() + 1) {
            if let Some(peer) = self.best(piece, now) {
                return Some((peer, piece));
            }
        }
        None
    }

    /// Who would be done first with one more piece.
    fn best(&self, piece: u32, now: Instant) -> Option<PeerIndex> {
        let avoided = self.avoid.get(&piece);
        let able = self.peers.iter().enumerate().filter(|(index, peer)| {
            peer.is_able(now) && !avoided.is_some_and(|avoided| avoided.contains(index))
        });
        able.min_by(|(_, a), (_, b)| self.estimate(a).total_cmp(&self.estimate(b))).map(|(index, _)| index)
    }

    /// Seconds until a peer would have delivered one more piece. One that has not shown its rate yet is taken to be as
    /// good as the best, until it has something to show.
    fn estimate(&self, peer: &Peer) -> f64 {
        let best = self.peers.iter().filter_map(|peer| peer.rate).fold(1.0, f64::max);
        let load = (peer.in_flight + 1) as f64;
        load * self.piece_length as f64 / peer.rate.unwrap_or(best).max(1.0)
    }

    /// A piece that drags on, and who would have it much earlier.
    fn takeover(&self, now: Instant) -> Option<(PeerIndex, u32, PeerIndex)> {
        /// By how much the other has to be faster: a piece that is taken over begins anew.
        const FACTOR: f64 = 2.0;
        /// Below it, nothing is won that anybody would notice.
        const NOTICEABLE: f64 = 0.2;
        let late = self.flights.iter().filter_map(|(piece, flight)| {
            let elapsed = now.saturating_duration_since(flight.since).as_secs_f64();
            let rate = flight.received as f64 / elapsed.max(1e-6);
            let left = self.piece_length.saturating_sub(flight.received) as f64 / rate.max(1.0);
            let peer = self.best(*piece, now).filter(|peer| *peer != flight.peer)?;
            let state = self.peers.get(peer)?;
            // Only on proof: a peer that has delivered before.
            state.rate?;
            let other = self.estimate(state);
            // At the begin of a request its rate says nothing; by then the other could have delivered.
            let is_late = elapsed > other * FACTOR && left > other * FACTOR && left > NOTICEABLE;
            is_late.then_some((peer, *piece, flight.peer, left))
        });
        late.max_by(|a, b| a.3.total_cmp(&b.3)).map(|(peer, piece, slow, _)| (peer, piece, slow))
    }

    /// Nobody can be asked for what is waiting: wait for somebody, or give up.
    fn nobody(&mut self, now: Instant) -> Next {
        let first = self.waiting.min().unwrap_or_default();
        let alive = self.peers.iter().filter(|peer| !peer.gone);
        let pause = alive.clone().filter_map(|peer| peer.pause).filter(|pause| *pause > now).min();
        if alive.clone().next().is_none() {
            return if self.flights.is_empty() { Next::Stuck(first) } else { Next::Wait(None) };
        }
        // Somebody who is not avoided comes back after a pause.
        let comes_back = self.waiting.iter().take(self.avoid.len() + 1).any(|piece| {
            let avoided = self.avoid.get(&piece);
            self.peers
                .iter()
                .enumerate()
                .any(|(index, peer)| !peer.gone && !avoided.is_some_and(|avoided| avoided.contains(&index)))
        });
        if comes_back {
            self.lacking = None;
            return Next::Wait(pause);
        }
        // Everybody is avoided: after a while the best of a bad lot is asked again.
        let (again, since) = *self.lacking.get_or_insert((now + ASK_AGAIN, now));
        if now >= again {
            if now.saturating_duration_since(since) > self.settings.patience {
                return if self.flights.is_empty() { Next::Stuck(first) } else { Next::Wait(None) };
            }
            self.lacking = Some((now + ASK_AGAIN, since));
            self.avoid.clear();
            return self.next_or_wait(now);
        }
        if self.settings.patience.is_zero() && self.flights.is_empty() {
            return Next::Stuck(first);
        }
        Next::Wait(Some(again))
    }

    fn next_or_wait(&mut self, now: Instant) -> Next {
        match self.next_waiting(now) {
            Some((peer, piece)) => {
                self.begin(peer, piece, now);
                Next::Ask { peer, piece, instead_of: None }
            }
            None => Next::Wait(Some(now + ASK_AGAIN)),
        }
    }
}
