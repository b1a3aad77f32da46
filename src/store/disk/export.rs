//! A task becomes a file: whole, or not at all.

use super::device::DiskFile;
use super::digesting::{Digesting, Passed, Stop, Walk};
use super::{Entry, Inner, content_name};
use crate::runtime::SharedRuntime;
use crate::store::{Missing, StoreError, TaskKey};
use crate::wire::Digest;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

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
    let output = Unfinished::begin(store, &task, target).await?;
    put_beside(store, Pass::new(task).await, output).await
}

async fn put_beside(store: &Arc<Inner>, pass: Pass, output: Output) -> Result<Digest, ExportError> {
    let Output { file, shared } = output;
    // Blocks that both files share are as good as what is read of them here. Others are written as they are read: what
    // is not in the digests yet has to come by in any case, so that a copy within the kernel would save little.
    let sink = (!shared).then(|| file.file.try_clone()).transpose()?;
    let (_, verified) = pass.into_sink(sink).verified(store).await?;
    store.runtime.blocking(move || file.finish()).await.map_err(StoreError::from)??;
    Ok(verified)
}

/// Moves the content to `target`, in place of what is there, and forgets the task.
pub(super) async fn give_away(
    store: &Arc<Inner>,
    key: TaskKey,
    target: &Path,
) -> Result<Digest, ExportError> {
    let (pass, verified) = Pass::new(Whole::of(store, key).await?).await.verified(store).await?;
    let (inner, to) = (Arc::clone(store), target.to_owned());
    // In one job: nobody can be gone between its steps.
    let moved = store.runtime.blocking(move || {
        let entry = inner.take(key).ok_or(Missing::Task).map_err(StoreError::from)?;
        // Of what was read a while ago, somebody who serves it may have found a piece damaged since.
        let stay = |why| {
            entry.state().leaving = false;
            why
        };
        if !entry.task().is_complete() {
            return stay(Err(incomplete(&entry)));
        }
        // It has been durable ever since its last piece was acknowledged. Where the power is cut before the index is told,
        // the next start forgets the task.
        match inner.disk.move_out(&content_name(entry.serial), &to) {
            Ok(()) => Ok(Some(entry)),
            Err(error) => match error.kind() {
                io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported => stay(Ok(None)),
                _ => stay(Err(ExportError::Target(error))),
            },
        }
    });
    match moved.await.map_err(StoreError::from)?? {
        Some(entry) => {
            store.delete(&entry).await?;
            Ok(verified)
        }
        None => {
            let output = Unfinished::begin(store, &pass.task, target).await?;
            let verified = put_beside(store, pass, output).await?;
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
    digest: Option<Digest>,
}

impl Whole {
    async fn of(store: &Arc<Inner>, key: TaskKey) -> Result<Self, ExportError> {
        store.settled().await?;
        let entry = store.entry(key).map_err(StoreError::from)?;
        let task = entry.task();
        if !task.is_complete() {
            return Err(incomplete(&entry));
        }
        let opened = Arc::clone(&entry);
        let content = store.blocking(move |inner| opened.file(&*inner.disk)).await?;
        Ok(Self { entry, content, digest: task.digest })
    }
}

fn incomplete(entry: &Entry) -> ExportError {
    let task = entry.task();
    ExportError::Incomplete { held: task.held, pieces: task.division.pieces() }
}

/// A walk through what is left to read of a task, and, for a copy, through the rest as well.
struct Pass {
    task: Whole,
    /// Nobody else goes on with them meanwhile.
    turn: OwnedMutexGuard<Digesting>,
    digesting: Digesting,
    /// Where the content goes, and what was written there.
    sink: Option<File>,
    written: Walk,
}

impl Pass {
    /// Begins where the digests are that were computed ahead. They count for one export: the next one reads everything.
    async fn new(task: Whole) -> Self {
        let mut turn = task.entry.digesting().lock_owned().await;
        let digesting = mem::take(&mut *turn);
        let (ahead, pieces) = (digesting.passed(), task.entry.division.pieces());
        tracing::debug!(key = %task.entry.key, ahead, pieces, "reads what is not in the digest yet");
        Self { task, turn, digesting, sink: None, written: Walk::default() }
    }

    fn into_sink(mut self, sink: Option<File>) -> Self {
        if sink.is_some() {
            // Its first bytes have gone by already.
            self.digesting.undo_part();
        }
        Self { sink, written: Walk::default(), ..self }
    }

    /// Holds each piece and the whole against their digests; returns the SHA-256 of the whole. A piece that turns out
    /// damaged is marked so.
    async fn verified(mut self, store: &Arc<Inner>) -> Result<(Self, Digest), ExportError> {
        // One job after the other: between them the export can be given up.
        loop {
            let inner = Arc::clone(store);
            let passed = store.runtime.blocking(move || {
                let stop = self.step(&inner);
                (self, stop)
            });
            let stop;
            (self, stop) = passed.await.map_err(StoreError::from)?;
            match stop {
                Ok(Stop::Spent) => {}
                Ok(Stop::End) => {
                    let sha256 = self.digesting.finish(self.task.digest)?;
                    return Ok((self, sha256));
                }
                Ok(Stop::Lacks(_)) => return Err(incomplete(&self.task.entry)),
                Err(ExportError::Store(StoreError::Damaged { number })) => {
                    // Once the piece is here again, it goes on from there.
                    *self.turn = self.digesting;
                    let key = self.task.entry.key;
                    if let Err(error) = store.mark_damaged(key.piece(number)).await {
                        tracing::warn!(%error, %key, number, "a damaged piece could not be marked so");
                    }
                    return Err(StoreError::Damaged { number }.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn step(&mut self, store: &Inner) -> Result<Stop, ExportError> {
        let Self { task: Whole { entry, content, .. }, digesting, sink, written, .. } = self;
        let sink = sink.as_ref();
        let write = |at: u64, bytes: &[u8]| match sink {
            Some(sink) => Ok(sink.write_all_at(bytes, at)?),
            None => Ok(()),
        };
        if sink.is_some() && written.passed() < digesting.passed() {
            // In the digests of the whole already. What is copied is held against those of the pieces once more.
            let copied = written.step(store, entry, &**content, digesting.passed(), |passed| match passed {
                Passed::Bytes(at, bytes) => write(at, bytes),
                Passed::Piece => Ok(()),
            });
            return copied.map(|stop| if stop == Stop::End { Stop::Spent } else { stop });
        }
        let stop = digesting.advance(store, entry, &**content, write);
        written.skip_to(digesting.passed());
        stop
    }
}

/// A file to be, and whether it has its content already.
struct Output {
    file: Unfinished,
    shared: bool,
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
    /// Begins a file beside `target`, with the blocks of the content where the file system can do that.
    async fn begin(store: &Arc<Inner>, task: &Whole, target: &Path) -> Result<Output, ExportError> {
        let (runtime, content, target) =
            (Arc::clone(&store.runtime), Arc::clone(&task.content), target.to_owned());
        let mut tag = [0; 8];
        runtime.fill_random(&mut tag);
        let begun = store.runtime.blocking(move || {
            let file = Self::new(&runtime, &target, tag)?;
            let shared = content.file().is_some_and(|content| share_blocks(&content, &file.file));
            Ok::<_, ExportError>(Output { file, shared })
        });
        begun.await.map_err(StoreError::from)?
    }

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
