//! turmoil: a tokio runtime for each host, stepped in turn.
//!
//! turmoil's own network is not used (see `net`). A host sees what others did during its own tick at the next one, so a
//! packet can be up to a tick late; with links slower than a tick it is on time.

use super::{Boot, CLOCK, Machines};
use crate::faults::lock;
use crate::host::{Clock, Machine, base};
use crate::net::HostId;
use crate::rng::Seed;
use crate::scenario::Outcome;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Timer};

/// tokio's timers are no finer.
const TICK: Duration = Duration::from_millis(1);

/// One host's tokio runtime.
#[derive(Debug)]
struct Tokio {
    handle: tokio::runtime::Handle,
    /// The same moment in virtual time and on this runtime's clock.
    start: (Duration, tokio::time::Instant),
}

thread_local! {
    /// The latest virtual time that was read, for those who ask while nothing runs: destructors at the end of a run.
    static LATEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[allow(clippy::disallowed_methods, reason = "turmoil's hosts are tokio runtimes, on tokio's paused clock")]
impl Tokio {
    /// The runtime that is running on this thread.
    fn current() -> Self {
        let now = turmoil::sim_elapsed().unwrap_or_else(|| LATEST.get());
        Tokio { handle: tokio::runtime::Handle::current(), start: (now, tokio::time::Instant::now()) }
    }
}

#[allow(clippy::disallowed_methods, reason = "turmoil's hosts are tokio runtimes, on tokio's paused clock")]
impl Clock for Tokio {
    fn now(&self) -> Duration {
        // Outside of a runtime, tokio would answer with the real time.
        if tokio::runtime::Handle::try_current().is_err() {
            return LATEST.get();
        }
        let now = self.start.0 + tokio::time::Instant::now().saturating_duration_since(self.start.1);
        LATEST.set(now);
        now
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        let _context = self.handle.enter();
        let sleep = tokio::time::sleep_until(self.deadline(deadline));
        Box::pin(Sleep { sleep: Box::pin(sleep), start: self.start })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }
}

impl Tokio {
    fn deadline(&self, deadline: Instant) -> tokio::time::Instant {
        convert(self.start, deadline)
    }
}

fn convert(
    (virtual_start, start): (Duration, tokio::time::Instant),
    deadline: Instant,
) -> tokio::time::Instant {
    start + deadline.saturating_duration_since(base()).saturating_sub(virtual_start)
}

#[derive(Debug)]
struct Sleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    start: (Duration, tokio::time::Instant),
}

impl Timer for Sleep {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        let deadline = convert(self.start, deadline);
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}

/// What a scenario asked for; it happens between two steps, where turmoil allows it.
enum Order {
    Add(String, Boot),
    Crash(String),
    Restart(String),
}

#[derive(Default)]
struct Orders(Mutex<Vec<Order>>);

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Orders")
    }
}

/// turmoil knows hosts by name.
fn name(host: HostId) -> String {
    format!("host-{host}")
}

impl Machines for Orders {
    fn add(&self, machine: &Arc<Machine>, boot: Boot) {
        lock(&self.0).push(Order::Add(name(machine.id), boot));
    }

    fn crash(&self, host: HostId) {
        lock(&self.0).push(Order::Crash(name(host)));
    }

    fn restart(&self, host: HostId) {
        lock(&self.0).push(Order::Restart(name(host)));
    }
}

pub(super) fn run<F>(
    seed: Seed,
    limit: Duration,
    start: impl FnOnce(Arc<dyn Machines>, Arc<dyn Clock>) -> F + 'static,
) -> (Outcome, Duration)
where
    F: Future<Output = (Outcome, Duration)> + 'static,
{
    LATEST.set(Duration::ZERO);
    CLOCK.set(Some(|| Arc::new(Tokio::current())));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed.stream("turmoil").bits())
        .tick_duration(TICK)
        // The scenario's own limit comes first.
        .simulation_duration(limit + Duration::from_secs(10))
        // The order of hosts within a tick is one more thing that a seed decides.
        .enable_random_order()
        .build();
    let orders = Arc::new(Orders::default());
    let ended: Arc<Mutex<Option<(Outcome, Duration)>>> = Arc::default();
    let (machines, end) = (orders.clone(), ended.clone());
    sim.client("scenario", async move {
        let result = start(machines, Arc::new(Tokio::current())).await;
        *lock(&end) = Some(result);
        Ok(())
    });
    let failed = loop {
        match sim.step() {
            Ok(true) => break None,
            Ok(false) => {}
            Err(error) => break Some(error.to_string()),
        }
        for order in std::mem::take(&mut *lock(&orders.0)) {
            match order {
                Order::Add(name, boot) => {
                    let software = move || {
                        let boot = boot.clone();
                        async move {
                            boot().await;
                            Ok(())
                        }
                    };
                    sim.host(name, software);
                }
                Order::Crash(name) => sim.crash(name),
                Order::Restart(name) => sim.bounce(name),
            }
        }
    };
    let elapsed = sim.elapsed();
    let result = lock(&ended).take();
    match (failed, result) {
        (_, Some(result)) => result,
        (Some(error), None) => (Err(error.into()), elapsed),
        (None, None) => (Err("the scenario ended without a result".into()), elapsed),
    }
}
