//! `deployed-peer serve`: files, over TCP and QUIC, until it is killed.

use crate::Result;
use crate::peer::{Peer, Transport};
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;
use vortex_p2p::wire::{Division, PieceLength};

/// Serve files over TCP and QUIC, and say where: READY, and a JSON object
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where its storage is
    #[arg(long)]
    dir: PathBuf,
    /// A file, and the id of the task that it is: 64 hexadecimal digits
    #[arg(long, value_names = ["ID", "FILE"], num_args = 2, required = true)]
    file: Vec<String>,
    /// Bytes of a piece
    #[arg(long)]
    piece_length: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let peer = Peer::open(&arguments.dir).await?;
    let piece_length = PieceLength::try_from(arguments.piece_length)?;
    for file in arguments.file.chunks_exact(2) {
        let [id, path] = file else { continue };
        let division = Division::new(std::fs::metadata(path)?.len(), piece_length)?;
        peer.import(id, division, path.as_ref()).await?;
    }
    let ready =
        serde_json::json!({ "tcp": peer.serve(Transport::Tcp)?, "quic": peer.serve(Transport::Quic)? });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "READY {ready}")?;
    stdout.flush()?;
    std::future::pending().await
}
