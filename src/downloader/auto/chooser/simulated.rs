//! The chooser on simulated paths and simulated time: requests of one size, eight under way.

use super::{AutoSettings, Chooser, End, Step, Turn};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const PIECE: f64 = 1e6;
const AT_ONCE: usize = 8;
/// How long it takes to find that nobody answers.
const CONNECT: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);

/// How a path is in some span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    /// Everything that is sent is lost.
    Blocked,
    /// Bytes a second, after a round trip.
    Fair(f64),
}

#[derive(Debug, Clone)]
struct Path {
    round_trip: Duration,
    /// The weather from each time on.
    weather: Vec<(Duration, Weather)>,
}

impl Path {
    fn fair(rate: f64) -> Self {
        Self::of(&[(0, Weather::Fair(rate))])
    }

    fn blocked() -> Self {
        Self::of(&[(0, Weather::Blocked)])
    }

    fn of(weather: &[(u64, Weather)]) -> Self {
        let weather = weather.iter().map(|(from, it)| (Duration::from_secs(*from), *it)).collect();
        Self { round_trip: Duration::from_millis(20), weather }
    }

    fn is_open(&self) -> bool {
        self.at(Duration::ZERO) != Weather::Blocked
    }

    fn at(&self, time: Duration) -> Weather {
        self.weather.iter().rev().find(|(from, _)| *from <= time).map_or(Weather::Blocked, |(_, it)| *it)
    }
}

struct Flight {
    way: usize,
    asked: Duration,
    got: f64,
    progressed: Duration,
}

#[derive(Default)]
struct Seen {
    /// When each way was opened, and whether it could be.
    opened: Vec<(Duration, usize)>,
    /// Pieces by way.
    pieces: BTreeMap<usize, u32>,
    /// When the last piece came.
    took: Duration,
    failed: u32,
}

/// Fetches so many pieces. A request that has been silent for `patience` is given up, as the plan does.
fn fetch(paths: &[Path], pieces: u32, patience: Duration) -> Seen {
    #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
    let begin = Instant::now();
    let mut chooser = Chooser::new(AutoSettings::default(), paths.iter().map(|_| true));
    let (mut now, mut left, mut seen) = (Duration::ZERO, pieces, Seen::default());
    let mut opening: BTreeMap<usize, Duration> = BTreeMap::new();
    let mut flights: Vec<Flight> = Vec::new();
    let mut turns: Vec<(Turn, Duration)> = Vec::new();
    while left > 0 {
        assert!(now < Duration::from_secs(4000), "it hangs");
        while flights.len() + turns.len() < AT_ONCE.min(left as usize) {
            turns.push((Turn::default(), now));
        }
        let mut waiting = Vec::new();
        for (mut turn, from) in turns.drain(..) {
            if from > now {
                waiting.push((turn, from));
                continue;
            }
            loop {
                match chooser.next(&mut turn, begin + now) {
                    Step::Open(way) => {
                        assert!(opening.insert(way, now).is_none(), "opened twice at a time");
                        seen.opened.push((now, way));
                    }
                    Step::Ask(way) => {
                        flights.push(Flight { way, asked: now, got: 0.0, progressed: now });
                        break;
                    }
                    Step::Wait(until) => {
                        assert!(until.is_none_or(|until| until > begin + now));
                        assert!(!opening.is_empty(), "nothing to wait for");
                        waiting.push((turn, now));
                        break;
                    }
                    Step::Failed(errors) => {
                        assert_eq!(errors.len(), paths.len(), "not every way was tried");
                        seen.failed += 1;
                        waiting.push((Turn::default(), now + Duration::from_secs(1)));
                        break;
                    }
                }
            }
        }
        turns = waiting;
        now += STEP;
        opening.retain(|way, since| {
            let weather = paths[*way].at(*since);
            match weather {
                Weather::Fair(_) if now >= *since + paths[*way].round_trip => {
                    chooser.opened(*way, Ok(()), begin + now);
                    false
                }
                Weather::Blocked if now >= *since + CONNECT => {
                    chooser.opened(*way, Err("blocked"), begin + now);
                    false
                }
                _ => true,
            }
        });
        // Requests over one way share its rate.
        let mut users: BTreeMap<usize, f64> = BTreeMap::new();
        flights.iter().for_each(|flight| *users.entry(flight.way).or_default() += 1.0);
        let mut kept = Vec::new();
        for mut flight in flights {
            let path = &paths[flight.way];
            if let Weather::Fair(rate) = path.at(now)
                && now >= flight.asked + path.round_trip
            {
                if flight.got == 0.0 {
                    chooser.answered(flight.way, begin + now - STEP);
                }
                let bytes = rate / users[&flight.way] * STEP.as_secs_f64();
                flight.got += bytes;
                flight.progressed = now;
                chooser.received(flight.way, bytes as u64, begin + now);
                if let Some(way) = chooser.open(begin + now) {
                    assert!(opening.insert(way, now).is_none(), "opened twice at a time");
                    seen.opened.push((now, way));
                }
            }
            if flight.got >= PIECE {
                chooser.ended(flight.way, End::Answered, || "silent", begin + now);
                *seen.pieces.entry(flight.way).or_default() += 1;
                left -= 1;
            } else if now >= flight.progressed + patience {
                chooser.ended(flight.way, End::GivenUp, || "silent", begin + now);
            } else {
                kept.push(flight);
            }
        }
        flights = kept;
    }
    Seen { took: now, ..seen }
}

const PATIENCE: Duration = Duration::from_secs(3);

fn alone(path: &Path, pieces: u32) -> Duration {
    fetch(std::slice::from_ref(path), pieces, PATIENCE).took
}

/// What a transfer over paths that stay as they are does, and what it may take: a quarter more than the best way alone,
/// the time to find it, and the requests on others until then.
fn compared(paths: &[Path], pieces: u32) -> (Seen, Duration) {
    let open: Vec<&Path> = paths.iter().filter(|path| path.is_open()).collect();
    let best = open.iter().map(|path| alone(path, pieces)).min().unwrap();
    let time = |path: &&Path| match path.at(Duration::ZERO) {
        Weather::Fair(rate) => Duration::from_secs_f64(PIECE / rate),
        Weather::Blocked => Duration::ZERO,
    };
    // The first requests on whatever is open first, as many while the next way is measured, and one that measures
    // each. A transfer asks for these a second time once they are late, and this loop does not.
    let times = || open.iter().map(time);
    let unknown = times().max().unwrap_or_default() * 2 * AT_ONCE as u32 + times().sum::<Duration>();
    let round_trips: Duration = open.iter().map(|path| path.round_trip * 2).sum();
    let allowed = best.mul_f64(1.25) + AutoSettings::default().head_start * 2 + unknown + round_trips;
    (fetch(paths, pieces, PATIENCE), allowed)
}

fn steady(round_trip: u64, weather: Weather) -> Path {
    Path { round_trip: Duration::from_millis(round_trip), weather: vec![(Duration::ZERO, weather)] }
}

/// It had lost to one that was slower by 40 %: the wait for its first byte was taken for what it brings.
#[test]
fn a_long_way_is_not_judged_by_its_first_round_trip() {
    let paths = [steady(251, Weather::Fair(65_752_874.7)), steady(51, Weather::Fair(14_637_796.3))];
    let (seen, allowed) = compared(&paths, 191);
    assert!(seen.took <= allowed, "{:?} > {allowed:?}: {:?}", seen.took, seen.pieces);
    assert!(seen.pieces[&0] > 95, "{:?}", seen.pieces);
}

/// It had kept the third one waiting until it was given up.
#[test]
fn a_blocked_way_holds_the_next_one_up_for_its_head_start_only() {
    let paths = [
        steady(81, Weather::Fair(8_847_400.0)),
        steady(1, Weather::Blocked),
        steady(1, Weather::Fair(89_845_006.6)),
    ];
    let (seen, allowed) = compared(&paths, 23);
    assert!(seen.took <= allowed, "{:?} > {allowed:?}: {:?}", seen.took, seen.pieces);
    assert!(seen.pieces.contains_key(&2), "{:?}", seen.pieces);
}

#[test]
fn who_is_open_first_and_preferred_takes_a_short_transfer_alone() {
    let seen = fetch(&[Path::fair(1e8), Path::fair(1e8)], 3, PATIENCE);
    assert_eq!((seen.opened, seen.pieces), (vec![(Duration::ZERO, 0)], BTreeMap::from([(0, 3)])));
}

#[test]
fn the_second_way_is_tried_after_the_head_start_of_the_first() {
    let seen = fetch(&[Path::blocked(), Path::fair(1e7)], 40, PATIENCE);
    assert_eq!(seen.opened[..2], [(Duration::ZERO, 0), (AutoSettings::default().head_start, 1)]);
    assert_eq!(seen.pieces, BTreeMap::from([(1, 40)]));
    assert_eq!(seen.failed, 0);
}

#[test]
fn the_faster_way_gets_nearly_everything_in_whatever_place() {
    for (paths, fast) in [([1e7, 5e7], 1), ([5e7, 1e7], 0), ([1e6, 5e7], 1), ([5e7, 1e6], 0)] {
        let paths = paths.map(Path::fair);
        let seen = fetch(&paths, 1000, PATIENCE);
        assert!(seen.pieces[&fast] > 950, "{:?} {:?}", paths, seen.pieces);
    }
}

#[test]
fn a_way_that_is_blocked_midway_is_left_and_found_again() {
    let first = Path::of(&[(0, Weather::Fair(5e7)), (4, Weather::Blocked), (60, Weather::Fair(5e7))]);
    let seen = fetch(&[first, Path::fair(1e7)], 4000, PATIENCE);
    let tries: Vec<_> = seen.opened.iter().filter(|(_, way)| *way == 0).map(|(at, _)| at.as_secs()).collect();
    // Again and again while it is blocked, later each time, and once more when it was open.
    assert!(tries.len() >= 4 && tries.iter().is_sorted(), "{tries:?}");
    assert!(*tries.last().unwrap() >= 60);
    let after = seen.pieces[&0];
    // What it gave in 4 seconds, and again at the end.
    assert!(after > 1000, "{:?}", seen.pieces);
    // 20 pieces a second at least, and 100 while both are open, but for the time that it takes to notice.
    assert!(seen.took < Duration::from_secs(220), "{:?}", seen.took);
}

#[test]
fn nothing_is_open_for_a_while() {
    let path = || Path::of(&[(0, Weather::Blocked), (30, Weather::Fair(1e7))]);
    let seen = fetch(&[path(), path()], 20, PATIENCE);
    assert!(seen.failed > 0, "requests have to be told");
    assert!(seen.took < Duration::from_secs(40), "{:?}", seen.took);
}

fn path() -> impl Strategy<Value = Path> {
    let rate = prop_oneof![4 => (6.0f64..8.0).prop_map(|power| 10f64.powf(power)), 1 => Just(0.0)];
    (1u64..300, rate).prop_map(|(round_trip, rate)| {
        let weather = if rate == 0.0 { Weather::Blocked } else { Weather::Fair(rate) };
        steady(round_trip, weather)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Within what [`compared`] allows.
    #[test]
    fn never_much_slower_than_the_best_way_alone(
        paths in prop::collection::vec(path(), 1..4),
        pieces in 1u32..300,
    ) {
        prop_assume!(paths.iter().any(Path::is_open));
        let (seen, allowed) = compared(&paths, pieces);
        prop_assert!(seen.took <= allowed, "{:?} > {:?}: {:?}", seen.took, allowed, seen.pieces);
        prop_assert_eq!(seen.pieces.values().sum::<u32>(), pieces);
        prop_assert_eq!(seen.failed, 0);
    }

    /// Whatever the weather: it ends once a way is open for good, and no way is used that was not opened.
    #[test]
    fn any_weather_is_survived(
        weather in prop::collection::vec(prop::collection::vec((1u64..40, prop::bool::ANY), 0..5), 1..4),
        pieces in 1u32..200,
    ) {
        let path = |spans: &Vec<(u64, bool)>| {
            let (mut at, mut weather) = (0, Vec::new());
            for (span, open) in spans {
                let it = if *open { Weather::Fair(3e6) } else { Weather::Blocked };
                weather.push((Duration::from_secs(at), it));
                at += span;
            }
            weather.push((Duration::from_secs(at), Weather::Fair(3e6)));
            Path { round_trip: Duration::from_millis(30), weather }
        };
        let paths: Vec<Path> = weather.iter().map(path).collect();
        let seen = fetch(&paths, pieces, PATIENCE);
        let opened: BTreeSet<usize> = seen.opened.iter().map(|(_, way)| *way).collect();
        prop_assert!(seen.pieces.keys().all(|way| opened.contains(way)));
        let worst: u64 = weather.iter().flatten().map(|(span, _)| span).sum();
        let allowed = Duration::from_secs(worst + 60) + Duration::from_secs_f64(f64::from(pieces) * PIECE / 3e6) * 2;
        prop_assert!(seen.took < allowed, "{:?} {:?}", seen.took, allowed);
    }
}
