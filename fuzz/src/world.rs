//! A world without threads, and a disk in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use vortex_p2p::runtime::{BoxFuture, Runtime, Timer};
use vortex_p2p::store::disk::{Disk, DiskFile, DiskLock, OpenMode};

/// Runs blocking jobs on the spot.
#[derive(Debug)]
pub struct Inline;

#[derive(Debug)]
struct Never;

impl Timer for Never {
    fn reset(self: Pin<&mut Self>, _: Instant) {}
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Runtime for Inline {
    #[allow(
        clippy::disallowed_methods,
        reason = "an instant can't be made in another way, and nothing waits for one here"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_700_000_000)
    }
    fn timer(&self, _: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(Never)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        ready(task);
    }
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

/// The value of a future that has nothing to wait for, as is every one on [`Inline`].
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits, and nothing on this runtime could wake it"),
    }
}

type Content = Arc<Mutex<Vec<u8>>>;

/// A disk in memory. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct MemoryDisk(Arc<Mutex<BTreeMap<String, Content>>>);

#[derive(Debug)]
struct MemoryFile(Content);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// Another disk with the same files.
    pub fn copy(&self) -> Self {
        let copied = |content: &Content| Arc::new(Mutex::new(lock(content).clone()));
        let files = lock(&self.0).iter().map(|(name, content)| (name.clone(), copied(content))).collect();
        Self(Arc::new(Mutex::new(files)))
    }

    /// The bytes of a file.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.0).get(name).map(|content| lock(content).clone())
    }

    /// Puts a file in place of what is there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        lock(&self.0).insert(name.to_owned(), Arc::new(Mutex::new(bytes)));
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.0);
        let content = match (mode, files.get(name)) {
            (OpenMode::Existing, Some(content)) => Arc::clone(content),
            (OpenMode::Existing, None) => return Err(io::ErrorKind::NotFound.into()),
            (OpenMode::New, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::New, None) => Arc::clone(files.entry(name.to_owned()).or_default()),
        };
        Ok(Arc::new(MemoryFile(content)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.0);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<DiskLock>> {
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = lock(&self.0);
        let start = room(offset)?;
        let end = room(offset.saturating_add(bytes.len() as u64))?;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        lock(&self.0).resize(room(length)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file may have 64 MiB: what wants more has believed a damaged length.
fn room(length: u64) -> io::Result<usize> {
    assert!(length <= 64 << 20, "{length} bytes");
    usize::try_from(length).map_err(|_| io::ErrorKind::StorageFull.into())
}
