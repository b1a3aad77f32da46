//! What scenarios are made of: a file that is known, a server that has it, clients that fetch it.

use super::{Outcome, Violation};
use crate::crypto;
use crate::ensure;
use crate::host::Host;
use crate::net::HostId;
use crate::notes;
use crate::rng::Rng;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vortex_p2p::client::{Ask, QuicClient, RequestError, TcpClient};
use vortex_p2p::downloader::transfer::{PlanSettings, Transfer};
use vortex_p2p::downloader::{
    self, DownloaderFactory, Peer, PoolSettings, Protocol, QuicDownloader, TcpDownloader,
};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::session::{Deadlines, Failure};
use vortex_p2p::store::{MemoryStore, NewTask, PieceStore, SharedStore, TaskKey};
use vortex_p2p::transport::Network;
use vortex_p2p::transport::quic::{self, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{
    Admission, Authorities, ClientTls, Crypto, Identity, ServerIdentity, ServerTls, Trust,
};
use vortex_p2p::wire::{Algorithm, Digest, Division, Hasher, PieceKind, PieceLength, TaskId};

/// Where servers listen for QUIC.
pub(super) const QUIC_PORT: u16 = quic::PORT;
/// Where servers listen for TCP.
pub(super) const TCP_PORT: u16 = 4_005;
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);

/// A file whose every byte is known: the oracle of a transfer.
#[derive(Debug)]
pub(super) struct File {
    pub(super) key: TaskKey,
    division: Division,
    content: Bytes,
}

impl File {
    /// A file of drawn bytes.
    pub(super) fn draw(rng: &mut Rng, length: usize, piece_length: u64) -> Result<Arc<Self>, Violation> {
        let mut content = vec![0; length];
        rng.fill(&mut content);
        let mut id = [0; 32];
        rng.fill(&mut id);
        let kinds = PieceKind::ALL;
        let kind = kinds.get(rng.below(kinds.len() as u64) as usize).copied().unwrap_or(PieceKind::Piece);
        let division = Division::new(length as u64, PieceLength::try_from(piece_length)?)?;
        let key = TaskKey { kind, id: TaskId::from_sha256(id) };
        Ok(Arc::new(File { key, division, content: content.into() }))
    }

    /// A file of the same name and division with other bytes: what a liar has.
    pub(super) fn forged(&self, rng: &mut Rng) -> Arc<Self> {
        let mut content = vec![0; self.content.len()];
        rng.fill(&mut content);
        Arc::new(File { key: self.key, division: self.division, content: content.into() })
    }

    /// Bytes of the whole file.
    pub(super) fn length(&self) -> u64 {
        self.division.length()
    }

    /// The task, as stores know it.
    pub(super) fn task(&self) -> NewTask {
        NewTask { key: self.key, division: self.division, digest: None }
    }

    /// Every byte.
    pub(super) fn content(&self) -> &Bytes {
        &self.content
    }

    /// The digest of every piece, as a manifest has them.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let span = |number| self.division.piece(number).map(|span| (span.offset as usize, span.length.get()));
        let spans = (0..self.division.pieces() as u32).filter_map(span);
        let digest = |(start, length): (usize, u32)| {
            let mut hasher = Hasher::new(Algorithm::Crc32);
            hasher.update(self.content.get(start..start + length as usize).unwrap_or_default());
            hasher.finish()
        };
        spans.map(digest).collect()
    }

    /// Whether `store` holds every piece, each with the bytes of the file.
    pub(super) async fn check_store(&self, store: &dyn PieceStore) -> Outcome {
        for number in self.pieces() {
            let piece = store.piece(self.key.piece(number)).await?;
            piece.verify().await?;
            self.check(number, &piece.content.read(0, piece.content.len() as usize).await?)?;
        }
        Ok(())
    }

    /// Every piece number.
    pub(super) fn pieces(&self) -> BTreeSet<u32> {
        (0..self.division.pieces() as u32).collect()
    }

    /// The bytes of piece `number`.
    pub(super) fn piece(&self, number: u32) -> Result<Bytes, Violation> {
        let span = self.division.piece(number).ok_or("no such piece")?;
        let start = span.offset as usize;
        Ok(self.content.slice(start..start + span.length.get() as usize))
    }

    /// Whether `bytes` are piece `number`.
    pub(super) fn check(&self, number: u32, bytes: &[u8]) -> Outcome {
        ensure!(self.piece(number)? == bytes, "piece {number} has other bytes than the file");
        Ok(())
    }
}

/// The defaults of QUIC; in a replay, every connection is noted.
pub(super) fn quic_settings() -> QuicSettings {
    QuicSettings { qlog: notes::qlog(), ..QuicSettings::default() }
}

/// What a peer is made of, where it is not as usual.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) quic: QuicSettings,
    pub(super) provider: Arc<rustls::crypto::CryptoProvider>,
    /// Sockets in place of the host's own.
    pub(super) network: Option<Arc<dyn Network>>,
}

impl Default for Means {
    fn default() -> Self {
        Means { quic: quic_settings(), provider: crypto::provider(), network: None }
    }
}

impl Means {
    fn crypto(&self, host: &Host) -> Crypto {
        Crypto::with_provider(host.runtime(), self.provider.clone()).with_key_log(crypto::key_log())
    }

    fn network(&self, host: &Host) -> Arc<dyn Network> {
        self.network.clone().unwrap_or_else(|| host.network())
    }
}

/// Serves `file` from memory, over QUIC and TCP.
pub(super) async fn serve(host: Host, file: Arc<File>) -> Outcome {
    serve_as(host, file, ServerSettings::default(), Means::default()).await
}

/// Serves `file` from memory, over QUIC and TCP, as told.
pub(super) async fn serve_as(host: Host, file: Arc<File>, settings: ServerSettings, means: Means) -> Outcome {
    let store = MemoryStore::new(host.runtime());
    store.insert(file.task(), Algorithm::Crc32, &file.content).await?;
    let server = StorageServer::new(host.runtime(), Arc::new(store), settings);
    server.serve_quic(endpoint(&host, QUIC_PORT, &means).await?);
    server.serve_tcp(host.network().listen(any(TCP_PORT)).await?);
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}

/// Starts to serve `file` from memory, over QUIC and TCP.
pub(super) async fn start_server(
    host: &Host,
    file: &File,
    settings: ServerSettings,
) -> Result<StorageServer, Violation> {
    let store = MemoryStore::new(host.runtime());
    store.insert(file.task(), Algorithm::Crc32, &file.content).await?;
    serve_store(host, Arc::new(store), settings).await
}

/// Starts to serve what is in `store`, over QUIC and TCP.
pub(super) async fn serve_store(
    host: &Host,
    store: SharedStore,
    settings: ServerSettings,
) -> Result<StorageServer, Violation> {
    let server = StorageServer::new(host.runtime(), store, settings);
    server.serve_quic(server_endpoint(host, QUIC_PORT).await?);
    server.serve_tcp(host.network().listen(any(TCP_PORT)).await?);
    Ok(server)
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// An endpoint that takes connections of anyone.
pub(super) async fn server_endpoint(host: &Host, port: u16) -> Result<QuicEndpoint, Violation> {
    endpoint(host, port, &Means::default()).await
}

async fn endpoint(host: &Host, port: u16, means: &Means) -> Result<QuicEndpoint, Violation> {
    let crypto = means.crypto(host);
    let identity = Identity::from_der(&crypto, vec![crypto::certificate()], crypto::key())?;
    let tls = ServerTls::new(&crypto, &ServerIdentity::new(identity), &Admission::Anyone)?;
    // Of both families, as a socket of the kernel is.
    let bind = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let (network, settings) = (means.network(host), means.quic.clone());
    Ok(QuicEndpoint::bind(host.runtime(), network, bind, settings, Some(&tls)).await?)
}

/// A client's end of QUIC: an endpoint, and what it trusts.
pub(super) struct Dialer {
    pub(super) endpoint: QuicEndpoint,
    client: quic::QuicClient,
    host: Host,
}

impl Dialer {
    pub(super) async fn new(host: &Host) -> Result<Self, Violation> {
        Self::with(host, &Means::default()).await
    }

    pub(super) async fn with(host: &Host, means: &Means) -> Result<Self, Violation> {
        let settings = means.quic.clone();
        let authorities = Authorities::from_der(vec![crypto::authority()])?;
        let trust = ClientTls::new(&means.crypto(host), &Trust::authorities(authorities), None)?;
        let bind = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let network = means.network(host);
        let endpoint = QuicEndpoint::bind(host.runtime(), network, bind, settings.clone(), None).await?;
        let client = quic::QuicClient::new(host.runtime(), &settings, Arc::new(trust));
        Ok(Dialer { endpoint, client, host: host.clone() })
    }

    /// A connection that is being made.
    pub(super) fn dial(&self, server: SocketAddr) -> Result<quic::Dialing, Violation> {
        Ok(self.endpoint.dial(&self.client, server)?)
    }

    /// A connection, or why there is none after the connect deadline.
    pub(super) async fn connect(&self, server: SocketAddr) -> Result<quinn::Connection, Violation> {
        let dialing = self.endpoint.dial(&self.client, server)?;
        let deadline = Deadlines::default().connect;
        Ok(self.host.runtime().timeout(deadline, dialing.established()).await??)
    }
}

/// Downloaders over QUIC and, as deployed peers speak it, plain TCP.
pub(super) async fn downloaders(
    host: &Host,
    settings: PoolSettings,
) -> Result<(DownloaderFactory, Arc<QuicDownloader>), Violation> {
    let (runtime, network) = (host.runtime(), host.network());
    let plain = downloader::Dialer::plain(runtime.clone(), network.clone(), Deadlines::default());
    let quic = quic_settings();
    let authorities = Authorities::from_der(vec![crypto::authority()])?;
    let trust = ClientTls::new(&Means::default().crypto(host), &Trust::authorities(authorities), None)?;
    let endpoint = QuicEndpoint::bind(runtime.clone(), network.clone(), any(0), quic.clone(), None).await?;
    let dialer = downloader::Dialer::new(runtime, network, Deadlines::default(), Arc::new(trust));
    let over_quic = Arc::new(QuicDownloader::new(dialer.with_quic(endpoint, &quic), settings));
    let factory = DownloaderFactory::default()
        .with(Arc::new(TcpDownloader::new(plain, settings)))
        .with(over_quic.clone());
    Ok((factory, over_quic))
}

/// A transfer of the whole file from `peers`, in small pieces of work as the plan's defaults have it.
pub(super) fn transfer(
    host: &Host,
    file: &File,
    store: SharedStore,
    downloaders: DownloaderFactory,
    peers: Vec<Peer>,
) -> Transfer {
    Transfer {
        runtime: host.runtime(),
        downloaders,
        store,
        task: file.task(),
        digests: file.digests(),
        wanted: None,
        peers,
        plan: PlanSettings::default(),
        swarm: false,
        limit: None,
        lenient: false,
        observer: None,
    }
}

/// The host as a peer that is asked over `protocol`.
pub(super) fn peer(host: HostId, protocol: Protocol) -> Peer {
    let port = if protocol == Protocol::Quic { QUIC_PORT } else { TCP_PORT };
    Peer::new(protocol, SocketAddr::new(host.ipv4().into(), port))
}

/// What it took to fetch a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort {
    /// Connections that were established.
    pub(super) connections: u64,
    /// Attempts to connect that failed.
    pub(super) not_connected: u64,
    /// Requests that ended without their piece.
    pub(super) failed_requests: u64,
    /// Packets of the client that QUIC found lost.
    pub(super) lost: u64,
    /// Times at which QUIC found its path congested, by loss or by a mark.
    pub(super) congested: u64,
    /// Times at which QUIC found packets larger than some size to vanish, and connections that kept to a smaller one.
    pub(super) smaller_packets: u64,
}

/// Fetches every piece over one connection, `at_once` at a time; nothing may fail.
pub(super) async fn fetch_whole(
    host: &Host,
    connection: &quinn::Connection,
    file: &File,
    at_once: usize,
) -> Outcome {
    let client = QuicClient::new(connection.clone(), host.runtime(), Deadlines::default());
    let request = |number| {
        let client = &client;
        async move {
            let bytes = client.request(Ask::new(file.key.piece(number))).await?.collect().await?;
            file.check(number, &bytes)
        }
    };
    let mut answers = stream::iter(file.pieces()).map(request).buffer_unordered(at_once);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

/// Fetches every piece over QUIC, `at_once` at a time, however many connections it takes.
pub(super) async fn fetch_over_quic(
    host: Host,
    server: HostId,
    file: Arc<File>,
    at_once: usize,
) -> Result<Effort, Violation> {
    let dialer = Dialer::new(&host).await?;
    let address = SocketAddr::new(server.ipv4().into(), QUIC_PORT);
    let (mut missing, mut effort) = (file.pieces(), Effort::default());
    while !missing.is_empty() {
        let Ok(connection) = dialer.connect(address).await else {
            effort.not_connected += 1;
            host.runtime().sleep(PAUSE).await;
            continue;
        };
        effort.connections += 1;
        let client = QuicClient::new(connection.clone(), host.runtime(), Deadlines::default());
        let request = |number| {
            let (client, key) = (&client, file.key);
            async move {
                let fetched: Result<Vec<u8>, RequestError> =
                    async { client.request(Ask::new(key.piece(number))).await?.collect().await }.await;
                (number, fetched)
            }
        };
        let mut answers = stream::iter(missing.clone()).map(request).buffer_unordered(at_once);
        while let Some((number, fetched)) = answers.next().await {
            match fetched {
                Ok(bytes) => {
                    file.check(number, &bytes)?;
                    ensure!(missing.remove(&number), "piece {number} was answered twice");
                }
                Err(RequestError::Failed(failure)) => {
                    return Err(format!("an honest server failed piece {number}: {failure}").into());
                }
                Err(RequestError::TimedOut(_) | RequestError::Lost(_)) => effort.failed_requests += 1,
            }
        }
        let path = connection.stats().path;
        effort.lost += path.lost_packets;
        effort.congested += path.congestion_events;
        effort.smaller_packets += path.black_holes_detected + u64::from(path.current_mtu < 1_452);
        quic::close(&connection, quic::AppCode::NoError, b"");
    }
    Ok(effort)
}

/// Fetches every piece over `connections` TCP connections, each of which is replaced when it breaks.
pub(super) async fn fetch_over_tcp(
    host: Host,
    server: HostId,
    file: Arc<File>,
    connections: usize,
) -> Result<Effort, Violation> {
    let missing = Mutex::new(file.pieces());
    let workers = (0..connections).map(|_| tcp_worker(&host, server, &file, &missing));
    let efforts = futures_util::future::try_join_all(workers).await?;
    let mut sum = Effort::default();
    for effort in efforts {
        sum.connections += effort.connections;
        sum.not_connected += effort.not_connected;
        sum.failed_requests += effort.failed_requests;
    }
    Ok(sum)
}

async fn tcp_worker(
    host: &Host,
    server: HostId,
    file: &File,
    missing: &Mutex<BTreeSet<u32>>,
) -> Result<Effort, Violation> {
    let (runtime, network) = (host.runtime(), host.network());
    let address = SocketAddr::new(server.ipv4().into(), TCP_PORT);
    let take = || crate::faults::lock(missing).pop_first();
    let (mut effort, mut free) = (Effort::default(), None);
    while let Some(number) = take() {
        let client = match free.take() {
            Some(client) => client,
            None => match runtime.timeout(Deadlines::default().connect, network.connect(address)).await {
                Ok(Ok(stream)) => {
                    effort.connections += 1;
                    TcpClient::new(stream, runtime.clone(), Deadlines::default())
                }
                _ => {
                    effort.not_connected += 1;
                    crate::faults::lock(missing).insert(number);
                    runtime.sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let back = Arc::new(Mutex::new(None));
        let give_back = {
            let back = back.clone();
            Box::new(move |client| *crate::faults::lock(&back) = Some(client))
        };
        let ask = Ask::new(file.key.piece(number));
        let fetched = async { client.request(ask, give_back).await?.collect().await }.await;
        match fetched {
            Ok(bytes) => file.check(number, &bytes)?,
            // A connection that the server found idle for too long ends without an answer.
            Err(
                RequestError::TimedOut(_)
                | RequestError::Lost(_)
                | RequestError::Failed(Failure::NotAnswered),
            ) => {
                effort.failed_requests += 1;
                crate::faults::lock(missing).insert(number);
            }
            Err(RequestError::Failed(failure)) => {
                return Err(format!("an honest server failed piece {number}: {failure}").into());
            }
        }
        free = crate::faults::lock(&back).take();
    }
    Ok(effort)
}

/// A file of a few pieces and their lengths, none of them special.
pub(super) fn small_file(rng: &mut Rng) -> Result<Arc<File>, Violation> {
    let piece_length = rng.range(16 << 10..192 << 10);
    let length = rng.range(256 << 10..1 << 20) as usize;
    File::draw(rng, length, piece_length)
}
