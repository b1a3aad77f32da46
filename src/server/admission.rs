//! Who is let in, while how much is under way.

use super::ServerLimits;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections and answers against their limits.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ServerLimits,
    connections: Arc<Mutex<Connections>>,
    /// Connections whose handshake is under way.
    #[cfg(feature = "quic")]
    half_open: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Connections {
    total: usize,
    /// Only addresses that have a connection are here.
    by_address: BTreeMap<IpAddr, usize>,
}

/// A place for one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    address: IpAddr,
    connections: Arc<Mutex<Connections>>,
    /// Answers under way on this connection.
    answers: Arc<AtomicUsize>,
}

/// A handshake under way; it counts until this is dropped.
#[cfg(feature = "quic")]
#[derive(Debug)]
pub(super) struct HalfOpen(#[allow(dead_code, reason = "held for its drop")] Count);

/// A place for one answer; given back when dropped.
#[derive(Debug)]
pub(super) struct AnswerPlace {
    counters: [Arc<AtomicUsize>; 2],
}

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Busy {
    #[error("too many connections: the limit of this server is reached")]
    Connections,
    #[error("too many connections from this address")]
    Address,
    #[error("too many requests: the limit of this connection is reached")]
    ConnectionAnswers,
    #[error("too many requests: the limit of this server is reached")]
    Answers,
}

impl Admission {
    pub(super) fn new(limits: ServerLimits) -> Self {
        Self {
            limits,
            connections: Arc::default(),
            #[cfg(feature = "quic")]
            half_open: Arc::default(),
            answers: Arc::default(),
        }
    }

    /// Handshakes under way.
    #[cfg(feature = "quic")]
    pub(super) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Acquire)
    }

    /// Counts a handshake, until what is returned is dropped.
    #[cfg(feature = "quic")]
    pub(super) fn handshake(&self) -> Option<HalfOpen> {
        Count::take(&self.half_open, usize::MAX).map(HalfOpen)
    }

    /// A place for a connection from `address`.
    pub(super) fn connection(&self, address: IpAddr) -> Result<ConnectionPlace, Busy> {
        //= VTX-SEC-002
        let address = address.to_canonical();
        let mut connections = lock(&self.connections);
        if connections.total >= self.limits.connections {
            return Err(Busy::Connections);
        }
        let of_address = connections.by_address.entry(address).or_default();
        if *of_address >= self.limits.connections_per_address {
            return Err(Busy::Address);
        }
        *of_address += 1;
        connections.total += 1;
        Ok(ConnectionPlace { address, connections: self.connections.clone(), answers: Arc::default() })
    }

    /// A place for an answer on the connection that holds `place`.
    pub(super) fn answer(&self, place: &ConnectionPlace) -> Result<AnswerPlace, Busy> {
        let of_connection = Count::take(&place.answers, self.limits.answers_per_connection);
        let of_connection = of_connection.ok_or(Busy::ConnectionAnswers)?;
        let in_total = Count::take(&self.answers, self.limits.answers).ok_or(Busy::Answers)?;
        Ok(AnswerPlace { counters: [of_connection.keep(), in_total.keep()] })
    }
}

/// One unit of a counter, given back unless it is kept.
#[derive(Debug)]
struct Count(Option<Arc<AtomicUsize>>);

impl Count {
    fn take(counter: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let within = |count: usize| (count < limit).then_some(count + 1);
        counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).ok()?;
        Some(Self(Some(counter.clone())))
    }

    fn keep(mut self) -> Arc<AtomicUsize> {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(counter) = &self.0 {
            counter.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for AnswerPlace {
    fn drop(&mut self) {
        for counter in &self.counters {
            counter.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut connections = lock(&self.connections);
        connections.total -= 1;
        if let Some(count) = connections.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                connections.by_address.remove(&self.address);
            }
        }
    }
}

/// The counts are right after any panic: nothing is done between taking and setting them that could.
fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
