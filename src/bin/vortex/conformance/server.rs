//! `vortex conformance server`.

use super::{Common, print_list, read, resolve};
use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::world::{World, block_on};
use clap::Args;
use std::path::PathBuf;
use vortex_p2p::conformance::server::{Fixture, Target, check, list};
use vortex_p2p::store::TaskKey;
use vortex_p2p::wire::{Algorithm, Digest, Division, Download, PieceKind, PieceLength, TaskId};

/// Play a client, good and evil, against a server
///
/// The server has to hold a task that is not empty, and no other kind of the same id. What else is told of what it holds
/// lets more cases be run; the others are skipped, and say what they need.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The server: quic://HOST:PORT or tcp://HOST:PORT; may be given several times
    #[arg(long, value_name = "URL", required_unless_present = "list", env = "VORTEX_PEER")]
    peer: Vec<String>,
    /// The task that it holds; that of --file by its SHA-256 where this is not given
    #[arg(long, value_name = "ID", required_unless_present_any = ["list", "file"])]
    task: Option<TaskId>,
    /// The task's kind
    #[arg(long, default_value = "piece")]
    kind: PieceKind,
    /// The content of the task, all pieces of which the server then holds
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The task's piece length in bytes; the default one for --file where this is not given
    #[arg(long, value_name = "BYTES", requires = "file")]
    piece_length: Option<u64>,
    /// An empty task that it holds
    #[arg(long, value_name = "KIND:ID")]
    empty: Option<Named>,
    /// A piece that it knows to be damaged
    #[arg(long, value_name = "KIND:ID:NUMBER")]
    damaged: Option<Named>,
    /// A piece that it does not hold, of a task that it knows
    #[arg(long, value_name = "KIND:ID:NUMBER")]
    absent: Option<Named>,
    #[command(flatten)]
    common: Common,
}

/// A task, and perhaps one of its pieces.
#[derive(Debug, Clone, Copy)]
struct Named {
    key: TaskKey,
    number: u32,
}

impl std::str::FromStr for Named {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let kind: PieceKind = parts.next().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
        let id: TaskId = parts.next().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
        let number = parts.next().unwrap_or("0").parse().map_err(|error| format!("{error}"))?;
        Ok(Self { key: TaskKey { kind, id }, number })
    }
}

impl Named {
    fn piece(self) -> Download {
        self.key.piece(self.number)
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let Arguments { common, .. } = arguments;
    let settings = common.settings()?;
    if common.list {
        return print_list(
            list().into_iter().map(|case| (case.id, case.quic, case.tcp, case.about)),
            &settings,
        );
    }
    let fixture = arguments.fixture()?;
    let reports = block_on(async {
        let World { runtime, network, .. } = World::new();
        let mut reports = Vec::new();
        for peer in &arguments.peer {
            let (transport, address) = resolve(peer, false)?;
            let target = Target {
                transport,
                address,
                fixture: fixture.clone(),
                deadlines: common.deadlines(),
                waits: common.waits(),
            };
            reports.extend(check(runtime.clone(), network.clone(), target, &settings).await);
        }
        Ok(reports)
    })?;
    common.report(&reports, output)
}

impl Arguments {
    fn fixture(&self) -> Result<Fixture, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let content = self.file.as_deref().map(read).transpose()?;
        let id = match (&self.task, &content) {
            (Some(id), _) => *id,
            (None, Some(content)) => match Digest::of(Algorithm::Sha256, content) {
                Digest::Sha256(hash) => TaskId::from_sha256(hash),
                _ => return Err(usage("expected --task".into())),
            },
            (None, None) => return Err(usage("expected --task or --file".into())),
        };
        let division = match (&content, self.piece_length) {
            (None, _) => None,
            (Some(content), None) => Some(Division::by_default(content.len() as u64)),
            (Some(content), Some(length)) => {
                let length = PieceLength::try_from(length).map_err(|error| usage(error.to_string()))?;
                Some(Division::new(content.len() as u64, length))
            }
        };
        Ok(Fixture {
            content: content.map(Into::into),
            division: division.transpose().map_err(|error| usage(error.to_string()))?,
            empty: self.empty.map(|named| named.key),
            damaged: self.damaged.map(Named::piece),
            absent: self.absent.map(Named::piece),
            ..Fixture::new(TaskKey { kind: self.kind, id })
        })
    }
}
