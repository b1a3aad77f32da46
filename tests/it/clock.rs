//! A clock that a test holds.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer, TokioRuntime};

/// tokio's runtime, with a clock that stands still but for what a test lets pass. Timers are those of the real one, and may
/// come early.
#[derive(Debug)]
pub(crate) struct Stopped {
    begun: Instant,
    passed: Mutex<Duration>,
    step: Duration,
    jobs: AtomicU32,
}

impl Stopped {
    pub(crate) fn new() -> Arc<Self> {
        Self::stepping(Duration::ZERO)
    }

    /// One that is `step` further after each look.
    pub(crate) fn stepping(step: Duration) -> Arc<Self> {
        let (begun, passed, jobs) = (TokioRuntime.now(), Mutex::default(), AtomicU32::new(0));
        Arc::new(Self { begun, passed, step, jobs })
    }

    /// How many jobs went to threads that may block.
    pub(crate) fn jobs(&self) -> u32 {
        self.jobs.load(Ordering::SeqCst)
    }

    /// Sets the clock to `passed` since it was made.
    pub(crate) fn at(&self, passed: Duration) {
        *self.passed.lock().unwrap() = passed;
    }
}

impl Runtime for Stopped {
    fn now(&self) -> Instant {
        let mut passed = self.passed.lock().unwrap();
        let now = self.begun + *passed;
        *passed += self.step;
        now
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
        self.jobs.fetch_add(1, Ordering::SeqCst);
        TokioRuntime.spawn_blocking(job);
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        TokioRuntime.fill_random(buffer);
    }
}
