//! A disk that loses what was not synced.
//!
//! The store's contract ([`vortex_p2p::store::disk::Disk`]) says what a power cut may leave, and this disk uses all of
//! that freedom: each unsynced write is kept, lost, or torn at a sector's border, by itself, so a later one may survive
//! an earlier one; each unsynced change of a name is kept or lost by itself; what a failed sync was to save is lost even
//! though it can still be read until the power goes.

mod access;
mod contents;
#[cfg(test)]
mod tests;

use crate::faults::{Fault, Ledger, lock};
use crate::rng::Rng;
use contents::{Change, Contents, Inode, NameChange};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A host's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// A disk as the software of one boot of its host has it: of no use any more once the host has crashed. What is dropped
/// late, after the next boot has begun, is not to write to its disk.
#[derive(Debug, Clone)]
pub struct Mounted {
    disk: SimDisk,
    crashes: u64,
}

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
    /// Operations that are still done before the power goes, and who is told of it.
    cut: Option<(u64, oneshot::Sender<()>)>,
    /// Whether the power is off.
    dark: bool,
    /// How often the host has lost power: its tasks look at it.
    outages: Arc<AtomicU64>,
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
            cut: None,
            dark: false,
            outages: Arc::default(),
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
        if !state.ledger.happens(Fault::DiskRead) {
            return;
        }
        state.unreadable.push((name.to_owned(), range));
    }

    /// The name of the largest file.
    pub fn largest(&self) -> Option<String> {
        let state = lock(&self.0);
        let length = |inode: &Inode| state.inodes.get(inode).map(|contents| contents.current.len());
        state.names.iter().max_by_key(|(_, inode)| length(inode)).map(|(name, _)| name.clone())
    }

    /// The disk for the software that runs now.
    pub fn mount(&self) -> Mounted {
        Mounted { crashes: lock(&self.0).crashes, disk: self.clone() }
    }

    /// When the disk has done what it was asked to so far.
    pub(crate) fn free_at(&self, now: Duration) -> Duration {
        let mut state = lock(&self.0);
        state.busy_until = state.busy_until.max(now) + std::mem::take(&mut state.debt);
        state.busy_until
    }

    /// How often the host of this disk has lost power.
    pub(crate) fn outages(&self) -> Arc<AtomicU64> {
        lock(&self.0).outages.clone()
    }

    /// Lets the power of the whole host go after so many more operations of the disk: in the middle of what its software
    /// does, between a write and the sync of it. What this returns is ready then, and the host is to be crashed.
    pub fn cut_power_after(&self, operations: u64) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        lock(&self.0).cut = Some((operations, tell));
        told
    }

    /// The power goes: decides what is left.
    pub(crate) fn crash(&self) {
        let mut state = lock(&self.0);
        state.cut = None;
        state.crash();
    }

    /// The power is back.
    pub(crate) fn power_on(&self) {
        lock(&self.0).dark = false;
    }
}

/// Writes what of `change` was on the disk when the power went.
fn tear(rng: &mut Rng, ledger: &Ledger, change: Change, durable: &mut Vec<u8>) {
    let Change::Write { offset, mut bytes } = change else {
        return lose(ledger, || change.apply(durable));
    };
    // The first sector of a write may be a part of one.
    let first = SECTOR - offset % SECTOR;
    let borders = bytes.len().saturating_sub(first).div_ceil(SECTOR) as u64 + 1;
    let sectors = rng.below(borders) as usize;
    if ledger.acts(Fault::DiskTorn) {
        match sectors {
            0 => return,
            kept => bytes.truncate(first + (kept - 1) * SECTOR),
        }
    }
    Change::Write { offset, bytes }.apply(durable);
}

/// Loses what `apply` would keep.
fn lose(ledger: &Ledger, apply: impl FnOnce()) {
    if !ledger.acts(Fault::DiskLost) {
        apply();
    }
}

impl State {
    fn crash(&mut self) {
        let State { rng, ledger, inodes, names, durable_names, unsynced_names, unreadable, .. } = self;
        for change in unsynced_names.drain(..) {
            ledger.armed(Fault::DiskLost);
            if rng.chance(0.5) {
                change.apply(durable_names);
            } else {
                lose(ledger, || change.apply(durable_names));
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
                    2 => lose(ledger, || change.apply(&mut contents.durable)),
                    _ => tear(rng, ledger, change, &mut contents.durable),
                }
            }
            contents.current.clone_from(&contents.durable);
            contents.open = 0;
        }
        unreadable.retain(|(name, _)| names.contains_key(name));
        self.crashes += 1;
        self.locked = false;
    }

    /// An operation begins, if there is power.
    fn begin(&mut self) -> io::Result<()> {
        match &mut self.cut {
            Some((0, _)) => {
                self.crash();
                self.dark = true;
                self.outages.fetch_add(1, Ordering::Relaxed);
                if let Some((_, tell)) = self.cut.take() {
                    // The scenario may be over.
                    let _ = tell.send(());
                }
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if self.dark { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn charge(&mut self, bytes: usize) -> io::Result<()> {
        self.begin()?;
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        self.take(|disk| disk.operation + disk.mebibyte.mul_f64(mebibytes));
        Ok(())
    }

    fn take(&mut self, time: impl Fn(&Settings) -> Duration) {
        let spared = self.settings.is_slow() && !self.ledger.acts(Fault::DiskSlow);
        self.debt += if spared { time(&Settings::default()) } else { time(&self.settings) };
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// Whether a sync goes wrong this time.
    fn sync_fails(&mut self) -> io::Result<bool> {
        self.begin()?;
        self.take(|disk| disk.sync);
        Ok(self.rng.chance(self.settings.failing_syncs) && self.ledger.acts(Fault::DiskSync))
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
        let mut missing =
            if self.settings.capacity == u64::MAX { 0 } else { grows.saturating_sub(self.free()) as usize };
        if missing > 0 && !self.ledger.acts(Fault::DiskFull) {
            missing = 0;
        }
        if missing > 0 {
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
