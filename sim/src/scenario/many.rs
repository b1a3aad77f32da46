//! One file from five peers: one is good, one slow, one dies in the middle, one lies, one falls silent.
//!
//! Safety: nothing of the liar is stored, and it is told apart from the others. Liveness: the file is whole, and a liar
//! is not asked for ever.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::{Fault, lock};
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::rng::Rng;
use crate::world::{HostHandle, Sim};
use futures_util::future::join;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::client::{Failure, Rejection};
use vortex_p2p::downloader::transfer::{Event, PlanSettings, Report, Transfer};
use vortex_p2p::downloader::{DownloadError, Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::store::MemoryStore;

/// See the module.
#[derive(Debug)]
pub(super) struct ManyPeers;

const PIECE_LENGTH: u64 = 64 << 10;
const SLOW: usize = 1;
const DYING: usize = 2;
const LIAR: usize = 3;
const SILENT: usize = 4;
/// The good peer alone would take 5 s.
const ENOUGH: Duration = Duration::from_secs(15);
/// Lies after which nobody is asked again; those that are under way by then still come.
const STRIKES: usize = 3;

impl Scenario for ManyPeers {
    fn name(&self) -> &'static str {
        "many-peers"
    }

    fn about(&self) -> &'static str {
        "one file from five peers over QUIC and TCP: one good, one slow, one that dies, one that lies, one that falls silent"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("many-peers");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(40));
    let link = Bandwidth::mbit(5, Duration::from_millis(100));
    sim.net().set_default(Conditions::latency(latency).with_bandwidth(link));
    let length = rng.range(1 << 20..3 << 20) as usize;
    let file = File::draw(&mut rng, length, PIECE_LENGTH)?;
    let forged = file.forged(&mut rng);
    let server = |name: &str, file: &Arc<File>| {
        let file = file.clone();
        sim.host(name, move |host| peers::serve(host, file.clone()))
    };
    let hosts = [
        server("good", &file),
        server("slow", &file),
        server("dying", &file),
        server("liar", &forged),
        server("silent", &file),
    ];
    let peers: Vec<Peer> = hosts.iter().map(|host| peers::peer(host.id(), draw_protocol(&mut rng))).collect();
    let lies = Arc::new(Mutex::new(0));
    let client = {
        let (file, lies) = (file.clone(), lies.clone());
        sim.client("client", move |host| fetch(host, file, peers, lies))
    };
    let narrow = Bandwidth::mbit(1, Duration::from_millis(200));
    let slow = Conditions::latency(latency).with_bandwidth(narrow);
    sim.net().set_both(client.host().id(), hosts[SLOW].id(), slow);
    let (mut death, mut silence) = (sim.rng("death"), sim.rng("silence"));
    join(die(&sim, &mut death, &hosts[DYING]), stand_still(&sim, &mut silence, &hosts[SILENT])).await;
    let report = client.result().await.ok_or("the client ended without a result")??;
    judge(&sim, &report, *lock(&lies), file.pieces().len() as u64)
}

fn draw_protocol(rng: &mut Rng) -> Protocol {
    if rng.chance(0.5) { Protocol::Quic } else { Protocol::Tcp }
}

/// The host dies in the middle, and comes back in half of the runs.
async fn die(sim: &Sim, rng: &mut Rng, host: &HostHandle) {
    sim.sleep(rng.duration(Duration::from_millis(20)..Duration::from_millis(700))).await;
    host.crash();
    if rng.chance(0.5) {
        sim.sleep(rng.duration(Duration::from_millis(50)..Duration::from_secs(3))).await;
        host.restart();
    }
}

/// Nothing runs on the host for longer than anybody should wait, or for a moment.
async fn stand_still(sim: &Sim, rng: &mut Rng, host: &HostHandle) {
    sim.sleep(rng.duration(Duration::from_millis(20)..Duration::from_millis(700))).await;
    host.pause();
    if rng.chance(0.5) {
        sim.sleep(rng.duration(Duration::from_millis(50)..Duration::from_secs(3))).await;
        host.resume();
    }
}

async fn fetch(
    host: Host,
    file: Arc<File>,
    peers: Vec<Peer>,
    lies: Arc<Mutex<usize>>,
) -> Result<Report, Violation> {
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let store = Arc::new(MemoryStore::new(host.runtime()));
    let lie = DownloadError::from(Failure::Rejected(Rejection::OtherDigest)).to_string();
    let honest = Arc::new(Mutex::new(None));
    let observer = {
        let honest = honest.clone();
        move |event| {
            if let Event::Retry { peer, reason, number } = event
                && reason == lie
            {
                match peer {
                    LIAR => *lock(&lies) += 1,
                    _ => *lock(&honest) = Some(format!("peer {peer} is honest, and said to lie in {number}")),
                }
            }
        }
    };
    let transfer = peers::transfer(&host, &file, store.clone(), factory, peers);
    let report = Transfer { observer: Some(Arc::new(observer)), ..transfer }.run().await?;
    file.check_store(&*store).await?;
    if let Some(wronged) = lock(&honest).take() {
        return Err(wronged.into());
    }
    Ok(report)
}

fn judge(sim: &Sim, report: &Report, lies: usize, pieces: u64) -> Outcome {
    let [good, slow, dying, liar, silent] = &report.peers[..] else {
        return Err("not a report on five peers".into());
    };
    ensure!(liar.pieces == 0, "{} pieces were taken from the liar", liar.pieces);
    let at_most = STRIKES - 1 + PlanSettings::default().concurrency;
    ensure!(lies <= at_most, "the liar lied {lies} times, more than {at_most}");
    let given = good.pieces + slow.pieces + dying.pieces + silent.pieces;
    ensure!(report.elapsed < ENOUGH, "{:?} for a file of which one peer would have sent all", report.elapsed);
    ensure!(given == pieces, "{given} pieces are counted for the peers, and the file has {pieces}");
    ensure!(report.unverified == 0, "{} pieces were not verified", report.unverified);
    let ledger = sim.ledger();
    ledger.seen(Fault::Crash, u64::from(dying.failures > 0));
    ledger.noticed(1, &[Fault::Pause, Fault::Queue]);
    for (state, reached) in [
        ("many peers: the dying one gave pieces and failed", dying.pieces > 0 && dying.failures > 0),
        ("many peers: the liar was found out", lies > 0),
        ("many peers: the slow one gave pieces", slow.pieces > 0),
        ("many peers: the silent one gave pieces", silent.pieces > 0),
        ("many peers: the liar was given up", liar.gone),
    ] {
        ledger.expect_sometimes(state);
        if reached {
            ledger.sometimes(state);
        }
    }
    Ok(())
}
