//! `vortex bench`: whole transfers between separate processes over loopback, each side in turn.
//!
//! A process measures and two others work: this program once more, as a server and as a client. Every round has one
//! transfer of every side, so that whatever else the machine does falls on all of them alike.

mod child;
mod content;
mod job;
mod report;
mod side;
mod statistics;
mod worker;

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use child::{Client, Server};
use clap::Args;
use job::{Job, Role, Source, Target};
use report::{Cell, Reporter, Run};
use side::Side;
use std::num::NonZeroU32;
use std::path::PathBuf;
use vortex_p2p::config::ByteSize;
use vortex_p2p::wire::{Division, PieceLength};
pub(crate) use worker::run as run_worker;

/// Measure transfers over loopback, beside other ways to do the same
///
/// Results are ratios: each round has a transfer of every side in every setting, and what two of them have in the same
/// round is compared.
/// Processor time counts from the first dial to the last byte, for server and client apart. Vortex verifies every
/// piece, at the server (but for sendfile) and at the client.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sides to measure; what each is compared with comes along
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        env = "VORTEX_BENCH_AGAINST",
        default_value = "quic,tcp,tonic,tonic-stream,grpc,raw-quic,dragonfly-quic,quinn-deployed,quinn-default,dragonfly-tcp,raw-tcp,curl,iperf3"
    )]
    against: Vec<Side>,
    /// How much to move
    #[arg(long, value_name = "SIZE", default_value = "1GiB", env = "VORTEX_BENCH_SIZE")]
    size: ByteSize,
    /// Rounds, of which the medians are taken
    #[arg(long, value_name = "N", default_value = "5", env = "VORTEX_BENCH_ROUNDS")]
    rounds: NonZeroU32,
    /// Piece lengths, each with every concurrency and number of connections
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "4MiB",
        env = "VORTEX_BENCH_PIECE_LENGTH"
    )]
    piece_length: Vec<ByteSize>,
    /// Pieces that are requested at a time
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "4",
        env = "VORTEX_BENCH_CONCURRENCY"
    )]
    concurrency: Vec<NonZeroU32>,
    /// Connections that share the requests; TCP has one for each request at a time
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1",
        env = "VORTEX_BENCH_CONNECTIONS"
    )]
    connections: Vec<NonZeroU32>,
    /// Connections that are open beside and do nothing
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0", env = "VORTEX_BENCH_IDLE")]
    idle: Vec<u32>,
    /// Where the server has the content
    #[arg(long, value_enum, default_value = "file", env = "VORTEX_BENCH_SOURCE")]
    source: Source,
    /// Where the client has it to
    #[arg(long, value_enum, default_value = "discard", env = "VORTEX_BENCH_TARGET")]
    target: Target,
    /// The largest datagram of a server over QUIC, 1200 to 65507 bytes; what the route carries by default
    #[arg(long, value_name = "BYTES", env = "VORTEX_BENCH_DATAGRAM",
        value_parser = clap::value_parser!(u16).range(1200..=65_507))]
    datagram: Option<u16>,
    /// Threads of each process that run its tasks; as many as there are cores by default
    #[arg(long, value_name = "N", env = "VORTEX_BENCH_THREADS")]
    threads: Option<NonZeroU32>,
    /// A directory for the content, with room for three times the size, four with Dragonfly
    #[arg(long, env = "VORTEX_BENCH_DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let mut reporter = Reporter::new(output.json);
    let mut sides: Vec<Side> =
        arguments.against.iter().flat_map(|side| [Some(*side), side.compared()]).flatten().collect();
    sides.sort_unstable();
    sides.dedup();
    sides.retain(|side| match side.missing() {
        Some(why) => {
            reporter.skip(*side, why);
            false
        }
        None => true,
    });
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = Scratch::new(parent.join(format!("vortex-bench-{}", std::process::id())))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut job = Job {
        role: Role::Server,
        side: Side::Quic,
        dir: dir.0.clone(),
        length: arguments.size.0,
        piece_length: 0,
        source: arguments.source,
        target: arguments.target,
        concurrency: 1,
        connections: 1,
        idle: 0,
        threads: arguments.threads.map_or(cores, |threads| threads.get() as usize),
        datagram: arguments.datagram,
    };
    content::write(&job)
        .map_err(|error| Failure::new(Exit::Disk, format!("{}: {error}", dir.0.display())))?;
    for piece_length in &arguments.piece_length {
        job.piece_length = piece_length.0;
        prepare(&job)?;
        let mut cells = cells(arguments, &job);
        for round in 1..=arguments.rounds.get() {
            for cell in &mut cells {
                for side in &sides {
                    let run = transfer(&Job { side: *side, ..cell.job().clone() }, round)?;
                    reporter.run(cell, &run)?;
                    cell.push(run);
                }
            }
        }
        for (before, cell) in cells.iter().enumerate() {
            reporter.cell(cell, cells.first().filter(|_| before > 0))?;
        }
    }
    Ok(Exit::Done)
}

/// What is measured with one piece length: every concurrency, with every number of connections, used and idle.
fn cells(arguments: &Arguments, job: &Job) -> Vec<Cell> {
    let mut cells = Vec::new();
    for concurrency in &arguments.concurrency {
        for connections in &arguments.connections {
            for idle in &arguments.idle {
                let (concurrency, connections, idle) = (concurrency.get(), connections.get(), *idle);
                cells.push(Cell::new(Job { concurrency, connections, idle, ..job.clone() }));
            }
        }
    }
    cells
}

/// Puts the content into a store of the disk with the piece length that is due.
fn prepare(job: &Job) -> Result<(), Failure> {
    let division = PieceLength::try_from(job.piece_length)
        .ok()
        .and_then(|length| Division::new(job.length, length).ok());
    let division =
        division.ok_or_else(|| Failure::new(Exit::Usage, "expected a piece length from 1 byte to 1 GiB"))?;
    if job.source == Source::Memory {
        return Ok(());
    }
    let disk = |error: String| Failure::new(Exit::Disk, format!("{}: {error}", job.store().display()));
    if job.store().exists() {
        std::fs::remove_dir_all(job.store()).map_err(|error| disk(error.to_string()))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Other, format!("no threads: {error}")))?;
    runtime.block_on(content::import(job, division)).map_err(|error| disk(error.to_string()))
}

/// One transfer, in processes of its own.
fn transfer(job: &Job, round: u32) -> Result<Run, Failure> {
    let mut server = Server::start(job)?;
    let fresh = server.usage()?;
    let client = Client::start(job, &server)?;
    let before = server.usage()?;
    let transfer = client.transfer()?;
    let after = server.usage()?;
    let gib = transfer.bytes as f64 / (1u64 << 30) as f64;
    Ok(Run {
        side: job.side,
        round,
        mb_per_second: transfer.bytes as f64 / 1e6 / transfer.seconds,
        server_cpu_per_gib: (after.cpu - before.cpu) / gib,
        client_cpu_per_gib: transfer.usage.cpu / gib,
        server_peak_mib: after.peak as f64 / 1024.0,
        client_peak_mib: transfer.usage.peak as f64 / 1024.0,
        first_byte_ms: transfer.first_byte.map(|seconds| seconds * 1e3),
        piece_p50_ms: transfer.piece_p50 * 1e3,
        piece_p99_ms: transfer.piece_p99 * 1e3,
        idle_kib: (job.idle > 0)
            .then(|| before.resident.saturating_sub(fresh.resident) as f64 / f64::from(job.idle)),
    })
}

/// A directory that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, Failure> {
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::new(Exit::Disk, format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
