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
        if length == 0 {
            return Box::pin(std::future::ready(Ok(Bytes::new())));
        }
        let (file, number, start) = (Arc::clone(&self.file), self.number, self.span.offset + offset);
        Box::pin(self.store.blocking(move |_| {
            let mut buffer = vec![0; length];
            let read = file.read_full_at(start, &mut buffer);
            if read.map_err(|error| StoreError::io("reading a piece", error))? < length {
                // The file was cut by someone else.
                return Err(StoreError::Damaged { number });
            }
            Ok(buffer.into())
        }))
    }

    fn file(&self) -> Option<(Arc<File>, u64)> {
        Some((self.file.file()?, self.span.offset))
    }
}
