//! Which peer is asked for which piece, and when: no I/O, and time is an argument.
//!
//! A *flight* is one request under way. Each free peer is given the next piece that nobody has yet, the peer first that
//! will deliver it first by what it has delivered so far. Where peers tell what they hold, it is the piece that fewest of
//! them hold, so that none becomes rare. Who fails is left alone for a while, twice as long each time, and in the end for
//! good. Once every piece is in flight, those that are late are asked for a second time elsewhere.

mod peer;
mod settings;
#[cfg(test)]
mod simulated;

pub use settings::PlanSettings;

use crate::store::PieceSet;
use crate::wire::Division;
use peer::{ASSUMED_LATENCY, Peer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A peer's place in the list of those who are asked.
pub type PeerIndex = usize;

/// Answers that a peer may give wrongly before it is given up: one may be an accident of the network.
const LIES: u32 = 3;
/// How often a peer is asked for a piece that it does not have: it may be fetching it just now.
const MISSES: u32 = 3;
/// How often a peer is asked for a piece that it answered wrongly.
const LIES_PER_PIECE: u32 = 2;
/// Missing pieces in a row after which a peer is asked more slowly, and, after as many more as it has attempts, no more.
const MISSES_IN_A_ROW: u32 = 8;
/// The longest pause before somebody who lacked a piece is asked for it again: by then it may have it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often late answers are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Silence after which a request is no longer waited for before others are made.
const SILENT: Duration = Duration::from_secs(2);
/// Pieces among which the rarest is looked for: more of them would cost time in long tasks, and hardly find a rarer one.
const CANDIDATES: usize = 64;

/// In which order pieces go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The lowest number first.
    Ascending,
    /// What fewest peers hold first, and by chance, that of this number, among those that are alike: so many that fetch the
    /// same at once soon have something for each other.
    Rarest(u64),
}

/// Why a request failed, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer does not have the piece.
    Missing,
    /// The peer answered wrongly.
    Lie,
    /// The answer broke off.
    Broken,
    /// The peer, or the way to it, failed.
    Failed,
    /// The peer will never be of use: it is refused, or can't be spoken to.
    Useless,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask `peer` for piece `number`. A `spare` answer stays in memory.
    Ask { flight: u64, peer: PeerIndex, number: u32, spare: bool },
    /// Give up a flight: its peer has gone silent.
    Stalled { flight: u64 },
    /// Nothing before this time, or before something happens.
    Wait(Option<Instant>),
    /// Nobody is left who could deliver what is missing.
    /// This piece is the first of it.
    Stuck(u32),
    /// Every piece is there.
    Done,
}

/// How a peer stands after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is asked as before.
    Good,
    /// It is not asked before this time.
    Paused(Instant),
    /// It is not asked any more.
    GivenUp,
}

#[derive(Debug)]
struct Flight {
    peer: usize,
    number: u32,
    spare: bool,
    length: u64,
    asked_at: Instant,
    answered: bool,
    received: u64,
    progressed_at: Instant,
    /// Whether this is the answer that counts, and it is being made durable.
    won: bool,
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    misses: u32,
    lies: u32,
    /// Whether an answer was rejected, for whatever reason.
    rejected: bool,
    since: Instant,
    until: Instant,
}

impl Trouble {
    fn is_final(&self, patience: Duration) -> bool {
        let patient = self.until.saturating_duration_since(self.since) < patience;
        self.misses >= MISSES && !patient || self.lies >= LIES_PER_PIECE
    }
}

/// The state of a transfer.
#[derive(Debug)]
pub(crate) struct Plan {
    settings: PlanSettings,
    division: Division,
    /// Pieces that are neither there nor in flight.
    waiting: PieceSet,
    order: Order,
    /// When anything was last heard of that helps: a piece that came, or one that a peer has got.
    news_at: Option<Instant>,
    peers: Vec<Peer>,
    flights: BTreeMap<u64, Flight>,
    /// What went wrong with a piece at a peer.
    troubles: BTreeMap<u32, BTreeMap<usize, Trouble>>,
    next_flight: u64,
    spare_bytes: u64,
}

impl Plan {
    /// A plan to get the pieces in `missing` in some order, from peers of which it is known whether there are several ways
    /// to them.
    pub(crate) fn new(
        settings: PlanSettings,
        division: Division,
        missing: PieceSet,
        peers: impl IntoIterator<Item = bool>,
        order: Order,
    ) -> Self {
        Self {
            settings,
            division,
            waiting: missing,
            order,
            news_at: None,
            peers: peers.into_iter().map(|several_ways| Peer { several_ways, ..Peer::default() }).collect(),
            flights: BTreeMap::new(),
            troubles: BTreeMap::new(),
            next_flight: 0,
            spare_bytes: 0,
        }
    }

    /// Pieces that are not there yet.
    pub(crate) fn missing(&self) -> u64 {
        let flying: PieceSet = self.flights.values().map(|flight| flight.number).collect();
        self.waiting.len() + flying.len()
    }

    /// Requests of which something is to be expected.
    fn under_way(&self, now: Instant) -> usize {
        let expected = |flight: &&Flight| flight.won || now < flight.progressed_at + SILENT;
        self.flights.values().filter(expected).count()
    }

    /// What to do at `now`; to be called until it says to wait, or that it is over.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        self.news_at.get_or_insert(now);
        if let Some(flight) = self.stalled(now) {
            return Step::Stalled { flight };
        }
        if self.under_way(now) < self.settings.concurrency.max(1)
            && let Some((peer, number, spare)) = self.assign(now).or_else(|| self.spare(now))
        {
            return self.ask(peer, number, spare, now);
        }
        if self.waiting.is_empty() && self.flights.is_empty() {
            return Step::Done;
        }
        match self.wake(now) {
            None if self.flights.is_empty() => Step::Stuck(self.waiting.min().unwrap_or_default()),
            wake => Step::Wait(wake),
        }
    }

    fn ask(&mut self, peer: usize, number: u32, spare: bool, now: Instant) -> Step {
        let length = self.division.piece(number).map_or(0, |span| span.length.into());
        let flight = self.next_flight;
        self.next_flight += 1;
        self.waiting.remove(number);
        self.spare_bytes += if spare { length } else { 0 };
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.sampled_from.get_or_insert(now);
            peer.in_flight += 1;
        }
        let (answered, received, won) = (false, 0, false);
        let new = Flight {
            peer,
            number,
            spare,
            length,
            asked_at: now,
            answered,
            received,
            progressed_at: now,
            won,
        };
        self.flights.insert(flight, new);
        Step::Ask { flight, peer, number, spare }
    }

    /// The peer that will deliver first, with the piece that it is to be asked for.
    fn assign(&self, now: Instant) -> Option<(usize, u32, bool)> {
        if self.waiting.is_empty() {
            return None;
        }
        let free = (0..).zip(&self.peers).filter(|(_, peer)| self.is_free(peer, now));
        let eta = |peer: &Peer| peer.eta(self.usual_length()).unwrap_or(0.0);
        let mut free: Vec<(usize, f64, u64)> =
            free.map(|(index, peer)| (index, eta(peer), self.draw(index as u64))).collect();
        free.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.cmp(&b.2)));
        free.into_iter().find_map(|(peer, ..)| Some((peer, self.pick(peer, now)?, false)))
    }

    /// The piece that a peer is to be asked for.
    fn pick(&self, index: usize, now: Instant) -> Option<u32> {
        let may_ask = |number: &u32| self.may_ask(index, *number, now);
        if self.order == Order::Ascending {
            return self.waiting.iter().find(may_ask);
        }
        let candidates = match self.peers.get(index)?.held.as_ref() {
            Some(held) => &self.waiting & held,
            None => self.waiting.clone(),
        };
        // From some place on, or the rare ones beyond the first so many would never be seen.
        let from = self.draw(u64::MAX).checked_rem(candidates.len())?;
        let from = candidates.select(u32::try_from(from).ok()?)?;
        let pieces = candidates.range(from..).chain(candidates.range(..from)).filter(may_ask);
        pieces.take(CANDIDATES).min_by_key(|number| (self.holders(*number), self.draw(u64::from(*number))))
    }

    /// Peers that are known to hold a piece.
    fn holders(&self, number: u32) -> usize {
        let holds = |peer: &&Peer| !peer.gone && peer.held.as_ref().is_some_and(|held| held.contains(number));
        self.peers.iter().filter(holds).count()
    }

    /// A number that chance has drawn for `what`, another one for each flight; 0 where nothing is left to chance.
    fn draw(&self, what: u64) -> u64 {
        let Order::Rarest(seed) = self.order else { return 0 };
        // SplitMix64, twice: the inputs differ in few bits.
        let mix = |mut bits: u64| {
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        };
        mix(mix(seed ^ self.next_flight.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(what))
    }

    /// A peer holds these of `told`, by its own word, and no others of them.
    pub(crate) fn holds(
        &mut self,
        index: PeerIndex,
        told: std::ops::Range<u32>,
        held: &PieceSet,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (known, first) = match &mut peer.held {
            Some(known) => (known, false),
            None => (peer.held.insert(PieceSet::new()), true),
        };
        let before = known.len();
        known.remove_range(told);
        *known |= held;
        if known.len() > before {
            self.news_at = Some(now);
        }
        if first {
            // What it was asked for before that, nobody knew better.
            (peer.misses, peer.misses_since) = (0, None);
            peer.retry_at = peer.retry_at.filter(|_| peer.failures > 0);
        }
        for number in held {
            let trouble = self.troubles.get_mut(&number).and_then(|troubles| troubles.get_mut(&index));
            if let Some(trouble) = trouble.filter(|trouble| first && !trouble.rejected) {
                (trouble.misses, trouble.until) = (0, now);
            }
        }
    }

    /// A late piece, and a peer that would have it in less than half the time that it still needs.
    ///
    /// A piece may be late a second time: where it was asked for again, there may be nobody either.
    fn spare(&self, now: Instant) -> Option<(usize, u32, bool)> {
        let mut pieces: BTreeMap<u32, Vec<&Flight>> = BTreeMap::new();
        for flight in self.flights.values() {
            pieces.entry(flight.number).or_default().push(flight);
        }
        let mut late: Vec<(f64, Vec<&Flight>)> = pieces
            .into_values()
            .filter(|flights| flights.iter().all(|flight| !flight.won))
            .map(|flights| {
                let remaining = flights.iter().map(|flight| self.remaining(flight, now));
                (remaining.fold(f64::INFINITY, f64::min), flights)
            })
            .collect();
        late.sort_by(|a, b| b.0.total_cmp(&a.0));
        late.into_iter().find_map(|(remaining, flights)| {
            let Flight { number, length, .. } = **flights.first()?;
            if self.spare_bytes != 0 && self.spare_bytes + length > self.settings.spare_memory {
                return None;
            }
            let asked = |peer| flights.iter().filter(|flight| flight.peer == peer).count();
            let free = (0..).zip(&self.peers).filter(|(index, peer)| {
                asked(*index) <= usize::from(peer.several_ways && flights.len() == 1)
                    && self.is_free(peer, now)
                    && self.may_ask(*index, number, now)
            });
            let etas = free.map(|(index, peer)| (peer.eta(length).unwrap_or(ASSUMED_LATENCY), index));
            let (eta, peer) = etas.min_by(|a, b| a.0.total_cmp(&b.0))?;
            (2.0 * eta < remaining).then_some((peer, number, true))
        })
    }

    /// Seconds that a flight still needs.
    fn remaining(&self, flight: &Flight, now: Instant) -> f64 {
        let silence = now.saturating_duration_since(flight.progressed_at).as_secs_f64();
        let flown = now.saturating_duration_since(flight.asked_at).as_secs_f64();
        let own = (flight.received > 0 && flown > 0.0).then(|| flight.received as f64 / flown);
        let peer = self.peers.get(flight.peer);
        let share = peer.and_then(|peer| Some(peer.rate? / peer.in_flight.max(1) as f64));
        let rate = match (own, share) {
            (Some(own), Some(share)) => own.min(share),
            (own, share) => own.or(share).unwrap_or(f64::INFINITY),
        };
        let left = flight.length.saturating_sub(flight.received) as f64;
        (left / rate.max(1.0)).max(silence)
    }

    fn usual_length(&self) -> u64 {
        self.division.piece_length().into()
    }

    fn is_free(&self, peer: &Peer, now: Instant) -> bool {
        let blind = self.order != Order::Ascending && peer.held.is_none();
        let most = if blind { 1 } else { self.settings.per_peer };
        !peer.gone
            && peer.retry_at.is_none_or(|retry_at| retry_at <= now)
            && peer.in_flight < peer.window(self.usual_length(), most)
    }

    fn may_ask(&self, peer: usize, number: u32, now: Instant) -> bool {
        let held = self.peers.get(peer).and_then(|peer| peer.held.as_ref());
        if held.is_some_and(|held| !held.contains(number)) {
            return false;
        }
        let Some(troubles) = self.troubles.get(&number) else { return true };
        let Some(trouble) = troubles.get(&peer) else { return true };
        if trouble.is_final(self.settings.patience) || now < trouble.until {
            return false;
        }
        //= VTX-SEC-008
        !trouble.rejected
            || (0..).zip(&self.peers).all(|(index, other)| other.gone || troubles.contains_key(&index))
    }

    fn stalled(&self, now: Instant) -> Option<u64> {
        let stalled = |flight: &Flight| !flight.won && now >= flight.progressed_at + self.settings.stall;
        self.flights.iter().find_map(|(id, flight)| stalled(flight).then_some(*id))
    }

    /// When something changes by itself; `None` when nothing does.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let stall =
            self.flights.values().filter(|flight| !flight.won).map(|f| f.progressed_at + self.settings.stall);
        let mut wake = stall.min();
        let mut sooner = |at: Instant| wake = Some(wake.map_or(at, |wake: Instant| wake.min(at)));
        if !self.flights.is_empty()
            && (self.peers.len() > 1 || self.peers.iter().any(|peer| peer.several_ways))
        {
            sooner(now + LOOK_AGAIN);
        }
        for peer in self.peers.iter().filter(|peer| !peer.gone) {
            if let Some(retry_at) = peer.retry_at.filter(|retry_at| *retry_at > now) {
                sooner(retry_at);
            }
        }
        // Somebody may yet get what is missing, and say so.
        if self.peers.iter().any(|peer| !peer.gone && peer.held.is_some())
            && let Some(until) = self.news_at.map(|at| at + self.settings.patience).filter(|at| *at > now)
        {
            sooner(until);
        }
        for (number, troubles) in &self.troubles {
            for (index, trouble) in troubles {
                let gone = self.peers.get(*index).is_none_or(|peer| peer.gone);
                if self.waiting.contains(*number)
                    && !gone
                    && !trouble.is_final(self.settings.patience)
                    && trouble.until > now
                {
                    sooner(trouble.until);
                }
            }
        }
        wake
    }

    /// The peer has begun to answer at `now`; without effect when that is known.
    pub(crate) fn answered(&mut self, flight: u64, now: Instant) {
        let Some(flight) = self.flights.get_mut(&flight).filter(|flight| !flight.answered) else { return };
        flight.answered = true;
        flight.progressed_at = now;
        let latency = now.saturating_duration_since(flight.asked_at).as_secs_f64();
        if let Some(peer) = self.peers.get_mut(flight.peer) {
            peer.latency = Some(peer.latency.map_or(latency, |known| known.min(latency)));
        }
    }

    /// So many content bytes of the flight have arrived. `held_up`: it is this side that takes its time.
    pub(crate) fn progress(&mut self, flight: u64, received: u64, held_up: bool, now: Instant) {
        let Some(flight) = self.flights.get_mut(&flight) else { return };
        if held_up || received > flight.received {
            flight.progressed_at = now;
        }
        let more = received.saturating_sub(flight.received);
        flight.received += more;
        if let Some(peer) = self.peers.get_mut(flight.peer) {
            peer.delivered(more, now);
        }
    }

    /// The whole piece is here and verified. `None`: another answer was first, and this one is over. Otherwise this one
    /// counts, and the flights returned are over.
    pub(crate) fn verified(&mut self, flight: u64, now: Instant) -> Option<Vec<u64>> {
        let (peer, number, length) = {
            let flight = self.flights.get(&flight)?;
            (flight.peer, flight.number, flight.length)
        };
        self.progress(flight, length, false, now);
        if let Some(peer) = self.peers.get_mut(peer) {
            (peer.failures, peer.misses, peer.misses_since, peer.retry_at) = (0, 0, None, None);
        }
        let same = self.flights.iter().filter(|(_, other)| other.number == number);
        let others: Vec<(u64, bool)> =
            same.filter(|(id, _)| **id != flight).map(|(id, other)| (*id, other.won)).collect();
        if others.iter().any(|(_, won)| *won) {
            self.end(flight, now);
            return None;
        }
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.won = true;
        }
        // Its peer is free for another request while the disk takes its time.
        self.landed(peer, now);
        for (other, _) in &others {
            self.end(*other, now);
        }
        Some(others.into_iter().map(|(other, _)| other).collect())
    }

    /// The piece of the flight is durable.
    pub(crate) fn committed(&mut self, flight: u64, now: Instant) {
        if let Some(flight) = self.end(flight, now) {
            self.troubles.remove(&flight.number);
            self.news_at = Some(now);
        }
    }

    /// The flight has failed. How its peer stands now.
    pub(crate) fn failed(&mut self, flight: u64, fault: Fault, now: Instant) -> Standing {
        let Some(Flight { peer: index, number, .. }) = self.end(flight, now) else { return Standing::Good };
        if !self.flights.values().any(|flight| flight.number == number) {
            self.waiting.insert(number);
        }
        let settings = self.settings;
        let Some(peer) = self.peers.get_mut(index) else { return Standing::GivenUp };
        if matches!(fault, Fault::Missing | Fault::Lie | Fault::Broken) {
            let troubles = self.troubles.entry(number).or_default();
            let trouble = troubles.entry(index).or_insert(Trouble {
                misses: 0,
                lies: 0,
                rejected: false,
                since: now,
                until: now,
            });
            trouble.misses += u32::from(fault == Fault::Missing);
            trouble.lies += u32::from(fault == Fault::Lie);
            trouble.rejected |= fault != Fault::Missing;
            let pause = settings.pause_after(trouble.misses + trouble.lies);
            trouble.until = now + if fault == Fault::Missing { pause.min(ASK_AGAIN) } else { pause };
        }
        let failed = match fault {
            Fault::Useless => {
                peer.gone = true;
                false
            }
            Fault::Lie => {
                peer.lies += 1;
                peer.gone |= peer.lies >= LIES;
                false
            }
            Fault::Missing => {
                peer.misses += 1;
                let since = *peer.misses_since.get_or_insert(now);
                if let Some(more) = peer.misses.checked_sub(MISSES_IN_A_ROW) {
                    peer.retry_at = Some(now + settings.pause_after(more).min(ASK_AGAIN));
                    let patient = now.saturating_duration_since(since) < settings.patience;
                    peer.gone |= more >= settings.attempts && !patient;
                }
                false
            }
            // Requests that fail together fail once.
            Fault::Failed | Fault::Broken => peer.retry_at.is_none_or(|retry_at| retry_at <= now),
        };
        if failed {
            peer.failures += 1;
            peer.gone |= peer.failures >= settings.attempts.max(1);
            peer.retry_at = Some(now + settings.pause_after(peer.failures));
        }
        match peer.retry_at.filter(|retry_at| *retry_at > now) {
            _ if peer.gone => Standing::GivenUp,
            Some(retry_at) => Standing::Paused(retry_at),
            None => Standing::Good,
        }
    }

    fn end(&mut self, flight: u64, now: Instant) -> Option<Flight> {
        let flight = self.flights.remove(&flight)?;
        self.spare_bytes -= if flight.spare { flight.length } else { 0 };
        if !flight.won {
            self.landed(flight.peer, now);
        }
        Some(flight)
    }

    /// A peer has one request less.
    fn landed(&mut self, peer: usize, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
            if peer.in_flight == 0 || peer.rate.is_none() {
                peer.sample(now);
            }
            // Time in which nothing was asked of it says nothing of it.
            if peer.in_flight == 0 {
                (peer.sampled_from, peer.sampled) = (None, 0);
            }
        }
    }
}
