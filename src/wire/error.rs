//! ```text
//!  byte of the value   0       1                      Length
//!                      +-------+-----------...--------+
//!                      | code  |  message, UTF-8      |
//!                      +-------+-----------...--------+
//! ```

use super::{Bounded, DecodeError, Header, Tag, limits};
use bytes::BufMut;
use std::fmt;

/// What an Error packet says went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// 0, and every code from 4 to 255, whose number is kept for the report.
    Unknown(u8),
    /// 1: what arrived is not a request that can be parsed or accepted.
    InvalidArgument,
    /// 2: the task or the piece is not there.
    NotFound,
    /// 3: the server failed, or has reached a limit.
    Internal,
}

impl From<u8> for ErrorCode {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::InvalidArgument,
            2 => Self::NotFound,
            3 => Self::Internal,
            //= VTX-ERR-005
            _ => Self::Unknown(code),
        }
    }
}

impl From<ErrorCode> for u8 {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unknown(code) => code,
            ErrorCode::InvalidArgument => 1,
            ErrorCode::NotFound => 2,
            ErrorCode::Internal => 3,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(0) => f.write_str("unknown"),
            Self::Unknown(code) => write!(f, "unknown ({code})"),
            Self::InvalidArgument => f.write_str("invalid argument"),
            Self::NotFound => f.write_str("not found"),
            Self::Internal => f.write_str("internal"),
        }
    }
}

/// The value of an Error packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorMessage<'a> {
    /// What went wrong.
    pub code: ErrorCode,
    /// What went wrong, in words; may be empty.
    pub message: Bounded<'a, { limits::MAX_ERROR_MESSAGE_LEN }>,
}

impl<'a> ErrorMessage<'a> {
    /// Appends the whole packet: 7 bytes and those of the message.
    pub fn encode(&self, id: u8, out: &mut impl BufMut) {
        //= VTX-ERR-001
        //= VTX-FRM-005
        let message = self.message.as_str().as_bytes();
        let length = 1 + u32::try_from(message.len()).unwrap_or(limits::MAX_VALUE_LEN - 1);
        out.put_slice(&Header { id, tag: Tag::Error, length }.encode());
        out.put_u8(self.code.into());
        out.put_slice(message);
    }

    pub(super) fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((code, message)) = value.split_first() else {
            return Err(DecodeError::BadLength { tag: Tag::Error, length: 0 });
        };
        //= VTX-ERR-002
        let message = Bounded::decode::<DecodeError>("the message", message)?;
        Ok(Self { code: ErrorCode::from(*code), message })
    }
}
