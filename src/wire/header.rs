//! ```text
//!  byte   0        1        2        3        4        5
//!         +--------+--------+--------+--------+--------+--------+
//!         |   id   |  tag   |       Length, big-endian          |
//!         +--------+--------+--------+--------+--------+--------+
//! ```

use super::{DecodeError, Tag, limits};

/// The first six bytes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Packet id: chosen by whoever asks, repeated in the answer, without meaning beyond that.
    pub id: u8,
    /// Which message the value holds.
    pub tag: Tag,
    /// Bytes of the value. Neither the header nor the content bytes of a piece count.
    pub length: u32,
}

impl Header {
    /// Reads a header. Any six bytes are one; whether its Length is acceptable is for [`Header::check`] to say.
    #[must_use]
    #[inline]
    pub fn decode(bytes: [u8; limits::HEADER_LEN]) -> Self {
        //= VTX-FRM-008
        let [id, tag, length @ ..] = bytes;
        Self { id, tag: Tag::from(tag), length: u32::from_be_bytes(length) }
    }

    /// Writes a header.
    #[must_use]
    #[inline]
    pub fn encode(self) -> [u8; limits::HEADER_LEN] {
        //= VTX-FRM-002
        //= VTX-FRM-003
        let [a, b, c, d] = self.length.to_be_bytes();
        [self.id, self.tag.into(), a, b, c, d]
    }

    /// Whether these bytes begin a record of TLS (RFC 8446, section 5.1): its type, and the version of a TLS that there is.
    ///
    /// The version's second byte is the first of Length, which makes that 2^24 or more: no packet's header looks so.
    #[must_use]
    pub fn is_tls_record(&self) -> bool {
        let [minor, ..] = self.length.to_be_bytes();
        matches!((self.id, u8::from(self.tag), minor), (0x14..=0x17, 0x03, 0x01..=0x04))
    }

    /// Judges Length, before a byte of the value is there.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], or [`DecodeError::BadLength`] where only this tag does not allow it.
    #[inline]
    pub fn check(&self) -> Result<(), DecodeError> {
        let (tag, length) = (self.tag, self.length);
        //= VTX-FRM-011
        if length > limits::MAX_VALUE_LEN {
            return Err(DecodeError::TooLong { header: *self });
        }
        //= VTX-FRM-012
        if !tag.lengths().contains(length) {
            return Err(DecodeError::BadLength { tag, length });
        }
        Ok(())
    }
}
