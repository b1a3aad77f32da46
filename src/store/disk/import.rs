//! A file becomes a task: one pass, bounded memory.
//!
//! While a buffer is hashed, by the piece and as a whole, the next one is read and written. The task id is known at the
//! end only; content files are named by serial, so none has to be renamed then.

use super::device::DiskFile;
use super::{Inner, Room};
use crate::runtime::SharedRuntime;
use crate::store::{NewTask, StoreError, Task, TaskKey};
use crate::wire::{Algorithm, Digest, Division, DivisionError, Hasher, PieceKind, PieceLength, TaskId};
use sha2::{Digest as _, Sha256};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes that are read at a time; there are two such buffers.
const BUFFER_LEN: usize = 4 << 20;

/// Pieces of an imported task: their digests are in memory until the end, at 65 bytes each.
pub const MAX_IMPORT_PIECES: u64 = 1 << 20;

/// How a file is taken into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportOptions {
    /// The kind of the task.
    pub kind: PieceKind,
    /// The length of its pieces; a 500th of the file, between 4 MiB and 64 MiB, where none is given.
    pub piece_length: Option<PieceLength>,
    /// Which digest its pieces get.
    pub algorithm: Algorithm,
}

/// A file can't be taken into the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source can't be read.
    #[error("the file can't be read: {0}")]
    Source(#[source] io::Error),
    /// A directory, a pipe, a device.
    #[error("expected a file with content: this is a directory, a pipe or a device")]
    NotAFile,
    /// It grew, shrank or was written to.
    #[error("the file changed while it was imported: try again when nobody writes to it")]
    Changed,
    /// It can't be cut so.
    #[error(transparent)]
    Division(#[from] DivisionError),
    /// Too many pieces.
    #[error("{pieces} pieces, expected at most {MAX_IMPORT_PIECES}: choose a larger piece length")]
    TooManyPieces {
        /// How many there would be.
        pieces: u64,
    },
    /// Another took the task's name in the last moment.
    #[error("the same content is being imported or fetched at this moment: try again")]
    Raced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What tells that a file was written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.modified().ok())
    }
}

pub(super) async fn file(
    store: &Arc<Inner>,
    path: &Path,
    options: ImportOptions,
) -> Result<Task, ImportError> {
    let path = path.to_owned();
    let opened = store.runtime.blocking(move || {
        // A pipe would block before it could be told apart: look first.
        if !std::fs::metadata(&path)?.is_file() {
            return Ok(None);
        }
        let source = File::open(path)?;
        let stamp = Stamp::of(&source.metadata()?);
        Ok(Some((source, stamp)))
    });
    let opened = opened.await.map_err(StoreError::from)?.map_err(ImportError::Source)?;
    let (source, stamp) = opened.ok_or(ImportError::NotAFile)?;
    let same = source.try_clone().map_err(ImportError::Source)?;
    let length = stamp.0;
    let unchanged = move || {
        let now = Stamp::of(&same.metadata().map_err(ImportError::Source)?);
        if now == stamp { Ok(()) } else { Err(ImportError::Changed) }
    };
    reader(store, Box::new(source), length, options, unchanged).await
}

pub(super) async fn reader(
    store: &Arc<Inner>,
    source: Box<dyn Read + Send>,
    length: u64,
    options: ImportOptions,
    unchanged: impl FnOnce() -> Result<(), ImportError> + Send + 'static,
) -> Result<Task, ImportError> {
    let division = match options.piece_length {
        Some(piece_length) => Division::new(length, piece_length)?,
        None => Division::by_default(length)?,
    };
    let pieces = division.pieces();
    if pieces > MAX_IMPORT_PIECES {
        return Err(ImportError::TooManyPieces { pieces });
    }
    let serial = store.next_serial();
    let made = store.blocking(move |inner| inner.make_content(serial, length, Room::Reserved)).await?;
    let staged = Staged { store: Arc::clone(store), serial, kept: false };
    let pass = Pass { source, target: Arc::clone(&made), offset: 0, length };
    let hashes = hash_all(&store.runtime, pass, Hashes::new(division, options.algorithm)).await?;
    let (id, digest, digests) = hashes.finish();
    let ended = store.runtime.blocking(move || {
        unchanged()?;
        made.sync().map_err(|error| ImportError::Store(StoreError::io("making content durable", error)))
    });
    ended.await.map_err(StoreError::from)??;

    let new = NewTask { key: TaskKey { kind: options.kind, id }, division, digest: Some(digest) };
    staged.enter(new, digests.into()).await
}

/// A content file that the index does not know yet. Dropped, it is removed.
struct Staged {
    store: Arc<Inner>,
    serial: u64,
    kept: bool,
}

impl Staged {
    async fn enter(mut self, new: NewTask, digests: Arc<[Digest]>) -> Result<Task, ImportError> {
        self.store.settled().await?;
        while self.store.entry(new.key).is_ok() {
            let known = self.store.create(new).await?;
            if known.is_complete() {
                return Ok(known);
            }
            // What is there in part is now here whole.
            if let Some(entry) = self.store.take(new.key) {
                self.store.delete(&entry).await?;
            }
        }
        // From here on the file is the queue's, to keep or to remove.
        self.kept = true;
        if let Some(task) = self.store.enter(new, self.serial, digests).await? {
            return Ok(task);
        }
        // Another was faster. Where it brought all of it, that is as good.
        let known = self.store.entry(new.key).map(|entry| entry.task());
        known
            .ok()
            .filter(|task| task.is_complete() && task.division == new.division)
            .ok_or(ImportError::Raced)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            let (store, serial) = (Arc::clone(&self.store), self.serial);
            self.store.runtime.spawn_blocking(Box::new(move || store.remove_content(serial)));
        }
    }
}

/// Reads and writes buffer by buffer, and hashes each while the next is on its way.
async fn hash_all(
    runtime: &SharedRuntime,
    mut pass: Pass,
    mut hashes: Hashes,
) -> Result<Hashes, ImportError> {
    let (mut full, mut spare) = (Vec::new(), Vec::new());
    loop {
        let next = runtime.blocking(move || {
            pass.next(&mut spare)?;
            Ok::<_, ImportError>((pass, spare))
        });
        let hashed = runtime.blocking(move || {
            hashes.update(&full);
            (hashes, full)
        });
        let (next, hashed) = futures_util::future::join(next, hashed).await;
        (pass, full) = next.map_err(StoreError::from)??;
        (hashes, spare) = hashed.map_err(StoreError::from)?;
        if full.is_empty() {
            return Ok(hashes);
        }
    }
}

/// From the source to the content file.
struct Pass {
    source: Box<dyn Read + Send>,
    target: Arc<dyn DiskFile>,
    offset: u64,
    length: u64,
}

impl Pass {
    /// Fills `buffer` and writes it; it is empty at the end, where the source has to end as well.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<(), ImportError> {
        let rest = self.length - self.offset;
        let wanted = rest.min(BUFFER_LEN as u64);
        buffer.clear();
        buffer.reserve_exact(BUFFER_LEN + 1);
        // One byte more than there should be tells that the source goes on.
        let limit = if wanted == rest { wanted + 1 } else { wanted };
        let read = self.source.by_ref().take(limit).read_to_end(buffer).map_err(ImportError::Source)?;
        if read as u64 != wanted {
            return Err(ImportError::Changed);
        }
        let written = self.target.write_all_at(self.offset, buffer);
        written.map_err(|error| StoreError::io("writing a piece", error))?;
        self.offset += wanted;
        Ok(())
    }
}

/// The digests of what has passed.
struct Hashes {
    division: Division,
    algorithm: Algorithm,
    whole: Sha256,
    piece: Hasher,
    /// Bytes that the piece still lacks.
    lacks: u64,
    done: Vec<Digest>,
}

impl Hashes {
    fn new(division: Division, algorithm: Algorithm) -> Self {
        let lacks = u64::from(division.piece_length());
        let (whole, piece) = (Sha256::default(), Hasher::new(algorithm));
        Self { division, algorithm, whole, piece, lacks, done: Vec::new() }
    }

    fn update(&mut self, mut content: &[u8]) {
        self.whole.update(content);
        while !content.is_empty() {
            let length = usize::try_from(self.lacks).unwrap_or(usize::MAX).min(content.len());
            let (part, rest) = content.split_at(length);
            self.piece.update(part);
            self.lacks -= part.len() as u64;
            if self.lacks == 0 {
                self.next();
            }
            content = rest;
        }
    }

    fn next(&mut self) {
        let piece = std::mem::replace(&mut self.piece, Hasher::new(self.algorithm));
        self.done.push(piece.finish());
        self.lacks = self.division.piece_length().into();
    }

    fn finish(mut self) -> (TaskId, Digest, Vec<Digest>) {
        // The last piece, which is shorter, or the only one of an empty file.
        if (self.done.len() as u64) < self.division.pieces() {
            self.next();
        }
        let hash = self.whole.finalize().into();
        (TaskId::from_sha256(hash), Digest::Sha256(hash), self.done)
    }
}
