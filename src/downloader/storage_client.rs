//! A piece, or a part of it, from a given peer.

use super::{DownloadError, DownloaderFactory, Peer};
use crate::client::{Ask, ExtensionReply};
use crate::store::TaskKey;
use crate::wire::PieceLength;
use crate::wire::extension::{ExtensionRequest, MAX_RANGE_LEN};
use bytes::{Bytes, BytesMut};
use std::io::Cursor;
use tokio::io::AsyncRead;

/// A part of a piece: `length` bytes from `offset`, counted from the begin of the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRange {
    /// The first byte.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
}

/// The piece does not have the bytes that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a range within the {piece} bytes of the piece, found {} bytes from {}", range.length, range.offset)]
pub struct RangeError {
    /// What was asked for.
    pub range: PieceRange,
    /// Bytes that there are.
    pub piece: PieceLength,
}

/// Why a piece or a part of one could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageClientError {
    /// The download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The range lies outside of the piece.
    #[error(transparent)]
    Range(#[from] RangeError),
}

/// Downloads pieces from given peers.
#[derive(Debug, Clone)]
pub struct StorageClient {
    downloaders: DownloaderFactory,
}

impl StorageClient {
    /// A client that asks by `downloaders`, each peer over its protocol.
    #[must_use]
    pub fn new(downloaders: DownloaderFactory) -> Self {
        Self { downloaders }
    }

    /// Downloads piece `number` of `task` from `peer`, or the part `range` of it.
    ///
    /// Of a peer that knows the range extension, a part is transferred alone, and verified by the digest that the peer
    /// gives for it. Otherwise the whole piece is transferred and verified. Only then is a byte handed out. Memory is
    /// taken for the part alone, as its bytes arrive.
    ///
    /// # Errors
    /// [`StorageClientError`].
    pub async fn download_piece(
        &self,
        peer: Peer,
        task: TaskKey,
        number: u32,
        range: Option<PieceRange>,
    ) -> Result<impl AsyncRead + use<>, StorageClientError> {
        if let Some(range) = range
            && let Some(content) = self.part(peer, task, number, range).await?
        {
            return Ok(Cursor::new(content));
        }
        let content = self.content(peer, task, number, range).await?;
        Ok(Cursor::new(content))
    }

    /// Downloads the part `range` of a piece alone; `None` where the peer does not know the range extension, or the part
    /// is none of the piece. In memory, verified by the digest that the peer gives for it.
    ///
    /// # Errors
    /// [`DownloadError`].
    pub async fn part(
        &self,
        peer: Peer,
        task: TaskKey,
        number: u32,
        range: PieceRange,
    ) -> Result<Option<Bytes>, DownloadError> {
        let downloader = self.downloaders.downloader(peer.protocol)?;
        let (mut content, mut left) = (BytesMut::new(), range);
        while left.length > 0 {
            let length = left.length.min(MAX_RANGE_LEN);
            let request = ExtensionRequest::Range { piece: task.piece(number), start: left.offset, length };
            match downloader.extension(peer.address, request).await? {
                // A part that is cut short by the end of the piece is the caller's error to hear of.
                Some(ExtensionReply::Range(head, bytes)) if head.length == length => {
                    content.extend_from_slice(&bytes);
                }
                _ => return Ok(None),
            }
            left = PieceRange { offset: left.offset.saturating_add(length), length: left.length - length };
        }
        Ok((range.length > 0).then(|| content.freeze()))
    }

    async fn content(
        &self,
        peer: Peer,
        task: TaskKey,
        number: u32,
        range: Option<PieceRange>,
    ) -> Result<Bytes, StorageClientError> {
        //= VTX-EXT-023
        let downloader = self.downloaders.downloader(peer.protocol).map_err(DownloadError::from)?;
        let mut answer = downloader.request(peer.address, Ask::new(task.piece(number))).await?;
        let piece = answer.piece().length;
        let range = range.unwrap_or(PieceRange { offset: 0, length: piece.get() });
        let (first, past) = (u64::from(range.offset), u64::from(range.offset) + u64::from(range.length));
        if past > piece.into() {
            return Err(RangeError { range, piece }.into());
        }
        let (mut at, mut content) = (0, BytesMut::new());
        while let Some(mut bytes) = answer.chunk().await.map_err(DownloadError::from)? {
            let next = at + bytes.len() as u64;
            // Both are cut to the chunk, so they are positions in it.
            let position = |byte: u64| usize::try_from(byte.clamp(at, next) - at).unwrap_or(bytes.len());
            let (from, to) = (position(first), position(past));
            content.extend_from_slice(&bytes.split_off(from).split_to(to - from));
            at = next;
        }
        Ok(content.freeze())
    }
}
