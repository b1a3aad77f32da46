//! A pool with room for two connections, and six peers that come and go.
//!
//! Safety: a connection in use is never closed to make room, a closed one never handed out while its peer is there, and
//! first requests that come together make one handshake.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::Fault;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vortex_p2p::client::Ask;
use vortex_p2p::downloader::{Downloader, Peer, PoolSettings, PoolStats, Protocol, QuicDownloader};
use vortex_p2p::runtime::BoxFuture;

/// See the module.
#[derive(Debug)]
pub(super) struct Pool;

impl Scenario for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn about(&self) -> &'static str {
        "a pool with room for two connections, six peers, and all of them in use at once"
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn every(&self) -> u64 {
        4
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

const PEERS: usize = 6;
const TOGETHER: usize = 8;
const CAPACITY: usize = 2;

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("pool");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(50));
    sim.net().set_default(Conditions::latency(latency));
    let length = rng.range(64 << 10..256 << 10) as usize;
    let file = File::draw(&mut rng, length, 32 << 10)?;
    let hosts: Vec<_> = (0..PEERS)
        .map(|index| {
            let served = file.clone();
            sim.host(&format!("peer{index}"), move |host| peers::serve(host, served.clone()))
        })
        .collect();
    let peers: Vec<Peer> = hosts.iter().map(|host| peers::peer(host.id(), Protocol::Quic)).collect();
    let (used, all_used) = oneshot::channel();
    let (restarted, go_on) = oneshot::channel();
    let client = sim.client("client", move |host| ask(host, file, peers, used, go_on));
    if all_used.await.is_err() {
        return client.result().await.ok_or("the client ended without a result")?.map(drop);
    }
    for host in &hosts {
        host.crash();
        host.restart();
    }
    let _ = restarted.send(());
    let stats = client.result().await.ok_or("the client ended without a result")??;
    sim.ledger().seen(Fault::Crash, 1);
    for (state, reached) in [
        ("pool: a connection was evicted", stats.evicted > 0),
        ("pool: a connection was used again", stats.reused > 0),
    ] {
        sim.ledger().expect_sometimes(state);
        if reached {
            sim.ledger().sometimes(state);
        }
    }
    Ok(())
}

async fn ask(
    host: Host,
    file: Arc<File>,
    peers: Vec<Peer>,
    used: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
) -> Result<PoolStats, Violation> {
    let settings = PoolSettings { capacity: CAPACITY, ..PoolSettings::default() };
    let (_, downloader) = peers::downloaders(&host, settings).await?;
    let first = peers.first().copied().ok_or("no peers")?;
    // Many first requests at once.
    all(&downloader, &file, &[first; TOGETHER]).await?;
    let stats = downloader.stats();
    ensure!(stats.dialed == 1, "{TOGETHER} first requests to one peer made {} handshakes", stats.dialed);
    // More peers at once than there is room for.
    let everybody: Vec<Peer> = peers.iter().cycle().take(PEERS * 3).copied().collect();
    all(&downloader, &file, &everybody).await?;
    let stats = downloader.stats();
    ensure!(stats.evicted >= 1, "{PEERS} connections in room for {CAPACITY}, and none was evicted");
    ensure!(
        stats.connections <= CAPACITY,
        "{} connections are idle in room for {CAPACITY}",
        stats.connections
    );
    // One after the other: the least recently used goes each time.
    for peer in &peers {
        all(&downloader, &file, &[*peer, *peer]).await?;
        ensure!(downloader.stats().connections <= CAPACITY, "the pool outgrows its capacity");
    }
    let _ = used.send(());
    go_on.await?;
    // The peers know nothing of the connections any more, and say so to whoever uses one. What is sent over a
    // connection whose end is known by then fails for no reason.
    host.runtime().sleep(Duration::from_secs(5)).await;
    all(&downloader, &file, &peers).await?;
    Ok(downloader.stats())
}

/// One request to each of `peers`, all at once.
async fn all(downloader: &QuicDownloader, file: &File, peers: &[Peer]) -> Outcome {
    let requests = peers.iter().enumerate().map(|(index, peer)| async move {
        let number = index as u32 % file.pieces().len() as u32;
        let wrong = |error: &dyn std::fmt::Display| format!("an idle network, and {peer} failed: {error}");
        let answer = downloader.request(peer.address, Ask::new(file.key.piece(number))).await;
        let bytes = answer.map_err(|error| wrong(&error))?.collect().await.map_err(|error| wrong(&error))?;
        file.check(number, &bytes)
    });
    join_all(requests).await.into_iter().collect()
}
