//! What the disk store needs of a disk: one directory of files, and a promise about what a power cut leaves.
//!
//! Every call blocks. Production uses [`super::OsDisk`]; a simulation supplies a disk that forgets, tears and reorders
//! whatever the store did not sync.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened; for reading and writing in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It has to be there ([`io::ErrorKind::NotFound`]).
    Existing,
    /// It must not be there ([`io::ErrorKind::AlreadyExists`]); it is created, empty.
    New,
}

/// Whatever holds the lock of a disk, until it is dropped.
pub type DiskLock = Box<dyn fmt::Debug + Send + Sync>;

/// A directory of files. Names have no separator and are safe as file names.
///
/// After a power cut, a name that was created, renamed or removed may be there or not, unless [`Disk::sync_names`] has returned
/// since.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// By [`OpenMode`], and whatever the disk fails with.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes the name of a file. Whoever has the file open goes on using it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and whatever the disk fails with.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of the file that had it, if any. After a power cut the new name stands for
    /// the one file or the other, never for none.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and whatever the disk fails with.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Moves a file out of the directory to `target`, in place of the file that is there, if any, and makes that durable.
    /// After a power cut before its return the file is at one of the two places.
    ///
    /// # Errors
    /// [`io::ErrorKind::CrossesDevices`] and [`io::ErrorKind::Unsupported`] where it has to be copied instead, and whatever
    /// the disk fails with.
    fn move_out(&self, name: &str, target: &Path) -> io::Result<()> {
        let _ = (name, target);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes that there is room for; `None` where that can't be told. Nothing says that others leave it.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn free(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes durable which names there are.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn sync_names(&self) -> io::Result<()>;

    /// Takes the disk for this process; `None` when another one has it. A power cut or the end of the process
    /// releases it.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn lock(&self) -> io::Result<Option<DiskLock>>;
}

/// An open file, used by many threads at once.
///
/// After a power cut each write and each change of the length since the last [`DiskFile::sync`] may have happened
/// whole, in part, or not at all, in any order.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to as many bytes as `buffer` has; fewer than that are no error, none are the end of the file.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads what is in memory already, without waiting for the device: so many bytes from the front of `buffer` on, and
    /// none where that can't be told. What is missing, and why, [`DiskFile::read_at`] says.
    fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let _ = (offset, buffer);
        0
    }

    /// Writes all of `bytes`. A file that is shorter than `offset` is filled with zeros up to there.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], and whatever the disk fails with; some of the bytes may have been written.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or fills it with zeros, to `length` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], and whatever the disk fails with.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// As [`DiskFile::set_len`] to a larger length, and reserves the room, so that later writes find it, where the
    /// disk can do that.
    ///
    /// # Errors
    /// As [`DiskFile::set_len`].
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    /// Makes the bytes and the length durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the disk fails with. Everything since the last sync that succeeded may then be lost, and a later sync
    /// that succeeds does not mean that it was saved.
    fn sync(&self) -> io::Result<()>;

    /// The file of the operating system, where there is one, for `sendfile`.
    fn file(&self) -> Option<Arc<std::fs::File>> {
        None
    }
}

impl dyn DiskFile {
    /// Reads until `buffer` is full or the file ends; returns how many bytes that were.
    ///
    /// # Errors
    /// Whatever the disk fails with.
    pub fn read_full_at(&self, mut offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(offset, rest) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
