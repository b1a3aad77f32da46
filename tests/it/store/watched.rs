//! A disk whose reads of content are counted, and come at a bad moment.

use super::world::{Inline, ready};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, DiskStore, OpenMode};

/// A disk that counts what is read of content, and has somebody act in the middle of a read.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    disk: Arc<dyn Disk>,
    reads: Arc<Reads>,
}

#[derive(Default)]
struct Reads {
    bytes: AtomicU64,
    /// Before which read from now on, and what.
    interruption: Mutex<Option<(u64, Interruption)>>,
}

type Interruption = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.load(Relaxed))
    }
}

impl Watched {
    pub(super) fn new(disk: impl Disk) -> Self {
        Self { disk: Arc::new(disk), reads: Arc::default() }
    }

    pub(super) fn open(&self) -> DiskStore {
        ready(DiskStore::open(Arc::new(self.clone()), Inline::new())).unwrap()
    }

    /// How many bytes of content were read since this was asked for last.
    pub(super) fn read(&self) -> u64 {
        self.reads.bytes.swap(0, Relaxed)
    }

    pub(super) fn so_far(&self) -> u64 {
        self.reads.bytes.load(Relaxed)
    }

    /// Has `with` happen before a read: the next one, but for `after` others.
    pub(super) fn interrupt(&self, after: u64, with: impl FnOnce() + Send + 'static) {
        *self.reads.interruption.lock().unwrap() = Some((after, Box::new(with)));
    }

    pub(super) fn was_interrupted(&self) -> bool {
        self.reads.interruption.lock().unwrap().is_none()
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn DiskFile>,
    reads: Arc<Reads>,
}

impl WatchedFile {
    fn count(&self, bytes: usize) -> usize {
        self.reads.bytes.fetch_add(bytes as u64, Relaxed);
        bytes
    }
}

impl DiskFile for WatchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let due = {
            let mut interruption = self.reads.interruption.lock().unwrap();
            match &mut *interruption {
                Some((0, _)) => interruption.take(),
                Some((after, _)) => {
                    *after -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, interruption)) = due {
            interruption();
        }
        Ok(self.count(self.file.read_at(offset, buffer)?))
    }
    fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        self.count(self.file.read_cached_at(offset, buffer))
    }
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(offset, bytes)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn file(&self) -> Option<Arc<std::fs::File>> {
        self.file.file()
    }
}

impl Disk for Watched {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name, mode)?;
        if !name.ends_with(".content") {
            return Ok(file);
        }
        Ok(Arc::new(WatchedFile { file, reads: Arc::clone(&self.reads) }))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn move_out(&self, name: &str, target: &std::path::Path) -> io::Result<()> {
        self.disk.move_out(name, target)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
    fn lock(&self) -> io::Result<Option<DiskLock>> {
        self.disk.lock()
    }
}
