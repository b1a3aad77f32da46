//! A disk in memory that loses power, fills up and fails.
//!
//! What was synced survives. Of everything else a power cut keeps, drops and tears what it likes, sector by sector and
//! in any order, as [`DiskFile`] says that it may.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, OpenMode};

const SECTOR: usize = 512;

/// What a power cut does with what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of it is there: the process was killed, the system lives on.
    KeepAll,
    /// None of it is.
    LoseAll,
    /// Of each sector, one of the versions that it had.
    Tear,
}

/// An operation that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Read,
    Write,
    Sync,
    Full,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    next_inode: u64,
    locked: bool,
    /// Operations so far, and the one at which the power goes.
    operations: u64,
    cut_at: Option<u64>,
    fault: Option<(Fault, u64)>,
    /// Power cuts so far: who opened a file before one can't use it any more.
    epoch: u64,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Clone)]
struct NameChange {
    removed: Option<String>,
    added: Option<(String, u64)>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(length) => content.resize(*length as usize, 0),
        Change::Write(offset, bytes) => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(bytes);
        }
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    if let Some(name) = &change.removed {
        names.remove(name);
    }
    if let Some((name, inode)) = &change.added {
        names.insert(name.clone(), *inode);
    }
}

/// A small generator: the test's seed decides what a power cut keeps.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

impl CrashDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How many operations there were, reads included.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Lets the power go in `after` operations from now. Everything fails from then on, until [`CrashDisk::cut`].
    pub(crate) fn cut_after(&self, after: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + after);
    }

    /// Lets the operation of this kind fail that comes after `after` others of the kind.
    pub(crate) fn fail(&self, fault: Fault, after: u64) {
        self.lock().fault = Some((fault, after));
    }

    /// Whether the power went where it was told to.
    pub(crate) fn power_is_off(&self) -> bool {
        let state = self.lock();
        state.cut_at.is_some_and(|at| state.operations >= at)
    }

    /// The disk works again, but for the power.
    pub(crate) fn heal(&self) {
        let off = self.power_is_off();
        let mut state = self.lock();
        state.fault = None;
        state.cut_at = state.cut_at.filter(|_| off);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// Changes bytes behind the store's back.
    pub(crate) fn flip(&self, name: &str, offset: usize) {
        let mut state = self.lock();
        let inode = state.names[name];
        let file = state.files.get_mut(&inode).unwrap();
        file.live[offset] ^= 1;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= 1;
        }
    }

    /// Changes a file in any way behind the store's back.
    pub(crate) fn edit(&self, name: &str, job: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let inode = state.names[name];
        let file = state.files.get_mut(&inode).unwrap();
        job(&mut file.live);
        file.durable.clone_from(&file.live);
        file.pending.clear();
    }

    /// The power goes and comes back. Open files and the lock are gone.
    pub(crate) fn cut(&self, cut: Cut, dice: &mut Dice) {
        let mut state = self.lock();
        for change in std::mem::take(&mut state.pending_names) {
            if cut == Cut::KeepAll || cut == Cut::Tear && dice.roll(2) == 0 {
                apply_name(&mut state.durable_names, &change);
            }
        }
        state.names = state.durable_names.clone();
        for file in state.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            match cut {
                Cut::LoseAll => {}
                Cut::KeepAll => pending.iter().for_each(|change| apply(&mut file.durable, change)),
                Cut::Tear => tear(&mut file.durable, &pending, dice),
            }
            file.live = file.durable.clone();
        }
        state.locked = false;
        state.epoch += 1;
        (state.fault, state.cut_at) = (None, None);
    }
}

fn tear(content: &mut Vec<u8>, pending: &[Change], dice: &mut Dice) {
    // Swarm: this time almost everything survives, or almost nothing, or half of it.
    let keep = [1, 5, 9][dice.roll(3) as usize];
    let mut parts = Vec::new();
    for change in pending {
        match change {
            Change::SetLen(_) => parts.push(change.clone()),
            Change::Write(offset, bytes) => {
                let mut at = 0;
                while at < bytes.len() {
                    let position = *offset as usize + at;
                    let end = bytes.len().min(at + SECTOR - position % SECTOR);
                    parts.push(Change::Write(position as u64, bytes[at..end].to_vec()));
                    at = end;
                }
            }
        }
    }
    for last in (1..parts.len()).rev() {
        parts.swap(last, dice.roll(last as u64 + 1) as usize);
    }
    for part in parts {
        if dice.roll(10) < keep {
            apply(content, &part);
        }
    }
}

impl State {
    fn step(&mut self, epoch: u64, kind: Option<Fault>) -> io::Result<()> {
        let dead = || io::Error::other("the power is off");
        if epoch != self.epoch || self.cut_at.is_some_and(|at| self.operations >= at) {
            return Err(dead());
        }
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            return Err(dead());
        }
        let hit = |fault| kind == Some(fault) || fault == Fault::Full && kind == Some(Fault::Write);
        match &mut self.fault {
            Some((fault, 0)) if hit(*fault) => {
                // A full disk stays full; other failures pass.
                if *fault == Fault::Full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.fault = None;
                Err(io::Error::from_raw_os_error(5))
            }
            Some((fault, after)) if hit(*fault) => {
                *after -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for CrashDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let epoch = state.epoch;
        state.step(epoch, None)?;
        let inode = match mode {
            OpenMode::Existing => state.find(name)?,
            OpenMode::New if state.names.contains_key(name) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            OpenMode::New => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.files.insert(inode, Inode::default());
                state.change_names(NameChange { removed: None, added: Some((name.to_owned(), inode)) });
                inode
            }
        };
        Ok(Arc::new(CrashFile { disk: self.clone(), inode, epoch }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let epoch = state.epoch;
        state.step(epoch, None)?;
        state.find(name)?;
        state.change_names(NameChange { removed: Some(name.to_owned()), added: None });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let epoch = state.epoch;
        state.step(epoch, None)?;
        let inode = state.find(from)?;
        state
            .change_names(NameChange { removed: Some(from.to_owned()), added: Some((to.to_owned(), inode)) });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        let epoch = state.epoch;
        state.step(epoch, None)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.lock();
        let epoch = state.epoch;
        state.step(epoch, Some(Fault::Sync))?;
        for change in std::mem::take(&mut state.pending_names) {
            apply_name(&mut state.durable_names, &change);
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<DiskLock>> {
        let mut state = CrashDisk::lock(self);
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock { disk: self.clone(), epoch: state.epoch })))
    }
}

#[derive(Debug)]
struct Lock {
    disk: CrashDisk,
    epoch: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.epoch == self.epoch {
            state.locked = false;
        }
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    inode: u64,
    epoch: u64,
}

impl CrashFile {
    fn with<T>(&self, kind: Option<Fault>, job: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.step(self.epoch, kind)?;
        Ok(job(state.files.get_mut(&self.inode).unwrap()))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.lock();
        let (operations, cut_at) = (state.operations, state.cut_at);
        let result = state.step(self.epoch, Some(Fault::Write));
        let file = state.files.get_mut(&self.inode).unwrap();
        let arrives = result.is_ok() || cut_at == Some(operations + 1);
        if arrives {
            // The write during which the power goes may have reached the disk as well.
            apply(&mut file.live, &change);
            file.pending.push(change);
        }
        result
    }
}

impl DiskFile for CrashFile {
    fn size(&self) -> io::Result<u64> {
        self.with(None, |file| file.live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(Some(Fault::Read), |file| {
            let rest = file.live.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        })
    }

    /// The first half is always in memory, the other never: so that every read is put together of both.
    fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let half = buffer.len() / 2;
        let cached = self.with(None, |file| {
            let rest = file.live.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(half);
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        });
        cached.unwrap_or_default()
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::SetLen(length))
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut state = self.disk.lock();
            state.syncs += 1;
            let failing = matches!(state.fault, Some((Fault::Sync, 0)));
            if failing {
                // As Linux does it: some of it was written, and what was not is forgotten, but can still be read.
                let mut dice = Dice(state.operations);
                let file = state.files.get_mut(&self.inode).unwrap();
                let pending = std::mem::take(&mut file.pending);
                tear(&mut file.durable, &pending, &mut dice);
            }
        }
        self.with(Some(Fault::Sync), |file| {
            for change in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &change);
            }
        })
    }
}
