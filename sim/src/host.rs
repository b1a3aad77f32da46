//! A host as its software sees it: a runtime, a network, a disk.

use crate::disk::{Mounted, SimDisk};
use crate::faults::lock;
use crate::net::{HostId, SimNetwork};
use crate::notes;
use crate::rng::Rng;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, SharedRuntime, Timer};
use vortex_p2p::transport::Network;

/// Virtual time starts here on the wall clock: 15 January 2027.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// What `Instant` virtual time starts at. The value means nothing; it only has to be the same for a whole run.
#[allow(
    clippy::disallowed_methods,
    reason = "an Instant can't be made from nothing; no span of real time is measured"
)]
pub(crate) fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// A world's virtual time and tasks, seen from one host.
pub(crate) trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Virtual time since the start of the run, the same on every host.
    fn now(&self) -> Duration;
    /// A timer.
    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>>;
    /// Runs a task on this host.
    fn spawn(&self, task: BoxFuture<'static, ()>);
    /// Virtual time as the protocol's clock shows it.
    fn instant(&self, at: Duration) -> Instant {
        base() + at
    }
}

/// The first thing that went wrong in a run; it ends the run.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Mutex<(Option<String>, Option<Waker>)>);

impl Alarm {
    /// Something went wrong.
    pub(crate) fn raise(&self, what: String) {
        let mut state = lock(&self.0);
        state.0.get_or_insert(what);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    /// What went wrong, once something has.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = lock(&self.0);
        match state.0.take() {
            Some(what) => Poll::Ready(what),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What outlives a crash of a host: its place in the network, its disk, its clock's error.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) id: HostId,
    pub(crate) disk: SimDisk,
    /// Crashes so far: what was started before the latest one is dead.
    crashes: Arc<AtomicU64>,
    paused: AtomicBool,
    parked: Mutex<Vec<Waker>>,
    /// How far the wall clock is ahead.
    ahead: Mutex<i64>,
}

impl Machine {
    pub(crate) fn new(name: String, id: HostId, disk: SimDisk) -> Self {
        let (paused, parked) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let crashes = disk.outages();
        Machine { name, id, disk, crashes, paused, parked, ahead: Mutex::new(0) }
    }

    /// Whatever runs on the host has run for the last time.
    pub(crate) fn crash(&self) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }

    /// Nothing runs on the host until [`Machine::resume`]; virtual time goes on.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        for waker in std::mem::take(&mut *lock(&self.parked)) {
            waker.wake();
        }
    }

    /// Moves the wall clock by `nanoseconds`.
    pub(crate) fn jump_clock(&self, nanoseconds: i64) {
        let mut ahead = lock(&self.ahead);
        *ahead = ahead.saturating_add(nanoseconds);
    }
}

/// A task under supervision: it stands still while its host is paused, does nothing after a crash, and its panic ends
/// the run. A world may take its time to drop the tasks of a crashed host; none of them is to touch the disk of the next
/// boot.
struct Supervised {
    boot: u64,
    task: BoxFuture<'static, ()>,
    machine: Arc<Machine>,
    clock: Arc<dyn Clock>,
    alarm: Arc<Alarm>,
}

impl Future for Supervised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.boot != self.machine.crashes() {
            return Poll::Ready(());
        }
        if self.machine.paused.load(Ordering::Relaxed) {
            lock(&self.machine.parked).push(cx.waker().clone());
            return Poll::Pending;
        }
        let _at_work = notes::enter(Some(self.machine.id), &self.clock);
        let task = &mut self.task;
        catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))).unwrap_or_else(|panic| {
            self.alarm.raise(panic_text(&self.machine.name, panic.as_ref()));
            Poll::Ready(())
        })
    }
}

/// A panic as a report shows it.
pub(crate) fn panic_text(host: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something that is not text");
    let place = crate::world::last_panic_place().map_or(String::new(), |place| format!(" at {place}"));
    format!("panic on {host}{place}: {text}")
}

/// The protocol's runtime on one host, from its boot to its crash.
#[derive(Debug)]
pub(crate) struct SimRuntime {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) machine: Arc<Machine>,
    /// Crashes before this boot.
    pub(crate) boot: u64,
    pub(crate) alarm: Arc<Alarm>,
    /// What the protocol draws.
    pub(crate) random: Mutex<Rng>,
    /// How long blocking jobs take.
    pub(crate) jobs: Mutex<Rng>,
}

impl Runtime for SimRuntime {
    fn now(&self) -> Instant {
        self.clock.instant(self.clock.now())
    }

    fn unix_time(&self) -> Duration {
        let (now, ahead) = (EPOCH + self.clock.now(), *lock(&self.machine.ahead));
        let by = Duration::from_nanos(ahead.unsigned_abs());
        if ahead < 0 { now.saturating_sub(by) } else { now + by }
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        self.clock.timer(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (machine, alarm, clock) = (self.machine.clone(), self.alarm.clone(), self.clock.clone());
        self.clock.spawn(Box::pin(Supervised { boot: self.boot, task, machine, clock, alarm }));
    }

    /// A job takes no virtual time while it runs: it starts late instead, by what such a job takes and by what the disk
    /// still had to do.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        let takes = lock(&self.jobs).duration(Duration::from_micros(20)..Duration::from_millis(2));
        let now = self.clock.now();
        let mut timer = self.clock.timer(self.clock.instant(self.machine.disk.free_at(now) + takes));
        self.spawn(Box::pin(async move {
            std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
            job();
        }));
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        lock(&self.random).fill(buffer);
    }
}

/// What software on a host gets to work with. It is valid until the host crashes.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) machine: Arc<Machine>,
    pub(crate) runtime: Arc<SimRuntime>,
    pub(crate) network: Arc<SimNetwork>,
}

impl Host {
    /// What the scenario calls it.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Its place in the network, with its addresses.
    pub fn id(&self) -> HostId {
        self.machine.id
    }

    /// Time, tasks and randomness, as the protocol takes them.
    pub fn runtime(&self) -> SharedRuntime {
        self.runtime.clone()
    }

    /// Sockets, as the protocol takes them.
    pub fn network(&self) -> Arc<dyn Network> {
        self.network.clone()
    }

    /// The disk. It outlives crashes; what was never synced may not.
    pub fn disk(&self) -> Mounted {
        self.machine.disk.mount()
    }
}
