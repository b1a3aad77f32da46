//! One direction between two hosts: what it does to packets.

use super::queue::{Bandwidth, Queue, Verdict};
use crate::faults::{Fault, Ledger, Level, Swarm};
use crate::rng::Rng;
use crate::trace::{Fate, Hashed, Protocol};
use bytes::Bytes;
use quinn::udp::EcnCodepoint;
use std::net::SocketAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A packet on its way.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Hashed,
    /// Whether it is a second copy: its receiver has to notice.
    pub(super) copy: bool,
}

impl Packet {
    /// Whether it can carry a congestion mark.
    pub(super) fn is_markable(&self) -> bool {
        matches!(self.ecn, Some(EcnCodepoint::Ect0 | EcnCodepoint::Ect1))
    }

    /// Marks it "congestion experienced".
    pub(super) fn mark(&mut self) {
        self.ecn = Some(EcnCodepoint::Ce);
    }

    /// Bytes on the wire: the IP packet.
    pub(super) fn wire_bytes(&self) -> u64 {
        let headers = match (self.protocol, self.destination) {
            (Protocol::Tcp, _) => 0,
            (Protocol::Udp, SocketAddr::V4(_)) => 20 + 8,
            (Protocol::Udp, SocketAddr::V6(_)) => 40 + 8,
        };
        self.payload.bytes().len() as u64 + headers
    }
}

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each with the same probability, whatever happened to the one before.
    Independent(f64),
    /// Gilbert-Elliott: the link is good or bad by turns, and only a bad one loses packets. The turns are measured in
    /// time, not in packets: a sender that falls silent must not prolong a burst.
    Bursts {
        /// How long the link is good, on average.
        every: Duration,
        /// How long it is bad, on average.
        lasts: Duration,
        /// Share lost while the link is bad.
        lost: f64,
    },
}

impl Loss {
    /// The share of packets that is lost, over a long time.
    pub fn share(self) -> f64 {
        match self {
            Loss::Independent(p) => p,
            Loss::Bursts { every, lasts, lost } => {
                lost * lasts.as_secs_f64() / (every + lasts).as_secs_f64().max(f64::MIN_POSITIVE)
            }
        }
    }
}

/// What a link does to packets. Probabilities are of one packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// One-way delay.
    pub latency: Duration,
    /// Up to so much is added to the delay. Order is kept: that is `reorder`'s business.
    pub jitter: Duration,
    /// How packets are lost.
    pub loss: Loss,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that a byte of a packet is changed.
    pub corrupt: f64,
    /// Probability that a packet is late by up to twice the latency, so that later ones overtake it.
    pub reorder: f64,
    /// What the link lets through; nothing is waited for where there is no limit.
    pub bandwidth: Option<Bandwidth>,
    /// The largest IP packet that gets through; larger ones vanish without a word.
    pub mtu: u64,
    /// Probability that a packet that can carry a congestion mark gets one, whatever the queue does.
    pub mark: f64,
}

impl Default for Conditions {
    /// A good link: 5 ms, Ethernet's MTU, nothing lost.
    fn default() -> Self {
        Conditions {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: Loss::Independent(0.0),
            duplicate: 0.0,
            corrupt: 0.0,
            reorder: 0.0,
            bandwidth: None,
            mtu: 1_500,
            mark: 0.0,
        }
    }
}

impl Conditions {
    /// A good link with a one-way delay.
    pub fn latency(latency: Duration) -> Self {
        Conditions { latency, ..Conditions::default() }
    }

    /// The same link with independent losses.
    pub fn with_loss(self, probability: f64) -> Self {
        Conditions { loss: Loss::Independent(probability), ..self }
    }

    /// The same link with a bottleneck.
    pub fn with_bandwidth(self, bandwidth: Bandwidth) -> Self {
        Conditions { bandwidth: Some(bandwidth), ..self }
    }

    /// The same link with the packet faults of a run's swarm configuration.
    pub fn with_swarm(self, swarm: Swarm) -> Self {
        let level = |fault| swarm.level(fault);
        let burst = Level::of(
            level(Fault::Burst),
            None,
            Some(Loss::Bursts { every: MS * 800, lasts: MS * 5, lost: 0.8 }),
            Some(Loss::Bursts { every: MS * 200, lasts: MS * 20, lost: 0.9 }),
        );
        let single = Loss::Independent(level(Fault::Loss).of(0.0, 0.005, 0.05));
        let slow = Bandwidth::mbit(20, Duration::from_millis(50));
        let narrow = Bandwidth::mbit(4, Duration::from_millis(30));
        let (slow, narrow) =
            if swarm.coin("CoDel") { (slow.with_codel(), narrow.with_codel()) } else { (slow, narrow) };
        Conditions {
            loss: burst.unwrap_or(single),
            duplicate: level(Fault::Duplicate).of(0.0, 0.005, 0.05),
            corrupt: level(Fault::Corrupt).of(0.0, 0.002, 0.02),
            reorder: level(Fault::Reorder).of(0.0, 0.01, 0.1),
            bandwidth: level(Fault::Queue).of(self.bandwidth, Some(slow), Some(narrow)),
            mtu: level(Fault::Blackhole).of(self.mtu, 1_400, 1_280),
            mark: level(Fault::Mark).of(0.0, 0.01, 0.2),
            ..self
        }
    }

    /// The faults that can act under these conditions.
    pub(super) fn faults(&self) -> impl Iterator<Item = Fault> {
        let (single, burst) = match self.loss {
            Loss::Independent(p) => (p > 0.0, false),
            Loss::Bursts { lasts, lost, .. } => (false, !lasts.is_zero() && lost > 0.0),
        };
        [
            (single, Fault::Loss),
            (burst, Fault::Burst),
            (self.duplicate > 0.0, Fault::Duplicate),
            (self.corrupt > 0.0, Fault::Corrupt),
            (self.reorder > 0.0, Fault::Reorder),
            (self.bandwidth.is_some(), Fault::Queue),
            (self.mark > 0.0, Fault::Mark),
            (self.mtu < 1_500, Fault::Blackhole),
        ]
        .into_iter()
        .filter_map(|(armed, fault)| armed.then_some(fault))
    }
}

/// Whether a link lets packets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Flow {
    #[default]
    Open,
    /// What enters is gone.
    Cut,
    /// What enters waits for the release.
    Held,
}

/// What a link has to say about a packet.
#[derive(Debug)]
pub(super) enum Step {
    /// Something happened to it.
    Fate(Fate, Packet),
    /// It arrives, perhaps changed.
    Arrives(Duration, Packet),
}

/// What a link draws from.
#[derive(Debug, Clone)]
struct Chance {
    rng: Rng,
    bad: bool,
    /// When the link turns from good to bad, or back.
    turns: Duration,
}

/// One direction between two hosts.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conditions: Conditions,
    pub(super) flow: Flow,
    chance: Chance,
    queue: Queue,
    held: Vec<Packet>,
    /// When the latest packet in order arrives: none may come before it.
    latest: Duration,
}

impl Link {
    pub(super) fn new(conditions: Conditions, rng: Rng) -> Self {
        let (queue, held, latest) = (Queue::default(), Vec::new(), Duration::ZERO);
        let chance = Chance { rng, bad: true, turns: Duration::ZERO };
        Link { conditions, flow: Flow::Open, chance, queue, held, latest }
    }

    /// Takes a packet at `now` and adds to `out` what becomes of it.
    pub(super) fn carry(&mut self, now: Duration, mut packet: Packet, faults: &Ledger, out: &mut Vec<Step>) {
        match self.flow {
            Flow::Open => {}
            Flow::Cut => {
                faults.fired(Fault::Cut);
                return out.push(Step::Fate(Fate::Cut, packet));
            }
            Flow::Held => {
                faults.fired(Fault::Hold);
                out.push(Step::Fate(Fate::Held, packet.clone()));
                return self.held.push(packet);
            }
        }
        // Where a mask spares a packet that would be gone, the rest of its way is drawn from a copy, and what the other
        // packets meet stays as it is.
        let mut after = None;
        let bytes = packet.wire_bytes();
        if bytes > self.conditions.mtu {
            if faults.acts(Fault::Blackhole) {
                return out.push(Step::Fate(Fate::TooLarge, packet));
            }
            after.get_or_insert_with(|| self.chance.clone());
        }
        if let Some(fault) = self.loses(now) {
            if faults.acts(fault) {
                return out.push(Step::Fate(Fate::Lost, packet));
            }
            after.get_or_insert_with(|| self.chance.clone());
        }
        if self.chance.rng.chance(self.conditions.corrupt) {
            let corrupted = self.corrupted(packet.payload.bytes());
            if faults.acts(Fault::Corrupt) {
                packet.payload = corrupted;
                out.push(Step::Fate(Fate::Corrupted, packet.clone()));
            }
        }
        let markable = packet.is_markable();
        let mut leaves = now;
        let mut mark = markable && self.chance.rng.chance(self.conditions.mark);
        if let Some(bandwidth) = &self.conditions.bandwidth {
            match self.queue.offer(bandwidth, now, bytes, markable) {
                Verdict::Dropped if faults.acts(Fault::Queue) => {
                    return out.push(Step::Fate(Fate::QueueDropped, packet));
                }
                Verdict::Dropped => {
                    after.get_or_insert_with(|| self.chance.clone());
                }
                Verdict::Leaves { at, signal } => {
                    leaves = at;
                    mark |= signal;
                }
            }
        }
        if mark && faults.acts(Fault::Mark) {
            packet.mark();
            out.push(Step::Fate(Fate::Marked, packet.clone()));
        }
        let latency = self.conditions.latency;
        let rng = &mut self.chance.rng;
        let jitter = rng.duration(Duration::ZERO..self.conditions.jitter);
        let mut arrives = leaves + latency + jitter;
        let late = rng.chance(self.conditions.reorder).then(|| rng.duration(Duration::ZERO..latency * 2));
        match late.filter(|_| faults.acts(Fault::Reorder)) {
            Some(late) => arrives += late,
            None => {
                arrives = arrives.max(self.latest);
                self.latest = arrives;
            }
        }
        let again = rng.chance(self.conditions.duplicate).then(|| rng.duration(Duration::ZERO..latency));
        if let Some(again) = again.filter(|_| faults.acts(Fault::Duplicate)) {
            out.push(Step::Fate(Fate::Duplicated, packet.clone()));
            out.push(Step::Arrives(arrives + again, Packet { copy: true, ..packet.clone() }));
        }
        out.push(Step::Arrives(arrives, packet));
        if let Some(after) = after {
            self.chance = after;
        }
    }

    /// Opens the link and sends what it held.
    pub(super) fn open(&mut self, now: Duration, faults: &Ledger, out: &mut Vec<Step>) {
        self.flow = Flow::Open;
        for packet in std::mem::take(&mut self.held) {
            self.carry(now, packet, faults, out);
        }
    }

    fn loses(&mut self, now: Duration) -> Option<Fault> {
        let Chance { rng, bad, turns } = &mut self.chance;
        match self.conditions.loss {
            Loss::Independent(p) => rng.chance(p).then_some(Fault::Loss),
            Loss::Bursts { every, lasts, lost } => {
                while *turns <= now {
                    *bad = !*bad;
                    let mean = if *bad { lasts } else { every };
                    *turns += rng.duration(MS / 10..(mean * 2).max(MS));
                }
                (*bad && rng.chance(lost)).then_some(Fault::Burst)
            }
        }
    }

    fn corrupted(&mut self, bytes: &Bytes) -> Hashed {
        let mut changed = bytes.to_vec();
        let index = self.chance.rng.below(changed.len() as u64) as usize;
        let flip = self.chance.rng.range(1..256) as u8;
        if let Some(byte) = changed.get_mut(index) {
            *byte ^= flip;
        }
        Hashed::new(changed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    fn packet(size: usize) -> Packet {
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let payload = Hashed::new(vec![7; size].into());
        Packet {
            protocol: Protocol::Udp,
            source,
            destination,
            ecn: Some(EcnCodepoint::Ect0),
            payload,
            copy: false,
        }
    }

    /// Sends `count` packets, one each millisecond, and returns arrivals (by sending order) and fates.
    fn run(conditions: Conditions, count: u32) -> (Vec<(Duration, Packet)>, Vec<Fate>) {
        let mut link = Link::new(conditions, Seed(1).stream("link"));
        let (mut arrivals, mut fates) = (Vec::new(), Vec::new());
        for n in 0..count {
            let mut steps = Vec::new();
            link.carry(Duration::from_millis(n.into()), packet(100), &Ledger::default(), &mut steps);
            for step in steps {
                match step {
                    Step::Arrives(at, packet) => arrivals.push((at, packet)),
                    Step::Fate(fate, _) => fates.push(fate),
                }
            }
        }
        (arrivals, fates)
    }

    #[test]
    fn loss_is_as_frequent_as_asked_and_bursts_are_bursts() {
        let (_, fates) = run(Conditions::default().with_loss(0.1), 10_000);
        assert!((850..1_150).contains(&fates.len()), "{}", fates.len());

        let bursts = Loss::Bursts { every: MS * 100, lasts: MS * 10, lost: 1.0 };
        let (arrivals, fates) = run(Conditions { loss: bursts, ..Conditions::default() }, 20_000);
        // One burst in 110 ms, ten packets long: about one packet in eleven.
        assert!((1_300..2_400).contains(&fates.len()), "{}", fates.len());
        let gaps =
            arrivals.windows(2).filter(|pair| pair[1].0 - pair[0].0 > Duration::from_millis(1)).count();
        assert!(gaps * 5 < fates.len(), "{gaps} gaps for {} losses", fates.len());
    }

    #[test]
    fn each_fault_does_what_its_name_says() {
        let base = Conditions::default();
        let (arrivals, _) = run(Conditions { duplicate: 1.0, ..base }, 10);
        assert_eq!(arrivals.len(), 20);
        let (arrivals, _) = run(Conditions { corrupt: 1.0, ..base }, 10);
        let flipped = |p: &Packet| p.payload.bytes().iter().filter(|byte| **byte != 7).count();
        assert!(arrivals.iter().all(|(_, packet)| flipped(packet) == 1));
        let (arrivals, _) = run(Conditions { mark: 1.0, ..base }, 10);
        assert!(arrivals.iter().all(|(_, packet)| packet.ecn == Some(EcnCodepoint::Ce)));
        let (arrivals, fates) = run(Conditions { mtu: 127, ..base }, 10);
        assert!(arrivals.is_empty() && fates == [Fate::TooLarge; 10]);
        let (arrivals, _) = run(Conditions { mtu: 128, ..base }, 10);
        assert_eq!(arrivals.len(), 10);

        let sorted = |arrivals: &[(Duration, Packet)]| arrivals.is_sorted_by_key(|(at, _)| *at);
        let (arrivals, _) = run(Conditions { jitter: Duration::from_millis(50), ..base }, 100);
        assert!(sorted(&arrivals));
        let (arrivals, _) = run(Conditions { reorder: 0.2, ..base }, 100);
        assert!(!sorted(&arrivals));
    }

    #[test]
    fn what_was_held_comes_after_the_release_in_order() {
        let mut link = Link::new(Conditions::default(), Seed(1).stream("link"));
        let mut steps = Vec::new();
        link.flow = Flow::Held;
        for size in [1, 2, 3] {
            link.carry(Duration::ZERO, packet(size), &Ledger::default(), &mut steps);
        }
        link.open(Duration::from_secs(9), &Ledger::default(), &mut steps);
        let arrivals: Vec<_> = steps
            .into_iter()
            .filter_map(|step| match step {
                Step::Arrives(at, packet) => Some((at, packet.payload.bytes().len())),
                _ => None,
            })
            .collect();
        let at = Duration::from_millis(9_005);
        assert_eq!(arrivals, [(at, 1), (at, 2), (at, 3)]);
    }
}
