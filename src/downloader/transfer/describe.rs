//! What a task is like, where nobody has said so beforehand.

use super::fault;
use crate::client::{Ask, ExtensionReply};
use crate::downloader::{DownloadError, DownloaderFactory, Peer};
use crate::store::{NewTask, TaskKey};
use crate::wire::extension::ExtensionRequest;
use crate::wire::{Digest, Division, DivisionError, PieceLength};

/// Pieces that a peer may say a task has. Memory and time grow with them, a few bits and a look for each, before the first one
/// has come; a file of 4 TiB in pieces of 4 MiB has as many. Who knows of a longer one says so beforehand.
pub const MAX_DESCRIBED_PIECES: u64 = 1 << 20;

/// Nobody could say what the task is like.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A peer failed.
    #[error("{peer}: {error}")]
    Peer {
        /// Which peer.
        peer: Peer,
        /// How.
        error: DownloadError,
    },
    /// A peer has it, and says of it what can't be.
    #[error("{peer}: {error}")]
    Division {
        /// Which peer.
        peer: Peer,
        /// What can't be.
        error: DivisionError,
    },
    /// More pieces than anybody is believed to have.
    #[error(
        "{peer}: a task of {pieces} pieces, expected at most {MAX_DESCRIBED_PIECES} where only a peer says so"
    )]
    TooManyPieces {
        /// Which peer.
        peer: Peer,
        /// How many there are said to be.
        pieces: u64,
    },
    /// Two pieces do not belong to one task.
    #[error("{peer}: pieces of different tasks: piece 0 has {first} bytes, piece {number} has {length}")]
    Lengths {
        /// Which peer.
        peer: Peer,
        /// Bytes of piece 0.
        first: PieceLength,
        /// Another piece.
        number: u32,
        /// Its bytes.
        length: PieceLength,
    },
}

impl DescribeError {
    /// The failure of the peer, where there was one.
    #[must_use]
    pub fn download_error(&self) -> Option<&DownloadError> {
        match self {
            Self::Peer { error, .. } => Some(error),
            Self::Division { .. } | Self::TooManyPieces { .. } | Self::Lengths { .. } => None,
        }
    }
}

/// Asks `peer` what the task is like; `None` when it does not know the extension for that.
///
/// # Errors
/// [`DescribeError::Peer`]: also when it does not have the task; [`DescribeError::TooManyPieces`].
pub async fn describe(
    downloaders: &DownloaderFactory,
    peer: Peer,
    key: TaskKey,
) -> Result<Option<NewTask>, DescribeError> {
    let failed = |error| DescribeError::Peer { peer, error };
    let downloader = downloaders.downloader(peer.protocol).map_err(|error| failed(error.into()))?;
    let request = ExtensionRequest::Description { kind: key.kind, task_id: key.id };
    match downloader.extension(peer.address, request).await.map_err(failed)? {
        Some(ExtensionReply::Description(description)) => {
            believable(peer, description.division.pieces())?;
            Ok(Some(NewTask { key, division: description.division, digest: description.digest }))
        }
        _ => Ok(None),
    }
}

fn believable(peer: Peer, pieces: u64) -> Result<(), DescribeError> {
    if pieces > MAX_DESCRIBED_PIECES {
        return Err(DescribeError::TooManyPieces { peer, pieces });
    }
    Ok(())
}

/// Finds out what the task is like by asking `peer` for pieces, as deployed peers offer nothing else: the first one has
/// the piece length, the last one the rest. Where `pieces` is not known, the last one is searched by doubling and
/// halving, so a peer that has only part of the task misleads it; whoever knows a digest of the whole notices.
///
/// Of each piece no more than the metadata is waited for.
///
/// # Errors
/// [`DescribeError`].
pub async fn probe(
    downloaders: &DownloaderFactory,
    peer: Peer,
    key: TaskKey,
    pieces: Option<u64>,
    digest: Option<Digest>,
) -> Result<NewTask, DescribeError> {
    let probe = Probe { downloaders, peer, key };
    let first = probe.must(0).await?;
    let last = match pieces {
        Some(pieces) => u32::try_from(pieces.saturating_sub(1)).unwrap_or(u32::MAX),
        None if first.get() == 0 => 0,
        None => probe.last().await?,
    };
    let rest = if last == 0 { first } else { probe.must(last).await? };
    if rest > first {
        return Err(DescribeError::Lengths { peer, first, number: last, length: rest });
    }
    // An empty task has one empty piece; any piece length will do for it.
    let piece_length = PieceLength::try_from(u64::from(first).max(1)).unwrap_or(first);
    let length = u64::from(last) * u64::from(first) + u64::from(rest);
    let division =
        Division::new(length, piece_length).map_err(|error| DescribeError::Division { peer, error })?;
    Ok(NewTask { key, division, digest })
}

struct Probe<'a> {
    downloaders: &'a DownloaderFactory,
    peer: Peer,
    key: TaskKey,
}

impl Probe<'_> {
    /// The length of a piece; `None` when the peer does not have it.
    async fn length(&self, number: u32) -> Result<Option<PieceLength>, DescribeError> {
        let failed = |error| DescribeError::Peer { peer: self.peer, error };
        let downloader =
            self.downloaders.downloader(self.peer.protocol).map_err(|error| failed(error.into()))?;
        match downloader.request(self.peer.address, Ask::new(self.key.piece(number))).await {
            Ok(answer) => Ok(Some(answer.piece().length)),
            Err(error) if fault(&error) == super::Fault::Missing => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The length of a piece that has to be there.
    async fn must(&self, number: u32) -> Result<PieceLength, DescribeError> {
        let peer = self.peer;
        self.length(number).await?.ok_or_else(|| DescribeError::Peer {
            peer,
            error: crate::client::Failure::Refused {
                code: crate::wire::ErrorCode::NotFound,
                message: format!("piece {number}"),
            }
            .into(),
        })
    }

    /// The last piece that is there, given that piece 0 is.
    async fn last(&self) -> Result<u32, DescribeError> {
        let (mut here, mut missing) = (0u64, 1u64);
        while self.has(missing).await? {
            // The piece that it has is one more than its number.
            believable(self.peer, missing + 1)?;
            here = missing;
            missing *= 2;
        }
        while here + 1 < missing {
            let middle = here.midpoint(missing);
            if self.has(middle).await? {
                here = middle;
            } else {
                missing = middle;
            }
        }
        Ok(u32::try_from(here).unwrap_or(u32::MAX))
    }

    async fn has(&self, number: u64) -> Result<bool, DescribeError> {
        match u32::try_from(number) {
            Ok(number) => Ok(self.length(number).await?.is_some()),
            Err(_) => Ok(false),
        }
    }
}
