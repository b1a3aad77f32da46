//! A server shuts down while it answers; clients have its answers whole, and get the rest from another peer.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::lock;
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::world::Sim;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::downloader::transfer::{Event, Report, Transfer};
use vortex_p2p::downloader::{Peer, PoolSettings, Protocol};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::MemoryStore;

/// See the module.
#[derive(Debug)]
pub(super) struct Shutdown;

impl Scenario for Shutdown {
    fn name(&self) -> &'static str {
        "shutdown"
    }

    fn about(&self) -> &'static str {
        "a server shuts down under load: what it has begun arrives, the rest comes from another peer"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("shutdown");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(30));
    let link = Bandwidth::mbit(12, Duration::from_millis(150));
    sim.net().set_default(Conditions::latency(latency).with_bandwidth(link));
    let length = rng.range(1 << 20..2 << 20) as usize;
    let file = File::draw(&mut rng, length, 64 << 10)?;
    let leaves = rng.duration(Duration::from_millis(200)..Duration::from_millis(500));
    let (left, is_gone) = (Arc::new(Mutex::new(None)), file.clone());
    let leaving = {
        let left = left.clone();
        sim.host("leaving", move |host| serve_for(host, is_gone.clone(), leaves, left.clone()))
    };
    let served = file.clone();
    let staying = sim.host("staying", move |host| peers::serve(host, served.clone()));
    let protocol = if rng.chance(0.5) { Protocol::Quic } else { Protocol::Tcp };
    let both = vec![peers::peer(leaving.id(), protocol), peers::peer(staying.id(), Protocol::Quic)];
    let received = Arc::new(Mutex::new((0, false)));
    let client = {
        let (received, left) = (received.clone(), left.clone());
        sim.client("client", move |host| fetch(host, file, both, received, left))
    };
    let report = client.result().await.ok_or("the client ended without a result")??;
    let (bytes, given_up) = *lock(&received);
    let whole = report.peers.first().map_or(0, |peer| peer.bytes);
    ensure!(
        given_up || bytes == whole,
        "of {bytes} bytes of the leaving server, {whole} came in whole answers"
    );
    let state = "shutdown: pieces came from the leaving server, and then from the other";
    sim.ledger().expect_sometimes(state);
    let [first, second] = &report.peers[..] else { return Err("not a report on two peers".into()) };
    if first.pieces > 0 && first.failures > 0 && second.pieces > 0 {
        sim.ledger().sometimes(state);
    }
    let took = *lock(&left);
    if let Some(took) = took {
        ensure!(took < Duration::from_secs(5), "the shutdown took {took:?}, and an answer takes a second");
    }
    Ok(())
}

/// Serves for some time, then shuts down and says how long that took.
async fn serve_for(
    host: Host,
    file: Arc<File>,
    time: Duration,
    took: Arc<Mutex<Option<Duration>>>,
) -> Outcome {
    let runtime = host.runtime();
    let server = peers::start_server(&host, &file, ServerSettings::default()).await?;
    runtime.sleep(time).await;
    let begun = runtime.now();
    server.shutdown().await;
    *lock(&took) = Some(runtime.now().saturating_duration_since(begun));
    Ok(())
}

async fn fetch(
    host: Host,
    file: Arc<File>,
    peers: Vec<Peer>,
    received: Arc<Mutex<(u64, bool)>>,
    left: Arc<Mutex<Option<Duration>>>,
) -> Result<Report, Violation> {
    let (factory, _) = peers::downloaders(&host, PoolSettings::default()).await?;
    let store = Arc::new(MemoryStore::new(host.runtime()));
    // An answer of which bytes have come was begun, and has to be finished, unless the client itself gives it up. What it gives
    // up when the server has gone was not under way any more.
    let observer = move |event| match event {
        Event::Bytes { peer: 0, count } => lock(&received).0 += count,
        Event::Beaten { peer: 0, .. } if lock(&left).is_none() => lock(&received).1 = true,
        _ => {}
    };
    let transfer = peers::transfer(&host, &file, store.clone(), factory, peers);
    let report = Transfer { observer: Some(Arc::new(observer)), ..transfer }.run().await?;
    file.check_store(&*store).await?;
    Ok(report)
}
