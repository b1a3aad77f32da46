//! A host fetches into a store on disk, loses power in the middle, and goes on when it comes back; its wall clock jumps
//! meanwhile.
//!
//! The power goes at some moment, or at some operation of the disk: between a write and the sync of it, say.
//!
//! Safety: a piece that was told of as stored is there after the crash, with its bytes, and is not fetched again.
//! Liveness: the file is whole in the end.

use super::peers::{self, File};
use super::{Outcome, Scenario};
use crate::disk::Settings;
use crate::ensure;
use crate::faults::{Fault, lock};
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::world::Sim;
use futures_util::future::select;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use vortex_p2p::downloader::transfer::{Event, Transfer};
use vortex_p2p::downloader::{Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::store::PieceStore;
use vortex_p2p::store::disk::DiskStore;

/// See the module.
#[derive(Debug)]
pub(super) struct Resume;

const PIECE_LENGTH: u64 = 32 << 10;

impl Scenario for Resume {
    fn name(&self) -> &'static str {
        "resume"
    }

    fn about(&self) -> &'static str {
        "a host fetches to its disk, loses power up to three times, and goes on from what was acknowledged"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

/// What the outside knows of the fetching host: it outlives each crash.
#[derive(Debug)]
struct Known {
    file: Arc<File>,
    peer: Peer,
    acknowledged: Mutex<BTreeSet<u32>>,
    /// Bytes that were there at the latest start.
    resumed: Mutex<u64>,
    /// Whether the pieces of the file bear dates that are further apart than the run is long.
    jumped: Mutex<bool>,
    /// A piece that was fetched though it was acknowledged.
    again: Mutex<Option<u32>>,
    done: mpsc::UnboundedSender<()>,
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("resume");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(20));
    let link = Bandwidth::mbit(16, Duration::from_millis(100));
    sim.net().set_default(Conditions::latency(latency).with_bandwidth(link));
    let length = rng.range(512 << 10..2 << 20) as usize;
    let file = File::draw(&mut rng, length, PIECE_LENGTH)?;
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    let protocol = if rng.chance(0.5) { Protocol::Quic } else { Protocol::Tcp };
    let (done, mut finished) = mpsc::unbounded_channel();
    let known = Arc::new(Known {
        file,
        peer: peers::peer(server.id(), protocol),
        acknowledged: Mutex::default(),
        resumed: Mutex::default(),
        jumped: Mutex::default(),
        again: Mutex::default(),
        done,
    });
    let client = {
        let known = known.clone();
        sim.host("client", move |host| fetch(host, known.clone()))
    };
    let usual = Settings::default();
    let slower = sim.swarm().level(Fault::DiskSlow).of(1, 20, 400);
    let (operation, sync) = (usual.operation * slower, usual.sync * slower / 4 + usual.sync);
    client.disk().set(Settings { operation, sync, ..usual });
    let jump = sim.swarm().level(Fault::Clock).of(0, 7_200, 400 * 86_400);
    for _ in 0..rng.range(1..4) {
        // In a run that is made smaller, it may keep its power.
        let spared = sim.ledger().spares(Fault::Crash);
        match rng.below(10) {
            0..6 => {
                // It may have nothing to do any more.
                let operations = rng.below(120);
                let cut = client.disk().cut_power_after(if spared { u64::MAX } else { operations });
                select(pin!(cut), pin!(sim.sleep(Duration::from_secs(2)))).await;
            }
            6..8 => sim.sleep(rng.duration(Duration::from_millis(20)..Duration::from_millis(600))).await,
            // By then it has everything, unless its disk is slow.
            _ => sim.sleep(Duration::from_secs(4)).await,
        }
        if !spared {
            client.crash();
        }
        if jump > 0 {
            let seconds = rng.range(1..jump) as i64;
            client.jump_clock(if rng.chance(0.5) { seconds } else { -seconds });
        }
        sim.sleep(rng.duration(Duration::from_millis(1)..Duration::from_millis(500))).await;
        if !spared {
            // What was finished before the crash is to be there after it.
            while finished.try_recv().is_ok() {}
            client.restart();
        }
    }
    finished.recv().await.ok_or("the client is gone")?;
    let ledger = sim.ledger();
    let resumed = *lock(&known.resumed);
    ledger.seen(Fault::Crash, 1);
    ledger.noticed(1, &[Fault::DiskLost, Fault::DiskTorn, Fault::DiskSlow]);
    ledger.noticed(u64::from(*lock(&known.jumped)), &[Fault::Clock]);
    for (state, reached) in [
        ("resume: some pieces were there after a crash", 0 < resumed && resumed < known.file.length()),
        ("resume: everything was there after a crash", resumed == known.file.length()),
    ] {
        ledger.expect_sometimes(state);
        if reached {
            ledger.sometimes(state);
        }
    }
    Ok(())
}

async fn fetch(host: Host, known: Arc<Known>) -> Outcome {
    let store = DiskStore::open(Arc::new(host.disk()), host.runtime()).await?;
    check_acknowledged(&store, &known).await?;
    let observer = {
        let known = known.clone();
        move |event| match event {
            Event::Start { resumed, .. } => *lock(&known.resumed) = resumed,
            Event::Piece { number, .. } if !lock(&known.acknowledged).insert(number) => {
                *lock(&known.again) = Some(number);
            }
            _ => {}
        }
    };
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let transfer = peers::transfer(&host, &known.file, Arc::new(store.clone()), factory, vec![known.peer]);
    Transfer { observer: Some(Arc::new(observer)), ..transfer }.run().await?;
    let again = *lock(&known.again);
    ensure!(again.is_none(), "piece {again:?} was acknowledged, and fetched once more");
    known.file.check_store(&store).await?;
    let mut dates = BTreeSet::new();
    for number in known.file.pieces() {
        dates.insert(store.piece(known.file.key.piece(number)).await?.provenance.created_at);
    }
    let (first, last) =
        (dates.first().copied().unwrap_or_default(), dates.last().copied().unwrap_or_default());
    *lock(&known.jumped) = last - first > 120;
    // Nobody listens any more where a crash comes after the end.
    let _ = known.done.send(());
    Ok(())
}

/// Every piece that was told of as stored reads back.
async fn check_acknowledged(store: &DiskStore, known: &Known) -> Outcome {
    let acknowledged = lock(&known.acknowledged).clone();
    for number in acknowledged {
        let piece = store.piece(known.file.key.piece(number)).await;
        let piece = piece.map_err(|error| format!("piece {number} was acknowledged and is lost: {error}"))?;
        known.file.check(number, &piece.content.read(0, piece.content.len() as usize).await?)?;
    }
    Ok(())
}
