//! An attacker does one thing that no client does, while two honest clients fetch a file.
//!
//! Safety: the server ends what the attacker leaves half done, by its deadlines and limits. Liveness: both honest
//! clients have the file in little more than the time that it takes.

use super::peers::{self, Dialer, File, Means, QUIC_PORT, TCP_PORT, fetch_over_quic, fetch_over_tcp};
use super::tap::{Raw, Tap};
use super::{Outcome, Scenario};
use crate::ensure;
use crate::host::Host;
use crate::net::{Bandwidth, Conditions};
use crate::rng::Rng;
use crate::world::Sim;
use futures_util::future::{join_all, try_join_all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::client::{Ask, QuicClient};
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::server::ServerLimits;
use vortex_p2p::session::Deadlines;
use vortex_p2p::transport::ByteStream;
use vortex_p2p::transport::quic::QuicSettings;

/// See the module.
#[derive(Debug)]
pub(super) struct Hostile;

impl Scenario for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn about(&self) -> &'static str {
        "half requests, slow readers, floods, garbage; honest clients beside the attacker finish"
    }

    fn run(&self, sim: Sim) -> BoxFuture<'static, Outcome> {
        Box::pin(run(sim))
    }
}

/// What the attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Headers that declare 4 GiB.
    HugeHeader,
    /// Requests that are never completed.
    HalfRequests,
    /// Answers that are never read.
    SlowReader,
    /// Streams that are opened and reset, by the thousand.
    StreamFlood,
    /// Handshakes that are begun, and no more.
    HandshakeFlood,
    /// Datagrams and byte streams that mean nothing.
    Garbage,
    /// More connections than an address is granted.
    Connections,
}

const ATTACKS: [(Attack, &str); 7] = [
    (Attack::HugeHeader, "hostile: headers of 4 GiB"),
    (Attack::HalfRequests, "hostile: half requests"),
    (Attack::SlowReader, "hostile: answers that are not read"),
    (Attack::StreamFlood, "hostile: streams by the thousand"),
    (Attack::HandshakeFlood, "hostile: half-open handshakes"),
    (Attack::Garbage, "hostile: garbage"),
    (Attack::Connections, "hostile: connections by the hundred"),
];

/// What a request takes at most, and what the steps of a world may add.
const ENDS_WITHIN: Duration = Duration::from_secs(13);

async fn run(sim: Sim) -> Outcome {
    let mut rng = sim.rng("hostile");
    let latency = rng.duration(Duration::from_millis(1)..Duration::from_millis(40));
    sim.net().set_default(Conditions::latency(latency));
    let file = File::draw(&mut rng, 512 << 10, 64 << 10)?;
    let served = file.clone();
    let server = sim.host("server", move |host| peers::serve(host, served.clone()));
    sim.net().set_uplink(server.id(), Bandwidth::mbit(20, Duration::from_millis(200)));
    sim.sleep(Duration::from_millis(5)).await;
    let id = server.id();
    let drawn = rng.below(ATTACKS.len() as u64) as usize;
    let (attack, state) = ATTACKS.get(drawn).copied().ok_or("no such attack")?;
    for (_, state) in ATTACKS {
        sim.ledger().expect_sometimes(state);
    }
    sim.ledger().sometimes(state);
    let attacker = {
        let (file, rng) = (file.clone(), sim.rng("attack"));
        let (quic, tcp) =
            (SocketAddr::new(id.ipv4().into(), QUIC_PORT), SocketAddr::new(id.ipv4().into(), TCP_PORT));
        sim.client("attacker", move |host| Attacker { host, quic, tcp, file, rng }.run(attack))
    };
    sim.sleep(rng.duration(Duration::from_millis(50)..Duration::from_secs(2))).await;
    let begun = sim.now();
    let (one, two) = (file.clone(), file);
    let quic = sim.client("quic", move |host| fetch_over_quic(host, id, one, 4));
    let tcp = sim.client("tcp", move |host| fetch_over_tcp(host, id, two, 2));
    quic.result().await.ok_or("the QUIC client ended without a result")??;
    tcp.result().await.ok_or("the TCP client ended without a result")??;
    let took = sim.now() - begun;
    // Half a second at full rate, for both together.
    ensure!(took <= Duration::from_secs(6), "honest clients took {took:?} beside {attack:?}");
    attacker.result().await.ok_or("the attacker ended without a result")?
}

struct Attacker {
    host: Host,
    quic: SocketAddr,
    tcp: SocketAddr,
    file: Arc<File>,
    rng: Rng,
}

#[allow(clippy::disallowed_methods, reason = "an attacker opens streams as it likes")]
impl Attacker {
    async fn run(self, attack: Attack) -> Outcome {
        // A header, a tag that asks for a piece, and a Length.
        let header = |length: u32| [&[7, 0][..], &length.to_be_bytes()].concat();
        match attack {
            Attack::HugeHeader => self.leave_unfinished(&header(u32::MAX)).await,
            Attack::HalfRequests => self.leave_unfinished(&[header(68), vec![b'0'; 20]].concat()).await,
            Attack::SlowReader => self.read_nothing().await,
            Attack::StreamFlood => self.flood_streams().await,
            Attack::HandshakeFlood => self.flood_handshakes().await,
            Attack::Garbage => self.send_garbage().await,
            Attack::Connections => self.flood_connections().await,
        }
    }

    /// Sends `bytes` over connections and streams, and waits for what the server makes of them.
    async fn leave_unfinished(&self, bytes: &[u8]) -> Outcome {
        let over_tcp = join_all((0..20).map(|_| async {
            let mut stream = self.host.network().connect(self.tcp).await?;
            stream.write_all(bytes).await?;
            self.is_ended(stream, "a TCP connection").await
        }));
        let over_quic = async {
            let connection = Dialer::new(&self.host).await?.connect(self.quic).await?;
            let streams = (0..50).map(|_| async {
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(bytes).await?;
                // The answer is an Error, or a reset.
                let ended = self.host.runtime().timeout(ENDS_WITHIN, receive.read_to_end(1 << 10)).await;
                ensure!(ended.is_ok(), "a stream with {} bytes of a request is still open", bytes.len());
                Ok(())
            });
            try_join_all(streams).await.map(drop)
        };
        let (tcp, quic) = futures_util::future::join(over_tcp, over_quic).await;
        tcp.into_iter().collect::<Outcome>().and(quic)
    }

    /// Waits for the end of a connection.
    async fn is_ended(&self, mut stream: Box<dyn ByteStream>, what: &str) -> Outcome {
        let mut rest = Vec::new();
        // A reset is an end as good as any.
        let ended = self.host.runtime().timeout(ENDS_WITHIN, stream.read_to_end(&mut rest)).await;
        ensure!(ended.is_ok(), "{what} is still open after {ENDS_WITHIN:?}");
        Ok(())
    }

    /// Asks for pieces, and never reads what comes; the server breaks them off.
    async fn read_nothing(&self) -> Outcome {
        let quic =
            QuicSettings { stream_window: 4 << 10, connection_window: 64 << 10, ..peers::quic_settings() };
        let dialer = Dialer::with(&self.host, &Means { quic, ..Means::default() }).await?;
        let connection = dialer.connect(self.quic).await?;
        let runtime = self.host.runtime();
        let mut streams = Vec::new();
        for number in self.file.pieces() {
            let (mut send, receive) = connection.open_bi().await?;
            send.write_all(&self.file.key.piece(number).encode(1)).await?;
            streams.push(receive);
        }
        // Beyond the deadline for progress.
        runtime.sleep(Duration::from_secs(40)).await;
        for mut receive in streams {
            let read = runtime.timeout(Duration::from_secs(1), receive.read_to_end(1 << 20)).await;
            ensure!(matches!(read, Ok(Err(_))), "an answer that nobody has read for 40 s is still there");
        }
        // The connection is as good as before.
        let client = QuicClient::new(connection, runtime, Deadlines::default());
        let bytes = client.request(Ask::new(self.file.key.piece(0))).await?.collect().await?;
        self.file.check(0, &bytes)
    }

    async fn flood_streams(&self) -> Outcome {
        let dialer = Dialer::new(&self.host).await?;
        let connection = dialer.connect(self.quic).await?;
        for round in 0..3_000u32 {
            let Ok((mut send, mut receive)) = connection.open_bi().await else { break };
            if round % 2 == 0 {
                let _ = send.write_all(&self.file.key.piece(round % 8).encode(1)).await;
            }
            let _ = send.reset(0u32.into());
            let _ = receive.stop(0u32.into());
        }
        Ok(())
    }

    /// One datagram of each of many handshakes gets out.
    async fn flood_handshakes(&self) -> Outcome {
        let flood = join_all((0..150).map(|_| async {
            let (network, _log) = Tap::on(&self.host, 1);
            let dialer =
                Dialer::with(&self.host, &Means { network: Some(network), ..Means::default() }).await?;
            let _ = dialer.connect(self.quic).await;
            Ok(())
        }));
        flood.await.into_iter().collect()
    }

    async fn send_garbage(mut self) -> Outcome {
        let raw = Raw::bind(&self.host).await?;
        for _ in 0..500 {
            let mut datagram = vec![0; self.rng.range(1..1_400) as usize];
            self.rng.fill(&mut datagram);
            // A long header of version 1 gets further in than others.
            if self.rng.chance(0.3) && datagram.len() > 5 {
                for (place, byte) in datagram.iter_mut().zip([0xc0, 0, 0, 0, 1]) {
                    *place = byte;
                }
            }
            raw.send(self.quic, &datagram)?;
            self.host.runtime().sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..10 {
            let mut bytes = vec![0; 200];
            self.rng.fill(&mut bytes);
            let mut stream = self.host.network().connect(self.tcp).await?;
            let _ = stream.write_all(&bytes).await;
            self.is_ended(stream, "a TCP connection that was sent garbage").await?;
        }
        Ok(())
    }

    /// Opens more connections than one address may have: those that are too many end at once.
    async fn flood_connections(&self) -> Outcome {
        let allowed = ServerLimits::default().connections_per_address;
        let network = self.host.network();
        let connections = join_all((0..allowed + 40).map(|_| network.connect(self.tcp))).await;
        let ended = join_all(connections.into_iter().map(|connection| async {
            let Ok(mut stream) = connection else { return true };
            let read = stream.read_u8();
            self.host.runtime().timeout(Duration::from_secs(2), read).await.is_ok()
        }));
        let ended = ended.await.into_iter().filter(|ended| *ended).count();
        ensure!(ended >= 40, "of {} connections, {ended} were refused", allowed + 40);
        Ok(())
    }
}
