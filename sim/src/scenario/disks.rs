//! Disks that fail: a server's can't read some of what it has, a client's is full, slow, or fails to sync for a while.
//!
//! Safety: a transfer over a failing disk ends with an error of the store and never with a wrong piece; what it has
//! acknowledged is there after the power was cut. Liveness: once the disk is well again, the file is whole, whatever the
//! one server can't read.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::disk::Settings;
use crate::ensure;
use crate::faults::{Fault, lock};
use crate::host::Host;
use crate::net::Conditions;
use crate::rng::Rng;
use crate::world::Sim;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use vortex_p2p::downloader::transfer::TransferError;
use vortex_p2p::downloader::{Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::disk::DiskStore;
use vortex_p2p::store::{ParentId, PieceStore, Provenance};

/// See the module.
#[derive(Debug)]
pub(super) struct Disks;

impl Scenario for Disks {
    fn name(&self) -> &'static str {
        "disks"
    }

    fn about(&self) -> &'static str {
        "disks that can't read, are full, slow, or fail to sync; the file is whole once they are well"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

/// What the outside knows of the fetching host: it outlives the crash.
#[derive(Debug)]
struct Known {
    file: Arc<File>,
    peers: Vec<Peer>,
    fetched: Mutex<bool>,
    /// Transfers that ended with an error of the store.
    store_errors: Mutex<u64>,
    /// Requests that the server with the bad disk failed.
    unread: Mutex<u64>,
    done: mpsc::UnboundedSender<()>,
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("disks");
    sim.net()
        .set_default(Conditions::latency(rng.duration(Duration::from_millis(1)..Duration::from_millis(20))));
    let length = rng.range(256 << 10..768 << 10) as usize;
    let file = File::draw(&mut rng, length, 32 << 10)?;
    let (ready, is_ready) = mpsc::unbounded_channel();
    let spoiled = {
        let (file, ready) = (file.clone(), ready);
        sim.host("spoiled", move |host| serve_from_disk(host, file.clone(), ready.clone()))
    };
    let served = file.clone();
    let good = sim.host("good", move |host| peers::serve(host, served.clone()));
    let mut is_ready = is_ready;
    is_ready.recv().await.ok_or("the server is gone")?;
    if sim.swarm().level(Fault::DiskRead).of(false, true, true) {
        spoil(&mut rng, &spoiled.disk(), length as u64);
    }
    let (done, mut finished) = mpsc::unbounded_channel();
    let known = Arc::new(Known {
        file,
        peers: vec![peers::peer(spoiled.id(), Protocol::Quic), peers::peer(good.id(), Protocol::Tcp)],
        fetched: Mutex::default(),
        store_errors: Mutex::default(),
        unread: Mutex::default(),
        done,
    });
    let client = {
        let known = known.clone();
        sim.host("client", move |host| fetch(host, known.clone()))
    };
    let usual = Settings::default();
    let level = |fault| sim.swarm().level(fault);
    client.disk().set(Settings {
        capacity: level(Fault::DiskFull).of(usual.capacity, length as u64 * 3 / 4, length as u64 / 4),
        failing_syncs: level(Fault::DiskSync).of(0.0, 0.05, 0.5),
        operation: usual.operation * level(Fault::DiskSlow).of(1, 20, 200),
        ..usual
    });
    sim.sleep(Duration::from_secs(5)).await;
    client.disk().set(usual);
    finished.recv().await.ok_or("the client is gone")?;
    client.crash();
    client.restart();
    finished.recv().await.ok_or("the client is gone")?;
    let ledger = sim.ledger();
    ledger.seen(Fault::Crash, 1);
    ledger.noticed(*lock(&known.store_errors), &[Fault::DiskFull, Fault::DiskSync]);
    ledger.noticed(*lock(&known.unread), &[Fault::DiskRead]);
    ledger.noticed(1, &[Fault::DiskSlow]);
    Ok(())
}

/// Makes parts of the content unreadable.
fn spoil(rng: &mut Rng, disk: &crate::disk::SimDisk, length: u64) {
    let Some(content) = disk.largest() else { return };
    for _ in 0..rng.range(1..5) {
        let at = rng.below(length);
        disk.spoil(&content, at..at + 1_000);
    }
}

async fn serve_from_disk(host: Host, file: Arc<File>, ready: mpsc::UnboundedSender<()>) -> Outcome {
    let store = DiskStore::open(Arc::new(host.disk()), host.runtime()).await?;
    store.create(file.task()).await?;
    for (number, digest) in file.pieces().into_iter().zip(file.digests()) {
        let mut writer = store.writer(file.key.piece(number)).await?;
        writer.write(file.piece(number)?).await?;
        let (parent_id, cost, created_at) = (ParentId::default(), 0, 0);
        writer.commit(Provenance { digest, parent_id, cost, created_at }).await?;
    }
    let server = peers::serve_store(&host, Arc::new(store), ServerSettings::default()).await?;
    // Nobody waits any more where this host has come back.
    let _ = ready.send(());
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}

async fn fetch(host: Host, known: Arc<Known>) -> Outcome {
    let store = loop {
        match DiskStore::open(Arc::new(host.disk()), host.runtime()).await {
            Ok(store) => break store,
            // The disk is full, or fails to sync.
            Err(_) if !*lock(&known.fetched) => {
                *lock(&known.store_errors) += 1;
                host.runtime().sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    if !*lock(&known.fetched) {
        transfer(&host, &store, &known).await?;
        *lock(&known.fetched) = true;
    }
    known.file.check_store(&store).await?;
    // The run may be over.
    let _ = known.done.send(());
    std::future::pending().await
}

async fn transfer(host: &Host, store: &DiskStore, known: &Known) -> Result<(), Violation> {
    let (factory, _) = peers::downloaders(host, PoolSettings::default()).await?;
    loop {
        let shared = Arc::new(store.clone());
        let transfer = peers::transfer(host, &known.file, shared, factory.clone(), known.peers.clone());
        match transfer.run().await {
            Ok(report) => {
                let unread = report.peers.first().map_or(0, |peer| peer.failures);
                *lock(&known.unread) += unread;
                ensure!(report.unverified == 0, "{} pieces were not verified", report.unverified);
                return Ok(());
            }
            Err(TransferError::Store(_)) => *lock(&known.store_errors) += 1,
            Err(error) => return Err(error.into()),
        }
        host.runtime().sleep(Duration::from_millis(300)).await;
    }
}
