//! A task becomes a file: whole, or not at all.

use super::device::DiskFile;
use super::index::PieceRecord;
use super::{Entry, Inner, content_name};
use crate::runtime::SharedRuntime;
use crate::store::{Missing, StoreError, TaskKey};
use crate::wire::{Algorithm, Digest, Hasher};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are copied at a time.
const BUFFER_LEN: usize = 1 << 20;

/// A task can't be written to a file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Pieces are missing.
    #[error("{held} of {pieces} pieces are there: fetch the others first")]
    Incomplete {
        /// How many are held.
        held: u64,
        /// How many the task has.
        pieces: u64,
    },
    /// Every piece is what its digest says, and the whole is not.
    #[error(
        "the content has {computed}, not the digest of its task: delete it and fetch it from other peers"
    )]
    WrongDigest {
        /// The digest of the content.
        computed: Digest,
    },
    /// The file can't be written.
    #[error("the file can't be written: {0}")]
    Target(#[from] io::Error),
    /// The store failed, or a piece of it is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the content beside what is at `target`, and puts it in its place.
pub(super) async fn copy(store: &Arc<Inner>, key: TaskKey, target: &Path) -> Result<Digest, ExportError> {
    let task = Whole::of(store, key).await?;
    let target = target.to_owned();
    let mut tag = [0; 8];
    store.runtime.fill_random(&mut tag);
    let runtime = Arc::clone(&store.runtime);
    let begun = store.runtime.blocking(move || {
        let output = Unfinished::new(&runtime, &target, tag)?;
        let shared = task.content.file().is_some_and(|content| share_blocks(&content, &output.file));
        Ok::<_, ExportError>((task, output, shared))
    });
    let (task, output, shared) = begun.await.map_err(StoreError::from)??;
    // Blocks that both files share are as good as what is read of them here. Others are written as they are read: the
    // content has to come by for its digests in any case, so that a copy within the kernel would save nothing.
    let verified = Pass { task, sink: (!shared).then_some(output.file.try_clone()?) }.verified(store).await?;
    store.runtime.blocking(move || output.finish()).await.map_err(StoreError::from)??;
    Ok(verified)
}

/// Moves the content to `target`, in place of what is there, and forgets the task.
pub(super) async fn give_away(
    store: &Arc<Inner>,
    key: TaskKey,
    target: &Path,
) -> Result<Digest, ExportError> {
    let task = Whole::of(store, key).await?;
    let verified = Pass { task, sink: None }.verified(store).await?;
    let (inner, to) = (Arc::clone(store), target.to_owned());
    // In one job: nobody can be gone between its steps.
    let moved = store.runtime.blocking(move || {
        let entry = inner.take(key).ok_or(Missing::Task).map_err(StoreError::from)?;
        // It has been durable ever since its last piece was acknowledged. Where the power is cut before the index is told,
        // the next start forgets the task.
        match inner.disk.move_out(&content_name(entry.serial), &to) {
            Ok(()) => Ok(Some(entry)),
            Err(error) => {
                entry.state().leaving = false;
                match error.kind() {
                    io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported => Ok(None),
                    _ => Err(ExportError::Target(error)),
                }
            }
        }
    });
    match moved.await.map_err(StoreError::from)?? {
        Some(entry) => {
            store.delete(&entry).await?;
            Ok(verified)
        }
        None => {
            let verified = copy(store, key, target).await?;
            if let Some(entry) = store.take(key) {
                store.delete(&entry).await?;
            }
            Ok(verified)
        }
    }
}

/// Has `output` share the blocks of `content`, on file systems that can do that.
#[cfg(target_os = "linux")]
fn share_blocks(content: &File, output: &File) -> bool {
    rustix::fs::ioctl_ficlone(output, content).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn share_blocks(_content: &File, _output: &File) -> bool {
    false
}

/// A task of which every piece is held, and its content.
struct Whole {
    entry: Arc<Entry>,
    content: Arc<dyn DiskFile>,
    pieces: u64,
    digest: Option<Digest>,
}

impl Whole {
    async fn of(store: &Arc<Inner>, key: TaskKey) -> Result<Self, ExportError> {
        store.settled().await?;
        let entry = store.entry(key).map_err(StoreError::from)?;
        let task = entry.task();
        let pieces = task.division.pieces();
        if !task.is_complete() {
            return Err(ExportError::Incomplete { held: task.held, pieces });
        }
        let opened = Arc::clone(&entry);
        let content = store.blocking(move |inner| opened.file(&*inner.disk)).await?;
        Ok(Self { entry, content, pieces, digest: task.digest })
    }
}

/// A walk through the content of a task.
struct Pass {
    task: Whole,
    /// Where what was read goes.
    sink: Option<File>,
}

/// The digests of the whole, as far as it was read.
struct Hashes {
    sha256: Hasher,
    /// Of the task's digest, where that is another one.
    own: Option<Hasher>,
}

impl Pass {
    /// Reads all of the content, and holds each piece and the whole against their digests; the SHA-256 of the whole. A
    /// piece that turns out damaged is marked so.
    async fn verified(mut self, store: &Arc<Inner>) -> Result<Digest, ExportError> {
        let Whole { entry, pieces, digest, .. } = &self.task;
        let (key, pieces, digest) = (entry.key, *pieces, *digest);
        let own = digest.map(|digest| digest.algorithm()).filter(|it| *it != Algorithm::Sha256);
        let mut hashes = Hashes { sha256: Hasher::new(Algorithm::Sha256), own: own.map(Hasher::new) };
        // A job for each piece: between them the export can be given up.
        for number in 0..=u32::MAX {
            if u64::from(number) >= pieces {
                break;
            }
            let inner = Arc::clone(store);
            let passed = store.runtime.blocking(move || {
                self.piece(&inner, number, &mut hashes)?;
                Ok::<_, ExportError>((self, hashes))
            });
            match passed.await.map_err(StoreError::from)? {
                Ok(state) => (self, hashes) = state,
                Err(error) => {
                    if let ExportError::Store(StoreError::Damaged { number }) = error
                        && let Err(error) = store.mark_damaged(key.piece(number)).await
                    {
                        tracing::warn!(%error, %key, number, "a damaged piece could not be marked so");
                    }
                    return Err(error);
                }
            }
        }
        let sha256 = hashes.sha256.finish();
        let computed = hashes.own.map_or(sha256, Hasher::finish);
        match digest {
            Some(expected) if expected != computed => Err(ExportError::WrongDigest { computed }),
            _ => Ok(sha256),
        }
    }

    fn piece(&mut self, store: &Inner, number: u32, hashes: &mut Hashes) -> Result<(), ExportError> {
        let Whole { entry, content, .. } = &self.task;
        let span = entry.span(number).map_err(StoreError::from)?;
        let Some(PieceRecord::Held(provenance)) = store.index.piece(entry.serial, number)? else {
            return Err(StoreError::from(Missing::Content).into());
        };
        let mut piece = Hasher::new(provenance.digest.algorithm());
        let mut buffer = vec![0; BUFFER_LEN.min(span.length.get() as usize)];
        let (mut offset, end) = (span.offset, span.offset + u64::from(span.length));
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..length).unwrap_or_default();
            let read = content.read_full_at(offset, part);
            if read.map_err(|error| StoreError::io("reading a piece", error))? < length {
                return Err(StoreError::Damaged { number }.into());
            }
            piece.update(part);
            hashes.sha256.update(part);
            if let Some(own) = &mut hashes.own {
                own.update(part);
            }
            if let Some(sink) = &mut self.sink {
                sink.write_all(part)?;
            }
            offset += length as u64;
        }
        if piece.finish() != provenance.digest {
            return Err(StoreError::Damaged { number }.into());
        }
        Ok(())
    }
}

/// A file beside the target that becomes the target once it is whole. Dropped before, it is removed.
struct Unfinished {
    runtime: SharedRuntime,
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn new(runtime: &SharedRuntime, target: &Path, tag: [u8; 8]) -> io::Result<Self> {
        let target = std::path::absolute(target)?;
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let path = target.with_file_name(format!(".{:016x}.part", u64::from_be_bytes(tag)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { runtime: Arc::clone(runtime), file, path, target, finished: false })
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.target)?;
        self.finished = true;
        match self.target.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let path = std::mem::take(&mut self.path);
            self.runtime.spawn_blocking(Box::new(move || {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "an unfinished file could not be removed");
                }
            }));
        }
    }
}
