//! The pool's promises, over any order of requests, closings and time.

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
                    prop_assert!(alive, "closed to make room before those who waited for it could take it");
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
        prop_assert!(self.known.iter().all(|known| known.copies.load(Relaxed) == 0), "a connection leaked");
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
