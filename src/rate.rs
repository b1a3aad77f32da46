//! Bandwidth limits that charge bytes, not pieces, and share fairly.
//!
//! [`Bucket`] is the arithmetic: exact, without a clock. [`RateLimiter`] shares one bucket among [`Flow`]s, one for each
//! transfer or connection. Whoever needs bytes takes its turn for one quantum at a time, so that flows with large
//! buffers get no more than flows with small ones.

use crate::runtime::SharedRuntime;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Fractions of a byte that a bucket counts in: as many as nanoseconds in a second, so that nothing is rounded.
const PER_BYTE: u128 = 1_000_000_000;

/// A bucket that fills at a constant rate up to its burst, and begins full.
///
/// In any time `t` no more than `burst + rate * t` bytes are taken from it.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: NonZeroU64,
    /// In units of 1 / [`PER_BYTE`] of a byte, as is `level`.
    burst: u128,
    level: u128,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket of `burst` bytes that fills by `rate` bytes a second.
    #[must_use]
    pub fn new(rate: NonZeroU64, burst: NonZeroU64, now: Instant) -> Self {
        let burst = u128::from(burst.get()) * PER_BYTE;
        Self { rate, burst, level: burst, filled_at: now }
    }

    /// Takes `bytes`, at most the burst, or all of the burst where more is asked for.
    ///
    /// # Errors
    /// The time from which on they can be taken, if nobody takes any before. Nothing was taken.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Instant> {
        let elapsed = now.saturating_duration_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.level = (self.level + elapsed.as_nanos() * u128::from(self.rate.get())).min(self.burst);
        let wanted = (u128::from(bytes) * PER_BYTE).min(self.burst);
        if let Some(rest) = self.level.checked_sub(wanted) {
            self.level = rest;
            return Ok(());
        }
        let nanos = (wanted - self.level).div_ceil(self.rate.get().into());
        Err(now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Puts back what was taken and not used.
    pub fn give_back(&mut self, bytes: u64) {
        self.level = (self.level + u128::from(bytes) * PER_BYTE).min(self.burst);
    }
}

/// A rate that all flows together keep to. Clones are the same limiter.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    runtime: SharedRuntime,
    /// Its waiters queue in the order in which they came: that is what makes turns fair.
    bucket: Arc<Mutex<Bucket>>,
    quantum: u64,
}

impl RateLimiter {
    /// The largest quantum in bytes: small enough that a turn is short, large enough that turns are few.
    const MAX_QUANTUM: u64 = 256 << 10;

    /// At most `rate` bytes a second. The burst is what flows in 100 ms: timers that fire late cost no throughput.
    #[must_use]
    pub fn new(runtime: SharedRuntime, rate: NonZeroU64) -> Self {
        // 10 ms, so that a waiting flow has its turn soon even at low rates.
        let quantum = (rate.get() / 100).clamp(1, Self::MAX_QUANTUM);
        Self::with_quantum(runtime, rate, quantum)
    }

    /// At most `rate` things a second, where nobody has a use for several at once: requests.
    #[must_use]
    pub fn counting(runtime: SharedRuntime, rate: NonZeroU64) -> Self {
        Self::with_quantum(runtime, rate, 1)
    }

    fn with_quantum(runtime: SharedRuntime, rate: NonZeroU64, quantum: u64) -> Self {
        let burst = NonZeroU64::new((rate.get() / 10).max(quantum)).unwrap_or(NonZeroU64::MIN);
        let bucket = Bucket::new(rate, burst, runtime.now());
        Self { runtime, bucket: Arc::new(Mutex::new(bucket)), quantum }
    }

    /// A flow of its own; flows that wait get equal shares.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow { limiter: self.clone(), credit: 0 }
    }
}

/// One of those who share a limiter.
#[derive(Debug)]
pub struct Flow {
    limiter: RateLimiter,
    /// Bytes taken from the bucket and not yet used: less than a quantum, and what was given back.
    credit: u64,
}

impl Flow {
    /// Waits until `bytes` more may flow; whether it had to. Where it is dropped before its end, nothing is lost but time.
    pub async fn charge(&mut self, bytes: u64) -> bool {
        let mut waited = false;
        let mut missing = bytes;
        loop {
            let used = missing.min(self.credit);
            self.credit -= used;
            missing -= used;
            if missing == 0 {
                return waited;
            }
            let RateLimiter { runtime, bucket, quantum } = &self.limiter;
            // The turn lasts until the quantum is there: nobody overtakes.
            let mut bucket = bucket.lock().await;
            while let Err(at) = bucket.take(*quantum, runtime.now()) {
                waited = true;
                runtime.sleep_until(at).await;
            }
            self.credit += *quantum;
        }
    }

    /// Keeps `bytes` that were charged and did not flow: the next ones that do are paid.
    pub fn keep(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // Where the bucket is in use right now, what it has is forgone.
        if let Ok(mut bucket) = self.limiter.bucket.try_lock() {
            bucket.give_back(self.credit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn non_zero(value: u64) -> NonZeroU64 {
        NonZeroU64::new(value).unwrap()
    }

    proptest! {
        /// Whatever is asked when, no window of time sees more than its share.
        #[test]
        fn no_window_exceeds_its_share(
            rate in 1u64..1 << 40,
            burst in 1u64..1 << 24,
            steps in prop::collection::vec((0u64..5_000_000_000, 0u64..1 << 25), 1..60),
        ) {
            #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
            let start = Instant::now();
            let mut bucket = Bucket::new(non_zero(rate), non_zero(burst), start);
            let mut now = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (pause, bytes) in steps {
                now += pause;
                let bytes = bytes.min(burst);
                if let Err(at) = bucket.take(bytes, start + Duration::from_nanos(now)) {
                    let at = u64::try_from((at - start).as_nanos()).unwrap();
                    prop_assert!(at > now);
                    // Not a nanosecond too early, not a nanosecond too late.
                    prop_assert!(bucket.take(bytes, start + Duration::from_nanos(at - 1)).is_err() || bytes == 0);
                    now = at;
                    prop_assert_eq!(bucket.take(bytes, start + Duration::from_nanos(now)), Ok(()));
                }
                taken.push((now, bytes));
                for (index, (from, _)) in taken.iter().enumerate() {
                    let sum: u128 = taken[index..].iter().map(|(_, bytes)| u128::from(*bytes)).sum();
                    let allowed = u128::from(burst) * PER_BYTE + u128::from(now - from) * u128::from(rate);
                    prop_assert!(sum * PER_BYTE <= allowed);
                }
            }
        }

        /// Who only waits as long as told gets the whole rate: no fraction of a byte is lost on the way.
        #[test]
        fn the_rate_is_reached(rate in 1u64..1 << 40, chunk in 1u64 << 11..1 << 24, count in 1u64..50) {
            #[allow(clippy::disallowed_methods, reason = "any begin of time will do")]
            let start = Instant::now();
            let mut bucket = Bucket::new(non_zero(rate), non_zero(2 * chunk), start);
            prop_assert_eq!(bucket.take(2 * chunk, start), Ok(()));
            let mut now = start;
            for _ in 0..count {
                while let Err(at) = bucket.take(chunk, now) {
                    now = at;
                }
            }
            let needed = (u128::from(count) * u128::from(chunk) * PER_BYTE).div_ceil(rate.into());
            prop_assert_eq!((now - start).as_nanos(), needed);
        }
    }

    #[cfg(feature = "tokio-runtime")]
    mod shared {
        use super::super::*;
        use crate::runtime::TokioRuntime;

        fn limiter(rate: u64) -> RateLimiter {
            RateLimiter::new(Arc::new(TokioRuntime), NonZeroU64::new(rate).unwrap())
        }

        async fn flow_for(limiter: &RateLimiter, chunk: u64, time: Duration) -> u64 {
            let mut flow = limiter.flow();
            let mut bytes = 0;
            let end = limiter.runtime.now() + time;
            while limiter.runtime.until(end, flow.charge(chunk)).await.is_ok() {
                bytes += chunk;
            }
            bytes
        }

        #[tokio::test(start_paused = true)]
        async fn what_was_kept_is_paid_and_goes_back_in_the_end() {
            // 100 ms of it are 1000 bytes, all of which the first flow takes, for the last time.
            let limiter = limiter(10_000);
            let mut flow = limiter.flow();
            assert!(!flow.charge(1000).await);
            flow.keep(600);
            assert!(!flow.charge(600).await, "it was paid");
            flow.keep(300);
            drop(flow);
            let mut other = limiter.flow();
            assert!(!other.charge(300).await);
            assert!(other.charge(100).await, "no more than that was left");
        }

        #[tokio::test(start_paused = true)]
        async fn flows_get_equal_bytes_whatever_their_chunks() {
            let limiter = limiter(10_000_000);
            let time = Duration::from_secs(20);
            let (small, large, third) = tokio::join!(
                flow_for(&limiter, 1_200, time),
                flow_for(&limiter, 300_000, time),
                flow_for(&limiter, 65_536, time),
            );
            let total = small + large + third;
            assert!((195_000_000..=201_000_000).contains(&total), "{total} bytes in 20 s");
            for share in [small, large, third] {
                assert!((share * 3).abs_diff(total) < total / 50, "{small} {large} {third}");
            }
        }

        #[tokio::test(start_paused = true)]
        async fn a_flow_that_is_dropped_while_it_waits_holds_nobody_up() {
            let limiter = limiter(1_000_000);
            let mut first = limiter.flow();
            let time = Duration::from_secs(1);
            assert!(limiter.runtime.timeout(time, first.charge(1 << 40)).await.is_err());
            let bytes = flow_for(&limiter, 10_000, Duration::from_secs(10)).await;
            assert!((9_900_000..=10_100_000).contains(&bytes), "{bytes} bytes in 10 s");
        }
    }
}
