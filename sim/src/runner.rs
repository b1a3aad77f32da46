//! Many seeds on all cores, and the same seeds once more in another process.

use crate::faults::{Fault, Report};
use crate::scenario::{Scenario, find};
use crate::trace::{Digest, Event, Keep, first_difference};
use crate::world::{Finished, World, run};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// From this many seeds on, a fault that never acted or a state that was never reached is a failure: the run
/// claims to show something about it, and does not.
pub const ENOUGH_SEEDS: u64 = 100;

/// Seeds that run in one process at most. madsim does not give back what a run used: twenty seeds of every scenario take some
/// 4 GB.
pub const PROCESS_SEEDS: u64 = 20;

/// Seeds from one up to, and without, another: `A..B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected A..B with A below B, got {text}");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        if from < to { Ok(Seeds(from..to)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

/// One run to do.
#[derive(Clone, Copy)]
pub struct Job {
    /// Where.
    pub world: World,
    /// What.
    pub scenario: &'static dyn Scenario,
    /// Which.
    pub seed: u64,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.world, self.scenario.name(), self.seed)
    }
}

/// Every seed of `seeds` in every scenario and world; of a costly scenario only some, where there are others.
pub fn jobs(worlds: &[World], scenarios: &[&'static dyn Scenario], seeds: &Seeds) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &world in worlds {
        for &scenario in scenarios {
            let every = if scenarios.len() > 1 { scenario.every() } else { 1 };
            let some = seeds.0.clone().filter(|seed| seed % every == 0);
            jobs.extend(some.map(|seed| Job { world, scenario, seed }));
        }
    }
    jobs
}

/// What one run showed, as scripts read it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Line {
    /// The world.
    pub world: World,
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What two runs of the seed are compared by.
    pub digest: Digest,
    /// `ok`, or what was violated.
    pub verdict: String,
    /// Virtual time that the run took.
    pub virtual_seconds: f64,
    /// Packets and what became of them.
    pub events: u64,
    /// Share of packets that a link loses where the scenario did not say otherwise.
    pub loss: f64,
    /// One-way delay of the same links, without what queues and jitter add.
    pub delay_seconds: f64,
    /// How often each fault acted.
    pub faults: BTreeMap<Fault, u64>,
}

impl Line {
    fn new(job: Job, finished: &Finished) -> Self {
        Line {
            world: job.world,
            scenario: job.scenario.name().to_owned(),
            seed: job.seed,
            digest: finished.digest(),
            verdict: finished.outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned()),
            virtual_seconds: finished.elapsed.as_secs_f64(),
            events: finished.trace.count(),
            loss: finished.path.loss.share(),
            delay_seconds: finished.path.latency.as_secs_f64(),
            faults: finished
                .report
                .faults
                .iter()
                .filter(|(_, tally)| tally.fired > 0)
                .map(|(fault, tally)| (*fault, tally.fired))
                .collect(),
        }
    }

    /// Whether nothing was violated.
    pub fn passed(&self) -> bool {
        self.verdict == "ok"
    }
}

/// What all runs showed together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Runs done.
    pub runs: u64,
    /// Runs that violated something.
    pub violations: u64,
    /// Virtual time of all runs.
    pub virtual_seconds: f64,
    /// Processor time of all threads.
    pub cpu_seconds: f64,
    /// Runs for each second of processor time.
    pub runs_per_cpu_second: f64,
    /// Faults that were armed and never acted.
    pub idle_faults: Vec<Fault>,
    /// Faults that acted and were never noticed.
    pub unnoticed: Vec<Fault>,
    /// States that were never reached.
    pub unreached: Vec<String>,
    /// The fault ledger and the `sometimes` registry.
    #[serde(flatten)]
    pub report: Report,
}

/// Runs `jobs` on `threads` threads and shows each result in the order of jobs. With `fail_fast`, no further one is begun
/// after a violation.
pub fn run_all(jobs: &[Job], threads: usize, fail_fast: bool, mut show: impl FnMut(&Line)) -> Summary {
    let next = AtomicUsize::new(0);
    let (results, collected) = mpsc::channel();
    let before = cpu_time();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let results = results.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&job) = jobs.get(index) else { break };
                    let finished = run(job.world, job.scenario, job.seed, Keep::Digest);
                    if fail_fast && finished.outcome.is_err() {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    if results.send((index, Line::new(job, &finished), finished.report)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        let mut waiting = BTreeMap::new();
        let mut shown = 0;
        for (index, line, report) in collected {
            summary.runs += 1;
            summary.violations += u64::from(!line.passed());
            summary.virtual_seconds += line.virtual_seconds;
            summary.report.merge(&report);
            waiting.insert(index, line);
            while let Some(line) = waiting.remove(&shown) {
                show(&line);
                shown += 1;
            }
        }
    });
    summary.cpu_seconds = (cpu_time() - before).as_secs_f64();
    summary.conclude();
    summary
}

impl Summary {
    /// What follows from what was counted.
    fn conclude(&mut self) {
        self.runs_per_cpu_second = self.runs as f64 / self.cpu_seconds.max(f64::MIN_POSITIVE);
        self.idle_faults = self.report.idle_faults().collect();
        self.unnoticed = self.report.unnoticed().collect();
        self.unreached = self.report.unreached().map(str::to_owned).collect();
    }
}

/// Runs all of `seeds` as [`run_all`] does, but at most [`PROCESS_SEEDS`] of them in one process, one process after another.
///
/// # Errors
/// When a process can't be started, or ends before it has told everything.
pub fn run_in_processes(
    worlds: &[World],
    scenarios: &[&'static dyn Scenario],
    seeds: &Seeds,
    threads: usize,
    fail_fast: bool,
    mut show: impl FnMut(&Line),
) -> io::Result<Summary> {
    let mut all = Summary::default();
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name()).collect();
    let Range { start, end } = seeds.0;
    for from in (start..end).step_by(PROCESS_SEEDS as usize) {
        let some = Seeds(from..end.min(from + PROCESS_SEEDS));
        let mut told = None;
        elsewhere(worlds, &names, &some, threads, fail_fast, |object| match object {
            Told::Run(line) => show(&line),
            Told::All(summary) => told = Some(summary),
        })?;
        let summary = told.ok_or_else(|| {
            io::Error::other(format!(
                "the process with seeds {some} ended before its summary: out of memory?"
            ))
        })?;
        all.runs += summary.runs;
        all.violations += summary.violations;
        all.virtual_seconds += summary.virtual_seconds;
        all.cpu_seconds += summary.cpu_seconds;
        all.report.merge(&summary.report);
        if fail_fast && all.violations > 0 {
            break;
        }
    }
    all.conclude();
    Ok(all)
}

/// One object of what `run --json` prints.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    Run(Line),
    All(Summary),
}

/// Runs seeds in another process, and hears what it says.
fn elsewhere(
    worlds: &[World],
    scenarios: &[&str],
    seeds: &Seeds,
    threads: usize,
    fail_fast: bool,
    mut hear: impl FnMut(Told),
) -> io::Result<()> {
    let world = match worlds {
        [world] => world.to_string(),
        _ => "both".to_owned(),
    };
    let scenario = match scenarios {
        [scenario] => scenario,
        _ => "all",
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", "--json", "--world", &world, "--scenario", scenario])
        .args(["--seeds", &seeds.to_string(), "--jobs", &threads.to_string()])
        .args(fail_fast.then_some("--fail-fast"))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("the other process has no output"))?;
    for line in BufReader::new(output).lines() {
        hear(serde_json::from_str(&line?)?);
    }
    child.wait().map(drop)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Runs the same seeds in another process and answers with the runs of which it has another digest.
///
/// # Errors
/// When the other process can't be started or says something else than expected.
pub fn verify(lines: &[Line], seeds: &Seeds, threads: usize) -> io::Result<Vec<Line>> {
    let mut digests = BTreeMap::new();
    let mut groups: Vec<(World, &str)> =
        lines.iter().map(|line| (line.world, line.scenario.as_str())).collect();
    groups.dedup();
    for (world, scenario) in groups {
        elsewhere(&[world], &[scenario], seeds, threads, false, |object| {
            if let Told::Run(line) = object {
                digests.insert((line.world, line.scenario, line.seed), line.digest);
            }
        })?;
    }
    let differs =
        |line: &&Line| digests.get(&(line.world, line.scenario.clone(), line.seed)) != Some(&line.digest);
    Ok(lines.iter().filter(differs).cloned().collect())
}

/// The first event in which another process's run differs from one here, as text.
///
/// # Errors
/// When the other process can't be started or says something else than expected.
pub fn explain_difference(line: &Line) -> io::Result<String> {
    let scenario = find(&line.scenario).ok_or_else(|| io::Error::other("no such scenario"))?;
    let here = run(line.world, scenario, line.seed, Keep::Events);
    let output = Command::new(std::env::current_exe()?)
        .args(["replay", "--events", "--world", &line.world.to_string()])
        .args(["--scenario", &line.scenario, "--seed", &line.seed.to_string()])
        .output()?;
    let there = output.stdout.lines().map(|line| Ok(serde_json::from_str::<Event>(&line?)?));
    let there = there.collect::<io::Result<Vec<Event>>>()?;
    Ok(match first_difference(here.trace.events(), &there) {
        None => "the two agree this time".to_owned(),
        Some((index, here, there)) => {
            let text = |event: Option<&Event>| event.map_or("(nothing)".to_owned(), ToString::to_string);
            format!("event {index}\n  here   {}\n  there  {}", text(here), text(there))
        }
    })
}
