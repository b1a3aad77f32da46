//! A directory of the operating system.

use super::device::{Disk, DiskFile, DiskLock, OpenMode};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file whose lock says that a process has the directory open. It stays behind, empty.
const LOCK: &str = "lock";

/// A directory in the file system.
#[derive(Debug)]
pub struct OsDisk {
    path: PathBuf,
    directory: File,
}

impl OsDisk {
    /// The directory at `path`; it is created, with those above it, where it is missing.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        create_durably(&path)?;
        let directory = File::open(&path)?;
        Ok(Self { path, directory })
    }
}

/// A link is not followed: none in the directory is the store's, and whoever may write there would choose what is written to.
fn here() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Creates a directory and what is missing above it, so that a power cut does not take it away again.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
    create_durably(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

impl Disk for OsDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(mode == OpenMode::New).custom_flags(here());
        Ok(Arc::new(OsFile(Arc::new(options.open(self.path.join(name))?))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn move_out(&self, name: &str, target: &Path) -> io::Result<()> {
        let target = std::path::absolute(target)?;
        std::fs::rename(self.path.join(name), &target)?;
        target.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let room = rustix::fs::fstatvfs(&self.directory)?;
        Ok(Some(room.f_bavail.saturating_mul(room.f_frsize)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn lock(&self) -> io::Result<Option<DiskLock>> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).custom_flags(here());
        let file = options.open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct OsFile(Arc<File>);

impl DiskFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        use rustix::io::{ReadWriteFlags, preadv2};
        let mut buffers = [io::IoSliceMut::new(buffer)];
        preadv2(&*self.0, &mut buffers, offset, ReadWriteFlags::NOWAIT).unwrap_or_default()
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if length == 0 {
            return self.set_len(0);
        }
        loop {
            match fallocate(&*self.0, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Some file systems can't reserve; the disk then fills up while writing.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.set_len(length),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn file(&self) -> Option<Arc<File>> {
        Some(Arc::clone(&self.0))
    }
}
