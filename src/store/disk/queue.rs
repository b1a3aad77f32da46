//! Group commit: whatever waits for the index goes in one transaction, and for one sync of each content file.
//!
//! A lone change starts a job at once and waits for nobody. Changes that arrive while the job is at the disk wait
//! together and go next; so the busier the disk, the more share a sync.

use super::device::DiskFile;
use super::index::{Change, Found};
use super::writer::Slot;
use super::{Entry, Inner};
use crate::canary::planted;
use crate::store::{StoreError, TaskKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Changes in one transaction: enough to share its syncs, few enough that none waits long.
const BATCH: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Changes whose commit failed together with the look whether it did: they may stand or not.
    unsettled: Mutex<VecDeque<(Arc<Entry>, Change)>>,
    /// Whether there are any.
    is_unsettled: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Pending>,
    /// A job is under way and takes what comes.
    running: bool,
}

/// Written content that has to be durable before its piece is in the index.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) _slot: Arc<Slot>,
    pub(super) file: Arc<dyn DiskFile>,
    /// How many syncs of the file had failed before the first byte was written.
    pub(super) lost: u64,
}

#[derive(Debug)]
struct Pending {
    entry: Arc<Entry>,
    change: Change,
    content: Option<Written>,
    done: oneshot::Sender<Result<Found, StoreError>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether changes may stand in the index or not.
    pub(super) fn has_unsettled(&self) -> bool {
        self.is_unsettled.load(Ordering::SeqCst)
    }

    /// What goes next: in the order it came, each task created at most once.
    fn next(&self) -> Vec<Pending> {
        let mut waiting = self.lock();
        let mut created = BTreeSet::new();
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let next = waiting.changes.pop_front_if(|pending| {
                !matches!(pending.change, Change::Create { .. }) || created.insert(pending.entry.key)
            });
            match next {
                Some(pending) => batch.push(pending),
                None => break,
            }
        }
        waiting.running = !batch.is_empty();
        batch
    }
}

/// Takes what waits for the index until nothing does. Where it ends before, those who wait are told.
struct Job {
    store: Arc<Inner>,
    /// It found nothing more to do, and so has given up its turn: what waits from then on is another job's.
    ended: bool,
}

impl Job {
    fn run(mut self) {
        while self.step() {}
    }

    /// Takes what waits, once; `false` when nothing does and the job has ended.
    fn step(&mut self) -> bool {
        let batch = self.store.queue.next();
        self.ended = batch.is_empty();
        if !self.ended {
            self.store.commit(batch);
        }
        !self.ended
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            // The runtime never ran the job, or it panicked.
            let mut waiting = self.store.queue.lock();
            waiting.running = false;
            waiting.changes.clear();
        }
    }
}

impl Inner {
    /// Hands a change to the queue; the receiver gets its outcome once it is durable.
    pub(super) fn submit(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        change: Change,
        content: Option<Written>,
    ) -> oneshot::Receiver<Result<Found, StoreError>> {
        let (done, outcome) = oneshot::channel();
        let mut waiting = self.queue.lock();
        waiting.changes.push_back(Pending { entry, change, content, done });
        if !std::mem::replace(&mut waiting.running, true) {
            drop(waiting);
            let job = Job { store: Arc::clone(self), ended: false };
            self.runtime.spawn_blocking(Box::new(move || job.run()));
        }
        outcome
    }

    pub(super) async fn change(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        change: Change,
    ) -> Result<Found, StoreError> {
        self.submit(Arc::clone(entry), change, None).await.map_err(|_| StoreError::Unavailable)?
    }

    /// Finds out what became of changes that may stand or not; until then memory can't be told from the index.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        if !self.queue.has_unsettled() {
            return Ok(());
        }
        let mut unsettled = self.queue.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((entry, change)) = unsettled.front() {
            let found = self.index.has(entry.key, entry.serial, change)?;
            self.take_effect(entry, change, found);
            unsettled.pop_front();
        }
        self.queue.is_unsettled.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// As [`Inner::settle`], which there is hardly ever a reason for.
    pub(super) async fn settled(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.queue.has_unsettled() {
            return self.blocking(|inner| inner.settle()).await;
        }
        Ok(())
    }

    fn commit(&self, batch: Vec<Pending>) {
        if let Err(error) = self.settle() {
            for pending in batch {
                self.finish(pending, Err(error.clone()));
            }
            return;
        }
        // Content first: a piece whose bytes can't be made durable does not come near the index.
        let mut synced = BTreeMap::new();
        let mut ready = Vec::with_capacity(batch.len());
        for pending in batch {
            let result = match &pending.content {
                Some(written) => synced
                    .entry(pending.entry.serial)
                    .or_insert_with(|| sync(&pending.entry, &*written.file))
                    .clone()
                    .and_then(
                        |lost| if lost == written.lost { Ok(()) } else { Err(StoreError::Unavailable) },
                    ),
                None => Ok(()),
            };
            match result {
                Ok(()) if self.is_taken(&pending) => self.finish(pending, Ok(Found::No)),
                Ok(()) => ready.push(pending),
                Err(error) => self.finish(pending, Err(error)),
            }
        }
        if ready.is_empty() {
            return;
        }
        // Metadata second.
        let changes: Vec<(TaskKey, u64, Change)> =
            ready.iter().map(|p| (p.entry.key, p.entry.serial, p.change.clone())).collect();
        match self.index.change(&changes) {
            Ok(found) => {
                for (pending, found) in ready.into_iter().zip(found) {
                    self.finish(pending, Ok(found));
                }
            }
            Err(error) => {
                // The disk failed somewhere in the commit. What is in the index all the same, stands.
                for (pending, (key, serial, change)) in ready.into_iter().zip(&changes) {
                    match self.index.has(*key, *serial, change) {
                        Ok(Some(found)) => self.finish(pending, Ok(found)),
                        Ok(None) => self.finish(pending, Err(error.clone())),
                        Err(_) => self.leave_unsettled(pending, error.clone()),
                    }
                }
            }
        }
    }

    /// Tells who waits that a change failed, and leaves open whether it did.
    fn leave_unsettled(&self, pending: Pending, error: StoreError) {
        let mut unsettled = self.queue.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.push_back((pending.entry, pending.change));
        self.queue.is_unsettled.store(true, Ordering::SeqCst);
        drop((unsettled, pending.content));
        let _ = pending.done.send(Err(error));
    }

    /// Whether a task to be created has been created by another meanwhile.
    fn is_taken(&self, pending: &Pending) -> bool {
        matches!(pending.change, Change::Create { .. })
            && self.tasks().get(&pending.entry.key).is_some_and(|entry| !entry.state().leaving)
    }

    /// Lets everyone see what the index has, then tells who waits.
    fn finish(&self, pending: Pending, result: Result<Found, StoreError>) {
        let Pending { entry, change, content, done } = pending;
        self.take_effect(&entry, &change, result.as_ref().ok().copied());
        // The piece may have its next writer from here on.
        drop((content, entry));
        // Nobody may be waiting any more; the change stands all the same.
        let _ = done.send(result);
    }

    /// Does in memory, and with the content files, what was done in the index; `None` when the change failed.
    fn take_effect(&self, entry: &Arc<Entry>, change: &Change, found: Option<Found>) {
        match (change, found) {
            (Change::Create { .. }, Some(Found::Yes { .. })) => {
                self.tasks().insert(entry.key, Arc::clone(entry));
            }
            (Change::Create { .. }, _) => self.remove_content(entry.serial),
            (Change::Delete, Some(_)) => {
                let mut tasks = self.tasks();
                if tasks.get(&entry.key).is_some_and(|known| known.serial == entry.serial) {
                    tasks.remove(&entry.key);
                }
                drop(tasks);
                self.remove_content(entry.serial);
            }
            (Change::Delete, None) => entry.state().leaving = false,
            (_, Some(Found::Yes { held })) => {
                entry.state().apply(change, held);
                if matches!(change, Change::Piece { .. }) {
                    self.growth.tell();
                }
            }
            (_, Some(Found::No) | None) => {}
        }
    }
}

/// Makes content durable; returns how many syncs of this file have failed so far.
fn sync(entry: &Entry, file: &dyn DiskFile) -> Result<u64, StoreError> {
    match if planted("content-not-synced") { Ok(()) } else { file.sync() } {
        Ok(()) => Ok(entry.state().lost),
        Err(error) => {
            entry.state().lost += 1;
            Err(StoreError::io("making content durable", error))
        }
    }
}

#[cfg(all(test, feature = "tokio-runtime"))]
#[allow(clippy::unwrap_used, reason = "a test that fails says where")]
mod tests {
    use super::super::{DiskStore, OsDisk};
    use super::*;
    use crate::runtime::TokioRuntime;
    use crate::store::{NewTask, PieceStore};
    use crate::wire::{Division, PieceKind, TaskId};

    fn key() -> TaskKey {
        TaskKey { kind: PieceKind::Piece, id: TaskId::from_sha256([1; 32]) }
    }

    /// Runs `test` with a store that has one task, on a runtime with one blocking thread.
    fn with_a_task(test: impl AsyncFnOnce(&DiskStore, Arc<Entry>)) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let disk = Arc::new(OsDisk::open(directory.path()).unwrap());
            let store = DiskStore::open(disk, Arc::new(TokioRuntime)).await.unwrap();
            let new = NewTask { key: key(), division: Division::by_default(1).unwrap(), digest: None };
            store.create(new).await.unwrap();
            // A job that has told its last waiter may still be on its way out.
            store.0.blocking(|_| Ok(())).await.unwrap();
            let entry = store.0.entry(key()).unwrap();
            test(&store, entry).await;
        });
    }

    #[test]
    fn a_job_that_has_ended_leaves_what_came_after_to_the_next() {
        with_a_task(async |store, entry| {
            // One blocking thread, and it is taken: whatever job begins now waits.
            let (go, gate) = std::sync::mpsc::channel::<()>();
            store.0.runtime.spawn_blocking(Box::new(move || gate.recv().unwrap()));
            store.0.queue.lock().running = true;
            let mut first = Job { store: Arc::clone(&store.0), ended: false };
            assert!(!first.step(), "nothing waits: its turn is over");
            let change = store.0.submit(entry, Change::Pin(true), None);
            drop(first);
            assert!(store.0.queue.lock().running, "the second job's turn goes on");
            go.send(()).unwrap();
            assert!(matches!(change.await.unwrap().unwrap(), Found::Yes { .. }));
        });
    }

    #[test]
    fn a_job_that_never_ran_lets_nobody_wait_for_ever() {
        with_a_task(async |store, entry| {
            store.0.queue.lock().running = true;
            let lost = store.0.submit(entry, Change::Pin(true), None);
            drop(Job { store: Arc::clone(&store.0), ended: false });
            assert!(lost.await.is_err(), "told at once, not left waiting");
            // The queue is as good as new.
            store.pin(key(), true).await.unwrap();
        });
    }
}
