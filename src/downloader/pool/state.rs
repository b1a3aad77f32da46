//! Which connections there are, who uses them, and which go: no I/O, and time is an argument.

use crate::canary::planted;
use crate::client::RequestError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a pool keeps.
pub(crate) trait Pooled: Sized + Send + 'static {
    /// Whether requests share a connection; otherwise each has one for itself and gives it back.
    const SHARED: bool;

    /// Whether a request can be sent over it now.
    fn is_open(&mut self) -> bool;

    /// The same connection once more, where connections are shared; `None` where they are not.
    fn share(&self) -> Option<Self>;

    /// Whether it may be at its end although it looks open, since it was there before its next request.
    fn may_have_ended(&self) -> bool {
        true
    }

    /// Whether a request that failed like this may have met the end of its connection, and was answered by nobody.
    fn shows_end(error: &RequestError) -> bool {
        matches!(error, RequestError::Lost(_))
    }
}

/// How a pool is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections that are kept. Those in use are never closed to make room: while more than this are in use, there are
    /// as many as are in use, and the pool shrinks as they fall idle.
    ///
    /// 2000, as deployed: a peer of a large cluster, at a few tens of kilobytes for each.
    pub capacity: usize,
    /// How long a connection without a request is kept.
    ///
    /// 60 s, as deployed.
    pub idle_timeout: Duration,
    /// Connections to one peer, where requests share them; more are opened only while all are in use. At least 1.
    ///
    /// 1: one congestion window, and one handshake.
    pub connections_per_peer: usize,
    /// How long a failed handshake answers for further ones: a burst of requests to a dead peer fails once, not one
    /// connect deadline after another.
    ///
    /// 500 ms: short enough that a peer which comes back is not waited for.
    pub failure_memory: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            capacity: 2000,
            idle_timeout: Duration::from_secs(60),
            connections_per_peer: 1,
            failure_memory: Duration::from_millis(500),
        }
    }
}

/// What a request gets.
#[derive(Debug)]
pub(crate) enum CheckOut<C, E> {
    /// A connection, to be released under this number. Where `widen` is set, another one is to be dialed besides.
    Ready { id: u64, connection: C, widen: bool },
    /// Nothing: dial, and report how it went.
    Dial,
    /// A handshake that is under way: wait for its end and ask again.
    Join,
    /// The error of a handshake that failed just now.
    Failed(E),
}

#[derive(Debug)]
struct Slot<C> {
    /// `None` while an exclusive connection is out.
    connection: Option<C>,
    /// Requests that use it.
    active: usize,
    /// Whether those who have waited for it are still to take it.
    reserved: bool,
    /// When a request began or ended.
    used_at: Instant,
}

#[derive(Debug)]
struct Entry<C, E> {
    slots: BTreeMap<u64, Slot<C>>,
    dialing: usize,
    failed: Option<(Instant, E)>,
}

impl<C, E> Default for Entry<C, E> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), dialing: 0, failed: None }
    }
}

/// What a pool has done and has, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Connections that there are.
    pub connections: usize,
    /// Those of them without a request.
    pub idle: usize,
    /// Connections made since the beginning.
    pub dialed: u64,
    /// Requests that found a connection.
    pub reused: u64,
    /// Idle connections closed to make room.
    pub evicted: u64,
    /// Idle connections closed for their age.
    pub expired: u64,
}

/// The state of a pool.
#[derive(Debug)]
pub(crate) struct State<C, E> {
    settings: PoolSettings,
    entries: BTreeMap<SocketAddr, Entry<C, E>>,
    /// Idle connections, least recently used first.
    idle: BTreeSet<(Instant, u64, SocketAddr)>,
    next_id: u64,
    stats: PoolStats,
    /// Connections that are out of the pool and are to be closed; whoever holds a lock on the state does it later.
    retired: Vec<C>,
}

impl<C: Pooled, E: Clone> State<C, E> {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        let stats = PoolStats::default();
        Self {
            settings,
            entries: BTreeMap::new(),
            idle: BTreeSet::new(),
            next_id: 0,
            stats,
            retired: Vec::new(),
        }
    }

    pub(crate) fn stats(&self) -> PoolStats {
        PoolStats { idle: self.idle.len(), ..self.stats }
    }

    /// Connections that have left the pool since the last call.
    pub(crate) fn retired(&mut self) -> Vec<C> {
        std::mem::take(&mut self.retired)
    }

    /// A connection for a request to `address`, or what to do to get one.
    pub(crate) fn check_out(&mut self, address: SocketAddr, now: Instant) -> CheckOut<C, E> {
        self.drop_closed(address);
        let entry = self.entries.entry(address).or_default();
        let limit = self.settings.connections_per_peer.max(1);
        let chosen = if C::SHARED {
            // The least busy one, the oldest of several.
            entry.slots.iter_mut().min_by_key(|(_, slot)| slot.active)
        } else {
            // The one used last: the others may grow old.
            entry.slots.iter_mut().filter(|(_, slot)| slot.active == 0).max_by_key(|(_, slot)| slot.used_at)
        };
        if let Some((&id, slot)) = chosen
            && let Some(connection) =
                if C::SHARED { slot.connection.as_ref().and_then(C::share) } else { slot.connection.take() }
        {
            let busy = slot.active > 0;
            self.idle.remove(&(slot.used_at, id, address));
            slot.active += 1;
            slot.used_at = now;
            let widen = busy && entry.dialing == 0 && entry.failed.is_none() && entry.slots.len() < limit;
            entry.dialing += usize::from(widen);
            self.stats.reused += 1;
            return CheckOut::Ready { id, connection, widen };
        }
        if C::SHARED && entry.dialing > 0 && !planted("handshake-not-shared") {
            return CheckOut::Join;
        }
        match &entry.failed {
            Some((until, error)) if now < *until => CheckOut::Failed(error.clone()),
            _ => {
                entry.failed = None;
                entry.dialing += 1;
                CheckOut::Dial
            }
        }
    }

    /// A handshake was begun besides, for a request that needs a new connection.
    pub(crate) fn dialing(&mut self, address: SocketAddr) {
        self.entries.entry(address).or_default().dialing += 1;
    }

    /// A handshake has succeeded. With `in_use`, a request has the connection, to be released under the number returned;
    /// an exclusive one is then out already, and `connection` is `None`. Otherwise it is reserved until
    /// [`unreserve`](Self::unreserve).
    pub(crate) fn dialed(
        &mut self,
        address: SocketAddr,
        connection: Option<C>,
        in_use: bool,
        now: Instant,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let entry = self.entries.entry(address).or_default();
        entry.dialing = entry.dialing.saturating_sub(1);
        entry.failed = None;
        entry
            .slots
            .insert(id, Slot { connection, active: usize::from(in_use), reserved: !in_use, used_at: now });
        self.stats.connections += 1;
        self.stats.dialed += 1;
        self.make_room();
        id
    }

    /// A handshake has failed with `error`, or, without one, was given up.
    pub(crate) fn dial_failed(&mut self, address: SocketAddr, error: Option<E>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        entry.dialing = entry.dialing.saturating_sub(1);
        if let Some(error) = error {
            entry.failed = Some((now + self.settings.failure_memory, error));
        }
        self.forget_if_empty(address);
    }

    /// A request has ended; an exclusive connection comes back with it, or is lost.
    pub(crate) fn release(&mut self, address: SocketAddr, id: u64, returned: Option<C>, now: Instant) {
        // A connection that was found closed has no slot any more.
        let Some(slot) = self.entries.get_mut(&address).and_then(|entry| entry.slots.get_mut(&id)) else {
            self.retired.extend(returned);
            return;
        };
        slot.active = slot.active.saturating_sub(1);
        slot.used_at = now;
        if C::SHARED {
            self.retired.extend(returned);
        } else {
            slot.connection = returned;
            if slot.connection.is_none() {
                return self.remove(address, id);
            }
        }
        self.may_be_idle(address, id);
    }

    /// Whoever has waited for a new connection has taken it, or never will.
    pub(crate) fn unreserve(&mut self, address: SocketAddr, id: u64, now: Instant) {
        if let Some(slot) = self.entries.get_mut(&address).and_then(|entry| entry.slots.get_mut(&id)) {
            slot.reserved = false;
            slot.used_at = now;
            self.may_be_idle(address, id);
        }
    }

    /// A connection that nobody uses any more can make room for others.
    fn may_be_idle(&mut self, address: SocketAddr, id: u64) {
        let slot = self.entries.get(&address).and_then(|entry| entry.slots.get(&id));
        if let Some(slot) = slot.filter(|slot| slot.active == 0 && !slot.reserved) {
            self.idle.insert((slot.used_at, id, address));
            self.make_room();
        }
    }

    /// Takes a connection out, so that no further request gets it.
    #[cfg(any(feature = "quic", feature = "grpc"))]
    pub(crate) fn retire(&mut self, address: SocketAddr, id: u64) {
        self.remove(address, id);
    }

    /// Closes what has been idle for too long or was closed by its peer, and forgets old failures.
    pub(crate) fn sweep(&mut self, now: Instant) {
        while let Some(&(used_at, id, address)) = self.idle.first()
            && now >= used_at + self.settings.idle_timeout
        {
            self.idle.pop_first();
            self.stats.expired += 1;
            self.remove(address, id);
        }
        let addresses: Vec<SocketAddr> = self.entries.keys().copied().collect();
        for address in addresses {
            self.drop_closed(address);
            if let Some(entry) = self.entries.get_mut(&address)
                && entry.failed.as_ref().is_some_and(|(until, _)| now >= *until)
            {
                entry.failed = None;
            }
            self.forget_if_empty(address);
        }
    }

    /// When the next sweep finds something; `None` while no idle connection and no failure is kept.
    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        let expiry = self.idle.first().map(|(used_at, ..)| *used_at + self.settings.idle_timeout);
        let forget = self.entries.values().filter_map(|entry| Some(entry.failed.as_ref()?.0)).min();
        [expiry, forget].into_iter().flatten().min()
    }

    /// Takes out what is closed. Requests that still use such a connection learn it from the connection.
    fn drop_closed(&mut self, address: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let is_closed = |slot: &mut Slot<C>| {
            slot.connection.as_mut().is_some_and(|c| !c.is_open() && !planted("closed-handed-out"))
        };
        let closed: Vec<u64> =
            entry.slots.iter_mut().filter_map(|(id, slot)| is_closed(slot).then_some(*id)).collect();
        for id in closed {
            self.remove(address, id);
        }
    }

    /// Closes idle connections, least recently used first, down to the capacity.
    fn make_room(&mut self) {
        while !planted("capacity-ignored")
            && self.stats.connections > self.settings.capacity
            && let Some(&(_, id, address)) = self.idle.first()
        {
            self.idle.pop_first();
            self.stats.evicted += 1;
            self.remove(address, id);
        }
    }

    fn remove(&mut self, address: SocketAddr, id: u64) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let Some(slot) = entry.slots.remove(&id) else { return };
        self.idle.remove(&(slot.used_at, id, address));
        self.retired.extend(slot.connection);
        self.stats.connections -= 1;
        self.forget_if_empty(address);
    }

    fn forget_if_empty(&mut self, address: SocketAddr) {
        if self
            .entries
            .get(&address)
            .is_some_and(|entry| entry.slots.is_empty() && entry.dialing == 0 && entry.failed.is_none())
        {
            self.entries.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    /// A connection of which the test knows whether it is open, and how many copies there are.
    #[derive(Debug)]
    struct Fake<const SHARED: bool> {
        number: usize,
        open: Arc<AtomicBool>,
        copies: Arc<AtomicU32>,
    }

    impl<const SHARED: bool> Fake<SHARED> {
        fn copy(&self) -> Self {
            self.copies.fetch_add(1, Relaxed);
            Self { number: self.number, open: self.open.clone(), copies: self.copies.clone() }
        }
    }

    impl<const SHARED: bool> Drop for Fake<SHARED> {
        fn drop(&mut self) {
            self.copies.fetch_sub(1, Relaxed);
        }
    }

    impl<const SHARED: bool> Pooled for Fake<SHARED> {
        const SHARED: bool = SHARED;
        fn is_open(&mut self) -> bool {
            self.open.load(Relaxed)
        }
        fn share(&self) -> Option<Self> {
            SHARED.then(|| self.copy())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        CheckOut(u8),
        /// The oldest handshake of this peer succeeds.
        Dialed(u8),
        DialFailed(u8, bool),
        /// One of the requests under way ends; an exclusive connection comes back or is lost.
        Release(prop::sample::Index, bool),
        /// A peer closes one of the connections.
        Close(prop::sample::Index),
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..4).prop_map(Step::CheckOut),
            3 => (0u8..4).prop_map(Step::Dialed),
            1 => (0u8..4, any::<bool>()).prop_map(|(peer, error)| Step::DialFailed(peer, error)),
            3 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8)).prop_map(|(i, b)| Step::Release(i, b)),
            1 => any::<prop::sample::Index>().prop_map(Step::Close),
            2 => (0u16..40).prop_map(Step::Wait),
        ]
    }

    struct Known {
        open: Arc<AtomicBool>,
        copies: Arc<AtomicU32>,
        address: SocketAddr,
        used_at: Instant,
    }

    struct Lease<const SHARED: bool> {
        address: SocketAddr,
        id: u64,
        fake: Fake<SHARED>,
    }

    struct Model<const SHARED: bool> {
        state: State<Fake<SHARED>, &'static str>,
        settings: PoolSettings,
        now: Instant,
        known: Vec<Known>,
        leases: Vec<Lease<SHARED>>,
        dialing: BTreeMap<u8, usize>,
    }

    fn address(peer: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, peer], 4006))
    }

    impl<const SHARED: bool> Model<SHARED> {
        fn new(settings: PoolSettings) -> Self {
            #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
            let now = Instant::now();
            let (known, leases) = (Vec::new(), Vec::new());
            Self { state: State::new(settings), settings, now, known, leases, dialing: BTreeMap::new() }
        }

        fn active(&self, number: usize) -> usize {
            self.leases.iter().filter(|lease| lease.fake.number == number).count()
        }

        fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::CheckOut(peer) => self.check_out(peer)?,
                Step::Dialed(peer) => {
                    let Some(count) = self.dialing.get_mut(&peer).filter(|count| **count > 0) else {
                        return Ok(());
                    };
                    *count -= 1;
                    let (number, open, copies) =
                        (self.known.len(), Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(1)));
                    let fake = Fake { number, open: open.clone(), copies: copies.clone() };
                    self.known.push(Known { open, copies, address: address(peer), used_at: self.now });
                    if SHARED {
                        let id = self.state.dialed(address(peer), Some(fake), false, self.now);
                        let alive = self.known[number].copies.load(Relaxed) > 0;
                        prop_assert!(
                            alive,
                            "closed to make room before those who waited for it could take it"
                        );
                        self.state.unreserve(address(peer), id, self.now);
                    } else {
                        let id = self.state.dialed(address(peer), None, true, self.now);
                        self.leases.push(Lease { address: address(peer), id, fake });
                    }
                }
                Step::DialFailed(peer, error) => {
                    let Some(count) = self.dialing.get_mut(&peer).filter(|count| **count > 0) else {
                        return Ok(());
                    };
                    *count -= 1;
                    self.state.dial_failed(address(peer), error.then_some("failed"), self.now);
                }
                Step::Release(index, returned) if !self.leases.is_empty() => {
                    self.release(index.index(self.leases.len()), returned);
                }
                Step::Close(index) if !self.known.is_empty() => {
                    self.known[index.index(self.known.len())].open.store(false, Relaxed);
                }
                Step::Wait(seconds) => {
                    self.now += Duration::from_secs(seconds.into());
                    self.state.sweep(self.now);
                    prop_assert!(self.state.next_sweep().is_none_or(|next| next > self.now));
                }
                Step::Release(..) | Step::Close(_) => {}
            }
            self.check()
        }

        fn check_out(&mut self, peer: u8) -> Result<(), TestCaseError> {
            match self.state.check_out(address(peer), self.now) {
                CheckOut::Ready { id, connection: fake, widen } => {
                    prop_assert!(fake.open.load(Relaxed), "a closed connection was handed out");
                    prop_assert_eq!(self.known[fake.number].address, address(peer));
                    prop_assert!(
                        SHARED || self.active(fake.number) == 0,
                        "an exclusive connection has two users"
                    );
                    self.known[fake.number].used_at = self.now;
                    self.leases.push(Lease { address: address(peer), id, fake });
                    *self.dialing.entry(peer).or_default() += usize::from(widen);
                }
                CheckOut::Dial => *self.dialing.entry(peer).or_default() += 1,
                CheckOut::Join => prop_assert!(SHARED && self.dialing[&peer] == 1),
                CheckOut::Failed(error) => prop_assert_eq!(error, "failed"),
            }
            Ok(())
        }

        fn release(&mut self, position: usize, returned: bool) {
            let Lease { address, id, fake } = self.leases.remove(position);
            self.known[fake.number].used_at = self.now;
            self.state.release(address, id, returned.then_some(fake), self.now);
        }

        fn check(&mut self) -> Result<(), TestCaseError> {
            let latest_evicted = self.state.retired().into_iter().try_fold(None, |latest, fake| {
                let open = fake.open.load(Relaxed);
                prop_assert!(!open || SHARED || self.active(fake.number) == 0, "closed while in use");
                // What has left by itself is closed, or was idle; only the pool's own copy counts as leaving.
                let gone = !self.leases.iter().any(|lease| lease.fake.number == fake.number);
                let kept = fake.copies.load(Relaxed) > 1;
                Ok(latest.max((open && gone && !kept).then(|| self.known[fake.number].used_at)))
            })?;
            let stats = self.state.stats();
            let alive = |number: usize| self.known[number].copies.load(Relaxed) > 0;
            let active: BTreeSet<usize> = self.leases.iter().map(|lease| lease.fake.number).collect();
            // In use means kept: every connection of a lease lives, and only idle ones were taken to make room.
            prop_assert!(active.iter().all(|number| alive(*number)));
            prop_assert!(stats.connections <= self.settings.capacity.max(active.len()) || stats.idle == 0);
            let unused = (0..self.known.len()).filter(|number| alive(*number) && !active.contains(number));
            prop_assert_eq!(unused.count(), stats.idle);
            let idle: Vec<usize> = (0..self.known.len())
                .filter(|number| {
                    alive(*number) && !active.contains(number) && self.known[*number].open.load(Relaxed)
                })
                .collect();
            for number in idle {
                let used_at = self.known[number].used_at;
                prop_assert!(
                    latest_evicted.is_none_or(|evicted| evicted <= used_at),
                    "not the least recently used"
                );
            }
            for peer in 0..4 {
                if SHARED {
                    prop_assert!(self.dialing.get(&peer).is_none_or(|count| *count <= 1), "two handshakes");
                    let slots = self.state.entries.get(&address(peer)).map_or(0, |entry| entry.slots.len());
                    prop_assert!(slots <= self.settings.connections_per_peer);
                }
            }
            let slots: usize = self.state.entries.values().map(|entry| entry.slots.len()).sum();
            prop_assert_eq!(slots, stats.connections);
            Ok(())
        }

        /// When everything has ended and time has passed, nothing is left.
        fn end(mut self) -> Result<(), TestCaseError> {
            while !self.leases.is_empty() {
                self.release(0, true);
                self.check()?;
            }
            for peer in 0..4 {
                while self.dialing.get(&peer).is_some_and(|count| *count > 0) {
                    self.step(Step::DialFailed(peer, true))?;
                }
            }
            while let Some(next) = self.state.next_sweep() {
                prop_assert!(next > self.now);
                self.now = next;
                self.state.sweep(next);
                self.check()?;
            }
            prop_assert!(self.state.entries.is_empty() && self.state.idle.is_empty());
            prop_assert!(
                self.known.iter().all(|known| known.copies.load(Relaxed) == 0),
                "a connection leaked"
            );
            Ok(())
        }
    }

    fn run<const SHARED: bool>(settings: PoolSettings, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut model = Model::<SHARED>::new(settings);
        for step in steps {
            model.step(step)?;
        }
        model.end()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_pool_keeps_its_invariants(
            capacity in 0usize..6,
            connections_per_peer in 1usize..4,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let settings = PoolSettings { capacity, connections_per_peer, ..PoolSettings::default() };
            run::<true>(settings, steps.clone())?;
            run::<false>(settings, steps)?;
        }
    }
}
