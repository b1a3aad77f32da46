//! quinn and rustls with nothing of ours above them: the yardstick for determinism and speed.

use super::{Outcome, Scenario, Violation};
use crate::crypto;
use crate::ensure;
use crate::faults::Fault;
use crate::host::Host;
use crate::net::Conditions;
use crate::world::Sim;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AsyncTimer, AsyncUdpSocket, ConnectionId, ConnectionIdGenerator};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, SharedRuntime, Timer};

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
    let endpoint = endpoint(&host, PORT, true).await?;
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
    let endpoint = endpoint(&host, 0, false).await?;
    let connection = loop {
        // The server may still be booting.
        match host.runtime().timeout(Duration::from_secs(5), connect(&host, &endpoint, server)?).await {
            Ok(connection) => break connection?,
            Err(_) => continue,
        }
    };
    let streams = (0..STREAMS).map(|index| stream(connection.clone(), index as u8));
    futures_util::future::try_join_all(streams).await?;
    let lost = connection.stats().path.lost_packets;
    connection.close(0u32.into(), b"done");
    endpoint.wait_idle().await;
    Ok(lost)
}

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

fn connect(
    host: &Host,
    endpoint: &quinn::Endpoint,
    server: SocketAddr,
) -> Result<quinn::Connecting, Violation> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crypto::authority())?;
    let mut tls =
        rustls::ClientConfig::builder_with_details(crypto::provider(), Arc::new(Wall(host.runtime())))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
    tls.alpn_protocols = vec![b"vortex".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let runtime = host.runtime();
    config.initial_dst_cid_provider(Arc::new(move || {
        let mut id = [0; 20];
        runtime.fill_random(&mut id);
        ConnectionId::new(&id)
    }));
    Ok(endpoint.connect_with(config, server, crypto::SERVER_NAME)?)
}

async fn endpoint(host: &Host, port: u16, server: bool) -> Result<quinn::Endpoint, Violation> {
    let runtime = host.runtime();
    let draw = |count| {
        let mut bytes = vec![0; count];
        runtime.fill_random(&mut bytes);
        bytes
    };
    let mut config =
        quinn::EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &draw(64))));
    config.rng_seed(Some(draw(32).try_into().unwrap_or_default()));
    let ids = host.runtime();
    config.cid_generator(move || Box::new(Ids(ids.clone())));
    let server = if server {
        let mut tls =
            rustls::ServerConfig::builder_with_details(crypto::provider(), Arc::new(Wall(host.runtime())))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_no_client_auth()
                .with_single_cert(vec![crypto::certificate()], crypto::key())?;
        tls.alpn_protocols = vec![b"vortex".to_vec()];
        let token = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&draw(64));
        let mut config =
            quinn::ServerConfig::new(Arc::new(QuicServerConfig::try_from(tls)?), Arc::new(token));
        config.time_source(Arc::new(Wall(host.runtime())));
        Some(config)
    } else {
        None
    };
    let bind = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let socket = host.network().udp(bind).await?;
    let runtime = Arc::new(QuinnRuntime(host.runtime()));
    Ok(quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?)
}

#[derive(Debug)]
struct Ids(SharedRuntime);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.0.fill_random(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The wall clock, as rustls and quinn ask for it.
#[derive(Debug)]
struct Wall(SharedRuntime);

impl rustls::time_provider::TimeProvider for Wall {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(self.0.unix_time()))
    }
}

impl quinn::TimeSource for Wall {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + self.0.unix_time()
    }
}

#[derive(Debug)]
struct QuinnRuntime(SharedRuntime);

#[derive(Debug)]
struct QuinnTimer(Pin<Box<dyn Timer>>);

impl AsyncTimer for QuinnTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.as_mut().reset(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl quinn::Runtime for QuinnRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(QuinnTimer(self.0.timer(deadline)))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}
