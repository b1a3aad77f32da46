//! The worker of `vortex bench` whose server and client are Dragonfly's.
//!
//! It has the harness of the other workers, so that the same is measured in the same way: Dragonfly's server sends from its
//! storage, and what Dragonfly's client hands over is verified by crc32 and written here, if at all. Dragonfly's storage would
//! do as much and keep books besides.

#[path = "../../../../src/bin/vortex/bench/worker/harness.rs"]
mod harness;
#[path = "../../../../src/bin/vortex/bench/worker/usage.rs"]
mod usage;
#[allow(dead_code, unexpected_cfgs, reason = "the features are those of Vortex")]
#[path = "../../../../src/bin/vortex/bench/worker/work.rs"]
mod work;

use crate::job::{Job, Source};
use crate::peer::{Client, Peer, Sent, Transport};
use crate::side::Side;
use futures_util::StreamExt as _;
use harness::{Result, all};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use vortex_p2p::wire::TaskId;
use work::{Fetch, Work};

pub(crate) fn run(job: &str) -> Result<()> {
    harness::run(job, serve, fetch)
}

/// The id of the task that the content is.
fn task() -> String {
    TaskId::from_sha256(*b"what vortex bench moves 32 bytes").to_string()
}

fn transport(job: &Job) -> Transport {
    if job.side == Side::DragonflyQuic { Transport::Quic } else { Transport::Tcp }
}

async fn serve(job: &Job) -> Result<SocketAddr> {
    if job.source == Source::Memory {
        return Err("Dragonfly's storage has its content in files".into());
    }
    // The first server in pieces of this length takes the content in, and those after it find it there.
    let (dir, made) = (job.dir.join("dragonfly"), job.dir.join(format!("dragonfly-{}", job.piece_length)));
    if !made.exists() && dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let peer = Peer::open(&dir).await?;
    if !peer.has(&task())? {
        peer.import(&task(), work::division(job)?, &job.content()).await?;
        std::fs::write(made, "")?;
    }
    peer.serve(transport(job))
}

async fn fetch(job: &'static Job, server: SocketAddr, work: &'static Work) -> Result<()> {
    let transport = transport(job);
    let (mut sockets, mut connections) = (Vec::new(), Vec::new());
    for _ in 0..job.idle {
        match transport {
            Transport::Tcp => sockets.push(TcpStream::connect(server).await?),
            Transport::Quic => connections.push(Client::new(transport, server).connected().await?),
        }
    }
    work.begin()?;
    let clients: Vec<_> = (0..job.connections).map(|_| Client::new(transport, server)).collect();
    let workers = clients.into_iter().cycle().take(job.concurrency.max(job.connections) as usize);
    all(workers.map(|client| fetch_over(client, work))).await
}

async fn fetch_over(client: Client, work: &'static Work) -> Result<()> {
    let task = task();
    while let Some(mut fetch) = work.next() {
        drain(client.request(&task, fetch.number).await?, &mut fetch).await?;
        fetch.end();
    }
    Ok(())
}

/// Takes a piece to its verified end.
async fn drain(mut sent: Sent, fetch: &mut Fetch<'_>) -> Result<()> {
    let mut sum = crc32fast::Hasher::new();
    while let Some(part) = sent.content.next().await {
        let part = part?;
        sum.update(&part);
        fetch.take(&part)?;
    }
    if sent.digest != format!("crc32:{}", sum.finalize()) {
        return Err("a piece was not verified".into());
    }
    Ok(())
}
