//! `vortex get`: a task from peers into a file.

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::import;
use crate::progress::{Line, PeerShare, Progress, WayShare, shares, size};
use crate::serve::quic_settings;
use crate::share::{Share, ShareArguments};
use crate::world::{IdentityArguments, World, block_on};
use bytes::Bytes;
use clap::Args;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::client::{Failure as Refused, RequestError};
use vortex_p2p::config::{self, ByteSize, Config};
use vortex_p2p::downloader::transfer::{
    DescribeError, PlanSettings, Report, Transfer, TransferError, Verdict, describe, probe,
};
use vortex_p2p::downloader::{
    AutoDownloader, AutoObserver, AutoSettings, ConnectError, Dialer, DownloadError, DownloaderFactory, Peer,
    PeerName, PieceRange, PoolSettings, Protocol, StorageClient,
};
use vortex_p2p::rate::RateLimiter;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::disk::{DiskStore, ExportError};
use vortex_p2p::store::{Manifest, NewTask, PieceSet, PieceStore as _, TaskKey};
use vortex_p2p::ticket::Ticket;
use vortex_p2p::transport::quic::{AppCode, QuicEndpoint};
use vortex_p2p::transport::tls::{ClientTls, Trust};
use vortex_p2p::wire::{Digest, Division, ErrorCode, PieceKind, PieceLength};

/// Fetch a task from peers into a file
///
/// Each piece is verified as it comes, and asked of another peer where one fails. The file appears under its name when it
/// is whole; until then what has arrived is kept beside it, and the same command goes on from there.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// A task id, a manifest file, or a ticket
    #[arg(value_name = "TASK|MANIFEST|TICKET")]
    what: String,
    /// Whom to ask: quic://HOST:PORT, tcp://HOST:PORT, grpc://HOST:PORT; several may be given
    ///
    /// auto://HOST, or several of one peer joined by +, such as quic://HOST:4006+tcp://HOST:4005, is asked over whichever of them works best.
    #[arg(long = "peer", value_name = "URL", env = "VORTEX_PEERS", value_delimiter = ',')]
    peers: Vec<String>,
    /// Where the file goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How many pieces the task has, where no manifest says so
    #[arg(long, value_name = "N")]
    pieces: Option<u64>,
    /// Bytes of the file, where no manifest says so: then no peer is asked
    #[arg(long, value_name = "BYTES", requires = "piece_length", conflicts_with = "pieces")]
    length: Option<u64>,
    /// Bytes of each piece but the last, such as 4MiB
    #[arg(long, value_name = "SIZE", value_parser = import::piece_length, requires = "length")]
    piece_length: Option<PieceLength>,
    /// Kind of the task, where neither manifest nor ticket says so
    #[arg(long, default_value = "piece", env = "VORTEX_KIND")]
    kind: PieceKind,
    /// Only these bytes of the file, the last one included, such as 0-1023
    #[arg(long, value_name = "A-B")]
    range: Option<ByteRange>,
    /// Settings of a Dragonfly daemon; flags overrule them
    #[arg(long, value_name = "dfdaemon.yaml", env = "VORTEX_CONFIG")]
    config: Option<PathBuf>,
    /// Pieces under way at a time, at all peers together [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), env = "VORTEX_CONCURRENCY")]
    concurrency: Option<u16>,
    /// How to ask: over one protocol only, or over whichever works best: auto, quic, tcp, grpc
    ///
    /// auto, where no configuration says otherwise.
    #[arg(long, env = "VORTEX_PROTOCOL")]
    protocol: Option<config::Protocol>,
    /// Digest of the whole file, such as sha256:…, known from elsewhere
    #[arg(long)]
    digest: Option<Digest>,
    /// Bytes a second at most, such as 50MiB
    #[arg(long, value_name = "SIZE", env = "VORTEX_LIMIT")]
    limit: Option<ByteSize>,
    /// Take pieces whose digest can't be checked, as deployed peers do
    #[arg(long)]
    lenient: bool,
    /// No progress bar
    #[arg(long, env = "VORTEX_NO_PROGRESS")]
    no_progress: bool,
    #[command(flatten)]
    share: ShareArguments,
    #[command(flatten)]
    identity: IdentityArguments,
}

/// How long peers that serve while they fetch are asked for what nobody has yet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a file, from the first to the last.
#[derive(Debug, Clone, Copy)]
struct ByteRange {
    first: u64,
    last: u64,
}

impl FromStr for ByteRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected FIRST-LAST, such as 0-1023".to_owned();
        let (first, last) = text.split_once('-').ok_or_else(expected)?;
        let first = first.parse().map_err(|_| expected())?;
        let last = last.parse().map_err(|_| expected())?;
        if first > last { Err(expected()) } else { Ok(Self { first, last }) }
    }
}

/// What was asked for, as far as the command line says it.
struct Wanted {
    key: TaskKey,
    manifest: Option<Manifest>,
    /// The ways to each peer, at least one.
    peers: Vec<Vec<Peer>>,
    trust: Trust,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    arguments.identity.warn();
    let config = crate::config::load(arguments.config.as_deref())?;
    let arguments = &arguments.clone().settled(&config);
    block_on(async {
        let world = World::new();
        let work = get(&world, arguments, &config, output);
        let interrupted = tokio::signal::ctrl_c();
        let shared = match futures_util::future::select(pin!(work), pin!(interrupted)).await {
            futures_util::future::Either::Left((done, _)) => done?,
            futures_util::future::Either::Right(_) => {
                return Err(
                    Failure::new(Exit::Interrupted, "interrupted").hint("the same command goes on from here")
                );
            }
        };
        if let Some(Shared { share, staging, store, progress }) = shared {
            share.until_stopped(&progress).await;
            staging.remove(store).await;
        }
        Ok(Exit::Done)
    })
}

/// What is left to do once the file is whole: to give it to others.
struct Shared {
    share: Share,
    staging: Staging,
    store: DiskStore,
    progress: Arc<Progress>,
}

impl Arguments {
    /// What the command line does not say is as the configuration says, where one was given.
    fn settled(mut self, config: &Config) -> Self {
        if self.config.is_none() {
            return self;
        }
        let config::Download { protocol, concurrent_piece_count, bandwidth_limit, .. } = &config.download;
        self.protocol.get_or_insert(*protocol);
        self.concurrency.get_or_insert(u16::try_from(concurrent_piece_count.get()).unwrap_or(u16::MAX));
        self.limit.get_or_insert(*bandwidth_limit);
        if let Some(config::TlsFiles { ca_cert, cert, key }) = config.upload.client_tls.clone()
            && self.identity.cert.is_none()
            && !self.identity.insecure
        {
            self.identity.ca.get_or_insert(ca_cert);
            (self.identity.cert, self.identity.key) = (Some(cert), Some(key));
        }
        self
    }
}

async fn get(
    world: &World,
    arguments: &Arguments,
    config: &Config,
    output: &Output,
) -> Result<Option<Shared>, Failure> {
    let wanted = wanted(arguments).await?;
    let ways = wanted.peers.concat();
    let (downloaders, endpoint) =
        downloaders(world, &wanted.trust, &arguments.identity, &ways, config).await?;
    let done = fetch(world, arguments, output, &wanted, downloaders).await;
    if let Some(endpoint) = endpoint {
        leave(world, &endpoint).await;
    }
    done
}

/// Tells the peers that nothing more is wanted: they would keep the connections, and learn by a timeout only.
async fn leave(world: &World, endpoint: &QuicEndpoint) {
    /// Nobody waits longer than this for a peer that does not answer.
    const FAREWELL: Duration = Duration::from_millis(500);
    endpoint.close(AppCode::NoError, b"");
    let _ = world.runtime.timeout(FAREWELL, endpoint.wait_idle()).await;
}

async fn fetch(
    world: &World,
    arguments: &Arguments,
    output: &Output,
    wanted: &Wanted,
    downloaders: DownloaderFactory,
) -> Result<Option<Shared>, Failure> {
    let progress = Progress::new(output.json, arguments.no_progress);
    let Asked { downloaders, auto, peers } = joined(world, &downloaders, &wanted.peers, &progress);
    let staging = Staging::new(&arguments.output)?;
    // The task is described before anything is made on the disk, and served before that: others may wait for it.
    let (task, store, share) = match arguments.share.serve {
        false => {
            let task = geometry(&downloaders, wanted, &peers, arguments).await?;
            (task, import::open(world, &staging.dir).await?, None)
        }
        true => {
            let store = import::open(world, &staging.dir).await?;
            let served = Arc::new(store.clone());
            let Arguments { share, identity, .. } = arguments;
            let share = Share::begin(world, share, identity, served, wanted.key, &progress).await?;
            (geometry(&downloaders, wanted, &peers, arguments).await?, store, share)
        }
    };
    let mut parts = Parts::default();
    let pieces = match arguments.range {
        None => None,
        Some(range) => {
            let mut pieces = covering(&task, range)?;
            // Where the digests of whole pieces are known from elsewhere, only whole pieces can be held against them.
            if wanted.manifest.is_none() {
                parts = Parts::fetch(&downloaders, &peers, &task, range).await;
                pieces = pieces.iter().filter(|number| !parts.0.contains_key(number)).collect();
            }
            Some(pieces)
        }
    };
    let transfer = Transfer {
        runtime: world.runtime.clone(),
        downloaders,
        store: Arc::new(store.clone()),
        task,
        digests: wanted.manifest.as_ref().map(|manifest| manifest.pieces().to_vec()).unwrap_or_default(),
        wanted: pieces,
        peers: peers.clone(),
        plan: PlanSettings {
            concurrency: arguments.concurrency.unwrap_or(8).into(),
            // Others may be fetching what they lack.
            patience: if share.is_some() { PATIENCE } else { Duration::ZERO },
            ..PlanSettings::default()
        },
        scattered: share.is_some(),
        limit: arguments
            .limit
            .and_then(|ByteSize(rate)| NonZeroU64::new(rate))
            .map(|rate| RateLimiter::new(world.runtime.clone(), rate)),
        lenient: arguments.lenient,
        observer: Some(progress.observer(task.key.id.to_string(), peers.clone())),
    };
    let outcome = transfer.run().await;
    progress.finish();
    let report = match outcome {
        Ok(report) => parts.added_to(report),
        Err(error) => return Err(explain(&store, task.key, error).await),
    };
    // Where the next process cleans up, should this one be killed.
    let whole = staging.dir.join("whole");
    match arguments.range {
        None => {
            store.export(task.key, &whole).await.map_err(|error| export_failed(arguments, error))?;
        }
        Some(range) => part(&store, &task, range, &parts, &whole).await?,
    }
    files::rename(&whole, &arguments.output).map_err(|error| Failure::file(&arguments.output, &error))?;
    let sha256 = sha256(world, &arguments.output).await?;
    done(&progress, &report, &ways_taken(&auto, &peers), sha256, &arguments.output);
    match share {
        Some(share) => return Ok(Some(Shared { share, staging, store, progress })),
        None => staging.remove(store).await,
    }
    Ok(None)
}

/// What the command line asks for.
async fn wanted(arguments: &Arguments) -> Result<Wanted, Failure> {
    let ticket = arguments.what.parse::<Ticket>();
    let manifest = Path::new(&arguments.what);
    let (key, manifest, mut peers, mut trust) = match ticket {
        // A ticket is of one server, with all its addresses.
        Ok(ticket) => (ticket.task, None, vec![ticket.peers], Some(Trust::Pinned(ticket.fingerprint))),
        Err(vortex_p2p::ticket::TicketError::NotATicket) if manifest.is_file() => {
            let file = File::open(manifest).map_err(|error| Failure::file(manifest, &error))?;
            let read = Manifest::read(io::BufReader::new(file));
            let read =
                read.map_err(|error| Failure::new(Exit::Usage, error.to_string()).context(manifest))?;
            (read.task().key, Some(read), Vec::new(), None)
        }
        Err(vortex_p2p::ticket::TicketError::NotATicket) => {
            let id = arguments.what.parse().map_err(|error: vortex_p2p::wire::BadTaskId| {
                Failure::new(Exit::Usage, format!("{}: {error}", arguments.what)).hint(
                    "name a task id, a manifest file that is there, or the ticket that `vortex serve` prints",
                )
            })?;
            (TaskKey { kind: arguments.kind, id }, None, Vec::new(), None)
        }
        Err(error) => return Err(Failure::new(Exit::Usage, error.to_string())),
    };
    for name in &arguments.peers {
        peers.push(resolve(name).await?);
    }
    if let Some(only) = arguments.protocol.and_then(Protocol::configured) {
        peers.iter_mut().for_each(|ways| ways.retain(|way| way.protocol == only));
    }
    peers.retain(|ways| !ways.is_empty());
    if peers.is_empty() {
        return Err(Failure::new(Exit::Usage, "no peer to ask").hint(
            "add --peer quic://HOST:PORT (or tcp://, grpc://), or give the ticket that `vortex serve` prints; \
             --protocol leaves out peers of other protocols",
        ));
    }
    if arguments.identity.insecure {
        trust = Some(Trust::Insecure);
    } else if let Some(authorities) = arguments.identity.authorities()? {
        trust = Some(Trust::authorities(authorities));
    }
    let trust = trust.ok_or_else(|| {
        Failure::new(Exit::Usage, "nothing says by which certificate to know the peers").hint(
            "give the ticket that `vortex serve` prints, name an authority with --ca, or use --insecure with peers \
             that can't prove who they are",
        )
    })?;
    Ok(Wanted { key, manifest, peers, trust })
}

/// The ways to a peer, each to the first address of its name.
async fn resolve(name: &str) -> Result<Vec<Peer>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let ways: Vec<String> = match name.strip_prefix("auto://") {
        Some(host) => Protocol::ALL.map(|protocol| format!("{protocol}://{host}")).into(),
        None => name.split('+').map(str::to_owned).collect(),
    };
    let mut peers = Vec::new();
    for way in &ways {
        let parsed = PeerName::parse(way).map_err(|error| usage(error.to_string()))?;
        let PeerName { protocol, host, port } = parsed;
        if name.starts_with("auto://") && port != protocol.default_port() {
            let message = format!("expected auto://HOST without a port, found `{name}`");
            let hint = format!("name each protocol with its port: quic://{host}:PORT+tcp://{host}:PORT");
            return Err(usage(message).hint(hint));
        }
        let failed = |error: io::Error| Failure::new(Exit::Network, format!("{way}: {error}"));
        let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
        peers.extend(addresses.next().map(|address| Peer { protocol, address }));
    }
    Ok(peers)
}

/// Joins the ways to each peer: those with several are asked over whichever works best.
fn joined(
    world: &World,
    downloaders: &DownloaderFactory,
    ways: &[Vec<Peer>],
    progress: &Arc<Progress>,
) -> Asked {
    let told = progress.clone();
    let observer: AutoObserver = Arc::new(move |event| told.negotiated(&event));
    let auto = AutoDownloader::new(
        world.runtime.clone(),
        downloaders.clone(),
        AutoSettings::default(),
        Some(observer),
    );
    let peer = |ways: &Vec<Peer>| match ways.as_slice() {
        [only] => Some(*only),
        several => auto.join(several.iter().copied()),
    };
    let peers = ways.iter().filter_map(peer).collect();
    Asked { downloaders: downloaders.clone().with(Arc::new(auto.clone())), auto, peers }
}

/// Whom to ask, and how.
struct Asked {
    downloaders: DownloaderFactory,
    auto: AutoDownloader,
    peers: Vec<Peer>,
}

/// What asks the peers, and the one socket that serves all of them over QUIC, as far as they are of one family.
pub(crate) async fn downloaders(
    world: &World,
    trust: &Trust,
    identity: &IdentityArguments,
    peers: &[Peer],
    config: &Config,
) -> Result<(DownloaderFactory, Option<QuicEndpoint>), Failure> {
    let identity = identity.identity(&world.crypto)?;
    let tls = ClientTls::new(&world.crypto, trust, identity.as_ref())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let deadlines = Deadlines { piece: config.download.piece_timeout, ..Deadlines::default() };
    let mut dialer = Dialer::new(world.runtime.clone(), world.network.clone(), deadlines, Arc::new(tls));
    let mut bound = None;
    let quic: Vec<_> = peers.iter().filter(|peer| peer.protocol == Protocol::Quic).collect();
    if !quic.is_empty() {
        let local = quic.iter().all(|peer| peer.address.ip().is_loopback());
        let any: IpAddr = match (quic.iter().all(|peer| peer.address.is_ipv4()), local) {
            (true, true) => Ipv4Addr::LOCALHOST.into(),
            (true, false) => Ipv4Addr::UNSPECIFIED.into(),
            (false, _) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bind = SocketAddr::new(any, 0);
        let settings = quic_settings(config, bind);
        let (runtime, network) = (world.runtime.clone(), world.network.clone());
        let endpoint = QuicEndpoint::bind(runtime, network, bind, settings.clone(), None).await;
        let endpoint =
            endpoint.map_err(|error| Failure::new(Exit::Network, format!("no socket for QUIC: {error}")))?;
        bound = Some(endpoint.clone());
        dialer = dialer.with_quic(endpoint, &settings);
    }
    Ok((DownloaderFactory::new(&dialer, PoolSettings::default()), bound))
}

/// The length of the task and of its pieces: from the manifest, the command line, a peer that tells, or found out.
async fn geometry(
    downloaders: &DownloaderFactory,
    wanted: &Wanted,
    peers: &[Peer],
    arguments: &Arguments,
) -> Result<NewTask, Failure> {
    let with_digest = |task: NewTask| NewTask { digest: arguments.digest.or(task.digest), ..task };
    if let Some(manifest) = &wanted.manifest {
        return Ok(with_digest(manifest.task()));
    }
    if let (Some(length), Some(piece_length)) = (arguments.length, arguments.piece_length) {
        let division = Division::new(length, piece_length)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        return Ok(with_digest(NewTask { key: wanted.key, division, digest: None }));
    }
    let mut last = None;
    for peer in peers {
        match describe(downloaders, *peer, wanted.key).await {
            Ok(Some(task)) => return Ok(with_digest(task)),
            Ok(None) => {}
            Err(error) => {
                last = Some(error);
                continue;
            }
        }
        match probe(downloaders, *peer, wanted.key, arguments.pieces, arguments.digest).await {
            Ok(task) => return Ok(with_digest(task)),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => describe_failed(&error),
        None => Failure::new(Exit::Usage, "no peer to ask"),
    })
}

/// The pieces that have the bytes of `range`.
fn covering(task: &NewTask, range: ByteRange) -> Result<PieceSet, Failure> {
    let length = task.division.length();
    if range.last >= length {
        let message =
            format!("the file has {length} bytes, so its last byte is {}", length.saturating_sub(1));
        return Err(Failure::new(Exit::Usage, message));
    }
    let piece = |byte: u64| u32::try_from(byte / u64::from(task.division.piece_length())).unwrap_or(u32::MAX);
    Ok((piece(range.first)..=piece(range.last)).collect())
}

/// The bytes of piece `number` that are in `range`, counted from the begin of the piece.
fn within(task: &NewTask, number: u32, range: ByteRange) -> Option<PieceRange> {
    let span = task.division.piece(number)?;
    let (begin, end) = (span.offset, span.offset + u64::from(span.length));
    let (from, past) = (range.first.max(begin), range.last.saturating_add(1).min(end));
    let offset = u32::try_from(from.checked_sub(begin)?).ok()?;
    Some(PieceRange { offset, length: u32::try_from(past.checked_sub(from)?).ok()? })
}

/// Parts of pieces that were fetched alone, by the number of the piece; each with the peer that gave it.
#[derive(Default)]
struct Parts(BTreeMap<u32, (usize, Bytes)>);

impl Parts {
    /// Fetches the parts of those pieces of which `range` has not all, as far as peers can give parts.
    async fn fetch(
        downloaders: &DownloaderFactory,
        peers: &[Peer],
        task: &NewTask,
        range: ByteRange,
    ) -> Self {
        let client = StorageClient::new(downloaders.clone());
        let mut parts = BTreeMap::new();
        for number in covering(task, range).unwrap_or_default() {
            let Some(part) = within(task, number, range) else { continue };
            let whole = task.division.piece(number).is_some_and(|span| span.length.get() == part.length);
            if whole {
                continue;
            }
            for (index, peer) in peers.iter().enumerate() {
                match client.part(*peer, task.key, number, part).await {
                    Ok(Some(bytes)) => {
                        parts.insert(number, (index, bytes));
                        break;
                    }
                    Ok(None) => tracing::debug!(%peer, number, "no part alone: the piece is fetched whole"),
                    Err(error) => tracing::debug!(%peer, number, %error, "no part of a piece"),
                }
            }
        }
        Self(parts)
    }

    /// The report with what these parts add to it.
    fn added_to(&self, mut report: Report) -> Report {
        for (peer, bytes) in self.0.values() {
            report.bytes += bytes.len() as u64;
            if let Some(peer) = report.peers.get_mut(*peer) {
                peer.bytes += bytes.len() as u64;
                peer.pieces += 1;
            }
        }
        report
    }
}

/// Writes the bytes of `range` to `output`, durably.
async fn part(
    store: &DiskStore,
    task: &NewTask,
    range: ByteRange,
    parts: &Parts,
    output: &Path,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file(output, &error);
    let mut file = File::create(output).map_err(failed)?;
    for number in covering(task, range)? {
        if let Some((_, bytes)) = parts.0.get(&number) {
            file.write_all(bytes).map_err(failed)?;
            continue;
        }
        let piece = store.piece(task.key.piece(number)).await?;
        let Some(PieceRange { offset, length }) = within(task, number, range) else { continue };
        let (mut at, to) = (u64::from(offset), u64::from(offset) + u64::from(length));
        while at < to {
            let most = usize::try_from(to - at).unwrap_or(usize::MAX).min(1 << 20);
            let bytes = piece.content.read(at, most).await?;
            file.write_all(&bytes).map_err(failed)?;
            at += bytes.len() as u64;
        }
    }
    file.sync_all().map_err(failed)
}

/// Where the pieces are until the file is whole: a directory beside it.
struct Staging {
    dir: PathBuf,
}

impl Staging {
    fn new(output: &Path) -> Result<Self, Failure> {
        let name = output.file_name().ok_or_else(|| {
            Failure::new(Exit::Usage, format!("{}: expected the name of a file", output.display()))
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".vortex");
        Ok(Self { dir: output.with_file_name(hidden) })
    }

    /// Tasks first, by the store: content without an index would be no store to the next process.
    async fn remove(self, store: DiskStore) {
        let removed = async {
            for task in store.tasks().await? {
                store.delete(task.key).await?;
            }
            drop(store);
            Ok::<_, Box<dyn std::error::Error>>(fs::remove_dir_all(&self.dir)?)
        };
        if let Err(error) = removed.await {
            tracing::warn!("{error}: remove {} by hand", self.dir.display());
        }
    }
}

/// The digest of a file as it is on the disk now.
pub(crate) async fn sha256(world: &World, path: &Path) -> Result<String, Failure> {
    let path = path.to_owned();
    let hash = world.runtime.blocking(move || {
        let mut file = File::open(&path).map_err(|error| Failure::file(&path, &error))?;
        let mut hasher = vortex_p2p::wire::Hasher::new(vortex_p2p::wire::Algorithm::Sha256);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(|error| Failure::file(&path, &error))? {
                0 => break,
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
        Ok(hasher.finish().to_string())
    });
    hash.await.map_err(|error| Failure::new(Exit::Other, error.to_string()))?
}

/// What has come over which way, where a peer had several.
fn ways_taken(auto: &AutoDownloader, peers: &[Peer]) -> Vec<WayShare> {
    let joined = peers.iter().filter(|peer| peer.protocol == Protocol::Auto);
    joined
        .flat_map(|peer| auto.shares(peer.address))
        .map(|(way, bytes)| WayShare { way: way.to_string(), bytes })
        .collect()
}

fn done(progress: &Progress, report: &Report, ways: &[WayShare], sha256: String, output: &Path) {
    let seconds = report.elapsed.as_secs_f64();
    progress.line(&Line::Done {
        bytes: report.bytes,
        seconds,
        resumed: report.resumed,
        peers: PeerShare::of(&report.peers),
        ways,
        sha256: sha256.trim_start_matches("sha256:").to_owned(),
        output: output.display().to_string(),
    });
    let fetched = report.bytes - report.resumed;
    let rate = if seconds > 0.0 { (fetched as f64 / seconds) as u64 } else { fetched };
    progress.say(&format!(
        "{}: {} in {seconds:.2} s, {} a second, every piece verified\n{}{}{sha256}",
        output.display(),
        size(report.bytes),
        size(rate),
        shares(&report.peers),
        ways.iter()
            .map(|share| format!("    over {:<27} {:>26}\n", share.way, size(share.bytes)))
            .collect::<String>(),
    ));
    if report.unverified > 0 {
        progress
            .say(&format!("{} pieces could not be verified: their peers sent no digest", report.unverified));
    }
}

fn export_failed(arguments: &Arguments, error: ExportError) -> Failure {
    match error {
        ExportError::WrongDigest { .. } => Failure::new(Exit::Corrupt, error.to_string()).hint(
            "every piece was what its peer said, and the whole is not: ask other peers, or use a manifest",
        ),
        ExportError::Target(error) => Failure::file(&arguments.output, &error),
        ExportError::Store(error) => error.into(),
        ExportError::Incomplete { .. } => Failure::new(Exit::Unfinished, error.to_string()),
    }
}

fn describe_failed(error: &DescribeError) -> Failure {
    let exit = match error.download_error() {
        Some(DownloadError::Connect(error)) => match error.reason() {
            ConnectError::Refused(_) | ConnectError::Limit => Exit::Refused,
            ConnectError::TimedOut(_) => Exit::TimedOut,
            _ => Exit::Network,
        },
        Some(DownloadError::Request(RequestError::TimedOut(_))) => Exit::TimedOut,
        Some(DownloadError::Request(RequestError::Failed(Refused::Refused {
            code: ErrorCode::NotFound,
            ..
        }))) => Exit::NotFound,
        Some(DownloadError::Request(RequestError::Failed(Refused::Rejected(_)))) | None => Exit::Corrupt,
        Some(_) => Exit::Network,
    };
    Failure::new(exit, error.to_string()).hint(match exit {
        Exit::NotFound => "check the task id and --kind, or ask another peer",
        Exit::Refused => {
            "check --ca, --cert and --key, or the ticket; deployed Dragonfly peers need --insecure"
        }
        _ => "check the address and that the peer runs; where UDP is blocked, add a tcp:// peer",
    })
}

/// Why a transfer could not go on, and what to do.
async fn explain(store: &DiskStore, key: TaskKey, error: TransferError) -> Failure {
    let message = error.to_string();
    let peers = match error {
        TransferError::Stuck { peers, .. } => peers,
        TransferError::Store(error) => return error.into(),
        TransferError::NoPeers => return Failure::new(Exit::Usage, message),
    };
    let begun = matches!(store.task(key).await, Ok(Some(task)) if task.held > 0);
    let verdicts: Vec<_> =
        peers.iter().filter_map(|peer| peer.last.as_ref().map(|(verdict, _)| *verdict)).collect();
    let all = |verdict| !verdicts.is_empty() && verdicts.iter().all(|it| *it == verdict);
    let exit = if verdicts.contains(&Verdict::Lied) {
        Exit::Corrupt
    } else if all(Verdict::Lacks) {
        Exit::NotFound
    } else if all(Verdict::Refused) {
        Exit::Refused
    } else if begun {
        Exit::Unfinished
    } else if verdicts.contains(&Verdict::TimedOut) {
        Exit::TimedOut
    } else {
        Exit::Network
    };
    let hint = if begun {
        "what has arrived is kept: the same command goes on from there, and may name more peers"
    } else {
        "check that the peers run and have the task, or name others with --peer"
    };
    Failure::new(exit, message).hint(hint)
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(error) => error.into(),
            other => Self::new(Exit::Network, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn settled(flags: &[&str]) -> Arguments {
        let text = "download: {protocol: quic, concurrentPieceCount: 3, bandwidthLimit: 1MiB}\n\
                    upload: {client: {caCert: a, cert: b, key: c}}";
        let line = Line::try_parse_from([&["get", "TASK", "-o", "out"], flags].concat()).unwrap();
        line.arguments.settled(&config::check(text).config)
    }

    #[test]
    fn the_keys_of_downloads_are_settings_that_flags_overrule() {
        let given = settled(&["--config", "file"]);
        assert_eq!(given.protocol, Some(config::Protocol::Quic));
        assert_eq!((given.concurrency, given.limit), (Some(3), Some(ByteSize::mib(1))));
        assert_eq!(given.identity.key, Some("c".into()));
        let given =
            settled(&["--config", "file", "--protocol", "tcp", "--concurrency", "5", "--limit", "2MiB"]);
        assert_eq!(given.protocol, Some(config::Protocol::Tcp));
        assert_eq!((given.concurrency, given.limit), (Some(5), Some(ByteSize::mib(2))));
        let given = settled(&["--config", "file", "--insecure"]);
        assert_eq!((given.identity.ca, given.identity.key), (None, None));
        let given = settled(&[]);
        assert_eq!((given.protocol, given.concurrency), (None, None));
    }
}
