//! Silence: a QUIC connection of a live client is kept alive, one whose client is gone is given up, and a TCP connection
//! that the server found idle is replaced by the pool.

use super::peers::{self, File};
use super::{Outcome, Scenario};
use crate::ensure;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vortex_p2p::client::{Ask, QuicClient};
use vortex_p2p::downloader::{Downloader, Peer, PoolSettings, Protocol, TcpDownloader};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::session::Deadlines;

/// See the module.
#[derive(Debug)]
pub(super) struct Idle;

impl Scenario for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "silence on both sides: kept alive, given up after the idle timeout, replaced by the pool"
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(400)
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("idle");
    sim.net()
        .set_default(Conditions::latency(rng.duration(Duration::from_millis(1)..Duration::from_millis(200))));
    let file = File::draw(&mut rng, 20_000, 16 << 10)?;
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    let silence = rng.duration(Duration::from_secs(31)..Duration::from_secs(45));
    let (quiet, cut) = oneshot::channel();
    let id = server.id();
    let client = sim.client("client", move |host| async move {
        over_tcp(&host, &file, peers::peer(id, Protocol::Tcp), silence).await?;
        over_quic(&host, &file, peers::peer(id, Protocol::Quic), silence, quiet).await
    });
    if cut.await.is_err() {
        return client.result().await.ok_or("the client ended without a result")?;
    }
    sim.net().cut(client.host().id(), id);
    client.result().await.ok_or("the client ended without a result")?
}

async fn over_tcp(host: &Host, file: &File, peer: Peer, silence: Duration) -> Outcome {
    // A pool that keeps connections longer than a server does.
    let settings = PoolSettings { idle_timeout: Duration::from_secs(600), ..PoolSettings::default() };
    let dialer = vortex_p2p::downloader::Dialer::plain(host.runtime(), host.network(), Deadlines::default());
    let downloader = TcpDownloader::new(dialer, settings);
    for _ in 0..2 {
        let answer = downloader.request(peer.address, Ask::new(file.key.piece(0))).await;
        let answer = answer.map_err(|error| format!("after {silence:?} of silence over TCP: {error}"));
        file.check(0, &answer?.collect().await?)?;
        host.runtime().sleep(silence).await;
    }
    Ok(())
}

async fn over_quic(
    host: &Host,
    file: &Arc<File>,
    peer: Peer,
    silence: Duration,
    quiet: oneshot::Sender<()>,
) -> Outcome {
    let dialer = peers::Dialer::new(host).await?;
    let runtime = host.runtime();
    let connection = dialer.connect(peer.address).await?;
    let client = QuicClient::new(connection.clone(), runtime.clone(), Deadlines::default());
    for _ in 0..2 {
        let reason = connection.close_reason();
        ensure!(reason.is_none(), "after {silence:?} of silence over QUIC: {reason:?}");
        let bytes = client.request(Ask::new(file.key.piece(1))).await?.collect().await?;
        file.check(1, &bytes)?;
        runtime.sleep(silence).await;
    }
    let _ = quiet.send(());
    let begun = runtime.now();
    let reason = connection.closed().await;
    ensure!(reason == quinn::ConnectionError::TimedOut, "a path that is cut, and {reason}");
    let took = runtime.now().saturating_duration_since(begun);
    // From the last packet that came, at most a keep-alive and its round trip before the cut.
    let expected = Duration::from_secs(26)..Duration::from_secs(36);
    ensure!(expected.contains(&took), "given up after {took:?}, expected {expected:?}");
    Ok(())
}
