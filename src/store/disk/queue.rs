//! Group commit: whatever waits for the index goes in one transaction, and for one sync of each content file.
//!
//! A lone change starts a job at once and waits for nobody. Changes that arrive while the job is at the disk wait
//! together and go next; so the busier the disk, the more share a sync.

use super::device::DiskFile;
use super::index::{Change, Found};
use super::writer::Slot;
use super::{Entry, Inner};
use crate::store::{StoreError, TaskKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Changes in one transaction: enough to share its syncs, few enough that none waits long.
const BATCH: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
struct Job(Arc<Inner>);

impl Job {
    fn run(self) {
        loop {
            let batch = self.0.queue.next();
            if batch.is_empty() {
                return;
            }
            self.0.commit(batch);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The runtime never ran the job, or it panicked.
        let mut waiting = self.0.queue.lock();
        if std::mem::take(&mut waiting.running) {
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
            let job = Job(Arc::clone(self));
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

    fn commit(&self, batch: Vec<Pending>) {
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
                    let stands = self.index.has(*key, *serial, change).unwrap_or(false);
                    self.finish(pending, if stands { Ok(Found::Yes) } else { Err(error.clone()) });
                }
            }
        }
    }

    /// Whether a task to be created has been created by another meanwhile.
    fn is_taken(&self, pending: &Pending) -> bool {
        matches!(pending.change, Change::Create { .. })
            && self.tasks().get(&pending.entry.key).is_some_and(|entry| !entry.state().leaving)
    }

    /// Lets everyone see what the index has, then tells who waits.
    fn finish(&self, pending: Pending, result: Result<Found, StoreError>) {
        let Pending { entry, change, content, done } = pending;
        match (&change, &result) {
            (Change::Create { .. }, Ok(Found::Yes)) => {
                self.tasks().insert(entry.key, Arc::clone(&entry));
            }
            (Change::Create { .. }, _) => self.remove_content(entry.serial),
            (Change::Delete, Ok(_)) => {
                let mut tasks = self.tasks();
                if tasks.get(&entry.key).is_some_and(|known| known.serial == entry.serial) {
                    tasks.remove(&entry.key);
                }
                drop(tasks);
                self.remove_content(entry.serial);
            }
            (Change::Delete, Err(_)) => entry.state().leaving = false,
            (_, Ok(Found::Yes)) => entry.state().apply(&change),
            (_, Ok(Found::No) | Err(_)) => {}
        }
        // The piece may have its next writer from here on.
        drop((content, entry));
        // Nobody may be waiting any more; the change stands all the same.
        let _ = done.send(result);
    }
}

/// Makes content durable; returns how many syncs of this file have failed so far.
fn sync(entry: &Entry, file: &dyn DiskFile) -> Result<u64, StoreError> {
    match file.sync() {
        Ok(()) => Ok(entry.state().lost),
        Err(error) => {
            entry.state().lost += 1;
            Err(StoreError::io("making content durable", error))
        }
    }
}

impl super::State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { .. } | Change::Delete => {}
            Change::Digest(digest) => self.digest = Some(*digest),
            Change::Pin(pinned) => self.pinned = *pinned,
            Change::Accessed(seconds) => self.accessed_saved = *seconds,
            Change::Piece { accessed, .. } => {
                self.held += 1;
                self.accessed = self.accessed.max(*accessed);
                self.accessed_saved = *accessed;
            }
            Change::Damaged { number } => {
                if self.damaged.remove(number) {
                    self.held = self.held.saturating_sub(1);
                }
            }
        }
    }
}
