//! quinn and rustls with nothing of the protocol above them: the yardstick for determinism and speed.

use super::peers::{self, Dialer};
use super::{Outcome, Scenario, Violation};
use crate::ensure;
use crate::faults::Fault;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
use std::net::SocketAddr;
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::transport::quic::{AppCode, close};

const STREAMS: usize = 8;
const BYTES: usize = 256 << 10;
/// As long as a request of the protocol.
const REQUEST: usize = 74;
const PORT: u16 = 4_433;

/// Eight streams of 256 KiB over one connection that loses 1 % of its packets.
#[derive(Debug)]
pub(super) struct Echo;

impl Scenario for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn about(&self) -> &'static str {
        "quinn alone: 8 streams of 256 KiB at 1 % loss; the yardstick for determinism and speed"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            sim.net().set_default(Conditions::default().with_loss(0.01));
            let server = sim.host("server", serve);
            let address = SocketAddr::new(server.id().ipv4().into(), PORT);
            let lost = sim
                .client("client", move |host| fetch(host, address))
                .result()
                .await
                .ok_or("the client ended without a result")??;
            sim.ledger().seen(Fault::Loss, lost);
            Ok(())
        })
    }
}

async fn serve(host: Host) -> Outcome {
    let endpoint = peers::server_endpoint(&host, PORT).await?;
    while let Some(incoming) = endpoint.accept().await {
        let runtime = host.runtime();
        host.runtime().spawn(Box::pin(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                runtime.spawn(Box::pin(async move {
                    let Ok(request) = receive.read_to_end(REQUEST).await else { return };
                    let byte = request.first().copied().unwrap_or_default();
                    if send.write_all(&vec![byte; BYTES]).await.is_ok() {
                        let _ = send.finish();
                    }
                }));
            }
        }));
    }
    Ok(())
}

/// Fetches everything, and answers with how many packets quinn thinks were lost.
async fn fetch(host: Host, server: SocketAddr) -> Result<u64, Violation> {
    let dialer = Dialer::new(&host).await?;
    let connection = dialer.connect(server).await?;
    let streams = (0..STREAMS).map(|index| stream(connection.clone(), index as u8));
    futures_util::future::try_join_all(streams).await?;
    let lost = connection.stats().path.lost_packets;
    close(&connection, AppCode::NoError, b"done");
    dialer.endpoint.wait_idle().await;
    Ok(lost)
}

#[allow(clippy::disallowed_methods, reason = "this is not the protocol, but what lies below it")]
async fn stream(connection: quinn::Connection, byte: u8) -> Result<(), Violation> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[byte; REQUEST]).await?;
    send.finish()?;
    let mut total = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        ensure!(chunk.bytes.iter().all(|b| *b == byte), "stream {byte} carries bytes of another");
        total += chunk.bytes.len();
    }
    ensure!(total == BYTES, "stream {byte} ended after {total} bytes");
    Ok(())
}
