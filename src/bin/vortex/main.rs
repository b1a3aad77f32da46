//! The `vortex` command: a thin dispatcher, one file a subcommand.

mod bench;
mod cli;
mod collect;
mod config;
mod conformance;
mod decode;
mod demo;
mod exit;
mod files;
mod get;
mod import;
mod progress;
mod serve;
mod service;
mod share;
mod world;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use exit::{Exit, Failure};
use std::io::Write as _;
use std::process::ExitCode;

/// Has glibc keep freed memory. By default it gives back whatever is free above 128 KiB, and each batch of datagrams pays
/// for its pages anew: a sixth of the processor time of QUIC. Once a larger block was freed, glibc takes its size for
/// what this program uses, and keeps twice as much for each of its arenas. Other allocators do not care.
fn keep_freed_memory() {
    const BLOCK: usize = 4 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = Cli::parse();
    log_to_stderr(cli.output.verbose);
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(cli.output.json),
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Demo(arguments) => demo::run(arguments, &cli.output),
        Command::Get(arguments) => get::run(arguments, &cli.output),
        Command::Import(arguments) => import::run(arguments, &cli.output),
        Command::Serve(arguments) => serve::run(arguments, &cli.output),
        Command::Config(arguments) => config::run(arguments, &cli.output),
        Command::Bench(arguments) => bench::run(arguments, &cli.output),
        Command::BenchWorker { job } => bench::run_worker(job),
        Command::Decode(arguments) => decode::run(arguments, &cli.output),
        Command::Conformance(arguments) => conformance::run(arguments, &cli.output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "vortex", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)
        }
    }
}

fn print(text: &[u8]) -> Result<Exit, Failure> {
    std::io::stdout().write_all(text)?;
    Ok(Exit::Done)
}

/// Logs go to stderr, so that stdout holds results only. `RUST_LOG` overrules `-v`.
fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::filter::{EnvFilter, LevelFilter};
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(cli::colors(std::io::IsTerminal::is_terminal(&std::io::stderr())))
        .init();
}
