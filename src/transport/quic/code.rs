//! Application error codes.

use crate::wire::Escaped;
use quinn::{ConnectionError, VarInt};
use std::fmt;
use std::io;

/// What RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE carry. Codes explain and never decide (VTX-QUC-035), so that a
/// received one is for logs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AppCode {
    /// Done, or no reason given.
    NoError = 0,
    /// The sender of the code failed.
    Internal = 1,
    /// The peer sent what is not allowed here.
    Malformed = 2,
    /// A limit is reached: connections, streams, requests, bytes.
    Limit = 3,
    /// Something took longer than its deadline.
    Deadline = 4,
    /// The sender of the code is shutting down.
    GoingAway = 5,
    /// Content does not have the digest it should have.
    DigestMismatch = 6,
    /// What was asked for is no longer wanted.
    Cancelled = 7,
    /// The identity of the peer is not accepted.
    Refused = 8,
}

impl AppCode {
    /// All codes, in order.
    pub const ALL: [Self; 9] = [
        Self::NoError,
        Self::Internal,
        Self::Malformed,
        Self::Limit,
        Self::Deadline,
        Self::GoingAway,
        Self::DigestMismatch,
        Self::Cancelled,
        Self::Refused,
    ];

    /// The code behind a number that a peer sent; none for a number without a meaning.
    pub fn of(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| VarInt::from(*code) == number)
    }
}

/// The end of a connection, as whoever uses it is told. It may quote the peer, which steers no terminal by it.
pub(crate) fn ended(error: ConnectionError) -> io::Error {
    let told = Escaped(&error.to_string()).to_string();
    io::Error::new(io::Error::from(error).kind(), told)
}

impl From<AppCode> for VarInt {
    fn from(code: AppCode) -> Self {
        Self::from_u32(u32::from(code as u8))
    }
}

impl fmt::Display for AppCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoError => "no error",
            Self::Internal => "internal",
            Self::Malformed => "malformed",
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::GoingAway => "going away",
            Self::DigestMismatch => "digest mismatch",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_specification() {
        for (number, code) in (0..9).zip(AppCode::ALL) {
            assert_eq!(VarInt::from(code), VarInt::from_u32(number));
            assert_eq!(AppCode::of(VarInt::from_u32(number)), Some(code));
        }
        assert_eq!(AppCode::of(VarInt::from_u32(9)), None);
        assert_eq!(AppCode::of(VarInt::MAX), None);
    }
}
