//! Somebody on the path copies early packets, and sends them again from an address of their own.
//!
//! Safety: the copies are no second request, nor worth more than three times their bytes. Liveness: the client, whose
//! packets they are, has its answer; and so has it the next time.

use super::peers::{self, Dialer, File, Means};
use super::tap::{Raw, Tap};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
use bytes::Bytes;
use futures_util::future::join;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vortex_p2p::client::{Ask, QuicClient};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::quic::{AppCode, close};

/// See the module.
#[derive(Debug)]
pub(super) struct Replay;

impl Scenario for Replay {
    fn name(&self) -> &'static str {
        "zero-rtt-replay"
    }

    fn about(&self) -> &'static str {
        "early packets that somebody copies and sends again, before or after they have arrived"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

/// How often the copies are sent.
const TIMES: usize = 5;

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("replay");
    let latency = rng.duration(Duration::from_millis(5)..Duration::from_millis(60));
    sim.net().set_default(Conditions::latency(latency));
    let file = File::draw(&mut rng, 60_000, 64 << 10)?;
    let length = file.length();
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    let address = SocketAddr::new(server.id().ipv4().into(), peers::QUIC_PORT);
    sim.sleep(Duration::from_millis(5)).await;
    let (copied, copies) = oneshot::channel();
    let client = sim.client("client", move |host| fetch(host, address, file, copied));
    // The attacker is nearer than the client, or further away: the copies are there first, or last.
    let near = rng.chance(0.5);
    let attacker = sim.client("attacker", move |host| attack(host, address, copies));
    let way = Conditions::latency(if near { latency / 4 } else { latency * 2 });
    sim.net().set_both(attacker.host().id(), server.id(), way);
    client.result().await.ok_or("the client ended without a result")??;
    let (sent, received) = attacker.result().await.ok_or("the attacker ended without a result")??;
    // quinn completes the datagram in which the limit is reached. Where the copies were there first, the connection begins
    // at the attacker's address, and quinn takes what the client says next for a proof of that address too: up to the
    // client's first packet after the handshake, its one answer may go astray, encrypted. It never goes out twice.
    let astray = if near { length } else { 0 };
    ensure!(received < 3 * sent + 1_200 + astray, "{received} bytes for an attacker that has sent {sent}");
    for (state, reached) in [("replay: the copies came first", near), ("replay: the copies came last", !near)]
    {
        sim.ledger().expect_sometimes(state);
        if reached {
            sim.ledger().sometimes(state);
        }
    }
    Ok(())
}

async fn fetch(
    host: Host,
    server: SocketAddr,
    file: Arc<File>,
    copied: oneshot::Sender<Vec<Bytes>>,
) -> Outcome {
    let (network, log) = Tap::on(&host, u64::MAX);
    let dialer = Dialer::with(&host, &Means { network: Some(network), ..Means::default() }).await?;
    let runtime = host.runtime();
    let connection = dialer.connect(server).await?;
    peers::fetch_whole(&host, &connection, &file, 1).await?;
    // The session comes behind the handshake.
    runtime.sleep(Duration::from_millis(300)).await;
    close(&connection, AppCode::NoError, b"");
    runtime.sleep(Duration::from_millis(300)).await;

    let before = log.sent().len();
    let early = dialer.dial(server)?.into_early();
    let (connection, early) = early.map_err(|_| "there is no session to be early with")?;
    let client = QuicClient::new(connection.clone(), runtime.clone(), Deadlines::default());
    let request =
        async { Ok::<_, Violation>(client.request(Ask::new(file.key.piece(0))).await?.collect().await?) };
    let watch = async {
        // Everything that was sent before anything came back.
        runtime.sleep(Duration::from_millis(2)).await;
        let _ = copied.send(log.sent().split_off(before));
        early.accepted().await
    };
    let (bytes, accepted) = join(request, watch).await;
    let bytes = match (bytes, accepted?) {
        (Ok(_), false) => return Err("an early request was rejected and answered".into()),
        // The copies have used the session up.
        (Err(_), false) => client.request(Ask::new(file.key.piece(0))).await?.collect().await?,
        (bytes, true) => bytes?,
    };
    file.check(0, &bytes)?;
    // Whatever the attacker does meanwhile, it stays so.
    runtime.sleep(Duration::from_secs(1)).await;
    peers::fetch_whole(&host, &connection, &file, 1).await?;
    close(&connection, AppCode::NoError, b"");
    Ok(())
}

/// Sends the copies, and counts what comes back; the bytes of both.
async fn attack(
    host: Host,
    server: SocketAddr,
    copies: oneshot::Receiver<Vec<Bytes>>,
) -> Result<(u64, u64), Violation> {
    let raw = Raw::bind(&host).await?;
    let copies = copies.await?;
    ensure!(!copies.is_empty(), "there are no early packets");
    let mut sent = 0;
    for _ in 0..TIMES {
        for copy in &copies {
            raw.send(server, copy)?;
            sent += copy.len() as u64;
        }
        host.runtime().sleep(Duration::from_millis(30)).await;
    }
    let mut received = 0;
    while let Ok(datagram) = host.runtime().timeout(Duration::from_secs(10), raw.receive()).await {
        received += datagram?.len() as u64;
    }
    Ok((sent, received))
}
