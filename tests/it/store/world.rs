//! A runtime without threads, and a clock that stands still until it is moved.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer};

/// Runs blocking jobs at once, on the spot, so that a test's order of events is the order of its lines.
pub(crate) struct Inline {
    start: Instant,
    passed: Mutex<Duration>,
    /// Jobs that wait, while they are made to.
    held: Mutex<Option<VecDeque<Job>>>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The wall clock when a test begins.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

impl Inline {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), passed: Mutex::default(), held: Mutex::default() })
    }

    /// From here on blocking jobs wait.
    #[cfg(feature = "disk")]
    pub(crate) fn hold(&self) {
        *self.held.lock().unwrap() = Some(VecDeque::new());
    }

    /// Runs the jobs that wait, one after another; those that come meanwhile, too.
    #[cfg(feature = "disk")]
    pub(crate) fn run_held(&self) {
        let next = || self.held.lock().unwrap().as_mut().and_then(VecDeque::pop_front);
        while let Some(job) = next() {
            job();
        }
    }

    /// Runs one of the jobs that wait, if any.
    #[cfg(feature = "disk")]
    pub(crate) fn run_one(&self, choice: usize) {
        let take = |jobs: &mut VecDeque<Job>| jobs.remove(choice % jobs.len().max(1));
        let job = self.held.lock().unwrap().as_mut().and_then(take);
        if let Some(job) = job {
            job();
        }
    }

    /// From here on blocking jobs run on the spot again.
    #[cfg(feature = "disk")]
    pub(crate) fn release(&self) {
        self.run_held();
        *self.held.lock().unwrap() = None;
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline")
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
    fn spawn_blocking(&self, job: Job) {
        if let Some(held) = &mut *self.held.lock().unwrap() {
            return held.push_back(job);
        }
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
