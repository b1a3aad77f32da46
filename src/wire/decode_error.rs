//! Why bytes are not a packet.

use super::{Header, Tag, limits};

/// Why bytes are not a packet. [`DecodeError::name`] gives the name that the specification fixes for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the header or the value is complete.
    #[error("truncated: {have} bytes of a packet of {need}")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes that there should be: of the header while it is incomplete, of the packet otherwise.
        need: usize,
    },
    /// Length is above what any packet may declare.
    #[error("too-long: a Length of {}, expected at most {}", header.length, limits::MAX_VALUE_LEN)]
    TooLong {
        /// The header that declares it. What it begins may be something else than a packet.
        header: Header,
    },
    /// Length is not one that the tag allows.
    #[error("bad-length: a {tag} packet with a Length of {length}, expected {}", tag.lengths())]
    BadLength {
        /// The packet's tag.
        tag: Tag,
        /// The Length declared.
        length: u32,
    },
    /// The task id is not 64 lower-case hexadecimal digits.
    #[error("bad-task-id: byte {at} of the task id is 0x{byte:02x}, expected one of 0-9, a-f")]
    BadTaskId {
        /// Which byte, from 0.
        at: u8,
        /// Its value.
        byte: u8,
    },
    /// A length inside of the metadata disagrees with the packet.
    #[error("bad-metadata: {field} does not fit into the value")]
    BadMetadata {
        /// The field that does not fit.
        field: &'static str,
    },
    /// The piece is larger than any piece may be.
    #[error("bad-piece-length: a piece of {length} bytes, expected at most {}", limits::MAX_PIECE_LEN)]
    BadPieceLength {
        /// The length declared.
        length: u64,
    },
    /// The digest or the parent id is above its limit.
    #[error("field-too-long: {field} has {length} bytes, expected at most {limit}")]
    FieldTooLong {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: usize,
    },
    /// A text is not UTF-8.
    #[error("not-utf8: {field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// Bytes follow a packet that should be the only one.
    #[error("trailing-bytes: {count} bytes after the packet")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

impl DecodeError {
    /// The name of the failed check in the specification's decoding table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        //= VTX-ERR-014
        match self {
            Self::Truncated { .. } => "truncated",
            Self::TooLong { .. } => "too-long",
            Self::BadLength { .. } => "bad-length",
            Self::BadTaskId { .. } => "bad-task-id",
            Self::BadMetadata { .. } => "bad-metadata",
            Self::BadPieceLength { .. } => "bad-piece-length",
            Self::FieldTooLong { .. } => "field-too-long",
            Self::NotUtf8 { .. } => "not-utf8",
            Self::TrailingBytes { .. } => "trailing-bytes",
        }
    }

    /// Whether the next packet can still be found: the end of the malformed one is known and near.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        !matches!(self, Self::TooLong { .. } | Self::Truncated { .. })
    }
}

/// That a value is refused, and not why.
///
/// A value of many fields is read by functions that are generic over their error, so that each check is written once and
/// compiled twice: with this one, for nearly all packets, which are good and need no reason carried along; and with
/// [`DecodeError`], to read a value that was refused once more, for the reason.
pub(super) struct Refused;

impl From<DecodeError> for Refused {
    #[inline]
    fn from(_: DecodeError) -> Self {
        Self
    }
}
