//! The manifest of a task: what a downloader has to know beforehand, as a JSON file.
//!
//! ```json
//! {
//!   "version": 1,
//!   "task": "64 hexadecimal digits",
//!   "kind": "piece",
//!   "length": 10485760,
//!   "piece_length": 4194304,
//!   "digest": "sha256:64 hexadecimal digits",
//!   "pieces": ["crc32:907060870", "crc32:3421780262", "crc32:0"]
//! }
//! ```
//!
//! `digest`, of the whole content, may be missing. Fields that are not known are passed over.

use super::{NewTask, PieceStore, StoreError, TaskKey};
use crate::wire::{Digest, DigestError, Division, DivisionError, PieceLength, PieceTooLong};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// Bytes of the largest manifest that is read: that of a million pieces with sha512. It is held in memory.
pub const MAX_MANIFEST_LEN: u64 = 160 << 20;

const VERSION: u32 = 1;

/// The description of a whole task, with the digest of each of its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    task: NewTask,
    pieces: Vec<Digest>,
}

/// A manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It can't be read.
    #[error("the manifest can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is too long.
    #[error("the manifest has more than {MAX_MANIFEST_LEN} bytes")]
    TooLong,
    /// No JSON, or not of this form.
    #[error("not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A later form.
    #[error("a manifest of version {0}, expected {VERSION}")]
    Version(u32),
    /// A field has a value that it can't have.
    #[error("{field}: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The digest of a piece is none.
    #[error("pieces: the digest of piece {number}: {reason}")]
    Piece {
        /// Which piece.
        number: usize,
        /// What is wrong with it.
        reason: DigestError,
    },
    /// The task can't be divided so.
    #[error(transparent)]
    Division(#[from] DivisionError),
    /// As many digests as pieces are wanted.
    #[error(
        "{digests} digests, expected one for each of the {pieces} pieces that length and piece_length give"
    )]
    Count {
        /// How many digests there are.
        digests: usize,
        /// How many pieces there are.
        pieces: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    task: String,
    kind: String,
    length: u64,
    piece_length: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    pieces: Vec<String>,
}

/// The one field that has to be read before the others are judged.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Manifest {
    /// The manifest of a task whose pieces have these digests.
    ///
    /// # Errors
    /// [`ManifestError::Count`] when there are more or fewer digests than pieces.
    pub fn new(task: NewTask, pieces: Vec<Digest>) -> Result<Self, ManifestError> {
        if pieces.len() as u64 != task.division.pieces() {
            return Err(ManifestError::Count { digests: pieces.len(), pieces: task.division.pieces() });
        }
        Ok(Self { task, pieces })
    }

    /// The manifest of a task that a store holds whole.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it does not, and what the store fails with.
    pub async fn of(store: &dyn PieceStore, key: TaskKey) -> Result<Self, StoreError> {
        let task = store.task(key).await?.ok_or(super::Missing::Task)?;
        let mut pieces = Vec::new();
        for number in 0..=u32::MAX {
            if u64::from(number) >= task.division.pieces() {
                break;
            }
            pieces.push(store.piece(key.piece(number)).await?.provenance.digest);
        }
        Ok(Self { task: NewTask { key, division: task.division, digest: task.digest }, pieces })
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] for whatever is not one.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() as u64 > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong);
        }
        let Version { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let document: Document = serde_json::from_slice(json)?;
        let field = |field, reason: String| ManifestError::Field { field, reason };
        let id =
            document.task.parse().map_err(|bad: crate::wire::BadTaskId| field("task", bad.to_string()))?;
        let kind = document.kind.parse();
        let kind = kind.map_err(|bad: crate::wire::UnknownKind| field("kind", bad.to_string()))?;
        let piece_length = PieceLength::try_from(document.piece_length)
            .map_err(|bad: PieceTooLong| field("piece_length", bad.to_string()))?;
        let division = Division::new(document.length, piece_length)?;
        let digest = document.digest.map(|text| text.parse::<Digest>());
        let digest = digest.transpose().map_err(|bad| field("digest", bad.to_string()))?;
        let pieces = document
            .pieces
            .iter()
            .enumerate()
            .map(|(number, text)| text.parse().map_err(|reason| ManifestError::Piece { number, reason }));
        let pieces = pieces.collect::<Result<_, _>>()?;
        Self::new(NewTask { key: TaskKey { kind, id }, division, digest }, pieces)
    }

    /// Reads a manifest from a file or whatever else has bytes, no more of them than a manifest may have.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and [`ManifestError::Io`].
    pub fn read(source: impl Read) -> Result<Self, ManifestError> {
        let mut json = Vec::new();
        source.take(MAX_MANIFEST_LEN + 1).read_to_end(&mut json)?;
        Self::parse(&json)
    }

    /// Its JSON, for people and programs, with a line break at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let NewTask { key, division, digest } = self.task;
        let document = Document {
            version: VERSION,
            task: key.id.to_string(),
            kind: key.kind.to_string(),
            length: division.length(),
            piece_length: division.piece_length().into(),
            digest: digest.map(|digest| digest.to_string()),
            pieces: self.pieces.iter().map(Digest::to_string).collect(),
        };
        // Strings and numbers always have a JSON form.
        let mut json = serde_json::to_string_pretty(&document).unwrap_or_default();
        json.push('\n');
        json
    }

    /// The task: name, division, digest of the whole.
    #[must_use]
    pub fn task(&self) -> NewTask {
        self.task
    }

    /// The digests of the pieces, one for each, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Digest] {
        &self.pieces
    }
}
