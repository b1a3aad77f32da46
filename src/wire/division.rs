//! How a task is divided into pieces.

use super::{PieceLength, limits};

/// The division of a task into pieces: its length and that of its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    length: u64,
    piece_length: PieceLength,
}

/// Where a piece lies in its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceSpan {
    /// Its first byte, from 0.
    pub offset: u64,
    /// Its bytes.
    pub length: PieceLength,
}

/// A task can't be divided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DivisionError {
    /// Pieces without a byte.
    #[error("a piece length of 0, expected 1 to {}", limits::MAX_PIECE_LEN)]
    NoPieceLength,
    /// More pieces than there are numbers.
    #[error("{pieces} pieces, expected at most {}: choose a larger piece length", limits::MAX_PIECES)]
    TooManyPieces {
        /// How many there would be.
        pieces: u64,
    },
}

impl Division {
    /// A task of `length` bytes in pieces of `piece_length`.
    ///
    /// # Errors
    /// [`DivisionError`] for a piece length of 0 or more than 2^32 pieces.
    pub fn new(length: u64, piece_length: PieceLength) -> Result<Self, DivisionError> {
        //= VTX-REQ-008
        if piece_length.get() == 0 {
            return Err(DivisionError::NoPieceLength);
        }
        let division = Self { length, piece_length };
        let pieces = division.pieces();
        if pieces > limits::MAX_PIECES {
            return Err(DivisionError::TooManyPieces { pieces });
        }
        Ok(division)
    }

    /// A task of `length` bytes in pieces as Dragonfly cuts them: a 500th of the task, between 4 MiB and 64 MiB.
    ///
    /// # Errors
    /// [`DivisionError::TooManyPieces`] above 2^58 bytes.
    pub fn by_default(length: u64) -> Result<Self, DivisionError> {
        //= VTX-REQ-009
        let piece_length = (length / 500).clamp(4 << 20, 64 << 20);
        Self::new(length, PieceLength::try_from(piece_length).unwrap_or(PieceLength::MAX))
    }

    /// Bytes of the task.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of every piece but the last; never 0.
    #[must_use]
    pub fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// The number of pieces, 1 to 2^32. An empty task has one, which is empty.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        //= VTX-REQ-005
        //= VTX-REQ-006
        self.length.div_ceil(u64::from(self.piece_length).max(1)).max(1)
    }

    /// Where piece `number` lies; `None` when the task has no such piece.
    #[must_use]
    pub fn piece(&self, number: u32) -> Option<PieceSpan> {
        //= VTX-REQ-007
        if u64::from(number) >= self.pieces() {
            return None;
        }
        let offset = u64::from(number).checked_mul(self.piece_length.into())?;
        let length = self.length.checked_sub(offset)?.min(self.piece_length.into());
        Some(PieceSpan { offset, length: PieceLength::try_from(length).ok()? })
    }
}
