//! What is known of a peer: how it has done so far, and how many requests it is worth.

use crate::store::PieceSet;
use std::time::{Duration, Instant};

/// Requests with a peer of which nothing is known yet: the second hides the round trip of the first.
const FIRST_WINDOW: usize = 2;
/// What a first byte takes where nothing is known.
pub(super) const ASSUMED_LATENCY: f64 = 0.5;
/// Seconds over which a peer's rate is averaged: what it did a few seconds ago hardly counts.
const MEMORY: f64 = 1.0;

#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Whether a second request may go another way than the first.
    pub(super) several_ways: bool,
    pub(super) in_flight: usize,
    pub(super) failures: u32,
    pub(super) misses: u32,
    /// Since when it has had nothing that it was asked for.
    pub(super) misses_since: Option<Instant>,
    pub(super) lies: u32,
    pub(super) retry_at: Option<Instant>,
    pub(super) gone: bool,
    /// What it holds, by its own word; `None` where it has said nothing.
    pub(super) held: Option<PieceSet>,
    /// Bytes a second, over all flights together.
    pub(super) rate: Option<f64>,
    /// Seconds to the first byte: the smallest seen, since the others include the time that requests queue.
    pub(super) latency: Option<f64>,
    /// Since when `sampled` counts.
    pub(super) sampled_from: Option<Instant>,
    pub(super) sampled: u64,
}

impl Peer {
    /// Seconds until it would have delivered `length` bytes more; `None` while nothing is known of it.
    pub(super) fn eta(&self, length: u64) -> Option<f64> {
        let queued = (self.in_flight + 1) as f64 * length as f64;
        Some(self.latency.unwrap_or(ASSUMED_LATENCY) + queued / self.rate?.max(1.0))
    }

    /// How many flights fill the way to it, and as many again, so that it can show that more is possible.
    pub(super) fn window(&self, length: u64, most: usize) -> usize {
        let wanted = match (self.rate, self.latency) {
            // One request finds out whether it is back.
            _ if self.failures > 0 => 1,
            (Some(rate), Some(latency)) => {
                FIRST_WINDOW + (2.0 * rate * latency / length.max(1) as f64) as usize
            }
            _ => FIRST_WINDOW,
        };
        wanted.min(most.max(1))
    }

    pub(super) fn delivered(&mut self, bytes: u64, now: Instant) {
        /// Shorter samples say more of the timing of reads than of the path.
        const SAMPLE: Duration = Duration::from_millis(200);
        self.sampled += bytes;
        if self.sampled_from.is_some_and(|from| now.saturating_duration_since(from) >= SAMPLE) {
            self.sample(now);
        }
    }

    pub(super) fn sample(&mut self, now: Instant) {
        let Some(from) = self.sampled_from else { return };
        let seconds = now.saturating_duration_since(from).as_secs_f64();
        if seconds > 0.0 {
            let rate = self.sampled as f64 / seconds;
            let weight = seconds / (seconds + MEMORY);
            self.rate = Some(self.rate.map_or(rate, |known| known + weight * (rate - known)));
            (self.sampled_from, self.sampled) = (Some(now), 0);
        }
    }
}
