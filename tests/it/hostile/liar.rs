//! A peer that lies about its pieces and their digests, beside an honest one: what a client that asks both still gets.

use super::clients::EVIL;
use super::victim::{Held, PIECE, Victim, held};
use crate::cli::vortex;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vortex_p2p::downloader::{Peer, Protocol};
use vortex_p2p::runtime::{SharedRuntime, TokioRuntime};
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Admission, Crypto, Identity, ServerIdentity, ServerTls};
use vortex_p2p::transport::{Network as _, SocketSettings, TokioNetwork};
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Download, ErrorCode, ErrorMessage, Header, Message, Metadata, Packet,
    PieceKind, PieceLength, Tag, TrafficType,
};

/// What is not true of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Other bytes than the digest says.
    Content,
    /// Other bytes, and their digest.
    Forged,
    NoDigest,
    /// A digest that is none.
    Digest,
    /// Another piece, as what it is.
    Number,
    /// Another piece, under the number that was asked for.
    Swapped,
    Kind,
    /// 1 GiB are announced, and bytes sent without end.
    Huge,
    /// A piece of a few bytes, whole.
    Short,
    /// A byte behind the piece.
    Appended,
    /// Half of it, and the end.
    Cut,
    /// A packet that declares 4 GiB.
    Declared,
    /// It has nothing, and says so with a message that clears the screen.
    Lacks,
}

impl Lie {
    const ALL: [Self; 13] = [
        Self::Content,
        Self::Forged,
        Self::NoDigest,
        Self::Digest,
        Self::Number,
        Self::Swapped,
        Self::Kind,
        Self::Huge,
        Self::Short,
        Self::Appended,
        Self::Cut,
        Self::Declared,
        Self::Lacks,
    ];

    /// The answer to a request for a piece of a task with this content, and whether the answer goes on for ever.
    fn answer(self, id: u8, asked: Download, whole: &[u8]) -> (Vec<u8>, bool) {
        let piece = |number: u32| {
            let from = (number as usize * PIECE).min(whole.len());
            whole[from..whole.len().min(from + PIECE)].to_vec()
        };
        let Download { kind, number, .. } = asked;
        let mut content = piece(number);
        let other = if number == 0 { 1 } else { number - 1 };
        let mut packet = Vec::new();
        match self {
            Self::Declared => {
                packet.extend_from_slice(&[id, u8::from(Tag::Content(kind)), 0xFF, 0xFF, 0xFF, 0xFF]);
                return (packet, true);
            }
            Self::Lacks => {
                let message = Bounded::cut("\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 INFO all is well");
                let message = ErrorMessage { code: ErrorCode::NotFound, message };
                Packet { id, message: Message::Error(message) }.encode(&mut packet);
                return (packet, false);
            }
            Self::Forged => content[0] ^= 1,
            Self::Swapped => content = piece(other),
            Self::Short => content.truncate(9),
            _ => {}
        }
        let digest = Digest::of(Algorithm::Crc32, &content).to_text();
        let metadata = Metadata {
            number: if self == Self::Number { other } else { number },
            offset: u64::MAX,
            length: match self {
                Self::Huge => PieceLength::MAX,
                _ => PieceLength::try_from(content.len() as u64).unwrap(),
            },
            digest: match self {
                Self::NoDigest => Bounded::default(),
                Self::Digest => Bounded::cut("sha256:../../../etc/passwd"),
                _ => (&digest).into(),
            },
            parent_id: Bounded::cut("\x1b[2Jparent\n"),
            traffic_type: TrafficType::REMOTE_PEER,
            cost: u64::MAX,
            created_at: i64::MIN,
        };
        let other_kind = if kind == PieceKind::Piece { PieceKind::Cache } else { PieceKind::Piece };
        metadata.encode(id, if self == Self::Kind { other_kind } else { kind }, &mut packet);
        match self {
            Self::Content => *content.last_mut().unwrap() ^= 0x80,
            Self::Appended => content.push(0),
            Self::Cut => content.truncate(content.len() / 2),
            _ => {}
        }
        packet.extend_from_slice(&content);
        (packet, self == Self::Huge)
    }
}

/// A liar over TCP and QUIC, from the attacker's address.
struct Liar {
    peers: [Peer; 2],
    /// Answers so far. Each is the next lie.
    told: Arc<AtomicU64>,
}

impl Liar {
    async fn new(whole: &[u8]) -> Self {
        let (whole, told): (Arc<[u8]>, _) = (whole.into(), Arc::new(AtomicU64::new(0)));
        let runtime: SharedRuntime = Arc::new(TokioRuntime);
        let network = Arc::new(TokioNetwork::new(SocketSettings::default()));
        let bind = SocketAddr::new(EVIL.into(), 0);

        let mut listener = network.listen(bind).await.unwrap();
        let tcp = Peer::new(Protocol::Tcp, listener.local_addr().unwrap());
        let (content, count) = (whole.clone(), told.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (read, write) = tokio::io::split(stream);
                tokio::spawn(lie(read, write, content.clone(), count.clone()));
            }
        });

        let crypto = Crypto::new(runtime.clone());
        let identity = ServerIdentity::new(Identity::self_signed(&crypto).unwrap());
        let tls = ServerTls::new(&crypto, &identity, &Admission::Anyone).unwrap();
        let endpoint =
            QuicEndpoint::bind(runtime, network, bind, QuicSettings::default(), Some(&tls)).await.unwrap();
        let quic = Peer::new(Protocol::Quic, endpoint.local_addr().unwrap());
        let count = told.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (content, count) = (whole.clone(), count.clone());
                tokio::spawn(async move {
                    let connection = incoming.accept().ok()?.await.ok()?;
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        tokio::spawn(lie(receive, send, content.clone(), count.clone()));
                    }
                    Some(())
                });
            }
        });
        Self { peers: [tcp, quic], told }
    }
}

/// Answers whatever is asked on a stream, each time with the next lie. What is no request for a piece gets an Error: this peer
/// knows no extension.
async fn lie(
    mut read: impl tokio::io::AsyncRead + Unpin,
    mut write: impl tokio::io::AsyncWrite + Unpin,
    whole: Arc<[u8]>,
    told: Arc<AtomicU64>,
) -> Option<()> {
    loop {
        let mut request = vec![0; 6];
        read.read_exact(&mut request).await.ok()?;
        let header = Header::decode(request[..].try_into().unwrap());
        request.resize(6 + header.length as usize, 0);
        read.read_exact(&mut request[6..]).await.ok()?;
        let Ok(Packet { id, message: Message::Download(asked) }) = Packet::decode_exact(&request) else {
            let message = ErrorMessage { code: ErrorCode::InvalidArgument, message: Bounded::default() };
            let mut packet = Vec::new();
            Packet { id: header.id, message: Message::Error(message) }.encode(&mut packet);
            write.write_all(&packet).await.ok()?;
            continue;
        };
        let turn = told.fetch_add(1, Ordering::Relaxed) as usize;
        let lie = Lie::ALL[turn % Lie::ALL.len()];
        let (answer, endless) = lie.answer(id, asked, &whole);
        write.write_all(&answer).await.ok()?;
        if endless {
            loop {
                write.write_all(&[0x5A; 1 << 14]).await.ok()?;
            }
        }
        if lie == Lie::Cut {
            write.shutdown().await.ok()?;
        }
    }
}

/// A download that has come to its end, and what its process held.
struct Got {
    seconds: f64,
    held: Held,
    done: serde_json::Value,
    log: String,
}

/// `vortex get` of the largest task from the victim, over QUIC and TCP, and from `others`. It goes on to serve, so that its
/// memory can be read when all of the file is there.
fn get(victim: &Victim, others: &[Peer], directory: &Path) -> Got {
    let largest = victim.tasks.len() - 1;
    let output = directory.join("out");
    let honest = [Protocol::Quic, Protocol::Tcp].map(|protocol| victim.peer(protocol));
    let peers: Vec<_> = others.iter().chain(&honest).map(ToString::to_string).collect();
    let log = directory.join("log");
    let mut child = vortex()
        .arg("get")
        .arg(directory.join("manifest.json"))
        .args(["--peer", &peers.join(","), "--insecure", "--json", "-o"])
        .arg(&output)
        .args(["--serve", "--quic", "127.0.0.1:0", "--tcp", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    let done = events.find(|event| event["event"] == "done");
    let held = done.is_some().then(|| held(child.id()));
    let log = || std::fs::read_to_string(&log).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    child.wait().unwrap();
    let done = done.unwrap_or_else(|| panic!("{}", log()));
    assert!(std::fs::read(&output).unwrap() == victim.contents[largest], "other bytes than were served");
    Got { seconds: done["seconds"].as_f64().unwrap(), held: held.unwrap(), done, log: log() }
}

/// Writes the manifest of the victim's largest task into `directory`.
fn describe(victim: &Victim, directory: &Path) {
    let largest = victim.tasks.len() - 1;
    let source = directory.join("source");
    std::fs::write(&source, &victim.contents[largest]).unwrap();
    let mut import = vortex();
    import.arg("import").arg(source).arg("--dir").arg(directory.join("imported"));
    import.arg("--manifest").arg(directory.join("manifest.json"));
    let imported = import.args(["--piece-length", &PIECE.to_string()]).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

/// Memory that a liar may cost a client: what it sends is in memory by the piece.
const BOUND: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lie_reaches_the_file_or_the_screen() {
    //= VTX-CNT-011 test
    //= VTX-SEC-001 test
    //= VTX-SEC-008 test
    let (victim, directory) = (Victim::new(PIECE), tempfile::tempdir().unwrap());
    describe(&victim, directory.path());
    let liar = Liar::new(victim.contents.last().unwrap()).await;
    let alone = tokio::task::block_in_place(|| get(&victim, &[], directory.path()));
    // Until each lie was told over each transport, as near as who asks first lets it be known.
    while liar.told.load(Ordering::Relaxed) < 3 * Lie::ALL.len() as u64 {
        let got = tokio::task::block_in_place(|| get(&victim, &liar.peers, directory.path()));
        let grown = got.held.peak.saturating_sub(alone.held.peak);
        assert!(grown < BOUND, "{} MiB more", grown >> 20);
        for peer in got.done["peers"].as_array().unwrap() {
            // Over TCP a byte behind a piece begins the next answer, and the piece is as good as any.
            let lies = peer["peer"] == liar.peers[1].to_string();
            assert!(!lies || peer["pieces"] == 0, "a piece of a liar was taken: {}", got.done);
        }
        assert!(!got.log.contains(['\x1b', '\x07', '\r']), "{:?}", got.log);
    }
}

/// The row of the table.
pub(super) async fn measure(victim: &Victim, time: Duration) -> String {
    let directory = tempfile::tempdir().unwrap();
    describe(victim, directory.path());
    let liar = Liar::new(victim.contents.last().unwrap()).await;
    let gets = |others: &[Peer]| {
        tokio::task::block_in_place(|| {
            let (begun, mut seconds, mut peak, mut count) = (Instant::now(), 0.0, 0, 0);
            while begun.elapsed() < time {
                let got = get(victim, others, directory.path());
                (seconds, peak, count) = (seconds + got.seconds, peak.max(got.held.peak), count + 1);
            }
            (seconds / f64::from(count), peak, count)
        })
    };
    gets(&[]);
    let (alone, before, _) = gets(&[]);
    let (beside, peak, count) = gets(&liar.peers);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "| TCP, QUIC: a parent that lies about its pieces and digests | {} lies to {count} downloads | {:.0} MiB | {:.0} MiB | \
         {:.0} % ({:.0} ms a file, {:.0} ms without it) |",
        liar.told.load(Ordering::Relaxed),
        mib(before),
        mib(peak),
        100.0 * alone / beside,
        1000.0 * beside,
        1000.0 * alone,
    )
}
