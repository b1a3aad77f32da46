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
    /// 1: one congestion window, and one handshake. On a path that loses packets two have twice the rate, by taking from
    /// whoever shares the path; several peers give the same without that. On a path that loses none, more were no quicker
    /// than the noise of the measurement (the book's chapter on performance has the figures).
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
mod tests;
