//! What every worker does around its transfer: it hears what to do, and says what came of it.

use super::super::job::{Job, Role, Word};
use super::usage::usage;
use super::work::Work;
use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;

/// Why a worker failed: the process that measures says it, in words.
pub(super) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Does what `job` says: `serve` says where it listens, `fetch` takes all there is of the work.
///
/// # Errors
/// Those of a job that is none, and of stdin and stdout. What fails in a transfer is said there.
pub(super) fn run(
    job: &str,
    serve: impl AsyncFnOnce(&Job) -> Result<SocketAddr>,
    fetch: impl AsyncFnOnce(&'static Job, SocketAddr, &'static Work) -> Result<()>,
) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    // Tasks share it, and the process ends with them.
    let job: &'static Job = Box::leak(Box::new(job));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(job.threads).enable_all().build()?;
    let outcome = runtime.block_on(async {
        match job.role {
            Role::Server => {
                say(&Word::Listening(serve(job).await?))?;
                attend()
            }
            Role::Client { server } => {
                let work: &'static Work = Box::leak(Box::new(Work::new(job)?));
                fetch(job, server, work).await?;
                Ok(say(&Word::Done(work.done()?))?)
            }
        }
    });
    if let Err(error) = outcome {
        say(&Word::Failed(error.to_string()))?;
    }
    // What still runs ends with the process.
    runtime.shutdown_background();
    Ok(())
}

fn say(word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_string(word)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

/// Tells what was used so far at each line that comes, until the measuring process hangs up.
fn attend() -> Result<()> {
    for line in io::stdin().lock().lines() {
        line?;
        say(&Word::Usage(usage()?))?;
    }
    Ok(())
}

/// Says that the idle connections stand, and waits until the measuring process has looked.
pub(super) fn ready() -> Result<()> {
    say(&Word::Ready)?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Runs every one of `workers` in a task of its own, to the end of all or the first failure.
pub(super) async fn all(
    workers: impl IntoIterator<Item = impl Future<Output = Result<()>> + Send + 'static>,
) -> Result<()> {
    let mut tasks: tokio::task::JoinSet<_> = workers.into_iter().collect();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
