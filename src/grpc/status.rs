//! How a call ended: a code and a message, in the headers of a response without content or in its trailers.

use crate::wire::{Bounded, ErrorCode, limits};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What a message escapes beside control characters and what is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The codes of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this text; what gRPC does not know is unknown.
    fn parse(text: &HeaderValue) -> Self {
        let number = text.to_str().ok().and_then(|text| text.parse::<u8>().ok());
        Self::ALL.into_iter().find(|code| Some(*code as u8) == number).unwrap_or(Self::Unknown)
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    /// In words; whoever made it, it is not safe for a terminal.
    pub(crate) message: String,
}

impl Status {
    pub(crate) const OK: Self = Self { code: Code::Ok, message: String::new() };

    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The status that a server ends with where it would send an Error packet over Vortex.
    pub(crate) fn from_error(code: ErrorCode, message: impl Into<String>) -> Self {
        let code = match code {
            ErrorCode::Unknown(_) => Code::Unknown,
            ErrorCode::InvalidArgument => Code::InvalidArgument,
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::Internal => Code::Internal,
        };
        Self::new(code, message)
    }

    /// The code of the Error packet that a server would have sent over Vortex: gRPC has more of them, to the same end.
    pub(crate) fn error_code(&self) -> ErrorCode {
        match self.code {
            Code::NotFound => ErrorCode::NotFound,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
                ErrorCode::InvalidArgument
            }
            // The server failed, or a limit is reached.
            Code::Internal
            | Code::DataLoss
            | Code::ResourceExhausted
            | Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded => ErrorCode::Internal,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated => ErrorCode::Unknown(0),
        }
    }

    /// The status in `headers`, if there is one. A message that can't be read is left out.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = Code::parse(headers.get(STATUS)?);
        let message = headers.get(MESSAGE).map(|text| percent_decode(text.as_bytes()).decode_utf8_lossy());
        Some(Self { code, message: message.unwrap_or_default().into_owned() })
    }

    /// Puts the status into `headers`.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, HeaderValue::from(u16::from(self.code as u8)));
        let message = Bounded::<{ limits::MAX_SENT_ERROR_MESSAGE_LEN }>::cut(&self.message);
        let message = utf8_percent_encode(message.as_str(), ESCAPED).to_string();
        // Escaped text is printable ASCII, which every header value may be.
        if let Ok(message) = HeaderValue::try_from(message)
            && !message.is_empty()
        {
            headers.insert(MESSAGE, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_status_reads_as_it_was_written(number in 0_usize..17, message in ".{0,40}") {
            let status = Status::new(Code::ALL[number], message);
            let mut headers = HeaderMap::new();
            status.write(&mut headers);
            prop_assert_eq!(Status::read(&headers), Some(status));
        }

        #[test]
        fn any_headers_make_a_status_or_none(code in "[ -~]{0,4}", message in "[ -~]{0,20}") {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, code.parse().unwrap());
            headers.insert(MESSAGE, message.parse().unwrap());
            let status = Status::read(&headers).unwrap();
            let known = code.parse::<u8>().ok().filter(|number| *number < 17);
            prop_assert_eq!(status.code as u8, known.unwrap_or(Code::Unknown as u8));
        }
    }
}
