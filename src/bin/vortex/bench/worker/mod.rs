//! The two processes of a transfer.

#[cfg(feature = "grpc")]
mod grpc;
mod raw_quic;
#[cfg(all(feature = "sendfile", target_os = "linux"))]
mod raw_tcp;
mod usage;
mod vortex;
mod work;

use super::job::{Job, Role, Word};
use super::side::Side;
use crate::exit::{Exit, Failure};
use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use usage::usage;
use work::Work;

/// Why a worker failed: the process that measures says it, in words.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The hidden subcommand: does what `job` says, talking to the process that measures by stdin and stdout.
pub(crate) fn run(job: &str) -> std::result::Result<Exit, Failure> {
    let job: Job =
        serde_json::from_str(job).map_err(|error| Failure::new(Exit::Usage, format!("no job: {error}")))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(job.threads).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Other, format!("no threads: {error}")))?;
    let outcome = match job.role {
        Role::Server => runtime.block_on(serve(&job)),
        Role::Client { server } => runtime.block_on(fetch(&job, server)),
    };
    if let Err(error) = outcome {
        say(&Word::Failed(error.to_string()))?;
    }
    // What still runs ends with the process.
    runtime.shutdown_background();
    Ok(Exit::Done)
}

fn say(word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_string(word)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

/// Serves until the measuring process hangs up, and tells what was used so far at each line that comes.
async fn serve(job: &Job) -> Result<()> {
    let address = match job.side {
        Side::Quic => vortex::serve_quic(job).await?,
        Side::Tcp => vortex::serve_tcp(job).await?,
        Side::RawQuic | Side::QuinnDefault => raw_quic::serve(job).await?,
        #[cfg(feature = "grpc")]
        Side::Grpc => grpc::serve(job).await?,
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::RawTcp | Side::Curl => raw_tcp::serve(job)?,
        #[cfg(not(all(feature = "grpc", feature = "sendfile", target_os = "linux")))]
        _ => return Err("not in this build".into()),
    };
    say(&Word::Listening(address))?;
    for line in io::stdin().lock().lines() {
        line?;
        say(&Word::Usage(usage()?))?;
    }
    Ok(())
}

async fn fetch(job: &Job, server: SocketAddr) -> Result<()> {
    // Tasks share both, and the process ends with them.
    let job: &'static Job = Box::leak(Box::new(job.clone()));
    let work: &'static Work = Box::leak(Box::new(Work::new(job)?));
    match job.side {
        Side::Quic => vortex::fetch_quic(job, server, work).await?,
        Side::Tcp => vortex::fetch_tcp(job, server, work).await?,
        Side::RawQuic | Side::QuinnDefault => raw_quic::fetch(job, server, work).await?,
        #[cfg(feature = "grpc")]
        Side::Grpc => grpc::fetch(job, server, work).await?,
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::RawTcp => raw_tcp::fetch(job, server, work)?,
        #[cfg(all(feature = "sendfile", target_os = "linux"))]
        Side::Curl => raw_tcp::curl(job, server, work)?,
        #[cfg(not(all(feature = "grpc", feature = "sendfile", target_os = "linux")))]
        _ => return Err("not in this build".into()),
    }
    say(&Word::Done(work.done()?))?;
    Ok(())
}

/// Runs every one of `workers` in a task of its own, to the end of all or the first failure.
async fn all(
    workers: impl IntoIterator<Item = impl Future<Output = Result<()>> + Send + 'static>,
) -> Result<()> {
    let mut tasks: tokio::task::JoinSet<_> = workers.into_iter().collect();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Says that the idle connections stand, and waits until the measuring process has looked.
fn ready() -> Result<()> {
    say(&Word::Ready)?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
