//! Some bytes of a file: parts of pieces where peers can give them, and whole pieces where not.

use crate::exit::{Exit, Failure};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;
use vortex_p2p::downloader::transfer::Report;
use vortex_p2p::downloader::{DownloaderFactory, Peer, PieceRange, StorageClient};
use vortex_p2p::store::disk::{DiskStore, ExportError};
use vortex_p2p::store::{NewTask, PieceSet, PieceStore as _, StoreError};
use vortex_p2p::wire::{Algorithm, Digest, Download, Hasher};

/// Bytes of a file, from the first to the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteRange {
    first: u64,
    last: u64,
}

impl FromStr for ByteRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected FIRST-LAST, such as 0-1023".to_owned();
        let (first, last) = text.split_once('-').ok_or_else(expected)?;
        let first = first.parse().map_err(|_| expected())?;
        let last = last.parse().map_err(|_| expected())?;
        if first > last { Err(expected()) } else { Ok(Self { first, last }) }
    }
}

/// The pieces that have the bytes of `range`.
pub(super) fn covering(task: &NewTask, range: ByteRange) -> Result<PieceSet, Failure> {
    let length = task.division.length();
    if range.last >= length {
        let message =
            format!("the file has {length} bytes, so its last byte is {}", length.saturating_sub(1));
        return Err(Failure::new(Exit::Usage, message));
    }
    let piece = |byte: u64| u32::try_from(byte / u64::from(task.division.piece_length())).unwrap_or(u32::MAX);
    Ok((piece(range.first)..=piece(range.last)).collect())
}

/// The bytes of piece `number` that are in `range`, counted from the begin of the piece.
fn within(task: &NewTask, number: u32, range: ByteRange) -> Option<PieceRange> {
    let span = task.division.piece(number)?;
    let (begin, end) = (span.offset, span.offset + u64::from(span.length));
    let (from, past) = (range.first.max(begin), range.last.saturating_add(1).min(end));
    let offset = u32::try_from(from.checked_sub(begin)?).ok()?;
    Some(PieceRange { offset, length: u32::try_from(past.checked_sub(from)?).ok()? })
}

/// Parts of pieces that were fetched alone, by the number of the piece; each with the peer that gave it.
#[derive(Default)]
pub(super) struct Parts(BTreeMap<u32, (usize, Bytes)>);

impl Parts {
    /// Fetches the parts of those pieces of which `range` has not all, as far as peers can give parts.
    pub(super) async fn fetch(
        downloaders: &DownloaderFactory,
        peers: &[Peer],
        task: &NewTask,
        range: ByteRange,
    ) -> Self {
        let client = StorageClient::new(downloaders.clone());
        let mut parts = BTreeMap::new();
        for number in covering(task, range).unwrap_or_default() {
            let Some(part) = within(task, number, range) else { continue };
            let whole = task.division.piece(number).is_some_and(|span| span.length.get() == part.length);
            if whole {
                continue;
            }
            for (index, peer) in peers.iter().enumerate() {
                match client.part(*peer, task.key, number, part).await {
                    Ok(Some(bytes)) => {
                        parts.insert(number, (index, bytes));
                        break;
                    }
                    Ok(None) => tracing::debug!(%peer, number, "no part alone: the piece is fetched whole"),
                    Err(error) => tracing::debug!(%peer, number, %error, "no part of a piece"),
                }
            }
        }
        Self(parts)
    }

    /// Whether there is a part of piece `number`.
    pub(super) fn has(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// The report with what these parts add to it.
    pub(super) fn added_to(&self, mut report: Report) -> Report {
        for (peer, bytes) in self.0.values() {
            report.bytes += bytes.len() as u64;
            if let Some(peer) = report.peers.get_mut(*peer) {
                peer.bytes += bytes.len() as u64;
                peer.pieces += 1;
            }
        }
        report
    }
}

/// Writes the bytes of `range` to `output`, durably; returns their SHA-256. Each piece that comes from the store is read whole
/// and held against its digest: it may be there since an earlier process.
///
/// # Errors
/// [`StoreError::Damaged`] where a piece is not what it was, of which the store is told; those of the file.
pub(super) async fn part(
    store: &DiskStore,
    task: &NewTask,
    range: ByteRange,
    parts: &Parts,
    output: &Path,
) -> Result<Digest, ExportError> {
    // What an earlier process left there, or whatever somebody else put there: it is not written to.
    match std::fs::remove_file(output) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = File::create_new(output)?;
    let (mut sha256, mut written) = (Hasher::new(Algorithm::Sha256), 0);
    // It was held against the length of the file before anything was fetched.
    for number in covering(task, range).unwrap_or_default() {
        let Some(wanted) = within(task, number, range) else { continue };
        let mut write = |bytes: &[u8]| {
            sha256.update(bytes);
            written += bytes.len() as u64;
            file.write_all(bytes)
        };
        match parts.0.get(&number) {
            Some((_, bytes)) => write(bytes)?,
            None => copy(store, task.key.piece(number), wanted, write).await?,
        }
    }
    if written != range.last - range.first + 1 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    file.sync_all()?;
    Ok(sha256.finish())
}

/// Reads a piece to its end, and gives what of it is `wanted` to `write`.
async fn copy(
    store: &DiskStore,
    request: Download,
    wanted: PieceRange,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ExportError> {
    /// Bytes that are read at a time.
    const PART: usize = 1 << 20;
    let piece = store.piece(request).await?;
    let mut hasher = Hasher::new(piece.provenance.digest.algorithm());
    let (from, to) = (u64::from(wanted.offset), u64::from(wanted.offset) + u64::from(wanted.length));
    let mut begin = 0;
    while begin < piece.content.len() {
        let bytes = piece.content.read(begin, PART).await?;
        hasher.update(&bytes);
        let end = begin + bytes.len() as u64;
        let place = |at: u64| (at.clamp(begin, end) - begin) as usize;
        write(bytes.get(place(from)..place(to)).unwrap_or_default())?;
        begin = end;
    }
    if hasher.finish() != piece.provenance.digest {
        store.mark_damaged(request).await?;
        return Err(StoreError::Damaged { number: request.number }.into());
    }
    Ok(())
}
