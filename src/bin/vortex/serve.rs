//! `vortex serve`: gives pieces to whoever asks.

use crate::cli::Output;
use crate::collect;
use crate::exit::{Exit, Failure};
use crate::files::{self, Readers};
use crate::import::{self, CutArguments};
use crate::service::{self, Signals};
use crate::world::{IdentityArguments, World, block_on};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vortex_p2p::config::{self, Config};
use vortex_p2p::downloader::{Peer, Protocol};
use vortex_p2p::server::{ServerLimits, ServerSettings, StorageServer};
use vortex_p2p::store::{PieceStore as _, SharedStore, Task};
use vortex_p2p::ticket::Ticket;
use vortex_p2p::transport::quic::{QuicEndpoint, QuicSettings};
use vortex_p2p::transport::tls::{Identity, ServerIdentity, ServerTls};

/// Give pieces to other peers, over QUIC, TCP and gRPC
///
/// Files are imported into the store that --dir names, and all that is in it is served. Without --ca and --insecure it prints a ticket for each task, which `vortex get` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files to serve
    files: Vec<PathBuf>,
    /// Settings of a Dragonfly daemon; flags overrule them
    #[arg(long, value_name = "dfdaemon.yaml", env = "VORTEX_CONFIG")]
    config: Option<PathBuf>,
    /// The directory of the store
    #[arg(long, env = "VORTEX_DIR")]
    dir: Option<PathBuf>,
    /// Address and port for QUIC; port 0 takes a free one [default: 0.0.0.0:4006]
    #[arg(long, value_name = "ADDR", env = "VORTEX_QUIC")]
    quic: Option<SocketAddr>,
    /// Address and port for TCP; port 0 takes a free one [default: 0.0.0.0:4005]
    #[arg(long, value_name = "ADDR", env = "VORTEX_TCP")]
    tcp: Option<SocketAddr>,
    /// Address and port for gRPC, which is served only where this or --config asks for it
    #[cfg(feature = "grpc")]
    #[arg(long, value_name = "ADDR", env = "VORTEX_GRPC")]
    grpc: Option<SocketAddr>,
    /// Address and port for /metrics (Prometheus) and /healthy, served only where this or --config asks for it
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR", env = "VORTEX_METRICS")]
    metrics: Option<SocketAddr>,
    /// Address that tickets name, where it is not the one that is listened on
    #[arg(long, value_name = "IP", env = "VORTEX_ADVERTISE")]
    advertise: Option<IpAddr>,
    #[command(flatten)]
    cut: CutArguments,
    #[command(flatten)]
    identity: IdentityArguments,
}

/// The line that scripts wait for.
#[derive(Serialize)]
struct Ready {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<u64>,
    tasks: Vec<ReadyTask>,
    quic: SocketAddr,
    tcp: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

#[derive(Serialize)]
struct ReadyTask {
    task: String,
    kind: &'static str,
    pieces: u64,
    length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, _output: &Output) -> Result<Exit, Failure> {
    let config = crate::config::load(arguments.config.as_deref())?;
    arguments.identity.warn();
    block_on(async {
        let world = World::new();
        let (store, tasks) = open(&world, arguments, &config).await?;
        let Own { files, shown, tls, pinned } = identity(&world, arguments, &config)?;
        // Only where a daemon's settings say so: what a person imports stays until that person removes it.
        if arguments.config.is_some() {
            let dir = arguments.dir.clone().unwrap_or_else(|| config.storage.dir.clone());
            let collecting = collect::forever(world.runtime.clone(), store.clone(), dir, config.gc.clone());
            world.runtime.spawn(Box::pin(collecting));
        }
        let server = StorageServer::new(world.runtime.clone(), store, server_settings(&config));

        let address = |given: Option<SocketAddr>, port| {
            given.unwrap_or(SocketAddr::new(config.storage.server.ip, port))
        };
        let quic = address(arguments.quic, config.storage.server.quic.port);
        let tcp = address(arguments.tcp, config.storage.server.tcp_port);
        let insecure = arguments.identity.insecure;
        let (quic, tcp) = listen(&world, &server, &config, quic, tcp, &tls, insecure).await?;
        #[cfg(feature = "grpc")]
        let grpc = match grpc_address(arguments, &config) {
            Some(bind) => Some(serve_grpc(&world, &server, bind, (!insecure).then(|| tls.clone())).await?),
            None => None,
        };
        #[cfg(not(feature = "grpc"))]
        let grpc = None;

        #[cfg(feature = "metrics")]
        let figures = Arc::new(service::Figures { server: server.clone(), draining: false.into() });
        #[cfg(feature = "metrics")]
        let metrics = match metrics_address(arguments, &config) {
            Some(bind) => Some(service::serve_metrics(&world, bind, figures.clone()).await?),
            None => None,
        };
        #[cfg(not(feature = "metrics"))]
        let metrics = None;

        let peers = peers(arguments, quic, tcp, grpc);
        let ticket = |task: &Task| {
            let fingerprint = pinned.then(|| shown.current().fingerprint())??;
            Some(Ticket { task: task.key, fingerprint, peers: peers.clone() }.to_string())
        };
        let listed: Vec<ReadyTask> = tasks
            .iter()
            .map(|task| ReadyTask {
                task: task.key.id.to_string(),
                kind: task.key.kind.name(),
                pieces: task.division.pieces(),
                length: task.division.length(),
                ticket: ticket(task),
            })
            .collect();
        let first = tasks.first();
        let ready = Ready {
            task: first.map(|task| task.key.id.to_string()),
            pieces: first.map(|task| task.division.pieces()),
            tasks: listed,
            quic,
            tcp,
            grpc,
            metrics,
            ticket: first.and_then(ticket),
        };
        // Whoever reads the line may stop the server at once.
        let signals = Signals::listen()?;
        let mut out = std::io::stdout();
        writeln!(out, "READY {}", serde_json::to_string(&ready).unwrap_or_default())?;
        out.flush()?;
        explain(&ready);

        signals.until_stop(|| service::reload(&world.crypto, &files, &shown, &tls)).await;
        #[cfg(feature = "metrics")]
        figures.draining.store(true, std::sync::atomic::Ordering::Release);
        tracing::info!("shutting down: answers under way are finished");
        server.shutdown().await;
        Ok(Exit::Done)
    })
}

/// Serves over QUIC and TCP at these addresses, and says where that is.
pub(crate) async fn listen(
    world: &World,
    server: &StorageServer,
    config: &Config,
    quic: SocketAddr,
    tcp: SocketAddr,
    tls: &ServerTls,
    insecure: bool,
) -> Result<(SocketAddr, SocketAddr), Failure> {
    let failed = |error: std::io::Error| listen_failed("QUIC", quic, &error);
    let (runtime, network) = (world.runtime.clone(), world.network.clone());
    let settings = QuicSettings { qlog: world.qlog.clone(), ..quic_settings(config) };
    let endpoint = QuicEndpoint::bind(runtime, network, quic, settings, Some(tls));
    let endpoint = endpoint.await.map_err(failed)?;
    let quic = endpoint.local_addr().map_err(failed)?;
    server.serve_quic(endpoint);

    let failed = |error: std::io::Error| listen_failed("TCP", tcp, &error);
    let listener = world.network.listen(tcp).await.map_err(failed)?;
    let tcp = listener.local_addr().map_err(failed)?;
    //= VTX-SEC-011
    if insecure {
        server.serve_tcp(listener);
    } else {
        server.serve_tcp_tls(listener, tls.clone());
    }
    Ok((quic, tcp))
}

/// Where the figures are shown: where the command line says, or else the configuration that was given.
#[cfg(feature = "metrics")]
fn metrics_address(arguments: &Arguments, config: &Config) -> Option<SocketAddr> {
    let server = &config.metrics;
    arguments.metrics.or(arguments.config.is_some().then_some(SocketAddr::new(server.ip, server.port)))
}

/// Where gRPC is served: where the command line says, or else the configuration that was given.
#[cfg(feature = "grpc")]
fn grpc_address(arguments: &Arguments, config: &Config) -> Option<SocketAddr> {
    let server = &config.upload.server;
    arguments.grpc.or(arguments.config.is_some().then_some(SocketAddr::new(server.ip, server.port)))
}

#[cfg(feature = "grpc")]
async fn serve_grpc(
    world: &World,
    server: &StorageServer,
    bind: SocketAddr,
    tls: Option<ServerTls>,
) -> Result<SocketAddr, Failure> {
    let failed = |error| listen_failed("gRPC", bind, &error);
    let listener = world.network.listen(bind).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    server.serve_grpc(listener, tls);
    Ok(address)
}

/// Tells people what to do next.
fn explain(ready: &Ready) {
    if let Some(ticket) = &ready.ticket {
        eprintln!("On the other machine: vortex get {ticket} -o FILE");
    } else if let Some(task) = &ready.task {
        eprintln!("On the other machine: vortex get {task} --peer quic://HOST:{} -o FILE", ready.quic.port());
    }
}

/// The store that is served, and what it holds.
async fn open(
    world: &World,
    arguments: &Arguments,
    config: &Config,
) -> Result<(SharedStore, Vec<Task>), Failure> {
    let Some(dir) =
        arguments.dir.clone().or_else(|| arguments.config.as_ref().map(|_| config.storage.dir.clone()))
    else {
        return Err(Failure::new(Exit::Usage, "nothing to serve").hint("name a FILE, or a store with --dir"));
    };
    let store = import::open(world, &dir).await?;
    if config.storage.keep == Some(false) && arguments.dir.is_none() {
        for task in store.tasks().await? {
            store.delete(task.key).await?;
        }
    }
    let mut tasks = Vec::new();
    for file in &arguments.files {
        tasks.push(import::import(&store, file, arguments.cut.options()).await?);
    }
    for task in store.tasks().await? {
        if !tasks.iter().any(|first| first.key == task.key) {
            tasks.push(task);
        }
    }
    Ok((Arc::new(store), tasks))
}

/// Who the server is.
struct Own {
    /// Where that is read from.
    files: IdentityArguments,
    shown: ServerIdentity,
    tls: ServerTls,
    /// Whether its tickets pin it.
    pinned: bool,
}

fn identity(world: &World, arguments: &Arguments, config: &Config) -> Result<Own, Failure> {
    let mut given = arguments.identity.clone();
    if let Some(files) = &config.upload.server_tls
        && given.cert.is_none()
        && !given.insecure
    {
        let config::TlsFiles { ca_cert, cert, key } = files.clone();
        given.ca.get_or_insert(ca_cert);
        (given.cert, given.key) = (Some(cert), Some(key));
    }
    let pinned = given.ca.is_none() && !given.insecure;
    let identity = match given.identity(&world.crypto)? {
        Some(identity) => identity,
        None if pinned => kept_identity(world, arguments.dir.as_deref())?,
        None => self_signed(world)?,
    };
    let shown = ServerIdentity::new(identity);
    let tls = ServerTls::new(&world.crypto, &shown, &given.admission()?)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    Ok(Own { files: given, shown, tls, pinned })
}

fn self_signed(world: &World) -> Result<Identity, Failure> {
    Identity::self_signed(&world.crypto).map_err(|error| Failure::new(Exit::Other, error.to_string()))
}

/// The certificate that tickets pin: kept beside the store, so that they outlive a restart.
fn kept_identity(world: &World, dir: Option<&Path>) -> Result<Identity, Failure> {
    let Some(dir) = dir else { return self_signed(world) };
    let (cert, key) = (dir.join("ticket-cert.pem"), dir.join("ticket-key.pem"));
    if let (Ok(cert), Ok(key)) = (fs::read(&cert), fs::read(&key)) {
        return Identity::from_pem(&world.crypto, &cert, &key)
            .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", dir.display())));
    }
    let (identity, pem) = Identity::self_signed_pem(&world.crypto)
        .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    // Where the certificate is, its key is too.
    files::write(&key, pem.key.as_bytes(), Readers::Owner).map_err(|error| Failure::file(&key, &error))?;
    files::write(&cert, pem.certificate.as_bytes(), Readers::Everyone)
        .map_err(|error| Failure::file(&cert, &error))?;
    Ok(identity)
}

pub(crate) fn server_settings(config: &Config) -> ServerSettings {
    let connections = config.storage.server.quic.max_connections.get();
    ServerSettings {
        limits: ServerLimits {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            bandwidth: NonZeroU64::new(config.upload.bandwidth_limit.0),
            requests: Some(config.upload.request_rate_limit.into()),
            ..ServerLimits::default()
        },
        ..ServerSettings::default()
    }
}

/// The settings of the configuration.
pub(crate) fn quic_settings(config: &Config) -> QuicSettings {
    let quic = &config.storage.server.quic;
    let buffer = u32::try_from(quic.buffer_size.0).unwrap_or(u32::MAX);
    QuicSettings {
        idle_timeout: quic.idle_timeout,
        stream_window: buffer,
        connection_window: QuicSettings::default().connection_window.max(buffer),
        send_window: buffer,
        ..QuicSettings::default()
    }
}

/// What a ticket names: where the listeners are, seen from elsewhere.
fn peers(arguments: &Arguments, quic: SocketAddr, tcp: SocketAddr, grpc: Option<SocketAddr>) -> Vec<Peer> {
    let listening = [(Protocol::Quic, Some(quic)), (Protocol::Tcp, Some(tcp)), (Protocol::Grpc, grpc)];
    listening
        .into_iter()
        .filter_map(|(protocol, listens)| Some((protocol, listens?)))
        .map(|(protocol, listens)| {
            let ip = match arguments.advertise {
                Some(ip) => ip,
                None if listens.ip().is_unspecified() => own_address().unwrap_or(Ipv4Addr::LOCALHOST.into()),
                None => listens.ip(),
            };
            Peer { protocol, address: SocketAddr::new(ip, listens.port()) }
        })
        .collect()
}

/// The address from which this machine would reach others. Nothing is sent: a datagram socket only asks the routing
/// table.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn listen_failed(what: &str, bind: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Network, format!("can't listen for {what} on {bind}: {error}"))
        .hint("choose another address or port; port 0 takes a free one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vortex_p2p::config::ByteSize;

    fn config(text: &str) -> Config {
        let checked = config::check(text);
        assert_eq!(checked.problems, []);
        checked.config
    }

    /// What the process can't show within the time of a test: that each key reaches the setting that does it.
    #[test]
    fn the_keys_of_the_server_reach_its_settings() {
        let config = config(
            "storage: {server: {quic: {buffer_size: 4194304, idle_timeout: 300s, max_connections: 7}}}\n\
             upload: {bandwidthLimit: 20GB, server: {requestRateLimit: 9}}",
        );
        let quic = quic_settings(&config);
        assert_eq!(quic.idle_timeout, Duration::from_secs(300));
        assert_eq!((quic.stream_window, quic.send_window), (4 << 20, 4 << 20));
        let limits = server_settings(&config).limits;
        assert_eq!(limits.connections, 7);
        assert_eq!(limits.bandwidth.map(NonZeroU64::get), Some(ByteSize::gb(20).0));
        assert_eq!(limits.requests.map(NonZeroU64::get), Some(9));
    }
}
