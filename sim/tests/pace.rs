//! How long transfers take, in virtual time: round trips until the first byte, what larger datagrams cost on a path that
//! swallows them, and send windows that follow the path.

#![allow(clippy::panic, reason = "helpers of tests, which clippy does not take for tests")]

mod plan;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::FuturesUnordered};
use plan::passes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vortex_p2p::client::{Answer, Ask, QuicClient, TcpClient};
use vortex_p2p::server::{Limit, ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::{MemoryStore, NewTask, TaskKey};
use vortex_p2p::transport::quic::{self, DatagramSize, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{
    self, Admission, Authorities, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::wire::{Algorithm, Division, PieceKind, PieceLength, TaskId};
use vortex_sim::crypto;
use vortex_sim::host::Host;
use vortex_sim::net::{Bandwidth, Conditions, HostId};
use vortex_sim::scenario::{Outcome, Violation};
use vortex_sim::trace::Fate;

const TCP: u16 = 4_005;
const TLS: u16 = 4_443;

fn key() -> TaskKey {
    TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([3; 32]) }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

fn at(host: HostId, port: u16) -> SocketAddr {
    SocketAddr::new(host.ipv4().into(), port)
}

fn settings(largest: DatagramSize) -> QuicSettings {
    QuicSettings { largest_datagram: Some(largest), ..QuicSettings::default() }
}

/// Pieces that a server has.
const PIECES: usize = 8;

/// Serves pieces of `piece` bytes over QUIC, TCP, and TCP with TLS.
async fn serve(host: Host, piece: usize, largest: DatagramSize) -> Outcome {
    let _server = begin(&host, piece, settings(largest), ServerSettings::default()).await?;
    std::future::pending().await
}

async fn begin(
    host: &Host,
    piece: usize,
    quic: QuicSettings,
    settings: ServerSettings,
) -> Result<StorageServer, Violation> {
    let runtime = host.runtime();
    let crypto = Crypto::with_provider(runtime.clone(), crypto::provider());
    let identity = Identity::from_der(&crypto, vec![crypto::certificate()], crypto::key())?;
    let tls = ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone)?;
    let store = MemoryStore::new(runtime.clone());
    let division = Division::new((PIECES * piece) as u64, PieceLength::try_from(piece as u64)?)?;
    let content: Bytes = (0..PIECES * piece).map(|at| (at * 31 % 251) as u8).collect();
    store.insert(NewTask { key: key(), division, digest: None }, Algorithm::Crc32, &content).await?;
    let server = StorageServer::new(runtime.clone(), Arc::new(store), settings);
    let endpoint = QuicEndpoint::bind(runtime, host.network(), any(quic::PORT), quic, Some(&tls)).await?;
    server.serve_quic(endpoint);
    server.serve_tcp(host.network().listen(any(TCP)).await?);
    server.serve_tcp_tls(host.network().listen(any(TLS)).await?, tls);
    Ok(server)
}

struct Client {
    host: Host,
    trust: Arc<ClientTls>,
    endpoint: QuicEndpoint,
    dialer: quic::QuicClient,
}

impl Client {
    async fn new(host: Host, largest: DatagramSize) -> Result<Self, Violation> {
        let runtime = host.runtime();
        let crypto = Crypto::with_provider(runtime.clone(), crypto::provider());
        let authorities = Authorities::from_der(vec![crypto::authority()])?;
        let trust = Arc::new(ClientTls::new(&crypto, &Trust::authorities(authorities), None)?);
        let settings = settings(largest);
        let endpoint =
            QuicEndpoint::bind(runtime.clone(), host.network(), any(0), settings.clone(), None).await?;
        let dialer = quic::QuicClient::new(runtime, &settings, trust.clone());
        Ok(Self { host, trust, endpoint, dialer })
    }

    async fn quic(&self, server: HostId) -> Result<QuicClient, Violation> {
        let connection = self.endpoint.dial(&self.dialer, at(server, quic::PORT))?.established().await?;
        Ok(QuicClient::new(connection, self.host.runtime(), Deadlines::default()))
    }

    /// With the requests of which there can be some before the handshake is complete.
    fn early(&self, server: HostId) -> Result<QuicClient, Violation> {
        let early = self.endpoint.dial(&self.dialer, at(server, quic::PORT))?.into_early();
        let (connection, early) = early.map_err(|_| "there is no session to be early with")?;
        Ok(QuicClient::early(connection, early, self.host.runtime(), Deadlines::default()))
    }

    async fn over_tcp(&self, server: HostId, protected: bool) -> Result<Answer, Violation> {
        let to = at(server, if protected { TLS } else { TCP });
        let mut stream = self.host.network().connect(to).await?;
        if protected {
            stream = tls::connect(&self.trust, to, stream).await?;
        }
        let client = TcpClient::new(stream, self.host.runtime(), Deadlines::default());
        Ok(client.request(Ask::new(key().piece(0)), Box::new(drop)).await?)
    }

    /// How long `dial` takes up to the first byte of content, in round trips.
    async fn first_byte(
        &self,
        dial: impl Future<Output = Result<Answer, Violation>>,
    ) -> Result<f64, Violation> {
        let begun = self.host.runtime().now();
        let mut answer = dial.await?;
        answer.chunk().await?.ok_or("an answer without content")?;
        let took = self.host.runtime().now().saturating_duration_since(begun);
        // Whatever follows a handshake, sessions among it, is there before the next one begins.
        while answer.chunk().await?.is_some() {}
        self.host.runtime().sleep(4 * ROUND_TRIP).await;
        Ok(took.as_secs_f64() / ROUND_TRIP.as_secs_f64())
    }
}

const ROUND_TRIP: Duration = Duration::from_millis(50);

#[test]
fn the_first_byte_after_a_reconnect_comes_a_round_trip_before_that_of_tcp_and_two_before_that_of_tls() {
    passes(1, |sim| async move {
        sim.net().set_default(Conditions::latency(ROUND_TRIP / 2));
        let server = sim.host("server", |host| serve(host, 1_000, DatagramSize::ETHERNET)).id();
        sim.sleep(Duration::from_millis(10)).await;
        let client = sim.client("client", move |host| async move {
            let client = Client::new(host, DatagramSize::ETHERNET).await?;
            let ask = Ask::new(key().piece(0));
            let new = client.first_byte(async { Ok(client.quic(server).await?.request(ask).await?) }).await?;
            let quic = client.first_byte(async { Ok(client.early(server)?.request(ask).await?) }).await?;
            client.first_byte(client.over_tcp(server, true)).await?;
            let tls = client.first_byte(client.over_tcp(server, true)).await?;
            let tcp = client.first_byte(client.over_tcp(server, false)).await?;
            Ok::<_, Violation>([new, quic, tcp, tls])
        });
        let took = client.result().await.ok_or("no result")??;
        println!("round trips to the first byte: new QUIC, 0-RTT, TCP, TCP with TLS: {took:.2?}");
        assert_eq!(took.map(|trips| trips.round() as u32), [2, 1, 2, 3], "{took:?}");
        Ok(())
    });
}

/// How long each piece takes; after the first one, the path carries packets of up to `then` bytes.
fn pieces(largest: DatagramSize, first: u64, then: u64) -> [f64; PIECES] {
    const PIECE: usize = 4 << 20;
    static TOOK: std::sync::Mutex<[f64; PIECES]> = std::sync::Mutex::new([0.0; PIECES]);
    passes(1, move |sim| async move {
        let path = Conditions::latency(Duration::from_millis(10));
        let path = path.with_bandwidth(Bandwidth::mbit(100, Duration::from_millis(40)));
        sim.net().set_default(Conditions { mtu: first, ..path });
        let server = sim.host("server", move |host| serve(host, PIECE, largest)).id();
        sim.sleep(Duration::from_millis(10)).await;
        let world = sim.clone();
        let client = sim.client("client", move |host| async move {
            let client = Client::new(host, largest).await?;
            let over = client.quic(server).await?;
            let mut took = [0.0; PIECES];
            for (number, took) in (0..).zip(&mut took) {
                let begun = world.now();
                over.request(Ask::new(key().piece(number))).await?.collect().await?;
                *took = (world.now() - begun).as_secs_f64();
                world.net().set_default(Conditions { mtu: then, ..path });
            }
            Ok::<_, Violation>(took)
        });
        let took = client.result().await.ok_or("no result")??;
        *TOOK.lock().map_err(|_| "poisoned")? = took;
        Ok(())
    });
    *TOOK.lock().unwrap_or_else(|_| panic!("poisoned"))
}

#[test]
fn a_path_that_swallows_large_datagrams_is_as_fast_as_if_none_had_been_tried() {
    let ethernet = pieces(DatagramSize::ETHERNET, 1_500, 1_500);
    let swallowed = pieces(DatagramSize::JUMBO, 1_500, 1_500);
    let shrunk = pieces(DatagramSize::JUMBO, 9_000, 1_500);
    println!(
        "seconds for each piece: {ethernet:.3?}, {swallowed:.3?}, and on a path that shrinks {shrunk:.3?}"
    );
    // Discovery goes on beside the first piece, and costs its probes.
    let slower: Vec<f64> = swallowed.iter().zip(&ethernet).map(|(ours, other)| ours / other).collect();
    assert!(slower.iter().all(|ratio| *ratio < 1.05), "{slower:?}");
    // The second piece falls into the hole, and what is taken for congestion shuts the window. It grows as Cubic has it:
    // every piece is faster than the one before.
    assert!(shrunk[1] < 2.5 && shrunk[1..].is_sorted_by(|before, after| before >= after), "{shrunk:?}");
    assert!(shrunk[PIECES - 1] < ethernet[PIECES - 1] * 1.25, "{shrunk:?}");
}

/// What came of a transfer.
#[derive(Debug, Clone, Copy, Default)]
struct Paced {
    seconds: f64,
    /// What the windows had at most of what they share, in bytes.
    windows: u64,
    /// How often one wanted more than was left.
    met: u64,
    /// Packets that found a queue full.
    dropped: usize,
}

/// What a server's windows do.
#[derive(Debug, Clone, Copy)]
struct Windows {
    least: u32,
    /// What they share.
    limit: u64,
    /// How many pieces arrive before the client closes the connection.
    pieces: usize,
}

impl Windows {
    const DEFAULT: Self = Self { least: 2 << 20, limit: 1 << 30, pieces: PIECES };
    /// As large as they get, always.
    const FIXED: Self = Self { least: 16 << 20, ..Self::DEFAULT };
}

/// A transfer of pieces of 16 MiB, all at a time, over `path` of jumbo frames.
fn paced(path: Conditions, windows: Windows) -> Paced {
    let told = Arc::new(Mutex::new(Paced::default()));
    let tell = told.clone();
    let finished = passes(1, move |sim| {
        let tell = tell.clone();
        async move {
            sim.net().set_default(Conditions { mtu: 9_000, ..path });
            let serving: Arc<Mutex<Option<StorageServer>>> = Arc::default();
            let slot = serving.clone();
            let quic = QuicSettings { least_send_window: windows.least, ..settings(DatagramSize::JUMBO) };
            let limits = ServerLimits { windows: windows.limit, ..ServerLimits::default() };
            let server = sim.host("server", move |host| {
                let (slot, quic) = (slot.clone(), quic.clone());
                async move {
                    let settings = ServerSettings { limits, ..ServerSettings::default() };
                    let server = begin(&host, 16 << 20, quic, settings).await?;
                    *slot.lock().map_err(|_| "poisoned")? = Some(server);
                    std::future::pending().await
                }
            });
            sim.sleep(Duration::from_millis(10)).await;
            let (world, id) = (sim.clone(), server.id());
            let client = sim.client("client", move |host| async move {
                let server = serving.lock().map_err(|_| "poisoned")?.clone().ok_or("no server")?;
                let client = Client::new(host, DatagramSize::JUMBO).await?;
                let over = client.quic(id).await?;
                let begun = world.now();
                let most = Mutex::new(0);
                let fetch = async |number| {
                    let mut answer = over.request(Ask::new(key().piece(number))).await?;
                    while answer.chunk().await?.is_some() {
                        let mut most = most.lock().map_err(|_| "poisoned")?;
                        *most = server.stats().windows.max(*most);
                    }
                    Ok::<_, Violation>(())
                };
                let all: FuturesUnordered<_> = (0..PIECES as u32).map(fetch).collect();
                all.take(windows.pieces).try_for_each(|()| std::future::ready(Ok(()))).await?;
                let seconds = (world.now() - begun).as_secs_f64();
                quic::close(over.connection(), quic::AppCode::NoError, b"");
                world.sleep(Duration::from_secs(2)).await;
                let after = server.stats();
                if (after.answers, after.windows) != (0, 0) {
                    return Err(format!("{after:?}").into());
                }
                let windows = most.into_inner().unwrap_or_else(PoisonError::into_inner);
                let met = after.limits.get(&Limit::Windows).copied().unwrap_or_default();
                Ok::<_, Violation>(Paced { seconds, windows, met, dropped: 0 })
            });
            *tell.lock().map_err(|_| "poisoned")? = client.result().await.ok_or("no result")??;
            Ok(())
        }
    });
    let dropped = finished.trace.events().iter().filter(|event| event.fate == Fate::QueueDropped).count();
    let paced = *told.lock().unwrap_or_else(PoisonError::into_inner);
    Paced { dropped, ..paced }
}

/// A path with a queue that holds half of a round trip.
fn link(mbit: u64, round_trip: Duration) -> Conditions {
    Conditions::latency(round_trip / 2).with_bandwidth(Bandwidth::mbit(mbit, round_trip / 2))
}

#[test]
fn windows_that_follow_the_path_are_as_fast_as_the_largest_over_long_ones() {
    for (mbit, round_trip) in [(1_000, 50), (100, 200)] {
        let path = link(mbit, Duration::from_millis(round_trip));
        let [fixed, follows] = [Windows::FIXED, Windows::DEFAULT].map(|windows| paced(path, windows));
        println!("{mbit} Mb/s, {round_trip} ms: fixed {fixed:.3?}, following {follows:.3?}");
        assert!(follows.seconds < fixed.seconds * 1.02, "{follows:?}, {fixed:?}");
        assert!(follows.windows > 0 && follows.windows <= 14 << 20, "{follows:?}");
        assert_eq!((fixed.windows, fixed.met, follows.met), (0, 0, 0));
    }
}

#[test]
fn windows_that_follow_the_path_fill_no_queue_next_door() {
    // A socket's buffer: 4 MB. Turmoil has nothing arrive within less than its tick of 1 ms.
    let path = Conditions::latency(Duration::from_micros(100));
    let path = path.with_bandwidth(Bandwidth::mbit(1_000, Duration::from_millis(32)));
    let [fixed, follows] = [Windows::FIXED, Windows::DEFAULT].map(|windows| paced(path, windows));
    println!("next door: fixed {fixed:.3?}, following {follows:.3?}");
    assert!(fixed.dropped > 0 && follows.dropped == 0, "{follows:?}, {fixed:?}");
    assert!(follows.seconds < fixed.seconds * 1.02, "{follows:?}, {fixed:?}");
    // Until the round trips that are measured show the queue.
    assert!(follows.windows < 2 << 20, "{follows:?}");
}

#[test]
fn windows_stay_within_what_they_share_and_give_it_back() {
    let path = link(1_000, Duration::from_millis(50));
    let scarce = paced(path, Windows { limit: 3 << 20, ..Windows::DEFAULT });
    println!("3 MiB to share: {scarce:.3?}");
    assert!(scarce.windows <= 3 << 20 && scarce.met > 0, "{scarce:?}");
    // That everything is given back is looked at in any case; here the connection ends in the middle.
    let cut_off = paced(path, Windows { pieces: 1, ..Windows::DEFAULT });
    assert!(cut_off.windows > 0, "{cut_off:?}");
}
