//! Requests before the handshake is complete, over a path of 100 ms.
//!
//! A first connection learns a session; a second one sends its request with the first packet, and has the answer one
//! round trip earlier; after the server has forgotten its sessions, the early request goes again, and is answered once.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
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
pub(super) struct Early;

impl Scenario for Early {
    fn name(&self) -> &'static str {
        "zero-rtt"
    }

    fn about(&self) -> &'static str {
        "early requests over 100 ms: accepted, rejected after the server forgot, answered once"
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

const ROUND_TRIP: Duration = Duration::from_millis(100);
/// What simulated computation and the steps of a world may add.
const SLACK: Duration = Duration::from_millis(15);

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("early");
    sim.net().set_default(Conditions::latency(ROUND_TRIP / 2));
    let length = rng.range(1..8 << 10) as usize;
    let file = File::draw(&mut rng, length, 8 << 10)?;
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    let address = SocketAddr::new(server.id().ipv4().into(), peers::QUIC_PORT);
    let (learned, known) = oneshot::channel();
    let (forgotten, go_on) = oneshot::channel();
    let client = sim.client("client", move |host| fetch(host, address, file, learned, go_on));
    if known.await.is_err() {
        return client.result().await.ok_or("the client ended without a result")?;
    }
    server.crash();
    server.restart();
    sim.sleep(Duration::from_millis(100)).await;
    let _ = forgotten.send(());
    client.result().await.ok_or("the client ended without a result")??;
    for state in ["0-RTT: accepted", "0-RTT: rejected, and asked again"] {
        sim.ledger().expect_sometimes(state);
        sim.ledger().sometimes(state);
    }
    Ok(())
}

async fn fetch(
    host: Host,
    server: SocketAddr,
    file: Arc<File>,
    learned: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
) -> Outcome {
    let dialer = peers::Dialer::new(&host).await?;
    let runtime = host.runtime();
    // One round trip for the handshake, one for the request.
    let begun = runtime.now();
    let connection = dialer.connect(server).await?;
    let client = QuicClient::new(connection.clone(), runtime.clone(), Deadlines::default());
    let bytes = client.request(Ask::new(file.key.piece(0))).await?.collect().await?;
    file.check(0, &bytes)?;
    let late = runtime.now().saturating_duration_since(begun);
    // The session comes behind the handshake.
    runtime.sleep(ROUND_TRIP * 2).await;
    close(&connection, AppCode::NoError, b"");

    let (early, accepted) = fetch_early(&host, &dialer, server, &file).await?;
    ensure!(accepted, "the server knows the session, and rejected early data");
    let saved = late.saturating_sub(early);
    ensure!(
        saved + SLACK >= ROUND_TRIP && early <= ROUND_TRIP + SLACK,
        "early in {early:?}, late in {late:?}: {saved:?} is not a round trip of {ROUND_TRIP:?}"
    );
    let _ = learned.send(());
    go_on.await?;
    let (again, accepted) = fetch_early(&host, &dialer, server, &file).await?;
    ensure!(!accepted, "the server has forgotten the session, and accepted early data");
    ensure!(again <= ROUND_TRIP * 2 + SLACK * 2, "{again:?} for a request that was early and rejected");
    Ok(())
}

/// Fetches the piece with an early request, once more where that was rejected.
async fn fetch_early(
    host: &Host,
    dialer: &peers::Dialer,
    server: SocketAddr,
    file: &File,
) -> Result<(Duration, bool), Violation> {
    let runtime = host.runtime();
    let begun = runtime.now();
    let early = dialer.dial(server)?.into_early();
    let (connection, early) = early.map_err(|_| "there is no session to be early with")?;
    let client = QuicClient::new(connection.clone(), runtime.clone(), Deadlines::default());
    let ask = Ask::new(file.key.piece(0));
    let request = async { Ok::<_, Violation>(client.request(ask).await?.collect().await?) };
    let (bytes, accepted) = futures_util::future::join(request, early.accepted()).await;
    let accepted = accepted?;
    let bytes = match (bytes, accepted) {
        (Ok(_), false) => return Err("an early request was rejected and answered".into()),
        (Err(_), false) => client.request(ask).await?.collect().await?,
        (bytes, true) => bytes?,
    };
    file.check(0, &bytes)?;
    let took = runtime.now().saturating_duration_since(begun);
    runtime.sleep(ROUND_TRIP * 2).await;
    close(&connection, AppCode::NoError, b"");
    Ok((took, accepted))
}
