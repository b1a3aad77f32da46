//! Canaries: bugs planted in the library, each of which a scenario has to catch.
//!
//! `vortex_p2p` has them behind `--cfg vortex_canary`, and the environment variable [`VARIABLE`] brings one of them to
//! life. A simulation that does not notice proves nothing about the code without it.

use crate::runner::Seeds;
use crate::world::World;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names the bug that is alive in a build that has them.
pub const VARIABLE: &str = "VORTEX_CANARY";

/// A planted bug, and who has to find it.
#[derive(Debug, Clone, Copy)]
pub struct Canary {
    /// What the library calls it.
    pub name: &'static str,
    /// The part of the library that has it.
    pub area: &'static str,
    /// What goes wrong.
    pub about: &'static str,
    /// The scenario that has to catch it.
    pub scenario: &'static str,
    /// In how many seeds at most, in one of the worlds.
    pub within: u64,
}

/// Every canary.
pub const ALL: &[Canary] = &[
    canary(
        "digest-unchecked",
        "session",
        "content counts as verified, whatever its digest",
        "many-peers",
        20,
    ),
    canary("closed-handed-out", "pool", "a connection that has ended is handed out", "pool", 20),
    canary("handshake-not-shared", "pool", "requests that come together dial each for itself", "pool", 20),
    canary("capacity-ignored", "pool", "idle connections are kept beyond the capacity", "pool", 20),
    canary(
        "content-not-synced",
        "store",
        "a piece is acknowledged before its content is durable",
        "resume",
        50,
    ),
    canary("acknowledged-early", "store", "a piece is acknowledged before the index has it", "resume", 50),
    canary("held-forgotten", "resume", "what is in the store is fetched once more", "resume", 20),
    canary("length-off-by-one", "codec", "a Content packet announces one byte too many", "quic-loss", 1),
    canary(
        "split-packet-lost",
        "codec",
        "a packet that arrives in two parts loses the first",
        "quic-loss",
        50,
    ),
    canary("last-chunk-unhashed", "session", "the digest leaves out what came last", "tcp-loss", 1),
    canary(
        "burst-cut-off",
        "client",
        "of more than 8 chunks at a time, the rest is dropped",
        "quic-loss",
        20,
    ),
    canary("answer-not-finished", "server", "the stream of an answer is never finished", "quic-loss", 20),
    canary("answer-not-awaited", "server", "a shutdown closes before answers have arrived", "shutdown", 20),
    canary("shutdown-breaks-off", "server", "a shutdown breaks off what is under way", "shutdown", 40),
    canary("early-rejection-missed", "0-RTT", "early data counts as accepted when it was not", "zero-rtt", 1),
    canary("early-not-answered", "0-RTT", "a server answers early requests late", "zero-rtt", 1),
    canary("session-forgotten", "0-RTT", "a client has no session to be early with", "zero-rtt", 1),
    canary("keep-alive-off", "timers", "a silent connection is not kept alive", "idle", 1),
    canary("idle-timeout-off", "timers", "a dead connection is never given up", "idle", 1),
];

const fn canary(
    name: &'static str,
    area: &'static str,
    about: &'static str,
    scenario: &'static str,
    within: u64,
) -> Canary {
    Canary { name, area, about, scenario, within }
}

/// Whether each of `names` is a canary's.
///
/// # Errors
/// With the first that is not, and those that are.
pub fn check_names(names: &[String]) -> io::Result<()> {
    let is_known = |name: &str| ALL.iter().any(|canary| canary.name == name);
    let Some(unknown) = names.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<&str> = ALL.iter().map(|canary| canary.name).collect();
    Err(io::Error::other(format!("expected one of {}, got {unknown}", known.join(", "))))
}

/// The bug that is alive in this process, if its build has any.
pub fn alive() -> Option<String> {
    cfg!(vortex_canary).then(|| std::env::var(VARIABLE).ok()).flatten()
}

/// In how many seeds a canary was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caught {
    /// In so many, the last of which ended with this violation.
    After(u64, String),
    /// In none of so many.
    Never(u64),
}

/// Builds the simulation with all bugs in it, beside the usual build, and answers with where it is.
///
/// # Errors
/// Where cargo can't be run or fails.
pub fn build() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let flags =
        "build.rustflags=['--cfg','madsim','--cfg','tokio_unstable','--cfg','vortex_canary']".to_owned();
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--profile", "sim", "--target-dir", "target/canaries"])
        .args(["--package", "vortex-sim", "--config", &flags])
        .status()?;
    if !built.success() {
        return Err(io::Error::other("expected the simulation to build with its canaries"));
    }
    Ok(Path::new("target/canaries/sim/vortex-sim").to_owned())
}

/// Runs `canary`, or no bug at all, in `scenario` until something is violated.
///
/// # Errors
/// Where `program` can't be run or says something else than expected.
pub fn hunt(
    program: &Path,
    canary: Option<&str>,
    scenario: &str,
    world: World,
    seeds: &Seeds,
) -> io::Result<Caught> {
    #[derive(Deserialize)]
    struct Run {
        seed: Option<u64>,
        verdict: Option<String>,
    }
    let mut child = Command::new(program)
        .args(["run", "--json", "--fail-fast", "--jobs", "1", "--world", &world.to_string()])
        .args(["--scenario", scenario, "--seeds", &seeds.to_string()])
        .env_remove(VARIABLE)
        .envs(canary.map(|name| (VARIABLE, name)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("the other process has no output"))?;
    let (mut ran, mut caught) = (0, None);
    for line in BufReader::new(output).lines() {
        let Run { seed: Some(seed), verdict: Some(verdict) } = serde_json::from_str(&line?)? else {
            continue;
        };
        ran += 1;
        if verdict != "ok" && caught.is_none() {
            caught = Some(Caught::After(seed - seeds.0.start + 1, verdict));
        }
    }
    child.wait()?;
    Ok(caught.unwrap_or(Caught::Never(ran)))
}

/// One hunt: for a canary, or without one, in a scenario.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The bug; without one, nothing may be violated.
    pub canary: Option<Canary>,
    /// The scenario.
    pub scenario: &'static str,
    /// The seeds.
    pub seeds: Seeds,
}

impl Hunt {
    /// All hunts: for each canary that `wanted` names, or all where it names none, and once without a bug in each of their
    /// scenarios. With `seeds`, so many in place of each canary's own number.
    pub fn all(wanted: &[String], seeds: Option<u64>) -> Vec<Hunt> {
        let chosen = ALL.iter().filter(|canary| wanted.is_empty() || wanted.iter().any(|n| n == canary.name));
        let chosen: Vec<Canary> = chosen.copied().collect();
        let mut most: BTreeMap<&'static str, u64> = BTreeMap::new();
        for canary in &chosen {
            let most = most.entry(canary.scenario).or_default();
            *most = (*most).max(canary.within);
        }
        let range = |count| Seeds(0..seeds.unwrap_or(count));
        let control =
            most.into_iter().map(|(scenario, count)| Hunt { canary: None, scenario, seeds: range(count) });
        let hunts = chosen.into_iter().map(|canary| Hunt {
            canary: Some(canary),
            scenario: canary.scenario,
            seeds: range(canary.within),
        });
        control.chain(hunts).collect()
    }

    /// Whether the hunt ended, in each world, as it has to: one world is enough to catch a bug.
    pub fn is_right(&self, caught: &[(World, Caught)]) -> bool {
        caught.iter().any(|(_, caught)| matches!(caught, Caught::After(..))) == self.canary.is_some()
    }
}

/// Runs `hunts` with `program` in every world, `threads` at a time, and shows each as it ends. Answers with whether all
/// ended as they have to.
///
/// # Errors
/// The first of [`hunt`].
pub fn hunt_all(
    program: &Path,
    hunts: &[Hunt],
    threads: usize,
    show: impl FnMut(&Hunt, &[(World, Caught)]) -> io::Result<()> + Send,
) -> io::Result<bool> {
    let (next, shown) = (AtomicUsize::new(0), Mutex::new((show, true)));
    let work = || -> io::Result<()> {
        while let Some(one) = hunts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = one.canary.map(|canary| canary.name);
            let in_world =
                |world: &World| Ok((*world, hunt(program, name, one.scenario, *world, &one.seeds)?));
            let caught = World::ALL.iter().map(in_world).collect::<io::Result<Vec<_>>>()?;
            let (show, right) = &mut *crate::faults::lock(&shown);
            *right &= one.is_right(&caught);
            show(one, &caught)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a hunt panicked"))))
    })?;
    Ok(crate::faults::lock(&shown).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    /// Every name that the library asks [`planted`] for, by reading it.
    fn planted(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                planted(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let hooks = text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next());
                names.extend(hooks.map(str::to_owned));
            }
        }
    }

    #[test]
    fn each_bug_of_the_library_is_hunted_for_in_a_scenario_that_exists() {
        let mut names = BTreeSet::new();
        planted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), &mut names);
        let known: BTreeSet<String> = ALL.iter().map(|canary| canary.name.to_owned()).collect();
        assert_eq!(names, known);
        for canary in ALL {
            assert!(crate::scenario::find(canary.scenario).is_some(), "{}", canary.scenario);
        }
    }
}
