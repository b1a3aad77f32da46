//! A plan against simulated peers, on a simulated clock.

use super::{Fault, Order, Plan, PlanSettings, SILENT, Standing, Step};
use crate::store::PieceSet;
use crate::wire::{Division, PieceLength};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Honest,
    /// No connection.
    Dead,
    /// The content never has its digest.
    Liar,
    /// The connection breaks in the middle of every answer.
    Breaking,
    /// Half a piece, then silence.
    Silent,
    /// Only every second piece.
    Partial,
    /// No connection before this many milliseconds.
    Late(u64),
    /// No piece before this many milliseconds.
    Fetching(u64),
    /// The identity is refused.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct Behaviour {
    kind: Kind,
    /// Bytes a second for each request.
    rate: u64,
    /// Milliseconds to the first byte.
    latency: u64,
}

struct Flying {
    peer: usize,
    number: u32,
    asked_at: Instant,
    answers_at: Instant,
    ends_at: Instant,
    /// How it ends; `None`: never by itself.
    outcome: Option<Result<(), Fault>>,
    answered: bool,
    committing: bool,
}

struct World {
    plan: Plan,
    order: Order,
    /// The second in which peers have last said what they hold, from 1 on.
    told: u64,
    settings: PlanSettings,
    division: Division,
    behaviours: Vec<Behaviour>,
    start: Instant,
    now: Instant,
    flying: BTreeMap<u64, Flying>,
    committed: BTreeSet<u32>,
    given_up: BTreeSet<usize>,
    asked: BTreeSet<(u32, usize)>,
    lied: BTreeSet<(u32, usize)>,
    by_peer: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Stuck,
}

impl World {
    fn new(settings: PlanSettings, pieces: u64, piece_length: u64, behaviours: Vec<Behaviour>) -> Self {
        Self::ordered(settings, pieces, piece_length, behaviours, Order::Ascending)
    }

    fn ordered(
        settings: PlanSettings,
        pieces: u64,
        piece_length: u64,
        behaviours: Vec<Behaviour>,
        order: Order,
    ) -> Self {
        #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
        let start = Instant::now();
        let division =
            Division::new(pieces * piece_length, PieceLength::try_from(piece_length).unwrap()).unwrap();
        let missing: PieceSet = (0..u32::try_from(pieces).unwrap()).collect();
        Self {
            plan: Plan::new(settings, division, missing, behaviours.iter().map(|_| false), order),
            order,
            told: 0,
            settings,
            division,
            by_peer: vec![0; behaviours.len()],
            behaviours,
            start,
            now: start,
            flying: BTreeMap::new(),
            committed: BTreeSet::new(),
            given_up: BTreeSet::new(),
            asked: BTreeSet::new(),
            lied: BTreeSet::new(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn length(&self, number: u32) -> u64 {
        self.division.piece(number).unwrap().length.into()
    }

    fn run(&mut self) -> Result<End, TestCaseError> {
        for _ in 0..200_000 {
            self.arrivals()?;
            let wake = loop {
                match self.plan.next(self.now) {
                    Step::Ask { flight, peer, number, .. } => self.ask(flight, peer, number)?,
                    Step::Stalled { flight } => {
                        let flying = self.flying.remove(&flight).expect("a flight that is known");
                        self.fail(flight, &flying, Fault::Failed);
                    }
                    Step::Wait(wake) => break wake,
                    Step::Stuck(_) => return Ok(End::Stuck),
                    Step::Done => return Ok(End::Done),
                }
            };
            let events = self.flying.values().filter_map(|flying| match flying {
                Flying { answered: false, answers_at, .. } => Some(*answers_at),
                Flying { outcome: Some(_), ends_at, .. } => Some(*ends_at),
                _ => None,
            });
            let next_tell =
                (self.order != Order::Ascending).then(|| self.start + Duration::from_secs(self.told));
            let next = events.chain(wake).chain(next_tell).min();
            prop_assert!(next.is_some(), "nothing will ever happen");
            prop_assert!(wake.is_none_or(|wake| wake > self.now), "woken for nothing");
            self.now = next.unwrap().max(self.now);
        }
        Err(TestCaseError::fail("no end in sight"))
    }

    fn ask(&mut self, flight: u64, peer: usize, number: u32) -> Result<(), TestCaseError> {
        prop_assert!(!self.committed.contains(&number), "a piece that is there");
        prop_assert!(!self.given_up.contains(&peer), "a peer that was given up");
        let same = self.flying.values().filter(|flying| flying.number == number);
        prop_assert!(same.clone().all(|flying| flying.peer != peer));
        let at_peer = self.flying.values().filter(|flying| flying.peer == peer && !flying.committing).count();
        let expected = |flying: &&Flying| {
            let last = if !flying.answered {
                flying.asked_at
            } else if flying.outcome.is_none() {
                self.now.min(flying.answers_at + (flying.ends_at - flying.answers_at) / 2)
            } else {
                self.now
            };
            flying.committing || self.now < last + SILENT
        };
        let expected = self.flying.values().filter(expected).count();
        prop_assert!(at_peer < self.settings.per_peer && expected < self.settings.concurrency);
        //= VTX-SEC-008 test
        if self.lied.contains(&(number, peer)) {
            for other in 0..self.behaviours.len() {
                let tried = other == peer || self.asked.contains(&(number, other));
                prop_assert!(tried || self.given_up.contains(&other), "{other} was never asked");
            }
        }
        self.asked.insert((number, peer));
        let Behaviour { kind, rate, latency } = self.behaviours[peer];
        let latency = Duration::from_millis(latency);
        let answers_at = self.now + latency;
        let content = Duration::from_secs_f64(self.length(number) as f64 / rate as f64);
        let fails = |fault, after| (self.now + after, Some(Err(fault)));
        let late = |kind| matches!(kind, Kind::Late(from) if self.elapsed() < Duration::from_millis(from));
        let (ends_at, outcome) = match kind {
            Kind::Dead => fails(Fault::Failed, Duration::from_secs(2)),
            Kind::Refused => fails(Fault::Useless, latency),
            kind if late(kind) => fails(Fault::Failed, latency),
            Kind::Fetching(from) if self.elapsed() < Duration::from_millis(from) => {
                fails(Fault::Missing, latency)
            }
            Kind::Partial if number % 2 == 1 => fails(Fault::Missing, latency),
            Kind::Liar => fails(Fault::Lie, latency + content),
            Kind::Breaking => fails(Fault::Broken, latency + content / 2),
            Kind::Silent => (answers_at + content, None),
            Kind::Honest | Kind::Partial | Kind::Late(_) | Kind::Fetching(_) => {
                (answers_at + content, Some(Ok(())))
            }
        };
        let flying = Flying {
            peer,
            number,
            asked_at: self.now,
            answers_at,
            ends_at,
            outcome,
            answered: false,
            committing: false,
        };
        self.flying.insert(flight, flying);
        Ok(())
    }

    fn fail(&mut self, flight: u64, flying: &Flying, fault: Fault) {
        if matches!(fault, Fault::Lie | Fault::Broken) {
            self.lied.insert((flying.number, flying.peer));
        }
        if self.plan.failed(flight, fault, self.now) == Standing::GivenUp {
            self.given_up.insert(flying.peer);
        }
    }

    /// Peers that are fine say what they hold, once a second: in a swarm they are asked.
    fn tell(&mut self) {
        let second = self.elapsed().as_secs() + 1;
        if self.order == Order::Ascending || self.told == second {
            return;
        }
        self.told = second;
        let pieces = 0..u32::try_from(self.division.pieces()).unwrap();
        for (peer, behaviour) in self.behaviours.iter().enumerate() {
            let held: PieceSet = match behaviour.kind {
                Kind::Honest => pieces.clone().collect(),
                Kind::Partial => pieces.clone().filter(|number| number % 2 == 0).collect(),
                Kind::Fetching(from) if self.elapsed() < Duration::from_millis(from) => PieceSet::new(),
                Kind::Fetching(_) => pieces.clone().collect(),
                _ => continue,
            };
            self.plan.holds(peer, pieces.clone(), &held, self.now);
        }
    }

    /// What has happened up to now.
    fn arrivals(&mut self) -> Result<(), TestCaseError> {
        self.tell();
        for flight in self.flying.keys().copied().collect::<Vec<_>>() {
            let Some(flying) = self.flying.get_mut(&flight) else { continue };
            let ended = flying.outcome.filter(|_| flying.ends_at <= self.now);
            if !flying.answered && flying.answers_at <= self.now && !matches!(ended, Some(Err(_))) {
                flying.answered = true;
                self.plan.answered(flight, self.now);
            }
            if flying.answered && !flying.committing {
                let length = self.division.piece(flying.number).unwrap().length;
                let whole = (flying.ends_at - flying.answers_at).as_secs_f64().max(1e-9);
                let share = ((self.now - flying.answers_at).as_secs_f64() / whole).min(1.0);
                let most = if flying.outcome.is_none() { 0.5 } else { 1.0 };
                self.plan.progress(
                    flight,
                    (f64::from(length.get()) * share.min(most)) as u64,
                    false,
                    self.now,
                );
            }
            match ended {
                None => {}
                Some(Err(fault)) => {
                    let flying = self.flying.remove(&flight).unwrap();
                    self.fail(flight, &flying, fault);
                }
                Some(Ok(())) if flying.committing => {
                    let flying = self.flying.remove(&flight).unwrap();
                    self.plan.committed(flight, self.now);
                    self.by_peer[flying.peer] += 1;
                    prop_assert!(self.committed.insert(flying.number), "committed twice");
                }
                Some(Ok(())) => match self.plan.verified(flight, self.now) {
                    Some(losers) => {
                        // The disk takes its time, and others may become complete meanwhile.
                        flying.committing = true;
                        flying.ends_at = self.now + Duration::from_millis(5);
                        losers.iter().for_each(|loser| {
                            self.flying.remove(loser);
                        });
                    }
                    None => {
                        self.flying.remove(&flight);
                    }
                },
            }
            let known = self.committed.len() as u64 + self.plan.missing();
            prop_assert_eq!(known, self.division.pieces());
        }
        Ok(())
    }
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let kind = prop_oneof![
        3 => Just(Kind::Honest),
        1 => Just(Kind::Dead),
        1 => Just(Kind::Liar),
        1 => Just(Kind::Silent),
        1 => Just(Kind::Breaking),
        1 => Just(Kind::Partial),
        1 => (0u64..5_000).prop_map(Kind::Late),
        1 => (0u64..20_000).prop_map(Kind::Fetching),
        1 => Just(Kind::Refused),
    ];
    (kind, 1_000u64..200_000_000, 0u64..800).prop_map(|(kind, rate, latency)| Behaviour {
        kind,
        rate,
        latency,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Every piece arrives once as long as one honest peer lives, whatever the others do; without one the end comes too.
    #[test]
    fn a_transfer_ends_and_ends_well_with_one_honest_peer(
        pieces in 1u64..40,
        piece_length in 1u64..2_000_000,
        concurrency in 1usize..12,
        per_peer in 1usize..6,
        behaviours in prop::collection::vec(behaviour(), 1..7),
        rarest in any::<Option<u64>>(),
    ) {
        let settings = PlanSettings { concurrency, per_peer, ..PlanSettings::default() };
        let honest = behaviours.iter().any(|behaviour| matches!(behaviour.kind, Kind::Honest));
        let order = rarest.map_or(Order::Ascending, Order::Rarest);
        let mut world = World::ordered(settings, pieces, piece_length, behaviours, order);
        let end = world.run()?;
        prop_assert!(end == End::Done || !honest, "{end:?} with {} of {pieces}", world.committed.len());
        prop_assert_eq!(end == End::Done, world.committed.len() as u64 == pieces);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With patience, peers that have nothing yet are waited for, and one that comes back within its attempts is, too.
    #[test]
    fn patience_waits_for_peers_that_fetch_themselves(
        pieces in 1u64..60,
        from in prop::collection::vec(0u64..30_000, 1..5),
        late in 0u64..5_000,
    ) {
        let settings = PlanSettings { patience: Duration::from_secs(40), ..PlanSettings::default() };
        let kinds = from.into_iter().map(Kind::Fetching).chain([Kind::Late(late)]);
        let behaviours = kinds.map(|kind| Behaviour { kind, rate: 1 << 20, latency: 5 }).collect();
        let mut world = World::new(settings, pieces, 1 << 16, behaviours);
        prop_assert_eq!(world.run()?, End::Done);
    }
}

const MIB: u64 = 1 << 20;

fn honest(rate: u64) -> Behaviour {
    Behaviour { kind: Kind::Honest, rate, latency: 10 }
}

fn time(behaviours: Vec<Behaviour>, pieces: u64, piece_length: u64) -> (Duration, Vec<u64>) {
    let mut world = World::new(PlanSettings::default(), pieces, piece_length, behaviours);
    assert_eq!(world.run().unwrap(), End::Done);
    (world.elapsed(), world.by_peer)
}

#[test]
fn peers_give_by_what_they_deliver() {
    let (_, shares) = time(vec![honest(10 * MIB), honest(30 * MIB)], 400, 4 * MIB);
    assert!(shares[1] > 2 * shares[0] && shares[0] > 20, "{shares:?}");
}

#[test]
fn nobody_waits_for_the_slowest() {
    let (alone, _) = time(vec![honest(50 * MIB)], 32, 16 * MIB);
    let (both, shares) = time(vec![honest(MIB / 10), honest(50 * MIB)], 32, 16 * MIB);
    assert!(both < alone * 5 / 4, "{both:?} beside the slow one, {alone:?} without; {shares:?}");
}

#[test]
fn a_dead_and_a_lying_peer_cost_little() {
    let (alone, _) = time(vec![honest(20 * MIB)], 64, 4 * MIB);
    let others = [Kind::Dead, Kind::Liar, Kind::Silent].map(|kind| Behaviour { kind, ..honest(20 * MIB) });
    let (among, _) = time(others.into_iter().chain([honest(20 * MIB)]).collect(), 64, 4 * MIB);
    assert!(among < alone * 3 / 2, "{among:?} among them, {alone:?} without");
}

/// Found by the simulation (`many-peers`, seed 275): the piece was asked for at one that had died and then at one that had
/// fallen silent, and the good peer waited for 30 s beside them.
#[test]
fn a_piece_that_is_asked_for_at_two_silent_peers_is_asked_for_at_a_third() {
    let silent = |rate| Behaviour { kind: Kind::Silent, ..honest(rate) };
    let (among, _) = time(vec![silent(40 * MIB), silent(30 * MIB), honest(MIB)], 12, MIB);
    assert!(among < Duration::from_secs(20), "{among:?}");
}

#[test]
fn a_peer_that_dies_with_every_request_does_not_hold_the_others_up() {
    let settings = PlanSettings { concurrency: 2, ..PlanSettings::default() };
    let silent = Behaviour { kind: Kind::Silent, ..honest(40 * MIB) };
    let mut world = World::new(settings, 64, 4 * MIB, vec![silent, honest(20 * MIB)]);
    assert_eq!(world.run().unwrap(), End::Done);
    assert!(world.elapsed() < settings.stall, "{:?}", world.elapsed());
}

#[test]
fn a_peer_of_which_nothing_can_come_ends_it_soon() {
    let refused = Behaviour { kind: Kind::Refused, ..honest(MIB) };
    let mut world = World::new(PlanSettings::default(), 100, MIB, vec![refused]);
    assert_eq!(world.run().unwrap(), End::Stuck);
    assert!(world.elapsed() < Duration::from_secs(1), "{:?}", world.elapsed());
}
