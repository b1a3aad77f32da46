//! Who is let in, while how much is under way.

use super::stats::{Counters, count};
#[cfg(feature = "quic")]
use super::windows::Windows;
use super::{Limit, ServerLimits, ServerStats};
use crate::rate::{Flow, RateLimiter};
use crate::runtime::SharedRuntime;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads that send from files, for each core: while one waits for its reader, another one sends. Answers beyond them go as tasks.
#[cfg(feature = "sendfile")]
const SENDERS_PER_CORE: usize = 2;

/// Counts connections, answers and bytes against their limits.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ServerLimits,
    pub(super) counters: Counters,
    connections: Arc<Mutex<Connections>>,
    /// Connections whose handshake is under way.
    #[cfg(feature = "quic")]
    half_open: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
    memory: Memory,
    #[cfg(feature = "quic")]
    pub(super) windows: Windows,
    bandwidth: Option<RateLimiter>,
    requests: Option<RateLimiter>,
    #[cfg(feature = "sendfile")]
    senders: Arc<Semaphore>,
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
    memory: Memory,
    bandwidth: Turn,
    requests: Turn,
}

/// The place of one connection among those that share a rate. Its answers queue here, and the connections for the rate:
/// so one connection with many answers gets no more than one with few.
#[derive(Debug)]
struct Turn(Option<tokio::sync::Mutex<Flow>>);

impl Turn {
    fn new(limiter: Option<&RateLimiter>) -> Self {
        Self(limiter.map(|limiter| tokio::sync::Mutex::new(limiter.flow())))
    }

    /// Waits for `count`; whether it had to.
    async fn take(&self, count: u64) -> bool {
        match &self.0 {
            Some(flow) => flow.lock().await.charge(count).await,
            None => false,
        }
    }
}

/// Memory for content, taken in turns.
#[derive(Debug)]
struct Memory {
    free: Arc<Semaphore>,
    units: u32,
}

impl Memory {
    /// Bytes of a unit.
    const UNIT: u64 = 1 << 10;

    fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / Self::UNIT).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        // What is more than all of it waits for all of it.
        let units = u32::try_from(bytes.div_ceil(Self::UNIT)).unwrap_or(u32::MAX).min(self.units);
        self.free.clone().acquire_many_owned(units).await.ok()
    }

    fn used(&self) -> u64 {
        (self.units as usize).saturating_sub(self.free.available_permits()) as u64 * Self::UNIT
    }
}

/// Memory for the content of one answer; given back when dropped.
#[derive(Debug)]
pub(super) struct AnswerMemory(
    #[allow(dead_code, reason = "held for its drop")] [Option<OwnedSemaphorePermit>; 2],
);

/// A handshake under way; it counts until this is dropped.
#[cfg(feature = "quic")]
#[derive(Debug)]
pub(super) struct HalfOpen(#[allow(dead_code, reason = "held for its drop")] Count);

/// A place for one answer; given back when dropped.
#[derive(Debug)]
pub(super) struct AnswerPlace {
    counters: [Arc<AtomicUsize>; 2],
}

impl Admission {
    pub(super) fn new(runtime: &SharedRuntime, limits: ServerLimits) -> Self {
        Self {
            limits,
            counters: Counters::default(),
            connections: Arc::default(),
            #[cfg(feature = "quic")]
            half_open: Arc::default(),
            answers: Arc::default(),
            memory: Memory::new(limits.memory),
            #[cfg(feature = "quic")]
            windows: Windows::new(limits.windows),
            bandwidth: limits.bandwidth.map(|rate| RateLimiter::new(runtime.clone(), rate)),
            requests: limits.requests.map(|rate| RateLimiter::counting(runtime.clone(), rate)),
            #[cfg(feature = "sendfile")]
            senders: Arc::new(Semaphore::new(
                SENDERS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from),
            )),
        }
    }

    pub(super) fn stats(&self) -> ServerStats {
        ServerStats {
            connections: lock(&self.connections).total as u64,
            #[cfg(feature = "quic")]
            handshakes: self.half_open() as u64,
            answers: self.answers.load(Ordering::Acquire) as u64,
            memory: self.memory.used(),
            #[cfg(feature = "quic")]
            windows: self.windows.taken(),
            ..self.counters.snapshot()
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

    /// Counts that `limit` is met.
    pub(super) fn met(&self, limit: Limit) -> Limit {
        self.counters.limit(limit);
        limit
    }

    /// A place for a connection from `address`.
    pub(super) fn connection(&self, address: IpAddr) -> Result<ConnectionPlace, Limit> {
        //= VTX-SEC-002
        let address = address.to_canonical();
        let mut connections = lock(&self.connections);
        if connections.total >= self.limits.connections {
            return Err(self.met(Limit::Connections));
        }
        let of_address = connections.by_address.entry(address).or_default();
        if *of_address >= self.limits.connections_per_address {
            return Err(self.met(Limit::ConnectionsPerAddress));
        }
        *of_address += 1;
        connections.total += 1;
        count(&self.counters.accepted, 1);
        Ok(ConnectionPlace {
            address,
            connections: self.connections.clone(),
            answers: Arc::default(),
            memory: Memory::new(self.limits.memory_per_connection),
            bandwidth: Turn::new(self.bandwidth.as_ref()),
            requests: Turn::new(self.requests.as_ref()),
        })
    }

    /// A place for an answer on the connection that holds `place`.
    pub(super) fn answer(&self, place: &ConnectionPlace) -> Result<AnswerPlace, Limit> {
        let of_connection = Count::take(&place.answers, self.limits.answers_per_connection);
        let of_connection = of_connection.ok_or_else(|| self.met(Limit::AnswersPerConnection))?;
        let in_total = Count::take(&self.answers, self.limits.answers);
        let in_total = in_total.ok_or_else(|| self.met(Limit::Answers))?;
        Ok(AnswerPlace { counters: [of_connection.keep(), in_total.keep()] })
    }

    /// Waits until the connection that holds `place` may have a request answered.
    pub(super) async fn request_turn(&self, place: &ConnectionPlace) {
        if place.requests.take(1).await {
            self.met(Limit::Requests);
        }
    }

    /// Waits until the connection that holds `place` may send so many bytes.
    pub(super) async fn bandwidth_turn(&self, place: &ConnectionPlace, bytes: u64) {
        if place.bandwidth.take(bytes).await {
            self.met(Limit::Bandwidth);
        }
    }

    /// A place for a thread that sends; none where all are taken.
    #[cfg(feature = "sendfile")]
    pub(super) fn sender(&self) -> Option<OwnedSemaphorePermit> {
        self.senders.clone().try_acquire_owned().ok()
    }

    /// Whether `bytes` may go at once by the rate that is to be kept: what flows in 100 ms may.
    #[cfg(feature = "sendfile")]
    pub(super) fn may_burst(&self, bytes: u64) -> bool {
        self.limits.bandwidth.is_none_or(|rate| rate.get() / 10 >= bytes)
    }

    /// Keeps the turn of bytes that did not flow, for the next ones of the connection.
    #[cfg(feature = "sendfile")]
    pub(super) async fn bandwidth_unused(&self, place: &ConnectionPlace, bytes: u64) {
        if let Some(flow) = &place.bandwidth.0 {
            flow.lock().await.keep(bytes);
        }
    }

    /// Waits until so many bytes of content may be in memory for the connection that holds `place`.
    pub(super) async fn memory(&self, place: &ConnectionPlace, bytes: u64) -> AnswerMemory {
        // The connection's first: what waits for it must not hold what others wait for.
        let of_connection = place.memory.take(bytes).await;
        AnswerMemory([of_connection, self.memory.take(bytes).await])
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
