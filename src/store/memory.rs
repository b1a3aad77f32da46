//! Pieces in memory: for tests, simulations and small caches.

use super::{
    Collected, Content, Keep, Missing, NewTask, ParentId, PieceSet, PieceStore, PieceWriter, Provenance,
    StoreError, StoredPiece, Task, TaskKey,
};
use crate::runtime::{BoxFuture, SharedRuntime};
use crate::wire::{Digest, Division, Download, PieceSpan};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A store that forgets everything when it is dropped. Clones share one content.
///
/// Memory grows with the bytes written, not with the lengths declared.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    runtime: SharedRuntime,
    tasks: Mutex<BTreeMap<TaskKey, Entry>>,
    growth: super::Growth,
}

struct Entry {
    division: Division,
    digest: Option<Digest>,
    pinned: bool,
    /// Since the Unix epoch.
    accessed: Duration,
    pieces: BTreeMap<u32, Piece>,
    writing: BTreeSet<u32>,
    /// Tells this task from a later one of the same name; its count tells how many readers and writers there are.
    lease: Arc<()>,
}

struct Piece {
    provenance: Provenance,
    content: Bytes,
    damaged: bool,
}

impl MemoryStore {
    /// An empty store; it reads the wall clock of `runtime` to know which task was accessed last.
    #[must_use]
    pub fn new(runtime: SharedRuntime) -> Self {
        Self(Arc::new(Inner { runtime, tasks: Mutex::default(), growth: super::Growth::default() }))
    }

    /// Keeps `content` as a whole task: cut into pieces, with digests by `algorithm`, as coming from nowhere.
    ///
    /// # Errors
    /// Those of [`PieceStore::create`] and [`PieceStore::writer`].
    pub async fn insert(
        &self,
        task: NewTask,
        algorithm: crate::wire::Algorithm,
        content: &Bytes,
    ) -> Result<Task, StoreError> {
        let length = task.division.length();
        if content.len() as u64 != length {
            return Err(StoreError::Incomplete { written: content.len() as u64, expected: length });
        }
        self.create(task).await?;
        for number in 0..=u32::MAX {
            let Some(span) = task.division.piece(number) else { break };
            let start = usize::try_from(span.offset).unwrap_or(usize::MAX);
            let bytes = content.slice(start..start + span.length.get() as usize);
            let provenance = Provenance {
                digest: Digest::of(algorithm, &bytes),
                parent_id: ParentId::default(),
                cost: 0,
                created_at: i64::try_from(self.0.runtime.unix_time().as_secs()).unwrap_or(i64::MAX),
            };
            let mut writer = self.writer(task.key.piece(number)).await?;
            writer.write(bytes).await?;
            writer.commit(provenance).await?;
        }
        self.0.task(task.key).ok_or_else(|| Missing::Task.into())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("tasks", &self.0.lock().len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskKey, Entry>> {
        // Nothing panics while the lock is held.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, new: &NewTask) -> Result<Task, StoreError> {
        let mut tasks = self.lock();
        let entry = tasks.entry(new.key).or_insert_with(|| Entry {
            division: new.division,
            digest: new.digest,
            pinned: false,
            accessed: self.runtime.unix_time(),
            pieces: BTreeMap::new(),
            writing: BTreeSet::new(),
            lease: Arc::new(()),
        });
        entry.digest = super::agree(&entry.division, entry.digest, new)?;
        Ok(entry.task(new.key))
    }

    fn task(&self, key: TaskKey) -> Option<Task> {
        self.lock().get(&key).map(|entry| entry.task(key))
    }

    fn piece(&self, request: Download) -> Result<StoredPiece, StoreError> {
        let mut tasks = self.lock();
        let entry = tasks.get_mut(&request.into()).ok_or(Missing::Task)?;
        let span = entry.span(request.number)?;
        entry.accessed = self.runtime.unix_time();
        //= VTX-REQ-015
        let piece = entry.pieces.get(&request.number).ok_or(Missing::Content)?;
        if piece.damaged {
            return Err(StoreError::Damaged { number: request.number });
        }
        let content = Held { bytes: piece.content.clone(), _lease: Arc::clone(&entry.lease) };
        Ok(StoredPiece {
            number: request.number,
            span,
            provenance: piece.provenance.clone(),
            content: Arc::new(content),
        })
    }

    fn writer(self: &Arc<Self>, request: Download) -> Result<Box<dyn PieceWriter>, StoreError> {
        let number = request.number;
        let mut tasks = self.lock();
        let entry = tasks.get_mut(&request.into()).ok_or(Missing::Task)?;
        let span = entry.span(number)?;
        if entry.pieces.get(&number).is_some_and(|piece| !piece.damaged) {
            return Err(StoreError::Held { number });
        }
        if !entry.writing.insert(number) {
            return Err(StoreError::Busy { number });
        }
        let lease = Arc::clone(&entry.lease);
        Ok(Box::new(Writer {
            store: Arc::clone(self),
            request,
            span,
            content: BytesMut::new(),
            failed: false,
            lease,
        }))
    }

    fn collect(&self, keep: Keep) -> Collected {
        let mut collected = Collected::default();
        let mut tasks = self.lock();
        let mut bytes: u64 = tasks.values().fold(0, |sum, entry| sum.saturating_add(entry.division.length()));
        let mut oldest: Vec<_> = tasks.iter().map(|(key, entry)| (entry.accessed, *key)).collect();
        oldest.sort_unstable();
        let now = self.runtime.unix_time();
        for (accessed, key) in oldest {
            if !keep.wants_less(bytes, now.saturating_sub(accessed)) {
                break;
            }
            let Some(entry) = tasks.get(&key) else { continue };
            if entry.pinned || Arc::strong_count(&entry.lease) > 1 {
                continue;
            }
            let length = entry.division.length();
            tasks.remove(&key);
            bytes = bytes.saturating_sub(length);
            collected.bytes = collected.bytes.saturating_add(length);
            collected.tasks.push(key);
        }
        collected
    }
}

impl Entry {
    fn task(&self, key: TaskKey) -> Task {
        Task {
            key,
            division: self.division,
            digest: self.digest,
            held: self.pieces.values().filter(|piece| !piece.damaged).count() as u64,
            pinned: self.pinned,
        }
    }

    fn span(&self, number: u32) -> Result<PieceSpan, Missing> {
        self.division.piece(number).ok_or(Missing::Piece { pieces: self.division.pieces() })
    }
}

impl PieceStore for MemoryStore {
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<Task, StoreError>> {
        Box::pin(ready(self.0.create(&task)))
    }

    fn task(&self, key: TaskKey) -> BoxFuture<'_, Result<Option<Task>, StoreError>> {
        Box::pin(ready(Ok(self.0.task(key))))
    }

    fn tasks(&self) -> BoxFuture<'_, Result<Vec<Task>, StoreError>> {
        let tasks = self.0.lock().iter().map(|(key, entry)| entry.task(*key)).collect();
        Box::pin(ready(Ok(tasks)))
    }

    fn held(&self, key: TaskKey) -> BoxFuture<'_, Result<PieceSet, StoreError>> {
        let held = self.0.lock().get(&key).map(|entry| {
            let held = entry.pieces.iter().filter(|(_, piece)| !piece.damaged);
            held.map(|(number, _)| *number).collect()
        });
        Box::pin(ready(held.ok_or_else(|| Missing::Task.into())))
    }

    fn grown(&self) -> BoxFuture<'static, ()> {
        self.0.growth.wait()
    }

    fn piece(&self, request: Download) -> BoxFuture<'_, Result<StoredPiece, StoreError>> {
        Box::pin(ready(self.0.piece(request)))
    }

    fn writer(&self, request: Download) -> BoxFuture<'_, Result<Box<dyn PieceWriter>, StoreError>> {
        Box::pin(ready(self.0.writer(request)))
    }

    fn mark_damaged(&self, request: Download) -> BoxFuture<'_, Result<(), StoreError>> {
        if let Some(entry) = self.0.lock().get_mut(&request.into())
            && let Some(piece) = entry.pieces.get_mut(&request.number)
        {
            piece.damaged = true;
        }
        Box::pin(ready(Ok(())))
    }

    fn pin(&self, key: TaskKey, pinned: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        let found = self.0.lock().get_mut(&key).map(|entry| entry.pinned = pinned);
        Box::pin(ready(found.ok_or_else(|| Missing::Task.into())))
    }

    fn delete(&self, key: TaskKey) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(ready(Ok(self.0.lock().remove(&key).is_some())))
    }

    fn collect(&self, keep: Keep) -> BoxFuture<'_, Result<Collected, StoreError>> {
        Box::pin(ready(Ok(self.0.collect(keep))))
    }
}

struct Held {
    bytes: Bytes,
    _lease: Arc<()>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in memory", self.bytes.len())
    }
}

impl Content for Held {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(max).min(self.bytes.len());
        Box::pin(ready(Ok(self.bytes.slice(start..end))))
    }
}

struct Writer {
    store: Arc<Inner>,
    request: Download,
    span: PieceSpan,
    content: BytesMut,
    failed: bool,
    lease: Arc<()>,
}

impl Writer {
    fn append(&mut self, content: &[u8]) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Unavailable);
        }
        let expected = u64::from(self.span.length);
        if (self.content.len() + content.len()) as u64 > expected {
            self.failed = true;
            return Err(StoreError::Overrun { expected });
        }
        self.content.extend_from_slice(content);
        Ok(())
    }

    fn commit(mut self, provenance: Provenance) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Unavailable);
        }
        let (written, expected) = (self.written(), u64::from(self.span.length));
        if written != expected {
            return Err(StoreError::Incomplete { written, expected });
        }
        let content = std::mem::take(&mut self.content).freeze();
        let mut tasks = self.store.lock();
        let entry =
            tasks.get_mut(&self.request.into()).filter(|entry| Arc::ptr_eq(&entry.lease, &self.lease));
        let entry = entry.ok_or(Missing::Task)?;
        entry.accessed = self.store.runtime.unix_time();
        entry.pieces.insert(self.request.number, Piece { provenance, content, damaged: false });
        drop(tasks);
        self.store.growth.tell();
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writer of {:?}, {} of {} bytes", self.request, self.content.len(), self.span.length)
    }
}

impl PieceWriter for Writer {
    fn span(&self) -> PieceSpan {
        self.span
    }

    fn written(&self) -> u64 {
        self.content.len() as u64
    }

    fn write(&mut self, content: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(self.append(&content)))
    }

    fn commit(self: Box<Self>, provenance: Provenance) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(ready((*self).commit(provenance)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut tasks = self.store.lock();
        // A task that was deleted and made anew under this name has writers of its own.
        if let Some(entry) = tasks.get_mut(&self.request.into())
            && Arc::ptr_eq(&entry.lease, &self.lease)
        {
            entry.writing.remove(&self.request.number);
        }
    }
}
