//! The digests of a whole task, computed while its pieces come.
//!
//! A walk follows the pieces that are held from the first on without a gap. It reads each right after it was written,
//! when the system still has it in memory, holds it against its own digest, and takes it into those of the whole. What
//! it has passed is not read again for the export that follows. Pieces may come in any order: those behind a gap are
//! read once the gap is closed, the last of them by the export.
//!
//! ```text
//!   pieces    0  1  2  3  4  5  6  7
//!   held      x  x  x  x     x  x         read: 0 to 3, each against its digest
//!                        ^ next           waits for 4, whoever brings it
//! ```
//!
//! The bytes of a held piece change in one way only: it is found damaged, entered as that, and written again. Whoever
//! enters it says so to the walk (`State::doubt`), which goes back.

use super::device::DiskFile;
use super::export::ExportError;
use super::index::PieceRecord;
use super::{Entry, Inner};
use crate::store::{Missing, StoreError, TaskKey};
use crate::wire::{Algorithm, Digest, Hasher};
use std::mem;
use std::sync::Arc;

/// Bytes that a job reads at most: few enough that whoever waits for its end, to give it up or to go on, does not wait long.
const STEP: u64 = 8 << 20;

/// Bytes that are read at a time: they are hashed out of the processor's cache.
const READ_LEN: usize = 256 << 10;

/// Bytes that a piece counts for at least: to look for it in the index takes as long as to hash so many.
const LEAST: u64 = 4 << 10;

/// Where a job of a walk has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is more to read.
    Spent,
    /// The next piece, this one, is not held.
    Lacks(u64),
    /// All pieces were read.
    End,
}

/// A walk through the pieces of a task, which holds each against its digest.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// All pieces before this one were read, and were what their digests say.
    next: u64,
    /// What was read of it.
    part: Option<Part>,
}

#[derive(Debug)]
struct Part {
    hasher: Hasher,
    expected: Digest,
    read: u64,
}

/// What a walk comes by.
pub(super) enum Passed<'a> {
    /// Bytes of the content, at this place. They are not verified yet.
    Bytes(u64, &'a [u8]),
    /// The end of a piece that is what its digest says.
    Piece,
}

impl Walk {
    /// How many pieces it has passed.
    pub(super) fn passed(&self) -> u64 {
        self.next
    }

    /// Leaves out what another walk has passed.
    pub(super) fn skip_to(&mut self, next: u64) {
        if next > self.next {
            *self = Self { next, part: None };
        }
    }

    /// Goes on up to piece `end`, as far as the pieces are here and `STEP` allows.
    ///
    /// After an error, [`StoreError::Damaged`] where a piece is not what its digest says, it stands at the begin of the piece:
    /// what `pass` was given of that is void.
    pub(super) fn step<E: From<StoreError>>(
        &mut self,
        store: &Inner,
        entry: &Entry,
        content: &dyn DiskFile,
        end: u64,
        mut pass: impl FnMut(Passed<'_>) -> Result<(), E>,
    ) -> Result<Stop, E> {
        store.settle()?;
        let mut buffer = store.buffers.take(READ_LEN);
        let mut spent = 0;
        while self.next < end {
            if spent >= STEP {
                return Ok(Stop::Spent);
            }
            let none_such = |_| Missing::Piece { pieces: entry.division.pieces() };
            let number = u32::try_from(self.next).map_err(none_such).map_err(StoreError::from)?;
            let span = entry.span(number).map_err(StoreError::from)?;
            let mut part = match self.part.take() {
                Some(part) => part,
                None => {
                    let held = match store.index.piece(entry.serial, number)? {
                        Some(PieceRecord::Held(held)) => held,
                        _ => return Ok(Stop::Lacks(self.next)),
                    };
                    spent += LEAST.saturating_sub(span.length.into());
                    let hasher = Hasher::new(held.digest.algorithm());
                    Part { hasher, expected: held.digest, read: 0 }
                }
            };
            let left = u64::from(span.length).saturating_sub(part.read);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(READ_LEN);
            let (at, bytes) = (span.offset + part.read, buffer.get_mut(..length).unwrap_or_default());
            let read = content.read_full_at(at, bytes);
            if read.map_err(|error| StoreError::io("reading a piece", error))? < length {
                // Somebody has cut the file.
                return Err(StoreError::Damaged { number }.into());
            }
            part.hasher.update(bytes);
            part.read += length as u64;
            spent += length as u64;
            pass(Passed::Bytes(at, bytes))?;
            if part.read < u64::from(span.length) {
                self.part = Some(part);
            } else if part.hasher.finish() == part.expected {
                self.next += 1;
                pass(Passed::Piece)?;
            } else {
                return Err(StoreError::Damaged { number }.into());
            }
        }
        Ok(Stop::End)
    }
}

/// The digests of the whole, as far as it was read.
#[derive(Debug, Clone)]
struct Hashes {
    sha256: Hasher,
    /// Of the task's digest, where that is another one.
    own: Option<Hasher>,
}

impl Hashes {
    fn new(own: Option<Algorithm>) -> Self {
        Self { sha256: Hasher::new(Algorithm::Sha256), own: own.map(Hasher::new) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(own) = &mut self.own {
            own.update(bytes);
        }
    }
}

/// The digests of a task's content, as far as the pieces are there without a gap.
#[derive(Debug)]
pub(super) struct Digesting {
    walk: Walk,
    /// Of everything that the walk has read, the part of a piece included.
    hashes: Hashes,
    /// Of all pieces before the next: where it goes back to when that one turns out damaged.
    verified: Hashes,
    own: Option<Algorithm>,
}

impl Default for Digesting {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Digesting {
    fn new(own: Option<Algorithm>) -> Self {
        Self { walk: Walk::default(), hashes: Hashes::new(own), verified: Hashes::new(own), own }
    }

    /// Back to the begin of the piece that is next.
    pub(super) fn undo_part(&mut self) {
        self.walk.part = None;
        self.hashes = self.verified.clone();
    }

    /// Goes back to before a piece that was found damaged since: its bytes may be others by now. And begins anew where the task
    /// has got a digest meanwhile that nobody computes.
    fn look_back(&mut self, entry: &Entry) {
        let (doubted, digest) = {
            let mut state = entry.state();
            (state.doubted.take().map(u64::from), state.digest)
        };
        let own = digest.map(|digest| digest.algorithm()).filter(|it| *it != Algorithm::Sha256);
        if self.own != own || doubted.is_some_and(|number| number < self.walk.next) {
            *self = Self::new(own);
        } else if doubted == Some(self.walk.next) {
            self.undo_part();
        }
    }

    /// How many pieces are in the digests.
    pub(super) fn passed(&self) -> u64 {
        self.walk.passed()
    }

    /// Takes what comes next, as much as a job may, and gives it to `sink` as well. After an error it stands at the begin of a
    /// piece.
    pub(super) fn advance<E: From<StoreError>>(
        &mut self,
        store: &Inner,
        entry: &Entry,
        content: &dyn DiskFile,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Stop, E> {
        self.look_back(entry);
        let Self { walk, hashes, verified, .. } = self;
        let stop = walk.step(store, entry, content, entry.division.pieces(), |passed| match passed {
            Passed::Bytes(at, bytes) => {
                hashes.update(bytes);
                sink(at, bytes)
            }
            Passed::Piece => {
                verified.clone_from(hashes);
                Ok(())
            }
        });
        if stop.is_err() {
            self.undo_part();
        }
        // While it read.
        self.look_back(entry);
        match stop? {
            // It was sent back.
            Stop::End if self.walk.next < entry.division.pieces() => Ok(Stop::Spent),
            stop => Ok(stop),
        }
    }

    /// The SHA-256 of the whole, once all of it was read, which is what the task's digest says.
    pub(super) fn finish(&self, digest: Option<Digest>) -> Result<Digest, ExportError> {
        let Hashes { sha256, own } = self.hashes.clone();
        let sha256 = sha256.finish();
        let computed = own.map_or(sha256, Hasher::finish);
        match digest {
            Some(expected) if expected != computed => Err(ExportError::WrongDigest { computed }),
            _ => Ok(sha256),
        }
    }
}

/// Takes the pieces of a task into its digests as they come, until all are in.
pub(super) async fn follow(store: &Arc<Inner>, key: TaskKey) -> Result<(), StoreError> {
    store.settled().await?;
    let entry = store.entry(key)?;
    let opened = Arc::clone(&entry);
    let content = store.blocking(move |inner| opened.file(&*inner.disk)).await?;
    let mut lacks = None;
    loop {
        // Before it is looked: what comes in between is not missed.
        let grown = store.growth.wait();
        if let Some(next) = lacks
            && !entry.may_hold(next)?
        {
            // A commit of another piece is not worth a job.
            grown.await;
            continue;
        }
        match step(store, &entry, &content).await {
            Ok(Stop::Spent) => {}
            Ok(Stop::Lacks(next)) => {
                lacks = Some(next);
                grown.await;
            }
            Ok(Stop::End) => return Ok(()),
            Err(StoreError::Damaged { number }) => {
                tracing::warn!(%key, number, "a piece is damaged, and has to be fetched again");
                store.mark_damaged(key.piece(number)).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One job of it. Where nobody waits for its end any more, what it has done counts all the same.
async fn step(
    store: &Arc<Inner>,
    entry: &Arc<Entry>,
    content: &Arc<dyn DiskFile>,
) -> Result<Stop, StoreError> {
    let mut turn = entry.digesting().lock_owned().await;
    let (entry, content) = (Arc::clone(entry), Arc::clone(content));
    store
        .blocking(move |inner| {
            // Should this panic, the next one begins anew.
            let mut digesting = mem::take(&mut *turn);
            let stop = digesting.advance(inner, &entry, &*content, |_, _| Ok(()));
            *turn = digesting;
            stop
        })
        .await
}
