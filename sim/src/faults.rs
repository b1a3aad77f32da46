//! What can go wrong, how strongly it does in one run, and whether it ever mattered.

use crate::mask::Mask;
use crate::rng::Seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. A run ends at its first panic, so what a panic left behind is only read for the report.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Single packets are lost.
    Loss,
    /// Packets are lost in bursts (Gilbert-Elliott).
    Burst,
    /// Packets arrive twice.
    Duplicate,
    /// Bytes of packets are changed.
    Corrupt,
    /// Packets overtake each other.
    Reorder,
    /// The bottleneck's queue drops.
    Queue,
    /// Packets are marked "congestion experienced".
    Mark,
    /// Packets above a size vanish.
    Blackhole,
    /// A link is cut, in one or both directions.
    Cut,
    /// A link holds its packets back for a while.
    Hold,
    /// A NAT gives a host another address or port in the middle of a connection.
    Rebind,
    /// A host loses power, and comes back later with what its disk kept.
    Crash,
    /// A host stops for a while without noticing.
    Pause,
    /// A host's wall clock jumps.
    Clock,
    /// A disk has no room left.
    DiskFull,
    /// A disk can't read a range.
    DiskRead,
    /// A write that was never synced is lost at a crash.
    DiskLost,
    /// A write that was never synced reaches the disk in part.
    DiskTorn,
    /// A sync fails, and what it was to save is lost.
    DiskSync,
    /// A disk is slow.
    DiskSlow,
}

impl Fault {
    /// Every kind, in the order of reports.
    pub const ALL: [Fault; 20] = [
        Fault::Loss,
        Fault::Burst,
        Fault::Duplicate,
        Fault::Corrupt,
        Fault::Reorder,
        Fault::Queue,
        Fault::Mark,
        Fault::Blackhole,
        Fault::Cut,
        Fault::Hold,
        Fault::Rebind,
        Fault::Crash,
        Fault::Pause,
        Fault::Clock,
        Fault::DiskFull,
        Fault::DiskRead,
        Fault::DiskLost,
        Fault::DiskTorn,
        Fault::DiskSync,
        Fault::DiskSlow,
    ];
}

/// How strongly a fault acts in one run. Runs in which some faults are off find what runs with all of them hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not at all.
    Off,
    /// Now and then.
    Rare,
    /// All the time.
    Heavy,
}

impl Level {
    /// One of three values, by level.
    pub fn of<T>(self, off: T, rare: T, heavy: T) -> T {
        match self {
            Level::Off => off,
            Level::Rare => rare,
            Level::Heavy => heavy,
        }
    }
}

/// The level of each fault in one run, drawn from its seed; every fault from a stream of its own.
#[derive(Debug, Clone, Copy)]
pub struct Swarm(Seed);

impl Swarm {
    /// The levels of `seed`.
    pub fn new(seed: Seed) -> Self {
        Swarm(seed)
    }

    /// One of two ways in which something can be, each in half of the runs.
    pub fn coin(self, what: &str) -> bool {
        self.0.stream(&format!("swarm/{what}")).below(2) == 0
    }

    /// How strongly `fault` acts: off in half of the runs, rare and heavy in a quarter each.
    pub fn level(self, fault: Fault) -> Level {
        match self.0.stream(&format!("swarm/{fault:?}")).below(4) {
            0 | 1 => Level::Off,
            2 => Level::Rare,
            _ => Level::Heavy,
        }
    }
}

/// How often a fault was ready to act, acted, and was noticed by the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Runs (or times) in which it could have acted.
    pub armed: u64,
    /// Times it acted.
    pub fired: u64,
    /// Times the protocol noticed: a retransmission, a timeout, a reset, a mended piece.
    pub seen: u64,
}

/// What one run, or many, showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By fault.
    pub faults: BTreeMap<Fault, Tally>,
    /// States that have to be reached somewhere, and how often they were. A state that was only declared counts 0.
    pub sometimes: BTreeMap<String, u64>,
}

impl Report {
    /// Adds what another run showed.
    pub fn merge(&mut self, other: &Report) {
        for (fault, tally) in &other.faults {
            let sum = self.faults.entry(*fault).or_default();
            sum.armed += tally.armed;
            sum.fired += tally.fired;
            sum.seen += tally.seen;
        }
        for (state, count) in &other.sometimes {
            *self.sometimes.entry(state.clone()).or_default() += count;
        }
    }

    /// Faults that were armed and never acted: what ran proves nothing about them.
    pub fn idle_faults(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter().filter(|(_, tally)| tally.armed > 0 && tally.fired == 0).map(|(fault, _)| *fault)
    }

    /// Faults that acted, and that nothing above the network or the disk ever noticed.
    pub fn unnoticed(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter().filter(|(_, tally)| tally.fired > 0 && tally.seen == 0).map(|(fault, _)| *fault)
    }

    /// States that were never reached.
    pub fn unreached(&self) -> impl Iterator<Item = &str> {
        self.sometimes.iter().filter(|(_, count)| **count == 0).map(|(state, _)| state.as_str())
    }
}

/// The report of a run while it runs, shared by all that write to it; and the mask that decides which faults act.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    report: Report,
    mask: Mask,
    /// Faults that were drawn so far, whether or not the mask let them act.
    drawn: BTreeMap<Fault, u64>,
}

impl Book {
    fn tally(&mut self, fault: Fault) -> &mut Tally {
        self.report.faults.entry(fault).or_default()
    }

    /// Whether the mask leaves out the next fault of this kind.
    fn spares(&mut self, fault: Fault) -> bool {
        let drawn = self.drawn.entry(fault).or_default();
        *drawn += 1;
        !self.mask.lets(fault, *drawn - 1)
    }
}

impl Ledger {
    /// One for a run in which only those faults act that `mask` lets.
    pub(crate) fn new(mask: Mask) -> Self {
        Ledger(Arc::new(Mutex::new(Book { mask, ..Book::default() })))
    }

    /// `fault` is ready to act.
    pub fn armed(&self, fault: Fault) {
        lock(&self.0).tally(fault).armed += 1;
    }

    /// Whether the run's mask leaves out `fault`, which chance or the scenario has just brought about. To be asked once
    /// for each time, before anything comes of it.
    #[must_use]
    pub fn spares(&self, fault: Fault) -> bool {
        lock(&self.0).spares(fault)
    }

    /// Whether `fault` acts now, as it does unless it is spared.
    #[must_use]
    pub fn acts(&self, fault: Fault) -> bool {
        let mut book = lock(&self.0);
        let acts = !book.spares(fault);
        book.tally(fault).fired += u64::from(acts);
        acts
    }

    /// Whether `fault` is ready to act from now on, as it is unless it is spared: a cut, say, which acts on each packet.
    #[must_use]
    pub fn happens(&self, fault: Fault) -> bool {
        let mut book = lock(&self.0);
        let happens = !book.spares(fault);
        book.tally(fault).armed += u64::from(happens);
        happens
    }

    /// `fault` acted.
    pub fn fired(&self, fault: Fault) {
        lock(&self.0).tally(fault).fired += 1;
    }

    /// The protocol noticed `fault`, `times` times.
    pub fn seen(&self, fault: Fault, times: u64) {
        lock(&self.0).tally(fault).seen += times;
    }

    /// The protocol noticed something `times` times that each of `faults` explains: counted for those that acted.
    pub fn noticed(&self, times: u64, faults: &[Fault]) {
        let mut book = lock(&self.0);
        for fault in faults {
            if let Some(tally) = book.report.faults.get_mut(fault).filter(|tally| tally.fired > 0) {
                tally.seen += times;
            }
        }
    }

    /// Declares that `state` has to be reached in some run.
    pub fn expect_sometimes(&self, state: &'static str) {
        lock(&self.0).report.sometimes.entry(state.to_owned()).or_default();
    }

    /// `state` was reached.
    pub fn sometimes(&self, state: &'static str) {
        *lock(&self.0).report.sometimes.entry(state.to_owned()).or_default() += 1;
    }

    /// What was written so far.
    pub fn report(&self) -> Report {
        lock(&self.0).report.clone()
    }

    /// Faults that were drawn so far, by kind, whether or not they acted.
    pub fn drawn(&self) -> BTreeMap<Fault, u64> {
        lock(&self.0).drawn.clone()
    }
}
