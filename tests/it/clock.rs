//! A clock that a test holds.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer, TokioRuntime};

/// tokio's runtime, with a clock that stands still but for what a test lets pass. Timers are those of the real one, and may
/// come early.
#[derive(Debug)]
pub(crate) struct Stopped {
    begun: Instant,
    passed: Mutex<Duration>,
}

impl Stopped {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begun: TokioRuntime.now(), passed: Mutex::default() })
    }

    /// Sets the clock to `passed` since it was made.
    pub(crate) fn at(&self, passed: Duration) {
        *self.passed.lock().unwrap() = passed;
    }
}

impl Runtime for Stopped {
    fn now(&self) -> Instant {
        self.begun + *self.passed.lock().unwrap()
    }
    fn unix_time(&self) -> Duration {
        TokioRuntime.unix_time()
    }
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        TokioRuntime.timer(deadline)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        TokioRuntime.spawn(task);
    }
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        TokioRuntime.spawn_blocking(job);
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        TokioRuntime.fill_random(buffer);
    }
}
