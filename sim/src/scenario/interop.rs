//! The lines of the QUIC interop runner's list: one client, one server, one property of QUIC each.
//!
//! | line | where |
//! |---|---|
//! | handshake, transfer | `echo` |
//! | transferloss, transfercorruption | `quic-loss`, at levels that each seed draws |
//! | zerortt (accepted, rejected), and replayed | `zero-rtt`, `zero-rtt-replay` |
//! | multiplexing, long RTT, ChaCha20, flow control | `multiplexing`, `long-rtt`, `chacha20`, `flow-control` |
//! | handshakeloss, handshakecorruption | `handshake-loss`, `handshake-corruption` |
//! | retry, resumption, keyupdate, ecn, ipv6 | `retry`, `resumption`, `key-update`, `ecn`, `ipv6` |
//! | blackhole (the path is dead for a while) | `blackhole`; longer than the idle timeout: `quic-partition` |
//! | black hole of large packets | `mtu-blackhole` |
//! | rebind-port, rebind-addr, connectionmigration | `rebind-port`, `rebind-addr`, `migration` |
//! | amplificationlimit, versionnegotiation | `amplification`, `version-negotiation` |
//! | goodput, crosstraffic | `goodput`, `crosstraffic` |
//!
//! Not here: `v2` (quinn speaks version 1 of QUIC only), `http3` (Vortex is no HTTP).

use super::peers::{self, Dialer, File, Means, QUIC_PORT, fetch_over_quic, fetch_over_tcp, fetch_whole};
use super::suites;
use super::tap::{Raw, Tap};
use super::{Outcome, Scenario};
use crate::ensure;
use crate::faults::Fault;
use crate::host::Host;
use crate::net::{Bandwidth, Conditions, HostId};
use crate::world::{HostHandle, Sim};
use futures_util::future::{Either, select};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::{ServerLimits, ServerSettings};
use vortex_p2p::transport::quic::{AppCode, QuicSettings, close};

const MS: Duration = Duration::from_millis(1);
/// What the steps of a world and simulated computation may add to a time.
const SLACK: Duration = Duration::from_millis(20);

/// A line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    HandshakeLoss,
    HandshakeCorruption,
    LongRtt,
    Multiplexing,
    ChaCha20,
    FlowControl,
    Retry,
    Resumption,
    Ipv6,
    Ecn,
    Blackhole,
    MtuBlackhole,
    KeyUpdate,
    RebindPort,
    RebindAddress,
    Migration,
    Amplification,
    VersionNegotiation,
    Goodput,
    CrossTraffic,
}

/// One line as a scenario.
#[derive(Debug)]
pub(super) struct Interop {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) line: Line,
}

impl Scenario for Interop {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim, self.line))
    }
}

impl Line {
    fn conditions(self, latency: Duration) -> Conditions {
        let path = Conditions::latency(latency);
        let slow = Bandwidth::mbit(10, MS * 60);
        match self {
            Line::HandshakeLoss => path.with_loss(0.3),
            Line::HandshakeCorruption => Conditions { corrupt: 0.3, ..path },
            Line::LongRtt => Conditions::latency(MS * 375),
            // Its queue holds half a second: without marks it would fill.
            Line::Ecn => path.with_bandwidth(Bandwidth::mbit(10, MS * 500).with_codel()),
            Line::Goodput
            | Line::Blackhole
            | Line::MtuBlackhole
            | Line::RebindPort
            | Line::RebindAddress
            | Line::Migration => path.with_bandwidth(slow),
            _ => path,
        }
    }

    fn file(self) -> (usize, u64) {
        match self {
            Line::HandshakeLoss | Line::HandshakeCorruption | Line::Retry | Line::Resumption => {
                (3_000, 4_096)
            }
            Line::Multiplexing => (2_000 << 9, 1 << 9),
            _ => (1 << 20, 64 << 10),
        }
    }

    fn server(self) -> (ServerSettings, Means) {
        let (mut settings, mut means) = (ServerSettings::default(), Means::default());
        match self {
            Line::Retry => settings.limits = ServerLimits { half_open: 0, ..settings.limits },
            Line::ChaCha20 => means.provider = suites::chacha20(),
            _ => {}
        }
        (settings, means)
    }
}

async fn run(sim: Sim, line: Line) -> Outcome {
    let mut rng = sim.rng("interop");
    let latency = rng.duration(MS * 2..MS * 40);
    let path = line.conditions(latency);
    sim.net().set_default(path);
    let (length, piece_length) = line.file();
    let file = File::draw(&mut rng, length, piece_length)?;
    let (settings, means) = line.server();
    let server = {
        let file = file.clone();
        sim.host("server", move |host| peers::serve_as(host, file.clone(), settings, means.clone()))
    };
    let id = server.id();
    // It is there before the first packet comes.
    sim.sleep(MS * 5).await;
    match line {
        Line::Blackhole | Line::MtuBlackhole | Line::RebindPort | Line::RebindAddress => {
            let client = sim.client("client", move |host| whole(host, id, file, line, path.latency));
            sim.sleep(rng.duration(MS * 150..MS * 500)).await;
            disturb(&sim, line, client.host(), &server, path).await;
            client.result().await.ok_or("the client ended without a result")??;
        }
        Line::CrossTraffic => cross(&sim, &server, file).await?,
        _ => {
            let client = sim.client("client", move |host| whole(host, id, file, line, path.latency));
            client.result().await.ok_or("the client ended without a result")??;
        }
    }
    judge(&sim, line)
}

/// What happens to the path in the middle.
async fn disturb(sim: &Sim, line: Line, client: &HostHandle, server: &HostHandle, path: Conditions) {
    let net = sim.net();
    match line {
        Line::Blackhole => {
            net.cut(client.id(), server.id());
            sim.sleep(MS * 2_500).await;
            sim.heal(client, server);
        }
        Line::MtuBlackhole => net.set_default(Conditions { mtu: 1_300, ..path }),
        _ => {
            for _ in 0..2 {
                net.rebind(client.id(), line == Line::RebindAddress);
                sim.sleep(MS * 150).await;
            }
        }
    }
}

/// What the ledger has to say after the run.
fn judge(sim: &Sim, line: Line) -> Outcome {
    let ledger = sim.ledger();
    let fired = |fault| ledger.report().faults.get(&fault).map_or(0, |tally| tally.fired);
    match line {
        Line::Ecn => {
            ensure!(fired(Fault::Mark) > 0, "a standing queue, and no packet was marked");
            let dropped = fired(Fault::Queue);
            // The first flight of a connection may find the queue before it hears of the first mark.
            ensure!(
                dropped * 20 <= fired(Fault::Mark),
                "{dropped} packets were dropped: marks are not heard"
            );
            ledger.noticed(1, &[Fault::Mark]);
        }
        // It has come through although large packets did not.
        Line::MtuBlackhole => ledger.noticed(1, &[Fault::Blackhole]),
        Line::Blackhole => ledger.noticed(1, &[Fault::Cut]),
        Line::RebindPort | Line::RebindAddress => ledger.noticed(1, &[Fault::Rebind]),
        Line::HandshakeLoss => ledger.noticed(1, &[Fault::Loss]),
        Line::HandshakeCorruption => ledger.noticed(1, &[Fault::Corrupt]),
        Line::Goodput | Line::CrossTraffic => ledger.noticed(1, &[Fault::Queue]),
        _ => {}
    }
    Ok(())
}

/// Fetches the whole file as the line has it.
async fn whole(host: Host, server: HostId, file: Arc<File>, line: Line, latency: Duration) -> Outcome {
    let address = SocketAddr::new(server.ipv4().into(), QUIC_PORT);
    match line {
        Line::HandshakeLoss | Line::HandshakeCorruption => {
            for _ in 0..5 {
                fetch_over_quic(host.clone(), server, file.clone(), 1).await?;
            }
            return Ok(());
        }
        Line::Resumption => return resume(&host, address, &file).await,
        Line::Amplification => return amplify(&host, address).await,
        Line::VersionNegotiation => return negotiate(&host, address).await,
        _ => {}
    }
    let address = match line {
        Line::Ipv6 => SocketAddr::new(server.ipv6().into(), QUIC_PORT),
        _ => address,
    };
    let mut means = Means::default();
    match line {
        Line::ChaCha20 => means.provider = suites::chacha20(),
        Line::FlowControl => {
            means.quic = QuicSettings {
                stream_window: 16 << 10,
                connection_window: 40 << 10,
                ..peers::quic_settings()
            }
        }
        _ => {}
    }
    let runtime = host.runtime();
    let dialer = Dialer::with(&host, &means).await?;
    let begun = runtime.now();
    let connection = dialer.connect(address).await?;
    let connected = runtime.now().saturating_duration_since(begun);
    let at_once = if line == Line::Multiplexing { 500 } else { 4 };
    {
        let fetch = pin!(fetch_whole(&host, &connection, &file, at_once));
        match select(fetch, pin!(meddle(&host, &dialer, &connection, line))).await {
            Either::Left((fetched, _)) => fetched?,
            Either::Right((meddled, fetch)) => {
                meddled?;
                fetch.await?;
            }
        }
    }
    let took = runtime.now().saturating_duration_since(begun);
    let stats = connection.stats();
    match line {
        Line::Retry => {
            ensure!(connected >= latency * 4, "connected in {connected:?} over {latency:?}: no Retry")
        }
        Line::LongRtt => ensure!(connected <= latency * 2 + SLACK, "a handshake of {connected:?}"),
        Line::FlowControl => ensure!(
            stats.frame_tx.max_data > 5 && stats.frame_tx.max_stream_data > 0,
            "small windows were opened {} and {} times",
            stats.frame_tx.max_data,
            stats.frame_tx.max_stream_data
        ),
        Line::ChaCha20 => ensure!(suites::keys_made() > 0, "no packet was protected with ChaCha20"),
        Line::RebindPort | Line::RebindAddress | Line::Migration => {
            ensure!(stats.frame_rx.path_challenge > 0, "the server has not asked the new path for its truth");
        }
        Line::Goodput => {
            let ideal = Duration::from_secs_f64(file.length() as f64 * 8.0 / 10e6);
            ensure!(
                took <= ideal.mul_f64(1.5) + latency * 8,
                "{took:?} for what takes {ideal:?} at full rate"
            );
        }
        _ => {}
    }
    close(&connection, AppCode::NoError, b"");
    Ok(())
}

/// What the client does beside the transfer.
async fn meddle(host: &Host, dialer: &Dialer, connection: &quinn::Connection, line: Line) -> Outcome {
    let runtime = host.runtime();
    match line {
        Line::KeyUpdate => loop {
            // As often as the other side can follow.
            runtime.sleep(connection.rtt() * 4).await;
            connection.force_key_update();
        },
        Line::Migration => {
            for _ in 0..2 {
                runtime.sleep(MS * 200).await;
                dialer.endpoint.rebind(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0)).await?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A second handshake goes on from the session of the first: the server shows no certificate.
async fn resume(host: &Host, server: SocketAddr, file: &File) -> Outcome {
    let quic = QuicSettings { early_data: false, ..peers::quic_settings() };
    let dialer =
        Dialer::with(host, &Means { quic, provider: suites::counting_signatures(), network: None }).await?;
    let mut verified = Vec::new();
    for _ in 0..2 {
        let connection = dialer.connect(server).await?;
        verified.push(suites::signatures_verified());
        fetch_whole(host, &connection, file, 1).await?;
        // The session comes behind the handshake.
        host.runtime().sleep(MS * 200).await;
        close(&connection, AppCode::NoError, b"");
    }
    // The certificates that the session was made with are looked at once more, whatever TLS thinks of it.
    ensure!(
        matches!(verified[..], [first, second] if first > 2 && second == first + 1),
        "signatures that were verified after the first and the second handshake: {verified:?}"
    );
    Ok(())
}

/// A client that is heard once and then never again is not worth more than three times its bytes; quinn completes the
/// datagram in which that is reached.
async fn amplify(host: &Host, server: SocketAddr) -> Outcome {
    let (network, log) = Tap::on(host, 1);
    let dialer = Dialer::with(host, &Means { network: Some(network), ..Means::default() }).await?;
    // It has all that it needs; the server will never hear so.
    let _connection = dialer.connect(server).await?;
    host.runtime().sleep(Duration::from_secs(20)).await;
    let (sent, received) = log.bytes();
    ensure!(received > sent, "the server has not even sent its handshake twice: {received} bytes for {sent}");
    ensure!(received < 3 * sent + 1_200, "{received} bytes to an address that has sent {sent}");
    Ok(())
}

/// A version that nobody speaks is answered with those that are.
async fn negotiate(host: &Host, server: SocketAddr) -> Outcome {
    let raw = Raw::bind(host).await?;
    // A long header with a reserved version, two connection ids of 8 bytes, and padding.
    let mut packet = vec![0; 1_200];
    let head = [0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 9, 9, 9, 9, 9, 9];
    for (place, byte) in packet.iter_mut().zip(head) {
        *place = byte;
    }
    raw.send(server, &packet)?;
    let answer = host.runtime().timeout(Duration::from_secs(5), raw.receive()).await??;
    let (versions, _) = answer.get(23..).unwrap_or_default().as_chunks::<4>();
    let is_negotiation = answer.get(1..5) == Some(&[0; 4]);
    ensure!(is_negotiation && versions.contains(&[0, 0, 0, 1]), "not a version negotiation: {answer:02x?}");
    Ok(())
}

/// QUIC and TCP through the server's one uplink: both get through, and QUIC is not pushed aside.
async fn cross(sim: &Sim, server: &HostHandle, file: Arc<File>) -> Outcome {
    sim.net().set_uplink(server.id(), Bandwidth::mbit(10, MS * 60));
    let id = server.id();
    let ideal = Duration::from_secs_f64(file.length() as f64 * 2.0 * 8.0 / 10e6);
    let begun = sim.now();
    let (one, two) = (file.clone(), file);
    let quic = sim.client("quic", move |host| fetch_over_quic(host, id, one, 4));
    let tcp = sim.client("tcp", move |host| fetch_over_tcp(host, id, two, 2));
    let over_quic = quic.result().await.ok_or("the QUIC client ended without a result")??;
    let took = sim.now() - begun;
    ensure!(took <= ideal.mul_f64(1.5), "QUIC took {took:?}; both together take {ideal:?} at full rate");
    let over_tcp = tcp.result().await.ok_or("the TCP client ended without a result")??;
    // smoltcp's TCP knows no selective acknowledgements, and takes its time after losses.
    let took = sim.now() - begun;
    ensure!(took <= ideal * 4, "{took:?} for what takes {ideal:?} at full rate");
    let failed = over_quic.failed_requests + over_tcp.failed_requests;
    ensure!(failed == 0, "{failed} requests failed because of the other's traffic");
    Ok(())
}
