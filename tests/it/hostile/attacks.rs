//! The attacks.

use super::clients::{EVIL, client, dialer, fetch_one};
use super::replay::{Flight, capture};
use super::victim::{PIECE, Victim};
use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use vortex_p2p::client::Ask;
use vortex_p2p::downloader::{Dialer, Protocol};
use vortex_p2p::store::TaskKey;
use vortex_p2p::wire::{Download, ErrorCode, Message, Packet};

/// What is done to the server, without end. How often is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    DeclaredTcp,
    DeclaredQuic,
    DeclaredGrpc,
    SlowSender,
    SlowReaderTcp,
    SlowReaderQuic,
    SlowReaderGrpc,
    Connections,
    HalfOpen,
    ResetsQuic,
    ResetsGrpc,
    Fragments,
    Noise,
    Replay,
    Paths,
}

impl Attack {
    const ALL: [Self; 15] = [
        Self::DeclaredTcp,
        Self::DeclaredQuic,
        Self::DeclaredGrpc,
        Self::SlowSender,
        Self::SlowReaderTcp,
        Self::SlowReaderQuic,
        Self::SlowReaderGrpc,
        Self::Connections,
        Self::HalfOpen,
        Self::ResetsQuic,
        Self::ResetsGrpc,
        Self::Fragments,
        Self::Noise,
        Self::Replay,
        Self::Paths,
    ];

    /// What is sent, and what is counted.
    fn says(self) -> (&'static str, &'static str) {
        match self {
            Self::DeclaredTcp => ("TCP: a header that declares 4 GiB, then silence", "headers"),
            Self::DeclaredQuic => ("QUIC: streams with a header that declares 4 GiB", "streams"),
            Self::DeclaredGrpc => ("gRPC: a message that declares 4 GiB, a byte of it", "calls"),
            Self::SlowSender => ("TCP: 200 connections, a byte of a request every 100 ms", "bytes"),
            Self::SlowReaderTcp => ("TCP: 200 connections that ask and do not read", "answers"),
            Self::SlowReaderQuic => {
                ("QUIC: 4 connections, 100 streams each that ask and do not read", "answers")
            }
            Self::SlowReaderGrpc => ("gRPC: 4 connections, 100 calls each that do not read", "answers"),
            Self::Connections => ("TCP: connect, close, again", "connections"),
            Self::HalfOpen => ("QUIC: handshakes that are given up after the first datagram", "handshakes"),
            Self::ResetsQuic => ("QUIC: requests that are reset at once", "streams"),
            Self::ResetsGrpc => ("HTTP/2: calls that are reset at once", "calls"),
            Self::Fragments => ("TCP: requests in segments of one byte", "requests"),
            Self::Noise => ("TCP: 64 KiB of noise, again and again", "connections"),
            Self::Replay => ("QUIC: copies of a client's first packets, with early requests", "datagrams"),
            Self::Paths => ("TCP, QUIC, gRPC: paths in place of a task id", "requests"),
        }
    }

    /// How many do it at a time.
    fn hands(self) -> usize {
        match self {
            Self::SlowSender | Self::SlowReaderTcp => 200,
            Self::SlowReaderQuic | Self::SlowReaderGrpc => 4,
            _ => 4,
        }
    }
}

/// Pause between two blows of one hand: the machine's cores are the attacker's and the victim's alike, and what is to be
/// measured is the server, not who is scheduled.
const PAUSE: Duration = Duration::from_millis(1);

/// An attacker at work.
struct Attacker {
    attack: Attack,
    tcp: SocketAddr,
    quic: SocketAddr,
    grpc: SocketAddr,
    task: TaskKey,
    dialer: Dialer,
    /// What is sent again and again, where that is the attack.
    flight: Flight,
    /// Bytes that came back for it.
    returned: AtomicU64,
    blows: AtomicU64,
    stop: AtomicBool,
}

impl Attacker {
    async fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(EVIL.into(), 0))?;
        socket.connect(to).await
    }

    fn request(&self) -> [u8; Download::PACKET_LEN] {
        self.task.piece(0).encode(1)
    }

    fn struck(&self) {
        self.blows.fetch_add(1, Ordering::Relaxed);
    }

    /// One hand, until it is stopped. Whatever the server does about it is no failure.
    async fn run(self: Arc<Self>) {
        while !self.stop.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(Duration::from_secs(5), self.strike()).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn strike(&self) -> Option<()> {
        let declared = [7, 1, 0xFF, 0xFF, 0xFF, 0xFF];
        match self.attack {
            Attack::DeclaredTcp => {
                let mut stream = self.connect(self.tcp).await.ok()?;
                stream.write_all(&declared).await.ok()?;
                self.struck();
                stream.read_to_end(&mut Vec::new()).await.ok()?;
            }
            Attack::DeclaredQuic => {
                let client = self.dialer.quic(self.quic).await.ok()?;
                loop {
                    let (mut send, mut receive) = client.connection().open_bi().await.ok()?;
                    send.write_all(&declared).await.ok()?;
                    self.struck();
                    receive.read_to_end(1 << 16).await.ok()?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Attack::DeclaredGrpc => {
                let requests = self.http2().await?;
                loop {
                    let mut requests = requests.clone().ready().await.ok()?;
                    let (response, mut send) = requests.send_request(post(), false).ok()?;
                    send.send_data(Bytes::from_static(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 1]), false).ok()?;
                    self.struck();
                    response.await.ok()?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Attack::SlowSender => {
                let mut stream = self.connect(self.tcp).await.ok()?;
                for byte in self.request() {
                    stream.write_all(&[byte]).await.ok()?;
                    self.struck();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Attack::SlowReaderTcp => {
                let mut stream = self.connect(self.tcp).await.ok()?;
                stream.write_all(&self.request()).await.ok()?;
                self.struck();
                self.linger().await;
            }
            Attack::SlowReaderQuic => {
                let client = self.dialer.quic(self.quic).await.ok()?;
                let mut answers = Vec::new();
                for _ in 0..100 {
                    let Ok(answer) = client.request(Ask::new(self.task.piece(0))).await else { break };
                    self.struck();
                    answers.push(answer);
                }
                self.linger().await;
            }
            Attack::SlowReaderGrpc => {
                let requests = self.http2().await?;
                let mut answers = Vec::new();
                for _ in 0..100 {
                    let mut requests = requests.clone().ready().await.ok()?;
                    let (response, mut send) = requests.send_request(post(), false).ok()?;
                    send.send_data(self.grpc_request(), true).ok()?;
                    self.struck();
                    answers.push(response.await.ok()?);
                }
                self.linger().await;
            }
            Attack::Connections => {
                drop(self.connect(self.tcp).await.ok()?);
                self.struck();
            }
            Attack::HalfOpen => {
                // Dropped, the client's side forgets the connection; its first datagram is on the way.
                let _ = tokio::time::timeout(Duration::from_micros(300), self.dialer.quic(self.quic)).await;
                self.struck();
            }
            Attack::ResetsQuic => {
                let client = self.dialer.quic(self.quic).await.ok()?;
                loop {
                    for _ in 0..10 {
                        let (mut send, mut receive) = client.connection().open_bi().await.ok()?;
                        send.write_all(&self.request()).await.ok()?;
                        let _ = send.reset(0u32.into());
                        let _ = receive.stop(0u32.into());
                        self.struck();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Attack::ResetsGrpc => {
                let requests = self.http2().await?;
                loop {
                    for _ in 0..10 {
                        let mut requests = requests.clone().ready().await.ok()?;
                        let (_, mut send) = requests.send_request(post(), false).ok()?;
                        let _ = send.send_data(self.grpc_request(), false);
                        send.send_reset(h2::Reason::CANCEL);
                        self.struck();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Attack::Fragments => {
                let mut stream = self.connect(self.tcp).await.ok()?;
                stream.set_nodelay(true).ok()?;
                // Of a task that nobody has: the answer is short.
                let mut request = self.request();
                request[6..10].copy_from_slice(b"0000");
                loop {
                    for byte in request {
                        stream.write_all(&[byte]).await.ok()?;
                    }
                    self.struck();
                    let read = stream.read(&mut [0; 1024]).await.ok()?;
                    if read == 0 {
                        return None;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Attack::Noise => {
                let mut stream = self.connect(self.tcp).await.ok()?;
                let noise: Vec<u8> =
                    (0..64 << 10).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                self.struck();
                let _ = stream.write_all(&noise).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Attack::Replay => {
                let socket = UdpSocket::bind(SocketAddr::new(EVIL.into(), 0)).await.ok()?;
                let mut returned = [0; 1 << 16];
                loop {
                    for datagram in &self.flight {
                        socket.send_to(datagram, self.quic).await.ok()?;
                        self.struck();
                    }
                    tokio::time::sleep(PAUSE).await;
                    while let Ok(length) = socket.try_recv(&mut returned) {
                        self.returned.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
            }
            Attack::Paths => {
                let client = self.dialer.quic(self.quic).await.ok()?;
                let mut stream = self.connect(self.tcp).await.ok()?;
                let http2 = self.http2().await?;
                for name in names() {
                    let mut request = self.request();
                    request[6..70].copy_from_slice(&name);
                    stream.write_all(&request).await.ok()?;
                    assert_refused(&mut stream).await?;
                    self.struck();

                    let (mut send, mut receive) = client.connection().open_bi().await.ok()?;
                    send.write_all(&request).await.ok()?;
                    assert_refused(&mut receive).await?;
                    self.struck();

                    // Here a name may be of any length.
                    for name in [name.to_vec(), name.repeat(50), Vec::new()] {
                        let Ok(name) = String::from_utf8(name) else { continue };
                        let mut requests = http2.clone().ready().await.ok()?;
                        let (response, mut send) = requests.send_request(post(), false).ok()?;
                        send.send_data(grpc_request(name.as_bytes()), true).ok()?;
                        let response = response.await.ok()?;
                        assert_eq!(response.headers()["grpc-status"], "3", "invalid argument: {name:?}");
                        self.struck();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Some(())
    }

    /// Keeps what it has open.
    async fn linger(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn http2(&self) -> Option<h2::client::SendRequest<Bytes>> {
        let stream = self.connect(self.grpc).await.ok()?;
        let (requests, connection) = h2::client::handshake(stream).await.ok()?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Some(requests)
    }

    fn grpc_request(&self) -> Bytes {
        grpc_request(self.task.id.as_bytes())
    }
}

/// `DownloadPieceRequest` in its frame: fields 2 and 3.
fn grpc_request(task: &[u8]) -> Bytes {
    let mut message = vec![0x12];
    // At most 14 bits.
    message.extend_from_slice(&[task.len() as u8 & 0x7F | 0x80, (task.len() >> 7) as u8]);
    message.extend_from_slice(task);
    message.extend_from_slice(&[0x18, 0]);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// Bytes in place of a task id which lead somewhere else where they become part of a path.
fn names() -> Vec<[u8; 64]> {
    let filled = |begin: &str, fill: u8| {
        let mut name = [fill; 64];
        name[..begin.len()].copy_from_slice(begin.as_bytes());
        name
    };
    vec![
        filled("../../../../../../../../etc/passwd", b'\0'),
        filled("../../../../../../../../etc/passwd", b'/'),
        filled("/etc/passwd", b'\0'),
        filled("/proc/self/environ", b' '),
        filled("index.redb", b'\0'),
        filled("0000000000000000.content", b'\0'),
        filled("..\\..\\", b'0'),
        filled("%2e%2e%2f%2e%2e%2f", b'0'),
        filled("file:///etc/", b'.'),
        filled("..", b'0'),
        filled("\u{2025}\u{ff0f}", b'0'),
        filled("ABCDEF", b'0'),
        filled("", b'\0'),
        [0xFF; 64],
    ]
}

/// Reads an Error packet that calls the request before it invalid, and repeats nothing of it.
async fn assert_refused(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<()> {
    let mut packet = vec![0; 6];
    stream.read_exact(&mut packet).await.ok()?;
    let length = u32::from_be_bytes(packet[2..].try_into().unwrap());
    packet.resize(6 + length as usize, 0);
    stream.read_exact(&mut packet[6..]).await.ok()?;
    let Message::Error(error) = Packet::decode_exact(&packet).unwrap().message else { panic!("{packet:?}") };
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    let message = error.message.as_str();
    assert!(!message.contains(['/', '\\', '\0']), "{message:?}");
    Some(())
}

fn post() -> http::Request<()> {
    let request = http::Request::post("http://peer/dfdaemon.v2.DfdaemonUpload/DownloadPiece");
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// How long the honest client tries.
#[derive(Clone, Copy)]
enum Until {
    Pieces(u32),
    Elapsed(Duration),
}

/// An honest client that wants a piece over each protocol every 30 ms: how many it got.
async fn honest(victim: &Victim, until: Until) -> u32 {
    let client = client(&dialer(Ipv4Addr::LOCALHOST).await);
    let begun = Instant::now();
    let ask = async |protocol: Protocol| {
        let mut got = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(30));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            match until {
                Until::Pieces(wanted) if got >= wanted => return got,
                Until::Pieces(_) => {
                    assert!(begun.elapsed() < Duration::from_secs(120), "{protocol}: {got} pieces")
                }
                Until::Elapsed(time) if begun.elapsed() >= time => return got,
                Until::Elapsed(_) => {}
            }
            ticks.tick().await;
            got += u32::from(fetch_one(&client, victim, victim.peer(protocol), got % 64).await);
        }
    };
    let (quic, tcp, grpc) = tokio::join!(ask(Protocol::Quic), ask(Protocol::Tcp), ask(Protocol::Grpc));
    quic + tcp + grpc
}

/// What an attack did.
struct Outcome {
    blows: u64,
    /// Bytes of the replayed packets, and of what they brought the attacker.
    replayed: (u64, u64),
    idle: u64,
    peak: u64,
    honest: u32,
}

async fn suffer(victim: &Victim, attack: Attack, until: Until) -> Outcome {
    let task = victim.tasks[victim.tasks.len() - 1];
    let flight = match attack {
        Attack::Replay => capture(&dialer(EVIL).await, victim.address(Protocol::Quic), task).await,
        _ => Flight::new(),
    };
    victim.forget_peak();
    let idle = victim.held().resident;
    let attacker = Arc::new(Attacker {
        attack,
        tcp: victim.address(Protocol::Tcp),
        quic: victim.address(Protocol::Quic),
        grpc: victim.address(Protocol::Grpc),
        task,
        dialer: dialer(EVIL).await,
        flight,
        returned: AtomicU64::new(0),
        blows: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let hands: Vec<_> = (0..attack.hands()).map(|_| tokio::spawn(attacker.clone().run())).collect();
    let honest = honest(victim, until).await;
    let peak = victim.held().peak;
    attacker.stop.store(true, Ordering::Relaxed);
    for hand in hands {
        hand.await.unwrap();
    }
    let blows = attacker.blows.load(Ordering::Relaxed);
    let sent = blows * attacker.flight.concat().len() as u64 / attacker.flight.len().max(1) as u64;
    Outcome { blows, replayed: (sent, attacker.returned.load(Ordering::Relaxed)), idle, peak, honest }
}

/// Memory that any of these attacks may cost: a quarter of one header's claim, and what 400 answers under way hold.
const BOUND: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_others_are_served() {
    //= VTX-FRM-011 test
    //= VTX-SEC-002 test
    let victim = Victim::new(PIECE);
    for attack in Attack::ALL {
        let outcome = suffer(&victim, attack, Until::Pieces(8)).await;
        assert!(outcome.blows > 0, "{attack:?} never struck");
        let grown = outcome.peak.saturating_sub(outcome.idle);
        assert!(grown < BOUND, "{attack:?}: {} MiB more", grown >> 20);
        // To an address that has not shown that it is the client's goes thrice what came from it, as RFC 9000 has it, in
        // whole datagrams; and no copy is answered on its own.
        let (sent, returned) = outcome.replayed;
        assert!(returned <= 3 * sent + (1 << 16), "{returned} bytes for {sent}");
        for name in victim.files() {
            let serial = name.strip_suffix(".content");
            let is_ours =
                serial.is_some_and(|serial| u64::from_str_radix(serial, 16).is_ok() && serial.len() == 16);
            assert!(is_ours || name == "index.redb" || name == "lock", "{attack:?} made a file {name:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn table() {
    let time = Duration::from_secs(6);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("| attack | sent | memory before | peak | honest client kept |\n|---|---|---|---|---|");
    for attack in Attack::ALL {
        let victim = Victim::new(PIECE);
        honest(&victim, Until::Pieces(20)).await;
        let alone = honest(&victim, Until::Elapsed(time)).await;
        let outcome = suffer(&victim, attack, Until::Elapsed(time)).await;
        let (says, unit) = attack.says();
        let kept = 100.0 * f64::from(outcome.honest) / f64::from(alone);
        println!(
            "| {says} | {} {unit} | {:.0} MiB | {:.0} MiB | {kept:.0} % ({} of {alone} pieces) |",
            outcome.blows,
            mib(outcome.idle),
            mib(outcome.peak),
            outcome.honest,
        );
    }
    println!("{}", super::liar::measure(&Victim::new(PIECE), time).await);
}
