//! The index: which tasks there are, and which of their pieces are durable. A redb database in one file of the disk.
//!
//! A task has a serial number that is used once, in the name of its content file and as the key of its pieces, so that
//! a task deleted and made anew shares nothing with the one before.
//!
//! The file is trusted no further than its checksums: each opening reads all of it and holds every page against the one that
//! its parent has. A file that anything but redb has changed is refused, with all content left where it is.

use super::device::{Disk, DiskFile, OpenMode};
use crate::store::{NewTask, ParentId, PieceSet, Provenance, StoreError, TaskKey};
use crate::wire::{Digest, Division, PieceKind, PieceLength, Tag, TaskId};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The file of the index.
const NAME: &str = "index.redb";

/// The index while it is made; renamed once it is whole.
const UNFINISHED: &str = "index.new";

/// Kind (its request's tag) and task id.
type TaskColumn = (u8, &'static [u8; TaskId::LEN]);

/// Serial, length, piece length, pieces held, pinned, seconds of the last access, digest or nothing.
type TaskRow = (u64, u64, u32, u64, bool, u64, &'static str);

/// Damaged, digest, parent id, cost, created at.
type PieceRow = (bool, &'static str, &'static str, u64, i64);

const TASKS: TableDefinition<TaskColumn, TaskRow> = TableDefinition::new("tasks-1");
/// By serial and piece number.
const PIECES: TableDefinition<(u64, u32), PieceRow> = TableDefinition::new("pieces-1");

/// Why an index is refused that has changed while it was open.
const CHANGED: &str = "its bytes were changed while it was in use";

/// Bytes of the index that are kept in memory: the upper levels of the trees and what is in use. Those of 100,000
/// pieces have about 20 MB in all.
const CACHE_LEN: usize = 16 << 20;

/// A task as the index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskRecord {
    pub(super) serial: u64,
    pub(super) division: Division,
    pub(super) held: u64,
    pub(super) pinned: bool,
    /// Seconds since the Unix epoch.
    pub(super) accessed: u64,
    pub(super) digest: Option<Digest>,
}

/// A piece as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PieceRecord {
    Held(Provenance),
    Damaged,
}

/// One change of the index. Each names the serial of the task that it means.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// With the digests of its first pieces, which are held from now on. Whatever the key stood for before is forgotten.
    Create {
        new: NewTask,
        accessed: u64,
        digests: Arc<[Digest]>,
    },
    Digest(Digest),
    Pin(bool),
    Accessed(u64),
    Piece {
        number: u32,
        provenance: Provenance,
        accessed: u64,
    },
    Damaged {
        number: u32,
    },
    Delete,
}

/// Whether a change found its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Yes, and so many pieces of it are held now.
    Yes {
        held: u64,
    },
    No,
}

type Result<T, E = redb::Error> = std::result::Result<T, E>;

pub(super) struct Index {
    disk: Arc<dyn Disk>,
    database: RwLock<State>,
    /// A sync failed: what was written before may be lost though it can still be read.
    sync_failed: Arc<AtomicBool>,
}

#[derive(Default)]
enum State {
    Open(Database),
    /// After a failure of the disk: redb stays unusable from then on, so it is opened again.
    #[default]
    Closed,
    /// It was open when it was found to be others' bytes. Only the next start looks at it again.
    Changed,
}

/// Does what redb does, which reads pages again that it has checked when it was opened, and takes their layout for granted:
/// where they were changed since, it panics. That is not a reason to end the process, which holds other connections: the index is
/// closed and not used any more. (Where panics abort, nothing is caught here; the bytes on the disk are as they were.)
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the job has borrowed is a database that is closed next, and what it would have returned.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    caught.unwrap_or_else(|_| Err(redb::Error::Corrupted(CHANGED.into())))
}

/// Closes the database, if there is one: redb then commits once more, and reads for that.
fn shut(state: State) {
    let shut = guarded(|| {
        drop(state);
        Ok(())
    });
    if let Err(error) = shut {
        tracing::warn!(%error, "the index of the store was not closed");
    }
}

impl Index {
    /// Opens the index, or makes one where `names` has none.
    pub(super) fn open(disk: Arc<dyn Disk>, names: &[String]) -> Result<Self, StoreError> {
        let sync_failed = Arc::new(AtomicBool::new(false));
        let index = Self { disk, database: RwLock::default(), sync_failed };
        if !names.iter().any(|name| name == NAME) {
            if names.iter().any(|name| super::is_content(name)) {
                let reason = "there are content files, but no index of them".into();
                return Err(StoreError::Corrupt { reason });
            }
            index.replace(|file| index.fill(file)).map_err(failed)?;
        }
        index.reopen().map_err(failed)?;
        Ok(index)
    }

    fn database(&self, file: Arc<dyn DiskFile>) -> Result<Database> {
        let backend = Backend { file, sync_failed: Arc::clone(&self.sync_failed) };
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_LEN).set_check_integrity_on_open(true);
        guarded(|| Ok(builder.create_with_backend(backend)?))
    }

    /// Makes an empty index in an empty file.
    fn fill(&self, file: Arc<dyn DiskFile>) -> Result<()> {
        let database = self.database(file)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TASKS)?;
        transaction.open_table(PIECES)?;
        Ok(transaction.commit()?)
    }

    /// Makes the file that `make` writes the index, in place of the old one, if any, once it is durable.
    fn replace(&self, make: impl FnOnce(Arc<dyn DiskFile>) -> Result<()>) -> Result<()> {
        match self.disk.remove(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let file = self.disk.open(UNFINISHED, OpenMode::New)?;
        make(Arc::clone(&file))?;
        file.sync()?;
        self.disk.rename(UNFINISHED, NAME)?;
        Ok(self.disk.sync_names()?)
    }

    /// Copies the index into another file after a sync of it failed.
    ///
    /// The system may have forgotten which bytes still have to be written: they can be read, and no later sync would
    /// save them. So nothing may build on them, not even redb's recovery, before all of them were written anew.
    fn rescue(&self) -> Result<()> {
        if self.sync_failed.load(Ordering::SeqCst) {
            let old = self.disk.open(NAME, OpenMode::Existing)?;
            self.replace(|new| Ok(copy(&*old, &*new)?))?;
            self.sync_failed.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Opens the index again after a failure of the disk.
    fn reopen(&self) -> Result<()> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, State::Closed) {
            self.rescue()?;
            let file = self.disk.open(NAME, OpenMode::Existing)?;
            // redb would take it for one to begin with.
            if file.size()? == 0 {
                return Err(redb::Error::Corrupted("it is empty".into()));
            }
            *slot = State::Open(self.database(file)?);
        }
        Ok(())
    }

    fn close(&self, why: State) {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*slot, State::Changed) {
            shut(std::mem::replace(&mut *slot, why));
        }
    }

    fn with<T>(&self, mut job: impl FnMut(&Database) -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            let result = match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
                State::Open(database) => guarded(|| job(database)),
                State::Closed => Err(redb::Error::PreviousIo),
                State::Changed => Err(redb::Error::Corrupted(CHANGED.into())),
            };
            let Err(error) = result else { return result };
            match &error {
                redb::Error::Io(_) | redb::Error::PreviousIo => self.close(State::Closed),
                redb::Error::Corrupted(reason) if reason == CHANGED => self.close(State::Changed),
                _ => {}
            }
            // The failure was another job's: this one deserves a try of its own.
            if !matches!(error, redb::Error::PreviousIo) || tries == 1 {
                return Err(error);
            }
            tries += 1;
            self.reopen()?;
        }
    }

    fn read<T>(&self, mut job: impl FnMut(&ReadTransaction) -> Result<T>) -> Result<T, StoreError> {
        self.with(|database| job(&database.begin_read()?)).map_err(failed)
    }

    /// All tasks, ordered by key.
    pub(super) fn tasks(&self) -> Result<Vec<(TaskKey, TaskRecord)>, StoreError> {
        let rows = self.read(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(TASKS)?.iter()? {
                let (key, row) = row?;
                rows.push(task_key(key.value()).zip(task_record(row.value())));
            }
            Ok(rows)
        })?;
        rows.into_iter().collect::<Option<_>>().ok_or_else(|| unreadable("a task"))
    }

    /// What is known of a piece.
    pub(super) fn piece(&self, serial: u64, number: u32) -> Result<Option<PieceRecord>, StoreError> {
        let row = self.read(|transaction| {
            let row = transaction.open_table(PIECES)?.get((serial, number))?;
            Ok(row.map(|row| piece_record(row.value())))
        })?;
        row.map(|row| row.ok_or_else(|| unreadable("a piece"))).transpose()
    }

    /// What is known of a piece, and which of it and the `more` that follow are held, as far as they are readable.
    pub(super) fn piece_and_more(
        &self,
        serial: u64,
        number: u32,
        more: u32,
    ) -> Result<(Option<PieceRecord>, BTreeMap<u32, Provenance>), StoreError> {
        let (row, held) = self.read(|transaction| {
            let (mut asked, mut held) = (None, BTreeMap::new());
            let keys = (serial, number)..=(serial, number.saturating_add(more));
            for row in transaction.open_table(PIECES)?.range(keys)? {
                let (key, row) = row?;
                let (key, record) = (key.value().1, piece_record(row.value()));
                if let Some(PieceRecord::Held(provenance)) = &record {
                    held.insert(key, provenance.clone());
                }
                if key == number {
                    asked = Some(record);
                }
            }
            Ok((asked, held))
        })?;
        let record = row.map(|row| row.ok_or_else(|| unreadable("a piece"))).transpose()?;
        Ok((record, held))
    }

    /// The pieces of a task that are held.
    pub(super) fn held(&self, serial: u64) -> Result<PieceSet, StoreError> {
        self.read(|transaction| {
            let mut held = PieceSet::new();
            for row in transaction.open_table(PIECES)?.range((serial, 0)..=(serial, u32::MAX))? {
                let (key, row) = row?;
                if !row.value().0 {
                    held.insert(key.value().1);
                }
            }
            Ok(held)
        })
    }

    /// Makes changes durable, all of them or none, in one transaction.
    pub(super) fn change(&self, changes: &[(TaskKey, u64, Change)]) -> Result<Vec<Found>, StoreError> {
        let changed = self.with(|database| {
            let transaction = database.begin_write()?;
            let found =
                changes.iter().map(|(key, serial, change)| apply(&transaction, *key, *serial, change));
            let found = found.collect::<Result<_>>()?;
            transaction.commit()?;
            Ok(found)
        });
        changed.map_err(failed)
    }

    /// What became of a change after a commit that may or may not have failed; `None` where it is not in the index.
    pub(super) fn has(
        &self,
        key: TaskKey,
        serial: u64,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        let record = self.read(|transaction| {
            let row = transaction.open_table(TASKS)?.get(task_column(&key))?;
            Ok(row.and_then(|row| task_record(row.value())))
        })?;
        let record = record.filter(|record| record.serial == serial);
        let stands = match change {
            Change::Create { .. } => record.is_some(),
            Change::Delete => record.is_none(),
            Change::Digest(digest) => record.is_some_and(|record| record.digest == Some(*digest)),
            Change::Pin(pinned) => record.is_some_and(|record| record.pinned == *pinned),
            Change::Accessed(seconds) => record.is_some_and(|record| record.accessed == *seconds),
            Change::Piece { number, provenance, .. } => {
                matches!(self.piece(serial, *number)?, Some(PieceRecord::Held(held)) if held == *provenance)
            }
            Change::Damaged { number } => !matches!(self.piece(serial, *number)?, Some(PieceRecord::Held(_))),
        };
        let held = record.map_or(0, |record| record.held);
        Ok(stands.then_some(Found::Yes { held }))
    }
}

fn apply(transaction: &WriteTransaction, key: TaskKey, serial: u64, change: &Change) -> Result<Found> {
    let mut tasks = transaction.open_table(TASKS)?;
    let mut pieces = transaction.open_table(PIECES)?;
    let column = task_column(&key);
    // A row that can't be read stops everything but its replacement.
    let row = tasks.get(column)?.map(|row| (row.value().0, task_record(row.value())));
    if let Change::Create { new, accessed, digests } = change {
        if let Some((former, _)) = row {
            pieces.retain_in((former, 0)..=(former, u32::MAX), |_, _| false)?;
        }
        let division = new.division;
        let digest = new.digest.map(|digest| digest.to_text());
        let digest = digest.as_ref().map_or("", |text| text.as_str());
        let (held, piece_length) = (digests.len() as u64, division.piece_length().get());
        tasks.insert(column, (serial, division.length(), piece_length, held, false, *accessed, digest))?;
        for (number, digest) in (0..).zip(&**digests) {
            let created_at = i64::try_from(*accessed).unwrap_or(i64::MAX);
            pieces.insert((serial, number), (false, digest.to_text().as_str(), "", 0, created_at))?;
        }
        return Ok(Found::Yes { held });
    }
    let Some((found, record)) = row.filter(|(found, _)| *found == serial) else { return Ok(Found::No) };
    if matches!(change, Change::Delete) {
        tasks.remove(column)?;
        pieces.retain_in((found, 0)..=(found, u32::MAX), |_, _| false)?;
        return Ok(Found::Yes { held: 0 });
    }
    let mut record =
        record.ok_or_else(|| redb::Error::Corrupted("a task of the index is not readable".into()))?;
    match change {
        Change::Create { .. } | Change::Delete => {}
        Change::Digest(digest) => record.digest = Some(*digest),
        Change::Pin(pinned) => record.pinned = *pinned,
        Change::Accessed(seconds) => record.accessed = *seconds,
        Change::Piece { number, provenance, accessed } => {
            let digest = provenance.digest.to_text();
            let parent_id = provenance.parent_id.as_bounded().as_str();
            let row = (false, digest.as_str(), parent_id, provenance.cost, provenance.created_at);
            let before = pieces.insert((serial, *number), row)?.map(|row| row.value().0);
            record.held += u64::from(before != Some(false));
            record.accessed = *accessed;
        }
        Change::Damaged { number } => {
            let held = pieces.get((serial, *number))?.is_some_and(|row| !row.value().0);
            if held {
                pieces.insert((serial, *number), (true, "", "", 0, 0))?;
                record.held = record.held.saturating_sub(1);
            }
        }
    }
    let digest = record.digest.map(|digest| digest.to_text());
    let digest = digest.as_ref().map_or("", |text| text.as_str());
    let TaskRecord { division, held, pinned, accessed, .. } = record;
    let row = (serial, division.length(), division.piece_length().get(), held, pinned, accessed, digest);
    tasks.insert(column, row)?;
    Ok(Found::Yes { held })
}

fn copy(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = from.read_full_at(offset, &mut buffer)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(()),
            Some(bytes) => to.write_all_at(offset, bytes)?,
        }
        offset += read as u64;
    }
}

fn task_column(key: &TaskKey) -> (u8, &[u8; TaskId::LEN]) {
    (Tag::Download(key.kind).into(), key.id.as_bytes())
}

fn task_key((tag, id): (u8, &[u8; TaskId::LEN])) -> Option<TaskKey> {
    let kind = PieceKind::ALL.into_iter().find(|kind| u8::from(Tag::Download(*kind)) == tag)?;
    Some(TaskKey { kind, id: TaskId::from_bytes(id).ok()? })
}

fn task_record(row: (u64, u64, u32, u64, bool, u64, &str)) -> Option<TaskRecord> {
    let (serial, length, piece_length, held, pinned, accessed, digest) = row;
    let piece_length = PieceLength::try_from(u64::from(piece_length)).ok()?;
    let division = Division::new(length, piece_length).ok()?;
    let digest = if digest.is_empty() { None } else { Some(digest.parse().ok()?) };
    Some(TaskRecord { serial, division, held, pinned, accessed, digest })
}

fn piece_record(row: (bool, &str, &str, u64, i64)) -> Option<PieceRecord> {
    let (damaged, digest, parent_id, cost, created_at) = row;
    if damaged {
        return Some(PieceRecord::Damaged);
    }
    let digest = digest.parse().ok()?;
    Some(PieceRecord::Held(Provenance { digest, parent_id: ParentId::new(parent_id), cost, created_at }))
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Corrupt { reason: format!("{what} of the index is not readable").into() }
}

fn failed(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Corrupt { reason: error.to_string().into() }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt { reason: "it ends early".into() }
        }
        redb::Error::Io(error) => StoreError::io("using the index", error),
        redb::Error::Corrupted(reason) => StoreError::Corrupt { reason: reason.into() },
        redb::Error::PreviousIo => StoreError::Unavailable,
        other => StoreError::Corrupt { reason: other.to_string().into() },
    }
}

/// A file of the disk, as redb wants it. Its locks are not needed: the store has locked the whole disk.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    sync_failed: Arc<AtomicBool>,
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.file.read_full_at(offset, out)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| self.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(offset, data)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Closing syncs. Where that fails, the next process does not know of it.
        shut(std::mem::take(self.database.get_mut().unwrap_or_else(PoisonError::into_inner)));
        if let Err(error) = self.rescue() {
            tracing::warn!(%error, "the index of the store could not be made durable");
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("disk", &self.disk).finish_non_exhaustive()
    }
}
