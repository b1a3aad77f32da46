//! A runtime without threads, and a clock that stands still until it is moved.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer};

/// Runs blocking jobs at once, on the spot, so that a test's order of events is the order of its lines.
#[derive(Debug)]
pub(crate) struct Inline {
    start: Instant,
    passed: Mutex<Duration>,
}

/// The wall clock when a test begins.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

impl Inline {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), passed: Mutex::default() })
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }
}

#[derive(Debug)]
struct Never;

impl Timer for Never {
    fn reset(self: Pin<&mut Self>, _: Instant) {}
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Runtime for Inline {
    fn now(&self) -> Instant {
        self.start + *self.passed.lock().unwrap()
    }
    fn unix_time(&self) -> Duration {
        EPOCH + *self.passed.lock().unwrap()
    }
    fn timer(&self, _: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(Never)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        ready(task);
    }
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

/// The value of a future that has nothing to wait for, as is every one on [`Inline`].
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits, and nothing on this runtime could wake it"),
    }
}
