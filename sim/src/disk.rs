//! A disk that loses what was not synced.
//!
//! The store's contract ([`vortex_p2p::store::disk::Disk`]) says what a power cut may leave, and this disk uses all of
//! that freedom: each unsynced write is kept, lost, or torn at a sector's border, by itself, so a later one may survive
//! an earlier one; each unsynced change of a name is kept or lost by itself; what a failed sync was to save is lost even
//! though it can still be read until the power goes.

use crate::faults::{Fault, Ledger, lock};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, OpenMode};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

type Inode = u64;

/// A host's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: Rng,
    ledger: Ledger,
    inodes: BTreeMap<Inode, Contents>,
    next: Inode,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    /// Changes of names since they were last synced, in order.
    unsynced_names: Vec<NameChange>,
    settings: Settings,
    unreadable: Vec<(String, Range<u64>)>,
    /// Crashes so far: whatever was open at one is of no use any more.
    crashes: u64,
    locked: bool,
    busy_until: Duration,
    debt: Duration,
}

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Bytes that fit; more are refused as by a full disk.
    pub capacity: u64,
    /// What one operation takes.
    pub operation: Duration,
    /// What a sync takes.
    pub sync: Duration,
    /// What a mebibyte takes on top of the operation.
    pub mebibyte: Duration,
    /// Probability that a sync fails.
    pub failing_syncs: f64,
}

impl Default for Settings {
    /// A good SSD, as large as anyone needs.
    fn default() -> Self {
        let micros = Duration::from_micros;
        let (operation, sync, mebibyte) = (micros(20), micros(400), micros(700));
        Settings { capacity: u64::MAX, operation, sync, mebibyte, failing_syncs: 0.0 }
    }
}

impl Settings {
    fn is_slow(&self) -> bool {
        let usual = Settings::default();
        self.operation > usual.operation || self.sync > usual.sync || self.mebibyte > usual.mebibyte
    }
}

#[derive(Debug, Default)]
struct Contents {
    /// How often it is open.
    open: u32,
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Write { offset, bytes: new } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*offset..end) {
                    place.copy_from_slice(new);
                }
            }
        }
    }

    /// The length of a file of `length` bytes after this.
    fn length_after(&self, length: usize) -> usize {
        match self {
            Change::Write { offset, bytes } => length.max(offset + bytes.len()),
            Change::Length(length) => *length,
        }
    }
}

#[derive(Debug)]
enum NameChange {
    Create(String, Inode),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            NameChange::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            // Where the power took the file's first name, there is nothing to rename.
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} files)", lock(&self.0).names.len())
    }
}

impl SimDisk {
    /// An empty disk; `rng` decides what a crash leaves.
    pub(crate) fn new(rng: Rng, ledger: Ledger) -> Self {
        SimDisk(Arc::new(Mutex::new(State {
            rng,
            ledger,
            inodes: BTreeMap::new(),
            next: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            settings: Settings::default(),
            unreadable: Vec::new(),
            crashes: 0,
            locked: false,
            busy_until: Duration::ZERO,
            debt: Duration::ZERO,
        })))
    }

    /// Changes how the disk behaves from now on.
    pub fn set(&self, settings: Settings) {
        let mut state = lock(&self.0);
        let usual = Settings::default();
        if settings.capacity < usual.capacity {
            state.ledger.armed(Fault::DiskFull);
        }
        if settings.failing_syncs > 0.0 {
            state.ledger.armed(Fault::DiskSync);
        }
        if settings.is_slow() {
            state.ledger.armed(Fault::DiskSlow);
        }
        state.settings = settings;
    }

    /// Makes a range of a file unreadable, until it is written again.
    pub fn spoil(&self, name: &str, range: Range<u64>) {
        let mut state = lock(&self.0);
        state.ledger.armed(Fault::DiskRead);
        state.unreadable.push((name.to_owned(), range));
    }

    /// When the disk has done what it was asked to so far.
    pub(crate) fn free_at(&self, now: Duration) -> Duration {
        let mut state = lock(&self.0);
        state.busy_until = state.busy_until.max(now) + std::mem::take(&mut state.debt);
        state.busy_until
    }

    /// The power goes: decides what is left.
    pub(crate) fn crash(&self) {
        let mut state = lock(&self.0);
        let State { rng, ledger, inodes, names, durable_names, unsynced_names, unreadable, .. } = &mut *state;
        for change in unsynced_names.drain(..) {
            ledger.armed(Fault::DiskLost);
            if rng.chance(0.5) {
                change.apply(durable_names);
            } else {
                ledger.fired(Fault::DiskLost);
            }
        }
        names.clone_from(durable_names);
        let named: BTreeSet<Inode> = names.values().copied().collect();
        inodes.retain(|inode, _| named.contains(inode));
        for contents in inodes.values_mut() {
            for change in std::mem::take(&mut contents.unsynced) {
                ledger.armed(Fault::DiskLost);
                ledger.armed(Fault::DiskTorn);
                match rng.below(4) {
                    0 | 1 => change.apply(&mut contents.durable),
                    2 => ledger.fired(Fault::DiskLost),
                    _ => tear(rng, ledger, change, &mut contents.durable),
                }
            }
            contents.current.clone_from(&contents.durable);
            contents.open = 0;
        }
        unreadable.retain(|(name, _)| names.contains_key(name));
        state.crashes += 1;
        state.locked = false;
    }
}

/// Writes what of `change` was on the disk when the power went.
fn tear(rng: &mut Rng, ledger: &Ledger, change: Change, durable: &mut Vec<u8>) {
    let Change::Write { offset, mut bytes } = change else {
        return ledger.fired(Fault::DiskLost);
    };
    ledger.fired(Fault::DiskTorn);
    // The first sector of a write may be a part of one.
    let first = SECTOR - offset % SECTOR;
    let borders = bytes.len().saturating_sub(first).div_ceil(SECTOR) as u64 + 1;
    match rng.below(borders) as usize {
        0 => {}
        kept => {
            bytes.truncate(first + (kept - 1) * SECTOR);
            Change::Write { offset, bytes }.apply(durable);
        }
    }
}

impl State {
    fn charge(&mut self, bytes: usize) {
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        self.take(self.settings.operation + self.settings.mebibyte.mul_f64(mebibytes));
    }

    fn take(&mut self, time: Duration) {
        self.debt += time;
        if self.settings.is_slow() {
            self.ledger.fired(Fault::DiskSlow);
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// Whether a sync goes wrong this time.
    fn sync_fails(&mut self) -> bool {
        self.take(self.settings.sync);
        let fails = self.rng.chance(self.settings.failing_syncs);
        if fails {
            self.ledger.fired(Fault::DiskSync);
        }
        fails
    }

    /// Forgets files that nobody can reach any more, not even after a crash.
    fn sweep(&mut self) {
        let State { inodes, names, durable_names, .. } = self;
        let named: BTreeSet<Inode> = names.values().chain(durable_names.values()).copied().collect();
        inodes.retain(|inode, contents| contents.open > 0 || named.contains(inode));
    }

    /// Bytes that are still free.
    fn free(&self) -> u64 {
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        let takes_room = |(inode, contents): &(&Inode, &Contents)| contents.open > 0 || named.contains(inode);
        let files = self.inodes.iter().filter(takes_room);
        let used: u64 = files.map(|(_, contents)| contents.current.len() as u64).sum();
        self.settings.capacity.saturating_sub(used)
    }

    fn contents(&mut self, inode: Inode) -> io::Result<&mut Contents> {
        self.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, inode: Inode, mut change: Change) -> io::Result<()> {
        let length = self.contents(inode)?.current.len();
        let grows = change.length_after(length).saturating_sub(length) as u64;
        // Counted only where there is a limit: the sum is over all files.
        let missing =
            if self.settings.capacity == u64::MAX { 0 } else { grows.saturating_sub(self.free()) as usize };
        if missing > 0 {
            self.ledger.fired(Fault::DiskFull);
            match &mut change {
                // A write goes as far as there is room.
                Change::Write { bytes, .. } if bytes.len() > missing => bytes.truncate(bytes.len() - missing),
                _ => return Err(io::ErrorKind::StorageFull.into()),
            }
        }
        let contents = self.contents(inode)?;
        change.apply(&mut contents.current);
        contents.unsynced.push(change);
        if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.0);
        state.charge(0);
        let inode = match (state.names.get(name).copied(), mode) {
            (Some(inode), OpenMode::Existing) => inode,
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(_), OpenMode::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::New) => {
                let inode = state.next;
                state.next += 1;
                state.inodes.insert(inode, Contents::default());
                state.change_name(NameChange::Create(name.to_owned(), inode));
                inode
            }
        };
        state.contents(inode)?.open += 1;
        Ok(Arc::new(SimFile { disk: self.clone(), name: name.to_owned(), inode, crashes: state.crashes }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.charge(0);
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.charge(0);
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = lock(&self.0);
        state.charge(0);
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = lock(&self.0);
        if state.sync_fails() {
            return Err(io::Error::other("the disk failed to sync names"));
        }
        let State { unsynced_names, durable_names, .. } = &mut *state;
        for change in unsynced_names.drain(..) {
            change.apply(durable_names);
        }
        state.sweep();
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<DiskLock>> {
        let mut state = lock(&self.0);
        if state.locked {
            return Ok(None);
        }
        state.locked = true;
        Ok(Some(Box::new(Locked { disk: self.clone(), crashes: state.crashes })))
    }
}

/// The lock of a disk; a crash takes it away.
#[derive(Debug)]
struct Locked {
    disk: SimDisk,
    crashes: u64,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut state = lock(&self.disk.0);
        if state.crashes == self.crashes {
            state.locked = false;
        }
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
    inode: Inode,
    crashes: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.disk.0);
        if state.crashes == self.crashes { Ok(state) } else { Err(io::Error::other("opened before a crash")) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let Ok(mut state) = self.state() else { return };
        if let Ok(contents) = state.contents(self.inode) {
            contents.open -= 1;
        }
        state.sweep();
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.state()?.contents(self.inode)?.current.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        state.charge(buffer.len());
        let end = offset.saturating_add(buffer.len() as u64);
        let spoiled = |(name, range): &(String, Range<u64>)| {
            *name == self.name && range.start < end && offset < range.end
        };
        if state.unreadable.iter().any(spoiled) {
            state.ledger.fired(Fault::DiskRead);
            return Err(io::Error::other("the disk can't read this range"));
        }
        let current = &state.contents(self.inode)?.current;
        let rest = current.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(bytes.len());
        let end = offset.saturating_add(bytes.len() as u64);
        state
            .unreadable
            .retain(|(name, range)| *name != self.name || range.end <= offset || end <= range.start);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(0);
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let fails = state.sync_fails();
        let contents = state.contents(self.inode)?;
        for change in contents.unsynced.drain(..).filter(|_| !fails) {
            change.apply(&mut contents.durable);
        }
        if fails { Err(io::Error::other("the disk failed to sync a file")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    fn disk(seed: u64) -> SimDisk {
        SimDisk::new(Seed(seed).stream("disk"), Ledger::default())
    }

    fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        let file = disk.open(name, OpenMode::Existing).ok()?;
        let mut bytes = vec![0; file.size().unwrap() as usize];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        Some(bytes)
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..50 {
            let disk = disk(seed);
            let file = disk.open("a", OpenMode::New).unwrap();
            let lock = disk.lock().unwrap();
            assert!(lock.is_some() && disk.lock().unwrap().is_none());
            file.write_all_at(0, b"kept").unwrap();
            file.sync().unwrap();
            disk.sync_names().unwrap();
            disk.crash();
            assert_eq!(read(&disk, "a").as_deref(), Some(b"kept".as_slice()));
            assert!(file.write_all_at(0, b"late").is_err(), "a file from before the crash is of no use");
            let again = disk.lock().unwrap();
            assert!(again.is_some());
            drop(lock);
            assert!(disk.lock().unwrap().is_none(), "a lock from before the crash releases nothing");
        }
    }

    #[test]
    fn what_was_not_synced_may_be_there_gone_or_torn() {
        let (mut whole, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
        for seed in 0..200 {
            let disk = disk(seed);
            let file = disk.open("a", OpenMode::New).unwrap();
            file.set_len(2_048).unwrap();
            file.sync().unwrap();
            if seed % 2 == 0 {
                disk.sync_names().unwrap();
            }
            file.write_all_at(0, &[1; 2_048]).unwrap();
            disk.crash();
            match read(&disk, "a") {
                None => nameless += 1,
                Some(bytes) => {
                    assert_eq!(bytes.len(), 2_048);
                    let ones = bytes.iter().filter(|byte| **byte == 1).count();
                    assert_eq!(ones % SECTOR, 0, "sectors are written whole");
                    match ones {
                        0 => lost += 1,
                        2_048 => whole += 1,
                        _ => torn += 1,
                    }
                }
            }
        }
        assert!(
            [whole, lost, torn, nameless].iter().all(|count| *count > 10),
            "{whole} {lost} {torn} {nameless}"
        );
    }

    #[test]
    fn a_name_that_was_replaced_stands_for_one_file_or_the_other() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..50 {
            let disk = disk(seed);
            for (name, bytes) in [("a", b"old"), ("b", b"new")] {
                let file = disk.open(name, OpenMode::New).unwrap();
                file.write_all_at(0, bytes).unwrap();
                file.sync().unwrap();
                disk.sync_names().unwrap();
            }
            disk.rename("b", "a").unwrap();
            assert_eq!(read(&disk, "a").unwrap(), b"new");
            assert!(read(&disk, "b").is_none());
            disk.crash();
            match read(&disk, "a").unwrap().as_slice() {
                b"old" => old += 1,
                b"new" => new += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(old > 10 && new > 10, "{old} {new}");
    }

    #[test]
    fn a_later_write_may_survive_an_earlier_one() {
        let survived = (0..100).any(|seed| {
            let disk = disk(seed);
            let file = disk.open("a", OpenMode::New).unwrap();
            disk.sync_names().unwrap();
            file.write_all_at(0, &[1; 512]).unwrap();
            file.write_all_at(512, &[2; 512]).unwrap();
            disk.crash();
            let bytes = read(&disk, "a").unwrap();
            bytes.starts_with(&[0; 512]) && bytes.ends_with(&[2; 512])
        });
        assert!(survived);
    }

    #[test]
    fn full_disks_bad_sectors_and_failed_syncs_answer_with_errors() {
        let disk = disk(1);
        disk.set(Settings { capacity: 1_000, ..Settings::default() });
        let file = disk.open("a", OpenMode::New).unwrap();
        file.write_all_at(0, &[1; 900]).unwrap();
        assert_eq!(file.write_all_at(900, &[1; 200]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.size().unwrap(), 1_000, "a write goes as far as there is room");
        file.write_all_at(0, &[2; 900]).unwrap();
        assert!(file.set_len(1_001).is_err());

        disk.spoil("a", 100..200);
        let mut buffer = [0; 100];
        assert!(file.read_at(150, &mut buffer).is_err());
        assert_eq!(file.read_at(200, &mut buffer).unwrap(), 100);
        file.write_all_at(50, &[3; 200]).unwrap();
        assert_eq!(file.read_at(150, &mut buffer).unwrap(), 100);

        disk.sync_names().unwrap();
        file.sync().unwrap();
        disk.set(Settings { failing_syncs: 1.0, ..Settings::default() });
        file.write_all_at(0, &[9; 10]).unwrap();
        assert!(file.sync().is_err());
        disk.set(Settings::default());
        file.sync().unwrap();
        assert_eq!(read(&disk, "a").unwrap()[0], 9);
        disk.crash();
        assert_eq!(read(&disk, "a").unwrap()[0], 2, "a later sync does not save what a failed one lost");
    }
}
