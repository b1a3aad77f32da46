//! Looking at one run again, and making it smaller.

use clap::Args;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use vortex_sim::canaries;
use vortex_sim::mask::Mask;
use vortex_sim::pcap;
use vortex_sim::regression::Regression;
use vortex_sim::scenario::Scenario;
use vortex_sim::shrink;
use vortex_sim::trace::Keep;
use vortex_sim::world::{self, Finished, World};

/// One run.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Where to run.
    #[arg(long, default_value = "turmoil", required = false)]
    world: World,
    /// The scenario.
    #[arg(long, value_parser = crate::scenario)]
    scenario: &'static dyn Scenario,
    /// The seed.
    #[arg(long)]
    seed: u64,
    /// With this planted bug alive.
    #[arg(long, value_name = "NAME")]
    canary: Option<String>,
}

/// How to look at a run.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Print what the hosts did, and what became of every packet.
    #[arg(long)]
    timeline: bool,
    /// Print the same as JSON, one object a line.
    #[arg(long)]
    events: bool,
    /// Write what the hosts sent to a capture file, with the keys to read it.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Write the qlog of every QUIC connection, on both sides, into a folder.
    #[arg(long, value_name = "DIR")]
    qlog: Option<PathBuf>,
}

impl Look {
    fn keep(&self) -> Keep {
        if self.pcap.is_some() { Keep::Payloads } else { Keep::Events }
    }
}

/// Whether each run passed, or, where it came from a file, ended as the file says.
pub(crate) fn replay(files: &[PathBuf], one: Option<One>, look: &Look) -> io::Result<bool> {
    let mut right = true;
    if let Some(One { world, scenario, seed, canary }) = one {
        if let Some(elsewhere) = in_build_with(canary.as_deref(), &[])? {
            return Ok(elsewhere);
        }
        let finished = world::run(world, scenario, seed, look.keep());
        show(&finished, look)?;
        eprintln!("{world} {} seed {seed}: {}", scenario.name(), ending(&finished));
        right = finished.outcome.is_ok();
    }
    for path in files {
        let regression = Regression::read(path)?;
        let others: Vec<&PathBuf> = files.iter().filter(|other| *other != path).collect();
        if let Some(elsewhere) = in_build_with(regression.canary.as_deref(), &others)? {
            right &= elsewhere;
            continue;
        }
        let finished = regression.run(look.keep())?;
        show(&finished, look)?;
        let Regression { world, scenario, seed, faults, .. } = &regression;
        let as_told = regression.is_right(&finished.outcome);
        let judged = if as_told { "as told" } else { "NOT as told" };
        let (path, ending) = (path.display(), ending(&finished));
        eprintln!("{path}: {world} {scenario} seed {seed}, faults: {faults}: {ending} ({judged})");
        right &= as_told;
    }
    Ok(right)
}

/// Runs this very command, without the files of `others`, in the build that has `canary`, and answers with its success;
/// with nothing where there is no canary, or where this is that build.
fn in_build_with(canary: Option<&str>, others: &[&PathBuf]) -> io::Result<Option<bool>> {
    let Some(name) = canary.filter(|name| canaries::alive().as_deref() != Some(*name)) else {
        return Ok(None);
    };
    canaries::check_names(&[name.to_owned()])?;
    let arguments = std::env::args_os().skip(1).filter(|word| !others.iter().any(|other| *word == ***other));
    let mut again = Command::new(canaries::build()?);
    let status = again.args(arguments).env(canaries::VARIABLE, name).status()?;
    Ok(Some(status.success()))
}

/// Whether there was something to shrink.
pub(crate) fn shrink(one: &One, out: Option<PathBuf>, runs: u64) -> io::Result<bool> {
    let One { world, scenario, seed, canary } = one;
    if let Some(elsewhere) = in_build_with(canary.as_deref(), &[])? {
        return Ok(elsewhere);
    }
    let run = |mask: &Mask| world::run_masked(*world, *scenario, *seed, Keep::Digest, mask.clone());
    let Some(shrunk) = shrink::shrink(run, runs) else {
        eprintln!("{world} {} seed {seed} violates nothing", scenario.name());
        return Ok(false);
    };
    let name = || Path::new("target/shrunk").join(format!("{}-{seed}.json", scenario.name()));
    let path = out.unwrap_or_else(name);
    let saved = Regression {
        world: *world,
        scenario: scenario.name().to_owned(),
        seed: *seed,
        canary: canary.clone(),
        faults: shrunk.mask.clone(),
        violation: Some(shrunk.violation.clone()),
        mended: None,
    };
    saved.write(&path)?;
    let after = shrunk.after.map_or_else(|| "some".to_owned(), |after| after.to_string());
    println!(
        "{after} of {} faults are enough, found in {} runs: {}",
        shrunk.before, shrunk.runs, shrunk.mask
    );
    println!("{}", shrunk.violation);
    println!("cargo sim replay {} --timeline", path.display());
    Ok(true)
}

fn ending(finished: &Finished) -> String {
    let verdict = finished.outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned());
    format!("{} {:.3} s: {verdict}", finished.digest(), finished.elapsed.as_secs_f64())
}

fn show(finished: &Finished, look: &Look) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if look.events {
        for event in finished.trace.events() {
            writeln!(out, "{}", serde_json::to_string(event)?)?;
        }
    } else if look.timeline {
        // Both are in the order of time.
        let mut notes = finished.notes.notes.iter().peekable();
        for event in finished.trace.events() {
            while let Some(note) = notes.next_if(|note| note.at < event.at) {
                writeln!(out, "{note}")?;
            }
            writeln!(out, "{event}")?;
        }
        for note in notes {
            writeln!(out, "{note}")?;
        }
    }
    out.flush()?;
    if let Some(path) = &look.pcap {
        let mut file = BufWriter::new(File::create(path)?);
        pcap::write(finished.trace.payloads(), &finished.notes.keys, &mut file)?;
        file.flush()?;
    }
    if let Some(folder) = &look.qlog {
        fs::create_dir_all(folder)?;
        for (name, log) in &finished.notes.qlogs {
            fs::write(folder.join(format!("{name}.sqlog")), log)?;
        }
    }
    Ok(())
}
