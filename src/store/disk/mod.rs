//! Pieces on a disk, safe against power cuts.
//!
//! ```text
//!   index.redb         which tasks, which pieces of them are durable, with digest and provenance
//!   <serial>.content   the bytes of one task, each piece at its offset; the index knows whose serial it is
//!   lock               held by the process that has the store open
//! ```
//!
//! A piece is written into the content file of its task, where nobody reads it. Its commit syncs that file, then enters
//! the piece into the index, then syncs the index; only then is it acknowledged, and only what the index has is served.
//! So a power cut at any moment leaves, of each piece, all or nothing, and the order never depends on which unsynced
//! writes a disk happens to keep. Pieces that are committed at the same time share their syncs (`queue`).
//!
//! Nothing writes over bytes that the index vouches for: a piece that is held has no writer, and a damaged one is
//! entered as damaged, durably, before it gets one.

mod ahead;
mod buffers;
mod content;
mod device;
mod digesting;
mod entry;
mod export;
mod import;
mod index;
mod os;
mod queue;
mod writer;

pub use device::{Disk, DiskFile, DiskLock, OpenMode};
pub use export::ExportError;
pub use import::{ImportError, ImportOptions, MAX_IMPORT_PIECES};
pub use os::OsDisk;

use super::{
    Collected, Keep, Missing, NewTask, PieceSet, PieceStore, PieceWriter, Provenance, StoreError,
    StoredPiece, Task, TaskKey,
};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::wire::{Digest, Download, PieceSpan};
use ahead::AHEAD;
use buffers::Buffers;
use entry::{Entry, State, content_name, is_content};
use index::{Change, Found, Index, PieceRecord};
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A store in a directory of a [`Disk`]. Clones share it; the last one that is dropped closes it.
#[derive(Debug, Clone)]
pub struct DiskStore(Arc<Inner>);

struct Inner {
    runtime: SharedRuntime,
    disk: Arc<dyn Disk>,
    index: Index,
    queue: Queue,
    buffers: Buffers,
    growth: super::Growth,
    /// What the index has, and what is in use. Only the queue's job adds and removes.
    tasks: Mutex<BTreeMap<TaskKey, Arc<Entry>>>,
    next_serial: AtomicU64,
    /// Released last, after the index was closed.
    _lock: DiskLock,
}

/// When a content file takes its room on the disk.
#[derive(Debug, Clone, Copy)]
enum Room {
    /// At once: its length is that of a file that is there.
    Reserved,
    /// With the bytes that arrive. The length is what somebody said; whether there would be room for it is looked at, so that an
    /// honest one is not begun in vain, and none of it is taken.
    AsItComes,
}

impl DiskStore {
    /// Opens the store on `disk`, or makes one where there is none, and cleans up what a crash left behind: content
    /// files that the index does not know, and tasks whose content is gone.
    ///
    /// Reads all of the index, to hold its pages against their checksums, and none of the content. An index whose bytes are others
    /// than those that were written is refused, and all content stays.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Corrupt`], [`StoreError::Full`], [`StoreError::Io`].
    pub async fn open(disk: Arc<dyn Disk>, runtime: SharedRuntime) -> Result<Self, StoreError> {
        let inner = Arc::clone(&runtime).blocking(move || Inner::open(disk, runtime)).await??;
        Ok(Self(Arc::new(inner)))
    }

    /// Takes a file into the store as a whole task, whose id is the SHA-256 of its content. Reads the file once, with
    /// 8 MiB of memory and 65 bytes for each piece. Where the task is there already, whole, that one stays.
    ///
    /// # Errors
    /// [`ImportError`]; the store is then as it was before.
    pub async fn import(
        &self,
        source: impl AsRef<Path>,
        options: ImportOptions,
    ) -> Result<Task, ImportError> {
        import::file(&self.0, source.as_ref(), options).await
    }

    /// As [`DiskStore::import`], from a reader that has `length` bytes.
    ///
    /// # Errors
    /// [`ImportError`]; [`ImportError::Changed`] when there are more bytes, or fewer.
    pub async fn import_reader(
        &self,
        source: impl io::Read + Send + 'static,
        length: u64,
        options: ImportOptions,
    ) -> Result<Task, ImportError> {
        import::reader(&self.0, Box::new(source), length, options, || Ok(())).await
    }

    /// Computes the digests of a whole task while its pieces come, so that the [`DiskStore::export`] or
    /// [`DiskStore::give_away`] that follows reads no more than what is left. Each piece is read as soon as all before it are
    /// held, and held against its own digest; one that turns out damaged is marked so, and waited for.
    ///
    /// Ends when all pieces were read, and so not at all where nobody brings them: drop it then. What has been done stays. Takes
    /// 256 KiB of memory, and a blocking job for 8 MiB of content.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the task is not known or is deleted; [`StoreError::Io`]. The export reads the rest then.
    pub async fn digest_ahead(&self, key: TaskKey) -> Result<(), StoreError> {
        digesting::follow(&self.0, key).await
    }

    /// Writes the content of a whole task to `target`, in place of what is there, once all of it is there: verified
    /// piece by piece, and as a whole where the task has a digest. A piece that turns out damaged is marked so.
    /// What [`DiskStore::digest_ahead`] has read counts, for one export.
    ///
    /// The bytes are written under another name in the same directory, which is removed where the export fails or is
    /// given up; a file system that can share blocks between files writes none. Returns the SHA-256 of the content.
    ///
    /// # Errors
    /// [`ExportError`]; what was at `target` is then still there.
    pub async fn export(&self, key: TaskKey, target: impl AsRef<Path>) -> Result<Digest, ExportError> {
        export::copy(&self.0, key, target.as_ref()).await
    }

    /// As [`DiskStore::export`], and the task leaves the store: within one file system its content moves to `target` in
    /// one step, and nothing is copied. Whoever reads the task at that moment goes on reading the same file.
    ///
    /// # Errors
    /// [`ExportError`]; what was at `target`, and the task, are then still there. Where only the index failed,
    /// [`ExportError::Store`], the content is at `target` and the task is gone with the next start.
    pub async fn give_away(&self, key: TaskKey, target: impl AsRef<Path>) -> Result<Digest, ExportError> {
        export::give_away(&self.0, key, target.as_ref()).await
    }
}

impl Inner {
    fn open(disk: Arc<dyn Disk>, runtime: SharedRuntime) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io("opening the store", error);
        let lock = disk.lock().map_err(failed)?.ok_or(StoreError::Locked)?;
        let names = disk.list().map_err(failed)?;
        let index = Index::open(Arc::clone(&disk), &names)?;
        let records = index.tasks()?;
        let next_serial = records.iter().map(|(_, record)| record.serial).max().map_or(0, |last| last + 1);

        let mut unknown: BTreeSet<String> = names.into_iter().filter(|name| is_content(name)).collect();
        let mut tasks = BTreeMap::new();
        let mut gone = Vec::new();
        for (key, record) in records {
            if !unknown.remove(&content_name(record.serial)) {
                gone.push((key, record.serial, Change::Delete));
                continue;
            }
            let state = State {
                digest: record.digest,
                pinned: record.pinned,
                held: record.held,
                accessed: record.accessed,
                accessed_saved: record.accessed,
                ..State::default()
            };
            let (serial, division) = (record.serial, record.division);
            tasks.insert(key, Entry::new(key, serial, division, state));
        }
        if !gone.is_empty() {
            tracing::warn!(tasks = gone.len(), "the content of some tasks is gone, they are forgotten");
            index.change(&gone)?;
        }
        for name in &unknown {
            disk.remove(name).map_err(failed)?;
        }
        Ok(Self {
            growth: super::Growth::default(),
            runtime,
            disk,
            index,
            queue: Queue::default(),
            buffers: Buffers::default(),
            tasks: Mutex::new(tasks),
            next_serial: AtomicU64::new(next_serial),
            _lock: lock,
        })
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskKey, Arc<Entry>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: TaskKey) -> Result<Arc<Entry>, Missing> {
        // The reference is taken under the lock: collection counts references under it.
        let tasks = self.tasks();
        tasks.get(&key).filter(|entry| !entry.state().leaving).cloned().ok_or(Missing::Task)
    }

    fn now(&self) -> u64 {
        self.runtime.unix_time().as_secs()
    }

    /// Runs `job` where it may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Arc<Self>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(self);
        self.runtime.blocking(move || job(&inner)).await?
    }

    async fn create(self: &Arc<Self>, new: NewTask) -> Result<Task, StoreError> {
        self.settled().await?;
        loop {
            if let Ok(entry) = self.entry(new.key) {
                let known = entry.state().digest;
                let digest = super::agree(&entry.division, known, &new)?;
                if let Some(digest) = digest.filter(|_| known.is_none())
                    && self.change(&entry, Change::Digest(digest)).await? == Found::No
                {
                    continue;
                }
                return Ok(entry.task());
            }
            let serial = self.next_serial();
            let length = new.division.length();
            self.blocking(move |inner| inner.make_content(serial, length, Room::AsItComes)).await?;
            // The file is durable. Where another has created the task meanwhile, the queue removes it again.
            if let Some(task) = self.enter(new, serial, Arc::default()).await? {
                return Ok(task);
            }
        }
    }

    fn next_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters a task whose content file is durable, with the first of its pieces, or all. `None`, and the file is gone,
    /// where the task is there already.
    async fn enter(
        self: &Arc<Self>,
        new: NewTask,
        serial: u64,
        digests: Arc<[Digest]>,
    ) -> Result<Option<Task>, StoreError> {
        let accessed = self.now();
        let held = digests.len() as u64;
        let state =
            State { digest: new.digest, held, accessed, accessed_saved: accessed, ..State::default() };
        let entry = Entry::new(new.key, serial, new.division, state);
        let found = self.change(&entry, Change::Create { new, accessed, digests }).await?;
        Ok(matches!(found, Found::Yes { .. }).then(|| entry.task()))
    }

    /// Makes a content file, durable, with the length that it will have.
    fn make_content(&self, serial: u64, length: u64, room: Room) -> Result<Arc<dyn DiskFile>, StoreError> {
        let made = self.disk.open(&content_name(serial), OpenMode::New).and_then(|file| {
            match room {
                Room::Reserved => file.allocate(length)?,
                Room::AsItComes if self.disk.free()?.is_some_and(|free| free < length) => {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Room::AsItComes => file.set_len(length)?,
            }
            file.sync()?;
            self.disk.sync_names()?;
            Ok(file)
        });
        made.map_err(|error| {
            self.remove_content(serial);
            StoreError::io("making room for a task", error)
        })
    }

    /// Removes a content file that the index does not know. Where that fails, the next start does it.
    fn remove_content(&self, serial: u64) {
        match self.disk.remove(&content_name(serial)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, serial, "the content of a task could not be removed");
            }
            _ => {}
        }
    }

    fn piece(self: &Arc<Self>, request: Download) -> Result<StoredPiece, StoreError> {
        self.settle()?;
        let number = request.number;
        let entry = self.entry(request.into())?;
        let span = entry.span(number)?;
        let changes = {
            let state = entry.state();
            if state.damaged.contains(&number) {
                return Err(StoreError::Damaged { number });
            }
            state.ahead.changes()
        };
        //= VTX-REQ-015
        let (record, ahead) = self.index.piece_and_more(entry.serial, number, AHEAD)?;
        let provenance = match record {
            Some(PieceRecord::Held(provenance)) => provenance,
            Some(PieceRecord::Damaged) => return Err(StoreError::Damaged { number }),
            None => return Err(Missing::Content.into()),
        };
        let file = entry.file(&*self.disk)?;
        {
            let mut state = entry.state();
            state.accessed = self.now();
            state.ahead.learn(changes, ahead);
        }
        Ok(self.stored(entry, file, number, span, provenance))
    }

    /// A piece that is held and of which all is known without a look at the disk, its file being open. Whatever is otherwise with it,
    /// [`Inner::piece`] finds out.
    fn at_hand(self: &Arc<Self>, request: Download) -> Option<StoredPiece> {
        if self.queue.has_unsettled() {
            return None;
        }
        let number = request.number;
        let entry = self.entry(request.into()).ok()?;
        let span = entry.span(number).ok()?;
        let (provenance, file) = {
            let mut state = entry.state();
            if state.damaged.contains(&number) {
                return None;
            }
            let known = (state.ahead.get(number)?.clone(), state.file.as_ref()?.upgrade()?);
            state.accessed = self.now();
            known
        };
        Some(self.stored(entry, file, number, span, provenance))
    }

    fn stored(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        file: Arc<dyn DiskFile>,
        number: u32,
        span: PieceSpan,
        provenance: Provenance,
    ) -> StoredPiece {
        let content = content::Stored::new(Arc::clone(self), entry, file, number, span);
        StoredPiece { number, span, provenance, content: Arc::new(content) }
    }

    async fn writer(self: &Arc<Self>, request: Download) -> Result<Box<dyn PieceWriter>, StoreError> {
        self.settled().await?;
        let number = request.number;
        let entry = self.entry(request.into())?;
        let span = entry.span(number)?;
        let slot = writer::Slot::take(entry, number)?;
        let (slot, file, record) = self
            .blocking(move |inner| {
                let record = inner.index.piece(slot.entry().serial, number)?;
                Ok((Arc::clone(&slot), slot.entry().file(&*inner.disk)?, record))
            })
            .await?;
        if let Some(PieceRecord::Held(_)) = record {
            if !slot.entry().state().damaged.contains(&number) {
                return Err(StoreError::Held { number });
            }
            // It was found damaged, and the index could not be told: before the bytes change, it has to be.
            self.change(slot.entry(), Change::Damaged { number }).await?;
        }
        Ok(Box::new(writer::Writer::new(Arc::clone(self), slot, file, span)))
    }

    async fn mark_damaged(self: &Arc<Self>, request: Download) -> Result<(), StoreError> {
        self.settled().await?;
        let number = request.number;
        let Ok(entry) = self.entry(request.into()) else { return Ok(()) };
        let serial = entry.serial;
        let record = self.blocking(move |inner| inner.index.piece(serial, number)).await?;
        if let Some(PieceRecord::Held(_)) = record {
            entry.state().damaged.insert(number);
            self.change(&entry, Change::Damaged { number }).await?;
        }
        Ok(())
    }

    /// Marks a task as leaving, whoever uses it.
    fn take(&self, key: TaskKey) -> Option<Arc<Entry>> {
        let tasks = self.tasks();
        let entry = tasks.get(&key)?;
        let was_leaving = std::mem::replace(&mut entry.state().leaving, true);
        (!was_leaving).then(|| Arc::clone(entry))
    }

    /// Deletes a task that was marked as leaving, which it no longer is when this fails.
    async fn delete(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), StoreError> {
        self.change(entry, Change::Delete).await.map(|_| ())
    }

    async fn collect(self: &Arc<Self>, keep: Keep) -> Result<Collected, StoreError> {
        self.settled().await?;
        self.save_accesses().await?;
        let mut collected = Collected::default();
        let mut bytes: u64 = self.tasks().values().fold(0, |sum, e| sum.saturating_add(e.division.length()));
        let mut oldest: Vec<_> =
            self.tasks().values().map(|e| (e.state().accessed, e.key, e.serial)).collect();
        oldest.sort_unstable();
        for (accessed, key, serial) in oldest {
            if !keep.wants_less(bytes, Duration::from_secs(self.now().saturating_sub(accessed))) {
                break;
            }
            let Some(entry) = self.take_idle(key, serial, accessed) else { continue };
            self.delete(&entry).await?;
            let length = entry.division.length();
            bytes = bytes.saturating_sub(length);
            collected.bytes = collected.bytes.saturating_add(length);
            collected.tasks.push(key);
        }
        Ok(collected)
    }

    /// Marks a task as leaving, if nobody uses it or has used it since.
    fn take_idle(&self, key: TaskKey, serial: u64, accessed: u64) -> Option<Arc<Entry>> {
        let tasks = self.tasks();
        let entry = tasks.get(&key).filter(|entry| entry.serial == serial)?;
        let mut state = entry.state();
        if state.pinned || state.leaving || state.accessed != accessed || Arc::strong_count(entry) > 1 {
            return None;
        }
        state.leaving = true;
        drop(state);
        Some(Arc::clone(entry))
    }

    /// Enters into the index when tasks were read last: not worth a sync of its own at each read.
    async fn save_accesses(self: &Arc<Self>) -> Result<(), StoreError> {
        let entries: Vec<_> = self.tasks().values().cloned().collect();
        let mut saved = Vec::new();
        for entry in entries {
            let (accessed, known) = {
                let state = entry.state();
                (state.accessed, state.accessed_saved)
            };
            if accessed != known {
                saved.push(self.submit(entry, Change::Accessed(accessed), None));
            }
        }
        for done in saved {
            done.await.map_err(|_| StoreError::Unavailable)??;
        }
        Ok(())
    }
}

impl PieceStore for DiskStore {
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<Task, StoreError>> {
        Box::pin(self.0.create(task))
    }

    fn task(&self, key: TaskKey) -> BoxFuture<'_, Result<Option<Task>, StoreError>> {
        Box::pin(async move {
            self.0.settled().await?;
            Ok(self.0.entry(key).ok().map(|entry| entry.task()))
        })
    }

    fn tasks(&self) -> BoxFuture<'_, Result<Vec<Task>, StoreError>> {
        Box::pin(async move {
            self.0.settled().await?;
            let tasks = self.0.tasks();
            let tasks = tasks.values().filter(|entry| !entry.state().leaving).map(|entry| entry.task());
            Ok(tasks.collect())
        })
    }

    fn held(&self, key: TaskKey) -> BoxFuture<'_, Result<PieceSet, StoreError>> {
        Box::pin(self.0.blocking(move |inner| {
            inner.settle()?;
            let entry = inner.entry(key)?;
            // Read under the lock, which every later change of it takes.
            let mut state = entry.state();
            if state.pieces.is_none() {
                state.pieces = Some(inner.index.held(entry.serial)?);
            }
            let mut held = state.pieces.clone().unwrap_or_default();
            for number in &state.damaged {
                held.remove(*number);
            }
            Ok(held)
        }))
    }

    fn grown(&self) -> BoxFuture<'static, ()> {
        self.0.growth.wait()
    }

    fn piece(&self, request: Download) -> BoxFuture<'_, Result<StoredPiece, StoreError>> {
        Box::pin(async move {
            match self.0.at_hand(request) {
                Some(piece) => Ok(piece),
                None => self.0.blocking(move |inner| inner.piece(request)).await,
            }
        })
    }

    fn writer(&self, request: Download) -> BoxFuture<'_, Result<Box<dyn PieceWriter>, StoreError>> {
        Box::pin(self.0.writer(request))
    }

    fn mark_damaged(&self, request: Download) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.0.mark_damaged(request))
    }

    fn pin(&self, key: TaskKey, pinned: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.0.settled().await?;
            let entry = self.0.entry(key)?;
            match self.0.change(&entry, Change::Pin(pinned)).await? {
                Found::Yes { .. } => Ok(()),
                Found::No => Err(Missing::Task.into()),
            }
        })
    }

    fn delete(&self, key: TaskKey) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            self.0.settled().await?;
            let Some(entry) = self.0.take(key) else { return Ok(false) };
            self.0.delete(&entry).await.map(|()| true)
        })
    }

    fn collect(&self, keep: Keep) -> BoxFuture<'_, Result<Collected, StoreError>> {
        Box::pin(self.0.collect(keep))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("disk", &self.disk).finish_non_exhaustive()
    }
}
