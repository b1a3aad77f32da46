//! A disk that loses what was not synced.
//!
//! Files and their names are two things, as on a real file system: syncing a file makes its bytes durable, syncing its
//! directory makes its name durable. At a crash each unsynced write is kept, lost, or torn at a sector's border, each by
//! itself, so later writes may survive earlier ones; unsynced changes of names survive up to some point in their
//! order, as with a journal.

use crate::faults::{Fault, Ledger, lock};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    names: BTreeMap<PathBuf, Inode>,
    directories: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, Inode>,
    /// Changes of names since their directory was last synced, in order.
    renamed: Vec<NameChange>,
    settings: Settings,
    unreadable: Vec<(PathBuf, Range<u64>)>,
    used: u64,
    /// Crashes so far: a file that was open at one is gone.
    crashes: u64,
    busy_until: Duration,
    debt: Duration,
}

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that fit; more are refused as by a full disk.
    pub capacity: u64,
    /// What one operation takes.
    pub operation: Duration,
    /// What a sync takes, and what a mebibyte takes on top of the operation.
    pub sync: Duration,
    /// See `sync`.
    pub mebibyte: Duration,
}

impl Default for Settings {
    /// An SSD, as large as anyone needs.
    fn default() -> Self {
        let micros = Duration::from_micros;
        Settings { capacity: u64::MAX, operation: micros(20), sync: micros(400), mebibyte: micros(700) }
    }
}

#[derive(Debug, Default)]
struct Contents {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, Inode),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn within(&self, directory: &Path) -> bool {
        match self {
            NameChange::Link(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
            NameChange::Rename(from, to) => [from, to].iter().any(|path| path.parent() == Some(directory)),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
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
            directories: BTreeSet::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            settings: Settings::default(),
            unreadable: Vec::new(),
            used: 0,
            crashes: 0,
            busy_until: Duration::ZERO,
            debt: Duration::ZERO,
        })))
    }

    /// Changes how the disk behaves from now on.
    pub fn set(&self, settings: Settings) {
        let mut state = lock(&self.0);
        if settings.capacity != u64::MAX {
            state.ledger.armed(Fault::DiskFull);
        }
        if settings.operation > Settings::default().operation {
            state.ledger.armed(Fault::DiskSlow);
            state.ledger.fired(Fault::DiskSlow);
        }
        state.settings = settings;
    }

    /// Makes a range of a file unreadable, until it is written again.
    pub fn spoil(&self, path: impl Into<PathBuf>, range: Range<u64>) {
        let mut state = lock(&self.0);
        state.ledger.armed(Fault::DiskRead);
        state.unreadable.push((path.into(), range));
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
        let State { rng, ledger, inodes, names, durable_names, renamed, crashes, unreadable, .. } =
            &mut *state;
        *crashes += 1;
        let kept = rng.below(renamed.len() as u64 + 1) as usize;
        for change in renamed.drain(..).take(kept) {
            change.apply(durable_names);
        }
        *names = durable_names.clone();
        inodes.retain(|inode, _| names.values().any(|named| named == inode));
        for contents in inodes.values_mut() {
            if !contents.unsynced.is_empty() {
                ledger.armed(Fault::DiskLost);
                ledger.armed(Fault::DiskTorn);
            }
            for change in std::mem::take(&mut contents.unsynced) {
                match rng.below(4) {
                    0 | 1 => change.apply(&mut contents.durable),
                    2 => ledger.fired(Fault::DiskLost),
                    _ => tear(rng, ledger, change, &mut contents.durable),
                }
            }
            contents.current = contents.durable.clone();
        }
        unreadable.retain(|(path, _)| names.contains_key(path));
        state.used = state.inodes.values().map(|contents| contents.current.len() as u64).sum();
    }

    /// Makes a directory, and those above it.
    pub fn create_dir_all(&self, path: &Path) {
        let mut state = lock(&self.0);
        state.directories.extend(path.ancestors().map(Path::to_path_buf));
    }

    /// Opens a file, and makes an empty one where `create` is set and there is none.
    pub fn open(&self, path: &Path, create: bool) -> io::Result<SimFile> {
        let mut state = lock(&self.0);
        state.charge(0);
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None if create => {
                let inode = state.next;
                state.next += 1;
                state.inodes.insert(inode, Contents::default());
                state.change_name(NameChange::Link(path.to_path_buf(), inode));
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(SimFile { disk: self.clone(), path: path.to_path_buf(), inode, crashes: state.crashes })
    }

    /// Gives a file another name, in place of whatever had that.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.charge(0);
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    /// Takes a file's name away.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.charge(0);
        let Some(inode) = state.names.get(path).copied() else { return Err(io::ErrorKind::NotFound.into()) };
        let length = state.inodes.get(&inode).map_or(0, |contents| contents.current.len() as u64);
        state.used = state.used.saturating_sub(length);
        state.change_name(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    /// The files directly within a directory, sorted.
    pub fn list(&self, directory: &Path) -> Vec<PathBuf> {
        let mut state = lock(&self.0);
        state.charge(0);
        state.names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect()
    }

    /// Makes the names within a directory durable.
    pub fn sync_dir(&self, directory: &Path) {
        let mut state = lock(&self.0);
        state.charge_sync();
        let State { renamed, durable_names, .. } = &mut *state;
        // A journal keeps order: what came before in other directories goes with it.
        if let Some(last) = renamed.iter().rposition(|change| change.within(directory)) {
            for change in renamed.drain(..=last) {
                change.apply(durable_names);
            }
        }
    }
}

fn tear(rng: &mut Rng, ledger: &Ledger, change: Change, durable: &mut Vec<u8>) {
    let Change::Write { offset, mut bytes } = change else {
        return ledger.fired(Fault::DiskLost);
    };
    ledger.fired(Fault::DiskTorn);
    // The first sector of a write may be a part of one.
    let first = SECTOR - offset % SECTOR;
    let borders = bytes.len().saturating_sub(first).div_ceil(SECTOR) as u64 + 1;
    let kept = rng.below(borders) as usize;
    bytes.truncate(if kept == 0 { 0 } else { first + (kept - 1) * SECTOR });
    if !bytes.is_empty() {
        Change::Write { offset, bytes }.apply(durable);
    }
}

impl State {
    fn charge(&mut self, bytes: usize) {
        self.debt +=
            self.settings.operation + self.settings.mebibyte.mul_f64(bytes as f64 / f64::from(1 << 20));
    }

    fn charge_sync(&mut self) {
        self.debt += self.settings.sync;
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.renamed.push(change);
    }

    fn change(&mut self, inode: Inode, change: Change) -> io::Result<()> {
        let contents = self.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let length = contents.current.len() as u64;
        let new = match &change {
            Change::Write { offset, bytes } => length.max((offset + bytes.len()) as u64),
            Change::Length(length) => *length as u64,
        };
        let used = self.used - length + new;
        if used > self.settings.capacity {
            self.ledger.fired(Fault::DiskFull);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used = used;
        change.apply(&mut contents.current);
        contents.unsynced.push(change);
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: Inode,
    crashes: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let state = lock(&self.disk.0);
        if state.crashes == self.crashes { Ok(state) } else { Err(io::Error::other("opened before a crash")) }
    }

    /// Reads at `offset`; fewer bytes than asked for at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.charge(buffer.len());
        let end = offset + buffer.len() as u64;
        let spoiled = |(path, range): &(PathBuf, Range<u64>)| {
            *path == self.path && range.start < end && offset < range.end
        };
        if state.unreadable.iter().any(spoiled) {
            state.ledger.fired(Fault::DiskRead);
            return Err(io::Error::other("the disk can't read this range"));
        }
        let contents = state.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let rest = contents.current.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(bytes.len());
        let end = offset + bytes.len() as u64;
        state
            .unreadable
            .retain(|(path, range)| *path != self.path || range.end <= offset || end <= range.start);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Write { offset, bytes: bytes.to_vec() })
    }

    /// Cuts the file, or fills it with zeros.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(0);
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Length(length))
    }

    /// How long the file is.
    pub fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?.current.len() as u64)
    }

    /// Whether there is nothing in the file.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the file's bytes durable; its name is its directory's business.
    pub fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge_sync();
        let contents = state.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        for change in contents.unsynced.drain(..) {
            change.apply(&mut contents.durable);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    fn disk(seed: u64) -> SimDisk {
        SimDisk::new(Seed(seed).stream("disk"), Ledger::default())
    }

    fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path), false).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        Some(bytes)
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..50 {
            let disk = disk(seed);
            let file = disk.open(Path::new("/d/a"), true).unwrap();
            file.write_at(b"kept", 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/d"));
            disk.crash();
            assert_eq!(read(&disk, "/d/a").as_deref(), Some(b"kept".as_slice()));
            assert!(file.write_at(b"late", 0).is_err(), "a file from before the crash is of no use");
        }
    }

    #[test]
    fn what_was_not_synced_may_be_there_gone_or_torn() {
        let (mut whole, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
        for seed in 0..200 {
            let disk = disk(seed);
            let file = disk.open(Path::new("/d/a"), true).unwrap();
            file.set_len(2_048).unwrap();
            file.sync().unwrap();
            if seed % 2 == 0 {
                disk.sync_dir(Path::new("/d"));
            }
            file.write_at(&[1; 2_048], 0).unwrap();
            disk.crash();
            match read(&disk, "/d/a") {
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
    fn a_later_write_may_survive_an_earlier_one() {
        let survived = (0..100).any(|seed| {
            let disk = disk(seed);
            let file = disk.open(Path::new("/a"), true).unwrap();
            disk.sync_dir(Path::new("/"));
            file.write_at(&[1; 512], 0).unwrap();
            file.write_at(&[2; 512], 512).unwrap();
            disk.crash();
            read(&disk, "/a").unwrap().starts_with(&[0; 512])
                && read(&disk, "/a").unwrap().ends_with(&[2; 512])
        });
        assert!(survived);
    }

    #[test]
    fn full_disks_and_bad_sectors_answer_with_errors() {
        let disk = disk(1);
        disk.set(Settings { capacity: 1_000, ..Settings::default() });
        let file = disk.open(Path::new("/a"), true).unwrap();
        file.write_at(&[1; 900], 0).unwrap();
        assert_eq!(file.write_at(&[1; 200], 900).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(&[2; 900], 0).unwrap();
        disk.spoil("/a", 100..200);
        let mut buffer = [0; 100];
        assert!(file.read_at(&mut buffer, 150).is_err());
        assert_eq!(file.read_at(&mut buffer, 200).unwrap(), 100);
        file.write_at(&[3; 200], 50).unwrap();
        assert_eq!(file.read_at(&mut buffer, 150).unwrap(), 100);
    }
}
