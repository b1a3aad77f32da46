//! `cargo sim`: runs scenarios over seeds, and replays one of them.

mod replay;

use clap::{Parser, Subcommand};
use replay::{Look, One};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use vortex_sim::canaries::{self, Caught, Hunt};
use vortex_sim::faults::{Fault, Level, Swarm};
use vortex_sim::report;
use vortex_sim::research;
use vortex_sim::rng::Seed;
use vortex_sim::runner::{self, ENOUGH_SEEDS, Line, PROCESS_SEEDS, Seeds, Summary};
use vortex_sim::scenario::{self, Scenario};
use vortex_sim::world::World;

/// Deterministic simulation of Vortex peers under faults.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run scenarios over a range of seeds; exit code 1 on any violation.
    Run {
        /// Where to run: turmoil, madsim or both.
        #[arg(long, default_value = "both", value_parser = worlds)]
        world: Worlds,
        /// The scenario, or all of them.
        #[arg(long, default_value = "all", value_parser = scenarios)]
        scenario: Scenarios,
        /// Seeds from A up to, and without, B.
        #[arg(long, default_value = "0..20", value_name = "A..B")]
        seeds: Seeds,
        /// One JSON object for each run, and one for all of them at the end.
        #[arg(long)]
        json: bool,
        /// Seeds that run at the same time [default: one for each core].
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        /// Run every seed again in another process, and compare all packets.
        #[arg(long)]
        verify: bool,
        /// Stop at the first violation.
        #[arg(long)]
        fail_fast: bool,
    },
    /// Bring each planted bug to life, and see whether its scenario catches it; exit code 1 where one lives on.
    Canaries {
        /// Which; all where none is named.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Seeds for each, in place of the number that it is known to need.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seeds: Option<u64>,
    },
    /// Run one seed, or the run of a file, again and look at it; exit code 1 on a violation, or where a file's run does not
    /// end as the file says.
    Replay {
        /// Runs that were saved: by shrink, or as a regression.
        #[arg(value_name = "FILE", required_unless_present = "scenario", conflicts_with_all = ["world", "scenario", "seed", "canary"])]
        files: Vec<PathBuf>,
        #[command(flatten)]
        one: Option<One>,
        #[command(flatten)]
        look: Look,
    },
    /// Leave out what faults a failing seed does not need to fail, and save the rest to be replayed.
    Shrink {
        #[command(flatten)]
        one: One,
        /// Where to save it [default: target/shrunk/SCENARIO-SEED.json].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Runs to spend on it.
        #[arg(long, value_name = "N", default_value_t = 500)]
        runs: u64,
    },
    /// Measure transfers over a grid of paths, and write the pictures and tables of the book.
    Research {
        /// Where they go.
        #[arg(long, value_name = "DIR", default_value = "book/src/architecture")]
        out: PathBuf,
        /// Seeds for each value, which is their median.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
    },
    /// Measure how swarms of peers get a file, beside the least time that their uplinks allow, and print the book's table.
    Swarm {
        /// Sizes of swarms, without the seed; a thousand take minutes and 4 GB a run, so name them alone, with one job.
        #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "8,32,100", value_parser = clap::value_parser!(u32).range(8..=4_000))]
        leechers: Vec<u32>,
        /// Milliseconds that an uplink may keep packets waiting.
        #[arg(long, value_name = "MS,…", value_delimiter = ',', default_value = "20,200", value_parser = clap::value_parser!(u64).range(1..=10_000))]
        queue: Vec<u64>,
        /// Seeds for each value, which is their median.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// Runs at the same time [default: one for each core].
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
    },
    /// Write the tables and pictures of the book about runs that were made.
    Report {
        /// What `run --json` printed, of as many processes as there were.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where they go.
        #[arg(long, value_name = "DIR", default_value = "book/src/architecture")]
        out: PathBuf,
    },
    /// List the scenarios.
    List,
}

#[derive(Debug, Clone)]
struct Worlds(Vec<World>);

fn worlds(text: &str) -> Result<Worlds, String> {
    if text == "both" {
        return Ok(Worlds(World::ALL.to_vec()));
    }
    let world = World::ALL.iter().find(|world| world.to_string() == text);
    world.map(|world| Worlds(vec![*world])).ok_or_else(|| {
        let known: Vec<String> = World::ALL.iter().map(ToString::to_string).collect();
        format!("expected both or one of {}", known.join(", "))
    })
}

#[derive(Debug, Clone)]
struct Scenarios(Vec<&'static dyn Scenario>);

fn scenarios(text: &str) -> Result<Scenarios, String> {
    if text == "all" {
        return Ok(Scenarios(scenario::all().to_vec()));
    }
    scenario(text).map(|scenario| Scenarios(vec![scenario])).map_err(|error| format!("{error}, or all"))
}

fn scenario(text: &str) -> Result<&'static dyn Scenario, String> {
    scenario::find(text).ok_or_else(|| {
        let known: Vec<&str> = scenario::all().iter().map(|scenario| scenario.name()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Action::Run { world, scenario, seeds, json, jobs, verify, fail_fast } => Run {
            worlds: world.0,
            scenarios: scenario.0,
            seeds,
            json,
            threads: jobs.unwrap_or_else(cores),
            verify,
            fail_fast,
        }
        .run(),
        Action::Replay { files, one, look } => replay::replay(&files, one, &look),
        Action::Shrink { one, out, runs } => replay::shrink(&one, out, runs),
        Action::Canaries { names, seeds } => canaries(&names, seeds),
        Action::Research { out, seeds } => {
            research::write(&out, seeds, cores()).map(|()| true).map_err(io::Error::other)
        }
        Action::Swarm { leechers, queue, seeds, jobs } => {
            let queues: Vec<Duration> = queue.into_iter().map(Duration::from_millis).collect();
            research::swarms(&leechers, &queues, seeds, jobs.unwrap_or_else(cores))
                .map_err(io::Error::other)
                .and_then(|table| io::stdout().write_all(table.as_bytes()))
                .map(|()| true)
        }
        Action::Report { files, out } => report::write(&files, &out).map(|()| true).map_err(io::Error::other),
        Action::List => list(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether every canary was caught, and nothing else.
fn canaries(names: &[String], seeds: Option<u64>) -> io::Result<bool> {
    canaries::check_names(names)?;
    let program = canaries::build()?;
    let hunts = Hunt::all(names, seeds);
    let right = canaries::hunt_all(&program, &hunts, cores(), |hunt, caught| {
        let mut out = io::stdout().lock();
        let (name, area) = hunt.canary.map_or(("(none)", ""), |canary| (canary.name, canary.area));
        let mark = if hunt.is_right(caught) { ' ' } else { '!' };
        write!(out, "{mark} {name:<24} {area:<8} {:<16}", hunt.scenario)?;
        for (world, caught) in caught {
            match caught {
                Caught::After(seeds, _) => write!(out, " {world} {seeds:<10}")?,
                Caught::Never(seeds) => write!(out, " {world} - of {seeds:<5}")?,
            }
        }
        let violation = caught.iter().find_map(|(_, caught)| match caught {
            Caught::After(_, violation) => Some(violation.as_str()),
            Caught::Never(_) => None,
        });
        writeln!(out, " {}", violation.unwrap_or_default())
    })?;
    let (all, count) = (hunts.iter().filter(|hunt| hunt.canary.is_some()).count(), canaries::ALL.len());
    writeln!(
        io::stdout(),
        "{all} hunts for {count} canaries: {}",
        if right { "as it has to be" } else { "FAILED" }
    )?;
    Ok(right)
}

fn list() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    for scenario in scenario::all() {
        writeln!(out, "{:<20} {}", scenario.name(), scenario.about())?;
    }
    Ok(true)
}

struct Run {
    worlds: Vec<World>,
    scenarios: Vec<&'static dyn Scenario>,
    seeds: Seeds,
    json: bool,
    threads: usize,
    verify: bool,
    fail_fast: bool,
}

impl Run {
    /// Whether nothing was violated.
    fn run(&self) -> io::Result<bool> {
        let mut out = io::stdout().lock();
        let Self { worlds, scenarios, seeds, threads, fail_fast, .. } = self;
        let many = seeds.0.end - seeds.0.start > PROCESS_SEEDS;
        let (mut lines, mut written) = (Vec::new(), Ok(()));
        let show = |line: &Line| {
            if written.is_ok() {
                written = self.show(&mut out, line);
            }
            // Another process has said so already.
            if !line.passed() && !many {
                explain_violation(line);
            }
            lines.push(line.clone());
        };
        let summary = if many {
            runner::run_in_processes(worlds, scenarios, seeds, *threads, *fail_fast, show)?
        } else {
            runner::run_all(&runner::jobs(worlds, scenarios, seeds), *threads, *fail_fast, show)
        };
        written?;
        let differing =
            if self.verify { runner::verify(&lines, &self.seeds, self.threads)? } else { Vec::new() };
        for line in &differing {
            let Line { world, scenario, seed, .. } = line;
            let first = runner::explain_difference(line)?;
            eprintln!("{world} {scenario} seed {seed}: two processes differ, first in {first}");
        }
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&summary)?)?;
        } else {
            self.summarise(&mut out, &summary)?;
            if self.verify {
                writeln!(
                    out,
                    "two processes: {} of {} runs identical",
                    lines.len() - differing.len(),
                    lines.len()
                )?;
            }
        }
        let enough = self.seeds.0.end - self.seeds.0.start >= ENOUGH_SEEDS;
        // One scenario alone need not notice all that it does.
        let noticed = self.scenarios.len() == 1 || summary.unnoticed.is_empty();
        let proven = !enough || (summary.idle_faults.is_empty() && summary.unreached.is_empty() && noticed);
        Ok(summary.violations == 0 && differing.is_empty() && proven)
    }

    fn show(&self, out: &mut impl Write, line: &Line) -> io::Result<()> {
        if self.json {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        } else {
            let Line { world, scenario, seed, digest, verdict, virtual_seconds, .. } = line;
            writeln!(
                out,
                "{world:<8} {scenario:<20} {seed:>6} {digest} {virtual_seconds:>9.3} s  {verdict}"
            )?;
        }
        Ok(())
    }

    fn summarise(&self, out: &mut impl Write, summary: &Summary) -> io::Result<()> {
        writeln!(out, "\n{:<12} {:>9} {:>9} {:>9}", "fault", "armed", "fired", "seen")?;
        for (fault, tally) in &summary.report.faults {
            let name = format!("{fault:?}");
            writeln!(out, "{name:<12} {:>9} {:>9} {:>9}", tally.armed, tally.fired, tally.seen)?;
        }
        if !summary.report.sometimes.is_empty() {
            writeln!(out, "\nreached")?;
        }
        for (state, count) in &summary.report.sometimes {
            writeln!(out, "{count:>9}  {state}")?;
        }
        for fault in &summary.idle_faults {
            writeln!(out, "never acted: {fault:?}")?;
        }
        for fault in &summary.unnoticed {
            writeln!(out, "never noticed: {fault:?}")?;
        }
        let Summary { runs, violations, virtual_seconds, cpu_seconds, runs_per_cpu_second, .. } = summary;
        writeln!(
            out,
            "\n{runs} runs, {violations} violations; {virtual_seconds:.1} virtual seconds in {cpu_seconds:.1} s of \
             processor time, {runs_per_cpu_second:.1} runs a second"
        )
    }
}

/// The faults that a seed has turned on.
fn swarm(seed: u64) -> impl Iterator<Item = (Fault, Level)> {
    let swarm = Swarm::new(Seed(seed));
    Fault::ALL
        .into_iter()
        .map(move |fault| (fault, swarm.level(fault)))
        .filter(|(_, level)| *level != Level::Off)
}

/// What is needed to see a violation again.
fn explain_violation(line: &Line) {
    let Line { world, scenario, seed, verdict, .. } = line;
    let commit = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit =
        commit.ok().map_or_else(String::new, |out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    eprintln!("VIOLATION {verdict}");
    eprintln!("  commit {commit} world {world} scenario {scenario} seed {seed}");
    let faults: Vec<String> = swarm(*seed).map(|(fault, level)| format!("{fault:?} {level:?}")).collect();
    eprintln!("  where the scenario has them: {}", faults.join(", "));
    let canary = canaries::alive().map_or_else(String::new, |name| format!(" --canary {name}"));
    let run = format!("--world {world} --scenario {scenario} --seed {seed}{canary}");
    eprintln!("  cargo sim replay {run} --timeline --pcap run.pcapng");
    eprintln!("  cargo sim shrink {run}");
}
