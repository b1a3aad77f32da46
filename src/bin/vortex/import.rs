//! `vortex import`: a file becomes a task in a store.

use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::files::{self, Readers};
use crate::world::{World, block_on};
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vortex_p2p::config::ByteSize;
use vortex_p2p::store::disk::{DiskStore, ImportError, ImportOptions, OsDisk};
use vortex_p2p::store::{Manifest, StoreError, Task};
use vortex_p2p::wire::{Algorithm, PieceKind, PieceLength};

/// Cut a file into pieces and keep them in a directory, from which `serve` gives them
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file
    file: PathBuf,
    /// The directory of the store; it is made where it is not there
    #[arg(long, env = "VORTEX_DIR")]
    dir: PathBuf,
    #[command(flatten)]
    cut: CutArguments,
    /// Where the manifest goes, in place of TASK.json in this directory
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// How a file becomes a task.
#[derive(Debug, Clone, Args)]
pub(crate) struct CutArguments {
    /// Kind of the task: piece, persistent, persistent-cache, cache
    #[arg(long, default_value = "piece", env = "VORTEX_KIND")]
    pub(crate) kind: PieceKind,
    /// Length of a piece, such as 4MiB; a 500th of the file between 4 MiB and 64 MiB where none is given
    #[arg(long, value_name = "SIZE", value_parser = piece_length, env = "VORTEX_PIECE_LENGTH")]
    pub(crate) piece_length: Option<PieceLength>,
    /// Digest of each piece: crc32 finds accidents, sha256 and sha512 attackers as well
    #[arg(long, default_value = "crc32", env = "VORTEX_DIGEST")]
    pub(crate) digest: Algorithm,
}

impl CutArguments {
    pub(crate) fn options(&self) -> ImportOptions {
        ImportOptions { kind: self.kind, piece_length: self.piece_length, algorithm: self.digest }
    }
}

pub(crate) fn piece_length(text: &str) -> Result<PieceLength, String> {
    let ByteSize(size) = text.parse::<ByteSize>().map_err(|error| error.to_string())?;
    match PieceLength::try_from(size) {
        Ok(length) if size > 0 => Ok(length),
        _ => Err(format!("expected 1 byte to 1 GiB, found {size} bytes")),
    }
}

/// What scripts read.
#[derive(Serialize)]
struct Imported<'a> {
    task: String,
    kind: &'static str,
    length: u64,
    piece_length: u64,
    pieces: u64,
    manifest: &'a Path,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<Exit, Failure> {
    block_on(async {
        let world = World::new();
        let store = open(&world, &arguments.dir).await?;
        let task = import(&store, &arguments.file, arguments.cut.options()).await?;
        let path =
            arguments.manifest.clone().unwrap_or_else(|| PathBuf::from(format!("{}.json", task.key.id)));
        let manifest = Manifest::of(&store, task.key).await?;
        files::write(&path, manifest.to_json().as_bytes(), Readers::Everyone)
            .map_err(|error| Failure::file(&path, &error))?;
        let Task { key, division, .. } = task;
        let imported = Imported {
            task: key.id.to_string(),
            kind: key.kind.name(),
            length: division.length(),
            piece_length: division.piece_length().into(),
            pieces: division.pieces(),
            manifest: &path,
        };
        let mut out = std::io::stdout();
        if output.json {
            writeln!(out, "{}", serde_json::to_string(&imported).unwrap_or_default())?;
        } else {
            writeln!(out, "{}", key.id)?;
            tracing::info!(pieces = division.pieces(), manifest = %path.display(), "imported");
        }
        Ok(Exit::Done)
    })
}

/// Opens the store in `dir`.
pub(crate) async fn open(world: &World, dir: &Path) -> Result<DiskStore, Failure> {
    let disk = OsDisk::open(dir).map_err(|error| Failure::file(dir, &error))?;
    DiskStore::open(Arc::new(disk), world.runtime.clone())
        .await
        .map_err(|error| Failure::from(error).context(dir))
}

/// Takes a file into `store`.
pub(crate) async fn import(store: &DiskStore, file: &Path, options: ImportOptions) -> Result<Task, Failure> {
    store.import(file, options).await.map_err(|error| match error {
        ImportError::Source(error) => Failure::file(file, &error),
        ImportError::Store(error) => Failure::from(error),
        ImportError::NotAFile => Failure::new(Exit::Usage, format!("{}: {error}", file.display())),
        error => Failure::new(Exit::Other, format!("{}: {error}", file.display())),
    })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Missing(_) => Exit::NotFound,
            StoreError::Damaged { .. } => Exit::Corrupt,
            StoreError::Full { .. } | StoreError::Io { .. } | StoreError::Corrupt { .. } => Exit::Disk,
            _ => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}
