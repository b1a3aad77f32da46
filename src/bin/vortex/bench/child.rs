//! The worker processes, as the measuring process sees them.

use super::job::{Job, Role, Transfer, Usage, Word};
use crate::exit::{Exit, Failure};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// This program once more, or another one, as a worker. It ends when this is dropped.
pub(super) struct Worker {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(job: &Job) -> Result<Self, Failure> {
        let text = serde_json::to_string(job).map_err(io::Error::from).map_err(lost)?;
        let program = job.side.program().map_err(lost)?;
        let mut process = Command::new(program)
            .args(["bench-worker", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(lost)?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let stdout = stdout.ok_or_else(|| lost(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { process, stdin, stdout: BufReader::new(stdout) })
    }

    fn hear(&mut self) -> Result<Word, Failure> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(lost)?;
        match serde_json::from_str(&line) {
            Ok(Word::Failed(why)) => Err(Failure::new(Exit::Network, format!("a worker failed: {why}"))),
            Ok(word) => Ok(word),
            Err(_) => Err(Failure::new(Exit::Other, "a worker ended without a word")),
        }
    }

    fn nudge(&mut self) -> Result<(), Failure> {
        let mut stdin = self.stdin.as_ref().ok_or_else(|| lost(io::ErrorKind::BrokenPipe.into()))?;
        stdin.write_all(b"\n").map_err(lost)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A server ends when nobody is left to ask it; one that does not is ended.
        self.stdin = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that listens.
pub(super) struct Server {
    worker: Worker,
    address: SocketAddr,
}

impl Server {
    pub(super) fn start(job: &Job) -> Result<Self, Failure> {
        let mut worker = Worker::start(&Job { role: Role::Server, ..job.clone() })?;
        match worker.hear()? {
            Word::Listening(address) => Ok(Self { worker, address }),
            _ => Err(confused()),
        }
    }

    pub(super) fn usage(&mut self) -> Result<Usage, Failure> {
        self.worker.nudge()?;
        match self.worker.hear()? {
            Word::Usage(usage) => Ok(usage),
            _ => Err(confused()),
        }
    }
}

/// A client that is ready to begin.
pub(super) struct Client(Worker);

impl Client {
    pub(super) fn start(job: &Job, server: &Server) -> Result<Self, Failure> {
        let mut worker =
            Worker::start(&Job { role: Role::Client { server: server.address }, ..job.clone() })?;
        match worker.hear()? {
            Word::Ready => Ok(Self(worker)),
            _ => Err(confused()),
        }
    }

    pub(super) fn transfer(mut self) -> Result<Transfer, Failure> {
        self.0.nudge()?;
        match self.0.hear()? {
            Word::Done(transfer) => Ok(transfer),
            _ => Err(confused()),
        }
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::new(Exit::Other, format!("a worker process: {error}"))
}

fn confused() -> Failure {
    Failure::new(Exit::Other, "a worker said what was not asked")
}
