//! The disk as the store uses it.

use super::contents::{Change, Contents, Inode, NameChange};
use super::{Mounted, SimDisk, State};
use crate::faults::{Fault, lock};
use std::io;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, OpenMode};

impl Mounted {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.disk.0);
        if state.crashes == self.crashes {
            Ok(state)
        } else {
            Err(io::Error::other("mounted before a crash"))
        }
    }
}

impl Disk for Mounted {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state()?;
        state.charge(0)?;
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
        Ok(Arc::new(SimFile {
            disk: self.disk.clone(),
            name: name.to_owned(),
            inode,
            crashes: state.crashes,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(0)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(0)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state()?;
        state.charge(0)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.sync_fails()? {
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
        let mut state = self.state()?;
        state.begin()?;
        if state.locked {
            return Ok(None);
        }
        state.locked = true;
        Ok(Some(Box::new(Locked { disk: self.disk.clone(), crashes: state.crashes })))
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
        state.charge(buffer.len())?;
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
        state.charge(bytes.len())?;
        let end = offset.saturating_add(bytes.len() as u64);
        state
            .unreadable
            .retain(|(name, range)| *name != self.name || range.end <= offset || end <= range.start);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.charge(0)?;
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change(self.inode, Change::Length(length))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let fails = state.sync_fails()?;
        let contents = state.contents(self.inode)?;
        for change in contents.unsynced.drain(..).filter(|_| !fails) {
            change.apply(&mut contents.durable);
        }
        if fails { Err(io::Error::other("the disk failed to sync a file")) } else { Ok(()) }
    }
}
