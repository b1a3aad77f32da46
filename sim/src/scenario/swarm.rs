//! A seed and many leechers, each of which serves what it has while it fetches. Every host has one uplink for all that it
//! sends.
//!
//! Safety: everybody has the file's bytes. Liveness: all have the whole file within a few times the least time that their
//! uplinks allow.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::{Fault, lock};
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::trace::Keep;
use crate::world::{self, Sim, World};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use vortex_p2p::downloader::transfer::{PlanSettings, Transfer};
use vortex_p2p::downloader::{Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::{MemoryStore, PieceStore};

/// See the module.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) leechers: u32,
}

impl Scenario for Swarm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn every(&self) -> u64 {
        40
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        let leechers = self.leechers;
        Box::pin(async move {
            let race = race(&sim, leechers, QUEUE).await?;
            let Race { least, alone, from_seed, from_leechers, .. } = race;
            let took = race.took.last().copied().unwrap_or_default();
            ensure!(
                took <= least * MOST,
                "{took:?} for all; the seed alone would take {alone:?}, the bound is {least:?}"
            );
            ensure!(
                from_seed < from_leechers,
                "{from_seed} bytes came from the seed, {from_leechers} from others"
            );
            sim.ledger().noticed(1, &[Fault::Queue]);
            Ok(())
        })
    }
}

/// Peers that one is told of.
const KNOWN: u64 = 6;
/// Of so many leechers one is told of the seed.
const SEEDED: usize = 16;
const PIECE_LENGTH: u64 = 32 << 10;
const PIECES: u64 = 32;
/// All have the file within so many times the least time that their uplinks allow.
const MOST: u32 = 5;
/// Megabits a second of each uplink.
const RATE: u64 = 20;
/// How long an uplink may keep packets waiting, as home routers do.
const QUEUE: Duration = Duration::from_millis(200);

/// How a swarm got its file.
#[derive(Debug, Clone)]
pub(crate) struct Race {
    /// When each leecher had it, from the moment on that all were there; the first one first.
    pub(crate) took: Vec<Duration>,
    /// The least time that the uplinks allow.
    pub(crate) least: Duration,
    /// The time that the seed's uplink would need for everybody.
    pub(crate) alone: Duration,
    /// Bytes of content that came from the seed.
    pub(crate) from_seed: u64,
    /// Bytes of content that came from leechers.
    pub(crate) from_leechers: u64,
}

impl Race {
    /// How many times the seed sent the file.
    pub(crate) fn copies(&self) -> f64 {
        self.from_seed as f64 / (PIECES * PIECE_LENGTH) as f64
    }
}

/// What is measured for a table.
struct Measurement {
    leechers: u32,
    queue: Duration,
    race: Arc<Mutex<Option<Race>>>,
}

impl Scenario for Measurement {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn about(&self) -> &'static str {
        "one measurement"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        let (leechers, queue, race) = (self.leechers, self.queue, self.race.clone());
        Box::pin(async move {
            *lock(&race) = Some(self::race(&sim, leechers, queue).await?);
            Ok(())
        })
    }
}

/// How `leechers` get the file where uplinks keep packets waiting for up to `queue`.
pub(crate) fn measure(leechers: u32, queue: Duration, seed: u64) -> Result<Race, Violation> {
    let race = Arc::new(Mutex::new(None));
    // A scenario is static; a few of them are nothing.
    let scenario = Box::leak(Box::new(Measurement { leechers, queue, race: race.clone() }));
    // The clock of madsim is exact, and idle hosts cost nothing there.
    let world = if cfg!(madsim) { World::Madsim } else { World::Turmoil };
    world::run(world, scenario, seed, Keep::Digest).outcome?;
    let race = lock(&race).take();
    race.ok_or_else(|| "nothing was measured".into())
}

async fn race(sim: &Sim, leechers: u32, queue: Duration) -> Result<Race, Violation> {
    let mut rng = sim.rng("swarm");
    sim.net().set_default(Conditions::latency(Duration::from_millis(5)));
    let file = File::draw(&mut rng, (PIECES * PIECE_LENGTH) as usize, PIECE_LENGTH)?;
    let uplink = Bandwidth::mbit(RATE, queue);
    let served = file.clone();
    let seed = sim.host("seed", move |host| peers::serve(host, served.clone()));
    sim.net().set_uplink(seed.id(), uplink);
    let first = peers::peer(seed.id(), Protocol::Quic);
    let mut tasks = Vec::new();
    let mut told = Vec::new();
    for index in 0..leechers {
        let (tell, peers) = oneshot::channel();
        let file = file.clone();
        let task = sim.client(&format!("leecher{index}"), move |host| leech(host, file, first, peers));
        sim.net().set_uplink(task.host().id(), uplink);
        told.push((peers::peer(task.host().id(), Protocol::Quic), tell));
        tasks.push(task);
    }
    // Each is told once, as by a scheduler that knows who wants the file.
    let all: Vec<Peer> = told.iter().map(|(peer, _)| *peer).collect();
    for (index, (own, tell)) in told.into_iter().enumerate() {
        let mut mine: Vec<Peer> = Vec::new();
        mine.extend((index % SEEDED == 0).then_some(first));
        while (mine.len() as u64) < KNOWN.min(u64::from(leechers)) {
            let other = all.get(rng.below(all.len() as u64) as usize).copied();
            mine.extend(other.filter(|other| *other != own && !mine.contains(other)));
        }
        let _ = tell.send(mine);
    }
    let (mut took, mut from_seed, mut from_leechers) = (Vec::new(), 0, 0);
    for (index, task) in tasks.into_iter().enumerate() {
        let leeched =
            task.result().await.ok_or_else(|| format!("leecher {index} ended without a result"))??;
        took.push(leeched.took);
        from_seed += leeched.from_seed;
        from_leechers += leeched.from_leechers;
    }
    took.sort();
    let (bytes, all) = (file.length() as f64, f64::from(leechers));
    let rate = RATE as f64 * 125_000.0;
    Ok(Race {
        took,
        // Every byte leaves the seed once, and everybody's bytes leave somebody's uplink.
        least: Duration::from_secs_f64((bytes / rate).max(all * bytes / (rate * (all + 1.0)))),
        alone: Duration::from_secs_f64(all * bytes / rate),
        from_seed,
        from_leechers,
    })
}

/// What a leecher tells when it has everything.
struct Leeched {
    took: Duration,
    from_seed: u64,
    from_leechers: u64,
}

/// Fetches everything while serving.
async fn leech(
    host: Host,
    file: Arc<File>,
    seed: Peer,
    peers: oneshot::Receiver<Vec<Peer>>,
) -> Result<Leeched, Violation> {
    let begun = host.runtime().now();
    let store = Arc::new(MemoryStore::new(host.runtime()));
    store.create(file.task()).await?;
    let server = peers::serve_store(&host, store.clone(), ServerSettings::default()).await?;
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let transfer = peers::transfer(&host, &file, store.clone(), factory, peers.await?);
    let plan = PlanSettings { patience: Duration::from_secs(30), ..PlanSettings::default() };
    let report = Transfer { swarm: true, plan, ..transfer }.run().await?;
    let took = host.runtime().now() - begun;
    file.check_store(&*store).await?;
    ensure!(report.unverified == 0, "pieces were not verified");
    // It goes on serving until the run ends: its tasks hold the server.
    drop(server);
    let from = |wanted: bool| {
        report.peers.iter().filter(|peer| (peer.peer == seed) == wanted).map(|p| p.bytes).sum()
    };
    Ok(Leeched { took, from_seed: from(true), from_leechers: from(false) })
}
