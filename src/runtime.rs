//! What the protocol needs of the world beside the network: time, timers, tasks, blocking jobs, randomness.
//!
//! Nothing in this crate reads a clock, spawns a task or draws a random number by itself. A [`Runtime`] is handed in,
//! so the same client and server run on tokio, in a simulation on virtual time, or on whatever an embedder has.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A heap-allocated future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A timer that can be moved; it is armed from creation.
pub trait Timer: Send + fmt::Debug {
    /// Moves the timer to `deadline`, whether or not it has fired.
    fn reset(self: Pin<&mut Self>, deadline: Instant);
    /// Ready once the clock has reached the deadline.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

/// The world's clock, executor and source of randomness.
pub trait Runtime: Send + Sync + fmt::Debug + 'static {
    /// Monotonic time.
    fn now(&self) -> Instant;

    /// Wall-clock time since the Unix epoch; may jump in both directions.
    fn unix_time(&self) -> Duration;

    /// A timer that fires at `deadline`.
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>>;

    /// Runs `task` to its end, independently of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs `job`, which may block on a disk, away from the tasks.
    ///
    /// The job is never lost: it runs even where the future that waits for it is dropped.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>);

    /// Fills `buffer` with bytes an attacker can't predict (a simulation: bytes drawn from its seed).
    fn fill_random(&self, buffer: &mut [u8]);
}

/// A shared runtime, as every part of the crate carries it.
pub type SharedRuntime = Arc<dyn Runtime>;

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

impl dyn Runtime {
    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        let mut timer = self.timer(self.now() + duration);
        std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        let mut timer = self.timer(deadline);
        std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
    }

    /// Drives `work` until it is done or `deadline` is reached; the work goes first where both are ready.
    pub async fn until<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut timer = self.timer(deadline);
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }

    /// Drives `work` for at most `duration`.
    pub async fn timeout<T>(&self, duration: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.until(self.now() + duration, work).await
    }

    /// Runs `job` on the blocking pool and waits for its result.
    ///
    /// # Errors
    /// [`JobLost`] when the job panicked or the pool is shutting down.
    pub async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn_blocking(Box::new(move || {
            // The waiter may be gone; the job's effects stand all the same.
            let _ = done.send(job());
        }));
        result.await.map_err(|_| JobLost)
    }
}

/// A blocking job ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blocking job was lost: it panicked, or the runtime is shutting down")]
pub struct JobLost;

#[cfg(feature = "tokio-runtime")]
pub use tokio_runtime::TokioRuntime;

#[cfg(feature = "tokio-runtime")]
#[allow(clippy::disallowed_methods, reason = "this is where the real clock and the real executor enter")]
mod tokio_runtime {
    use super::{BoxFuture, Runtime, Timer};
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    /// The production runtime: tokio's clock, timers, tasks and blocking pool, the kernel's randomness.
    ///
    /// Every method must be called within a tokio runtime that has its time driver on.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct TokioRuntime;

    #[derive(Debug)]
    struct Sleep(Pin<Box<tokio::time::Sleep>>);

    impl Timer for Sleep {
        fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
            self.0.as_mut().reset(deadline.into());
        }
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(cx)
        }
    }

    impl Runtime for TokioRuntime {
        fn now(&self) -> Instant {
            tokio::time::Instant::now().into_std()
        }
        fn unix_time(&self) -> Duration {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
        }
        fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
            Box::pin(Sleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            tokio::spawn(task);
        }
        fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
            tokio::task::spawn_blocking(job);
        }
        fn fill_random(&self, buffer: &mut [u8]) {
            // The kernel's generator fails only where the system call is missing; then nothing here is safe to go on.
            #[allow(clippy::expect_used, reason = "no peer can cause it, and no answer to it is safe")]
            getrandom::fill(buffer).expect("the kernel has no source of randomness");
        }
    }
}
