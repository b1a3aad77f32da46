//! `vortex demo`: the main job in one command.

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::get::{downloaders, sha256};
use crate::import;
use crate::progress::{Progress, shares, size};
use crate::serve::quic_settings;
use crate::world::{IdentityArguments, World, block_on};
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vortex_p2p::config::Config;
use vortex_p2p::downloader::transfer::{Event, PlanSettings, Report, Transfer};
use vortex_p2p::downloader::{Peer, Protocol};
use vortex_p2p::server::{ServerSettings, StorageServer};
use vortex_p2p::store::disk::ImportOptions;
use vortex_p2p::store::{Manifest, SharedStore};
use vortex_p2p::transport::quic::{AppCode, QuicEndpoint};
use vortex_p2p::transport::tls::{Admission, Identity, ServerIdentity, ServerTls, Trust};
use vortex_p2p::wire::{Algorithm, PieceLength};

/// See it work: serve a file from three peers over QUIC, lose one in the middle, and get the file whole
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file; without one, this program itself
    file: Option<PathBuf>,
}

/// Peers that serve the file.
const PEERS: usize = 3;

/// Pieces that the demo cuts, so that there is a middle to lose a peer in.
const PIECES: u64 = 96;

/// The verdict, for programs.
#[derive(Serialize)]
struct Verdict {
    event: &'static str,
    file: String,
    bytes: u64,
    pieces: u64,
    seconds: f64,
    identical: bool,
    peers: Vec<crate::progress::PeerShare>,
}

/// A peer of the demo.
struct Serving {
    peer: Peer,
    server: StorageServer,
    endpoint: QuicEndpoint,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Other, format!("can't find this program: {error}")))?,
    };
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Disk, format!("no directory for temporary files: {error}")))?;
    block_on(async {
        let world = World::new();
        let progress = Progress::new(output.json, false);
        let store = import::open(&world, &scratch.path().join("served")).await?;
        let task = import::import(&store, &file, options(&file)?).await?;
        let manifest = Manifest::of(&store, task.key).await?;
        progress.say(&format!(
            "{}: {} in {} pieces, served by {PEERS} peers over QUIC",
            file.display(),
            size(task.division.length()),
            task.division.pieces(),
        ));

        let identity = Identity::self_signed(&world.crypto).map_err(other)?;
        let fingerprint = identity.fingerprint().ok_or_else(|| other("no certificate"))?;
        let identity = ServerIdentity::new(identity);
        let tls = ServerTls::new(&world.crypto, &identity, &Admission::Anyone).map_err(other)?;
        let mut serving = Vec::new();
        for _ in 0..PEERS {
            serving.push(serve(&world, Arc::new(store.clone()), &tls).await?);
        }
        let peers: Vec<Peer> = serving.iter().map(|serving| serving.peer).collect();

        let fetched = import::open(&world, &scratch.path().join("fetched")).await?;
        let trust = Trust::Pinned(fingerprint);
        let watch = progress.observer(task.key.id.to_string(), peers.clone());
        let victim = serving.first().map(|first| (first.endpoint.clone(), first.peer));
        let (killed, half) = (AtomicU64::new(0), task.division.pieces() / 2);
        let told = progress.clone();
        let transfer = Transfer {
            runtime: world.runtime.clone(),
            downloaders: downloaders(
                &world,
                &trust,
                &IdentityArguments::default(),
                &peers,
                &Config::default(),
            )
            .await?
            .0,
            store: Arc::new(fetched.clone()),
            task: manifest.task(),
            digests: manifest.pieces().to_vec(),
            wanted: None,
            peers,
            plan: PlanSettings { attempts: 1, ..PlanSettings::default() },
            swarm: false,
            limit: None,
            lenient: false,
            observer: Some(Arc::new(move |event| {
                let is_piece = matches!(event, Event::Piece { .. });
                watch(event);
                // In the middle of the file, and of the pieces that it has under way, a peer dies.
                if is_piece
                    && killed.fetch_add(1, Ordering::Relaxed) + 1 == half
                    && let Some((endpoint, peer)) = &victim
                {
                    endpoint.close(AppCode::Internal, b"the demo pulls the plug");
                    told.say(&format!("{peer} dies with half of the file delivered"));
                }
            })),
        };
        let report = transfer.run().await;
        progress.finish();
        let report = report?;
        let target = scratch.path().join("file");
        fetched.export(task.key, &target).await.map_err(other)?;
        // The id of an imported task is the SHA-256 of the file.
        let identical = sha256(&world, &target).await? == format!("sha256:{}", task.key.id);
        tell(output, &progress, &file, task.division.pieces(), &report, identical)?;
        for serving in serving {
            serving.endpoint.close(AppCode::GoingAway, b"");
            serving.server.shutdown().await;
        }
        if identical {
            Ok(Exit::Done)
        } else {
            Err(Failure::new(Exit::Corrupt, "the copy differs from the file"))
        }
    })
}

fn options(file: &Path) -> Result<ImportOptions, Failure> {
    let length = std::fs::metadata(file).map_err(|error| Failure::file(file, &error))?.len();
    let piece_length = (length / PIECES).clamp(16 << 10, 4 << 20);
    Ok(ImportOptions {
        kind: vortex_p2p::wire::PieceKind::Piece,
        piece_length: PieceLength::try_from(piece_length).ok(),
        algorithm: Algorithm::Crc32,
    })
}

async fn serve(world: &World, store: SharedStore, tls: &ServerTls) -> Result<Serving, Failure> {
    let bind = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let server = StorageServer::new(world.runtime.clone(), store, ServerSettings::default());
    let (runtime, network) = (world.runtime.clone(), world.network.clone());
    let endpoint =
        QuicEndpoint::bind(runtime, network, bind, quic_settings(&Config::default()), Some(tls)).await;
    let endpoint = endpoint.map_err(other)?;
    let peer = Peer { protocol: Protocol::Quic, address: endpoint.local_addr().map_err(other)? };
    server.serve_quic(endpoint.clone());
    Ok(Serving { peer, server, endpoint })
}

fn tell(
    output: &Output,
    progress: &Progress,
    file: &Path,
    pieces: u64,
    report: &Report,
    identical: bool,
) -> Result<(), Failure> {
    let seconds = report.elapsed.as_secs_f64();
    if output.json {
        let verdict = Verdict {
            event: "verdict",
            file: file.display().to_string(),
            bytes: report.bytes,
            pieces,
            seconds,
            identical,
            peers: crate::progress::PeerShare::of(&report.peers),
        };
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&verdict).unwrap_or_default())?;
        return Ok(());
    }
    let rate = if seconds > 0.0 { (report.bytes as f64 / seconds) as u64 } else { report.bytes };
    progress.say(&format!(
        "{} in {seconds:.2} s, {} a second\n{}",
        size(report.bytes),
        size(rate),
        shares(&report.peers)
    ));
    let verdict = if identical { "whole: byte for byte the file, every piece verified" } else { "DAMAGED" };
    writeln!(std::io::stdout(), "{verdict}")?;
    Ok(())
}

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}
