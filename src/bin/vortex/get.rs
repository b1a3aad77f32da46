//! `vortex get`: a task from peers into a file.

mod arrival;
mod failed;
mod range;

use self::arrival::Arrival;
use self::failed::describe_failed;
use self::range::{ByteRange, Parts, covering};
use crate::cli::Output;
use crate::exit::{Exit, Failure, shown};
use crate::files;
use crate::import;
use crate::progress::{Line, PeerShare, Progress, WayShare, shares, size};
use crate::serve::quic_settings;
use crate::share::{Share, ShareArguments};
use crate::world::{IdentityArguments, World, block_on};
use clap::Args;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use vortex_p2p::config::{self, ByteSize, Config};
use vortex_p2p::downloader::transfer::{PlanSettings, Report, Transfer, describe, probe};
use vortex_p2p::downloader::{
    AutoDownloader, AutoObserver, AutoSettings, Dialer, DownloaderFactory, Peer, PeerName, PoolSettings,
    Protocol,
};
use vortex_p2p::rate::RateLimiter;
use vortex_p2p::session::Deadlines;
use vortex_p2p::store::disk::DiskStore;
use vortex_p2p::store::{Manifest, NewTask, PieceStore as _, TaskKey};
use vortex_p2p::ticket::Ticket;
use vortex_p2p::transport::quic::{AppCode, QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{ClientTls, Trust};
use vortex_p2p::wire::{Digest, Division, Escaped, PieceKind, PieceLength};

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
    /// Where the file goes: a file that is there is replaced once this one is whole
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
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
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
    let done = fetch(world, arguments, config, output, &wanted, downloaders).await;
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
    config: &Config,
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
            let share = Share::begin(world, config, share, identity, served, wanted.key, &progress).await?;
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
                pieces = pieces.iter().filter(|number| !parts.has(*number)).collect();
            }
            Some(pieces)
        }
    };
    let transfer = || Transfer {
        runtime: world.runtime.clone(),
        downloaders: downloaders.clone(),
        store: Arc::new(store.clone()),
        task,
        digests: wanted.manifest.as_ref().map(|manifest| manifest.pieces().to_vec()).unwrap_or_default(),
        wanted: pieces.clone(),
        peers: peers.clone(),
        plan: PlanSettings {
            concurrency: arguments.concurrency.unwrap_or(8).into(),
            // Others may be fetching what they lack.
            patience: if share.is_some() { PATIENCE } else { Duration::ZERO },
            ..PlanSettings::default()
        },
        swarm: share.is_some(),
        limit: arguments
            .limit
            .and_then(|ByteSize(rate)| NonZeroU64::new(rate))
            .map(|rate| RateLimiter::new(world.runtime.clone(), rate)),
        lenient: arguments.lenient,
        observer: Some(progress.observer(task.key.id.to_string(), peers.clone())),
    };
    let arrival = Arrival {
        arguments,
        store: &store,
        task,
        parts: &parts,
        // Where the next process cleans up, should this one be killed.
        beside: &staging.dir.join("whole"),
        progress: &progress,
    };
    let (report, sha256) = arrival.run(transfer).await?;
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
                Failure::new(Exit::Usage, format!("{}: {error}", Escaped(&arguments.what))).hint(
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
        let any: IpAddr = match quic.iter().all(|peer| peer.address.is_ipv4()) {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bind = SocketAddr::new(any, 0);
        let settings = QuicSettings { qlog: world.qlog.clone(), ..quic_settings(config) };
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

/// Where the pieces are until the file is whole: a directory beside it.
struct Staging {
    dir: PathBuf,
}

impl Staging {
    fn new(output: &Path) -> Result<Self, Failure> {
        let name = output.file_name().ok_or_else(|| {
            Failure::new(Exit::Usage, format!("{}: expected the name of a file", output.display()))
        })?;
        files::replaceable(output)
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", shown(output))))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".vortex");
        let dir = output.with_file_name(hidden);
        // What is there is emptied in the end: nobody who may write here is to choose what that is.
        if fs::symlink_metadata(&dir).is_ok_and(|found| found.is_symlink()) {
            let expected =
                "is a symbolic link: expected nothing, or the directory of an earlier get; remove it";
            return Err(Failure::new(Exit::Disk, format!("{}: {expected}", dir.display())));
        }
        Ok(Self { dir })
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

fn done(progress: &Progress, report: &Report, ways: &[WayShare], sha256: Digest, output: &Path) {
    let sha256 = sha256.to_string();
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
        shown(output),
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
