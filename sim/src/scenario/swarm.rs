//! A seed and many leechers, each of which serves what it has while it fetches. Every host has one uplink for all that it
//! sends.
//!
//! Safety: everybody has the file's bytes. Liveness: all have the whole file within a few times the least time that their
//! uplinks allow.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::Fault;
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::world::Sim;
use std::sync::Arc;
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
        Box::pin(run(sim, self.leechers))
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

async fn run(sim: Sim, leechers: u32) -> Outcome {
    let mut rng = sim.rng("swarm");
    sim.net().set_default(Conditions::latency(Duration::from_millis(5)));
    let file = File::draw(&mut rng, (PIECES * PIECE_LENGTH) as usize, PIECE_LENGTH)?;
    let uplink = Bandwidth::mbit(RATE, Duration::from_millis(200));
    let served = file.clone();
    let seed = sim.host("seed", move |host| peers::serve(host, served.clone()));
    sim.net().set_uplink(seed.id(), uplink);
    let first = peers::peer(seed.id(), Protocol::Quic);
    let begun = sim.now();
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
    let (mut from_seed, mut from_leechers) = (0, 0);
    for (index, task) in tasks.into_iter().enumerate() {
        let given =
            task.result().await.ok_or_else(|| format!("leecher {index} ended without a result"))??;
        from_seed += given.0;
        from_leechers += given.1;
    }
    let took = sim.now() - begun;
    let (bytes, all) = (file.length() as f64, f64::from(leechers));
    let rate = RATE as f64 * 125_000.0;
    // Every byte leaves the seed once, and everybody's bytes leave somebody's uplink.
    let bound = Duration::from_secs_f64((bytes / rate).max(all * bytes / (rate * (all + 1.0))));
    let alone = Duration::from_secs_f64(all * bytes / rate);
    ensure!(
        took <= bound * MOST,
        "{took:?} for all; the seed alone would take {alone:?}, the bound is {bound:?}"
    );
    ensure!(from_seed < from_leechers, "{from_seed} bytes came from the seed, {from_leechers} from others");
    sim.ledger().noticed(1, &[Fault::Queue]);
    Ok(())
}

/// Fetches everything while serving; answers with the bytes that came from the seed, and from others.
async fn leech(
    host: Host,
    file: Arc<File>,
    seed: Peer,
    peers: oneshot::Receiver<Vec<Peer>>,
) -> Result<(u64, u64), Violation> {
    let store = Arc::new(MemoryStore::new(host.runtime()));
    store.create(file.task()).await?;
    let server = peers::serve_store(&host, store.clone(), ServerSettings::default()).await?;
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let transfer = peers::transfer(&host, &file, store.clone(), factory, peers.await?);
    let plan = PlanSettings { patience: Duration::from_secs(30), ..PlanSettings::default() };
    let report = Transfer { swarm: true, plan, ..transfer }.run().await?;
    file.check_store(&*store).await?;
    ensure!(report.unverified == 0, "pieces were not verified");
    // It goes on serving until the run ends: its tasks hold the server.
    drop(server);
    let from = |wanted: bool| {
        report.peers.iter().filter(|peer| (peer.peer == seed) == wanted).map(|p| p.bytes).sum()
    };
    Ok((from(true), from(false)))
}
