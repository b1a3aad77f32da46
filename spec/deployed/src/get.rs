//! `deployed-peer get`: a task from its parents, with the daemon's clients and into its storage. The daemon asks a scheduler
//! for the next parent; here it is the next one that was named.

use crate::Result;
use crate::peer::{Client, Peer, Transport};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::path::{Path, PathBuf};
use vortex_p2p::wire::{Division, PieceLength, PieceSpan};

/// Fetch a task
#[derive(Args)]
pub(crate) struct Arguments {
    /// The id of the task
    task: String,
    /// Whom to ask for it: tcp://ADDRESS or quic://ADDRESS; with several, each piece is asked of the next where one fails
    #[arg(long, required = true)]
    peer: Vec<String>,
    /// Bytes of the content
    #[arg(long)]
    length: u64,
    /// Bytes of a piece
    #[arg(long)]
    piece_length: u64,
    /// The file to write; beside it is the storage meanwhile, with `.storage` appended
    #[arg(long, short)]
    output: PathBuf,
}

/// Pieces at a time, as in a daemon.
const CONCURRENCY: usize = 8;

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut dir = arguments.output.clone().into_os_string();
    dir.push(".storage");
    // Nobody else's is removed.
    std::fs::create_dir(&dir)?;
    let fetched = fetch(&arguments, dir.as_ref()).await;
    let removed = std::fs::remove_dir_all(dir);
    fetched.and_then(|()| Ok(removed?))
}

async fn fetch(arguments: &Arguments, dir: &Path) -> Result<()> {
    let Arguments { task, length, piece_length, .. } = arguments;
    let division = Division::new(*length, PieceLength::try_from(*piece_length)?)?;
    let peer = Peer::open(dir).await?;
    peer.begin(task, division).await?;
    let parents = arguments.peer.iter().map(|parent| client(parent)).collect::<Result<Vec<_>>>()?;
    let pieces = (0..u32::MAX).map_while(|number| Some((number, division.piece(number)?)));
    stream::iter(pieces)
        .map(|(number, span)| piece(&peer, &parents, task, number, span))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    peer.end(task)?;
    peer.copy(task, &arguments.output).await
}

fn client(parent: &str) -> Result<Client> {
    let (transport, address) = match parent.split_once("://") {
        Some(("tcp", address)) => (Transport::Tcp, address),
        Some(("quic", address)) => (Transport::Quic, address),
        _ => return Err(format!("expected tcp://ADDRESS or quic://ADDRESS: {parent}").into()),
    };
    Ok(Client::new(transport, address.parse()?))
}

async fn piece(peer: &Peer, parents: &[Client], task: &str, number: u32, span: PieceSpan) -> Result<()> {
    let mut outcome = Ok(());
    for parent in parents {
        let taken = async { peer.take(task, number, span, parent.request(task, number).await?).await };
        outcome = taken.await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
