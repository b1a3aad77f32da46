//! `vortex conformance client`.

use super::{Common, print_list, resolve};
use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::world::{World, block_on};
use clap::Args;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use vortex_p2p::conformance::client::{Driver, Job, Outcome, Target, check, list};
use vortex_p2p::runtime::{BoxFuture, SharedRuntime};

/// Play servers, good and evil, for a client
///
/// For each case a server listens, which has a task of its own. With --command, the client is run for each of them, and its
/// exit code and the file that it wrote count. In it, {peer} stands for the server's URL, {task} for the id, {kind},
/// {length}, {piece-length} and {pieces} for what else there is to know, {out} for the file to write. It is split at white
/// space. Where a case has several servers, the argument with {peer} is repeated, with the option before it.
///
/// Without --command, each case is announced on stdout, and a client may be had to fetch the task by hand: only what shows
/// on the wire is judged then.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to listen: quic://IP:PORT or tcp://IP:PORT. With port 0 each server takes a free port, otherwise they take
    /// this one and those that follow; may be given several times
    #[arg(long, value_name = "URL", required_unless_present = "list", env = "VORTEX_LISTEN")]
    listen: Vec<String>,
    /// The client's command, such as 'vortex get {task} --length {length} --piece-length {piece-length} --peer {peer}
    /// --insecure -o {out}'
    #[arg(long, value_name = "TEMPLATE", env = "VORTEX_COMMAND")]
    command: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let Arguments { common, .. } = arguments;
    let mut settings = common.settings()?;
    if common.list {
        let cases = list().into_iter().map(|case| (case.id, case.quic, case.tcp, case.about));
        return print_list(cases, &settings);
    }
    // Processes are dearer than connections, and a person does one thing at a time.
    settings.concurrency = match arguments.command {
        Some(_) => common.concurrency.unwrap_or(8),
        None => 1,
    };
    let reports = block_on(async {
        let World { runtime, network, .. } = World::new();
        let driver: Arc<dyn Driver> = match &arguments.command {
            Some(template) => Arc::new(Command::new(template)?),
            None => Arc::new(ByHand { runtime: runtime.clone(), patience: common.patience }),
        };
        let mut reports = Vec::new();
        for listen in &arguments.listen {
            let (transport, listen) = resolve(listen, true)?;
            let target = Target {
                transport,
                listen,
                deadlines: common.deadlines(),
                waits: common.waits(),
                driver: driver.clone(),
            };
            reports.extend(check(runtime.clone(), network.clone(), target, &settings).await);
        }
        Ok(reports)
    })?;
    common.report(&reports, output)
}

/// Tells a person what to do, and waits.
struct ByHand {
    runtime: SharedRuntime,
    patience: Duration,
}

impl Driver for ByHand {
    fn fetch(&self, job: Job) -> BoxFuture<'static, Outcome> {
        let (runtime, patience) = (self.runtime.clone(), self.patience);
        Box::pin(async move {
            // Nobody is left to hear of a failure to announce it.
            let _ = writeln!(io::stdout(), "{}: {}\n    fetch {}", job.case, job.about, described(&job));
            runtime.sleep(patience).await;
            Outcome::Unknown
        })
    }
}

fn described(job: &Job) -> String {
    let peers: Vec<String> = job.peers.iter().map(|peer| url(job, *peer)).collect();
    let (length, piece) = (job.division.length(), job.division.piece_length());
    format!("{} ({length} bytes in pieces of {piece}) from {}", job.key.id, peers.join(" or "))
}

fn url(job: &Job, peer: std::net::SocketAddr) -> String {
    format!("{}://{peer}", job.transport.name())
}

/// Runs the client.
struct Command {
    template: Vec<String>,
    directory: PathBuf,
    runs: AtomicUsize,
}

impl Command {
    fn new(template: &str) -> Result<Self, Failure> {
        let template: Vec<String> = template.split_whitespace().map(str::to_owned).collect();
        if !template.iter().any(|part| part.contains("{peer}")) {
            let failure = Failure::new(Exit::Usage, "the command does not say whom the client is to ask");
            return Err(failure.hint("expected {peer} in it"));
        }
        let directory = std::env::temp_dir().join(format!("vortex-conformance-{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| {
            Failure::new(Exit::Disk, format!("could not make {}: {error}", directory.display()))
        })?;
        Ok(Self { template, directory, runs: AtomicUsize::new(0) })
    }

    /// The words of the command for a job.
    fn words(&self, job: &Job, out: &str) -> Vec<String> {
        let fill = |part: &str, peer: std::net::SocketAddr| {
            part.replace("{peer}", &url(job, peer))
                .replace("{task}", job.key.id.as_str())
                .replace("{kind}", job.key.kind.name())
                .replace("{length}", &job.division.length().to_string())
                .replace("{piece-length}", &job.division.piece_length().to_string())
                .replace("{pieces}", &job.division.pieces().to_string())
                .replace("{out}", out)
        };
        let mut words: Vec<String> = Vec::new();
        for part in &self.template {
            let of_peer = part.contains("{peer}");
            let option = words.last().filter(|word| of_peer && word.starts_with('-')).cloned();
            for (place, peer) in job.peers.iter().enumerate() {
                if place > 0 && !of_peer {
                    break;
                }
                if place > 0 {
                    words.extend(option.clone());
                }
                words.push(fill(part, *peer));
            }
        }
        words
    }
}

impl Driver for Command {
    fn fetch(&self, job: Job) -> BoxFuture<'static, Outcome> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let out = self.directory.join(format!("{run}"));
        let words = self.words(&job, &out.to_string_lossy());
        Box::pin(async move {
            let Some((program, arguments)) = words.split_first() else {
                return Outcome::Unable("the command is empty".to_owned());
            };
            let mut command = tokio::process::Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            // A client that hangs is ended with its case.
            let ended = command.kill_on_drop(true).output().await;
            match ended {
                Err(error) => Outcome::Unable(format!("could not run {program}: {error}")),
                Ok(ended) if ended.status.success() => match std::fs::read(&out) {
                    Ok(content) => Outcome::Done(content.into()),
                    Err(error) => Outcome::Failed(format!("it ended well, but {}: {error}", out.display())),
                },
                Ok(ended) => {
                    let said = String::from_utf8_lossy(&ended.stderr);
                    Outcome::Failed(format!("{}: {}", ended.status, last_words(&said)))
                }
            }
        })
    }
}

/// What a program said last: a few lines of it, as one.
fn last_words(said: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join(" / ")
}

impl Drop for Command {
    fn drop(&mut self) {
        // What stays behind lies where temporary files lie.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vortex_p2p::conformance::Transport;
    use vortex_p2p::store::TaskKey;
    use vortex_p2p::wire::{Division, PieceKind, TaskId};

    #[test]
    fn the_option_before_a_peer_is_repeated_with_it() {
        let command = Command::new("get {task} --peer {peer} -o {out}").unwrap();
        let key = TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([0xab; 32]) };
        let job = Job {
            case: "",
            about: "",
            transport: Transport::Tcp,
            peers: vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()],
            key,
            division: Division::by_default(5).unwrap(),
        };
        let words = command.words(&job, "/out");
        let id = key.id.to_string();
        let expected =
            ["get", &id, "--peer", "tcp://127.0.0.1:1", "--peer", "tcp://127.0.0.1:2", "-o", "/out"];
        assert_eq!(words, expected);
        assert!(Command::new("get {task}").is_err());
    }
}
