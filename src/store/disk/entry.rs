//! A task, as the process knows it beside the index.

use super::ahead::Ahead;
use super::device::{Disk, DiskFile, OpenMode};
use super::digesting::Digesting;
use super::index::Change;
use crate::store::{Missing, PieceSet, StoreError, Task, TaskKey};
use crate::wire::{Digest, Division, PieceSpan};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// A task. Whoever reads or writes it holds a reference, and by their number collection knows.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: TaskKey,
    pub(super) serial: u64,
    pub(super) division: Division,
    state: Mutex<State>,
    /// The digests of the whole, once somebody wants them. Whoever goes on with them has the lock.
    digesting: OnceLock<Arc<tokio::sync::Mutex<Digesting>>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) digest: Option<Digest>,
    pub(super) pinned: bool,
    pub(super) held: u64,
    /// The pieces that the index has, once somebody has asked for them.
    pub(super) pieces: Option<PieceSet>,
    /// Some of them as the index has them.
    pub(super) ahead: Ahead,
    /// Seconds since the Unix epoch, and as the index has it.
    pub(super) accessed: u64,
    pub(super) accessed_saved: u64,
    /// It is being deleted: nobody finds it any more.
    pub(super) leaving: bool,
    pub(super) writing: BTreeSet<u32>,
    /// Damaged, and held as far as the index knows.
    pub(super) damaged: BTreeSet<u32>,
    /// The first of the pieces that were found damaged since the digests of the whole were last looked at.
    pub(super) doubted: Option<u32>,
    /// How many syncs of the content failed. A writer that began before the last of them can't rely on any later one.
    pub(super) lost: u64,
    pub(super) file: Option<Weak<dyn DiskFile>>,
}

impl State {
    /// Does what was done in the index, where `held` pieces are held since. They are counted there alone: here nobody knows
    /// whether a piece that is damaged was entered as that before.
    pub(super) fn apply(&mut self, change: &Change, held: u64) {
        self.held = held;
        match change {
            Change::Create { .. } | Change::Delete => {}
            Change::Digest(digest) => self.digest = Some(*digest),
            Change::Pin(pinned) => self.pinned = *pinned,
            Change::Accessed(seconds) => self.accessed_saved = *seconds,
            Change::Piece { number, accessed, .. } => {
                self.ahead.forget();
                if let Some(pieces) = &mut self.pieces {
                    pieces.insert(*number);
                }
                self.accessed = self.accessed.max(*accessed);
                self.accessed_saved = *accessed;
            }
            Change::Damaged { number } => {
                self.ahead.forget();
                self.doubt(*number);
                self.damaged.remove(number);
                if let Some(pieces) = &mut self.pieces {
                    pieces.remove(*number);
                }
            }
        }
    }

    /// A piece is damaged: it may be written again from now on.
    fn doubt(&mut self, number: u32) {
        self.doubted = Some(self.doubted.map_or(number, |first| first.min(number)));
    }
}

impl Entry {
    pub(super) fn new(key: TaskKey, serial: u64, division: Division, state: State) -> Arc<Self> {
        Arc::new(Self { key, serial, division, state: Mutex::new(state), digesting: OnceLock::new() })
    }

    pub(super) fn digesting(&self) -> Arc<tokio::sync::Mutex<Digesting>> {
        Arc::clone(self.digesting.get_or_init(Arc::default))
    }

    /// Whether piece `number` may be held, as far as that is known without the index; an error where the task was deleted.
    pub(super) fn may_hold(&self, number: u64) -> Result<bool, Missing> {
        let state = self.state();
        if state.leaving {
            return Err(Missing::Task);
        }
        let held = |pieces: &PieceSet| u32::try_from(number).is_ok_and(|number| pieces.contains(number));
        Ok(state.pieces.as_ref().is_none_or(held))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn task(&self) -> Task {
        let state = self.state();
        Task {
            key: self.key,
            division: self.division,
            digest: state.digest,
            held: state.held.saturating_sub(state.damaged.len() as u64),
            pinned: state.pinned,
        }
    }

    pub(super) fn span(&self, number: u32) -> Result<PieceSpan, Missing> {
        self.division.piece(number).ok_or(Missing::Piece { pieces: self.division.pieces() })
    }

    /// The content file; opened once for all that use it at the same time.
    pub(super) fn file(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut state = self.state();
        if let Some(file) = state.file.as_ref().and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = disk.open(&content_name(self.serial), OpenMode::Existing);
        let file = file.map_err(|error| match error.kind() {
            // It was deleted since it was looked up.
            io::ErrorKind::NotFound if state.leaving => Missing::Task.into(),
            _ => StoreError::io("opening the content of a task", error),
        })?;
        state.file = Some(Arc::downgrade(&file));
        Ok(file)
    }
}

/// The name of a content file.
pub(super) fn content_name(serial: u64) -> String {
    format!("{serial:016x}{CONTENT}")
}

const CONTENT: &str = ".content";

/// Whether a file is the store's and holds content.
pub(super) fn is_content(name: &str) -> bool {
    name.ends_with(CONTENT)
}
