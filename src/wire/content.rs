//! ```text
//!  offset in the value
//!     0  metadata length   u32   bytes after this field: Length - 4
//!     4  number            u32
//!     8  offset            u64
//!    16  length            u64   content bytes, 0 to 1 GiB; they follow the packet
//!    24  digest length     u32   d
//!    28  digest            d bytes of UTF-8
//!  28+d  parent id length  u32   p
//!  32+d  parent id         p bytes of UTF-8
//!   +p   traffic type      u8
//!   +1   cost              u64   whole seconds
//!   +8   created at        i64   seconds since the epoch
//! ```

use super::{Bounded, DecodeError, DigestText, Header, PieceKind, Tag, limits};
use crate::canary::planted;
use bytes::BufMut;
use std::fmt;
use std::marker::PhantomData;

/// The number of content bytes of a piece: 0 to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PieceLength(u32);

/// A piece would be larger than any piece may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a piece of {0} bytes, expected at most {max}", max = limits::MAX_PIECE_LEN)]
pub struct PieceTooLong(pub u64);

impl PieceLength {
    /// The largest: 1 GiB.
    pub const MAX: Self = Self(limits::MAX_PIECE_LEN);

    /// The length in bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for PieceLength {
    type Error = PieceTooLong;
    #[inline]
    fn try_from(length: u64) -> Result<Self, PieceTooLong> {
        match u32::try_from(length) {
            Ok(length) if length <= limits::MAX_PIECE_LEN => Ok(Self(length)),
            _ => Err(PieceTooLong(length)),
        }
    }
}

impl From<PieceLength> for u64 {
    fn from(length: PieceLength) -> Self {
        length.0.into()
    }
}

impl fmt::Display for PieceLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the piece came from, as its server tells it. Any value is accepted; it decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrafficType(pub u8);

impl TrafficType {
    /// From the source of the task.
    pub const BACK_TO_SOURCE: Self = Self(0);
    /// From another peer: what a server says of every piece that it sends.
    pub const REMOTE_PEER: Self = Self(1);
    /// From this peer itself.
    pub const LOCAL_PEER: Self = Self(2);
}

/// The metadata of a piece: the value of a Content packet. The content bytes follow the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// The piece number.
    pub number: u32,
    /// Where the server says that the piece begins in its task. Not to be trusted: the client derives it.
    pub offset: u64,
    /// How many content bytes follow the packet.
    pub length: PieceLength,
    /// The digest of the content bytes, as text; may be empty. [`super::DigestClaim`] reads it.
    pub digest: Bounded<'a, { limits::MAX_DIGEST_LEN }>,
    /// Which peer the server has the piece from; may be empty.
    pub parent_id: Bounded<'a, { limits::MAX_PARENT_ID_LEN }>,
    /// Where the piece came from.
    pub traffic_type: TrafficType,
    /// How long the server took to get the piece, in whole seconds.
    pub cost: u64,
    /// When the server got the piece, in seconds since the Unix epoch; may be negative.
    pub created_at: i64,
}

impl<'a> Metadata<'a> {
    /// Bytes of the longest packet that is encoded.
    pub const MAX_PACKET_LEN: usize = limits::HEADER_LEN
        + limits::MIN_METADATA_LEN as usize
        + limits::MAX_DIGEST_LEN
        + limits::MAX_PARENT_ID_LEN;

    /// Bytes of the value before the digest.
    const BEFORE_DIGEST: usize = 28;
    /// Bytes of the value after the parent id.
    const AFTER_PARENT_ID: usize = 17;

    /// Appends the whole packet. At most [`Metadata::MAX_PACKET_LEN`] bytes; allocates nothing beyond what `out` does.
    #[inline]
    pub fn encode(&self, id: u8, kind: PieceKind, out: &mut impl BufMut) {
        //= VTX-CNT-001
        let (digest, digest_len) = text(self.digest);
        let (parent_id, parent_id_len) = text(self.parent_id);
        let length = limits::MIN_METADATA_LEN + digest_len + parent_id_len;
        // Fields of fixed length are written together: `out` looks for room at every call.
        let mut head = [0; limits::HEADER_LEN + Self::BEFORE_DIGEST];
        let mut front = head.as_mut_slice();
        //= VTX-FRM-004
        front.put_slice(&Header { id, tag: Tag::Content(kind), length }.encode());
        //= VTX-CNT-002
        front.put_u32(length - 4);
        front.put_u32(self.number);
        front.put_u64(self.offset);
        front.put_u64(u64::from(self.length) + u64::from(planted("length-off-by-one")));
        front.put_u32(digest_len);
        let mut tail = [0; Self::AFTER_PARENT_ID];
        let mut back = tail.as_mut_slice();
        back.put_u8(self.traffic_type.0);
        back.put_u64(self.cost);
        //= VTX-CNT-005
        back.put_i64(self.created_at);
        out.put_slice(&head);
        out.put_slice(digest);
        out.put_u32(parent_id_len);
        out.put_slice(parent_id);
        out.put_slice(&tail);
    }

    /// Reads a value, in the order of the specification's decoding table.
    #[inline]
    pub(super) fn decode<E: From<DecodeError>>(value: &'a [u8]) -> Result<Self, E> {
        let mut rest = Fields::<E> { bytes: value, error: PhantomData };
        let metadata_length = rest.u32("metadata length")?;
        //= VTX-CNT-003
        if usize::try_from(metadata_length) != Ok(rest.bytes.len()) {
            return Err(DecodeError::BadMetadata { field: "metadata length" }.into());
        }
        let number = rest.u32("number")?;
        let offset = rest.u64("offset")?;
        let length = rest.u64("length")?;
        //= VTX-CNT-010
        let length = PieceLength::try_from(length).map_err(|_| DecodeError::BadPieceLength { length })?;
        let digest = rest.text("the digest")?;
        let parent_id = rest.text("the parent id")?;
        let traffic_type = TrafficType(rest.u8("traffic type")?);
        let cost = rest.u64("cost")?;
        let created_at = rest.u64("created at")?.cast_signed();
        //= VTX-CNT-004
        Ok(Self { number, offset, length, digest, parent_id, traffic_type, cost, created_at })
    }
}

impl<'a> From<&'a DigestText> for Bounded<'a, { limits::MAX_DIGEST_LEN }> {
    fn from(text: &'a DigestText) -> Self {
        Self::cut(text.as_str())
    }
}

/// The bytes of a text and their number. The bounds are far below `u32::MAX`.
//= VTX-FRM-005
fn text<const MAX: usize>(text: Bounded<'_, MAX>) -> (&[u8], u32) {
    let bytes = text.as_str().as_bytes();
    (bytes, u32::try_from(bytes.len()).unwrap_or_default())
}

/// What is left of a value, and the error that it is refused with.
struct Fields<'a, E> {
    bytes: &'a [u8],
    error: PhantomData<E>,
}

impl<'a, E: From<DecodeError>> Fields<'a, E> {
    #[inline]
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], E> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::BadMetadata { field })?;
        self.bytes = rest;
        Ok(*bytes)
    }

    #[inline]
    fn u8(&mut self, field: &'static str) -> Result<u8, E> {
        self.take(field).map(u8::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self, field: &'static str) -> Result<u32, E> {
        self.take(field).map(u32::from_be_bytes)
    }

    #[inline]
    fn u64(&mut self, field: &'static str) -> Result<u64, E> {
        self.take(field).map(u64::from_be_bytes)
    }

    /// A length and as many bytes of text: present, then short enough, then UTF-8.
    #[inline]
    fn text<const MAX: usize>(&mut self, field: &'static str) -> Result<Bounded<'a, MAX>, E> {
        let length = self.u32(field)?;
        let parts = usize::try_from(length).ok().and_then(|length| self.bytes.split_at_checked(length));
        let (text, rest) = parts.ok_or(DecodeError::BadMetadata { field })?;
        self.bytes = rest;
        //= VTX-CNT-013
        Bounded::decode(field, text)
    }
}
