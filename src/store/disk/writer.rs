//! Writing a piece into its content file.

use super::device::DiskFile;
use super::index::{Change, Found};
use super::queue::Written;
use super::{Entry, Inner};
use crate::canary::planted;
use crate::runtime::BoxFuture;
use crate::store::{Missing, PieceWriter, Provenance, StoreError};
use crate::wire::PieceSpan;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes that are gathered before they go to the disk: the hop to a blocking thread costs little beside them. While
/// they are written as many again are gathered, so a writer has up to twice this in memory.
const WRITE_LEN: usize = 1 << 20;

/// The right to write a piece; whoever drops the last reference gives it back. Jobs that write have one, so that no
/// second writer begins before the last byte of the first has arrived.
#[derive(Debug)]
pub(super) struct Slot {
    entry: Arc<Entry>,
    number: u32,
}

impl Slot {
    pub(super) fn take(entry: Arc<Entry>, number: u32) -> Result<Arc<Self>, StoreError> {
        if !entry.state().writing.insert(number) {
            return Err(StoreError::Busy { number });
        }
        Ok(Arc::new(Self { entry, number }))
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.entry.state().writing.remove(&self.number);
    }
}

pub(super) struct Writer {
    store: Arc<Inner>,
    slot: Arc<Slot>,
    file: Arc<dyn DiskFile>,
    span: PieceSpan,
    lost: u64,
    /// Bytes taken from the caller.
    written: u64,
    /// The last of them, on their way to the disk.
    gathered: BytesMut,
    job: Option<oneshot::Receiver<Result<(), StoreError>>>,
    failed: bool,
}

impl Writer {
    pub(super) fn new(store: Arc<Inner>, slot: Arc<Slot>, file: Arc<dyn DiskFile>, span: PieceSpan) -> Self {
        let lost = slot.entry.state().lost;
        let (written, gathered, job, failed) = (0, BytesMut::new(), None, false);
        Self { store, slot, file, span, lost, written, gathered, job, failed }
    }

    async fn append(&mut self, mut content: Bytes) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Unavailable);
        }
        let expected = u64::from(self.span.length);
        if self.written + content.len() as u64 > expected {
            self.failed = true;
            return Err(StoreError::Overrun { expected });
        }
        while !content.is_empty() {
            if self.gathered.is_empty() && content.len() >= WRITE_LEN {
                // Large enough to be written as it is.
                self.settle().await?;
                self.start(std::mem::take(&mut content));
            } else {
                let room = WRITE_LEN.saturating_sub(self.gathered.len());
                let part = content.split_to(room.min(content.len()));
                self.gathered.extend_from_slice(&part);
                self.written += part.len() as u64;
                if self.gathered.len() >= WRITE_LEN {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.settle().await?;
        let gathered = self.gathered.split().freeze();
        // They were counted when they were gathered.
        self.written -= gathered.len() as u64;
        self.start(gathered);
        Ok(())
    }

    /// Waits for the job that is writing.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if let Some(job) = &mut self.job {
            let result = job.await.map_err(|_| StoreError::Unavailable).flatten();
            self.job = None;
            self.failed = result.is_err();
            result?;
        }
        Ok(())
    }

    /// Begins to write the next bytes; none are being written.
    fn start(&mut self, content: Bytes) {
        let offset = self.span.offset + self.written;
        self.written += content.len() as u64;
        let (done, job) = oneshot::channel();
        let (slot, file) = (Arc::clone(&self.slot), Arc::clone(&self.file));
        self.store.runtime.spawn_blocking(Box::new(move || {
            let result = file.write_all_at(offset, &content);
            // The slot is free before the writer knows, and so before another may ask for it.
            drop((content, slot));
            let _ = done.send(result.map_err(|error| StoreError::io("writing a piece", error)));
        }));
        self.job = Some(job);
    }

    async fn finish(mut self, provenance: Provenance) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Unavailable);
        }
        let (written, expected) = (self.written, u64::from(self.span.length));
        if written != expected {
            return Err(StoreError::Incomplete { written, expected });
        }
        if !self.gathered.is_empty() {
            self.flush().await?;
        }
        self.settle().await?;
        let Self { store, slot, file, lost, .. } = self;
        let change = Change::Piece { number: slot.number, provenance, accessed: store.now() };
        let entry = Arc::clone(&slot.entry);
        let done = store.submit(entry, change, Some(Written { _slot: slot, file, lost }));
        if planted("acknowledged-early") {
            return Ok(());
        }
        match done.await.map_err(|_| StoreError::Unavailable)?? {
            Found::Yes { .. } => Ok(()),
            Found::No => Err(Missing::Task.into()),
        }
    }
}

impl PieceWriter for Writer {
    fn span(&self) -> PieceSpan {
        self.span
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn write(&mut self, content: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.append(content))
    }

    fn commit(self: Box<Self>, provenance: Provenance) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(self.finish(provenance))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, length) = (&self.slot, self.span.length);
        write!(f, "writer of {} piece {}, {} of {length} bytes", slot.entry.key, slot.number, self.written)
    }
}
