//! 64 bytes of ASCII, a SHA-256 in lower-case hexadecimal. To the protocol it is a name.

use std::fmt;
use std::str::FromStr;

/// The name of a task: 64 lower-case hexadecimal digits, and nothing else, so that it is safe as a file name, in a log
/// and on a terminal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId([u8; Self::LEN]);

/// The text is no task id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTaskId {
    /// It has another length.
    #[error("{length} bytes, expected the 64 hexadecimal digits of a task id")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
    /// It has a byte that is no lower-case hexadecimal digit.
    #[error("byte {at} of the task id is 0x{byte:02x}, expected one of 0-9, a-f")]
    Byte {
        /// Which byte, from 0.
        at: u8,
        /// Its value.
        byte: u8,
    },
}

impl TaskId {
    /// Bytes of a task id.
    pub const LEN: usize = 64;

    /// The task id with these bytes.
    ///
    /// # Errors
    /// [`BadTaskId::Byte`] for the first byte that is not one of `0`-`9`, `a`-`f`.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, BadTaskId> {
        match Self::bad_byte(bytes) {
            None => Ok(Self(*bytes)),
            Some((at, byte)) => Err(BadTaskId::Byte { at, byte }),
        }
    }

    /// The first byte that is no lower-case hexadecimal digit, and where it is.
    #[inline]
    pub(super) fn bad_byte(bytes: &[u8; Self::LEN]) -> Option<(u8, u8)> {
        //= VTX-REQ-003
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        // Without an early end the compiler compares many bytes at a time; which byte it was is looked for afterwards.
        if bytes.iter().fold(true, |all, byte| all & is_digit(byte)) {
            return None;
        }
        (0u8..).zip(bytes).find(|(_, byte)| !is_digit(byte)).map(|(at, byte)| (at, *byte))
    }

    /// The task id that a SHA-256 gives.
    #[must_use]
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        //= VTX-REQ-002
        let mut digits = [0; Self::LEN];
        super::digest::hex(&hash, &mut digits);
        Self(digits)
    }

    /// Its 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are UTF-8; the check that says so costs nothing beside any use of the text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its first 12 digits: enough to tell tasks apart in a log, and no more than a line has room for.
    #[must_use]
    pub fn short(&self) -> &str {
        self.as_str().get(..12).unwrap_or_default()
    }

    /// Its 64 digits, as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl FromStr for TaskId {
    type Err = BadTaskId;
    fn from_str(text: &str) -> Result<Self, BadTaskId> {
        let bytes = text.as_bytes();
        let bytes = bytes.try_into().map_err(|_| BadTaskId::Length { length: bytes.len() })?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
