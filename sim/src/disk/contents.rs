//! What a disk holds, and what was changed in it since the last sync.

use std::collections::BTreeMap;

pub(super) type Inode = u64;

#[derive(Debug, Default)]
pub(super) struct Contents {
    /// How often it is open.
    pub(super) open: u32,
    pub(super) current: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
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
    pub(super) fn length_after(&self, length: usize) -> usize {
        match self {
            Change::Write { offset, bytes } => length.max(offset + bytes.len()),
            Change::Length(length) => *length,
        }
    }
}

#[derive(Debug)]
pub(super) enum NameChange {
    Create(String, Inode),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, Inode>) {
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
