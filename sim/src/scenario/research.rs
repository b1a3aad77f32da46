//! Single measurements for `cargo sim research`: how long a file takes, and how long its first byte.

use super::peers::{self, File};
use super::{Outcome, Scenario, Violation};
use crate::faults::lock;
use crate::host::Host;
use crate::net::{Conditions, HostId};
use crate::trace::Keep;
use crate::world::{self, Sim, World};
use futures_util::stream::{self, StreamExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::client::{Ask, QuicClient, TcpClient};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::MemoryStore;
use vortex_p2p::transport::quic::{AppCode, Congestion, QuicEndpoint, QuicSettings, close};
use vortex_p2p::transport::tls::{
    self, Admission, Authorities, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::wire::Algorithm;

const TLS_PORT: u16 = 4_443;
/// Bytes of the file whose transfer is measured.
pub(crate) const FILE: usize = 8 << 20;
/// Bytes of its pieces.
const PIECE: u64 = 512 << 10;
/// Requests at a time over one QUIC connection.
const AT_ONCE: usize = 4;

/// How a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// One QUIC connection, its server sending by Cubic.
    QuicCubic,
    /// One QUIC connection, its server sending by BBR.
    QuicBbr,
    /// So many TCP connections (Cubic).
    Tcp(usize),
}

/// How the first byte is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// A new QUIC connection without a session.
    Quic,
    /// A QUIC connection that resumes a session, with the request in its first packet.
    QuicEarly,
    /// A new TCP connection.
    Tcp,
    /// A new TCP connection with TLS 1.3.
    TcpTls,
}

#[derive(Debug, Clone, Copy)]
enum What {
    File(Fetch),
    First(First),
}

struct Measurement {
    what: What,
    path: Conditions,
    took: Arc<Mutex<Option<Duration>>>,
}

impl Scenario for Measurement {
    fn name(&self) -> &'static str {
        "research"
    }

    fn about(&self) -> &'static str {
        "one measurement"
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        let (what, path, took) = (self.what, self.path, self.took.clone());
        Box::pin(async move {
            sim.net().set_default(path);
            let length = if matches!(what, What::File(_)) { FILE } else { 1_000 };
            let file = File::draw(&mut sim.rng("file"), length, PIECE)?;
            let (served, congestion) = (file.clone(), what.congestion());
            let server = sim.host("server", move |host| serve(host, served.clone(), congestion)).id();
            let client = sim.client("client", move |host| async move {
                // The server is there by then.
                host.runtime().sleep(Duration::from_millis(50)).await;
                match what {
                    What::File(fetch) => whole_file(host, server, file, fetch).await,
                    What::First(first) => first_byte(host, server, file, first).await,
                }
            });
            *lock(&took) = Some(client.result().await.ok_or("the client ended without a result")??);
            Ok(())
        })
    }
}

impl What {
    fn congestion(self) -> Congestion {
        if matches!(self, What::File(Fetch::QuicBbr)) { Congestion::Bbr } else { Congestion::Cubic }
    }
}

/// How long a file of [`FILE`] bytes takes, from before the connection is made to its last byte.
pub(crate) fn file_time(fetch: Fetch, path: Conditions, seed: u64) -> Result<Duration, Violation> {
    measure(What::File(fetch), path, seed)
}

/// How long the begin of an answer takes, from before the connection is made.
pub(crate) fn first_byte_time(first: First, path: Conditions, seed: u64) -> Result<Duration, Violation> {
    measure(What::First(first), path, seed)
}

fn measure(what: What, path: Conditions, seed: u64) -> Result<Duration, Violation> {
    let took = Arc::new(Mutex::new(None));
    // A scenario is static; a few hundred of them are nothing.
    let scenario = Box::leak(Box::new(Measurement { what, path, took: took.clone() }));
    // The clock of madsim is exact, and idle time costs nothing there.
    let world = if cfg!(madsim) { World::Madsim } else { World::Turmoil };
    world::run(world, scenario, seed, Keep::Digest).outcome?;
    let took = *lock(&took);
    took.ok_or_else(|| "nothing was measured".into())
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

async fn serve(host: Host, file: Arc<File>, congestion: Congestion) -> Outcome {
    let store = MemoryStore::new(host.runtime());
    store.insert(file.task(), Algorithm::Crc32, file.content()).await?;
    let server = StorageServer::new(host.runtime(), Arc::new(store), ServerSettings::default());
    let crypto = tls(&host);
    let identity = Identity::from_der(&crypto, vec![crate::crypto::certificate()], crate::crypto::key())?;
    let tls = ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone)?;
    let settings = QuicSettings { congestion, ..QuicSettings::default() };
    let (runtime, network) = (host.runtime(), host.network());
    let port = any(peers::QUIC_PORT);
    server.serve_quic(QuicEndpoint::bind(runtime, network.clone(), port, settings, Some(&tls)).await?);
    server.serve_tcp(network.listen(any(peers::TCP_PORT)).await?);
    server.serve_tcp_tls(network.listen(any(TLS_PORT)).await?, tls);
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}

async fn whole_file(
    host: Host,
    server: HostId,
    file: Arc<File>,
    fetch: Fetch,
) -> Result<Duration, Violation> {
    let runtime = host.runtime();
    let begun = runtime.now();
    match fetch {
        Fetch::Tcp(connections) => {
            peers::fetch_over_tcp(host, server, file, connections).await?;
        }
        Fetch::QuicCubic | Fetch::QuicBbr => {
            let dialer = peers::Dialer::new(&host).await?;
            let connection = connect(&dialer, server).await?;
            let client = QuicClient::new(connection, runtime.clone(), Deadlines::default());
            let (client, file) = (&client, &*file);
            let ask = |number| async move {
                let mut answer = client.request(Ask::new(file.key.piece(number))).await?;
                file.check(number, &answer.collect().await?)
            };
            let mut answers = stream::iter(file.pieces()).map(ask).buffer_unordered(AT_ONCE);
            while let Some(answer) = answers.next().await {
                answer?;
            }
        }
    }
    Ok(runtime.now().saturating_duration_since(begun))
}

/// A connection, however often its first packets are lost.
async fn connect(dialer: &peers::Dialer, server: HostId) -> Result<quinn::Connection, Violation> {
    let address = SocketAddr::new(server.ipv4().into(), peers::QUIC_PORT);
    for _ in 0..9 {
        if let Ok(connection) = dialer.connect(address).await {
            return Ok(connection);
        }
    }
    dialer.connect(address).await
}

async fn first_byte(
    host: Host,
    server: HostId,
    file: Arc<File>,
    first: First,
) -> Result<Duration, Violation> {
    let (runtime, network, deadlines) = (host.runtime(), host.network(), Deadlines::default());
    let ask = Ask::new(file.key.piece(0));
    let dialer = peers::Dialer::new(&host).await?;
    if first == First::QuicEarly {
        // Learns a session; it comes behind the handshake.
        let connection = connect(&dialer, server).await?;
        runtime.sleep(Duration::from_secs(5)).await;
        close(&connection, AppCode::NoError, b"");
    }
    let begun = runtime.now();
    let to = |port| SocketAddr::new(server.ipv4().into(), port);
    // Where nothing is left of the first connection but its end, the answer counts as late as it comes.
    let mut answer = match first {
        First::Quic => {
            let client = QuicClient::new(connect(&dialer, server).await?, runtime.clone(), deadlines);
            client.request(ask).await?
        }
        First::QuicEarly => {
            let dialing = dialer.dial(to(peers::QUIC_PORT))?.into_early();
            let (connection, early) = dialing.map_err(|_| "there is no session to be early with")?;
            QuicClient::early(connection, early, runtime.clone(), deadlines).request(ask).await?
        }
        First::Tcp => {
            let stream = network.connect(to(peers::TCP_PORT)).await?;
            TcpClient::new(stream, runtime.clone(), deadlines).request(ask, Box::new(drop)).await?
        }
        First::TcpTls => {
            let authorities = Authorities::from_der(vec![crate::crypto::authority()])?;
            let trust = ClientTls::new(&tls(&host), &Trust::authorities(authorities), None)?;
            let stream = tls::connect(&trust, to(TLS_PORT), network.connect(to(TLS_PORT)).await?).await?;
            TcpClient::new(stream, runtime.clone(), deadlines).request(ask, Box::new(drop)).await?
        }
    };
    let took = runtime.now().saturating_duration_since(begun);
    file.check(0, &answer.collect().await?)?;
    Ok(took)
}

fn tls(host: &Host) -> Crypto {
    Crypto::with_provider(host.runtime(), crate::crypto::provider()).with_key_log(crate::crypto::key_log())
}
