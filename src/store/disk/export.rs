//! A task becomes a file: whole, or not at all.

use super::device::DiskFile;
use super::index::PieceRecord;
use super::{Entry, Inner};
use crate::runtime::SharedRuntime;
use crate::store::{Missing, StoreError, TaskKey};
use crate::wire::{Digest, Hasher};
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

pub(super) async fn file(store: &Arc<Inner>, key: TaskKey, target: &Path) -> Result<(), ExportError> {
    store.settled().await?;
    let entry = store.entry(key).map_err(StoreError::from)?;
    let task = entry.task();
    let pieces = task.division.pieces();
    if !task.is_complete() {
        return Err(ExportError::Incomplete { held: task.held, pieces });
    }
    let target = target.to_owned();
    let mut tag = [0; 8];
    store.runtime.fill_random(&mut tag);
    let inner = Arc::clone(store);
    let begun = store.runtime.blocking(move || {
        let file = entry.file(&*inner.disk)?;
        Ok::<_, ExportError>((Unfinished::new(&inner.runtime, &target, tag)?, entry, file))
    });
    let (mut output, entry, file) = begun.await.map_err(StoreError::from)??;
    let mut whole = task.digest.map(|digest| Hasher::new(digest.algorithm()));
    // A job for each piece: between them the export can be given up.
    for number in 0..=u32::MAX {
        if u64::from(number) >= pieces {
            break;
        }
        let (inner, entry, file) = (Arc::clone(store), Arc::clone(&entry), Arc::clone(&file));
        let copied = store.runtime.blocking(move || {
            copy_piece(&inner, &entry, &*file, number, &mut output.file, whole.as_mut())?;
            Ok::<_, ExportError>((output, whole))
        });
        match copied.await.map_err(StoreError::from)? {
            Ok(state) => (output, whole) = state,
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
    if let Some((computed, expected)) = whole.map(Hasher::finish).zip(task.digest)
        && computed != expected
    {
        return Err(ExportError::WrongDigest { computed });
    }
    Ok(store.runtime.blocking(move || output.finish()).await.map_err(StoreError::from)??)
}

fn copy_piece(
    store: &Inner,
    entry: &Entry,
    content: &dyn DiskFile,
    number: u32,
    output: &mut File,
    mut whole: Option<&mut Hasher>,
) -> Result<(), ExportError> {
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
        if let Some(whole) = &mut whole {
            whole.update(part);
        }
        output.write_all(part)?;
        offset += length as u64;
    }
    if piece.finish() != provenance.digest {
        return Err(StoreError::Damaged { number }.into());
    }
    Ok(())
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
