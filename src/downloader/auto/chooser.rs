//! Which way to a peer is taken: no I/O, and time is an argument.
//!
//! A *way* is a protocol and an address. The ways to a peer are tried in the order of preference, each with a head start
//! over the next, and the first that is open is used. Where more is to do than a moment takes, the others are opened as
//! well, in the same way, and get a few requests each; from then on requests go where most bytes come from. A way that fails, or
//! goes silent, is left alone for a while, twice as long each time, as long as there is another. A way that was worse is
//! measured anew later, twice as late each time.

#[cfg(test)]
mod simulated;

use std::time::{Duration, Instant};

/// How the way to a peer is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoSettings {
    /// How long a way is tried alone, and used alone, before the next one is tried besides.
    ///
    /// 250 ms, as RFC 8305 has it: most round trips, and no time that a person notices.
    pub head_start: Duration,
    /// Silence in the middle of answers, or before them, after which other ways are preferred.
    ///
    /// 2 s, as the connect deadline: a path with such pauses is no good even where it works.
    pub silence: Duration,
    /// How long a way is left alone after its first failure; it doubles with each further one.
    pub pause: Duration,
    /// The longest such pause: a path that was opened is found after so much time.
    pub longest_pause: Duration,
    /// How long it takes before a way that was worse is measured anew; it doubles each time that it is worse again.
    pub remeasure: Duration,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            head_start: Duration::from_millis(250),
            silence: Duration::from_secs(2),
            pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(300),
            remeasure: Duration::from_secs(30),
        }
    }
}

/// Requests under way that measure a way of which nothing is known: it may be the slowest of all.
const MEASURING: usize = 1;
/// By how much another way has to be better than the present one: less is noise.
const BETTER: f64 = 1.25;
/// Seconds over which a rate is averaged.
const MEMORY: f64 = 1.0;
/// Shorter samples say more of the timing of reads than of the path.
const SAMPLE: Duration = Duration::from_millis(200);
/// How soon a way that failed is tried again where no other is of use.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a request does next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step<E> {
    /// Open a way, besides, and report what came of it; then ask for the next step.
    Open(usize),
    /// Ask over this way, and report the end.
    Ask(usize),
    /// Wait until something was reported, or until this time.
    Wait(Option<Instant>),
    /// No way is open, each for its reason.
    Failed(Vec<(usize, E)>),
}

/// What a request has been through.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Whether ways were tried for it: it does not ask for that again.
    tried: bool,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End<E> {
    /// The peer answered, whatever it said.
    Answered,
    /// Nobody wanted the answer any more.
    GivenUp,
    /// The way failed.
    Failed(E),
}

#[derive(Debug)]
enum State<E> {
    Untried,
    Opening { since: Instant },
    Open,
    Closed { until: Instant, tried_at: Instant, error: E },
}

#[derive(Debug)]
struct Way<E> {
    state: State<E>,
    /// Whether content comes as it is received; otherwise the whole of it comes at once, and silence says nothing.
    streams: bool,
    /// Failures since the last answer.
    failures: u32,
    active: usize,
    /// When the last byte came, or the first request of those under way began.
    progressed_at: Option<Instant>,
    /// Bytes a second, over all requests together.
    rate: Option<f64>,
    sampled_from: Option<Instant>,
    sampled: u64,
    /// When to measure anew, and how often it was worse.
    remeasure_at: Option<Instant>,
    worse: u32,
    bytes: u64,
}

/// The ways to one peer.
#[derive(Debug)]
pub(super) struct Chooser<E> {
    settings: AutoSettings,
    ways: Vec<Way<E>>,
    /// Since when a way has been open.
    open_since: Option<Instant>,
    /// The way that requests take.
    present: Option<usize>,
}

impl<E: Clone> Chooser<E> {
    /// Ways in the order of preference, each with whether its content streams.
    pub(super) fn new(settings: AutoSettings, ways: impl IntoIterator<Item = bool>) -> Self {
        let way = |streams| Way {
            state: State::Untried,
            streams,
            failures: 0,
            active: 0,
            progressed_at: None,
            rate: None,
            sampled_from: None,
            sampled: 0,
            remeasure_at: None,
            worse: 0,
            bytes: 0,
        };
        Self { settings, ways: ways.into_iter().map(way).collect(), open_since: None, present: None }
    }

    /// The way that requests take at present.
    pub(super) fn present(&self) -> Option<usize> {
        self.present
    }

    /// Bytes that have come over each way.
    pub(super) fn bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.ways.iter().map(|way| way.bytes)
    }

    /// What a request does at `now`.
    pub(super) fn next(&mut self, turn: &mut Turn, now: Instant) -> Step<E> {
        loop {
            if let Some(index) = self.open(now) {
                turn.tried = true;
                return Step::Open(index);
            }
            if let Some(index) = self.pick(now) {
                self.begin(index, now);
                return Step::Ask(index);
            }
            let opening = self.ways.iter().filter_map(|way| match way.state {
                State::Opening { since } => Some(since + self.settings.head_start),
                _ => None,
            });
            let (mut any, mut wake) = (false, None);
            for started in opening {
                any = true;
                wake = if started > now {
                    Some(wake.map_or(started, |at: Instant| at.min(started)))
                } else {
                    wake
                };
            }
            if any {
                turn.tried = true;
                return Step::Wait(wake);
            }
            if std::mem::replace(&mut turn.tried, true) || self.ways.is_empty() {
                return Step::Failed(self.errors());
            }
            // Nothing is open: whoever asks anew may have all of them tried anew.
            for way in &mut self.ways {
                if let State::Closed { .. } = way.state {
                    way.state = State::Untried;
                }
            }
        }
    }

    /// The way to open now, besides whatever is under way; to be asked whenever something was received.
    pub(super) fn open(&mut self, now: Instant) -> Option<usize> {
        let index = self.due(now)?;
        self.ways.get_mut(index)?.state = State::Opening { since: now };
        Some(index)
    }

    /// Ways that have had their head start and are not open, while requests wait.
    pub(super) fn late(&self, now: Instant) -> Vec<(usize, Duration)> {
        let late = |(index, way): (usize, &Way<E>)| match way.state {
            State::Opening { since } => Some((index, now.saturating_duration_since(since))),
            _ => None,
        };
        let late =
            (0..).zip(&self.ways).filter_map(late).filter(|(_, waited)| *waited >= self.settings.head_start);
        if self.is_served(now) { Vec::new() } else { late.collect() }
    }

    /// What came of opening a way.
    pub(super) fn opened(&mut self, index: usize, outcome: Result<(), E>, now: Instant) {
        match outcome {
            Ok(()) => {
                self.open_since.get_or_insert(now);
                if let Some(way) = self.ways.get_mut(index)
                    && !matches!(way.state, State::Open)
                {
                    way.state = State::Open;
                    // What it was worth before its failure says nothing.
                    (way.rate, way.remeasure_at) = (None, None);
                }
            }
            Err(error) => self.close(index, error, now),
        }
    }

    /// An answer has begun. Where it is the only one, or the first that says anything of the way, what it takes to begin says
    /// nothing of what more of them would bring.
    pub(super) fn answered(&mut self, index: usize, now: Instant) {
        let Some(way) = self.ways.get_mut(index) else { return };
        way.progressed_at = Some(now);
        if way.streams && way.sampled == 0 && (way.active == 1 || way.rate.is_none()) {
            way.sampled_from = Some(now);
        }
    }

    /// Bytes of content have come over a way.
    pub(super) fn received(&mut self, index: usize, bytes: u64, now: Instant) {
        let Some(way) = self.ways.get_mut(index) else { return };
        way.progressed_at = Some(now);
        way.sampled += bytes;
        way.bytes += bytes;
        if way.sampled_from.is_some_and(|from| now.saturating_duration_since(from) >= SAMPLE) {
            way.sample(now);
        }
    }

    /// A request has ended. One that was given up after a silence counts as failed, by `silent`.
    pub(super) fn ended(&mut self, index: usize, end: End<E>, silent: impl FnOnce() -> E, now: Instant) {
        let is_silent = self.is_silent(index, now);
        let Some(way) = self.ways.get_mut(index) else { return };
        way.active = way.active.saturating_sub(1);
        if way.active == 0 || way.rate.is_none() {
            way.sample(now);
        }
        if way.active == 0 {
            (way.sampled_from, way.sampled, way.progressed_at) = (None, 0, None);
        }
        match end {
            End::Answered => way.failures = 0,
            End::GivenUp if is_silent => self.close(index, silent(), now),
            End::GivenUp => {}
            End::Failed(error) => self.close(index, error, now),
        }
    }

    /// Whether a request over this way had better be sent another way: nothing comes over it, and there is a way that has
    /// not failed yet, or has been good since.
    pub(super) fn is_hopeless(&self, index: usize, now: Instant) -> bool {
        let hopeful = |(other, way): (usize, &Way<E>)| {
            other != index
                && way.failures == 0
                && !matches!(way.state, State::Closed { .. })
                && !way.is_silent(self.settings.silence, now)
        };
        self.is_silent(index, now) && (0..).zip(&self.ways).any(hopeful)
    }

    fn begin(&mut self, index: usize, now: Instant) {
        let Some(way) = self.ways.get_mut(index) else { return };
        way.active += 1;
        way.progressed_at.get_or_insert(now);
        way.sampled_from.get_or_insert(now);
    }

    fn close(&mut self, index: usize, error: E, now: Instant) {
        let settings = self.settings;
        let Some(way) = self.ways.get_mut(index) else { return };
        // Requests that fail together fail once.
        if matches!(way.state, State::Closed { .. }) {
            return;
        }
        let pause = settings.pause.saturating_mul(1 << way.failures.min(16)).min(settings.longest_pause);
        way.failures = way.failures.saturating_add(1);
        way.state = State::Closed { until: now + pause, tried_at: now, error };
    }

    fn errors(&self) -> Vec<(usize, E)> {
        let error = |(index, way): (usize, &Way<E>)| match &way.state {
            State::Closed { error, .. } => Some((index, error.clone())),
            _ => None,
        };
        (0..).zip(&self.ways).filter_map(error).collect()
    }

    fn is_silent(&self, index: usize, now: Instant) -> bool {
        self.ways.get(index).is_some_and(|way| way.is_silent(self.settings.silence, now))
    }

    /// Whether requests get on as things are.
    fn is_served(&self, now: Instant) -> bool {
        let silence = self.settings.silence;
        self.ways.iter().any(|way| matches!(way.state, State::Open) && !way.is_silent(silence, now))
    }

    /// The way to open now.
    fn due(&self, now: Instant) -> Option<usize> {
        let served = self.is_served(now);
        if served {
            // Besides, each with its head start, and not for what is over in a moment.
            let head_start = self.settings.head_start;
            let begun =
                |way: &Way<E>| matches!(way.state, State::Opening { since } if now < since + head_start);
            let busy = self.ways.iter().any(begun);
            let young = self.open_since.is_none_or(|since| now < since + self.settings.head_start);
            if busy || young {
                return None;
            }
        }
        for (index, way) in (0..).zip(&self.ways) {
            match &way.state {
                State::Untried => return Some(index),
                State::Closed { until, .. } if now >= *until => return Some(index),
                State::Closed { tried_at, .. } if self.is_stuck(now) && now >= *tried_at + AT_ONCE => {
                    return Some(index);
                }
                // The next one has to wait for this one's head start.
                State::Opening { since } if !served && now < *since + self.settings.head_start => {
                    return None;
                }
                State::Opening { .. } | State::Open | State::Closed { .. } => {}
            }
        }
        None
    }

    /// Whether there is an open way, and each of them is silent.
    fn is_stuck(&self, now: Instant) -> bool {
        !self.is_served(now) && self.ways.iter().any(|way| matches!(way.state, State::Open))
    }

    /// The open way to take.
    fn pick(&mut self, now: Instant) -> Option<usize> {
        let (silence, served) = (self.settings.silence, self.is_served(now));
        if !served && self.ways.iter().any(|way| matches!(way.state, State::Opening { .. })) {
            return None;
        }
        let remeasure = self.settings.remeasure;
        let present = self.present;
        let usable: Vec<usize> = (0..self.ways.len())
            .filter(|index| {
                let way = self.ways.get(*index);
                way.is_some_and(|way| {
                    matches!(way.state, State::Open) && (!served || !way.is_silent(silence, now))
                })
            })
            .collect();
        for index in usable.iter().filter(|index| present != Some(**index)) {
            if let Some(way) = self.ways.get_mut(*index)
                && way.remeasure_at.is_some_and(|at| now >= at)
            {
                (way.rate, way.remeasure_at) = (None, None);
            }
        }
        let new = usable.iter().copied().find(|index| {
            self.ways.get(*index).is_some_and(|way| way.rate.is_none() && way.active < MEASURING)
        });
        let rate = |index: usize| self.ways.get(index).and_then(|way| way.rate);
        let best = usable
            .iter()
            .filter_map(|index| Some((*index, rate(*index)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let best =
            match (best, present.filter(|present| usable.contains(present))) {
                (Some((best, its)), Some(present)) => {
                    if rate(present).is_some_and(|rate| its < rate * BETTER) { present } else { best }
                }
                (Some((best, _)), None) => best,
                (None, Some(present)) => present,
                (None, None) => *usable.first()?,
            };
        self.present = Some(best);
        // What is known to be worse is looked at again, later each time.
        for index in usable.into_iter().filter(|index| *index != best) {
            if let Some(way) = self.ways.get_mut(index)
                && way.rate.is_some()
                && way.remeasure_at.is_none()
            {
                way.remeasure_at = Some(now + remeasure.saturating_mul(1 << way.worse.min(8)));
                way.worse = way.worse.saturating_add(1);
            }
        }
        if let Some(way) = self.ways.get_mut(best) {
            (way.worse, way.remeasure_at) = (0, None);
        }
        Some(new.unwrap_or(best))
    }
}

impl<E> Way<E> {
    fn is_silent(&self, silence: Duration, now: Instant) -> bool {
        self.streams
            && self.active > 0
            && self.progressed_at.is_some_and(|at| now.saturating_duration_since(at) >= silence)
    }

    fn sample(&mut self, now: Instant) {
        let Some(from) = self.sampled_from.filter(|_| self.sampled > 0) else { return };
        let seconds = now.saturating_duration_since(from).as_secs_f64();
        if seconds > 0.0 {
            let rate = self.sampled as f64 / seconds;
            let weight = seconds / (seconds + MEMORY);
            self.rate = Some(self.rate.map_or(rate, |known| known + weight * (rate - known)));
            (self.sampled_from, self.sampled) = (Some(now), 0);
        }
    }
}
