//! The worlds: what runs the hosts of a scenario on virtual time.
//!
//! * [`World::Turmoil`]: each host has a tokio runtime of its own, stepped tick by tick; tokio's own scheduling, so this
//!   is close to production and fast. Carries correctness, timing, loss, partitions and crashes on each change.
//! * [`World::Madsim`]: one executor that picks the next task at random among those that are ready, on a clock that is
//!   exact to the nanosecond. Carries interleavings that tokio would never choose, and long waits at no cost.
//!
//! Both get the same network, disk, cryptography and scenarios from here, and both run each seed on a thread of its own:
//! what a thread keeps (hash keys, TLS randomness, executor state) can't leak from one seed into the next.

#[cfg(madsim)]
mod madsim;
mod turmoil;

use crate::crypto;
use crate::disk::SimDisk;
use crate::faults::{Fault, Ledger, Report, Swarm, lock};
use crate::host::{Alarm, Clock, Host, Machine, SimRuntime, base, panic_text};
use crate::mask::Mask;
use crate::net::{Conditions, HostId, SimNetwork, Switch};
use crate::notes::{self, Notes};
use crate::rng::{Rng, Seed};
use crate::scenario::{Outcome, Scenario};
use crate::trace::{Digest, Keep, Trace};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, Once};
use std::task::Poll;
use std::time::Duration;
use vortex_p2p::runtime::BoxFuture;

/// Which executor runs the hosts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// turmoil: tokio's scheduler, stepped host by host.
    Turmoil,
    /// madsim: a random choice among ready tasks.
    Madsim,
}

impl World {
    /// The worlds that this build has; madsim needs `--cfg madsim`.
    pub const ALL: &[World] = if cfg!(madsim) { &[World::Turmoil, World::Madsim] } else { &[World::Turmoil] };
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            World::Turmoil => "turmoil",
            World::Madsim => "madsim",
        })
    }
}

/// What a run has shown.
#[derive(Debug)]
pub struct Finished {
    /// How the scenario ended.
    pub outcome: Outcome,
    /// How long it took in virtual time.
    pub elapsed: Duration,
    /// Faults and states.
    pub report: Report,
    /// Faults that were drawn, by kind, whether or not the mask let them act.
    pub drawn: BTreeMap<Fault, u64>,
    /// What every link did that was not told otherwise.
    pub path: Conditions,
    /// Every packet.
    pub trace: Trace,
    /// What the protocol did, where the trace keeps more than its digest.
    pub notes: Notes,
}

impl Finished {
    /// What this run is compared by.
    pub fn digest(&self) -> Digest {
        self.trace.digest()
    }
}

/// Starts hosts. A host's software is a function, so that a restart can call it again.
type Boot = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What a world does for a scenario that runs in it.
trait Machines: Send + Sync + std::fmt::Debug {
    /// Adds a host and starts its software.
    fn add(&self, machine: &Arc<Machine>, boot: Boot);
    /// Drops everything that runs on the host, where it stands.
    fn crash(&self, host: HostId);
    /// Runs the software of a crashed host again.
    fn restart(&self, host: HostId);
}

/// What all of a run share.
#[derive(Debug)]
struct Run {
    seed: Seed,
    switch: Arc<Switch>,
    ledger: Ledger,
    alarm: Arc<Alarm>,
    machines: Arc<dyn Machines>,
    hosts: Mutex<BTreeMap<HostId, Arc<Machine>>>,
}

/// A scenario's grip on its world: hosts, network, faults, draws.
#[derive(Debug, Clone)]
pub struct Sim {
    run: Arc<Run>,
    clock: Arc<dyn Clock>,
}

impl Sim {
    /// A stream of draws for the scenario itself.
    pub fn rng(&self, name: &str) -> Rng {
        self.run.seed.stream(&format!("scenario/{name}"))
    }

    /// How strongly each fault acts in this run.
    pub fn swarm(&self) -> Swarm {
        Swarm::new(self.run.seed)
    }

    /// Where faults and reached states are written down.
    pub fn ledger(&self) -> &Ledger {
        &self.run.ledger
    }

    /// The network: conditions, cuts, rebinding.
    pub fn net(&self) -> &Switch {
        &self.run.switch
    }

    /// Opens both directions between two hosts again, and releases what was held back.
    pub fn heal(&self, a: &HostHandle, b: &HostHandle) {
        notes::note(|| format!("the path between {} and {} is whole again", a.machine.name, b.machine.name));
        self.run.switch.open(self.now(), a.id(), b.id());
    }

    /// Virtual time since the start of the run.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Waits for `duration` of virtual time.
    pub async fn sleep(&self, duration: Duration) {
        let mut timer = self.clock.timer(self.clock.instant(self.now() + duration));
        std::future::poll_fn(|cx| timer.as_mut().poll(cx)).await;
    }

    /// Adds a host whose software starts now, and again after each restart. A host whose software has ended stays up;
    /// one whose software fails ends the run.
    pub fn host<F>(&self, name: &str, software: impl Fn(Host) -> F + Send + Sync + 'static) -> HostHandle
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let run = self.run.clone();
        let id = run.switch.attach();
        notes::name(id, name);
        let disk = SimDisk::new(run.seed.stream(&format!("disk/{name}")), run.ledger.clone());
        let machine = Arc::new(Machine::new(name.to_owned(), id, disk));
        lock(&run.hosts).insert(id, machine.clone());
        let boots = Mutex::new(0u32);
        let handle = HostHandle { run: run.clone(), machine: machine.clone() };
        let booted = machine.clone();
        let boot: Boot = Arc::new(move || {
            let count = {
                let mut boots = lock(&boots);
                *boots += 1;
                *boots
            };
            run.switch.power_on(id);
            booted.disk.power_on();
            match boot_host(&run, &booted, count) {
                Ok(host) => {
                    let (alarm, name) = (run.alarm.clone(), booted.name.clone());
                    let runtime = host.runtime();
                    let work = software(host);
                    // Through the runtime, so that pauses and panics are seen as with any other task.
                    runtime.spawn(Box::pin(async move {
                        if let Err(error) = work.await {
                            alarm.raise(format!("{name} failed: {error}"));
                        }
                    }));
                }
                Err(error) => run.alarm.raise(format!("{} can't boot: {error}", booted.name)),
            }
            Box::pin(std::future::pending())
        });
        self.run.machines.add(&machine, boot);
        handle
    }

    /// Adds a host that does one thing, and hands over the result.
    pub fn client<F, T>(&self, name: &str, software: impl FnOnce(Host) -> F + Send + 'static) -> Task<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (done, result) = tokio::sync::oneshot::channel();
        let once = Mutex::new(Some((software, done)));
        let host = self.host(name, move |host| {
            let once = lock(&once).take();
            async move {
                if let Some((software, done)) = once {
                    // Nobody may be waiting.
                    let _ = done.send(software(host).await);
                }
                Ok(())
            }
        });
        Task { host, result }
    }
}

/// The boot of a host: everything in it that does not outlive a crash is made anew.
fn boot_host(run: &Run, machine: &Arc<Machine>, boot: u32) -> std::io::Result<Host> {
    let clock = current_clock()?;
    let stream = |what: &str| run.seed.stream(&format!("{what}/{}/{boot}", machine.name));
    let network = SimNetwork::start(run.switch.clone(), clock.clone(), machine.id, stream("tcp"))?;
    let runtime = SimRuntime {
        clock,
        machine: machine.clone(),
        boot: machine.crashes(),
        alarm: run.alarm.clone(),
        random: Mutex::new(stream("random")),
        jobs: Mutex::new(stream("jobs")),
    };
    Ok(Host { machine: machine.clone(), runtime: Arc::new(runtime), network: Arc::new(network) })
}

/// Finds the clock of the host that runs right now.
type CurrentClock = fn() -> Arc<dyn Clock>;

thread_local! {
    /// The clock and executor of whatever host runs on this thread right now.
    static CLOCK: Cell<Option<CurrentClock>> = const { Cell::new(None) };
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

fn current_clock() -> std::io::Result<Arc<dyn Clock>> {
    CLOCK.get().map(|clock| clock()).ok_or(std::io::ErrorKind::NotConnected.into())
}

/// Where the latest panic of this thread's run was.
pub(crate) fn last_panic_place() -> Option<String> {
    PANIC_PLACE.take()
}

/// Panics of simulated hosts are findings: they are reported with their seed, not printed where they happen.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SIMULATED.get() {
                PANIC_PLACE.set(info.location().map(ToString::to_string));
            } else {
                before(info);
            }
        }));
    });
}

/// A host of a scenario.
#[derive(Debug, Clone)]
pub struct HostHandle {
    run: Arc<Run>,
    machine: Arc<Machine>,
}

impl HostHandle {
    /// Its place in the network, with its addresses.
    pub fn id(&self) -> HostId {
        self.machine.id
    }

    /// Its disk, to look at or to make trouble with.
    pub fn disk(&self) -> SimDisk {
        self.machine.disk.clone()
    }

    /// The host loses power. Its disk keeps what was synced, and of the rest what chance leaves.
    pub fn crash(&self) {
        notes::note(|| format!("{} loses power", self.machine.name));
        self.run.ledger.armed(Fault::Crash);
        self.run.ledger.fired(Fault::Crash);
        self.run.switch.power_off(self.id());
        self.machine.disk.crash();
        self.machine.crash();
        self.run.machines.crash(self.id());
    }

    /// The host comes back, and its software starts from the beginning.
    pub fn restart(&self) {
        notes::note(|| format!("{} comes back", self.machine.name));
        self.machine.resume();
        self.run.machines.restart(self.id());
    }

    /// Nothing runs on the host until [`HostHandle::resume`].
    pub fn pause(&self) {
        if !self.run.ledger.happens(Fault::Pause) {
            return;
        }
        notes::note(|| format!("{} stops for a while", self.machine.name));
        self.run.ledger.fired(Fault::Pause);
        self.machine.pause();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        notes::note(|| format!("{} goes on", self.machine.name));
        self.machine.resume();
    }

    /// Moves the host's wall clock; its monotonic clock is not concerned.
    pub fn jump_clock(&self, seconds: i64) {
        if !self.run.ledger.happens(Fault::Clock) {
            return;
        }
        notes::note(|| format!("the clock of {} jumps by {seconds} s", self.machine.name));
        self.run.ledger.fired(Fault::Clock);
        self.machine.jump_clock(seconds.saturating_mul(1_000_000_000));
    }
}

/// A host that does one thing.
#[derive(Debug)]
pub struct Task<T> {
    host: HostHandle,
    result: tokio::sync::oneshot::Receiver<T>,
}

impl<T> Task<T> {
    /// The host.
    pub fn host(&self) -> &HostHandle {
        &self.host
    }

    /// The result; nothing where the host crashed before there was one.
    pub async fn result(self) -> Option<T> {
        self.result.await.ok()
    }
}

/// Runs `scenario` with `seed` in `world`, on a thread of its own.
pub fn run(world: World, scenario: &'static dyn Scenario, seed: u64, keep: Keep) -> Finished {
    run_masked(world, scenario, seed, keep, Mask::default())
}

/// The same, where only those faults act that `mask` lets.
pub fn run_masked(
    world: World,
    scenario: &'static dyn Scenario,
    seed: u64,
    keep: Keep,
    mask: Mask,
) -> Finished {
    keep_panics_quiet();
    // The first use decides, and it must not be within a world that has clocks of its own.
    base();
    let thread = std::thread::Builder::new().name(format!("{}-{seed}", scenario.name())).spawn(move || {
        let run = || run_here(world, scenario, Seed(seed), keep, mask);
        if keep == Keep::Digest {
            return run();
        }
        let (finished, notes) = notes::taken(run);
        Finished { notes, ..finished }
    });
    let died = |why: String| Finished {
        outcome: Err(why.into()),
        elapsed: Duration::ZERO,
        report: Report::default(),
        drawn: BTreeMap::new(),
        path: Conditions::default(),
        trace: Trace::new(Keep::Digest),
        notes: Notes::default(),
    };
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(finished)) => finished,
        Ok(Err(panic)) => died(panic_text("the simulator itself", panic.as_ref())),
        Err(error) => died(format!("no thread for the run: {error}")),
    }
}

fn run_here(world: World, scenario: &'static dyn Scenario, seed: Seed, keep: Keep, mask: Mask) -> Finished {
    SIMULATED.set(true);
    crypto::seed_this_thread(seed);
    let ledger = Ledger::new(mask);
    let switch = Switch::new(seed, keep, ledger.clone());
    let alarm = Arc::new(Alarm::default());
    let start = {
        let (switch, ledger, alarm) = (switch.clone(), ledger.clone(), alarm.clone());
        move |machines: Arc<dyn Machines>, clock: Arc<dyn Clock>| {
            let hosts = Mutex::default();
            let run = Run { seed, switch, ledger, alarm, machines, hosts };
            direct(scenario, Sim { run: Arc::new(run), clock })
        }
    };
    let (outcome, elapsed) = match world {
        World::Turmoil => turmoil::run(seed, scenario.limit(), start),
        #[cfg(madsim)]
        World::Madsim => madsim::run(seed, start),
        #[cfg(not(madsim))]
        World::Madsim => (Err("this build has no madsim: build with --cfg madsim".into()), Duration::ZERO),
    };
    CLOCK.take();
    let (path, trace) = (switch.path(), switch.finish());
    let (report, drawn) = (ledger.report(), ledger.drawn());
    Finished { outcome, elapsed, report, drawn, path, trace, notes: Notes::default() }
}

/// The scenario, up to its end, to the first alarm, or to its limit of virtual time.
async fn direct(scenario: &'static dyn Scenario, sim: Sim) -> (Outcome, Duration) {
    let mut limit = sim.clock.timer(sim.clock.instant(sim.now() + scenario.limit()));
    let mut work = scenario.run(sim.clone());
    let outcome = std::future::poll_fn(|cx| {
        let _at_work = notes::enter(None, &sim.clock);
        if let Poll::Ready(what) = sim.run.alarm.poll(cx) {
            return Poll::Ready(Err(what.into()));
        }
        let work = std::panic::AssertUnwindSafe(|| work.as_mut().poll(cx));
        match std::panic::catch_unwind(work) {
            Ok(Poll::Ready(outcome)) => return Poll::Ready(outcome),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Err(panic_text("the scenario", panic.as_ref()).into())),
        }
        limit.as_mut().poll(cx).map(|()| {
            let limit = scenario.limit();
            Err(format!("not finished after {limit:?} of virtual time").into())
        })
    })
    .await;
    (outcome, sim.now())
}
