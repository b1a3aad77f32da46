//! A bottleneck: a rate, and a bounded queue before it.
//!
//! The queue is first in, first out, so the moment at which a packet leaves it is known when it enters, and so is what
//! a queue manager will decide at that moment: no timers are needed.

use std::collections::VecDeque;
use std::time::Duration;

/// What a link lets through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Bytes a second, IP headers included.
    pub bytes_per_second: u64,
    /// How many bytes may wait.
    pub queue_bytes: u64,
    /// Who is dropped.
    pub discipline: Discipline,
}

impl Bandwidth {
    /// A rate in Mbit/s with a queue that holds `buffer` of traffic and drops at the tail.
    pub fn mbit(rate: u64, buffer: Duration) -> Self {
        let bytes_per_second = rate * 125_000;
        let queue_bytes = (bytes_per_second as f64 * buffer.as_secs_f64()) as u64;
        Bandwidth { bytes_per_second, queue_bytes, discipline: Discipline::TailDrop }
    }

    /// The same with a queue that is kept short by CoDel, with the times of its RFC.
    pub fn with_codel(self) -> Self {
        let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
        Bandwidth { discipline: Discipline::CoDel { target, interval }, ..self }
    }

    fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_per_second.max(1))
    }
}

/// How a queue decides whom to drop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Discipline {
    /// What finds the queue full is dropped.
    TailDrop,
    /// CoDel (RFC 8289): what waited longer than `target` over an `interval` is dropped, or marked where it may be.
    CoDel {
        /// The standing delay that is tolerated: 5 ms by the RFC.
        target: Duration,
        /// How long it is tolerated: 100 ms by the RFC.
        interval: Duration,
    },
}

/// What the queue did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It will have left the bottleneck at `at`; `signal` says that the manager asks the sender to slow down.
    Leaves { at: Duration, signal: bool },
    /// It was dropped.
    Dropped,
}

/// A queue and the bottleneck behind it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// When the bottleneck has sent what it accepted so far.
    free: Duration,
    /// What waits: when each leaves the queue, and its bytes.
    waiting: VecDeque<(Duration, u64)>,
    bytes: u64,
    codel: CoDel,
}

impl Queue {
    /// Offers a packet of `bytes` at `now`; `markable` says whether it can carry a congestion mark.
    pub(super) fn offer(&mut self, limits: &Bandwidth, now: Duration, bytes: u64, markable: bool) -> Verdict {
        while let Some(&(leaves, size)) = self.waiting.front()
            && leaves <= now
        {
            self.waiting.pop_front();
            self.bytes -= size;
        }
        // What goes straight to the idle bottleneck never waits, so it needs no room.
        let start = self.free.max(now);
        if start > now {
            if self.bytes + bytes > limits.queue_bytes {
                return Verdict::Dropped;
            }
            self.waiting.push_back((start, bytes));
            self.bytes += bytes;
        }
        let mut signal = false;
        if let Discipline::CoDel { target, interval } = limits.discipline {
            signal = self.codel.leaves(target, interval, start, start - now);
            if signal && !markable {
                return Verdict::Dropped;
            }
        }
        self.free = start + limits.time_for(bytes);
        Verdict::Leaves { at: self.free, signal }
    }
}

/// The state of RFC 8289, section 5.
#[derive(Debug, Default)]
struct CoDel {
    first_above: Option<Duration>,
    dropping: bool,
    drop_next: Duration,
    count: u32,
    last_count: u32,
}

impl CoDel {
    /// A packet leaves the queue at `now` after waiting for `sojourn`: must its sender be told to slow down?
    fn leaves(&mut self, target: Duration, interval: Duration, now: Duration, sojourn: Duration) -> bool {
        let law = |from: Duration, count: u32| from + interval.div_f64(f64::from(count.max(1)).sqrt());
        if sojourn < target {
            self.first_above = None;
            self.dropping = false;
            return false;
        }
        let first_above = *self.first_above.get_or_insert(now + interval);
        if now < first_above {
            self.dropping = false;
            return false;
        }
        if self.dropping {
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = law(self.drop_next, self.count);
            return true;
        }
        self.dropping = true;
        let delta = self.count.saturating_sub(self.last_count);
        let recent = now.saturating_sub(self.drop_next) < interval * 16;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = law(now, self.count);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_full_queue_drops_at_the_tail_and_drains_at_its_rate() {
        // 1,000 bytes take a millisecond; three may wait.
        let limits =
            Bandwidth { bytes_per_second: 1_000_000, queue_bytes: 3_000, discipline: Discipline::TailDrop };
        let mut queue = Queue::default();
        let at = |ms| Verdict::Leaves { at: MS * ms, signal: false };
        for expected in [at(1), at(2), at(3), at(4), Verdict::Dropped] {
            assert_eq!(queue.offer(&limits, Duration::ZERO, 1_000, false), expected);
        }
        // One has left the queue by now, so one more fits.
        assert_eq!(queue.offer(&limits, MS, 1_000, false), at(5));
        assert_eq!(queue.offer(&limits, MS, 1_000, false), Verdict::Dropped);
        // An idle bottleneck starts at once.
        assert_eq!(queue.offer(&limits, MS * 50, 1_000, false), at(51));
    }

    #[test]
    fn codel_leaves_short_bursts_alone_and_shortens_a_standing_queue() {
        let discipline = Discipline::CoDel { target: MS * 5, interval: MS * 100 };
        let limits = Bandwidth { bytes_per_second: 1_000_000, queue_bytes: 1_000_000, discipline };
        let mut queue = Queue::default();
        // A burst of 50 ms that drains: no packet is lost.
        for _ in 0..50 {
            assert_ne!(queue.offer(&limits, Duration::ZERO, 1_000, false), Verdict::Dropped);
        }
        // One packet in each millisecond keeps the queue standing; the first interval passes in silence.
        let mut queue = Queue::default();
        let mut drops = Vec::new();
        for ms in 0..1_000 {
            for _ in 0..if ms == 0 { 50 } else { 1 } {
                if queue.offer(&limits, MS * ms, 1_000, false) == Verdict::Dropped {
                    drops.push(ms);
                }
            }
        }
        assert!(drops.len() >= 10, "{drops:?}");
        assert!(drops[0] >= 50, "{drops:?}");
        let gaps: Vec<u32> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] > gaps[5], "drops come faster as the queue stands: {gaps:?}");
        // Where packets can be marked, none is dropped.
        let mut queue = Queue::default();
        let mut marks = 0;
        for ms in 0..1_000 {
            for _ in 0..if ms == 0 { 50 } else { 1 } {
                match queue.offer(&limits, MS * ms, 1_000, true) {
                    Verdict::Leaves { signal, .. } => marks += u32::from(signal),
                    Verdict::Dropped => panic!("dropped at {ms}"),
                }
            }
        }
        assert!(marks >= 10, "{marks}");
    }
}
