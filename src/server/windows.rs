//! What QUIC connections may send beyond what is acknowledged, each by its path and all within a limit.

use super::Limit;
use super::admission::Admission;
use crate::transport::quic::send_window;
use quinn::Connection;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that the windows of all connections have beyond the least, which each has in any case.
#[derive(Debug)]
pub(super) struct Windows {
    taken: AtomicU64,
    limit: u64,
}

impl Windows {
    pub(super) fn new(limit: u64) -> Self {
        Self { taken: AtomicU64::new(0), limit }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Takes all of `bytes`, or nothing where not so many are left.
    fn take(&self, bytes: u64) -> bool {
        let within = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.limit);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The send window of one connection. It is larger than the least only while answers are sent.
#[derive(Debug)]
pub(super) struct Window {
    bounds: RangeInclusive<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: u64,
    /// Bytes that were written since the path was looked at.
    written: u64,
    answers: usize,
}

/// An answer that is being sent.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    window: &'a Window,
    connection: &'a Connection,
    admission: &'a Admission,
}

impl Window {
    /// The least of `bounds`, with which the connection has begun.
    pub(super) fn new(bounds: RangeInclusive<u64>) -> Self {
        let state = State { window: *bounds.start(), written: 0, answers: 0 };
        Self { bounds, state: Mutex::new(state) }
    }

    /// Keeps the window of `connection` while an answer is sent over it, until what is returned is dropped.
    pub(super) fn sending<'a>(&'a self, connection: &'a Connection, admission: &'a Admission) -> Sending<'a> {
        self.lock().answers += 1;
        Sending { window: self, connection, admission }
    }

    /// The state is whole after any panic: what changes it cannot fail in between.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending<'_> {
    /// Fits the window to the path. The path is looked at, which takes a lock that the connection's task is busy under, each
    /// time that a quarter of the least window was written: before that is full, and never for a small answer.
    pub(super) fn wrote(&self, bytes: u64) {
        let Window { bounds, .. } = self.window;
        let mut state = self.window.lock();
        state.written += bytes;
        if state.written < bounds.start() / 4 {
            return;
        }
        state.written = 0;
        let wanted = send_window(state.window, &self.connection.stats().path, bounds);
        if wanted > state.window && !self.admission.windows.take(wanted - state.window) {
            self.admission.met(Limit::Windows);
            return;
        }
        self.admission.windows.give_back(state.window.saturating_sub(wanted));
        self.set(&mut state, wanted);
    }

    fn set(&self, state: &mut State, window: u64) {
        if state.window != window {
            state.window = window;
            self.connection.set_send_window(window);
        }
    }
}

impl Drop for Sending<'_> {
    /// The last answer gives back what the connection does not need while it is idle, or gone.
    fn drop(&mut self) {
        let mut state = self.window.lock();
        state.answers -= 1;
        if state.answers == 0 {
            let least = *self.window.bounds.start();
            self.admission.windows.give_back(state.window - least);
            self.set(&mut state, least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_more_than_is_left_gets_nothing_until_it_was_given_back() {
        let windows = Windows::new(10);
        assert!(windows.take(6) && !windows.take(5) && !windows.take(u64::MAX));
        assert_eq!(windows.taken(), 6);
        assert!(windows.take(4) && windows.take(0) && !windows.take(1));
        windows.give_back(6);
        assert!(windows.take(5));
        assert_eq!(windows.taken(), 9);
    }
}
