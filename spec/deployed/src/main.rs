//! Dragonfly's own server and client, as a program: what is tried and measured is its library, with the settings that it has.

mod get;
mod peer;
mod serve;
mod worker;

#[allow(dead_code, reason = "the worker needs a part of what the measuring process knows")]
#[path = "../../../src/bin/vortex/bench/job.rs"]
mod job;
#[allow(dead_code, unexpected_cfgs, reason = "as above; the features are those of Vortex")]
#[path = "../../../src/bin/vortex/bench/side.rs"]
mod side;

use clap::Parser;
use std::error::Error;
use std::process::ExitCode;

/// What Dragonfly's daemon allocates with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A peer of Dragonfly 1.5.10
#[derive(Parser)]
enum Command {
    Serve(serve::Arguments),
    Get(get::Arguments),
    /// Be one of the two workers of `vortex bench`
    #[command(hide = true)]
    BenchWorker {
        job: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Serve(arguments) => on_threads(serve::run(arguments)),
        Command::Get(arguments) => on_threads(get::run(arguments)),
        Command::BenchWorker { job } => worker::run(&job),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_threads(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}
