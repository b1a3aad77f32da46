//! Reading a piece from its content file.

use super::device::DiskFile;
use super::{Entry, Inner};
use crate::runtime::BoxFuture;
use crate::store::{Content, StoreError};
use crate::wire::PieceSpan;
use bytes::Bytes;
use std::fs::File;
use std::sync::Arc;

/// A piece in a content file. It keeps the store open and its task from being collected.
#[derive(Debug)]
pub(super) struct Stored {
    store: Arc<Inner>,
    _entry: Arc<Entry>,
    file: Arc<dyn DiskFile>,
    number: u32,
    span: PieceSpan,
}

impl Stored {
    pub(super) fn new(
        store: Arc<Inner>,
        entry: Arc<Entry>,
        file: Arc<dyn DiskFile>,
        number: u32,
        span: PieceSpan,
    ) -> Self {
        Self { store, _entry: entry, file, number, span }
    }
}

impl Content for Stored {
    fn len(&self) -> u64 {
        self.span.length.into()
    }

    fn read(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        let rest = self.len().saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(max);
        Box::pin(async move {
            if length == 0 {
                return Ok(Bytes::new());
            }
            let (file, number, start) = (Arc::clone(&self.file), self.number, self.span.offset + offset);
            let mut buffer = self.store.buffers.take(length);
            // What is served often is in the page cache, and to copy it from there is quicker than to tell a thread.
            let cached = file.read_cached_at(start, &mut buffer);
            if cached == length {
                return Ok(buffer.freeze());
            }
            let reading = self.store.blocking(move |_| {
                let room = buffer.get_mut(cached..).unwrap_or_default();
                let read = file.read_full_at(start + cached as u64, room);
                if cached + read.map_err(|error| StoreError::io("reading a piece", error))? < length {
                    // The file was cut by someone else.
                    return Err(StoreError::Damaged { number });
                }
                Ok(buffer.freeze())
            });
            reading.await
        })
    }

    fn file(&self) -> Option<(Arc<File>, u64)> {
        Some((self.file.file()?, self.span.offset))
    }
}
