//! `vortex conformance`: the specification's cases against any server or client.

mod client;
mod server;

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use clap::{Args, Subcommand};
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vortex_p2p::conformance::{
    CaseReport, ExpectedFailures, RunSettings, Summary, Transport, Waits, junit, table,
};
use vortex_p2p::downloader::{PeerName, Protocol};
use vortex_p2p::session::Deadlines;

/// Run the specification's cases against a peer
///
/// Each case has the id of the requirement that it is about. With --json, each is one object: id, transport, verdict (pass,
/// fail, skip), requirement, level, message, seconds, expected_failure, counts. The exit code is 1 where a requirement is
/// not met.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    Server(Box<server::Arguments>),
    Client(client::Arguments),
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    match &arguments.mode {
        Mode::Server(arguments) => server::run(arguments, output),
        Mode::Client(arguments) => client::run(arguments, output),
    }
}

/// What both modes take.
#[derive(Debug, Args)]
struct Common {
    /// Only cases whose id begins with this; may be given several times
    #[arg(long, value_name = "PREFIX", env = "VORTEX_SELECT", value_delimiter = ',')]
    select: Vec<String>,
    /// Let a SHOULD that is not met fail the run
    #[arg(long, env = "VORTEX_STRICT")]
    strict: bool,
    /// Print the cases, one a line, and run none
    #[arg(long)]
    list: bool,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE", env = "VORTEX_JUNIT")]
    junit: Option<PathBuf>,
    /// Cases that are known to fail: `ID REASON` on each line
    #[arg(long, value_name = "FILE", env = "VORTEX_EXPECTED_FAILURES")]
    expected_failures: Option<PathBuf>,
    /// Deadlines of the peer where they are not the specification's: request=10s,progress=30s,idle=30s,first-byte=30s
    #[arg(long, value_name = "NAME=TIME", value_delimiter = ',', env = "VORTEX_DEADLINES")]
    deadlines: Vec<Deadline>,
    /// How long to wait for what the peer has to do at once
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, env = "VORTEX_PATIENCE")]
    patience: Duration,
    /// How long nothing has to happen to be taken for nothing
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration, env = "VORTEX_QUIET")]
    quiet: Duration,
    /// Cases at a time
    #[arg(long, value_name = "N", env = "VORTEX_CASES_AT_A_TIME")]
    concurrency: Option<usize>,
}

/// A deadline that is set.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Request(Duration),
    Progress(Duration),
    Idle(Duration),
    FirstByte(Duration),
    Connect(Duration),
}

impl std::str::FromStr for Deadline {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected request, progress, idle, first-byte or connect, `=` and a time such as 10s";
        let (name, time) = text.split_once('=').ok_or(expected)?;
        let time = humantime::parse_duration(time).map_err(|error| format!("{expected}: {error}"))?;
        match name {
            "request" => Ok(Self::Request(time)),
            "progress" => Ok(Self::Progress(time)),
            "idle" => Ok(Self::Idle(time)),
            "first-byte" => Ok(Self::FirstByte(time)),
            "connect" => Ok(Self::Connect(time)),
            _ => Err(expected.to_owned()),
        }
    }
}

impl Common {
    fn settings(&self) -> Result<RunSettings, Failure> {
        let expected = match &self.expected_failures {
            Some(path) => ExpectedFailures::parse(&String::from_utf8_lossy(&read(path)?))
                .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?,
            None => ExpectedFailures::default(),
        };
        let default = RunSettings::default();
        let concurrency = self.concurrency.unwrap_or(default.concurrency);
        Ok(RunSettings { select: self.select.clone(), strict: self.strict, expected, concurrency })
    }

    fn waits(&self) -> Waits {
        Waits { soon: self.patience, quiet: self.quiet }
    }

    fn deadlines(&self) -> Deadlines {
        let mut deadlines = Deadlines::default();
        for deadline in &self.deadlines {
            match *deadline {
                Deadline::Request(time) => deadlines.request = time,
                Deadline::Progress(time) => deadlines.progress = time,
                Deadline::Idle(time) => deadlines.idle = time,
                Deadline::FirstByte(time) => deadlines.first_byte = time,
                Deadline::Connect(time) => deadlines.connect = time,
            }
        }
        deadlines
    }

    /// Prints what came of the cases; whether the peer conforms is in the exit code.
    fn report(&self, reports: &[CaseReport], output: &Output) -> Result<Exit, Failure> {
        if let Some(path) = &self.junit {
            std::fs::write(path, junit(reports)).map_err(|error| {
                Failure::new(Exit::Disk, format!("could not write {}: {error}", path.display()))
            })?;
        }
        let mut stdout = io::stdout().lock();
        if output.json {
            for report in reports {
                writeln!(stdout, "{}", report.to_json())?;
            }
        } else {
            write!(stdout, "{}", table(reports))?;
        }
        Ok(if Summary::of(reports).conforms() { Exit::Done } else { Exit::Other })
    }
}

/// A line for each case: its id, its transports, what is expected.
fn print_list<'a>(
    cases: impl Iterator<Item = (&'static str, bool, bool, &'a str)>,
    settings: &RunSettings,
) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    for (id, quic, tcp, about) in cases.filter(|case| settings.selects(case.0)) {
        let transports = match (quic, tcp) {
            (true, true) => "quic,tcp",
            (true, false) => "quic",
            _ => "tcp",
        };
        writeln!(stdout, "{id:24} {transports:8} {about}")?;
    }
    Ok(Exit::Done)
}

/// The transport and the address that a URL names.
fn resolve(url: &str, port_0: bool) -> Result<(Transport, SocketAddr), Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let any_port = port_0.then(|| url.strip_suffix(":0")).flatten();
    let name = PeerName::parse(any_port.unwrap_or(url)).map_err(|error| usage(error.to_string()))?;
    let transport = match name.protocol {
        Protocol::Quic => Transport::Quic,
        Protocol::Tcp => Transport::Tcp,
        Protocol::Grpc | Protocol::Auto => {
            return Err(usage("expected quic:// or tcp://: the specification is about these".into()));
        }
    };
    let port = if any_port.is_some() { 0 } else { name.port };
    let address = (name.host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let address =
        address.ok_or_else(|| Failure::new(Exit::Network, format!("no address for {}", name.host)))?;
    Ok((transport, address))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Disk };
        Failure::new(exit, format!("could not read {}: {error}", path.display()))
    })
}
